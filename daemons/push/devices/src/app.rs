//! One app: its devices and its words.

use roaring::RoaringBitmap;

use crate::Refused;
use crate::device::{Draft, Scalar};
use crate::limits::Limits;
use crate::posting::Posting;
use crate::store::{Facts, Row};
use crate::terms::{APP_VERSION, Distinct, LANGUAGE, PLATFORM, TAGS, TIME_ZONE, Terms};

#[derive(Debug)]
pub(crate) struct App {
    pub(crate) name: Box<str>,
    pub(crate) devices: RoaringBitmap,
    pub(crate) tests: Posting,
    pub(crate) terms: Terms,
}

/// What every device has a value of, or none, and the key of it.
fn built_in<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (u32, &'a str)> {
    let all = [
        (PLATFORM, Some(draft.platform)),
        (APP_VERSION, draft.app_version),
        (LANGUAGE, draft.language),
        (TIME_ZONE, draft.time_zone),
    ];
    all.into_iter().filter_map(|(key, text)| Some((key, text?)))
}

impl App {
    pub(crate) fn new(name: &str) -> App {
        App {
            name: name.into(),
            devices: RoaringBitmap::new(),
            tests: Posting::default(),
            terms: Terms::default(),
        }
    }

    /// Whether the words of a device are known, or have room.
    pub(crate) fn check_words(&self, draft: &Draft<'_>, limits: &Limits) -> Result<(), Refused> {
        let fresh = self.fresh_words(draft);
        let known = self.terms.distinct();
        let full = |fresh, known, max| fresh > 0 && known + fresh > max;
        if full(fresh.tags, known.tags, limits.tags_per_app) {
            return Err(Refused::TagsFull { max: limits.tags_per_app });
        }
        if full(fresh.keys, known.keys, limits.keys_per_app) {
            return Err(Refused::KeysFull { max: limits.keys_per_app });
        }
        if full(fresh.values, known.values, limits.values_per_app) {
            return Err(Refused::ValuesFull { max: limits.values_per_app });
        }
        Ok(())
    }

    fn fresh_words(&self, draft: &Draft<'_>) -> Distinct {
        let is_fresh = |key, text: &str| self.terms.find(key, text).is_none();
        let tags = draft.tags.iter().filter(|tag| is_fresh(TAGS, tag)).count();
        let mut fresh = Distinct { tags, ..Distinct::default() };
        fresh.values = built_in(draft).filter(|(key, text)| is_fresh(*key, text)).count();
        for (name, value) in &draft.attributes {
            let key = self.terms.key(name);
            fresh.keys += usize::from(key.is_none());
            if let Scalar::Text(text) = value {
                fresh.values += usize::from(key.is_none_or(|key| is_fresh(key, text)));
            }
        }
        fresh
    }

    /// What a device's row says, with the words that it has made known.
    pub(crate) fn facts(&mut self, draft: &Draft<'_>) -> Facts {
        let mut terms = Vec::with_capacity(draft.tags.len() + draft.attributes.len() + 4);
        let mut numbers = Vec::new();
        terms.extend(built_in(draft).map(|(key, text)| self.terms.intern(key, text)));
        terms.extend(draft.tags.iter().map(|tag| self.terms.intern(TAGS, tag)));
        for (name, value) in &draft.attributes {
            let key = self.terms.intern_key(name);
            match value {
                Scalar::Text(text) => terms.push(self.terms.intern(key, text)),
                Scalar::Number(number) => numbers.push((key, *number)),
            }
        }
        terms.sort_unstable();
        numbers.sort_unstable();
        Facts {
            token_generation: draft.token_generation,
            registered_at: draft.registered_at,
            updated_at: draft.updated_at,
            terms,
            numbers,
        }
    }

    /// Makes the indexes say `new` of a device, of which they said `old`.
    pub(crate) fn index(&mut self, device: u32, old: &Facts, new: &Facts) {
        let lacks = |facts: &Facts, term: &u32| facts.terms.binary_search(term).is_err();
        for term in new.terms.iter().filter(|term| lacks(old, term)) {
            self.terms.say(*term, device);
        }
        for number in new.numbers.iter().filter(|number| !old.numbers.contains(number)) {
            self.terms.set_number(number.0, device, number.1);
        }
        for term in old.terms.iter().filter(|term| lacks(new, term)) {
            self.terms.unsay(*term, device);
        }
        let has = |key: u32| new.numbers.iter().any(|(other, _)| *other == key);
        for (key, _) in old.numbers.iter().filter(|(key, _)| !has(*key)) {
            self.terms.clear_number(*key, device);
        }
    }

    /// Makes the app's sets of devices have a device, and say whether it is used for tests.
    pub(crate) fn enter(&mut self, device: u32, test: bool) {
        self.devices.insert(device);
        match test {
            true => self.tests.insert(device),
            false => self.tests.remove(device),
        }
    }

    /// Takes a device out of everything.
    pub(crate) fn leave(&mut self, device: u32, facts: &Facts) {
        self.devices.remove(device);
        self.tests.remove(device);
        self.index(device, facts, &Facts::default());
    }

    /// What a row says, in texts.
    pub(crate) fn draft<'a>(&'a self, row: &Row<'a>) -> Draft<'a> {
        let facts = row.facts();
        let mut draft = Draft {
            id: row.id,
            app: row.app,
            platform: "",
            app_version: None,
            alias: row.alias,
            tags: Vec::with_capacity(facts.terms.len()),
            attributes: Vec::with_capacity(facts.terms.len() + facts.numbers.len()),
            time_zone: None,
            language: None,
            test: row.test,
            registered_at: facts.registered_at,
            updated_at: facts.updated_at,
            token_generation: facts.token_generation,
        };
        for term in facts.terms {
            let text = self.terms.text(term);
            match self.terms.key_of(term) {
                TAGS => draft.tags.push(text),
                PLATFORM => draft.platform = text,
                APP_VERSION => draft.app_version = Some(text),
                LANGUAGE => draft.language = Some(text),
                TIME_ZONE => draft.time_zone = Some(text),
                key => draft.attributes.push((self.terms.key_name(key), Scalar::Text(text))),
            }
        }
        for (key, number) in facts.numbers {
            draft.attributes.push((self.terms.key_name(key), Scalar::Number(number)));
        }
        draft.tags.sort_unstable();
        draft.attributes.sort_unstable_by_key(|(key, _)| *key);
        draft
    }
}
