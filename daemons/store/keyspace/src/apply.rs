//! The way back: from effects to databases, when a log is read; and what an effect of the past is
//! still worth, when the oldest part of a log shall go.

use crate::effect::{Effect, Effects, NoEffect, Target};
use crate::entry::Kind;
use crate::keyspace::{Found, Keyspace};
use crate::long::PART_BYTES;
use crate::object::{Object, Shape};

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
        let mut named = vec![false; self.objects.numbers().max().map_or(0, |max| max as usize + 1)];
        for db in 0..self.dbs.len() {
            let mut numbers = Vec::new();
            self.scan(db, crate::index::Cursor(0), usize::MAX, |at| numbers.push(at));
            for at in numbers {
                let head = crate::entry::read_head(self.pool.heap.from(at));
                if head.kind == Kind::Object {
                    let value = &self.pool.heap.from(at)[head.value];
                    let number = u32::from_le_bytes(value.try_into().expect("four bytes"));
                    named[number as usize] = true;
                }
            }
        }
        let nameless: Vec<u32> =
            self.objects.numbers().filter(|number| !named[*number as usize]).collect();
        nameless.into_iter().for_each(|number| self.bury(number));
        self.replaying = false;
        self.objects.count_free();
    }

    /// Applies the effects of one record.
    ///
    /// # Errors
    /// See [`ApplyError`]. What stood before the fault is applied.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        for effect in Effects::new(bytes) {
            self.apply_one(effect?)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, effect: Effect<'_>) -> Result<(), ApplyError> {
        match effect {
            Effect::Set { db, key, expire, value } => {
                let Some(db) = self.slot_of(db) else { return Ok(()) };
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
            Effect::Put { db, key, expire, kind, value } => {
                self.check_put(kind, value)?;
                let Some(db) = self.slot_of(db) else { return Ok(()) };
                let (found, expire) = (self.find_any(db, key), (expire != 0).then_some(expire));
                self.put(db, key, found, kind, &[value], expire)?;
            }
            Effect::Bind { db, key, expire, object, shape, fresh } => {
                let shape = Shape::from_number(shape).ok_or(NoEffect)?;
                let Some(db) = self.slot_of(db) else { return Ok(()) };
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
                match known && ids.len() / 4 <= self.dbs.len() {
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

    fn named(&self, db: u32, key: &[u8]) -> Option<Found> {
        self.find_any(self.slot_of(db)?, key)
    }

    /// Whether a small collection that a log has whole is one that can be read.
    fn check_put(&self, _kind: Kind, _value: &[u8]) -> Result<(), NoEffect> {
        Ok(())
    }

    fn apply_collection(&mut self, effect: Effect<'_>) -> Result<(), ApplyError> {
        let _ = effect;
        Err(NoEffect.into())
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
                if self.kind(found) == Kind::Object {
                    return false;
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
        let _ = effect;
        false
    }

    /// What an effect is about, so that whoever goes through many of the past can tell whether one
    /// of the same was noted again already.
    pub fn subject(effect: Effect<'_>, to: &mut Vec<u8>) {
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
            Effect::Stream { object, item, name, .. } => {
                (0x80 | item, Some(Target::Object(object)), name)
            }
            _ => (7, None, &[]),
        };
        to.clear();
        to.push(kind);
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
