//! Amounts with a unit, as a person writes them: [`Bytes`] (`"64MiB"`) and [`Span`] (`"20m"`).
//!
//! Both print in the largest unit that keeps them exact, so that what `--print-config` shows can
//! be read back to the same value.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Why a text is no amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// No number at its beginning.
    #[error("expected a number with a unit such as {example}, found \"{found}\"")]
    NotANumber {
        /// What was written.
        found: String,
        /// How it could be written.
        example: &'static str,
    },
    /// The unit is missing, or none of those known.
    #[error("\"{found}\" has no known unit: write one of {units}")]
    Unit {
        /// What was written.
        found: String,
        /// The units there are.
        units: &'static str,
    },
    /// More than the type can hold.
    #[error("\"{found}\" is too large: at most {max}")]
    TooLarge {
        /// What was written.
        found: String,
        /// The largest amount.
        max: &'static str,
    },
}

/// An amount of memory or disk, in bytes.
///
/// Written as a number of bytes (`1048576`) or with a unit: `B`, `kB` `MB` `GB` `TB` (powers of
/// 1000), `KiB` `MiB` `GiB` `TiB` (powers of 1024); fractions (`"1.5GiB"`) are fine, case does not
/// matter. A bare `K` or `M` is refused, since people mean either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(u64);

const BYTES_EXAMPLE: &str = "\"64MiB\"";
const BYTES_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl Bytes {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB (1024 bytes).
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many MiB (1024² bytes).
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many GiB (1024³ bytes).
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory.
    pub const fn as_usize(self) -> usize {
        const { assert!(usize::BITS == 64, "Sextant runs on 64-bit machines") };
        self.0 as usize
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shortest = BYTES_UNITS
            .iter()
            .filter(|(_, size)| self.0 != 0 && self.0.is_multiple_of(*size))
            .min_by_key(|(_, size)| self.0 / size);
        match shortest {
            Some(("B", _)) | None => write!(f, "{}B", self.0),
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
        }
    }
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, BYTES_EXAMPLE)?;
        let size = match unit {
            "" => 1,
            _ => BYTES_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, size)| *size)
                .ok_or_else(|| QuantityError::Unit {
                    found: text.to_owned(),
                    units: "B, kB, KiB, MB, MiB, GB, GiB, TB, TiB",
                })?,
        };
        let too_large = || QuantityError::TooLarge { found: text.to_owned(), max: "8EiB" };
        let bytes = number.times(u128::from(size)).ok_or_else(too_large)?;
        match u64::try_from(bytes) {
            Ok(bytes) if bytes <= i64::MAX as u64 => Ok(Self(bytes)),
            _ => Err(too_large()),
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl Visitor<'_> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as \"64MiB\", or a number of bytes")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Bytes, E> {
                u64::try_from(bytes)
                    .map(Bytes)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// A length of time.
///
/// Written as numbers with units, the larger first: `"50ms"`, `"10s"`, `"1h30m"`, `"7d"`;
/// fractions (`"1.5s"`) are fine. Units: `ns`, `us`, `ms`, `s`, `m`, `h`, `d`, `w`. `"0"` needs no
/// unit; a bare number is refused, since nobody can tell what it counts. At most 100 years, so
/// that adding a span to the present never overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

const SPAN_EXAMPLE: &str = "\"10s\"";
const SPAN_UNITS: [(&str, u128); 8] = [
    ("w", 7 * 86_400_000_000_000),
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const SPAN_NS_MAX: u128 = 36_525 * 86_400_000_000_000;

impl Span {
    /// So many milliseconds.
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    /// So many seconds.
    pub const fn secs(count: u64) -> Self {
        Self(Duration::from_secs(count))
    }

    /// So many minutes.
    pub const fn mins(count: u64) -> Self {
        Self(Duration::from_secs(count * 60))
    }

    /// So many days of 24 hours.
    pub const fn days(count: u64) -> Self {
        Self(Duration::from_secs(count * 86_400))
    }

    /// The same as the standard library's type.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0.as_nanos();
        if ns == 0 {
            return f.write_str("0s");
        }
        // Weeks are read, and written as days.
        let (unit, size) = SPAN_UNITS[1..]
            .iter()
            .find(|(_, size)| ns.is_multiple_of(*size))
            .unwrap_or(&SPAN_UNITS[SPAN_UNITS.len() - 1]);
        write!(f, "{}{unit}", ns / size)
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text.trim() == "0" {
            return Ok(Self::default());
        }
        let too_large =
            || QuantityError::TooLarge { found: text.to_owned(), max: "36525d (100 years)" };
        let bad_unit = || QuantityError::Unit {
            found: text.to_owned(),
            units: "ns, us, ms, s, m, h, d, w, the larger first",
        };
        let mut total: u128 = 0;
        let mut smallest = u128::MAX;
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (number, tail) = split(rest, SPAN_EXAMPLE)?;
            let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (name, behind) = tail.split_at(unit_len);
            let (_, size) =
                SPAN_UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(bad_unit)?;
            if *size >= smallest {
                return Err(bad_unit());
            }
            smallest = *size;
            let part = number.times(*size).ok_or_else(too_large)?;
            total = total.checked_add(part).ok_or_else(too_large)?;
            rest = behind.trim_start();
        }
        match u64::try_from(total) {
            _ if smallest == u128::MAX => {
                Err(QuantityError::NotANumber { found: text.to_owned(), example: SPAN_EXAMPLE })
            }
            Ok(ns) if total <= SPAN_NS_MAX => Ok(Self(Duration::from_nanos(ns))),
            _ => Err(too_large()),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;
        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time with its unit, such as \"10s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(SpanVisitor)
    }
}

/// A number with at most nine decimals, exact.
struct Decimal {
    whole: u128,
    /// In units of 10⁻⁹.
    nano: u128,
}

impl Decimal {
    /// `self * size`, rounded down; `None` when it does not fit.
    fn times(&self, size: u128) -> Option<u128> {
        let whole = self.whole.checked_mul(size)?;
        whole.checked_add(self.nano.checked_mul(size)? / 1_000_000_000)
    }
}

/// The number at the beginning of `text`, and what follows it without the space between.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(Decimal, &'a str), QuantityError> {
    let not_a_number = || QuantityError::NotANumber { found: text.to_owned(), example };
    let text_trimmed = text.trim();
    let end = text_trimmed
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text_trimmed.len());
    let (number, unit) = text_trimmed.split_at(end);
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 9 || fraction.contains('.') {
        return Err(not_a_number());
    }
    let whole = whole.parse().map_err(|_| not_a_number())?;
    let nano = format!("{fraction:0<9}").parse().map_err(|_| not_a_number())?;
    Ok((Decimal { whole, nano }, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_in_every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1GB", 1_000_000_000),
            ("1.5GiB", 3 << 29),
            ("10kB", 10_000),
            ("7B", 7),
            ("1_000", 1000),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn a_unit_that_people_read_two_ways_is_refused() {
        for text in ["1K", "64M", "1G", "1 gigabyte", "1.2.3MiB", "", "MiB", "-1", "9999999TiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_are_read_in_every_unit() {
        for (text, ns) in [
            ("0", 0),
            ("50ms", 50_000_000),
            ("10s", 10_000_000_000),
            ("20m", 1_200_000_000_000),
            ("7d", 604_800_000_000_000),
            ("1w", 604_800_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h 30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            ("3us", 3_000),
            ("1ns", 1),
        ] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_nanos(ns))), "{text}");
        }
    }

    #[test]
    fn a_span_without_a_unit_or_in_the_wrong_order_is_refused() {
        for text in ["10", "", "s", "10 seconds", "30m1h", "1h1h", "200000d", "-1s", "1e3s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_to_the_same_value() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let bytes = Bytes(random.u64(..) >> random.u32(1..64));
            assert_eq!(bytes.to_string().parse(), Ok(bytes), "{bytes}");
            let span = Span(Duration::from_nanos(random.u64(..) >> random.u32(3..64)));
            assert_eq!(span.to_string().parse(), Ok(span), "{span}");
        }
        assert_eq!(Bytes::mib(64).to_string(), "64MiB");
        assert_eq!(Bytes::new(1_000_000_000_000).to_string(), "1TB");
        assert_eq!(Span::mins(20).to_string(), "20m");
        assert_eq!(Span::secs(90).to_string(), "90s");
        assert_eq!(Span::days(7).to_string(), "7d");
    }
}
