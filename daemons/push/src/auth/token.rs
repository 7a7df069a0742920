//! Device tokens: passwords that a sender's side issues and the daemon checks without a database,
//! since only it has the key.
//!
//! ```text
//!   token      = "sxd1." base64url( expiry ‖ mac )               59 characters
//!              | "sxd2." base64url( expiry ‖ generation ‖ mac )  64 characters
//!   expiry     = seconds since 1970, 8 bytes, big-endian  the first second it is no longer valid
//!   generation = 4 bytes, big-endian                      that of the device when it was issued
//!   mac        = HMAC-SHA256( key, "sextant device token 1" ‖ 00 ‖ expiry ‖ device id )
//!              | HMAC-SHA256( key, "sextant device token 2" ‖ 00 ‖ expiry ‖ generation ‖ device id )
//! ```
//!
//! The device id is not in the token: it is the client id and the user name of the CONNECT.
//!
//! Whoever keeps a registry of devices has a generation for each ([`Generations`]), and ends all
//! tokens that a device has by counting it on. A token of the second form lets in while it is of
//! the device's generation. One of the first form has none: it lets in a device that is not
//! registered, or whose tokens were never ended. A new key (remove `token.key`, start again) ends
//! all tokens of all devices.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::rules::is_level;

/// The key's file in the data directory.
pub const KEY_FILE: &str = "token.key";
/// What every token without a generation begins with.
pub const PREFIX: &str = "sxd1.";
/// What every token with one begins with.
pub const PREFIX_OF_GENERATION: &str = "sxd2.";
/// The longest device id, in bytes.
pub const DEVICE_BYTES_MAX: usize = 128;

const KEY_BYTES: usize = 32;
const EXPIRY_BYTES: usize = 8;
const GENERATION_BYTES: usize = 4;
const MAC_BYTES: usize = 32;
const CONTEXT: &[u8] = b"sextant device token 1\0";
const CONTEXT_OF_GENERATION: &[u8] = b"sextant device token 2\0";

/// Which tokens of a device are valid. Asked on the cores: it may not wait.
pub trait Generations: Send + Sync {
    /// The generation of `device`, which counts how often all its tokens were ended; `None` if it
    /// is not registered.
    fn current(&self, device: &str) -> Option<u32>;
}

/// Whether a password may be a token of a device.
pub(super) fn looks_like_one(password: &[u8]) -> bool {
    password.starts_with(PREFIX.as_bytes()) || password.starts_with(PREFIX_OF_GENERATION.as_bytes())
}

/// A text that cannot be the id of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a device id has 1 to {DEVICE_BYTES_MAX} bytes, none of them `/`, `+`, `#` or null, and does \
     not begin with `$`"
)]
pub struct DeviceError;

/// Checks a device id: it is one level of the topics `d/{device}/…`.
///
/// # Errors
/// It is none.
pub fn check_device(device: &str) -> Result<(), DeviceError> {
    match is_level(device) && device.len() <= DEVICE_BYTES_MAX {
        true => Ok(()),
        false => Err(DeviceError),
    }
}

/// Why a token does not let a device in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It is not written as a token is.
    #[error("this is not a device token")]
    Malformed,
    /// It was issued for another device or under another key, or was made up.
    #[error("the token was not issued by this daemon for this device")]
    Forged,
    /// It was issued for this device, and its time is over.
    #[error("the token has expired")]
    Expired,
    /// It was issued for this device, and ended before its time.
    #[error("the token was revoked")]
    Revoked,
}

/// Why there is no key to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Others than its owner may read or write the file, or its owner is somebody else.
    #[error("{} must be readable by its owner alone: chmod 0600 it", .0.display())]
    Exposed(PathBuf),
    /// What is in it is no key.
    #[error(
        "{} does not hold {KEY_BYTES} bytes: restore it, or remove it and issue all tokens again",
        .0.display()
    )]
    Malformed(PathBuf),
    /// The file system or the system's randomness refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The key that tokens are made and checked with. Clones share it; it is never shown.
#[derive(Clone)]
pub struct TokenKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(<redacted>)")
    }
}

impl TokenKey {
    /// The key of these bytes, which nobody can guess.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> TokenKey {
        TokenKey(Arc::new(Zeroizing::new(bytes)))
    }

    /// Reads the key of the data directory `data`, or makes one: 32 random bytes, in a file of
    /// mode 0600 that is durable before this returns.
    ///
    /// Hold the lock of the directory meanwhile.
    ///
    /// # Errors
    /// The file is readable by others, holds no key, or cannot be read or written.
    pub fn load_or_create(data: &Path) -> Result<TokenKey, KeyError> {
        match TokenKey::load(data) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                TokenKey::create(data)
            }
            result => result,
        }
    }

    fn load(data: &Path) -> Result<TokenKey, KeyError> {
        let path = data.join(KEY_FILE);
        let io = |source| KeyError::Io { action: "read", path: path.clone(), source };
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(&path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() || !is_private(&metadata) {
            return Err(KeyError::Exposed(path));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
        file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        match <[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
            Ok(key) => Ok(TokenKey::from_bytes(key)),
            Err(_) => Err(KeyError::Malformed(path)),
        }
    }

    fn create(data: &Path) -> Result<TokenKey, KeyError> {
        let path = data.join(KEY_FILE);
        let fresh = data.join("token.key.new");
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| KeyError::Io { action, path, source }
        };
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key)
            .map_err(|error| io("make randomness for", &path)(io::Error::other(error)))?;
        // What a start that was cut short left behind.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("remove", &fresh)(error));
            }
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| {
                file.write_all(&*key)?;
                file.sync_all()
            })
            .map_err(io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("name", &path))?;
        File::open(data).and_then(|dir| dir.sync_all()).map_err(io("sync", data))?;
        Ok(TokenKey(Arc::new(key)))
    }

    /// A token that lets `device` in before `expires_at`, in seconds since 1970.
    ///
    /// # Errors
    /// `device` cannot be the id of a device.
    pub fn issue(&self, device: &str, expires_at: u64) -> Result<String, DeviceError> {
        check_device(device)?;
        Ok(self.made(PREFIX, CONTEXT, &expires_at.to_be_bytes(), device))
    }

    /// A token that lets `device` in before `expires_at`, in seconds since 1970, and while it is of
    /// this generation.
    ///
    /// # Errors
    /// `device` cannot be the id of a device.
    pub fn issue_at(
        &self,
        device: &str,
        expires_at: u64,
        generation: u32,
    ) -> Result<String, DeviceError> {
        check_device(device)?;
        let mut said = [0; EXPIRY_BYTES + GENERATION_BYTES];
        said[..EXPIRY_BYTES].copy_from_slice(&expires_at.to_be_bytes());
        said[EXPIRY_BYTES..].copy_from_slice(&generation.to_be_bytes());
        Ok(self.made(PREFIX_OF_GENERATION, CONTEXT_OF_GENERATION, &said, device))
    }

    fn made(&self, prefix: &str, context: &[u8], said: &[u8], device: &str) -> String {
        let mac = self.mac(context, said, device).finalize().into_bytes();
        format!("{prefix}{}", URL_SAFE_NO_PAD.encode([said, &mac].concat()))
    }

    /// Whether `token` lets `device`, whose generation is `current` if it is registered, in at the
    /// time `now`, in seconds since 1970. What is wrong with the code is not told apart by the time
    /// that this takes.
    ///
    /// # Errors
    /// Why it does not. [`TokenError::Expired`] and [`TokenError::Revoked`] only of a token that was
    /// issued for `device`.
    pub fn verify(
        &self,
        token: &[u8],
        device: &str,
        now: u64,
        current: Option<u32>,
    ) -> Result<(), TokenError> {
        let forms = [
            (PREFIX, CONTEXT, EXPIRY_BYTES),
            (PREFIX_OF_GENERATION, CONTEXT_OF_GENERATION, EXPIRY_BYTES + GENERATION_BYTES),
        ];
        let form = forms.iter().find(|(prefix, ..)| token.starts_with(prefix.as_bytes()));
        let (prefix, context, said_bytes) = form.ok_or(TokenError::Malformed)?;
        // Some bytes more than it takes: the decoder asks for room in groups of three.
        let mut bytes = [0; EXPIRY_BYTES + GENERATION_BYTES + MAC_BYTES + 2];
        let len = URL_SAFE_NO_PAD.decode_slice(&token[prefix.len()..], &mut bytes).ok();
        if len != Some(said_bytes + MAC_BYTES) || check_device(device).is_err() {
            return Err(TokenError::Malformed);
        }
        let (said, mac) = bytes[..said_bytes + MAC_BYTES].split_at(*said_bytes);
        self.mac(context, said, device).verify_slice(mac).map_err(|_| TokenError::Forged)?;
        let (expiry, generation) = said.split_first_chunk().ok_or(TokenError::Malformed)?;
        let valid = match generation.first_chunk() {
            Some(generation) => current == Some(u32::from_be_bytes(*generation)),
            None => current.is_none_or(|current| current == 0),
        };
        match (now < u64::from_be_bytes(*expiry), valid) {
            (true, true) => Ok(()),
            (false, _) => Err(TokenError::Expired),
            (true, false) => Err(TokenError::Revoked),
        }
    }

    /// A key for another use, which tells nothing of this one.
    pub(super) fn derive(&self, of: &str) -> [u8; KEY_BYTES] {
        let mac = keyed(&self.0).chain_update(b"sextant derived key 1\0").chain_update(of);
        mac.finalize().into_bytes().into()
    }

    fn mac(&self, context: &[u8], said: &[u8], device: &str) -> Hmac<Sha256> {
        keyed(&self.0).chain_update(context).chain_update(said).chain_update(device)
    }
}

/// HMAC-SHA256 under `key`.
pub(super) fn keyed(key: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes a key of any length [RFC 2104]"),
    }
}

/// Whether only its owner, who is this user or root, may read or write a file.
fn is_private(metadata: &fs::Metadata) -> bool {
    let owner = metadata.uid();
    let ours = owner == rustix::process::geteuid().as_raw() || owner == 0;
    ours && metadata.permissions().mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::from_bytes([7; 32])
    }

    #[test]
    fn a_token_lets_its_device_in_until_it_expires() {
        let token = key().issue("d1", 1000).unwrap();
        assert_eq!(token.len(), 59);
        assert_eq!(key().verify(token.as_bytes(), "d1", 0, None), Ok(()));
        assert_eq!(key().verify(token.as_bytes(), "d1", 999, None), Ok(()));
        assert_eq!(key().verify(token.as_bytes(), "d1", 1000, None), Err(TokenError::Expired));
        assert_eq!(key().verify(token.as_bytes(), "d2", 0, None), Err(TokenError::Forged));
        let other = TokenKey::from_bytes([8; 32]);
        assert_eq!(other.verify(token.as_bytes(), "d1", 0, None), Err(TokenError::Forged));
    }

    #[test]
    fn the_format_never_changes() {
        let token = key().issue("d1", 1_800_000_000).unwrap();
        assert_eq!(token, "sxd1.AAAAAGtJ0gA87Ge_oj6zwvn6_sXrnYKGRdGUoUctkzQjT6e9A_DgPw");
        let token = key().issue_at("d1", 1_800_000_000, 5).unwrap();
        assert_eq!(token, "sxd2.AAAAAGtJ0gAAAAAFMkxU0Q1DM0xA1Hr6hFvDSNIR1GDBQB6fmh-84tyWeDg");
    }

    #[test]
    fn no_changed_character_passes() {
        no_change_passes(key().issue("d1", 1000).unwrap().as_bytes());
        no_change_passes(key().issue_at("d1", 1000, 0).unwrap().as_bytes());
    }

    fn no_change_passes(token: &[u8]) {
        for place in 0..token.len() {
            for byte in 0..=255 {
                let mut changed = token.to_owned();
                changed[place] = byte;
                let passes = key().verify(&changed, "d1", 0, Some(0)).is_ok();
                assert_eq!(passes, changed == token, "{place} {byte}");
            }
        }
        for len in 0..token.len() {
            assert_eq!(key().verify(&token[..len], "d1", 0, Some(0)), Err(TokenError::Malformed));
        }
        let longer = [token, b"A"].concat();
        assert_eq!(key().verify(&longer, "d1", 0, Some(0)), Err(TokenError::Malformed));
        assert_eq!(key().verify(&[b'A'; 70_000], "d1", 0, Some(0)), Err(TokenError::Malformed));
    }

    #[test]
    fn a_token_of_a_generation_lets_its_device_in_while_it_is_of_it() {
        let token = key().issue_at("d1", 1000, 3).unwrap();
        assert_eq!(token.len(), 64);
        let verify = |device, now, current| key().verify(token.as_bytes(), device, now, current);
        assert_eq!(verify("d1", 999, Some(3)), Ok(()));
        for other in [None, Some(0), Some(2), Some(4), Some(u32::MAX)] {
            assert_eq!(verify("d1", 999, other), Err(TokenError::Revoked), "{other:?}");
        }
        assert_eq!(verify("d1", 1000, Some(3)), Err(TokenError::Expired));
        assert_eq!(verify("d1", 1000, Some(4)), Err(TokenError::Expired));
        assert_eq!(verify("d2", 999, Some(3)), Err(TokenError::Forged));
        let newest = key().issue_at("d1", 1000, u32::MAX).unwrap();
        assert_eq!(key().verify(newest.as_bytes(), "d1", 0, Some(u32::MAX)), Ok(()));
    }

    #[test]
    fn a_token_without_a_generation_ends_when_its_devices_tokens_are_first_ended() {
        let token = key().issue("d1", 1000).unwrap();
        let verify = |current| key().verify(token.as_bytes(), "d1", 999, current);
        assert_eq!((verify(None), verify(Some(0))), (Ok(()), Ok(())));
        assert_eq!(verify(Some(1)), Err(TokenError::Revoked));
        assert_eq!(verify(Some(u32::MAX)), Err(TokenError::Revoked));
    }

    #[test]
    fn a_token_of_one_form_is_none_of_the_other() {
        let (first, second) =
            (key().issue("d1", 1000).unwrap(), key().issue_at("d1", 1000, 0).unwrap());
        for (token, prefix) in [(first, PREFIX_OF_GENERATION), (second, PREFIX)] {
            let changed = format!("{prefix}{}", &token[PREFIX.len()..]);
            let verified = key().verify(changed.as_bytes(), "d1", 0, Some(0));
            assert_eq!(verified, Err(TokenError::Malformed));
        }
        // What the first form says of a device, the second does not say of another whose id begins
        // with what it takes for a generation.
        let token = key().issue("\u{1}\u{1}\u{1}\u{1}d1", 1000).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
        let said =
            [&bytes[..EXPIRY_BYTES], &[1; GENERATION_BYTES], &bytes[EXPIRY_BYTES..]].concat();
        let forged = format!("{PREFIX_OF_GENERATION}{}", URL_SAFE_NO_PAD.encode(said));
        let verified = key().verify(forged.as_bytes(), "d1", 0, Some(0x0101_0101));
        assert_eq!(verified, Err(TokenError::Forged));
    }

    #[test]
    fn device_ids_are_one_level_of_a_topic() {
        for device in ["d", "a b", "é", &"a".repeat(128), "a$", "{client}"] {
            assert_eq!(check_device(device), Ok(()), "{device}");
        }
        for device in ["", "a/b", "+", "#", "a+", "a\0", "$d", &"a".repeat(129)] {
            assert_eq!(check_device(device), Err(DeviceError), "{device}");
            assert_eq!(key().issue(device, 1000), Err(DeviceError));
        }
    }

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let token = TokenKey::load_or_create(dir.path()).unwrap().issue("d1", 10).unwrap();
        let found = TokenKey::load_or_create(dir.path()).unwrap();
        assert_eq!(found.verify(token.as_bytes(), "d1", 0, None), Ok(()));
        let path = dir.path().join(KEY_FILE);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o7777), (32, 0o600));
        let other = tempfile::tempdir().unwrap();
        let other = TokenKey::load_or_create(other.path()).unwrap();
        assert_eq!(other.verify(token.as_bytes(), "d1", 0, None), Err(TokenError::Forged));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        TokenKey::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = TokenKey::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::Exposed(_)), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        for len in [0, 31, 33, 4096] {
            fs::write(&path, vec![1; len]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = TokenKey::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::Malformed(_)), "{len}");
            assert_eq!(fs::metadata(&path).unwrap().len(), len as u64);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(TokenKey::load_or_create(dir.path()), Err(KeyError::Io { .. })));
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", key()), "TokenKey(<redacted>)");
    }
}
