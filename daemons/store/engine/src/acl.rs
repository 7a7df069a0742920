//! Users: who may do what to which keys and channels.
//!
//! ```text
//!   user ── enabled, passwords (SHA-256)
//!     ├── root selector:  commands │ keys, each to read or write │ channels
//!     └── selectors:      the same; what one of them allows is allowed
//! ```
//!
//! A user is kept in the log as the rules that make it, at once, and made again of them at a start.
//! Rules are in `rules`, what a command is about in `category`.

mod category;
mod rules;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sextant_resp::Args;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::client::{Client, ClientId};
use crate::command::{COMMANDS_MAX, Flags, Known, Spec};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::words::matches;

pub(crate) use category::Category;
pub(crate) use rules::{merge, to_hex};

/// The user that a connection is before it says otherwise.
pub(crate) const DEFAULT: &[u8] = b"default";
/// Users at most.
pub(crate) const USERS_MAX: usize = 10_000;
/// Rules that a user is made of, of each kind.
pub(crate) const RULES_MAX: usize = 1000;

/// Which keys a selector allows, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyRule {
    pub(crate) pattern: Vec<u8>,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// What is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    /// Bits of the numbers of commands.
    commands: [u64; COMMANDS_MAX / 64],
    /// All commands were allowed, before `rules`.
    all_commands: bool,
    /// What was said of commands since, in order.
    rules: Vec<String>,
    all_keys: bool,
    keys: Vec<KeyRule>,
    all_channels: bool,
    channels: Vec<Vec<u8>>,
}

/// Why a command is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Denied {
    Command,
    Key(Vec<u8>),
    Channel(Vec<u8>),
}

impl Selector {
    pub(crate) fn allows_number(&self, number: u16) -> bool {
        self.commands[number as usize / 64] & (1 << (number % 64)) != 0
    }

    /// Whether it allows everything.
    fn is_unlimited(&self) -> bool {
        self.all_commands && self.rules.is_empty() && self.all_keys && self.all_channels
    }

    fn check(&self, known: Known, top: &str, args: Args<'_>) -> Result<(), Denied> {
        let spec = known.spec;
        if !spec.flags.has(Flags::NO_AUTH) && !self.allows_number(known.number) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            let places = spec.keys.places(args);
            for (at, place) in places.iter().enumerate() {
                let Some(key) = args.get(*place) else { continue };
                let (read, write) = needs(spec, at, args);
                let is_right = |rule: &KeyRule| {
                    (rule.read || !read) && (rule.write || !write) && matches(&rule.pattern, key)
                };
                if !self.keys.iter().any(is_right) {
                    return Err(Denied::Key(key.to_vec()));
                }
            }
        }
        if !self.all_channels && spec.flags.has(Flags::PUBSUB) {
            self.check_channels(top, args)?;
        }
        Ok(())
    }

    fn check_channels(&self, name: &str, args: Args<'_>) -> Result<(), Denied> {
        let (count, literal) = match name {
            "publish" | "spublish" => (1, false),
            "subscribe" | "ssubscribe" => (usize::MAX, false),
            "psubscribe" => (usize::MAX, true),
            _ => return Ok(()),
        };
        for channel in args.iter().skip(1).take(count) {
            let is_right = |rule: &Vec<u8>| match literal {
                true => rule == channel,
                false => matches(rule, channel),
            };
            if !self.channels.iter().any(is_right) {
                return Err(Denied::Channel(channel.to_vec()));
            }
        }
        Ok(())
    }
}

/// Whether a command reads and writes one of its keys.
fn needs(spec: &Spec, at: usize, args: Args<'_>) -> (bool, bool) {
    const BOTH: [&str; 24] = [
        "getset",
        "getdel",
        "getex",
        "incr",
        "incrby",
        "incrbyfloat",
        "decr",
        "decrby",
        "lpop",
        "rpop",
        "spop",
        "lmpop",
        "blmpop",
        "blpop",
        "brpop",
        "zpopmin",
        "zpopmax",
        "bzpopmin",
        "bzpopmax",
        "zmpop",
        "bzmpop",
        "hincrby",
        "hincrbyfloat",
        "zincrby",
    ];
    const MOVES: [&str; 7] =
        ["rename", "renamenx", "lmove", "blmove", "rpoplpush", "brpoplpush", "smove"];
    if !spec.flags.has(Flags::WRITE) {
        return (true, false);
    }
    match spec.name {
        "copy" => (at == 0, at > 0),
        "set" => {
            let gets = args.iter().skip(3).any(|word| word.eq_ignore_ascii_case(b"GET"));
            (gets, true)
        }
        name if MOVES.contains(&name) => (at == 0, true),
        name if name.ends_with("store") || name == "bitop" || name == "pfmerge" => {
            (at > 0, at == 0)
        }
        name => (BOTH.contains(&name), true),
    }
}

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) enabled: bool,
    /// Any password is right.
    pub(crate) nopass: bool,
    pub(crate) unsanitized: bool,
    pub(crate) passwords: Vec<[u8; 32]>,
    pub(crate) root: Selector,
    pub(crate) selectors: Vec<Selector>,
}

impl User {
    /// Whether it may do everything.
    pub(crate) fn is_unlimited(&self) -> bool {
        self.root.is_unlimited()
    }

    /// Whether it may do a command with these words; `top` is the name of the command itself, where
    /// a subcommand is meant.
    pub(crate) fn check(&self, known: Known, top: &str, args: Args<'_>) -> Result<(), Denied> {
        let mut why = match self.root.check(known, top, args) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        for selector in &self.selectors {
            match selector.check(known, top, args) {
                Ok(()) => return Ok(()),
                Err(denied) => why = why.max(denied),
            }
        }
        Err(why)
    }

    /// Whether a password is right; how long it takes to tell is the same for all that are as many.
    fn takes(&self, password: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(password).into();
        let mut right = subtle::Choice::from(u8::from(self.nopass));
        for known in &self.passwords {
            right |= known.ct_eq(&given);
        }
        bool::from(right)
    }
}

/// What was refused, for ACL LOG.
pub(crate) struct Refusal {
    pub(crate) count: u64,
    pub(crate) reason: &'static str,
    pub(crate) context: &'static str,
    pub(crate) object: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) client: String,
    pub(crate) id: u64,
    /// Milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) updated: u64,
}

/// All users.
pub(crate) struct Acl {
    pub(crate) users: BTreeMap<Arc<[u8]>, User>,
    pub(crate) log: VecDeque<Refusal>,
    pub(crate) next_refusal: u64,
}

impl Default for Acl {
    fn default() -> Acl {
        let root = Selector {
            commands: [u64::MAX; COMMANDS_MAX / 64],
            all_commands: true,
            all_keys: true,
            all_channels: true,
            ..Selector::default()
        };
        let user = User { enabled: true, nopass: true, root, ..User::default() };
        let users = BTreeMap::from([(Arc::from(DEFAULT), user)]);
        Acl { users, log: VecDeque::new(), next_refusal: 0 }
    }
}

impl Acl {
    pub(crate) fn user(&self, name: &[u8]) -> Option<&User> {
        self.users.get(name)
    }

    /// The user that a connection is that has not said who it is.
    pub(crate) fn anybody(&self) -> Option<Arc<[u8]>> {
        let (name, user) = self.users.get_key_value(DEFAULT).expect("it is never deleted");
        (user.enabled && user.nopass).then(|| name.clone())
    }
}

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";

impl Engine {
    /// The name of the user that a client is.
    pub(crate) fn user_name<'a>(&'a self, client: &'a Client) -> &'a [u8] {
        client.user.as_deref().unwrap_or(DEFAULT)
    }

    pub(crate) fn has_user(&self, name: &[u8]) -> bool {
        self.acl.user(name).is_some()
    }

    pub(crate) fn is_user(&self, client: &Client, name: &[u8]) -> bool {
        self.user_name(client) == name
    }

    /// Makes a client a user, if the password is right.
    pub(crate) fn authenticate(
        &mut self,
        id: ClientId,
        name: &[u8],
        password: &[u8],
        command: &'static str,
    ) -> Result<(), Fault> {
        let known = self.acl.users.get_key_value(name);
        let right = known.filter(|(_, user)| user.enabled && user.takes(password));
        let Some((name, _)) = right else {
            let by = name.to_vec();
            self.log_refusal(id, "auth", "toplevel", command.as_bytes().to_vec(), by);
            return Err(Fault::text(WRONGPASS));
        };
        let name = name.clone();
        self.client_mut(id).user = Some(name);
        self.guard(id);
        Ok(())
    }

    /// Whether a client that is not allowed everything may do a command.
    pub(crate) fn permit(
        &mut self,
        id: ClientId,
        known: Known,
        args: Args<'_>,
        context: &'static str,
    ) -> Result<(), Fault> {
        let Some(name) = self.client_mut(id).user.clone() else {
            return match known.spec.flags.has(Flags::NO_AUTH) {
                true => Ok(()),
                false => Err(Fault::text("NOAUTH Authentication required.")),
            };
        };
        let user = self.acl.user(&name).expect("who is deleted is disconnected");
        let rows = self.table.rows();
        let row = &rows[known.number as usize];
        let top = rows[row.parent.unwrap_or(known.number) as usize].spec.name;
        let Err(denied) = user.check(known, top, args) else { return Ok(()) };
        let queues = self.clients.get(id).is_some_and(|client| client.multi.is_some());
        let context = if queues { "multi" } else { context };
        let line = format!("NOPERM {}", denial(&denied, &name, &row.name, false));
        let (reason, object) = match denied {
            Denied::Command => ("command", row.name.clone().into_bytes()),
            Denied::Key(key) => ("key", key),
            Denied::Channel(channel) => ("channel", channel),
        };
        self.log_refusal(id, reason, context, object, name.to_vec());
        Err(Fault::text(line))
    }

    fn log_refusal(
        &mut self,
        id: ClientId,
        reason: &'static str,
        context: &'static str,
        object: Vec<u8>,
        user: Vec<u8>,
    ) {
        const SAME_MS: u64 = 60_000;
        let max: usize = self.settings.get("acllog-max-len").parse().unwrap_or(0);
        let now = self.keys.now();
        let client = self.clients.get(id).map(|client| self.describe(client));
        let client = client.unwrap_or_default();
        let same = self.acl.log.iter().take(16).position(|entry| {
            (entry.reason, entry.context) == (reason, context)
                && entry.object == object
                && entry.user == user
                && now.saturating_sub(entry.created) < SAME_MS
        });
        if let Some(mut entry) = same.and_then(|at| self.acl.log.remove(at)) {
            entry.count += 1;
            (entry.updated, entry.client) = (now, client);
            self.acl.log.push_front(entry);
            return;
        }
        let entry = Refusal {
            count: 1,
            reason,
            context,
            object,
            user,
            client,
            id: self.acl.next_refusal,
            created: now,
            updated: now,
        };
        self.acl.next_refusal += 1;
        self.acl.log.push_front(entry);
        self.acl.log.truncate(max.min(1 << 16));
    }

    /// Finds out anew what all clients may, after users changed.
    pub(crate) fn users_changed(&mut self) {
        let anybody = self.acl.anybody();
        let ids: Vec<ClientId> = self.clients.iter().map(|client| client.id).collect();
        for id in ids {
            let client = self.client_mut(id);
            if client.user.is_none() {
                client.user.clone_from(&anybody);
            }
            self.guard(id);
        }
    }

    /// Keeps a user in the log.
    pub(crate) fn keep_user(&mut self, name: &[u8]) {
        let value = self.acl.user(name).map(User::describe).unwrap_or_default();
        self.keys.set_meta(&[b"acl:", name].concat(), value.as_bytes());
    }

    /// Sets the default user's password, or that it needs none.
    pub(crate) fn set_default_password(&mut self, password: &str) {
        let user = self.acl.users.get_mut(DEFAULT).expect("it is never deleted");
        user.passwords.clear();
        user.nopass = password.is_empty();
        if !user.nopass {
            user.passwords.push(Sha256::digest(password).into());
        }
        self.users_changed();
        self.keep_user(DEFAULT);
    }

    /// Makes the users that the log has.
    pub(crate) fn restore_users(&mut self) {
        let kept: Vec<(Vec<u8>, Vec<u8>)> = self
            .keys
            .metas(b"acl:")
            .map(|(name, rules)| (name[b"acl:".len()..].to_vec(), rules.to_vec()))
            .collect();
        for (name, rules) in kept {
            let words = rules::split(&rules);
            let mut user = User::default();
            let made = words.iter().try_for_each(|rule| user.apply(&self.table, rule));
            if made.is_ok() {
                self.acl.users.insert(Arc::from(name), user);
            }
        }
        self.users_changed();
    }
}

/// Why a command is not allowed, in words; with what it is about, if `verbose`.
pub(crate) fn denial(denied: &Denied, user: &[u8], command: &str, verbose: bool) -> String {
    let user = String::from_utf8_lossy(user);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match denied {
        Denied::Command => format!("User {user} has no permissions to run the '{command}' command"),
        Denied::Key(key) if verbose => {
            format!("User {user} has no permissions to access the '{}' key", text(key))
        }
        Denied::Key(_) => "No permissions to access a key".to_owned(),
        Denied::Channel(channel) if verbose => {
            format!("User {user} has no permissions to access the '{}' channel", text(channel))
        }
        Denied::Channel(_) => "No permissions to access a channel".to_owned(),
    }
}
