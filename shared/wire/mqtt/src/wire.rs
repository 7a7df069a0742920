//! The data types of section 1.5: a [`Reader`] that takes them off a slice, and a [`Sink`] they
//! are put into. Encoding runs twice over the same code, first into a [`Counter`], then into a
//! `Vec<u8>` of exactly that capacity.

use crate::REMAINING_LEN_MAX;
use crate::error::DecodeError;

/// Takes fields off the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Fails where bytes are left over.
    pub(crate) const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        // [MQTT-1.5.4-3]: no character is taken off.
        // [MQTT-1.5.4-1]
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::IllFormedString)?;
        // [MQTT-1.5.4-2]
        if bytes.contains(&0) { Err(DecodeError::NullCharacter) } else { Ok(text) }
    }

    pub(crate) fn variable(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = variable(self.rest)?.ok_or(DecodeError::Truncated)?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    /// The property block: its length, then that many bytes.
    pub(crate) fn block(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.variable()?;
        self.take(len as usize)
    }
}

/// The variable byte integer at the front of `bytes` and its length; `None` where it is cut off.
pub(crate) fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0u32;
    for at in 0..4 {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1]: no more bytes than the value needs.
            let canonical = at == 0 || byte != 0;
            return if canonical {
                Ok(Some((value, at + 1)))
            } else {
                Err(DecodeError::VariableInteger)
            };
        }
    }
    Err(DecodeError::VariableInteger)
}

/// Bytes that the variable byte integer `value` takes.
pub(crate) const fn variable_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// Where encoded bytes go.
pub(crate) trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);

    /// Appends a field with its two-byte length.
    fn binary(&mut self, bytes: &[u8]);

    /// Appends a string with its two-byte length.
    fn string(&mut self, text: &str);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn variable(&mut self, value: u32) {
        let mut rest = value;
        loop {
            let low = (rest & 0x7F) as u8;
            rest >>= 7;
            self.u8(if rest == 0 { low } else { low | 0x80 });
            if rest == 0 {
                return;
            }
        }
    }
}

/// Counts what would be written, and notices what cannot be.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counter {
    pub(crate) len: usize,
    pub(crate) field_too_long: bool,
    pub(crate) null_character: bool,
}

impl Sink for Counter {
    fn put(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
    }

    fn binary(&mut self, bytes: &[u8]) {
        self.field_too_long |= bytes.len() > usize::from(u16::MAX);
        self.len += 2 + bytes.len();
    }

    fn string(&mut self, text: &str) {
        // [MQTT-1.5.4-2]
        self.null_character |= text.as_bytes().contains(&0);
        self.binary(text.as_bytes());
    }

    fn variable(&mut self, value: u32) {
        self.len += variable_len(value);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn binary(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= usize::from(u16::MAX), "a field's length was counted before");
        self.u16(bytes.len() as u16);
        self.extend_from_slice(bytes);
    }

    fn string(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }
}

/// Whether `len` bytes can follow a fixed header.
pub(crate) const fn remaining_len(len: usize) -> Option<u32> {
    if len <= REMAINING_LEN_MAX as usize { Some(len as u32) } else { None }
}
