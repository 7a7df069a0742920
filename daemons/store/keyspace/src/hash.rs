//! Hashes: small ones packed in the blocks of their keys, field and value in turn in the order in
//! which they came; large ones in tables.

use crate::apply::{ApplyError, OBJECTS_MAX};
use crate::collection::Removed;
use crate::effect::{Effect, NoEffect, Target};
use crate::entry::Kind;
use crate::heap::OutOfMemory;
use crate::index::Cursor;
use crate::keyspace::{Found, Keyspace, Refused};
use crate::object::{Object, Shape};
use crate::packed::{self, Packed, PackedBuf, Splice, Word};
use crate::table::{Items, Pool, Table};

/// The fields of a hash, as they are kept.
#[derive(Clone, Copy)]
pub enum Fields<'a> {
    /// Field and value in turn.
    Small(Packed<'a>),
    /// A table, and where its items are.
    Large(&'a Table, &'a Pool),
}

impl<'a> Fields<'a> {
    /// How many there are.
    pub fn len(self) -> u64 {
        match self {
            Fields::Small(packed) => packed.len() as u64 / 2,
            Fields::Large(table, _) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The value of a field.
    pub fn get(self, field: &[u8]) -> Option<Word<'a>> {
        match self {
            Fields::Small(packed) => {
                let (_, item) = packed.find_every(Word::from_bytes(field), 2)?;
                packed.item_at(item.end).map(|(_, value)| value)
            }
            Fields::Large(table, pool) => table.get(pool, field).map(Word::Bytes),
        }
    }

    /// All fields with their values.
    pub fn iter(self) -> FieldsIter<'a> {
        match self {
            Fields::Small(packed) => FieldsIter::Small(packed.iter()),
            Fields::Large(table, pool) => FieldsIter::Large(table.items(pool)),
        }
    }

    /// Calls `each` for fields from a cursor on, about `count` of them, and tells where to go on:
    /// who goes from zero to zero has met everything that was there all the time. A small hash is
    /// told whole.
    pub fn scan(
        self,
        cursor: Cursor,
        count: usize,
        mut each: impl FnMut(Word<'a>, Word<'a>),
    ) -> Cursor {
        match self {
            Fields::Small(_) => {
                self.iter().for_each(|(field, value)| each(field, value));
                Cursor(0)
            }
            Fields::Large(table, pool) => table.scan(pool, cursor, count, |field, value| {
                each(Word::Bytes(field), Word::Bytes(value));
            }),
        }
    }

    /// A field by chance, with its value.
    pub fn sample(self, random: &mut fastrand::Rng) -> Option<(Word<'a>, Word<'a>)> {
        match self {
            Fields::Small(packed) if packed.is_empty() => None,
            Fields::Small(packed) => {
                let (item, field) = packed.nth(random.usize(..packed.len() / 2) * 2)?;
                let (_, value) = packed.item_at(item.end)?;
                Some((field, value))
            }
            Fields::Large(table, pool) => {
                let (field, value) = table.sample(pool, || random.u64(..))?;
                Some((Word::Bytes(field), Word::Bytes(value)))
            }
        }
    }

    /// So many different fields by chance, or all if there are no more.
    pub fn choose(self, count: usize, random: &mut fastrand::Rng) -> Vec<(Word<'a>, Word<'a>)> {
        match self {
            Fields::Small(_) => crate::table::choose(self.iter(), self.len(), count, random),
            Fields::Large(table, pool) => {
                let chosen = table.choose(pool, count, random).into_iter();
                chosen.map(|(field, value)| (Word::Bytes(field), Word::Bytes(value))).collect()
            }
        }
    }
}

/// Fields with their values.
#[derive(Clone)]
pub enum FieldsIter<'a> {
    /// Of a small hash.
    Small(packed::Iter<'a>),
    /// Of a large one.
    Large(Items<'a>),
}

impl<'a> Iterator for FieldsIter<'a> {
    type Item = (Word<'a>, Word<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            FieldsIter::Small(iter) => {
                let (_, field) = iter.next()?;
                let (_, value) = iter.next().expect("a field has a value");
                Some((field, value))
            }
            FieldsIter::Large(items) => {
                let (field, value) = items.next()?;
                Some((Word::Bytes(field), Word::Bytes(value)))
            }
        }
    }
}

/// What sets a field of a packed hash, and whether there was none.
fn set_splice<'w>(packed: Packed<'_>, pair: &'w [Word<'w>; 2]) -> (Splice<'w>, bool) {
    match packed.find_every(pair[0], 2) {
        Some((_, item)) => {
            let (value, _) = packed.item_at(item.end).expect("a field has a value");
            (packed.replace(value, &pair[1]), false)
        }
        None => (packed.push_back(pair), true),
    }
}

impl Keyspace {
    /// The hash of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn fields(&self, found: Found) -> Result<Fields<'_>, Refused> {
        match self.kind(found) {
            Kind::Hash => Ok(Fields::Small(Packed::new(self.value(found)))),
            Kind::Object => match self.object(found) {
                Some(Object::Hash(table)) => Ok(Fields::Large(table, &self.pool)),
                _ => Err(Refused::WrongType),
            },
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its hash.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn hash(&mut self, db: usize, key: &[u8]) -> Result<Option<Fields<'_>>, Refused> {
        match self.find(db, key) {
            Some(found) => self.fields(found).map(Some),
            None => Ok(None),
        }
    }

    /// Gives fields of a hash these values, in turn; a key that is not there is made. Returns how
    /// many fields are new.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the fields before are set.
    pub fn hash_set<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Result<u64, Refused> {
        let mut found = self.find(db, key);
        found.map(|found| self.fields(found)).transpose()?;
        let (value_max, mut count, mut longest) = (self.encoding.hash_value_max, 0, 0);
        for (field, value) in pairs.clone() {
            (count, longest) = (count + 1, longest.max(field.len()).max(value.len()));
        }
        let small = longest <= value_max && count <= self.encoding.hash_entries_max;
        let (mut new, mut outcome) = (0, Ok(()));
        for (field, value) in pairs {
            match self.hash_set_one(db, key, found, small, field, value) {
                Ok((now, is_new)) => (found, new) = (Some(now), new + u64::from(is_new)),
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            }
        }
        if found.is_some() {
            self.touch(db, key);
        }
        outcome.map(|()| new)
    }

    fn hash_set_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        small: bool,
        field: &[u8],
        value: &[u8],
    ) -> Result<(Found, bool), OutOfMemory> {
        if small {
            let done = self.hash_set_small(db, key, found, field, value)?;
            if let Some(done) = done {
                let target = self.target_of(db, key);
                self.journal.note(Effect::HashSet { target, field, value });
                return Ok(done);
            }
        }
        let (found, number) = self.hash_table(db, key, found)?;
        let pool = &mut self.pool;
        let inserted = self.objects.with(number, |object| match object {
            Object::Hash(table) => table.insert(pool, field, value),
            _ => panic!("a hash is a hash"),
        });
        match inserted.expect("the object of a key is there") {
            Ok((_, is_new)) => {
                let target = Target::Object(number);
                self.journal.note(Effect::HashSet { target, field, value });
                Ok((found, is_new))
            }
            Err(error) => {
                // It was made for the field, perhaps.
                if self.is_hollow(found) {
                    self.remove(found);
                }
                Err(error)
            }
        }
    }

    /// Sets a field where the hash is small, and stays so.
    fn hash_set_small(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        field: &[u8],
        value: &[u8],
    ) -> Result<Option<(Found, bool)>, OutOfMemory> {
        let pair = [Word::from_bytes(field), Word::from_bytes(value)];
        let Some(found) = found else {
            let mut packed = PackedBuf::new();
            packed.push_back(&pair);
            if !self.is_small(packed.bytes().len()) {
                return Ok(None);
            }
            let found = self.put(db, key, None, Kind::Hash, &[packed.bytes()], None)?;
            return Ok(Some((found, true)));
        };
        if self.kind(found) != Kind::Hash {
            return Ok(None);
        }
        let packed = Packed::new(self.value(found));
        let (splice, is_new) = set_splice(packed, &pair);
        let entries = usize::from(splice.count) / 2;
        let too_many = is_new && !self.replaying && entries > self.encoding.hash_entries_max;
        if too_many || !self.has_room(packed, &splice) {
            return Ok(None);
        }
        self.splice_packed(found, 0, &splice).map(|found| Some((found, is_new)))
    }

    /// Makes sure that a hash is in a table; tells the number of its object.
    fn hash_table(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
    ) -> Result<(Found, u32), OutOfMemory> {
        let Some(found) = found else {
            return self.bind(db, key, None, Object::Hash(Table::new()), None);
        };
        if let Some(number) = self.object_number(found) {
            return Ok((found, number));
        }
        let (bytes, expire) = (self.value(found).to_vec(), self.expires_at(found));
        let pairs = || Fields::Small(Packed::new(&bytes)).iter();
        let (mut table, mut buffers) = (Table::new(), ([0; 20], [0; 20]));
        for (field, value) in pairs() {
            let (field, value) = (field.as_bytes(&mut buffers.0), value.as_bytes(&mut buffers.1));
            if let Err(error) = table.insert(&mut self.pool, field, value) {
                table.drain(&mut self.pool, usize::MAX);
                return Err(error);
            }
        }
        let (found, number) = self.bind(db, key, Some(found), Object::Hash(table), expire)?;
        let target = Target::Object(number);
        for (field, value) in pairs() {
            let (field, value) = (field.as_bytes(&mut buffers.0), value.as_bytes(&mut buffers.1));
            self.journal.note(Effect::HashSet { target, field, value });
        }
        Ok((found, number))
    }

    /// Takes fields out of a hash.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the fields before are gone.
    pub fn hash_delete<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        fields: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Removed, Refused> {
        let mut removed = Removed::default();
        let Some(mut found) = self.find(db, key) else { return Ok(removed) };
        self.fields(found)?;
        let mut outcome = Ok(());
        for field in fields {
            match self.hash_delete_one(db, key, found, field) {
                Ok(None) => continue,
                Ok(Some(now)) => found = now,
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            }
            removed.count += 1;
            if self.is_hollow(found) {
                self.remove(found);
                return Ok(Removed { gone: true, ..removed });
            }
        }
        if removed.count > 0 {
            self.touch(db, key);
        }
        outcome.map(|()| removed)
    }

    fn hash_delete_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Found,
        field: &[u8],
    ) -> Result<Option<Found>, OutOfMemory> {
        let Some(number) = self.object_number(found) else {
            let packed = Packed::new(self.value(found));
            let Some((_, item)) = packed.find_every(Word::from_bytes(field), 2) else {
                return Ok(None);
            };
            let splice = packed.remove_from(item.start, 2);
            let found = self.splice_packed(found, 0, &splice)?;
            let target = self.target_of(db, key);
            self.journal.note(Effect::HashDelete { target, field });
            return Ok(Some(found));
        };
        if !self.hash_delete_large(number, field) {
            return Ok(None);
        }
        self.journal.note(Effect::HashDelete { target: Target::Object(number), field });
        Ok(Some(found))
    }

    fn hash_delete_large(&mut self, number: u32, field: &[u8]) -> bool {
        let pool = &mut self.pool;
        let removed = self.objects.with(number, |object| match object {
            Object::Hash(table) => table.remove(pool, field),
            _ => false,
        });
        removed.unwrap_or(false)
    }

    /// A field has this value, a log says.
    pub(crate) fn apply_hash_set(
        &mut self,
        target: Target<'_>,
        field: &[u8],
        value: &[u8],
    ) -> Result<(), ApplyError> {
        match target {
            Target::Named(db, key) => {
                let Some((db, found)) = self.make_way(db, key, &[Kind::Hash]) else {
                    return Ok(());
                };
                let done = self.hash_set_small(db, key, found, field, value)?;
                done.ok_or(NoEffect)?;
            }
            Target::Object(number) => {
                if number > OBJECTS_MAX {
                    return Err(NoEffect.into());
                }
                self.objects.ensure(number, Shape::Hash);
                let pool = &mut self.pool;
                let inserted = self.objects.with(number, |object| match object {
                    Object::Hash(table) => table.insert(pool, field, value),
                    _ => panic!("it was made sure of"),
                });
                inserted.expect("it was made sure of")?;
            }
        }
        Ok(())
    }

    /// A field is gone, a log says.
    pub(crate) fn apply_hash_delete(
        &mut self,
        target: Target<'_>,
        field: &[u8],
    ) -> Result<(), ApplyError> {
        match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &[Kind::Hash]) else { return Ok(()) };
                // A hash without fields stays: what else it has comes later, and it may expire.
                self.hash_delete_one(found.db, key, found, field)?;
            }
            Target::Object(number) => drop(self.hash_delete_large(number, field)),
        }
        Ok(())
    }

    /// Notes a field again if it has this value.
    pub(crate) fn relocate_hash_set(
        &mut self,
        target: Target<'_>,
        field: &[u8],
        value: &[u8],
    ) -> bool {
        let is_so = |fields: Fields<'_>| fields.get(field).is_some_and(|now| now.eq_bytes(value));
        let (named, is_so) = match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &[Kind::Hash]) else { return false };
                (Some(found), is_so(Fields::Small(Packed::new(self.value(found)))))
            }
            Target::Object(number) => match self.objects.get(number) {
                Some(Object::Hash(table)) => (None, is_so(Fields::Large(table, &self.pool))),
                _ => return false,
            },
        };
        if is_so {
            self.journal.note(Effect::HashSet { target, field, value });
        }
        named.into_iter().for_each(|found| self.note_expire_again(found));
        is_so
    }
}
