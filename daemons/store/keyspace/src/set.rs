//! Sets: integers in order in eight bytes each, small ones packed in the order in which members
//! came, both in the blocks of their keys; large ones in tables.

use crate::apply::{ApplyError, OBJECTS_MAX};
use crate::collection::Removed;
use crate::effect::{Effect, NoEffect, Target};
use crate::entry::Kind;
use crate::heap::OutOfMemory;
use crate::index::Cursor;
use crate::keyspace::{Found, Keyspace, Refused};
use crate::object::{Object, Shape};
use crate::packed::{self, Packed, PackedBuf, Word};
use crate::strings::canonical_int;
use crate::table::{Items, Pool, Table};

const INT_BYTES: usize = 8;

/// What a set may be in the block of its key.
const SMALL: [Kind; 2] = [Kind::Ints, Kind::Set];

/// The members of a set, as they are kept.
#[derive(Clone, Copy)]
pub enum Members<'a> {
    /// Integers in order.
    Ints(Ints<'a>),
    /// Members in the order in which they came.
    Small(Packed<'a>),
    /// A table, and where its items are.
    Large(&'a Table, &'a Pool),
}

/// Integers in order.
#[derive(Clone, Copy)]
pub struct Ints<'a>(&'a [u8]);

impl<'a> Ints<'a> {
    fn len(self) -> usize {
        self.0.len() / INT_BYTES
    }

    fn at(self, index: usize) -> i64 {
        let bytes = &self.0[index * INT_BYTES..][..INT_BYTES];
        i64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// Where an integer is, or would be.
    fn search(self, int: i64) -> Result<usize, usize> {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.at(middle).cmp(&int) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        Err(from)
    }

    fn iter(self) -> impl Iterator<Item = i64> + 'a {
        let int = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        self.0.chunks_exact(INT_BYTES).map(int)
    }
}

/// Whether bytes are integers in order, each once.
pub(crate) fn are_ints(bytes: &[u8]) -> bool {
    bytes.len().is_multiple_of(INT_BYTES) && Ints(bytes).iter().is_sorted_by(|a, b| a < b)
}

impl<'a> Members<'a> {
    /// How many there are.
    pub fn len(self) -> u64 {
        match self {
            Members::Ints(ints) => ints.len() as u64,
            Members::Small(packed) => packed.len() as u64,
            Members::Large(table, _) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether this is one of them.
    pub fn contains(self, member: &[u8]) -> bool {
        match self {
            Members::Ints(ints) => {
                canonical_int(member).is_some_and(|int| ints.search(int).is_ok())
            }
            Members::Small(packed) => packed.find(Word::from_bytes(member)).is_some(),
            Members::Large(table, pool) => table.contains(pool, member),
        }
    }

    /// All members.
    pub fn iter(self) -> MembersIter<'a> {
        match self {
            Members::Ints(ints) => MembersIter::Ints(ints, 0),
            Members::Small(packed) => MembersIter::Small(packed.iter()),
            Members::Large(table, pool) => MembersIter::Large(table.items(pool)),
        }
    }

    /// Calls `each` for members from a cursor on, about `count` of them, and tells where to go on:
    /// who goes from zero to zero has met everything that was there all the time. A small set is
    /// told whole.
    pub fn scan(self, cursor: Cursor, count: usize, mut each: impl FnMut(Word<'a>)) -> Cursor {
        match self {
            Members::Large(table, pool) => {
                table.scan(pool, cursor, count, |member, _| each(Word::Bytes(member)))
            }
            _ => {
                self.iter().for_each(each);
                Cursor(0)
            }
        }
    }

    /// A member by chance.
    pub fn sample(self, random: &mut fastrand::Rng) -> Option<Word<'a>> {
        if self.is_empty() {
            return None;
        }
        match self {
            Members::Ints(ints) => Some(Word::Int(ints.at(random.usize(..ints.len())))),
            Members::Small(packed) => {
                packed.nth(random.usize(..packed.len())).map(|(_, member)| member)
            }
            Members::Large(table, pool) => {
                table.sample(pool, || random.u64(..)).map(|(member, _)| Word::Bytes(member))
            }
        }
    }

    /// So many different members by chance, or all if there are no more.
    pub fn choose(self, count: usize, random: &mut fastrand::Rng) -> Vec<Word<'a>> {
        match self {
            Members::Large(table, pool) => {
                let chosen = table.choose(pool, count, random).into_iter();
                chosen.map(|(member, _)| Word::Bytes(member)).collect()
            }
            _ => crate::table::choose(self.iter(), self.len(), count, random),
        }
    }
}

/// The members of a set.
#[derive(Clone)]
pub enum MembersIter<'a> {
    /// Of a set of integers, from an index on.
    Ints(Ints<'a>, usize),
    /// Of a packed one.
    Small(packed::Iter<'a>),
    /// Of a large one.
    Large(Items<'a>),
}

impl<'a> Iterator for MembersIter<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            MembersIter::Ints(ints, next) => {
                let int = (*next < ints.len()).then(|| ints.at(*next))?;
                *next += 1;
                Some(Word::Int(int))
            }
            MembersIter::Small(iter) => iter.next().map(|(_, member)| member),
            MembersIter::Large(items) => items.next().map(|(member, _)| Word::Bytes(member)),
        }
    }
}

impl Keyspace {
    /// The set of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn members(&self, found: Found) -> Result<Members<'_>, Refused> {
        match self.kind(found) {
            Kind::Ints => Ok(Members::Ints(Ints(self.value(found)))),
            Kind::Set => Ok(Members::Small(Packed::new(self.value(found)))),
            Kind::Object => match self.object(found) {
                Some(Object::Set(table)) => Ok(Members::Large(table, &self.pool)),
                _ => Err(Refused::WrongType),
            },
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its set.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn set_of(&mut self, db: usize, key: &[u8]) -> Result<Option<Members<'_>>, Refused> {
        match self.find(db, key) {
            Some(found) => self.members(found).map(Some),
            None => Ok(None),
        }
    }

    /// Adds members to a set; a key that is not there is made. Returns how many are new.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the members before are added.
    pub fn set_add<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        members: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<u64, Refused> {
        let mut found = self.find(db, key);
        found.map(|found| self.members(found)).transpose()?;
        let many = members.clone().count();
        let (mut new, mut outcome) = (0, Ok(()));
        for member in members {
            match self.set_add_one(db, key, found, many, member) {
                Ok((now, is_new)) => (found, new) = (Some(now), new + u64::from(is_new)),
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            }
        }
        if new > 0 {
            self.touch(db, key);
        }
        outcome.map(|()| new)
    }

    /// Adds a member, as one of so many.
    fn set_add_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        many: usize,
        member: &[u8],
    ) -> Result<(Found, bool), OutOfMemory> {
        if let Some((found, is_new)) = self.set_add_small(db, key, found, many, member)? {
            if is_new {
                let target = self.target_of(db, key);
                self.journal.note(Effect::SetAdd { target, member });
            }
            return Ok((found, is_new));
        }
        let (found, number) = self.set_table(db, key, found)?;
        match self.set_add_large(number, member) {
            Ok(is_new) => {
                if is_new {
                    let target = Target::Object(number);
                    self.journal.note(Effect::SetAdd { target, member });
                }
                Ok((found, is_new))
            }
            Err(error) => {
                // It was made for the member, perhaps.
                if self.is_hollow(found) {
                    self.remove(found);
                }
                Err(error)
            }
        }
    }

    fn set_add_large(&mut self, number: u32, member: &[u8]) -> Result<bool, OutOfMemory> {
        let pool = &mut self.pool;
        let inserted = self.objects.with(number, |object| match object {
            Object::Set(table) => table.insert(pool, member, &[]),
            _ => panic!("a set is a set"),
        });
        inserted.expect("the object is there").map(|(_, is_new)| is_new)
    }

    /// Adds a member where the set is small, and stays so.
    fn set_add_small(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        many: usize,
        member: &[u8],
    ) -> Result<Option<(Found, bool)>, OutOfMemory> {
        let (ints_max, entries_max) = match self.replaying {
            true => (usize::MAX, usize::MAX),
            false => (self.encoding.set_ints_max, self.encoding.set_entries_max),
        };
        let int = canonical_int(member);
        match found.map(|found| (found, self.kind(found))) {
            None if int.is_some() && many <= ints_max => {
                let int = int.unwrap_or_default().to_le_bytes();
                let found = self.put(db, key, None, Kind::Ints, &[&int], None)?;
                Ok(Some((found, true)))
            }
            None if many <= entries_max => self.set_pack(db, key, None, member),
            Some((found, Kind::Ints)) if many <= ints_max => {
                let Some(int) = int else { return self.set_pack(db, key, Some(found), member) };
                let ints = Ints(self.value(found));
                let at = match ints.search(int) {
                    Ok(_) => return Ok(Some((found, false))),
                    Err(at) => at,
                };
                if ints.len() >= ints_max {
                    return Ok(None);
                }
                if !self.is_small((ints.len() + 1) * INT_BYTES) {
                    return self.set_pack(db, key, Some(found), member);
                }
                let found = self.splice(found, at * INT_BYTES, 0, &int.to_le_bytes())?;
                Ok(Some((found, true)))
            }
            Some((found, Kind::Set)) if many <= entries_max => {
                let (packed, word) = (Packed::new(self.value(found)), [Word::from_bytes(member)]);
                if packed.find(word[0]).is_some() {
                    return Ok(Some((found, false)));
                }
                let splice = packed.push_back(&word);
                let fits = self.is_packable(packed.len(), member.len());
                if !fits || !self.has_room(packed, &splice) {
                    return Ok(None);
                }
                self.splice_packed(found, 0, &splice).map(|found| Some((found, true)))
            }
            _ => Ok(None),
        }
    }

    /// Whether a packed set of so many members may have one more, of so many bytes.
    fn is_packable(&self, entries: usize, member_bytes: usize) -> bool {
        let (entries_max, value_max) = (self.encoding.set_entries_max, self.encoding.set_value_max);
        self.replaying || (entries < entries_max && member_bytes <= value_max)
    }

    /// Makes a packed set of integers, or of nothing, and a member that is not among them.
    fn set_pack(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        member: &[u8],
    ) -> Result<Option<(Found, bool)>, OutOfMemory> {
        let ints = Ints(found.map_or(&[], |found| self.value(found)));
        // The first or the last integer has the most digits.
        let ends = [ints.0.first_chunk(), ints.0.last_chunk()];
        let ends = ends.into_iter().flatten().map(|int| Word::Int(i64::from_le_bytes(*int)).len());
        let longest = ends.max().unwrap_or(0).max(member.len());
        let items = ints.iter().map(Word::Int).chain([Word::from_bytes(member)]);
        let words: Vec<Word<'_>> = match self.is_packable(ints.len(), longest) {
            true if self.is_small(member.len()) && ints.len() < packed::ITEMS_MAX => {
                items.collect()
            }
            _ => return Ok(None),
        };
        let mut packed = PackedBuf::new();
        packed.push_back(&words);
        if !self.is_small(packed.bytes().len()) {
            return Ok(None);
        }
        let expire = found.and_then(|found| self.expires_at(found));
        let found = self.put(db, key, found, Kind::Set, &[packed.bytes()], expire)?;
        Ok(Some((found, true)))
    }

    /// Makes sure that a set is in a table; tells the number of its object.
    fn set_table(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
    ) -> Result<(Found, u32), OutOfMemory> {
        let Some(found) = found else {
            return self.bind(db, key, None, Object::Set(Table::new()), None);
        };
        if let Some(number) = self.object_number(found) {
            return Ok((found, number));
        }
        let (bytes, expire) = (self.value(found).to_vec(), self.expires_at(found));
        let members = match self.kind(found) {
            Kind::Ints => Members::Ints(Ints(&bytes)),
            _ => Members::Small(Packed::new(&bytes)),
        };
        self.set_bind(db, key, Some(found), members.iter(), expire)
    }

    /// Makes a key a set of these members, in a table.
    fn set_bind<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        members: impl Iterator<Item = Word<'a>> + Clone,
        expire: Option<u64>,
    ) -> Result<(Found, u32), OutOfMemory> {
        let (mut table, mut buffer) = (Table::new(), [0; 20]);
        for member in members.clone() {
            let inserted = table.insert(&mut self.pool, member.as_bytes(&mut buffer), &[]);
            if let Err(error) = inserted {
                table.drain(&mut self.pool, usize::MAX);
                return Err(error);
            }
        }
        let (found, number) = self.bind(db, key, found, Object::Set(table), expire)?;
        let target = Target::Object(number);
        for member in members {
            let member = member.as_bytes(&mut buffer);
            self.journal.note(Effect::SetAdd { target, member });
        }
        Ok((found, number))
    }

    /// Makes a key the set of these members, which are all different, whatever it was; without
    /// members the key is gone. It does not expire.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    pub fn set_store(&mut self, db: usize, key: &[u8], members: &[Vec<u8>]) -> Result<(), Refused> {
        let found = self.find_any(db, key);
        if members.is_empty() {
            found.into_iter().for_each(|found| self.remove(found));
            return Ok(());
        }
        let words = members.iter().map(|member| Word::Bytes(member));
        match self.packed_set(members) {
            Some((kind, bytes)) => {
                self.put(db, key, found, kind, &[&bytes], None)?;
                self.note_whole(db, key, kind, &bytes, None);
            }
            None => drop(self.set_bind(db, key, found, words, None)?),
        }
        self.touch(db, key);
        Ok(())
    }

    /// What a set of these members is in the block of its key, if it is small.
    fn packed_set(&self, members: &[Vec<u8>]) -> Option<(Kind, Vec<u8>)> {
        let encoding = &self.encoding;
        if members.len() <= encoding.set_ints_max && self.is_small(members.len() * INT_BYTES) {
            let ints: Option<Vec<i64>> = members.iter().map(|int| canonical_int(int)).collect();
            if let Some(mut ints) = ints {
                ints.sort_unstable();
                let bytes: Vec<u8> = ints.iter().flat_map(|int| int.to_le_bytes()).collect();
                return Some((Kind::Ints, bytes));
            }
        }
        let bytes: usize = members.iter().map(Vec::len).sum();
        let longest = members.iter().map(Vec::len).max().unwrap_or(0);
        if !self.is_small(bytes) || !self.is_packable(members.len() - 1, longest) {
            return None;
        }
        let words: Vec<Word<'_>> = members.iter().map(|word| Word::from_bytes(word)).collect();
        let mut packed = PackedBuf::new();
        if words.len() <= packed::ITEMS_MAX {
            packed.push_back(&words);
        }
        let fits = !packed.is_empty() && self.is_small(packed.bytes().len());
        fits.then(|| (Kind::Set, packed.bytes().to_vec()))
    }

    /// Takes members out of a set.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the members before are gone.
    pub fn set_remove<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        members: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Removed, Refused> {
        let mut removed = Removed::default();
        let Some(mut found) = self.find(db, key) else { return Ok(removed) };
        self.members(found)?;
        let mut outcome = Ok(());
        for member in members {
            match self.set_remove_one(db, key, found, member) {
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

    fn set_remove_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Found,
        member: &[u8],
    ) -> Result<Option<Found>, OutOfMemory> {
        let found = match self.members(found) {
            Ok(Members::Ints(ints)) => {
                let at = canonical_int(member).and_then(|int| ints.search(int).ok());
                let Some(at) = at else { return Ok(None) };
                self.splice(found, at * INT_BYTES, INT_BYTES, &[])?
            }
            Ok(Members::Small(packed)) => {
                let Some((_, item)) = packed.find(Word::from_bytes(member)) else {
                    return Ok(None);
                };
                let splice = packed.remove_from(item.start, 1);
                self.splice_packed(found, 0, &splice)?
            }
            _ => {
                let number = self.object_number(found).expect("what is not small is an object");
                if !self.set_remove_large(number, member) {
                    return Ok(None);
                }
                self.journal.note(Effect::SetRemove { target: Target::Object(number), member });
                return Ok(Some(found));
            }
        };
        let target = self.target_of(db, key);
        self.journal.note(Effect::SetRemove { target, member });
        Ok(Some(found))
    }

    fn set_remove_large(&mut self, number: u32, member: &[u8]) -> bool {
        let pool = &mut self.pool;
        let removed = self.objects.with(number, |object| match object {
            Object::Set(table) => table.remove(pool, member),
            _ => false,
        });
        removed.unwrap_or(false)
    }

    /// Takes so many members by chance out of a set, or all if there are no more; tells which, and
    /// whether the key is gone.
    ///
    /// # Errors
    /// See [`Refused`].
    pub fn set_pop(
        &mut self,
        db: usize,
        key: &[u8],
        count: usize,
    ) -> Result<(Vec<Vec<u8>>, bool), Refused> {
        let mut random = self.random();
        let Some(found) = self.find(db, key) else { return Ok((Vec::new(), false)) };
        let (members, mut buffer) = (self.members(found)?, [0; 20]);
        let all = count as u64 >= members.len();
        let chosen = members.choose(count, &mut random).into_iter();
        let chosen: Vec<_> = chosen.map(|word| word.as_bytes(&mut buffer).to_vec()).collect();
        if all {
            self.remove(found);
        } else {
            self.set_remove(db, key, chosen.iter().map(Vec::as_slice))?;
        }
        Ok((chosen, all))
    }

    /// A member is there, a log says.
    pub(crate) fn apply_set_add(
        &mut self,
        target: Target<'_>,
        member: &[u8],
    ) -> Result<(), ApplyError> {
        match target {
            Target::Named(db, key) => {
                let Some((db, found)) = self.make_way(db, key, &SMALL) else { return Ok(()) };
                self.set_add_small(db, key, found, 1, member)?.ok_or(NoEffect)?;
            }
            Target::Object(number) => {
                if number > OBJECTS_MAX {
                    return Err(NoEffect.into());
                }
                self.objects.ensure(number, Shape::Set);
                self.set_add_large(number, member)?;
            }
        }
        Ok(())
    }

    /// A member is gone, a log says.
    pub(crate) fn apply_set_remove(
        &mut self,
        target: Target<'_>,
        member: &[u8],
    ) -> Result<(), ApplyError> {
        match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &SMALL) else { return Ok(()) };
                // A set without members stays: what else it has comes later, and it may expire.
                self.set_remove_one(found.db, key, found, member)?;
            }
            Target::Object(number) => drop(self.set_remove_large(number, member)),
        }
        Ok(())
    }

    /// Notes a member again if it is there.
    pub(crate) fn relocate_set_add(&mut self, target: Target<'_>, member: &[u8]) -> bool {
        let (named, is_so) = match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &SMALL) else { return false };
                let members = self.members(found);
                (Some(found), members.is_ok_and(|members| members.contains(member)))
            }
            Target::Object(number) => match self.objects.get(number) {
                Some(Object::Set(table)) => (None, table.contains(&self.pool, member)),
                _ => return false,
            },
        };
        if is_so {
            self.journal.note(Effect::SetAdd { target, member });
        }
        named.into_iter().for_each(|found| self.note_expire_again(found));
        is_so
    }
}
