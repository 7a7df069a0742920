//! Bans: client identifiers and users that are not let in, for a time or until the ban is lifted.
//!
//! ```text
//!   PUT, DELETE /v1/bans ──► Keeper: DATA/bans.json, replaced and synced ──► Arc<Bans> to each core
//!                                                                  CONNECT ──► Bans::refuses
//! ```
//!
//! A set of bans never changes; a changed one is written whole, and only then given to the cores.
//! So a ban that was confirmed outlives a crash. A file that cannot be read keeps the daemon from
//! starting: nobody is let in because their ban was lost.

use std::io;
use std::path::{Path, PathBuf};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use sextant_ring::disk::{Disk, HostDisk};

/// Bans at most, those that have ended not counted.
pub const BANS_MAX: usize = 10_000;
/// The longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// The longest reason, in bytes.
pub const WHY_BYTES_MAX: usize = 256;

/// The file in the data directory.
const FILE: &str = "bans.json";
/// The longest file that is read: every ban as long as can be, each byte written as six.
const FILE_BYTES_MAX: u64 = (BANS_MAX * (NAME_BYTES_MAX + WHY_BYTES_MAX + 64) * 6) as u64;

/// What a ban names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Banned {
    /// A client identifier.
    Client,
    /// Whoever was let in as this user, device, or `anonymous`.
    User,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ban {
    /// What the name is of.
    pub kind: Banned,
    /// The name.
    pub name: String,
    /// When it was made, in milliseconds since 1970.
    pub since: u64,
    /// When it ends, in milliseconds since 1970; none is when it is lifted.
    pub until: Option<u64>,
    /// For people.
    pub why: String,
}

impl Ban {
    /// Whether it holds at `unix_ms`.
    pub fn holds(&self, unix_ms: u64) -> bool {
        self.until.is_none_or(|until| unix_ms < until)
    }
}

/// Why bans are not kept, or not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BanError {
    /// The operator has made too many.
    #[error("there are {BANS_MAX} bans: lift some")]
    TooMany,
    /// The file holds something else: the operator's, or the disk's, fault.
    #[error("{} does not hold bans: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// All bans at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bans {
    clients: HashMap<Box<str>, Ban>,
    users: HashMap<Box<str>, Ban>,
}

impl Bans {
    fn of(&self, kind: Banned) -> &HashMap<Box<str>, Ban> {
        match kind {
            Banned::Client => &self.clients,
            Banned::User => &self.users,
        }
    }

    fn of_mut(&mut self, kind: Banned) -> &mut HashMap<Box<str>, Ban> {
        match kind {
            Banned::Client => &mut self.clients,
            Banned::User => &mut self.users,
        }
    }

    /// Whether `name` is banned at `unix_ms`.
    pub fn refuses(&self, kind: Banned, name: &str, unix_ms: u64) -> bool {
        let bans = self.of(kind);
        // Nobody pays for what most have not.
        !bans.is_empty() && bans.get(name).is_some_and(|ban| ban.holds(unix_ms))
    }

    /// Those that hold at `unix_ms`, by kind and name.
    pub fn list(&self, unix_ms: u64) -> Vec<&Ban> {
        let all = self.clients.values().chain(self.users.values());
        let mut bans: Vec<&Ban> = all.filter(|ban| ban.holds(unix_ms)).collect();
        bans.sort_unstable_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        bans
    }

    /// As many as hold at `unix_ms`, and one more or another instead.
    ///
    /// # Errors
    /// There are [`BANS_MAX`].
    pub fn with(&self, ban: Ban, unix_ms: u64) -> Result<Bans, BanError> {
        let mut bans = self.in_force(unix_ms);
        bans.of_mut(ban.kind).insert(ban.name.as_str().into(), ban);
        match bans.clients.len() + bans.users.len() <= BANS_MAX {
            true => Ok(bans),
            false => Err(BanError::TooMany),
        }
    }

    /// Those that hold at `unix_ms` without one; none if that was not among them.
    pub fn without(&self, kind: Banned, name: &str, unix_ms: u64) -> Option<Bans> {
        let mut bans = self.in_force(unix_ms);
        bans.of_mut(kind).remove(name)?;
        Some(bans)
    }

    fn in_force(&self, unix_ms: u64) -> Bans {
        let mut bans = self.clone();
        for bans in [&mut bans.clients, &mut bans.users] {
            bans.retain(|_, ban| ban.holds(unix_ms));
        }
        bans
    }
}

/// Keeps bans in the data directory.
#[derive(Debug)]
pub struct Keeper {
    path: PathBuf,
}

impl Keeper {
    /// Finds what is kept in the data directory `data`; no file is no ban.
    ///
    /// # Errors
    /// There is a file that cannot be read, or holds something else.
    pub fn open(data: &Path) -> Result<(Keeper, Bans), BanError> {
        let path = data.join(FILE);
        let bans = match read(&path) {
            Ok(None) => Bans::default(),
            Ok(Some(text)) => {
                let malformed = |why| BanError::Malformed { path: path.clone(), why };
                let list: Vec<Ban> =
                    serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
                if list.len() > BANS_MAX {
                    return Err(malformed(format!("more than {BANS_MAX} of them")));
                }
                let mut bans = Bans::default();
                for ban in list {
                    bans.of_mut(ban.kind).insert(ban.name.as_str().into(), ban);
                }
                bans
            }
            Err(source) => return Err(BanError::Io { action: "read", path, source }),
        };
        Ok((Keeper { path }, bans))
    }

    /// Keeps `bans`; they are on disk when this returns, or those before them are.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&self, bans: &Bans) -> Result<(), BanError> {
        let failed = |source| BanError::Io { action: "write", path: self.path.clone(), source };
        let text = serde_json::to_vec(&bans.list(0)).map_err(|error| failed(error.into()))?;
        HostDisk.replace(&self.path, &text).map_err(failed)
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    use std::io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(kind: Banned, name: &str, until: Option<u64>) -> Ban {
        Ban { kind, name: name.to_owned(), since: 1, until, why: "noise".to_owned() }
    }

    #[test]
    fn a_ban_holds_until_its_time_and_for_its_kind_alone() {
        let bans = Bans::default().with(ban(Banned::Client, "a", Some(10)), 5).unwrap();
        assert!(bans.refuses(Banned::Client, "a", 9));
        assert!(!bans.refuses(Banned::Client, "a", 10));
        assert!(!bans.refuses(Banned::User, "a", 9));
        assert!(bans.list(9).len() == 1 && bans.list(10).is_empty());
        assert!(bans.without(Banned::Client, "a", 10).is_none(), "it has ended");
        assert_eq!(bans.without(Banned::Client, "a", 9), Some(Bans::default()));
    }

    #[test]
    fn bans_are_found_again_as_they_were_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (keeper, bans) = Keeper::open(dir.path()).unwrap();
        assert_eq!(bans, Bans::default());
        let bans = bans.with(ban(Banned::Client, "a\"\u{1}", Some(10)), 5).unwrap();
        let bans = bans.with(ban(Banned::User, "a", None), 5).unwrap();
        keeper.keep(&bans).unwrap();
        assert_eq!(Keeper::open(dir.path()).unwrap().1, bans);
    }

    #[test]
    fn a_file_that_holds_no_bans_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{}", "[{}]", r#"[{"kind":"client","name":"a","sinse":1}]"#] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            let error = Keeper::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains(FILE), "{text}: {error}");
        }
    }

    #[test]
    fn there_are_only_so_many_bans_and_those_that_ended_do_not_count() {
        let mut bans = Bans::default();
        for n in 0..BANS_MAX {
            let name = n.to_string();
            bans.clients.insert(name.as_str().into(), ban(Banned::Client, &name, Some(10)));
        }
        let one = ban(Banned::User, "one", None);
        assert!(matches!(bans.with(one.clone(), 9), Err(BanError::TooMany)));
        assert!(bans.with(ban(Banned::Client, "7", None), 9).is_ok(), "one instead");
        assert_eq!(bans.with(one, 10).unwrap().list(10).len(), 1);
    }
}
