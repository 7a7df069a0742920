//! Strings: short ones in the blocks of their keys, integers as such, long ones as objects in
//! parts.

use std::borrow::Cow;
use std::ops::Range;

use crate::effect::Effect;
use crate::entry::{EXPIRE_MAX, Kind};
use crate::keyspace::{Found, Keyspace, Refused};
use crate::long::{Long, PART_BYTES, Written};
use crate::object::Object;

/// A short string that is changed in part becomes a long one when it is longer than this, so that
/// the log has the change, and not the whole, each time.
const PATCHED_WHOLE_MAX: usize = 1024;

/// A string as it is kept.
#[derive(Clone, Copy)]
pub enum Text<'a> {
    /// The decimal form of an integer.
    Int(i64),
    /// Bytes.
    Short(&'a [u8]),
    /// Parts.
    Long(&'a Long),
}

impl<'a> Text<'a> {
    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Text::Int(number) => itoa::Buffer::new().format(*number).len(),
            Text::Short(bytes) => bytes.len(),
            Text::Long(long) => long.len(),
        }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of it in one piece.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        match self {
            Text::Int(number) => {
                Cow::Owned(itoa::Buffer::new().format(*number).as_bytes().to_vec())
            }
            Text::Short(bytes) => Cow::Borrowed(bytes),
            Text::Long(long) => {
                let mut bytes = Vec::with_capacity(long.len());
                long.copy_range(0..long.len(), &mut bytes);
                Cow::Owned(bytes)
            }
        }
    }

    /// Appends a range of it to `to`, as far as it reaches.
    pub fn copy_range(&self, range: Range<usize>, to: &mut Vec<u8>) {
        match self {
            Text::Long(long) => long.copy_range(range, to),
            _ => {
                let bytes = self.bytes();
                let end = range.end.min(bytes.len());
                to.extend_from_slice(&bytes[range.start.min(end)..end]);
            }
        }
    }

    /// The integer that it is the canonical decimal form of.
    pub fn int(&self) -> Option<i64> {
        match self {
            Text::Int(number) => Some(*number),
            Text::Short(bytes) => canonical_int(bytes),
            Text::Long(_) => None,
        }
    }
}

/// The integer whose canonical decimal form these bytes are: no sign but a minus, no leading zero,
/// and not minus zero.
#[inline]
pub fn canonical_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 || (digits[0] == b'0' && bytes.len() > 1) {
        return None;
    }
    let mut number = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    match negative {
        false => i64::try_from(number).ok(),
        true if number <= 1 << 63 => Some((number as i64).wrapping_neg()),
        true => None,
    }
}

impl Keyspace {
    /// The string of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    #[inline]
    pub fn text(&self, found: Found) -> Result<Text<'_>, Refused> {
        match self.kind(found) {
            Kind::Bytes => Ok(Text::Short(self.value(found))),
            Kind::Int => {
                let bytes = self.value(found).try_into().expect("an integer is eight bytes");
                Ok(Text::Int(i64::from_le_bytes(bytes)))
            }
            Kind::Object => match self.object(found) {
                Some(Object::Long(long)) => Ok(Text::Long(long)),
                _ => Err(Refused::WrongType),
            },
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its string.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    #[inline]
    pub fn get(&mut self, db: usize, key: &[u8]) -> Result<Option<Text<'_>>, Refused> {
        match self.find(db, key) {
            Some(found) => self.text(found).map(Some),
            None => Ok(None),
        }
    }

    /// Makes a key this string, whatever it was, with this time to expire at.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    #[inline]
    pub fn set(
        &mut self,
        db: usize,
        key: &[u8],
        value: &[u8],
        expire: Option<u64>,
    ) -> Result<(), Refused> {
        let hash = self.pool.hash(key);
        let found = self.find_hashed(db, key, hash);
        self.set_hashed(db, key, hash, found, value, expire)
    }

    /// The same for a key that was looked for.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    pub fn set_found(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        value: &[u8],
        expire: Option<u64>,
    ) -> Result<(), Refused> {
        let hash = found.map_or_else(|| self.pool.hash(key), |found| found.hash);
        self.set_hashed(db, key, hash, found, value, expire)
    }

    #[inline]
    fn set_hashed(
        &mut self,
        db: usize,
        key: &[u8],
        hash: u64,
        found: Option<Found>,
        value: &[u8],
        expire: Option<u64>,
    ) -> Result<(), Refused> {
        let expire = expire.map(|expire| expire.min(EXPIRE_MAX));
        if value.len() > PART_BYTES {
            self.set_long(db, key, found, value, expire)?;
        } else {
            self.set_short(db, key, found, value, expire)?;
            let (db, expire) = (self.dbs[db].id, expire.unwrap_or(0));
            self.journal.note(Effect::Set { db, key, expire, value });
        }
        self.touch_hashed(db, key, hash);
        Ok(())
    }

    #[inline]
    fn set_short(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        value: &[u8],
        expire: Option<u64>,
    ) -> Result<(), Refused> {
        /// The longest decimal form of an integer.
        const INT_BYTES_MAX: usize = 20;
        let number = match value.len() {
            2..=INT_BYTES_MAX => canonical_int(value).map(i64::to_le_bytes),
            _ => None,
        };
        let (kind, held) = match &number {
            Some(number) => (Kind::Int, &number[..]),
            None => (Kind::Bytes, value),
        };
        if expire.is_none() && found.is_some_and(|found| self.overwrite(found, kind, held)) {
            return Ok(());
        }
        self.put(db, key, found, kind, &[held], expire)?;
        Ok(())
    }

    fn set_long(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        value: &[u8],
        expire: Option<u64>,
    ) -> Result<Found, Refused> {
        let (found, number) = self.bind(db, key, found, Object::Long(Long::default()), expire)?;
        self.write_long(number, 0, value);
        Ok(found)
    }

    /// Writes to a long string, and notes it.
    fn write_long(&mut self, number: u32, at: usize, bytes: &[u8]) {
        let mut changed = Vec::new();
        let written = self.objects.with(number, |object| match object {
            Object::Long(long) => long.write(at, bytes, |written| changed.push(written)),
            _ => panic!("a long string is a long string"),
        });
        written.expect("the object of a key is there");
        for written in changed {
            match written {
                Written::Whole(part) => self.note_part(number, part),
                Written::Patch(part, range) => {
                    let Some(Object::Long(long)) = self.objects.get(number) else { continue };
                    let bytes = &long.part(part).expect("it was written").bytes;
                    let (at, value) = (range.start as u64, &bytes[range]);
                    let part = part as u64;
                    let effect = Effect::StringPatch { object: number, part, at, value };
                    self.journal.note(effect);
                }
            }
        }
    }

    /// Notes a part of a long string whole, under a base number of its own.
    pub(crate) fn note_part(&mut self, number: u32, part: usize) {
        let base = self.new_base();
        self.objects.with(number, |object| match object {
            Object::Long(long) => long.set_base(part, base),
            _ => panic!("a long string is a long string"),
        });
        let Some(Object::Long(long)) = self.objects.get(number) else { return };
        let value = &long.part(part).expect("it is there").bytes;
        let part = part as u64;
        self.journal.note(Effect::StringPart { object: number, part, base, value });
    }

    /// Writes bytes into a string at a place, with zeros up to there; a key that is not there is
    /// made. Returns the string's length.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn write_at(
        &mut self,
        db: usize,
        key: &[u8],
        at: usize,
        bytes: &[u8],
    ) -> Result<usize, Refused> {
        let found = self.find(db, key);
        let (len, short) = match found.map(|found| self.text(found)).transpose()? {
            None => (0, Some(Vec::new())),
            Some(Text::Long(long)) => (long.len(), None),
            Some(text) => (text.len(), Some(text.bytes().into_owned())),
        };
        let (end, expire) = (at + bytes.len(), found.and_then(|found| self.expires_at(found)));
        let Some(mut short) = short else {
            let number = found.and_then(|found| self.object_number(found));
            self.write_long(number.expect("a long string is an object"), at, bytes);
            self.touch(db, key);
            return Ok(len.max(end));
        };
        if len.max(end) <= PATCHED_WHOLE_MAX {
            if short.len() < end {
                short.resize(end, 0);
            }
            short[at..end].copy_from_slice(bytes);
            // Bytes, even if they look like an integer: what is changed in part is not counted with.
            self.put(db, key, found, Kind::Bytes, &[&short], expire)?;
            let (id, expire) = (self.dbs[db].id, expire.unwrap_or(0));
            self.journal.note(Effect::Set { db: id, key, expire, value: &short });
        } else {
            let long = Object::Long(Long::default());
            let (_, number) = self.bind(db, key, found, long, expire)?;
            if !short.is_empty() {
                self.write_long(number, 0, &short);
            }
            self.write_long(number, at, bytes);
        }
        self.touch(db, key);
        Ok(len.max(end))
    }

    /// Appends bytes to a string; a key that is not there is made. Returns its length.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn append(&mut self, db: usize, key: &[u8], bytes: &[u8]) -> Result<usize, Refused> {
        let len = self.get(db, key)?.map_or(0, |text| text.len());
        self.write_at(db, key, len, bytes)
    }

    /// Frees the value of a long string under a key that was found, if the number says it is one.
    pub(crate) fn long(&self, number: u32) -> Option<&Long> {
        match self.objects.get(number) {
            Some(Object::Long(long)) => Some(long),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Journal;

    #[test]
    fn canonical_integers_are_told_from_what_looks_like_them() {
        let yes = [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)];
        for (text, number) in yes {
            assert_eq!(canonical_int(text.as_bytes()), Some(number));
        }
        assert_eq!(canonical_int(b"-9223372036854775808"), Some(i64::MIN));
        for text in ["", "-", "-0", "01", "+1", " 1", "1 ", "9223372036854775808", "1e3"] {
            assert_eq!(canonical_int(text.as_bytes()), None, "{text}");
        }
        assert_eq!(canonical_int(b"-9223372036854775809"), None);
        assert_eq!(canonical_int(b"99999999999999999999"), None);
    }

    #[test]
    fn a_string_is_what_was_written_to_it_short_or_long() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut keys = Keyspace::new(1, 1, Journal::default());
        let mut plain: Vec<u8> = Vec::new();
        for round in 0..400 {
            match random.u8(0..20) {
                0 => {
                    plain = vec![b'x'; random.usize(0..200_000)];
                    keys.set(0, b"k", &plain, None).expect("there is memory");
                }
                1..10 => {
                    let bytes = vec![random.u8(..); random.usize(1..400)];
                    let len = keys.append(0, b"k", &bytes).expect("a string");
                    plain.extend_from_slice(&bytes);
                    assert_eq!(len, plain.len());
                }
                _ => {
                    let at = random.usize(0..plain.len() + 300);
                    let bytes = vec![random.u8(..); random.usize(1..3000)];
                    if plain.len() < at + bytes.len() {
                        plain.resize(at + bytes.len(), 0);
                    }
                    plain[at..at + bytes.len()].copy_from_slice(&bytes);
                    keys.write_at(0, b"k", at, &bytes).expect("a string");
                }
            }
            let text = keys.get(0, b"k").expect("a string").expect("it is there");
            assert_eq!(text.bytes(), plain, "round {round}");
        }
    }
}
