//! All databases of one instance: finding, writing, expiring and deleting keys, whatever their
//! values are. What is done to values is in modules of their types.
//!
//! Time stands still but for [`Keyspace::set_now`]. A key whose time has come is gone for whoever
//! looks, and is deleted then. Every change is noted in the [`Journal`], and what was noted is the
//! whole truth: [`Keyspace::apply`] makes the same databases of it.

use std::collections::{BTreeMap, VecDeque};

use crate::collection::Encoding;
use crate::effect::{Effect, Journal};
use crate::entry::{
    self, EXPIRE_MAX, Front, Head, Kind, block_bytes, key_of, read_head, same_length_bytes,
    set_queued, set_value_bytes, write_head,
};
use crate::eviction::Frequency;
use crate::expiry::ExpiryQueue;
use crate::heap::{Heap, OutOfMemory, Ref};
use crate::index::{Cursor, Index, Place};
use crate::object::{Object, Objects, Shape};
use crate::table::Pool;

/// Parts that hashes are divided into to keep account of what is not durable.
const CHANGED_PARTS: usize = 1024;

/// What a value is to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Bytes.
    String,
    /// Elements in order.
    List,
    /// Members.
    Set,
    /// Members by score.
    Zset,
    /// Fields with values.
    Hash,
    /// Entries by identifier.
    Stream,
}

impl Type {
    /// As the TYPE command says it.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Set => "set",
            Type::Zset => "zset",
            Type::Hash => "hash",
            Type::Stream => "stream",
        }
    }
}

/// Why something was not done to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It is of another type.
    #[error("the value is of another type")]
    WrongType,
    /// There is no memory for it.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// A key that is there, until anything is changed.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub(crate) db: usize,
    pub(crate) place: Place,
    pub(crate) at: Ref,
    /// The key's.
    pub(crate) hash: u64,
}

/// What happened to a key without a command that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its time had come.
    Expired {
        /// The database.
        db: usize,
        /// The key.
        key: Vec<u8>,
    },
}

pub(crate) struct Database {
    /// What effects name it by.
    pub(crate) id: u32,
    pub(crate) index: Index,
    /// Keys that expire.
    pub(crate) volatile: u64,
    /// Bytes of keys and of values that are no objects.
    pub(crate) payload_bytes: u64,
}

impl Database {
    pub(crate) fn new(id: u32) -> Database {
        Database { id, index: Index::new(), volatile: 0, payload_bytes: 0 }
    }
}

/// What is given up, a little at a time.
enum Doomed {
    Object(Option<u32>, Box<Object>),
    /// With the objects that its keys name. If a log said so, those are not its own any more: they
    /// go when nothing names them at the log's end.
    Database(Index, bool),
}

/// The databases of an instance.
pub struct Keyspace {
    pub(crate) pool: Pool,
    pub(crate) dbs: Vec<Database>,
    /// Databases that clients see. There are more of them only while a log is read.
    pub(crate) count: usize,
    pub(crate) objects: Objects,
    pub(crate) journal: Journal,
    pub(crate) expiry: ExpiryQueue,
    doomed: VecDeque<Doomed>,
    pub(crate) meta: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) now: u64,
    next_db_id: u32,
    /// The number that the next base gets.
    pub(crate) next_base: u64,
    /// A log is being read.
    pub(crate) replaying: bool,
    /// And something in it was no string of one block.
    pub(crate) replayed_collections: bool,
    /// Changes since the start.
    pub(crate) changes: u64,
    /// The batch of the journal that changes now go into.
    batch: u64,
    /// For a part of the hashes each: the last batch that has a change of such a key.
    changed_in: Vec<u64>,
    /// The last batch that has a change.
    changed_last: u64,
    /// The latest batch whose changes were seen since this was last asked.
    seen: u64,
    watching: bool,
    touched: Vec<(usize, Vec<u8>)>,
    events: Vec<Event>,
    pub(crate) clock: u32,
    pub(crate) random: fastrand::Rng,
    /// How uses of keys are kept, if not by recency.
    pub(crate) frequency: Option<Frequency>,
    /// Looks count as no use.
    pub(crate) untouched: bool,
    scratch: Vec<u8>,
    /// What is inserted into a packed value.
    pub(crate) insert: Vec<u8>,
    /// Up to where collections are small. A change is for what is written from then on.
    pub encoding: Encoding,
}

impl Keyspace {
    /// So many empty databases. The seed is secret from clients, and different at each start.
    pub fn new(seed: u64, databases: usize, journal: Journal) -> Keyspace {
        assert!(databases > 0, "there is a database at least");
        let count = u32::try_from(databases).expect("databases are configured, and few");
        Keyspace {
            pool: Pool::new(seed),
            dbs: (1..=count).map(Database::new).collect(),
            count: databases,
            objects: Objects::default(),
            journal,
            expiry: ExpiryQueue::default(),
            doomed: VecDeque::new(),
            meta: BTreeMap::new(),
            now: 0,
            next_db_id: count + 1,
            next_base: 1,
            replaying: false,
            replayed_collections: false,
            changes: 0,
            batch: 0,
            changed_in: Vec::new(),
            changed_last: 0,
            seen: 0,
            watching: false,
            touched: Vec::new(),
            events: Vec::new(),
            clock: 0,
            frequency: None,
            untouched: false,
            random: fastrand::Rng::with_seed(seed ^ 0x9e37_79b9_7f4a_7c15),
            scratch: Vec::new(),
            insert: Vec::new(),
            encoding: Encoding::default(),
        }
    }

    /// Forgets everything: the databases are as new.
    pub fn forget(&mut self) {
        let journal = std::mem::take(&mut self.journal);
        let encoding = std::mem::take(&mut self.encoding);
        let seed = self.random.u64(..) ^ self.pool.seed();
        *self = Keyspace { encoding, ..Keyspace::new(seed, self.count, journal) };
    }

    /// It is now this many milliseconds since 1970.
    pub fn set_now(&mut self, unix_ms: u64) {
        self.now = unix_ms;
        self.clock = (unix_ms / 1000) as u32 & 0x00ff_ffff;
    }

    /// Milliseconds since 1970, as was last said.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// What changed, for the log to take.
    pub fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// Databases.
    pub fn databases(&self) -> usize {
        self.dbs.len()
    }

    /// Changes since the start.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Keys of a database. Those whose time has come count until they are deleted.
    pub fn len(&mut self, db: usize) -> u64 {
        self.see_all();
        self.dbs[db].index.len()
    }

    /// Keys of a database that expire.
    pub fn volatile(&self, db: usize) -> u64 {
        self.dbs[db].volatile
    }

    /// Bytes of all keys and values, as clients gave them, about.
    pub fn payload_bytes(&self) -> u64 {
        let keys: u64 = self.dbs.iter().map(|db| db.payload_bytes + 8 * db.index.len()).sum();
        keys + self.objects.payload_bytes()
    }

    /// Memory that the databases take, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let directories: usize = self.dbs.iter().map(|db| db.index.directory_bytes()).sum();
        self.pool.heap.used_bytes()
            + self.objects.payload_bytes()
            + directories as u64
            + self.expiry.memory_bytes()
    }

    /// Whether something that was deleted is not freed yet.
    pub fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    pub(crate) fn next_db_id(&self) -> u32 {
        self.next_db_id
    }

    pub(crate) fn set_next_db_id(&mut self, id: u32) {
        self.next_db_id = id;
    }

    /// Whether changed keys shall be told by [`Keyspace::take_touched`]: somebody watches.
    pub fn set_watching(&mut self, watching: bool) {
        self.watching = watching;
        if !watching {
            self.touched.clear();
        }
    }

    /// The keys that changed since this was last asked.
    pub fn take_touched(&mut self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.touched)
    }

    /// Whether [`Keyspace::take_touched`] has something.
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What happened by itself since this was last asked.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether [`Keyspace::take_events`] has something.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Changes from now on are in this batch of the journal; the numbers rise. With it the
    /// databases keep account of what is not durable yet: see [`Keyspace::take_seen`].
    pub fn set_batch(&mut self, batch: u64) {
        if self.changed_in.is_empty() {
            self.changed_in = vec![0; CHANGED_PARTS];
        }
        self.batch = batch;
    }

    /// The latest batch of which anything was seen or changed since this was last asked: what is
    /// answered with it holds only once that batch is durable. It may be later than the true one,
    /// never earlier. Zero if there is none.
    #[inline]
    pub fn take_seen(&mut self) -> u64 {
        std::mem::take(&mut self.seen)
    }

    /// Whether anything has changed in the batch that changes now go into.
    pub fn has_changes(&self) -> bool {
        self.batch != 0 && self.changed_last == self.batch
    }

    /// The same, but it is not forgotten.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Everything was seen.
    pub(crate) fn see_all(&mut self) {
        self.seen = self.changed_last;
    }

    /// A key changed.
    pub(crate) fn touch(&mut self, db: usize, key: &[u8]) {
        let hash = if self.changed_in.is_empty() { 0 } else { self.pool.hash(key) };
        self.touch_hashed(db, key, hash);
    }

    /// A key of this hash changed.
    #[inline]
    pub(crate) fn touch_hashed(&mut self, db: usize, key: &[u8], hash: u64) {
        self.changes += 1;
        (self.changed_last, self.seen) = (self.batch, self.batch);
        if let Some(batch) = self.changed_in.get_mut(hash as usize % CHANGED_PARTS) {
            *batch = self.batch;
        }
        if self.watching {
            self.touched.push((db, key.to_vec()));
        }
    }

    /// Finds a key. One whose time has come is deleted.
    #[inline]
    pub fn find(&mut self, db: usize, key: &[u8]) -> Option<Found> {
        let hash = self.pool.hash(key);
        if let Some(batch) = self.changed_in.get(hash as usize % CHANGED_PARTS) {
            self.seen = self.seen.max(*batch);
        }
        let found = self.find_hashed(db, key, hash)?;
        if self.dbs[db].volatile > 0 && self.is_due(found) {
            self.expire(found);
            return None;
        }
        let block = self.pool.heap.from(found.at);
        let clock = self.clock.to_le_bytes();
        if block[1..4] != clock[..3] {
            self.mark_used(found.at);
        }
        Some(found)
    }

    /// Finds a key without a trace: it does not count as used, and stays if its time has come.
    pub fn peek(&self, db: usize, key: &[u8]) -> Option<Found> {
        self.find_any(db, key).filter(|found| !self.is_due(*found))
    }

    /// A key is about to be looked for: asks for the memory of its place in the index. Returns
    /// what [`Keyspace::prefetch_value`] takes a moment later.
    #[inline]
    pub fn prefetch(&self, db: usize, key: &[u8]) -> u64 {
        let hash = self.pool.hash(key);
        self.dbs[db].index.prefetch_bucket(&self.pool.heap, hash);
        hash
    }

    /// Asks for the memory of the key itself and of a short value.
    #[inline]
    pub fn prefetch_value(&self, db: usize, hash: u64) {
        self.dbs[db].index.prefetch_block(&self.pool.heap, hash);
    }

    /// Whether a key is in memory, though its time may have come.
    pub fn is_there(&self, db: usize, key: &[u8]) -> bool {
        self.find_any(db, key).is_some()
    }

    pub(crate) fn find_any(&self, db: usize, key: &[u8]) -> Option<Found> {
        self.find_hashed(db, key, self.pool.hash(key))
    }

    #[inline]
    pub(crate) fn find_hashed(&self, db: usize, key: &[u8], hash: u64) -> Option<Found> {
        let heap = &self.pool.heap;
        let found = self.dbs[db].index.find(heap, hash, |at| key_of(heap.from(at)) == key);
        found.map(|(place, at)| Found { db, place, at, hash })
    }

    fn is_due(&self, found: Found) -> bool {
        // What a log says is so until the whole of it was read.
        !self.replaying && self.head(found).expire.is_some_and(|expire| expire <= self.now)
    }

    /// Deletes a key whose time has come.
    pub(crate) fn expire(&mut self, found: Found) {
        let key = self.key(found).to_vec();
        self.remove(found);
        self.events.push(Event::Expired { db: found.db, key });
    }

    #[inline]
    pub(crate) fn head(&self, found: Found) -> Head {
        read_head(self.pool.heap.from(found.at))
    }

    /// A key's bytes.
    pub fn key(&self, found: Found) -> &[u8] {
        key_of(self.pool.heap.from(found.at))
    }

    /// How a key's value is kept.
    pub fn kind(&self, found: Found) -> Kind {
        Kind::from_bits(self.pool.heap.from(found.at)[0])
    }

    /// The bytes of a value as they lie in its block.
    #[inline]
    pub(crate) fn value(&self, found: Found) -> &[u8] {
        let block = self.pool.heap.from(found.at);
        let head = read_head(block);
        &block[head.value]
    }

    /// The number of a key's object.
    pub(crate) fn object_number(&self, found: Found) -> Option<u32> {
        let block = self.pool.heap.from(found.at);
        let head = read_head(block);
        let number = || block[head.value].try_into().expect("an object's number is four bytes");
        (head.kind == Kind::Object).then(|| u32::from_le_bytes(number()))
    }

    /// A key's object.
    pub(crate) fn object(&self, found: Found) -> Option<&Object> {
        self.objects.get(self.object_number(found)?)
    }

    /// What a key's value is to a client.
    pub fn type_of(&self, found: Found) -> Type {
        match self.kind(found) {
            Kind::Bytes | Kind::Int => Type::String,
            Kind::Hash => Type::Hash,
            Kind::Set | Kind::Ints => Type::Set,
            Kind::Zset => Type::Zset,
            Kind::List => Type::List,
            Kind::Object => match self.object(found).expect("a key's object is there").shape() {
                Shape::Long => Type::String,
                Shape::Hash => Type::Hash,
                Shape::Set => Type::Set,
                Shape::Zset => Type::Zset,
                Shape::List => Type::List,
                Shape::Stream => Type::Stream,
            },
        }
    }

    /// When a key expires, in milliseconds since 1970.
    pub fn expires_at(&self, found: Found) -> Option<u64> {
        self.head(found).expire
    }

    /// Writes a key with a small value, in place of whatever it was. What is noted in the journal
    /// is left to the caller.
    pub(crate) fn put(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        kind: Kind,
        value: &[&[u8]],
        expire: Option<u64>,
    ) -> Result<Found, OutOfMemory> {
        let value_bytes: usize = value.iter().map(|part| part.len()).sum();
        let bytes = block_bytes(expire.is_some(), key.len(), value_bytes);
        let before = found.map(|found| self.head(found).access);
        let front = Front { kind, queued: false, access: self.access_written(before), expire };
        let Some(found) = found else {
            let at = self.pool.heap.alloc(bytes)?;
            self.write(at, front, key, value, value_bytes);
            let hash = self.pool.hash(key);
            let place = match self.dbs[db].index.insert(&mut self.pool.heap, hash, at) {
                Ok(place) => place,
                Err(error) => {
                    self.pool.heap.free(at);
                    return Err(error);
                }
            };
            self.dbs[db].payload_bytes += (key.len() + value_bytes) as u64;
            let found = Found { db, place, at, hash };
            self.queue_expiry(found, None, expire);
            return Ok(found);
        };
        let head = self.head(found);
        let front = Front { queued: head.queued && expire.is_some(), ..front };
        let capacity = self.pool.heap.capacity(found.at);
        let object = match head.kind {
            Kind::Object => self.object_number(found),
            _ => None,
        };
        let at = if Heap::rounded(bytes) == capacity {
            found.at
        } else {
            let at = self.pool.heap.alloc(bytes)?;
            self.dbs[db].index.moved(&mut self.pool.heap, found.place, at);
            self.pool.heap.free(found.at);
            at
        };
        self.write(at, front, key, value, value_bytes);
        let payload = &mut self.dbs[db].payload_bytes;
        *payload = *payload + value_bytes as u64 - head.value.len() as u64;
        if let Some(number) = object.filter(|_| kind != Kind::Object) {
            self.bury(number);
        }
        let found = Found { at, ..found };
        self.queue_expiry(found, head.expire, expire);
        Ok(found)
    }

    /// Gives a short string another value where it stands, if it is one that never expires, and as
    /// long; returns whether it was.
    #[inline]
    pub(crate) fn overwrite(&mut self, found: Found, kind: Kind, value: &[u8]) -> bool {
        let clock = self.clock;
        let block = self.pool.heap.from_mut(found.at);
        entry::overwrite_plain(block, kind, clock, value)
    }

    fn write(&mut self, at: Ref, front: Front, key: &[u8], value: &[&[u8]], value_bytes: usize) {
        let block = self.pool.heap.from_mut(at);
        let mut from = write_head(block, front, key, value_bytes);
        for part in value {
            block[from..from + part.len()].copy_from_slice(part);
            from += part.len();
        }
    }

    /// Replaces a part of a small value by other bytes. What is noted in the journal is left to the
    /// caller.
    pub(crate) fn splice(
        &mut self,
        found: Found,
        at: usize,
        remove: usize,
        insert: &[u8],
    ) -> Result<Found, OutOfMemory> {
        let head = self.head(found);
        let (old, new) = (head.value.len(), head.value.len() - remove + insert.len());
        let bytes = block_bytes(head.expire.is_some(), head.key.len(), new);
        let capacity = self.pool.heap.capacity(found.at);
        if same_length_bytes(old, new) && Heap::rounded(bytes) == capacity {
            let block = self.pool.heap.from_mut(found.at);
            let from = head.value.start + at;
            block.copy_within(from + remove..head.value.end, from + insert.len());
            block[from..from + insert.len()].copy_from_slice(insert);
            set_value_bytes(block, &head, new);
            let payload = &mut self.dbs[found.db].payload_bytes;
            *payload = *payload + new as u64 - old as u64;
            return Ok(found);
        }
        let mut copy = std::mem::take(&mut self.scratch);
        copy.clear();
        let block = self.pool.heap.from(found.at);
        copy.extend_from_slice(&block[head.key.clone()]);
        let value = &block[head.value.clone()];
        copy.extend_from_slice(&value[..at]);
        copy.extend_from_slice(insert);
        copy.extend_from_slice(&value[at + remove..]);
        let (key, value) = copy.split_at(head.key.len());
        let done = self.put(found.db, key, Some(found), head.kind, &[value], head.expire);
        self.scratch = copy;
        done
    }

    /// Keeps account of keys that expire, and of when to look for them.
    fn queue_expiry(&mut self, found: Found, before: Option<u64>, after: Option<u64>) {
        if before.is_none() && after.is_none() {
            return;
        }
        match (before, after) {
            (None, Some(_)) => self.dbs[found.db].volatile += 1,
            (Some(_), None) => self.dbs[found.db].volatile -= 1,
            _ => {}
        }
        let Some(expire) = after else { return };
        let queued = self.head(found).queued;
        // A key that the queue meets too early is put back with its right time.
        if !queued || before.is_some_and(|before| expire < before) {
            self.expiry.push(expire, found.hash, self.dbs[found.db].id);
            set_queued(self.pool.heap.from_mut(found.at), true);
        }
    }

    /// Sets when a key expires, or that it does not.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    pub fn set_expire(&mut self, found: Found, expire: Option<u64>) -> Result<Found, OutOfMemory> {
        let expire = expire.map(|expire| expire.min(EXPIRE_MAX));
        let head = self.head(found);
        let mut copy = std::mem::take(&mut self.scratch);
        copy.clear();
        let block = self.pool.heap.from(found.at);
        copy.extend_from_slice(&block[head.key.clone()]);
        copy.extend_from_slice(&block[head.value.clone()]);
        let (key, value) = copy.split_at(head.key.len());
        let done = self.put(found.db, key, Some(found), head.kind, &[value], expire);
        if done.is_ok() {
            let db = self.dbs[found.db].id;
            self.journal.note(Effect::Expire { db, key, expire: expire.unwrap_or(0) });
            self.touch(found.db, key);
        }
        self.scratch = copy;
        done
    }

    /// Deletes a key.
    pub fn remove(&mut self, found: Found) {
        let mut copy = std::mem::take(&mut self.scratch);
        copy.clear();
        copy.extend_from_slice(self.key(found));
        self.take_out(found, true);
        let db = self.dbs[found.db].id;
        self.journal.note(Effect::Delete { db, key: &copy });
        self.touch(found.db, &copy);
        self.scratch = copy;
    }

    /// Takes a key out, and its object too unless that lives on.
    pub(crate) fn take_out(&mut self, found: Found, bury: bool) {
        let head = self.head(found);
        let object = self.object_number(found);
        let db = &mut self.dbs[found.db];
        db.volatile -= u64::from(head.expire.is_some());
        db.payload_bytes -= (head.key.len() + head.value.len()) as u64;
        db.index.remove(&mut self.pool.heap, found.place);
        self.pool.heap.free(found.at);
        if let Some(number) = object.filter(|_| bury) {
            self.bury(number);
        }
    }

    /// Deletes a key by name; returns whether there was one.
    pub fn delete(&mut self, db: usize, key: &[u8]) -> bool {
        let found = self.find(db, key);
        found.inspect(|found| self.remove(*found)).is_some()
    }

    /// Gives an object up, which is freed a little at a time.
    pub(crate) fn bury(&mut self, number: u32) {
        if let Some(object) = self.objects.remove(number) {
            // While a log is read it says which numbers are in use.
            let number = (!self.replaying).then_some(number);
            self.doomed.push_back(Doomed::Object(number, object));
        }
    }

    /// Gives up what was a part of an object, in the form of one.
    pub(crate) fn bury_apart(&mut self, object: Object) {
        self.doomed.push_back(Doomed::Object(None, Box::new(object)));
    }

    /// Frees about `count` elements of what was deleted; returns whether there are more.
    pub fn shed(&mut self, count: usize) -> bool {
        let Some(doomed) = self.doomed.front_mut() else { return false };
        let more = match doomed {
            Doomed::Object(_, object) => object.shed(&mut self.pool, count),
            Doomed::Database(index, owns) => {
                let (objects, mut gone) = (&mut self.objects, Vec::new());
                let more = index.drain(&mut self.pool.heap, count, |heap, at| {
                    let block = heap.from(at);
                    let head = read_head(block);
                    if *owns && head.kind == Kind::Object {
                        let number = block[head.value].try_into().expect("four bytes");
                        let number = u32::from_le_bytes(number);
                        gone.extend(objects.remove(number).map(|object| (number, object)));
                    }
                    heap.free(at);
                });
                let replaying = self.replaying;
                self.doomed.extend(gone.into_iter().map(|(number, object)| {
                    Doomed::Object((!replaying).then_some(number), object)
                }));
                more
            }
        };
        if !more && let Some(Doomed::Object(Some(number), _)) = self.doomed.pop_front() {
            self.objects.release(number);
        }
        !self.doomed.is_empty()
    }

    /// Empties a database. What was in it is freed a little at a time.
    pub fn flush(&mut self, db: usize) {
        self.empty(db);
        self.note_databases();
        self.changed_everything();
    }

    /// Empties all databases.
    pub fn flush_all(&mut self) {
        (0..self.dbs.len()).for_each(|db| self.empty(db));
        self.note_databases();
        self.changed_everything();
    }

    fn changed_everything(&mut self) {
        self.changes += 1;
        self.changed_in.fill(self.batch);
        (self.changed_last, self.seen) = (self.batch, self.batch);
    }

    fn empty(&mut self, db: usize) {
        if self.watching {
            let mut keys = Vec::new();
            self.scan(db, Cursor(0), usize::MAX, |found| keys.push(found));
            let keys = keys.iter().map(|at| (db, key_of(self.pool.heap.from(*at)).to_vec()));
            let keys: Vec<_> = keys.collect();
            self.touched.extend(keys);
        }
        let id = self.next_db_id;
        self.next_db_id += 1;
        let old = std::mem::replace(&mut self.dbs[db], Database::new(id));
        self.doomed.push_back(Doomed::Database(old.index, true));
    }

    /// Makes two databases change places.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.dbs.swap(one, other);
        self.note_databases();
        self.changed_everything();
    }

    /// The databases' identifiers, as an effect has them.
    pub(crate) fn database_ids(&self) -> Vec<u8> {
        self.dbs.iter().flat_map(|db| db.id.to_le_bytes()).collect()
    }

    fn note_databases(&mut self) {
        let ids = self.database_ids();
        self.journal.note(Effect::Databases { ids: &ids });
    }

    /// Takes the databases' identifiers from a log. Those that it does not name are empty.
    pub(crate) fn set_databases(&mut self, ids: &[u8]) {
        let ids = ids.chunks_exact(4).map(|id| id.try_into().expect("four bytes"));
        let mut old: Vec<Database> = std::mem::take(&mut self.dbs);
        for id in ids.map(u32::from_le_bytes) {
            let known = old.iter().position(|db| db.id == id);
            let db = known.map_or_else(|| Database::new(id), |at| old.swap_remove(at));
            self.next_db_id = self.next_db_id.max(id.saturating_add(1));
            self.dbs.push(db);
        }
        self.doomed.extend(old.into_iter().map(|db| Doomed::Database(db.index, false)));
        while self.dbs.len() < self.count {
            self.dbs.push(Database::new(self.next_db_id));
            self.next_db_id += 1;
        }
    }

    /// The place of a database that an effect of a log names. The first effects are older than what
    /// says where the databases are, so one that is not known gets a place beyond the others until
    /// then; there are not more than of those that are known.
    pub(crate) fn slot_in_log(&mut self, id: u32) -> Option<usize> {
        let known = self.slot_of(id);
        if known.is_some() || !self.replaying || self.dbs.len() >= 2 * self.count {
            return known;
        }
        self.dbs.push(Database::new(id));
        Some(self.dbs.len() - 1)
    }

    /// Forgets databases that nothing in a log said the place of.
    pub(crate) fn drop_placeless(&mut self) {
        let placeless = self.dbs.drain(self.count..).map(|db| Doomed::Database(db.index, false));
        self.doomed.extend(placeless);
    }

    pub(crate) fn slot_of(&self, id: u32) -> Option<usize> {
        // The usual ones stand where their number says.
        let usual = (id as usize).wrapping_sub(1);
        if self.dbs.get(usual).is_some_and(|db| db.id == id) {
            return Some(usual);
        }
        self.dbs.iter().position(|db| db.id == id)
    }

    /// Calls `each` for blocks of keys: see [`Index::scan`]. Keys whose time has come are among
    /// them.
    pub(crate) fn scan(
        &self,
        db: usize,
        cursor: Cursor,
        count: usize,
        each: impl FnMut(Ref),
    ) -> Cursor {
        self.dbs[db].index.scan(&self.pool.heap, cursor, count, each)
    }

    /// Calls `each` for keys from a cursor on, at least `count` of them or up to the end; tells
    /// where to go on. Who scans from zero until zero comes back has met every key that was there
    /// all the time.
    pub fn scan_keys(
        &mut self,
        db: usize,
        cursor: Cursor,
        count: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Cursor {
        self.see_all();
        let heap = &self.pool.heap;
        self.scan(db, cursor, count, |at| {
            let block = heap.from(at);
            let head = read_head(block);
            if self.replaying || head.expire.is_none_or(|expire| expire > self.now) {
                each(&block[head.key]);
            }
        })
    }

    /// Numbers by chance, of its own each time.
    pub fn random(&mut self) -> fastrand::Rng {
        self.random.fork()
    }

    /// A key by chance.
    pub fn random_key(&mut self, db: usize) -> Option<Vec<u8>> {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            let (index, random) = (&self.dbs[db].index, &mut self.random);
            let at = index.sample(&self.pool.heap, || random.u64(..))?;
            let key = key_of(self.pool.heap.from(at)).to_vec();
            if self.find(db, &key).is_some() {
                return Some(key);
            }
        }
        None
    }

    /// Deletes keys whose time has come, looking at no more than `limit`; returns whether there
    /// may be more.
    pub fn expire_due(&mut self, limit: usize) -> bool {
        self.sweep_expiry(limit);
        for _ in 0..limit {
            let Some(due) = self.expiry.pop(self.now) else { return false };
            let Some(db) = self.slot_of(due.db) else { continue };
            let (heap, pool) = (&self.pool.heap, &self.pool);
            let found = self.dbs[db]
                .index
                .find(heap, due.hash, |at| pool.hash(key_of(heap.from(at))) == due.hash);
            let Some((place, at)) = found else { continue };
            let found = Found { db, place, at, hash: due.hash };
            match self.head(found).expire {
                Some(expire) if expire <= self.now => self.expire(found),
                Some(expire) => self.expiry.push(expire, due.hash, due.db),
                None => set_queued(self.pool.heap.from_mut(at), false),
            }
        }
        self.expiry.is_due(self.now)
    }

    /// Looks at entries of the expiry queue, no more than `limit`, if many of them are about keys
    /// that are gone.
    fn sweep_expiry(&mut self, limit: usize) {
        let keys = self.dbs.iter().map(|db| db.volatile).sum();
        for _ in 0..limit {
            let Some(due) = self.expiry.sweep(keys) else { return };
            if let Some(at) = self.named_by(due) {
                let expire = read_head(self.pool.heap.from(at)).expire;
                self.expiry.push(expire.unwrap_or(self.now), due.hash, due.db);
            }
        }
    }

    /// When the next key expires, at the earliest.
    pub fn next_expiry(&self) -> Option<u64> {
        self.expiry.next()
    }

    /// Gives a key another name, or moves it to another database. A key of the new name is gone.
    ///
    /// # Errors
    /// [`OutOfMemory`]; nothing has changed then.
    pub fn rename(
        &mut self,
        from: Found,
        to_db: usize,
        to_key: &[u8],
    ) -> Result<Found, OutOfMemory> {
        let from_key = self.key(from).to_vec();
        let head = self.head(from);
        let value = self.value(from).to_vec();
        if let Some(old) = self.find_any(to_db, to_key) {
            self.remove(old);
        }
        // The old one was moved by the removal, perhaps.
        let from = self.find_any(from.db, &from_key).expect("another key was removed");
        let new = self.put(to_db, to_key, None, head.kind, &[&value], head.expire)?;
        let from = self.find_any(from.db, &from_key).unwrap_or(from);
        self.take_out(from, false);
        let id = self.dbs[from.db].id;
        match head.kind {
            Kind::Object => self.journal.note(Effect::Unbind { db: id, key: &from_key }),
            _ => self.journal.note(Effect::Delete { db: id, key: &from_key }),
        }
        self.note_whole(to_db, to_key, head.kind, &value, head.expire);
        self.touch(from.db, &from_key);
        self.touch(to_db, to_key);
        Ok(self.find_any(to_db, to_key).unwrap_or(new))
    }

    /// Notes a key with its small value, or that it names its object.
    pub(crate) fn note_whole(
        &mut self,
        db: usize,
        key: &[u8],
        kind: Kind,
        value: &[u8],
        expire: Option<u64>,
    ) {
        let (db, expire) = (self.dbs[db].id, expire.unwrap_or(0));
        match kind {
            Kind::Bytes => self.journal.note(Effect::Set { db, key, expire, value }),
            Kind::Int => {
                let mut text = itoa::Buffer::new();
                let number = i64::from_le_bytes(value.try_into().expect("eight bytes"));
                let value = text.format(number).as_bytes();
                self.journal.note(Effect::Set { db, key, expire, value });
            }
            Kind::Object => {
                let object = u32::from_le_bytes(value.try_into().expect("four bytes"));
                let shape = self.objects.get(object).expect("a key's object is there").shape();
                let shape = shape as u8;
                let fresh = false;
                self.journal.note(Effect::Bind { db, key, expire, object, shape, fresh });
            }
            _ => self.journal.note(Effect::Put { db, key, expire, kind, value }),
        }
    }

    /// Makes a key name a new object, in place of whatever it was; notes that, but not what is in
    /// the object.
    pub(crate) fn bind(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        object: Object,
        expire: Option<u64>,
    ) -> Result<(Found, u32), OutOfMemory> {
        let old = found.and_then(|found| self.object_number(found));
        let shape = object.shape() as u8;
        let number = self.objects.add(object);
        match self.put(db, key, found, Kind::Object, &[&number.to_le_bytes()], expire) {
            Ok(found) => {
                old.into_iter().for_each(|old| self.bury(old));
                // An object of this number that the log still tells of is not this one.
                let (db, expire, fresh) = (self.dbs[db].id, expire.unwrap_or(0), true);
                let object = number;
                self.journal.note(Effect::Bind { db, key, expire, object, shape, fresh });
                Ok((found, number))
            }
            Err(error) => {
                let object = self.objects.remove(number).expect("it was added just now");
                self.doomed.push_back(Doomed::Object(Some(number), object));
                Err(error)
            }
        }
    }

    /// A number for a base that no other has.
    pub(crate) fn new_base(&mut self) -> u64 {
        self.next_base += 1;
        self.next_base - 1
    }

    /// Something beside the databases that the log keeps.
    pub fn meta(&self, name: &[u8]) -> Option<&[u8]> {
        self.meta.get(name).map(Vec::as_slice)
    }

    /// All of it that begins with a prefix.
    pub fn metas<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.meta
            .range(prefix.to_vec()..)
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// Keeps something beside the databases; forgets it, if the value is empty.
    pub fn set_meta(&mut self, name: &[u8], value: &[u8]) {
        match value.is_empty() {
            true => drop(self.meta.remove(name)),
            false => drop(self.meta.insert(name.to_vec(), value.to_vec())),
        }
        self.journal.note(Effect::Meta { name, value });
        (self.changed_last, self.seen) = (self.batch, self.batch);
    }

    /// Marks when a key was used, for tests and for what is loaded.
    pub fn set_access(&mut self, found: Found, access: u32) {
        entry::set_access(self.pool.heap.from_mut(found.at), access);
    }

    /// When a key was used: see [`Keyspace::set_access`].
    pub fn access(&self, found: Found) -> u32 {
        self.head(found).access
    }
}
