//! The registry: the devices of all apps, and what is done to them. See the crate for what it
//! promises.
//!
//! ```text
//!   id, alias ──▶ index ──▶ number ──▶ store: row of bytes
//!                              ▲
//!   app ──▶ term, column ──────┘         bitmaps of numbers
//! ```
//!
//! A change is checked against everything that could refuse it, and then made; nothing is half
//! made. A device that moves to another app keeps its number.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use roaring::RoaringBitmap;

use crate::app::{App, Words};
use crate::device::{Device, Draft, Entry, Field, Update};
use crate::index::Index;
use crate::limits::{LimitError, Limits, ceiling};
use crate::record::{Numbers, Record};
use crate::refused::{Refused, ReplayError};
use crate::rows::ROW_BYTES_MAX;
use crate::store::{self, Facts, Row, Store};
use crate::syntax::is_app;
use crate::terms::Distinct;
use crate::zones;

const HOUR_MS: u64 = 3_600_000;

// A row has a head, two texts, three varints of times and of the generation, two counts, terms of
// five bytes (four of them for what every device has) and numbers of five and nine.
const _: () = assert!(
    5 + 2 * ceiling::TEXT_BYTES
        + 30
        + 10
        + 5 * (2 * ceiling::PER_DEVICE + 4)
        + (5 + 9) * ceiling::PER_DEVICE
        <= ROW_BYTES_MAX
);

/// What became of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Registered,
    /// These parts of it changed.
    Updated(Vec<Field>),
    /// It is no more.
    Removed,
    /// Everything was so already.
    Unchanged,
}

/// What an operation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The device's number.
    pub number: u32,
    /// What became of it.
    pub what: What,
    /// What the owner appends to its log; `None` if nothing changed.
    pub record: Option<Vec<u8>>,
}

/// What an app has, of which the last three are what [`Limits`] bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its devices.
    pub devices: u64,
    /// Those of them that are used for tests.
    pub tests: u64,
    /// The distinct tags of its devices.
    pub tags: usize,
    /// The distinct keys of their attributes.
    pub keys: usize,
    /// The distinct values, see [`Limits::values_per_app`].
    pub values: usize,
}

/// The devices of all apps.
#[derive(Debug)]
pub struct Registry {
    limits: Limits,
    pub(crate) apps: Vec<App>,
    app_numbers: HashMap<Box<str>, u16>,
    pub(crate) store: Store,
    ids: Index,
    aliases: Index,
    hasher: RandomState,
    devices: u32,
    /// Every number below was given out once.
    next: u32,
    /// Numbers below `next` that nothing refers to.
    free: RoaringBitmap,
    /// Numbers of removed devices that something may refer to, by the hour of the removal. A number
    /// below `next` that is not free and has no row is one of them.
    retired: BTreeMap<u32, RoaringBitmap>,
    retired_len: u32,
    /// What the next device's generation of tokens is: above that of every removed device, so that
    /// no token outlives its device and lets in another of the same id.
    first_generation: u32,
    scratch: Vec<u8>,
}

impl Registry {
    /// A registry without apps.
    ///
    /// # Errors
    /// A limit is zero, or above what can be.
    pub fn new(limits: Limits) -> Result<Registry, LimitError> {
        limits.check()?;
        Ok(Registry {
            limits,
            apps: Vec::new(),
            app_numbers: HashMap::new(),
            store: Store::default(),
            ids: Index::default(),
            aliases: Index::default(),
            hasher: RandomState::default(),
            devices: 0,
            next: 0,
            free: RoaringBitmap::new(),
            retired: BTreeMap::new(),
            retired_len: 0,
            first_generation: 0,
            scratch: Vec::new(),
        })
    }

    /// What the registry takes at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Adds an app, or finds it: its number, and a record if it is new. Numbers of apps count up
    /// from zero and stay.
    ///
    /// # Errors
    /// The name is none, or there are too many apps.
    pub fn add_app(&mut self, name: &str) -> Result<(u16, Option<Vec<u8>>), Refused> {
        if let Some(number) = self.app(name) {
            return Ok((number, None));
        }
        if !is_app(name) {
            return Err(Refused::AppName);
        }
        if self.apps.len() >= self.limits.apps {
            return Err(Refused::AppsFull { max: self.limits.apps });
        }
        let number = self.push_app(name);
        Ok((number, Some(Record::App { number, name }.put())))
    }

    fn push_app(&mut self, name: &str) -> u16 {
        let number = u16::try_from(self.apps.len()).expect("apps are bounded by their numbers");
        self.apps.push(App::new(name));
        self.app_numbers.insert(name.into(), number);
        number
    }

    /// The number of an app.
    pub fn app(&self, name: &str) -> Option<u16> {
        self.app_numbers.get(name).copied()
    }

    /// The name of an app.
    pub fn app_name(&self, app: u16) -> Option<&str> {
        self.apps.get(usize::from(app)).map(|app| &*app.name)
    }

    /// The names of all apps; the place of each is its number.
    pub fn apps(&self) -> impl Iterator<Item = &str> {
        self.apps.iter().map(|app| &*app.name)
    }

    /// What an app has.
    pub fn usage(&self, app: u16) -> Option<Usage> {
        let app = self.apps.get(usize::from(app))?;
        let Distinct { tags, keys, values } = app.terms.distinct();
        Some(Usage { devices: app.devices.len(), tests: app.tests.len(), tags, keys, values })
    }

    /// How many devices there are.
    pub fn len(&self) -> u32 {
        self.devices
    }

    /// Whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.devices == 0
    }

    /// How many numbers of removed devices wait for [`Registry::release`].
    pub fn retired(&self) -> u32 {
        self.retired_len
    }

    /// The number of a device.
    pub fn number(&self, id: &str) -> Option<u32> {
        self.ids.find(self.hash_of_id(id), |number| self.store.row_of(number).id == id)
    }

    /// The id of the device that has a number.
    pub fn id(&self, number: u32) -> Option<&str> {
        self.store.row(number).map(|row| row.id)
    }

    /// The app of the device that has a number.
    pub fn app_of(&self, number: u32) -> Option<u16> {
        self.store.row(number).map(|row| row.app)
    }

    /// How often a device's tokens were revoked: one of an earlier generation is not valid.
    pub fn token_generation(&self, id: &str) -> Option<u32> {
        self.number(id).map(|number| self.store.row_of(number).token_generation())
    }

    /// A device.
    pub fn get(&self, id: &str) -> Option<Entry> {
        self.number(id).and_then(|number| self.entry(number))
    }

    /// The device that has a number.
    pub fn entry(&self, number: u32) -> Option<Entry> {
        let draft = self.draft(number)?;
        let device = draft.to_device(&self.apps[usize::from(draft.app)].name);
        Some(Entry {
            number,
            device,
            registered_at: draft.registered_at,
            updated_at: draft.updated_at,
            token_generation: draft.token_generation,
        })
    }

    pub(crate) fn draft(&self, number: u32) -> Option<Draft<'_>> {
        let row = self.store.row(number)?;
        Some(self.apps[usize::from(row.app)].draft(&row))
    }

    /// The numbers of an app's devices that have an alias, in no order.
    pub(crate) fn with_alias<'a>(
        &'a self,
        app: u16,
        alias: &'a str,
    ) -> impl Iterator<Item = u32> + 'a {
        self.aliases.find_all(self.hash_of_alias(app, alias), move |number| {
            let row = self.store.row_of(number);
            row.app == app && row.alias == Some(alias)
        })
    }

    fn hash_of_id(&self, id: &str) -> u64 {
        self.hasher.hash_one(id)
    }

    fn hash_of_alias(&self, app: u16, alias: &str) -> u64 {
        self.hasher.hash_one((app, alias))
    }

    /// Registers a device, or makes one that is registered be this; `now` is in milliseconds since
    /// 1970. A device that is so already stays as it is, [`Entry::updated_at`] too, and has no
    /// record: most apps register at each start.
    ///
    /// # Errors
    /// See [`Refused`]. Nothing changed.
    pub fn register(&mut self, device: &Device, now: u64) -> Result<Change, Refused> {
        let app = self.app(&device.app).ok_or(Refused::UnknownApp)?;
        self.put(Draft::of(device, app, now))
    }

    /// Changes a part of a device.
    ///
    /// # Errors
    /// There is no such device, or what it would become is refused. Nothing changed.
    pub fn update(&mut self, id: &str, update: &Update, now: u64) -> Result<Change, Refused> {
        let mut device = self.get(id).ok_or(Refused::UnknownDevice)?.device;
        update.apply(&mut device);
        self.register(&device, now)
    }

    fn put(&mut self, mut draft: Draft<'_>) -> Result<Change, Refused> {
        draft.check(&self.limits)?;
        let known = self.number(draft.id);
        let what = match known {
            Some(number) => {
                let old = self.draft(number).expect("what an index names has a row");
                draft.registered_at = old.registered_at;
                draft.token_generation = old.token_generation;
                What::Updated(draft.differs(&old))
            }
            None => {
                draft.token_generation = self.first_generation;
                What::Registered
            }
        };
        let says_zone = match &what {
            What::Updated(fields) => fields.contains(&Field::TimeZone),
            _ => true,
        };
        if says_zone && !draft.time_zone.is_none_or(zones::is_known) {
            return Err(Refused::TimeZone);
        }
        if let (What::Updated(fields), Some(number)) = (&what, known)
            && fields.is_empty()
        {
            return Ok(Change { number, what: What::Unchanged, record: None });
        }
        self.check_room(known, &draft)?;
        let words = self.apps[usize::from(draft.app)].words(&draft);
        self.apps[usize::from(draft.app)].check_words(&words, &self.limits)?;
        let number = known.unwrap_or_else(|| self.free.min().unwrap_or(self.next));
        self.write(number, &draft, words);
        Ok(Change { number, what, record: Some(Record::Device { number, draft }.put()) })
    }

    fn check_room(&self, known: Option<u32>, draft: &Draft<'_>) -> Result<(), Refused> {
        if known.is_none() {
            if self.devices >= self.limits.devices {
                return Err(Refused::DevicesFull { max: self.limits.devices });
            }
            // Both are below 2³², and their sum may not be.
            if u64::from(self.devices) + u64::from(self.retired_len)
                >= u64::from(self.limits.numbers)
            {
                return Err(Refused::NumbersFull { max: self.limits.numbers });
            }
            if draft.token_generation == u32::MAX {
                return Err(Refused::GenerationsFull);
            }
        }
        if let Some(alias) = draft.alias {
            let max = self.limits.devices_per_alias;
            let others = self.with_alias(draft.app, alias).filter(|other| Some(*other) != known);
            if others.count() >= max {
                return Err(Refused::AliasFull { max });
            }
        }
        if !self.store.has_room() {
            return Err(Refused::RowsFull);
        }
        Ok(())
    }

    /// Makes everything say that the device of this number is so, whose words were just looked up.
    fn write(&mut self, number: u32, draft: &Draft<'_>, words: Words<'_>) {
        let alias = draft.alias.map(|alias| self.hash_of_alias(draft.app, alias));
        let old = self.store.row(number).map(|row| {
            let alias = row.alias.map(|alias| self.hash_of_alias(row.app, alias));
            (row.app, alias, row.facts())
        });
        let (old_alias, old_facts) = match old {
            Some((app, alias, facts)) if app == draft.app => (alias, facts),
            Some((app, alias, facts)) => {
                self.apps[usize::from(app)].leave(number, &facts);
                (alias, Facts::default())
            }
            None => {
                let is_new = self.take_number(number);
                assert!(is_new, "a device without a row has a number that is free");
                self.devices += 1;
                (None, Facts::default())
            }
        };
        let app = &mut self.apps[usize::from(draft.app)];
        let facts = app.facts(draft, words);
        app.index(number, &old_facts, &facts);
        app.enter(number, draft.test);
        self.scratch.clear();
        store::put((draft.app, draft.test), (draft.id, draft.alias), &facts, &mut self.scratch);
        let is_new = self.store.row(number).is_none();
        self.store.set(number, draft.registered_at, &self.scratch);
        if is_new {
            let hash = self.hash_of_id(draft.id);
            let Registry { ids, store, hasher, .. } = self;
            ids.insert(hash, number, |other| hasher.hash_one(store.row_of(other).id));
        }
        self.set_alias(number, old_alias, alias);
    }

    /// Moves a device from one alias's hash to another's.
    fn set_alias(&mut self, number: u32, old: Option<u64>, new: Option<u64>) {
        if old == new {
            return;
        }
        if let Some(hash) = old {
            self.aliases.remove(hash, number);
        }
        if let Some(hash) = new {
            let Registry { aliases, store, hasher, .. } = self;
            aliases.insert(hash, number, |other| hash_of_alias(hasher, &store.row_of(other)));
        }
    }

    /// Makes a number be in use; `false` if it is already, or is retired.
    fn take_number(&mut self, number: u32) -> bool {
        if number < self.next {
            return self.free.remove(number);
        }
        self.free.insert_range(self.next..number);
        self.next = number + 1;
        true
    }

    /// Removes a device. Its number is not given out again before [`Registry::release`].
    ///
    /// # Errors
    /// There is no such device.
    pub fn remove(&mut self, id: &str, now: u64) -> Result<Change, Refused> {
        let number = self.number(id).ok_or(Refused::UnknownDevice)?;
        let generation = self.store.row_of(number).token_generation();
        self.erase(number);
        self.retire(number, hour_of(now));
        self.end_generation(generation);
        let record = Record::Removed { number, at: now, generation }.put();
        Ok(Change { number, what: What::Removed, record: Some(record) })
    }

    fn erase(&mut self, number: u32) {
        let row = self.store.row_of(number);
        let id = self.hash_of_id(row.id);
        let alias = row.alias.map(|alias| self.hash_of_alias(row.app, alias));
        let (app, facts) = (usize::from(row.app), row.facts());
        self.ids.remove(id, number);
        self.set_alias(number, alias, None);
        self.apps[app].leave(number, &facts);
        self.store.remove(number);
        self.devices -= 1;
    }

    fn retire(&mut self, number: u32, hour: u32) {
        self.retired.entry(hour).or_default().insert(number);
        self.retired_len += 1;
    }

    fn end_generation(&mut self, generation: u32) {
        self.first_generation = self.first_generation.max(generation.saturating_add(1));
    }

    /// Revokes the tokens that a device has: raises its generation of them.
    ///
    /// # Errors
    /// There is no such device.
    pub fn revoke_tokens(&mut self, id: &str, now: u64) -> Result<Change, Refused> {
        let entry = self.get(id).ok_or(Refused::UnknownDevice)?;
        let app = self.app(&entry.device.app).ok_or(Refused::UnknownApp)?;
        let token_generation =
            entry.token_generation.checked_add(1).ok_or(Refused::GenerationsFull)?;
        if !self.store.has_room() {
            return Err(Refused::RowsFull);
        }
        let registered_at = entry.registered_at;
        let of = Draft::of(&entry.device, app, now);
        let draft = Draft { registered_at, token_generation, ..of };
        let words = self.apps[usize::from(app)].words(&draft);
        self.write(entry.number, &draft, words);
        let what = What::Updated(vec![Field::TokenGeneration]);
        let record = Record::Device { number: entry.number, draft }.put();
        Ok(Change { number: entry.number, what, record: Some(record) })
    }

    /// Lets the numbers of devices be given out again that were removed in an hour that ended
    /// before `before`, in milliseconds since 1970: nothing refers to them any more, no queue, no
    /// audit. How many, and the record, if there are any. The lowest is given out first.
    pub fn release(&mut self, before: u64) -> (u32, Option<Vec<u8>>) {
        let rest = self.retired.split_off(&hour_of(before));
        let released = std::mem::replace(&mut self.retired, rest);
        let count = released.values().map(RoaringBitmap::len).sum::<u64>() as u32;
        released.into_values().for_each(|numbers| self.free |= numbers);
        self.retired_len -= count;
        (count, (count > 0).then(|| Record::Released { before }.put()))
    }

    /// Makes the registry be as a record says, which an operation or [`Registry::next_record`]
    /// gave. Records are replayed in the order in which they were given.
    ///
    /// # Errors
    /// See [`ReplayError`]. Nothing changed.
    pub fn replay(&mut self, record: &[u8]) -> Result<(), ReplayError> {
        match Record::take(record).map_err(|_| ReplayError::Unreadable)? {
            Record::App { number, name } => self.replay_app(number, name),
            Record::Device { number, draft } => self.replay_device(number, &draft),
            Record::Removed { number, at, generation } => {
                self.replay_removed(number, at, generation)
            }
            Record::Released { before } => {
                self.release(before);
                Ok(())
            }
            Record::Numbers(numbers) => {
                self.replay_numbers(numbers);
                Ok(())
            }
            Record::Retired { hour, numbers } => self.replay_retired(hour, &numbers),
        }
    }

    fn replay_numbers(&mut self, numbers: Numbers) {
        if numbers.next > self.next {
            self.free.insert_range(self.next..numbers.next);
            self.next = numbers.next;
        }
        self.first_generation = self.first_generation.max(numbers.first_generation);
        let Registry { ids, aliases, store, hasher, limits, .. } = self;
        let room = |count: u32| count.min(limits.devices) as usize;
        ids.reserve(room(numbers.devices), |other| hasher.hash_one(store.row_of(other).id));
        aliases.reserve(room(numbers.aliases), |other| hash_of_alias(hasher, &store.row_of(other)));
    }

    fn replay_retired(&mut self, hour: u32, numbers: &[u32]) -> Result<(), ReplayError> {
        if numbers.iter().any(|number| self.store.row(*number).is_some()) {
            return Err(ReplayError::Contradiction("a device is said to be removed"));
        }
        if numbers.iter().any(|number| *number > ceiling::NUMBERS) {
            return Err(ReplayError::Contradiction("a number is none"));
        }
        for number in numbers {
            if self.take_number(*number) {
                self.retire(*number, hour);
            }
        }
        Ok(())
    }

    fn replay_app(&mut self, number: u16, name: &str) -> Result<(), ReplayError> {
        if self.app(name) == Some(number) {
            return Ok(());
        }
        if self.app(name).is_some() || usize::from(number) != self.apps.len() {
            return Err(ReplayError::Contradiction("an app has another number"));
        }
        if !is_app(name) {
            return Err(Refused::AppName.into());
        }
        if self.apps.len() >= ceiling::APPS {
            return Err(Refused::AppsFull { max: ceiling::APPS }.into());
        }
        self.push_app(name);
        Ok(())
    }

    fn replay_device(&mut self, number: u32, draft: &Draft<'_>) -> Result<(), ReplayError> {
        draft.check(&Limits {
            tags_per_device: ceiling::PER_DEVICE,
            attributes_per_device: ceiling::PER_DEVICE,
            tag_bytes: ceiling::TEXT_BYTES,
            key_bytes: ceiling::TEXT_BYTES,
            value_bytes: ceiling::TEXT_BYTES,
            ..self.limits
        })?;
        if usize::from(draft.app) >= self.apps.len() {
            return Err(ReplayError::Contradiction("a device is of an app that there is not"));
        }
        let known = self.number(draft.id);
        let is_free = number >= self.next || self.free.contains(number);
        if number > ceiling::NUMBERS || known.map_or(!is_free, |known| known != number) {
            return Err(ReplayError::Contradiction("a device has another number"));
        }
        if !self.store.has_room() {
            return Err(Refused::RowsFull.into());
        }
        let words = self.apps[usize::from(draft.app)].words(draft);
        self.write(number, draft, words);
        Ok(())
    }

    fn replay_removed(&mut self, number: u32, at: u64, generation: u32) -> Result<(), ReplayError> {
        if number > ceiling::NUMBERS {
            return Err(ReplayError::Contradiction("a device has another number"));
        }
        let is_known = self.store.row(number).is_some();
        if is_known {
            self.erase(number);
        }
        // A snapshot that was still being written had not come to it, or had it removed already.
        if is_known || self.take_number(number) {
            self.retire(number, hour_of(at));
        }
        self.end_generation(generation);
        Ok(())
    }

    pub(crate) fn numbers(&self) -> Numbers {
        Numbers {
            next: self.next,
            first_generation: self.first_generation,
            devices: self.devices,
            aliases: self.aliases.len() as u32,
        }
    }

    /// Numbers of devices removed in the hour, or the first hour after it that has any, above the
    /// number.
    pub(crate) fn retired_after(&self, hour: u32, above: Option<u32>) -> Option<(u32, Vec<u32>)> {
        const AT_ONCE: usize = 4096;
        for (at, numbers) in self.retired.range(hour..) {
            let from = above.filter(|_| *at == hour).map_or(0, |above| above.saturating_add(1));
            let some = numbers.range(from..).take(AT_ONCE).collect::<Vec<_>>();
            if !some.is_empty() {
                return Some((*at, some));
            }
        }
        None
    }
}

/// The hash of the alias that a row has.
fn hash_of_alias(hasher: &RandomState, row: &Row<'_>) -> u64 {
    hasher.hash_one((row.app, row.alias.unwrap_or_default()))
}

fn hour_of(at: u64) -> u32 {
    u32::try_from(at / HOUR_MS).unwrap_or(u32::MAX)
}
