//! A request's JSON object, read strictly: what is wrong is said of the key that it stands under.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use sextant_service::admin::Problem;
use sextant_service::config::Span;

use super::unprocessable;

/// Keys longer than this are not compared with those that exist, nor told in full; in bytes.
const KEY_BYTES_TOLD: usize = 64;

/// The fields of one object. Each is taken once.
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    /// Reads `body`, an object with no other keys than `known`.
    ///
    /// # Errors
    /// 400 if it is no JSON, 422 if it is no such object.
    pub(super) fn parse(body: &[u8], known: &[&str]) -> Result<Fields, Problem> {
        let object: Object = serde_json::from_slice(body).map_err(|error| {
            let detail = format!("the body: {error}");
            match error.classify() {
                Category::Data => unprocessable(detail),
                _ => Problem::bad_request(detail),
            }
        })?;
        match object.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(Fields(object.0)),
            Some((key, _)) => Err(unknown(key, known)),
        }
    }

    pub(super) fn string(&mut self, key: &str) -> Result<Option<String>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(misfit(key, "a string", &other)),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, Problem> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(misfit(key, "true or false", &other)),
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ => Err(misfit(key, &format!("a whole number from {min} to {max}"), &value)),
        }
    }

    /// A length of time: a number of seconds, or text such as `1h`.
    pub(super) fn span(
        &mut self,
        key: &str,
        min: Duration,
        max: Duration,
    ) -> Result<Option<Duration>, Problem> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let length = match &value {
            Value::Number(number) => number.as_u64().map(Duration::from_secs),
            Value::String(text) => match text.parse::<Span>() {
                Ok(span) => Some(span.get()),
                Err(error) => return Err(unprocessable(format!("`{key}`: {error}"))),
            },
            _ => None,
        };
        match length {
            Some(length) if (min..=max).contains(&length) => Ok(Some(length)),
            Some(_) => {
                let (min, max) = (min.as_secs(), max.as_secs() / 86_400);
                Err(unprocessable(format!("`{key}`: must be {min}s to {max}d")))
            }
            None => Err(misfit(key, "whole seconds, or a text such as \"1h\"", &value)),
        }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(index).1)
    }
}

fn unknown(key: &str, known: &[&str]) -> Problem {
    let told: String = key.chars().take(KEY_BYTES_TOLD).collect();
    let nearest = known
        .iter()
        .filter(|_| key.len() <= KEY_BYTES_TOLD)
        .map(|name| (strsim::damerau_levenshtein(&key.to_lowercase(), name), *name))
        .filter(|(distance, name)| *distance <= name.len().max(key.len()).div_ceil(3))
        .min();
    unprocessable(match nearest {
        Some((_, nearest)) => format!("unknown key `{told}`; did you mean `{nearest}`?"),
        None => format!("unknown key `{told}`; there are `{}`", known.join("`, `")),
    })
}

fn misfit(key: &str, expected: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    unprocessable(format!("`{key}`: expected {expected}, found {found}"))
}

/// An object whose keys are all different, in their order.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// More keys than any of our objects has: further ones are not looked at.
const KEYS_MAX: usize = 32;

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields: Vec<(String, Value)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if fields.iter().any(|(name, _)| *name == key) {
                let told: String = key.chars().take(KEY_BYTES_TOLD).collect();
                return Err(A::Error::custom(format_args!("the key `{told}` is given twice")));
            }
            if fields.len() == KEYS_MAX {
                return Err(A::Error::custom(format_args!("more than {KEYS_MAX} keys")));
            }
            fields.push((key, value));
        }
        Ok(Object(fields))
    }
}
