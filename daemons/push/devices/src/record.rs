//! What the owner's log keeps, in bytes. Each record says how something is from now on, so that one
//! replayed twice changes nothing, and says it in texts, not in numbers that a life gave out; only
//! the numbers of devices and apps are kept for good.
//!
//! ```text
//!   record    version=1  kind  fields…
//!   1 app       number name
//!   2 device    number app flags registered_at updated_at generation id platform
//!               app_version? alias? time_zone? language? tags… attributes…
//!   3 removed   number at generation
//!   4 released  before
//!   5 numbers   next first_generation devices aliases
//!                                every number below `next` was given out; so many are to come
//!   6 retired   hour numbers…        of devices that were removed in that hour
//! ```
//!
//! Of a list its length comes first; numbers that ascend are told by their distances. An attribute
//! is its key, a byte that is 0 for a text and 1 for a number, and its value.

use crate::codec::{Put, Take, Unreadable};
use crate::device::{Draft, Scalar};

const VERSION: u8 = 1;

const APP: u8 = 1;
const DEVICE: u8 = 2;
const REMOVED: u8 = 3;
const RELEASED: u8 = 4;
const NUMBERS: u8 = 5;
const RETIRED: u8 = 6;

mod flag {
    pub(super) const TEST: u64 = 1;
    pub(super) const APP_VERSION: u64 = 1 << 1;
    pub(super) const ALIAS: u64 = 1 << 2;
    pub(super) const TIME_ZONE: u64 = 1 << 3;
    pub(super) const LANGUAGE: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = (1 << 5) - 1;
}

type Parsed<T> = Result<T, Unreadable>;

#[derive(Debug, PartialEq)]
pub(crate) enum Record<'a> {
    App { number: u16, name: &'a str },
    Device { number: u32, draft: Draft<'a> },
    Removed { number: u32, at: u64, generation: u32 },
    Released { before: u64 },
    Numbers(Numbers),
    Retired { hour: u32, numbers: Vec<u32> },
}

/// What a snapshot begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Numbers {
    /// The next number that nobody had.
    pub(crate) next: u32,
    /// The next device's generation of tokens.
    pub(crate) first_generation: u32,
    /// How many devices there are, which tells how much room they take.
    pub(crate) devices: u32,
    /// How many of them have an alias.
    pub(crate) aliases: u32,
}

impl<'a> Record<'a> {
    pub(crate) fn put(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Record::App { number, name } => {
                out.push(APP);
                out.number(u64::from(*number));
                out.text(name);
            }
            Record::Device { number, draft } => {
                out.push(DEVICE);
                out.number(u64::from(*number));
                put_draft(draft, &mut out);
            }
            Record::Removed { number, at, generation } => {
                out.push(REMOVED);
                out.number(u64::from(*number));
                out.number(*at);
                out.number(u64::from(*generation));
            }
            Record::Released { before } => {
                out.push(RELEASED);
                out.number(*before);
            }
            Record::Numbers(Numbers { next, first_generation, devices, aliases }) => {
                out.push(NUMBERS);
                for number in [next, first_generation, devices, aliases] {
                    out.number(u64::from(*number));
                }
            }
            Record::Retired { hour, numbers } => {
                out.push(RETIRED);
                out.number(u64::from(*hour));
                out.number(numbers.len() as u64);
                let mut last = 0;
                for number in numbers {
                    out.number(u64::from(number - last));
                    last = *number;
                }
            }
        }
        out
    }

    pub(crate) fn take(bytes: &'a [u8]) -> Parsed<Record<'a>> {
        let mut from = Take::new(bytes);
        if from.byte()? != VERSION {
            return Err(Unreadable);
        }
        let record = match from.byte()? {
            APP => Record::App { number: from.small()?, name: from.text()? },
            DEVICE => Record::Device { number: from.medium()?, draft: take_draft(&mut from)? },
            REMOVED => Record::Removed {
                number: from.medium()?,
                at: from.number()?,
                generation: from.medium()?,
            },
            RELEASED => Record::Released { before: from.number()? },
            NUMBERS => Record::Numbers(Numbers {
                next: from.medium()?,
                first_generation: from.medium()?,
                devices: from.medium()?,
                aliases: from.medium()?,
            }),
            RETIRED => Record::Retired { hour: from.medium()?, numbers: take_numbers(&mut from)? },
            _ => return Err(Unreadable),
        };
        from.end()?;
        Ok(record)
    }
}

fn take_numbers(from: &mut Take<'_>) -> Parsed<Vec<u32>> {
    let mut last = 0u32;
    let count = from.count()?;
    let next = |_| {
        last = last.checked_add(from.medium()?).ok_or(Unreadable)?;
        Ok(last)
    };
    (0..count).map(next).collect()
}

fn put_draft(draft: &Draft<'_>, out: &mut Vec<u8>) {
    let mut flags = if draft.test { flag::TEST } else { 0 };
    let options = [
        (draft.app_version, flag::APP_VERSION),
        (draft.alias, flag::ALIAS),
        (draft.time_zone, flag::TIME_ZONE),
        (draft.language, flag::LANGUAGE),
    ];
    for (option, bit) in options {
        flags |= if option.is_some() { bit } else { 0 };
    }
    out.number(u64::from(draft.app));
    out.number(flags);
    out.number(draft.registered_at);
    out.number(draft.updated_at);
    out.number(u64::from(draft.token_generation));
    out.text(draft.id);
    out.text(draft.platform);
    options.iter().filter_map(|(option, _)| *option).for_each(|text| out.text(text));
    out.number(draft.tags.len() as u64);
    draft.tags.iter().for_each(|tag| out.text(tag));
    out.number(draft.attributes.len() as u64);
    for (key, value) in &draft.attributes {
        out.text(key);
        match value {
            Scalar::Text(text) => {
                out.push(0);
                out.text(text);
            }
            Scalar::Number(number) => {
                out.push(1);
                out.value(*number);
            }
        }
    }
}

fn take_draft<'a>(from: &mut Take<'a>) -> Parsed<Draft<'a>> {
    let app = from.small()?;
    let flags = from.number()?;
    if flags & !flag::KNOWN != 0 {
        return Err(Unreadable);
    }
    let (registered_at, updated_at) = (from.number()?, from.number()?);
    let token_generation = from.medium()?;
    let (id, platform) = (from.text()?, from.text()?);
    let mut option = |bit| if flags & bit != 0 { from.text().map(Some) } else { Ok(None) };
    let (app_version, alias) = (option(flag::APP_VERSION)?, option(flag::ALIAS)?);
    let (time_zone, language) = (option(flag::TIME_ZONE)?, option(flag::LANGUAGE)?);
    let count = from.count()?;
    let tags = (0..count).map(|_| from.text()).collect::<Parsed<Vec<_>>>()?;
    let count = from.count()?;
    let attribute = |_| {
        let key = from.text()?;
        let value = match from.byte()? {
            0 => Scalar::Text(from.text()?),
            1 => Scalar::Number(from.value()?),
            _ => return Err(Unreadable),
        };
        Ok((key, value))
    };
    let attributes = (0..count).map(attribute).collect::<Parsed<Vec<_>>>()?;
    if !tags.is_sorted_by(|a, b| a < b) || !attributes.is_sorted_by(|(a, _), (b, _)| a < b) {
        return Err(Unreadable);
    }
    Ok(Draft {
        id,
        app,
        platform,
        app_version,
        alias,
        tags,
        attributes,
        time_zone,
        language,
        test: flags & flag::TEST != 0,
        registered_at,
        updated_at,
        token_generation,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Records written by the first version of this format.
    #[test]
    fn the_format_never_changes() {
        let app = Record::App { number: 3, name: "shop" };
        assert_eq!(app.put(), b"\x01\x01\x03\x04shop");
        let draft = Draft {
            id: "d1",
            app: 3,
            platform: "ios",
            app_version: Some("3.2"),
            alias: None,
            tags: vec!["a", "b"],
            attributes: vec![("age", Scalar::Number(18.into())), ("city", Scalar::Text("sz"))],
            time_zone: None,
            language: Some("zh"),
            test: true,
            registered_at: 300,
            updated_at: 301,
            token_generation: 2,
        };
        let bytes = b"\x01\x02\x81\x01\x03\x13\xAC\x02\xAD\x02\x02\x02d1\x03ios\x033.2\x02zh\
            \x02\x01a\x01b\x02\x03age\x01\x48\x04city\x00\x02sz";
        let device = Record::Device { number: 129, draft };
        assert_eq!(device.put(), bytes);
        assert_eq!(Record::take(bytes), Ok(device));
        let removed = Record::Removed { number: 1, at: 300, generation: 2 };
        assert_eq!(removed.put(), b"\x01\x03\x01\xAC\x02\x02");
        assert_eq!(Record::Released { before: 1 }.put(), b"\x01\x04\x01");
        let numbers = Numbers { next: 128, first_generation: 9, devices: 2, aliases: 1 };
        assert_eq!(Record::Numbers(numbers).put(), b"\x01\x05\x80\x01\x09\x02\x01");
        let retired = Record::Retired { hour: 5, numbers: vec![7, 9, 300] };
        assert_eq!(retired.put(), b"\x01\x06\x05\x03\x07\x02\xA3\x02");
        assert_eq!(Record::take(&retired.put()), Ok(retired));
    }

    #[test]
    fn what_a_later_version_writes_is_refused() {
        for bytes in [&b""[..], b"\x01", b"\x02\x01\x03\x04shop", b"\x01\x07\x01"] {
            assert_eq!(Record::take(bytes), Err(Unreadable), "{bytes:?}");
        }
        assert_eq!(Record::take(b"\x01\x01\x03\x04shop!"), Err(Unreadable));
        assert_eq!(Record::take(b"\x01\x01\x03\x04sho"), Err(Unreadable));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_bytes_are_read_that_would_not_be_written(bytes: Vec<u8>, kind in 1u8..7) {
            let bytes = [&[VERSION, kind][..], &bytes].concat();
            if let Ok(record) = Record::take(&bytes) {
                let again = record.put();
                prop_assert_eq!(Record::take(&again), Ok(record));
            }
        }
    }
}
