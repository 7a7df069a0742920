//! What collections have in common: when a small one becomes large, how a packed one is edited in
//! the block of its key, and what a log may say of those that are named by their keys.
//!
//! ```text
//!            small: named by database and key          large: named by its object's number
//!   hash     field, value, field, value … packed   ──►  table
//!   set      integers in order ──► members packed  ──►  table
//! ```
//!
//! A collection grows from left to right, and only ever that way. The last element takes the key
//! with it.

use crate::effect::{Effect, NoEffect, Target};
use crate::entry::{Kind, read_head};
use crate::heap::OutOfMemory;
use crate::keyspace::{Found, Keyspace};
use crate::list::{BASE_BYTES, is_small_list};
use crate::object::{Object, Shape};
use crate::packed::{Packed, Splice, validate};
use crate::zset::is_in_order;

/// A small collection has never more bytes than this, whatever the settings say: the blocks of the
/// heap that share pages are not much longer.
pub(crate) const SMALL_BYTES_MAX: usize = 30 << 10;

/// The same for one that a log tells of. It is more, since a set of integers may be packed in fewer
/// bytes than it had before.
const REPLAYED_BYTES_MAX: usize = 256 << 10;

/// Words of a packed collection that a log tells of.
const REPLAYED_WORDS_MAX: usize = 60_000;

/// Up to where collections are small. A size counts elements: fields, members, entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Fields of a small hash.
    pub hash_entries_max: usize,
    /// Bytes of a field, and of a value, of a small hash.
    pub hash_value_max: usize,
    /// Members of a set of integers.
    pub set_ints_max: usize,
    /// Members of a packed set.
    pub set_entries_max: usize,
    /// Bytes of a member of a packed set.
    pub set_value_max: usize,
    /// Members of a small sorted set.
    pub zset_entries_max: usize,
    /// Bytes of a member of a small sorted set.
    pub zset_value_max: usize,
    /// A node of a list: elements if positive; if negative, −1 is 4 KiB, and each one less twice
    /// as much, down to −5.
    pub list_max: i64,
    /// Bytes of a node of a stream.
    pub stream_node_bytes_max: usize,
    /// Entries of a node of a stream.
    pub stream_node_entries_max: usize,
}

impl Default for Encoding {
    /// As Redis has them.
    fn default() -> Encoding {
        Encoding {
            hash_entries_max: 128,
            hash_value_max: 64,
            set_ints_max: 512,
            set_entries_max: 128,
            set_value_max: 64,
            zset_entries_max: 128,
            zset_value_max: 64,
            list_max: -2,
            stream_node_bytes_max: 4096,
            stream_node_entries_max: 100,
        }
    }
}

/// What a removal took out of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// So many elements.
    pub count: u64,
    /// The last one was among them, and the key is gone.
    pub gone: bool,
}

impl Keyspace {
    /// How a key's value is kept, in Redis' words.
    pub fn encoding_name(&self, found: Found) -> &'static str {
        /// Longer ones are apart from their keys in Redis.
        const EMBEDDED_MAX: usize = 44;
        match self.kind(found) {
            Kind::Int => "int",
            Kind::Bytes if self.value(found).len() <= EMBEDDED_MAX => "embstr",
            Kind::Bytes => "raw",
            Kind::Ints => "intset",
            Kind::Hash | Kind::Set | Kind::Zset | Kind::List => "listpack",
            Kind::Object => match self.object(found).expect("a key's object is there").shape() {
                Shape::Long => "raw",
                Shape::Hash | Shape::Set => "hashtable",
                Shape::Zset => "skiplist",
                Shape::List => "quicklist",
                Shape::Stream => "stream",
            },
        }
    }

    /// Whether a small collection may become so long, in bytes.
    pub(crate) fn is_small(&self, bytes: usize) -> bool {
        bytes <= if self.replaying { REPLAYED_BYTES_MAX } else { SMALL_BYTES_MAX }
    }

    /// Whether a packed collection may become what an edit makes of it.
    pub(crate) fn has_room(&self, packed: Packed<'_>, splice: &Splice<'_>) -> bool {
        let words = usize::from(splice.count);
        self.is_small(splice.bytes_after(packed.bytes().len())) && words <= REPLAYED_WORDS_MAX
    }

    /// Edits what is packed in a small value, behind so many other bytes of it. What is noted in
    /// the journal is left to the caller.
    pub(crate) fn splice_packed(
        &mut self,
        found: Found,
        front_bytes: usize,
        splice: &Splice<'_>,
    ) -> Result<Found, OutOfMemory> {
        let mut insert = std::mem::take(&mut self.insert);
        insert.clear();
        insert.resize(splice.insert, 0);
        splice.write(&mut insert);
        let done = self.splice(found, front_bytes + splice.at, splice.remove, &insert);
        self.insert = insert;
        let found = done?;
        let block = self.pool.heap.from_mut(found.at);
        let count = read_head(block).value.start + front_bytes;
        block[count..count + 2].copy_from_slice(&splice.count.to_le_bytes());
        Ok(found)
    }

    /// What effects name a small collection by.
    pub(crate) fn target_of<'k>(&self, db: usize, key: &'k [u8]) -> Target<'k> {
        Target::Named(self.dbs[db].id, key)
    }

    /// A key of this kind that a log names, with the effects' name of its database.
    pub(crate) fn named_of(&self, db: u32, key: &[u8], kinds: &[Kind]) -> Option<Found> {
        self.named(db, key).filter(|found| kinds.contains(&self.kind(*found)))
    }

    /// Makes room for a small collection of a key in a log: whatever else the key was is gone.
    /// Tells the database's place, and the key if it is of one of these kinds already. There is
    /// nothing to do if the database is no more.
    pub(crate) fn make_way(
        &mut self,
        db: u32,
        key: &[u8],
        kinds: &[Kind],
    ) -> Option<(usize, Option<Found>)> {
        let slot = self.slot_in_log(db)?;
        let found = self.find_any(slot, key);
        let kept = found.filter(|found| kinds.contains(&self.kind(*found)));
        if let (Some(other), None) = (found, kept) {
            self.take_out(other, true);
        }
        Some((slot, kept))
    }

    /// Notes again when a small collection expires, if it does, behind something of it that was
    /// noted again: what was said before it may have been said of a key that the log does not have
    /// any more.
    pub(crate) fn note_expire_again(&mut self, found: Found) {
        let head = self.head(found);
        let Some(expire) = head.expire else { return };
        let (db, block) = (self.dbs[found.db].id, self.pool.heap.from(found.at));
        self.journal.note(Effect::Expire { db, key: &block[head.key], expire });
    }

    /// Whether a key's value is a collection without elements, or a string with gaps, as there is
    /// none but while a log is read.
    pub(crate) fn is_hollow(&self, found: Found) -> bool {
        self.is_hollow_value(self.kind(found), self.value(found))
    }

    /// The same for a value as it lies in its block. An object that is not there is hollow.
    pub(crate) fn is_hollow_value(&self, kind: Kind, value: &[u8]) -> bool {
        match kind {
            Kind::Hash | Kind::Set | Kind::Zset => Packed::new(value).is_empty(),
            Kind::Ints => value.is_empty(),
            Kind::List => Packed::new(&value[BASE_BYTES..]).is_empty(),
            Kind::Object => {
                let number = u32::from_le_bytes(value.try_into().expect("four bytes"));
                match self.objects.get(number) {
                    Some(Object::Hash(table) | Object::Set(table)) => table.is_empty(),
                    Some(Object::Zset(ranking)) => ranking.len() == 0,
                    Some(Object::List(list)) => list.len() == 0,
                    Some(Object::Long(long)) => !long.is_whole(),
                    Some(Object::Stream(_)) => false,
                    None => true,
                }
            }
            Kind::Bytes | Kind::Int => false,
        }
    }

    /// Whether a small collection that a log has whole is one that can be read.
    pub(crate) fn check_put(&self, kind: Kind, value: &[u8]) -> Result<(), NoEffect> {
        let fits = value.len() <= REPLAYED_BYTES_MAX;
        let packed = |value: &[u8], stride: usize| {
            let valid = validate(value).is_ok();
            let words = if valid { Packed::new(value).len() } else { 0 };
            valid && words.is_multiple_of(stride) && words <= REPLAYED_WORDS_MAX
        };
        let valid = match kind {
            Kind::Hash => packed(value, 2),
            Kind::Set => packed(value, 1),
            Kind::Ints => crate::set::are_ints(value),
            Kind::Zset => packed(value, 2) && is_in_order(Packed::new(value)),
            Kind::List => is_small_list(value),
            _ => false,
        };
        if fits && valid { Ok(()) } else { Err(NoEffect) }
    }
}
