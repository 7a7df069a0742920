//! The admin token: made at the first start, kept beside the data, compared in constant time.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;

use crate::process::DataDir;

/// The token's file in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

const RANDOM_BYTES: usize = 32;
const LEN_MIN: usize = 32;
const LEN_MAX: usize = 256;

/// Why there is no token to use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Others than its owner may read or write the file, or its owner is somebody else.
    #[error("{} must be readable by its owner alone: chmod 0600 it, or remove it", .0.display())]
    Exposed(PathBuf),
    /// What is in it is no token.
    #[error("an admin token is {LEN_MIN} to {LEN_MAX} visible ASCII characters without spaces")]
    Malformed,
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

/// The one token that the admin port knows. Never shown.
#[derive(Clone)]
pub struct AdminToken(String);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(<redacted>)")
    }
}

impl AdminToken {
    /// Reads the token of the data directory `data`, or makes one: 256 random bits as base64url, in
    /// a file of mode 0600 that is durable before this returns.
    ///
    /// Hold the directory's [`DataDir`] lock meanwhile.
    ///
    /// # Errors
    ///
    /// The file is readable by others, holds no token, or cannot be read or written.
    pub fn load_or_create(data: &Path) -> Result<Self, TokenError> {
        match Self::load(data) {
            Err(TokenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(data)
            }
            result => result,
        }
    }

    /// Reads the token of the data directory `data`.
    ///
    /// # Errors
    ///
    /// As [`load_or_create`](Self::load_or_create), and when there is none.
    pub fn load(data: &Path) -> Result<Self, TokenError> {
        let path = data.join(TOKEN_FILE);
        let io = |source| TokenError::Io { action: "read", path: path.clone(), source };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags(rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK))
            .open(&path)
            .map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() || !DataDir::is_private(&metadata) {
            return Err(TokenError::Exposed(path));
        }
        let mut text = String::new();
        file.take(LEN_MAX as u64 + 2).read_to_string(&mut text).map_err(io)?;
        Self::parse(&text)
    }

    /// Takes a token from text; space around it is left out.
    ///
    /// # Errors
    ///
    /// The text is no token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let sized = (LEN_MIN..=LEN_MAX).contains(&text.len());
        if sized && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(TokenError::Malformed)
        }
    }

    fn create(data: &Path) -> Result<Self, TokenError> {
        let path = data.join(TOKEN_FILE);
        let fresh = data.join("admin.token.new");
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| TokenError::Io { action, path, source }
        };
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| io("make randomness for", &path)(io::Error::other(error)))?;
        let token = Self(URL_SAFE_NO_PAD.encode(random));
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
                writeln!(file, "{}", token.0)?;
                file.sync_all()
            })
            .map_err(io("write", &fresh))?;
        fs::rename(&fresh, &path).map_err(io("name", &path))?;
        File::open(data).and_then(|dir| dir.sync_all()).map_err(io("sync", data))?;
        Ok(token)
    }

    /// Whether `presented` is this token. Takes the same time wherever the two differ.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// The token itself, for a client's header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn flags(flags: rustix::fs::OFlags) -> i32 {
    flags.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let made = AdminToken::load_or_create(dir.path()).unwrap();
        let found = AdminToken::load_or_create(dir.path()).unwrap();
        assert_eq!(made.expose(), found.expose());
        assert_eq!(URL_SAFE_NO_PAD.decode(made.expose()).unwrap().len(), 32);
        let mode = fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let other = tempfile::tempdir().unwrap();
        let other = AdminToken::load_or_create(other.path()).unwrap();
        assert!(!made.matches(other.expose().as_bytes()));
        assert!(made.matches(made.expose().as_bytes()));
        assert!(!made.matches(b""));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        AdminToken::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(TOKEN_FILE);
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = AdminToken::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, TokenError::Exposed(_)), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            AdminToken::load_or_create(dir.path())
        };
        for text in ["", "short", &"a".repeat(300), "a token with spaces in it, and long enough"] {
            assert!(matches!(write(text), Err(TokenError::Malformed)), "{text}");
        }
        assert!(write(&"a".repeat(40)).is_ok());
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(TOKEN_FILE)).unwrap();
        assert!(matches!(AdminToken::load_or_create(dir.path()), Err(TokenError::Io { .. })));
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let token = AdminToken::parse(&"s".repeat(40)).unwrap();
        assert!(!format!("{token:?}").contains("sss"));
    }
}
