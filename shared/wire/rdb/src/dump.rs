//! A value on its own, as DUMP gives it and RESTORE takes it.
//!
//! ```text
//!   type u8 · value · version u16 · checksum u64 of all before
//! ```

use crate::crc64::checksum;
use crate::decode::Decoder;
use crate::input::Input;
use crate::reader::{REDIS_VERSION_MAX, VALKEY_VERSION};
use crate::value::Value;
use crate::writer::{VERSION, WriteError, check, put_value, value_type};

/// Bytes of the version and the checksum.
const FOOTER_BYTES: usize = 10;

/// Why a payload is not restored, in Redis' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// From a newer server, or damaged.
    #[error("DUMP payload version or checksum are wrong")]
    VersionOrChecksum,
    /// What it holds means nothing, is empty, or is a module's.
    #[error("Bad data format")]
    Format,
}

/// A payload that servers since Redis 7.0 restore.
pub fn dump(value: &Value) -> Result<Vec<u8>, WriteError> {
    check(value)?;
    let mut out = vec![value_type(value.kind())?];
    put_value(value, &mut out);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&checksum(&out).to_le_bytes());
    Ok(out)
}

/// The value of a payload. A collection that is empty is refused, but a stream may be.
pub fn restore(payload: &[u8]) -> Result<Value, RestoreError> {
    let Some((body, sum)) = payload.split_last_chunk::<8>() else {
        return Err(RestoreError::VersionOrChecksum);
    };
    let Some((value, version)) = body.split_last_chunk::<2>() else {
        return Err(RestoreError::VersionOrChecksum);
    };
    debug_assert_eq!(value.len() + FOOTER_BYTES, payload.len());
    let version = u16::from_le_bytes(*version);
    let is_read = version <= REDIS_VERSION_MAX || version == VALKEY_VERSION;
    if !is_read || checksum(body) != u64::from_le_bytes(*sum) {
        return Err(RestoreError::VersionOrChecksum);
    }
    read(value).ok_or(RestoreError::Format)
}

fn read(bytes: &[u8]) -> Option<Value> {
    let (value_type, bytes) = bytes.split_first()?;
    let mut decoder = Decoder::new(*value_type).ok()?;
    let mut value = Value::empty(decoder.kind())?;
    let mut input = Input::new(bytes);
    while let Some(elements) = decoder.next(&mut input).ok()? {
        if !value.extend(elements) {
            return None;
        }
    }
    let is_empty = match &value {
        Value::List(words) | Value::Set(words) => words.is_empty(),
        Value::ZSet(pairs) => pairs.is_empty(),
        Value::Hash(pairs) => pairs.is_empty(),
        Value::Text(_) | Value::Stream(_) => false,
    };
    (!is_empty && input.is_at_end()).then_some(value)
}
