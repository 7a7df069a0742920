//! JSON objects that are objects. What serde derives for a struct also takes an array of its
//! fields, in their order; no API says that order, and what was meant otherwise would be taken for
//! something else.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A struct that is read from an object alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Object<T>, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        from.deserialize_map(OfMap(PhantomData))
    }
}

/// For a field that is null, left out, or a struct that is read from an object alone.
///
/// # Errors
/// It is something else.
pub(crate) fn option<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Object<T>>::deserialize(from)?.map(|object| object.0))
}

#[cfg(test)]
mod tests {
    use super::Object;
    use crate::model::Request;

    #[test]
    fn an_array_of_fields_is_not_taken_for_an_object() {
        let read = serde_json::from_str::<Object<Request>>;
        assert!(read(r#"{"target":{"device":"a"},"notification":{"title":"x"}}"#).is_ok());
        assert!(read(r#"{"target":{"device":"a"},"notification":null}"#).is_ok());
        for wrong in [
            r#"[{"device":"a"},"name",{"title":"x"}]"#,
            r#"{"target":{"device":"a"},"notification":["x"]}"#,
            r#"{"target":["device","a"]}"#,
            "null",
            "7",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let repeated = read(r#"{"target":{"device":"a"},"name":"x","name":"y"}"#).unwrap_err();
        assert!(repeated.to_string().contains("duplicate field `name`"), "{repeated}");
    }
}
