//! Changes of lists.

use std::ops::Range;

use super::{BASE_BYTES, Elements, List, NodeLimit, Notes, without};
use crate::collection::{Removed, SMALL_BYTES_MAX};
use crate::effect::{Effect, Side};
use crate::entry::Kind;
use crate::heap::OutOfMemory;
use crate::keyspace::{Found, Keyspace, Refused};
use crate::object::Object;
use crate::packed::{Packed, PackedBuf, Splice, Word};

impl Keyspace {
    /// The list of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn elements(&self, found: Found) -> Result<Elements<'_>, Refused> {
        match self.kind(found) {
            Kind::List => Ok(Elements::Small(self.small_list(found))),
            Kind::Object => match self.object(found) {
                Some(Object::List(list)) => Ok(Elements::Large(list)),
                _ => Err(Refused::WrongType),
            },
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its list.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn list(&mut self, db: usize, key: &[u8]) -> Result<Option<Elements<'_>>, Refused> {
        match self.find(db, key) {
            Some(found) => self.elements(found).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn small_list(&self, found: Found) -> Packed<'_> {
        Packed::new(&self.value(found)[BASE_BYTES..])
    }

    fn node_limit(&self) -> NodeLimit {
        NodeLimit::new(self.encoding.list_max)
    }

    /// Whether a small list may become what an edit makes of it.
    fn list_has_room(&self, packed: Packed<'_>, splice: &Splice<'_>) -> bool {
        let bytes = splice.bytes_after(packed.bytes().len());
        self.node_limit().takes(packed, splice) && bytes + BASE_BYTES <= SMALL_BYTES_MAX
    }

    /// Changes a large list.
    fn with_list<R>(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut List, &mut Notes<'_>) -> R,
    ) -> R {
        let (journal, next_base) = (&mut self.journal, &mut self.next_base);
        let mut notes = Notes { journal, next_base, object: number };
        let changed = self.objects.with(number, |object| match object {
            Object::List(list) => change(list, &mut notes),
            _ => panic!("a list is a list"),
        });
        changed.expect("the object of a key is there")
    }

    /// Adds elements at an end of a list, one after the other; a key that is not there is made.
    /// Returns how many elements there are.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the elements before are added.
    pub fn list_push<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        side: Side,
        elements: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, Refused> {
        let mut found = self.find(db, key);
        let mut len = found.map(|found| self.elements(found)).transpose()?.map_or(0, Elements::len);
        let mut outcome = Ok(());
        for element in elements {
            match self.list_push_one(db, key, found, side, element) {
                Ok(now) => (found, len) = (Some(now), len + 1),
                Err(error) => {
                    outcome = Err(error.into());
                    break;
                }
            }
        }
        if found.is_some() {
            self.touch(db, key);
        }
        outcome.map(|()| len)
    }

    fn list_push_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        side: Side,
        element: &[u8],
    ) -> Result<Found, OutOfMemory> {
        let words = [Word::from_bytes(element)];
        if let Some(found) = found.filter(|found| self.kind(*found) == Kind::List) {
            let packed = self.small_list(found);
            let splice = match side {
                Side::Left => packed.push_front(&words),
                Side::Right => packed.push_back(&words),
            };
            if self.list_has_room(packed, &splice) {
                let found = self.splice_packed(found, BASE_BYTES, &splice)?;
                let target = self.target_of(db, key);
                self.journal.note(Effect::ListPush { target, node: 0, side, element });
                return Ok(found);
            }
        }
        if found.is_none() {
            let mut packed = PackedBuf::new();
            packed.push_back(&words);
            if self.list_has_room(packed.packed(), &packed.packed().remove(0..0)) {
                return self.write_list(db, key, None, packed.bytes());
            }
        }
        let (found, number) = self.list_object(db, key, found)?;
        let limit = self.node_limit();
        self.with_list(number, |list, notes| list.push(side, element, limit, notes));
        Ok(found)
    }

    /// Writes a small list whole, which is its base from now on.
    fn write_list(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        packed: &[u8],
    ) -> Result<Found, OutOfMemory> {
        let expire = found.and_then(|found| self.expires_at(found));
        let base = self.new_base().to_le_bytes();
        let found = self.put(db, key, found, Kind::List, &[&base, packed], expire)?;
        self.note_list(found, key);
        Ok(found)
    }

    /// Notes a small list whole.
    pub(super) fn note_list(&mut self, found: Found, key: &[u8]) {
        let head = self.head(found);
        let value = &self.pool.heap.from(found.at)[head.value];
        let (db, expire) = (self.dbs[found.db].id, head.expire.unwrap_or(0));
        self.journal.note(Effect::Put { db, key, expire, kind: Kind::List, value });
    }

    /// Makes sure that a list is an object; tells its number.
    fn list_object(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
    ) -> Result<(Found, u32), OutOfMemory> {
        if let Some((found, number)) = found.zip(found.and_then(|found| self.object_number(found)))
        {
            return Ok((found, number));
        }
        let expire = found.and_then(|found| self.expires_at(found));
        let limit = self.node_limit();
        let list = found.map(|found| List::from_packed(self.small_list(found), limit));
        let object = Object::List(list.unwrap_or_default());
        let (found, number) = self.bind(db, key, found, object, expire)?;
        self.with_list(number, List::note_all);
        Ok((found, number))
    }

    /// Takes up to `count` elements off an end of a list, each of which is told to `each`. None if
    /// there is no list.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then, although `each` may have been told.
    pub fn list_pop(
        &mut self,
        db: usize,
        key: &[u8],
        side: Side,
        count: u64,
        mut each: impl FnMut(Word<'_>),
    ) -> Result<Option<Removed>, Refused> {
        let Some(found) = self.find(db, key) else { return Ok(None) };
        let elements = self.elements(found)?;
        let (len, taken) = (elements.len(), count.min(elements.len()));
        if taken == len {
            match side {
                Side::Left => elements.iter_from(0).for_each(&mut each),
                Side::Right => elements.iter_back().for_each(&mut each),
            }
            self.remove(found);
            return Ok(Some(Removed { count: len, gone: true }));
        }
        if taken > 0 {
            if let Elements::Small(packed) = elements {
                let words = packed.iter().map(|(_, word)| word);
                match side {
                    Side::Left => words.take(taken as usize).for_each(&mut each),
                    Side::Right => words.rev().take(taken as usize).for_each(&mut each),
                }
            }
            self.list_drop(db, key, found, side, taken, each)?;
            self.touch(db, key);
        }
        Ok(Some(Removed { count: taken, gone: false }))
    }

    /// Takes some elements, but not all, off an end of a list that was found. Those of a large one
    /// are told.
    fn list_drop(
        &mut self,
        db: usize,
        key: &[u8],
        found: Found,
        side: Side,
        count: u64,
        each: impl FnMut(Word<'_>),
    ) -> Result<Found, OutOfMemory> {
        if let Some(number) = self.object_number(found) {
            self.with_list(number, |list, notes| list.pop(side, count, notes, each));
            return Ok(found);
        }
        let found = self.list_drop_small(found, side, count)?;
        let target = self.target_of(db, key);
        self.journal.note(Effect::ListPop { target, node: 0, side, count });
        Ok(found)
    }

    pub(super) fn list_drop_small(
        &mut self,
        found: Found,
        side: Side,
        count: u64,
    ) -> Result<Found, OutOfMemory> {
        let packed = self.small_list(found);
        let len = packed.len();
        let count = usize::try_from(count).map_or(len, |count| count.min(len));
        let splice = match side {
            Side::Left => packed.remove(0..count),
            Side::Right => packed.remove(len - count..len),
        };
        self.splice_packed(found, BASE_BYTES, &splice)
    }

    /// Keeps only the elements of these indexes. Returns what became of the others.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, those at the end are there still.
    pub fn list_trim(
        &mut self,
        db: usize,
        key: &[u8],
        kept: Range<u64>,
    ) -> Result<Option<Removed>, Refused> {
        let Some(mut found) = self.find(db, key) else { return Ok(None) };
        let len = self.elements(found)?.len();
        let kept = kept.start..kept.end.min(len);
        if kept.is_empty() {
            self.remove(found);
            return Ok(Some(Removed { count: len, gone: true }));
        }
        let (left, right) = (kept.start, len - kept.end);
        if left > 0 {
            found = self.list_drop(db, key, found, Side::Left, left, |_| ())?;
        }
        if right > 0 {
            self.list_drop(db, key, found, Side::Right, right, |_| ())?;
        }
        if left + right > 0 {
            self.touch(db, key);
        }
        Ok(Some(Removed { count: left + right, gone: false }))
    }

    /// Puts an element in place of the one of an index. The list is there, and has it.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    ///
    /// # Panics
    /// There is no such element.
    pub fn list_set(
        &mut self,
        db: usize,
        key: &[u8],
        index: u64,
        element: &[u8],
    ) -> Result<(), Refused> {
        self.list_splice(db, key, index, 1, element)
    }

    /// Puts an element before that of an index, which may be the end. The list is there.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    ///
    /// # Panics
    /// There are fewer elements.
    pub fn list_insert(
        &mut self,
        db: usize,
        key: &[u8],
        index: u64,
        element: &[u8],
    ) -> Result<(), Refused> {
        let len = self.list(db, key)?.map_or(0, Elements::len);
        if index == len {
            return self.list_push(db, key, Side::Right, [element].into_iter()).map(drop);
        }
        self.list_splice(db, key, index, 0, element)
    }

    fn list_splice(
        &mut self,
        db: usize,
        key: &[u8],
        index: u64,
        replaced: usize,
        element: &[u8],
    ) -> Result<(), Refused> {
        let found = self.find(db, key).expect("the list is there");
        assert!(index < self.elements(found)?.len(), "the element is there");
        if self.kind(found) == Kind::List {
            let (words, at) = ([Word::from_bytes(element)], index as usize);
            let mut whole = PackedBuf::new();
            whole.append(self.small_list(found));
            whole.remove(at..at + replaced);
            let splice = whole.packed().insert_at(at, &words);
            if self.list_has_room(whole.packed(), &splice) {
                whole.insert_at(at, &words);
                self.write_list(db, key, Some(found), whole.bytes())?;
                self.touch(db, key);
                return Ok(());
            }
        }
        let (_, number) = self.list_object(db, key, Some(found))?;
        let limit = self.node_limit();
        self.with_list(number, |list, notes| list.splice(index, replaced, element, limit, notes));
        self.touch(db, key);
        Ok(())
    }

    /// Takes up to `count` elements out of a list that are this one, from an end on.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn list_remove(
        &mut self,
        db: usize,
        key: &[u8],
        side: Side,
        element: &[u8],
        count: u64,
    ) -> Result<Removed, Refused> {
        let mut removed = Removed::default();
        let Some(mut found) = self.find(db, key) else { return Ok(removed) };
        self.elements(found)?;
        if let Some(number) = self.object_number(found) {
            removed.count = self
                .with_list(number, |list, notes| list.remove_equal(side, element, count, notes));
        } else {
            let mut left = count;
            let packed = self.small_list(found);
            if let Some(kept) = without(packed, side, Word::from_bytes(element), &mut left) {
                removed.count = count - left;
                removed.gone = kept.is_empty();
                if !removed.gone {
                    found = self.write_list(db, key, Some(found), kept.bytes())?;
                }
            }
        }
        if removed.gone || self.is_hollow(found) {
            self.remove(found);
            removed.gone = true;
        } else if removed.count > 0 {
            self.touch(db, key);
        }
        Ok(removed)
    }
}
