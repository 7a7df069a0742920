//! The words of one app: tags, and values of keys, which are the keys of attributes and those that
//! every device has. Each is a **term** with a number of its own and a posting of the devices that
//! it is said of, and goes when there is no such device. Values that are numbers are no terms: the
//! key has a column of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::column::Column;
use crate::device::Number;
use crate::posting::Posting;

/// The key whose values are tags.
pub(crate) const TAGS: u32 = 0;
pub(crate) const PLATFORM: u32 = 1;
pub(crate) const APP_VERSION: u32 = 2;
pub(crate) const LANGUAGE: u32 = 3;
pub(crate) const TIME_ZONE: u32 = 4;
/// The first key of an attribute.
const ATTRIBUTES: u32 = 5;

#[derive(Debug, Default)]
struct Key {
    /// Empty of a key that every device has.
    name: Arc<str>,
    texts: BTreeMap<Arc<str>, u32>,
    numbers: Column,
}

#[derive(Debug)]
struct Term {
    key: u32,
    text: Arc<str>,
    devices: Posting,
}

/// What of an app's words is counted against limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distinct {
    pub(crate) tags: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
}

#[derive(Debug)]
pub(crate) struct Terms {
    keys: Vec<Key>,
    names: BTreeMap<Arc<str>, u32>,
    spare_keys: Vec<u32>,
    terms: Vec<Term>,
    spare_terms: Vec<u32>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms {
            keys: (0..ATTRIBUTES).map(|_| Key::default()).collect(),
            names: BTreeMap::new(),
            spare_keys: Vec::new(),
            terms: Vec::new(),
            spare_terms: Vec::new(),
        }
    }
}

impl Terms {
    pub(crate) fn distinct(&self) -> Distinct {
        let terms = self.terms.len() - self.spare_terms.len();
        let tags = self.keys[TAGS as usize].texts.len();
        Distinct { tags, keys: self.names.len(), values: terms - tags }
    }

    /// The key of an attribute.
    pub(crate) fn key(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(crate) fn is_attribute(key: u32) -> bool {
        key >= ATTRIBUTES
    }

    pub(crate) fn key_name(&self, key: u32) -> &str {
        &self.keys[key as usize].name
    }

    pub(crate) fn find(&self, key: u32, text: &str) -> Option<u32> {
        self.keys[key as usize].texts.get(text).copied()
    }

    pub(crate) fn key_of(&self, term: u32) -> u32 {
        self.terms[term as usize].key
    }

    pub(crate) fn text(&self, term: u32) -> &str {
        &self.terms[term as usize].text
    }

    pub(crate) fn devices(&self, term: u32) -> &Posting {
        &self.terms[term as usize].devices
    }

    /// The terms of a key whose texts begin with `prefix`, in the order of the texts.
    pub(crate) fn beginning<'a>(
        &'a self,
        key: u32,
        prefix: &str,
    ) -> impl Iterator<Item = (&'a str, &'a Posting)> {
        let range = (Bound::Included(prefix), Bound::Unbounded);
        let texts = self.keys[key as usize].texts.range::<str, _>(range);
        let texts = texts.take_while(move |(text, _)| text.starts_with(prefix));
        texts.map(|(text, term)| (&**text, self.devices(*term)))
    }

    pub(crate) fn numbers(&self, key: u32) -> &Column {
        &self.keys[key as usize].numbers
    }

    /// The key of an attribute, made if there is none: say a value of it next.
    pub(crate) fn intern_key(&mut self, name: &str) -> u32 {
        if let Some(key) = self.key(name) {
            return key;
        }
        let name = Arc::<str>::from(name);
        let fresh = Key { name: name.clone(), ..Key::default() };
        let key = match self.spare_keys.pop() {
            Some(key) => {
                self.keys[key as usize] = fresh;
                key
            }
            None => {
                self.keys.push(fresh);
                (self.keys.len() - 1) as u32
            }
        };
        self.names.insert(name, key);
        key
    }

    /// The term of a text, made if there is none: say it of a device next.
    pub(crate) fn intern(&mut self, key: u32, text: &str) -> u32 {
        if let Some(term) = self.find(key, text) {
            return term;
        }
        let text = Arc::<str>::from(text);
        let fresh = Term { key, text: text.clone(), devices: Posting::default() };
        let term = match self.spare_terms.pop() {
            Some(term) => {
                self.terms[term as usize] = fresh;
                term
            }
            None => {
                self.terms.push(fresh);
                (self.terms.len() - 1) as u32
            }
        };
        self.keys[key as usize].texts.insert(text, term);
        term
    }

    pub(crate) fn say(&mut self, term: u32, device: u32) {
        self.terms[term as usize].devices.insert(device);
    }

    pub(crate) fn unsay(&mut self, term: u32, device: u32) {
        let gone = &mut self.terms[term as usize];
        gone.devices.remove(device);
        if gone.devices.is_empty() {
            let (key, text) = (gone.key, std::mem::take(&mut gone.text));
            self.keys[key as usize].texts.remove(&text);
            self.spare_terms.push(term);
            self.forget_key(key);
        }
    }

    pub(crate) fn set_number(&mut self, key: u32, device: u32, value: Number) {
        self.keys[key as usize].numbers.set(device, value);
    }

    pub(crate) fn clear_number(&mut self, key: u32, device: u32) {
        self.keys[key as usize].numbers.remove(device);
        self.forget_key(key);
    }

    fn forget_key(&mut self, key: u32) {
        let gone = &mut self.keys[key as usize];
        if Terms::is_attribute(key) && gone.texts.is_empty() && gone.numbers.is_empty() {
            let name = std::mem::take(&mut gone.name);
            self.names.remove(&name);
            self.spare_keys.push(key);
        }
    }
}
