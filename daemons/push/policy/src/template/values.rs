//! What a target brings for the variables of a message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Names;

/// Variables that are not those of a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variables of a target are a JSON object of texts, numbers, true and false: {why}")]
pub struct ValueError {
    /// What is wrong.
    pub why: String,
}

/// A target's values for [`Names`], borrowed from where they were read.
#[derive(Clone, Debug, Default)]
pub struct Values<'a>(Vec<Option<Cow<'a, str>>>);

impl<'a> Values<'a> {
    /// A target without variables.
    pub fn none() -> Values<'a> {
        Values::default()
    }

    /// The values in a JSON object, such as `{"name":"Ada","count":3}`. A number stands as it is
    /// written; null is as good as absent; of two with one name the last counts. What `names` does
    /// not have is passed over.
    ///
    /// # Errors
    /// It is no JSON object, or a variable is an array or an object.
    pub fn of_json(names: &Names, object: &'a str) -> Result<Values<'a>, ValueError> {
        let mut from = serde_json::Deserializer::from_str(object);
        let values = from.deserialize_map(Object(names)).and_then(|values| {
            from.end()?;
            Ok(values)
        });
        values.map_err(|error| ValueError { why: error.to_string() })
    }

    /// Sets a value, as from a column of a table. A name that no template has is passed over.
    pub fn set(&mut self, names: &Names, name: &str, value: &'a str) {
        if let Some(number) = names.find(name) {
            self.put(number, Some(Cow::Borrowed(value)));
        }
    }

    /// These values, and those of `other` where there are none.
    #[must_use]
    pub fn or(mut self, other: Values<'a>) -> Values<'a> {
        for (number, value) in other.0.into_iter().enumerate() {
            if value.is_some() && self.get(number).is_none() {
                self.put(number, value);
            }
        }
        self
    }

    fn put(&mut self, number: usize, value: Option<Cow<'a, str>>) {
        if number >= self.0.len() {
            self.0.resize(number + 1, None);
        }
        self.0[number] = value;
    }

    pub(super) fn get(&self, number: usize) -> Option<&str> {
        self.0.get(number)?.as_deref()
    }
}

struct Object<'n>(&'n Names);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Values<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of variables")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values<'de>, A::Error> {
        let mut values = Values(vec![None; self.0.0.len()]);
        while let Some(number) = map.next_key_seed(Key(self.0))? {
            let Some(number) = number else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &RawValue = map.next_value()?;
            values.put(number, scalar(raw.get()).map_err(serde::de::Error::custom)?);
        }
        Ok(values)
    }
}

/// The number of the variable that a member names.
struct Key<'n>(&'n Names);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Option<usize>, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a variable")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.find(name))
    }
}

/// The text of a JSON value that is no array and no object.
fn scalar(json: &str) -> Result<Option<Cow<'_, str>>, String> {
    match json.as_bytes() {
        [b'"', inside @ .., b'"'] if !inside.contains(&b'\\') => {
            Ok(Some(Cow::Borrowed(&json[1..json.len() - 1])))
        }
        [b'"', ..] => {
            let text: String = serde_json::from_str(json).map_err(|error| error.to_string())?;
            Ok(Some(Cow::Owned(text)))
        }
        [b'n', ..] => Ok(None),
        [b'[' | b'{', ..] => Err("a variable is neither an array nor an object".to_owned()),
        _ => Ok(Some(Cow::Borrowed(json))),
    }
}
