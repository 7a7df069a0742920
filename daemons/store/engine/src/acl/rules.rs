//! Rules that make users, as ACL SETUSER takes them and ACL LIST tells them.

use sha2::{Digest, Sha256};

use crate::acl::{Category, KeyRule, RULES_MAX, Selector, User};
use crate::command::{Known, Table};
use crate::words::is;

const SYNTAX: &str = "Syntax error";
const UNKNOWN: &str = "Unknown command or category name in ACL";
const HASH: &str = "The password hash must be exactly 64 characters and contain only lowercase \
                    hexadecimal characters";
const NO_PASSWORD: &str = "The password you are trying to remove from the user does not exist";
const KEY_BEHIND_ALL: &str = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not \
                              valid and does not have any effect. Try 'resetkeys' to start with an \
                              empty list of patterns";
const CHANNEL_BEHIND_ALL: &str = "Adding a pattern after the * pattern (or the 'allchannels' flag) \
                                  is not valid and does not have any effect. Try 'resetchannels' \
                                  to start with an empty list of channels";
const TOO_MANY: &str = "A user is made of 1000 rules of a kind at most";

type Applied = Result<(), &'static str>;

impl User {
    /// Applies a rule.
    pub(crate) fn apply(&mut self, table: &Table, rule: &[u8]) -> Applied {
        match rule {
            word if is(word, "on") => self.enabled = true,
            word if is(word, "off") => self.enabled = false,
            word if is(word, "nopass") => {
                self.nopass = true;
                self.passwords.clear();
            }
            word if is(word, "resetpass") => {
                self.nopass = false;
                self.passwords.clear();
            }
            word if is(word, "sanitize-payload") => self.unsanitized = false,
            word if is(word, "skip-sanitize-payload") => self.unsanitized = true,
            word if is(word, "reset") => *self = User::default(),
            word if is(word, "clearselectors") => self.selectors.clear(),
            [b'>', password @ ..] => self.add_password(Sha256::digest(password).into())?,
            [b'<', password @ ..] => self.remove_password(&Sha256::digest(password).into())?,
            [b'#', hash @ ..] => self.add_password(from_hex(hash).ok_or(HASH)?)?,
            [b'!', hash @ ..] => self.remove_password(&from_hex(hash).ok_or(HASH)?)?,
            [b'(', inner @ .., b')'] => {
                let mut selector = Selector::default();
                let words = inner.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
                for word in words {
                    selector.apply(table, word)?;
                }
                if self.selectors.len() >= RULES_MAX {
                    return Err(TOO_MANY);
                }
                self.selectors.push(selector);
            }
            rule => self.root.apply(table, rule)?,
        }
        Ok(())
    }

    fn add_password(&mut self, hash: [u8; 32]) -> Applied {
        if self.passwords.len() >= RULES_MAX {
            return Err(TOO_MANY);
        }
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        Ok(())
    }

    fn remove_password(&mut self, hash: &[u8; 32]) -> Applied {
        let at = self.passwords.iter().position(|known| known == hash).ok_or(NO_PASSWORD)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// What ACL GETUSER tells as flags.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        flags.extend(self.nopass.then_some("nopass"));
        let sanitized = if self.unsanitized { "skip-sanitize-payload" } else { "sanitize-payload" };
        flags.push(sanitized);
        flags
    }

    /// The rules that make it.
    pub(crate) fn describe(&self) -> String {
        let mut words: Vec<String> = self.flags().into_iter().map(str::to_owned).collect();
        words.extend(self.passwords.iter().map(|hash| format!("#{}", to_hex(hash))));
        words.push(self.root.describe());
        words.extend(self.selectors.iter().map(|selector| format!("({})", selector.describe())));
        words.join(" ")
    }
}

impl Selector {
    fn apply(&mut self, table: &Table, rule: &[u8]) -> Applied {
        match rule {
            word if is(word, "allkeys") || word == b"~*" => {
                self.keys.clear();
                self.all_keys = true;
            }
            word if is(word, "resetkeys") => {
                self.keys.clear();
                self.all_keys = false;
            }
            word if is(word, "allchannels") || word == b"&*" => {
                self.channels.clear();
                self.all_channels = true;
            }
            word if is(word, "resetchannels") => {
                self.channels.clear();
                self.all_channels = false;
            }
            word if is(word, "allcommands") || is(word, "+@all") => self.set_all(true),
            word if is(word, "nocommands") || is(word, "-@all") => self.set_all(false),
            [b'~', pattern @ ..] => self.add_key(pattern, true, true)?,
            [b'%', rest @ ..] => {
                let tilde = rest.iter().position(|byte| *byte == b'~').ok_or(SYNTAX)?;
                let (letters, pattern) = (rest[..tilde].to_ascii_uppercase(), &rest[tilde + 1..]);
                if letters.is_empty() || letters.iter().any(|letter| !b"RW".contains(letter)) {
                    return Err(if self.all_keys { KEY_BEHIND_ALL } else { SYNTAX });
                }
                self.add_key(pattern, letters.contains(&b'R'), letters.contains(&b'W'))?;
            }
            [b'&', pattern @ ..] => {
                if self.all_channels {
                    return Err(CHANNEL_BEHIND_ALL);
                }
                if self.channels.len() >= RULES_MAX {
                    return Err(TOO_MANY);
                }
                if !self.channels.iter().any(|known| known == pattern) {
                    self.channels.push(pattern.to_vec());
                }
            }
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let category = Category::named(name).ok_or(UNKNOWN)?;
                for (number, row) in table.rows().iter().enumerate() {
                    if category.has(row.spec) {
                        self.set(number as u16, *sign == b'+');
                    }
                }
                self.add_rule(*sign, &format!("@{}", category.name()))?;
            }
            [sign @ (b'+' | b'-'), name @ ..] => {
                let known = table.find_whole(name).ok_or(UNKNOWN)?;
                let Known { spec, number } = known;
                (number..=number + spec.subs.len() as u16)
                    .for_each(|number| self.set(number, *sign == b'+'));
                self.add_rule(*sign, &table.rows()[number as usize].name)?;
            }
            _ => return Err(SYNTAX),
        }
        Ok(())
    }

    fn set_all(&mut self, allowed: bool) {
        self.commands.fill(if allowed { u64::MAX } else { 0 });
        self.all_commands = allowed;
        self.rules.clear();
    }

    fn set(&mut self, number: u16, allowed: bool) {
        let (word, bit) = (&mut self.commands[number as usize / 64], 1 << (number % 64));
        *word = *word & !bit | if allowed { bit } else { 0 };
    }

    /// Notes what was said of commands, in place of what was said of the same before.
    fn add_rule(&mut self, sign: u8, name: &str) -> Applied {
        self.rules.retain(|rule| {
            let other = &rule[1..];
            let is_within = other.strip_prefix(name).is_some_and(|rest| rest.starts_with('|'));
            other != name && !is_within
        });
        if self.rules.len() >= RULES_MAX {
            return Err(TOO_MANY);
        }
        self.rules.push(format!("{}{name}", sign as char));
        Ok(())
    }

    fn add_key(&mut self, pattern: &[u8], read: bool, write: bool) -> Applied {
        if self.all_keys {
            return Err(KEY_BEHIND_ALL);
        }
        if self.keys.len() >= RULES_MAX {
            return Err(TOO_MANY);
        }
        match self.keys.iter_mut().find(|rule| rule.pattern == pattern) {
            Some(rule) => {
                rule.read |= read;
                rule.write |= write;
            }
            None => self.keys.push(KeyRule { pattern: pattern.to_vec(), read, write }),
        }
        Ok(())
    }

    /// What is said of commands.
    pub(crate) fn describe_commands(&self) -> String {
        let mut text = if self.all_commands { "+@all" } else { "-@all" }.to_owned();
        self.rules.iter().for_each(|rule| text.push_str(&format!(" {rule}")));
        text
    }

    /// What is said of keys.
    pub(crate) fn describe_keys(&self) -> String {
        if self.all_keys {
            return "~*".to_owned();
        }
        let words = self.keys.iter().map(|rule| {
            let pattern = String::from_utf8_lossy(&rule.pattern);
            match (rule.read, rule.write) {
                (true, true) => format!("~{pattern}"),
                (true, false) => format!("%R~{pattern}"),
                (false, _) => format!("%W~{pattern}"),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// What is said of channels.
    pub(crate) fn describe_channels(&self) -> String {
        if self.all_channels {
            return "&*".to_owned();
        }
        let words = self.channels.iter().map(|name| format!("&{}", String::from_utf8_lossy(name)));
        words.collect::<Vec<_>>().join(" ")
    }

    fn describe(&self) -> String {
        let reset = if self.all_channels { "" } else { "resetchannels" };
        let words = [
            self.describe_keys(),
            reset.to_owned(),
            self.describe_channels(),
            self.describe_commands(),
        ];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Puts words together again that are in parentheses; the place of the first that is not closed,
/// if there is one.
pub(crate) fn merge<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, Vec<u8>> {
    let mut merged: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<Vec<u8>> = None;
    for word in words {
        let whole = match open.take() {
            Some(mut begun) => {
                begun.push(b' ');
                begun.extend_from_slice(word);
                begun
            }
            None => word.to_vec(),
        };
        match whole.first() == Some(&b'(') && whole.last() != Some(&b')') {
            true => open = Some(whole),
            false => merged.push(whole),
        }
    }
    match open {
        Some(open) => Err(open.split(|byte| *byte == b' ').next().unwrap_or(b"(").to_vec()),
        None => Ok(merged),
    }
}

/// The rules in a text that [`User::describe`] made.
pub(crate) fn split(text: &[u8]) -> Vec<Vec<u8>> {
    merge(text.split(|byte| *byte == b' ')).unwrap_or_default()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text: &[u8; 64] = text.try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}
