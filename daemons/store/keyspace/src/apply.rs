//! The way back: from effects to databases, when a log is read; and what an effect of the past is
//! still worth, when the oldest part of a log shall go.

use crate::effect::{Effect, Effects, NoEffect, Target};
use crate::entry::{Kind, read_head};
use crate::index::Cursor;
use crate::keyspace::{Found, Keyspace};
use crate::list::base_of;
use crate::long::PART_BYTES;
use crate::object::{Object, Shape};
use crate::stream::is_entry;

/// Parts of a string at most: 512 MiB.
const PARTS_MAX: u64 = (512 << 20) / PART_BYTES as u64;
/// Objects at most.
pub(crate) const OBJECTS_MAX: u32 = 1 << 30;

/// Why the effects of a log were not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The bytes are none.
    #[error(transparent)]
    NoEffect(#[from] NoEffect),
    /// There is no memory for what they say.
    #[error(transparent)]
    OutOfMemory(#[from] crate::heap::OutOfMemory),
}

impl Keyspace {
    /// A log is about to be read: what is applied is noted nowhere, and no time passes.
    pub fn begin_replay(&mut self) {
        self.replaying = true;
        self.journal.set_on(false);
    }

    /// A log was read. What it had about keys that are no more goes.
    pub fn end_replay(&mut self) {
        self.drop_placeless();
        // A log of short strings has nothing of that kind, however many they are.
        if self.replayed_collections {
            self.bury_void();
        }
        self.replaying = false;
        self.objects.count_free();
    }

    fn bury_void(&mut self) {
        let mut named = vec![false; self.objects.numbers().max().map_or(0, |max| max as usize + 1)];
        for db in 0..self.dbs.len() {
            let mut void = Vec::new();
            self.scan(db, Cursor(0), usize::MAX, |at| {
                let block = self.pool.heap.from(at);
                let head = read_head(block);
                let value = &block[head.value];
                let hollow = self.is_hollow_value(head.kind, value);
                let named = (head.kind == Kind::Object).then(|| {
                    let number = u32::from_le_bytes(value.try_into().expect("four bytes"));
                    named.get_mut(number as usize)
                });
                // A log of ours has one name for an object.
                let void_name = match named {
                    Some(Some(named)) if !hollow => std::mem::replace(named, true),
                    Some(_) => true,
                    None => false,
                };
                if hollow || void_name {
                    void.push(block[head.key].to_vec());
                }
            });
            for key in void {
                let found = self.find_any(db, &key).expect("it was met just now");
                self.take_out(found, false);
            }
        }
        let nameless: Vec<u32> =
            self.objects.numbers().filter(|number| !named[*number as usize]).collect();
        nameless.into_iter().for_each(|number| self.bury(number));
    }

    /// Applies the effects of one record.
    ///
    /// # Errors
    /// See [`ApplyError`]. What stood before the fault is applied.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        /// So many effects wait for memory together.
        const AHEAD: usize = 16;
        let mut effects = Effects::new(bytes);
        let mut ahead = Effects::new(bytes);
        let mut hashes = [(0, 0); AHEAD];
        loop {
            let mut count = 0;
            for effect in ahead.by_ref().take(AHEAD) {
                if let Ok(Effect::Set { db, key, .. }) = effect
                    && let Some(db) = self.slot_of(db)
                {
                    hashes[count] = (db, self.prefetch(db, key));
                    count += 1;
                }
            }
            hashes[..count].iter().for_each(|(db, hash)| self.prefetch_value(*db, *hash));
            for _ in 0..AHEAD {
                match effects.next() {
                    Some(effect) => self.apply_one(effect?)?,
                    None => return Ok(()),
                }
            }
        }
    }

    fn apply_one(&mut self, effect: Effect<'_>) -> Result<(), ApplyError> {
        match effect {
            Effect::Set { db, key, expire, value } => {
                let Some(db) = self.slot_in_log(db) else { return Ok(()) };
                let expire = (expire != 0).then_some(expire);
                self.set(db, key, value, expire).map_err(|_| crate::heap::OutOfMemory)?;
            }
            Effect::Delete { db, key } => {
                if let Some(found) = self.named(db, key) {
                    self.take_out(found, true);
                }
            }
            Effect::Unbind { db, key } => {
                if let Some(found) = self.named(db, key) {
                    self.take_out(found, false);
                }
            }
            Effect::Expire { db, key, expire } => {
                if let Some(found) = self.named(db, key) {
                    self.set_expire(found, (expire != 0).then_some(expire))?;
                }
            }
            other => {
                let beside = matches!(other, Effect::Databases { .. } | Effect::Meta { .. });
                self.replayed_collections |= !beside;
                self.apply_other(other)?;
            }
        }
        Ok(())
    }

    /// Applies an effect that is about anything but short strings.
    fn apply_other(&mut self, effect: Effect<'_>) -> Result<(), ApplyError> {
        match effect {
            Effect::Put { db, key, expire, kind, value } => {
                self.check_put(kind, value)?;
                let Some(db) = self.slot_in_log(db) else { return Ok(()) };
                let (found, expire) = (self.find_any(db, key), (expire != 0).then_some(expire));
                self.put(db, key, found, kind, &[value], expire)?;
                if kind == Kind::List {
                    self.take_base(base_of(value));
                }
            }
            Effect::Bind { db, key, expire, object, shape, fresh } => {
                let shape = Shape::from_number(shape).ok_or(NoEffect)?;
                let Some(db) = self.slot_in_log(db) else { return Ok(()) };
                if object > OBJECTS_MAX {
                    return Err(NoEffect.into());
                }
                let found = self.find_any(db, key);
                // A key that names the object already keeps it.
                if let Some(old) = found.and_then(|found| self.object_number(found))
                    && old != object
                {
                    self.bury(old);
                }
                if fresh {
                    self.bury(object);
                }
                self.objects.ensure(object, shape);
                let (value, expire) = (object.to_le_bytes(), (expire != 0).then_some(expire));
                self.put(db, key, found, Kind::Object, &[&value], expire)?;
            }
            Effect::Databases { ids } => {
                let known = !ids.is_empty() && ids.len().is_multiple_of(4);
                match known && ids.len() / 4 <= self.count {
                    true => self.set_databases(ids),
                    false => return Err(NoEffect.into()),
                }
            }
            Effect::Meta { name, value } => self.set_meta(name, value),
            Effect::StringPart { object, part, base, value } => {
                if part > PARTS_MAX || value.len() > PART_BYTES || object > OBJECTS_MAX {
                    return Err(NoEffect.into());
                }
                self.next_base = self.next_base.max(base.saturating_add(1));
                self.objects.ensure(object, Shape::Long);
                self.objects.with(object, |object| match object {
                    Object::Long(long) => long.put_part(part as usize, base, value),
                    _ => panic!("it was made sure of"),
                });
            }
            Effect::StringPatch { object, part, at, value } => {
                if part > PARTS_MAX || at > PART_BYTES as u64 {
                    return Err(NoEffect.into());
                }
                self.objects.with(object, |object| {
                    if let Object::Long(long) = object {
                        long.patch_part(part as usize, at as usize, value);
                        long.count();
                    }
                });
            }
            Effect::Stream { object, item, name, value } => {
                self.apply_stream(object, item, name, value)?;
            }
            other => self.apply_collection(other)?,
        }
        Ok(())
    }

    pub(crate) fn named(&self, db: u32, key: &[u8]) -> Option<Found> {
        self.find_any(self.slot_of(db)?, key)
    }

    fn apply_collection(&mut self, effect: Effect<'_>) -> Result<(), ApplyError> {
        match effect {
            Effect::HashSet { target, field, value } => self.apply_hash_set(target, field, value),
            Effect::HashDelete { target, field } => self.apply_hash_delete(target, field),
            Effect::SetAdd { target, member } => self.apply_set_add(target, member),
            Effect::SetRemove { target, member } => self.apply_set_remove(target, member),
            Effect::ZsetAdd { target, member, score } => self.apply_zset_add(target, member, score),
            Effect::ZsetRemove { target, member } => self.apply_zset_remove(target, member),
            Effect::ListPush { target, node, side, element } => {
                self.apply_list_push(target, node, side, element)
            }
            Effect::ListPop { target, node, side, count } => {
                self.apply_list_pop(target, node, side, count)
            }
            Effect::ListNode { object, node, base, value } => {
                self.apply_list_node(object, node, base, value)
            }
            _ => Err(NoEffect.into()),
        }
    }

    /// Notes again what an effect of the past says that is still so and that nothing later need
    /// say: the record that has it is about to go. Returns whether there was something.
    ///
    /// To note what is so is never wrong, so where it is not sure that a later record says it too,
    /// it is noted.
    pub fn relocate(&mut self, effect: Effect<'_>) -> bool {
        match effect {
            Effect::Set { db, key, .. } | Effect::Put { db, key, .. } => {
                let Some(found) = self.named(db, key) else { return false };
                match self.kind(found) {
                    Kind::Object => return false,
                    Kind::List => return self.relocate_small_list(found, effect),
                    _ => {}
                }
                if let Effect::Set { value, .. } = effect {
                    let text = self.text(found);
                    if !text.is_ok_and(|text| text.bytes() == value) {
                        return false;
                    }
                }
                self.note_again(found, key);
                true
            }
            Effect::Bind { db, key, object, .. } => {
                let found = self.named(db, key);
                let found = found.filter(|found| self.object_number(*found) == Some(object));
                let Some(found) = found else { return false };
                self.note_again(found, key);
                true
            }
            Effect::Expire { db, key, expire } => {
                let found = self.named(db, key);
                let found = found.filter(|found| self.expires_at(*found).unwrap_or(0) == expire);
                let Some(_) = found.filter(|_| expire != 0) else { return false };
                self.journal.note(Effect::Expire { db, key, expire });
                true
            }
            Effect::Databases { ids } => {
                let now = self.database_ids();
                if now == ids {
                    self.journal.note(Effect::Databases { ids: &now });
                }
                now == ids
            }
            Effect::Meta { name, value } => {
                let is_so = !value.is_empty() && self.meta(name) == Some(value);
                if is_so {
                    self.journal.note(Effect::Meta { name, value });
                }
                is_so
            }
            Effect::StringPart { object, part, base, .. } => {
                let long = self.long(object);
                let is_so = long
                    .and_then(|long| long.part(part as usize))
                    .is_some_and(|part| part.base == base);
                if is_so {
                    self.note_part(object, part as usize);
                }
                is_so
            }
            Effect::Delete { .. } | Effect::Unbind { .. } | Effect::StringPatch { .. } => false,
            Effect::Stream { object, item, name, value } => {
                self.relocate_stream(object, item, name, value)
            }
            other => self.relocate_collection(other),
        }
    }

    /// Notes a key as it is.
    fn note_again(&mut self, found: Found, key: &[u8]) {
        let head = self.head(found);
        let value = self.value(found).to_vec();
        self.note_whole(found.db, key, head.kind, &value, head.expire);
    }

    fn relocate_collection(&mut self, effect: Effect<'_>) -> bool {
        match effect {
            Effect::HashSet { target, field, value } => {
                self.relocate_hash_set(target, field, value)
            }
            Effect::SetAdd { target, member } => self.relocate_set_add(target, member),
            Effect::ZsetAdd { target, member, score } => {
                self.relocate_zset_add(target, member, score)
            }
            Effect::ListNode { object, node, base, .. } => {
                self.relocate_list_node(object, node, base)
            }
            _ => false,
        }
    }

    /// What an effect is about, so that whoever goes through many of the past can tell whether one
    /// of the same was noted again already; empty, if it tells that itself.
    pub fn subject(effect: Effect<'_>, to: &mut Vec<u8>) {
        to.clear();
        let number;
        let (kind, target, name): (u8, Option<Target<'_>>, &[u8]) = match effect {
            Effect::Set { db, key, .. } | Effect::Put { db, key, .. } => {
                (0, Some(Target::Named(db, key)), &[])
            }
            Effect::Bind { db, key, .. } => (0, Some(Target::Named(db, key)), &[]),
            Effect::Expire { db, key, .. } => (1, Some(Target::Named(db, key)), &[]),
            Effect::HashSet { target, field, .. } => (2, Some(target), field),
            Effect::SetAdd { target, member } => (3, Some(target), member),
            Effect::ZsetAdd { target, member, .. } => (4, Some(target), member),
            Effect::Meta { name, .. } => (5, None, name),
            Effect::Databases { .. } => (6, None, &[]),
            Effect::Stream { object, item, name, .. } if !is_entry(item) => {
                (0x80 | item, Some(Target::Object(object)), name)
            }
            Effect::StringPart { object, part, .. } => {
                number = part.to_le_bytes();
                (8, Some(Target::Object(object)), &number)
            }
            Effect::ListNode { object, node, .. } => {
                number = node.to_le_bytes();
                (9, Some(Target::Object(object)), &number)
            }
            _ => return,
        };
        to.push(kind);
        to.push(u8::from(matches!(target, Some(Target::Named(..)))));
        match target {
            Some(Target::Named(db, key)) => {
                to.extend_from_slice(&db.to_le_bytes());
                to.extend_from_slice(&(key.len() as u32).to_le_bytes());
                to.extend_from_slice(key);
            }
            Some(Target::Object(object)) => to.extend_from_slice(&object.to_le_bytes()),
            None => {}
        }
        to.extend_from_slice(name);
    }
}
