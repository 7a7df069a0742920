//! What the names and values of a device look like. Each check is a function of the text alone.
//!
//! | name | syntax |
//! |---|---|
//! | device id | one level of a topic: 1 to 128 bytes, none of them `/`, `+`, `#` or null, not beginning with `$` |
//! | app | 1 to 64 of `a`–`z`, `0`–`9`, `.`, `_`, `-` |
//! | platform | 1 to 32 of the same |
//! | app version | [`Version`] |
//! | language | BCP 47: language, script and region, as `zh`, `zh-CN`, `zh-Hant-TW`, in this case |
//! | time zone | a name as IANA gives them, `Asia/Shanghai`, `Etc/GMT+8` |
//! | tag, alias, key, value | text without control characters, and not empty |
//!
//! That there is a time zone of the name is checked elsewhere, and only when it is registered: that
//! changes with the database of them.

use crate::limits::{
    APP_BYTES_MAX, ID_BYTES_MAX, PLATFORM_BYTES_MAX, TIME_ZONE_BYTES_MAX, VERSION_BYTES_MAX,
};

/// Keys that no attribute has, since expressions mean something else by them.
pub const BUILT_IN_KEYS: [&str; 9] = [
    "alias",
    "app_version",
    "lang",
    "language",
    "platform",
    "registered",
    "tag",
    "test",
    "timezone",
];

pub(crate) fn is_id(text: &str) -> bool {
    let allowed = !text.starts_with('$') && !text.contains(['/', '+', '#', '\0']);
    allowed && (1..=ID_BYTES_MAX).contains(&text.len())
}

pub(crate) fn is_app(text: &str) -> bool {
    (1..=APP_BYTES_MAX).contains(&text.len()) && is_lower(text)
}

pub(crate) fn is_platform(text: &str) -> bool {
    (1..=PLATFORM_BYTES_MAX).contains(&text.len()) && is_lower(text)
}

fn is_lower(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

pub(crate) fn is_text(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.chars().any(char::is_control)
}

pub(crate) fn is_time_zone(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    };
    text.len() <= TIME_ZONE_BYTES_MAX && text.split('/').count() <= 3 && text.split('/').all(part)
}

pub(crate) fn is_language(text: &str) -> bool {
    let mut parts = text.split('-').peekable();
    let first = parts.next().unwrap_or_default();
    if !(2..=3).contains(&first.len()) || !first.bytes().all(|b| b.is_ascii_lowercase()) {
        return false;
    }
    parts.next_if(|part| is_script(part));
    parts.next_if(|part| is_region(part));
    parts.next().is_none()
}

fn is_script(part: &str) -> bool {
    let bytes = part.as_bytes();
    bytes.len() == 4
        && bytes[0].is_ascii_uppercase()
        && bytes[1..].iter().all(u8::is_ascii_lowercase)
}

fn is_region(part: &str) -> bool {
    let bytes = part.as_bytes();
    match bytes.len() {
        2 => bytes.iter().all(u8::is_ascii_uppercase),
        3 => bytes.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The version of an app: one to six numbers with dots between them, each below 2³², and then
/// perhaps `-`, `+` or a space and more text, at most 64 bytes together.
///
/// Versions compare number by number, and one that is not there is zero: `3.2` is `3.2.0`, and
/// before `3.10`. What comes behind the numbers is kept and not compared: `3.2-beta` is `3.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 6]);

impl Version {
    /// Reads a version; `None` if `text` is none.
    pub fn parse(text: &str) -> Option<Version> {
        if !is_text(text, VERSION_BYTES_MAX) {
            return None;
        }
        let end = text.find(['-', '+', ' ']).unwrap_or(text.len());
        let mut numbers = [0; 6];
        for (place, part) in text[..end].split('.').enumerate() {
            // `u32` would take a sign.
            if !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *numbers.get_mut(place)? = part.parse().ok()?;
        }
        Some(Version(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_number_by_number() {
        let version = |text| Version::parse(text).unwrap();
        assert!(version("3.2") < version("3.10"));
        assert!(version("3.2") < version("3.2.1"));
        assert_eq!(version("3.2"), version("3.2.0.0"));
        assert_eq!(version("3.2"), version("3.2-beta"));
        assert_eq!(version("03.2+77"), version("3.2 (77)"));
        for text in ["", ".", "3.", ".3", "v3", "-1", "3.+2", "4294967296", "1.2.3.4.5.6.7", "3,2"]
        {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn languages_are_written_as_bcp_47_recommends() {
        for text in ["zh", "zh-CN", "zh-Hant", "zh-Hant-TW", "es-419", "fil"] {
            assert!(is_language(text), "{text}");
        }
        for text in
            ["", "z", "ZH", "zh_CN", "zh-cn", "zh-", "zh-CN-Hant", "zhcn", "zh-CN-x", "中文"]
        {
            assert!(!is_language(text), "{text}");
        }
    }

    #[test]
    fn time_zones_have_the_form_that_iana_gives_them() {
        let names = [
            "UTC",
            "Asia/Shanghai",
            "America/Argentina/Ushuaia",
            "Etc/GMT+8",
            "America/Port-au-Prince",
        ];
        for text in names {
            assert!(is_time_zone(text), "{text}");
        }
        for text in ["", "/", "Asia/", "/Asia", "../etc", "Asia Shanghai", "+08:00", "a/b/c/d", "é"]
        {
            assert!(!is_time_zone(text), "{text}");
        }
    }
}
