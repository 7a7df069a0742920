//! When what a daemon acknowledges is kept: [`Durability`], as an operator writes it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{QuantityError, Span};

/// When something counts as kept: `"always"`, `"os"`, or a length of time such as `"50ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once the disk has it.
    Always,
    /// At once; the disk has it after this long.
    Every(Span),
    /// Once the kernel has it.
    Os,
}

/// Why a text is no durability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected \"always\", \"os\", or a length of time such as \"50ms\": {0}")]
pub struct DurabilityError(#[from] QuantityError);

impl Durability {
    /// What is wrong with it, if it is a length of time that nobody can mean.
    ///
    /// # Errors
    ///
    /// What it has to be.
    pub fn check(self) -> Result<(), &'static str> {
        let sane = Duration::from_millis(1)..=Duration::from_secs(60);
        match self {
            Durability::Every(span) if !sane.contains(&span.get()) => {
                Err("must be 1ms to 60s, or \"always\" to lose nothing, or \"os\"")
            }
            _ => Ok(()),
        }
    }
}

impl FromStr for Durability {
    type Err = DurabilityError;

    fn from_str(text: &str) -> Result<Self, DurabilityError> {
        match text {
            "always" => Ok(Durability::Always),
            "os" => Ok(Durability::Os),
            _ => Ok(Durability::Every(text.parse()?)),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Always => f.write_str("always"),
            Durability::Os => f.write_str("os"),
            Durability::Every(span) => span.fmt(f),
        }
    }
}

impl Serialize for Durability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Durability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_is_read_as_it_is_printed() {
        for text in ["always", "os", "50ms", "2s"] {
            let durability: Durability = text.parse().unwrap();
            assert_eq!(durability.to_string(), text);
            assert_eq!(durability.check(), Ok(()));
        }
        for text in ["", "never", "50", "Always"] {
            assert!(text.parse::<Durability>().is_err(), "{text}");
        }
        for text in ["0ms", "1h"] {
            assert!(text.parse::<Durability>().unwrap().check().is_err(), "{text}");
        }
    }
}
