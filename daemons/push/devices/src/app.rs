//! One app: its devices and its words.

use roaring::RoaringBitmap;

use crate::Refused;
use crate::device::{Draft, Number, Scalar};
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

/// The key of a word.
#[derive(Clone, Copy)]
enum Key<'a> {
    Known(u32),
    /// An attribute that no device has yet.
    Fresh(&'a str),
}

/// The words of a device, and those of them that are known already.
pub(crate) struct Words<'a> {
    /// Each with its term, if it has one.
    texts: Vec<(Key<'a>, &'a str, Option<u32>)>,
    numbers: Vec<(Key<'a>, Number)>,
}

impl Words<'_> {
    /// How many are not known.
    fn fresh(&self) -> Distinct {
        let is_fresh = |key: &Key<'_>| usize::from(matches!(key, Key::Fresh(_)));
        let mut fresh = Distinct::default();
        for (key, _, term) in &self.texts {
            fresh.keys += is_fresh(key);
            match (key, term) {
                (_, Some(_)) => {}
                (Key::Known(TAGS), None) => fresh.tags += 1,
                (_, None) => fresh.values += 1,
            }
        }
        fresh.keys += self.numbers.iter().map(|(key, _)| is_fresh(key)).sum::<usize>();
        fresh
    }
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

    /// The words of a device, looked up.
    pub(crate) fn words<'a>(&self, draft: &Draft<'a>) -> Words<'a> {
        let mut words = Words {
            texts: Vec::with_capacity(draft.tags.len() + draft.attributes.len() + 4),
            numbers: Vec::new(),
        };
        let texts = built_in(draft).chain(draft.tags.iter().map(|tag| (TAGS, *tag)));
        for (key, text) in texts {
            words.texts.push((Key::Known(key), text, self.terms.find(key, text)));
        }
        for (name, value) in &draft.attributes {
            let key = self.terms.key(name).map_or(Key::Fresh(name), Key::Known);
            match (value, key) {
                (Scalar::Number(number), key) => words.numbers.push((key, *number)),
                (Scalar::Text(text), Key::Known(known)) => {
                    words.texts.push((key, text, self.terms.find(known, text)));
                }
                (Scalar::Text(text), Key::Fresh(_)) => words.texts.push((key, text, None)),
            }
        }
        words
    }

    /// Whether the words that are not known have room.
    pub(crate) fn check_words(&self, words: &Words<'_>, limits: &Limits) -> Result<(), Refused> {
        let fresh = words.fresh();
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

    /// What a device's row says, with the words that it makes known.
    pub(crate) fn facts(&mut self, draft: &Draft<'_>, words: Words<'_>) -> Facts {
        let key = |terms: &mut Terms, key| match key {
            Key::Known(key) => key,
            Key::Fresh(name) => terms.intern_key(name),
        };
        let mut terms = Vec::with_capacity(words.texts.len());
        for (of, text, known) in words.texts {
            let of = key(&mut self.terms, of);
            terms.push(known.unwrap_or_else(|| self.terms.intern(of, text)));
        }
        let numbers = words.numbers.into_iter();
        let mut numbers =
            numbers.map(|(of, number)| (key(&mut self.terms, of), number)).collect::<Vec<_>>();
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
