//! Changes of sorted sets, and what a log says of them.

use std::ops::Range;

use super::{Ranking, Scores, compare, pack, pairs, pairs_before, score_word};
use crate::apply::{ApplyError, OBJECTS_MAX};
use crate::collection::Removed;
use crate::effect::{Effect, NoEffect, Target};
use crate::entry::Kind;
use crate::heap::OutOfMemory;
use crate::keyspace::{Found, Keyspace, Refused};
use crate::object::{Object, Shape};
use crate::packed::{Packed, PackedBuf, Word};

/// What became of a member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// The score that it had, if it was there.
    pub before: Option<f64>,
    /// The score that it has, if it is there.
    pub after: Option<f64>,
}

impl Scored {
    /// Whether it is a new one.
    pub fn is_new(&self) -> bool {
        self.before.is_none() && self.after.is_some()
    }

    /// Whether it has another score than it had.
    pub fn is_changed(&self) -> bool {
        self.before != self.after
    }
}

impl Keyspace {
    /// The sorted set of a key that was found.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn scores(&self, found: Found) -> Result<Scores<'_>, Refused> {
        match self.kind(found) {
            Kind::Zset => Ok(Scores::Small(Packed::new(self.value(found)))),
            Kind::Object => match self.object(found) {
                Some(Object::Zset(ranking)) => Ok(Scores::Large(ranking, &self.pool)),
                _ => Err(Refused::WrongType),
            },
            _ => Err(Refused::WrongType),
        }
    }

    /// Finds a key, and its sorted set.
    ///
    /// # Errors
    /// [`Refused::WrongType`].
    pub fn zset(&mut self, db: usize, key: &[u8]) -> Result<Option<Scores<'_>>, Refused> {
        match self.find(db, key) {
            Some(found) => self.scores(found).map(Some),
            None => Ok(None),
        }
    }

    /// Gives a member of a sorted set the score that `rule` makes of what it has, if it makes any;
    /// a key that is not there is made. A score is never NaN.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn zset_put(
        &mut self,
        db: usize,
        key: &[u8],
        member: &[u8],
        rule: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Result<Scored, Refused> {
        let found = self.find(db, key);
        let scores = found.map(|found| self.scores(found)).transpose()?;
        let before = scores.and_then(|scores| scores.score(member));
        let after = rule(before).or(before);
        let scored = Scored { before, after };
        let Some(score) = after.filter(|_| scored.is_changed()) else { return Ok(scored) };
        assert!(!score.is_nan(), "a score is a number");
        self.zset_set(db, key, found, member, score)?;
        self.touch(db, key);
        Ok(scored)
    }

    /// Sets a score that is another than before, and notes it.
    fn zset_set(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        member: &[u8],
        score: f64,
    ) -> Result<(), OutOfMemory> {
        if self.zset_set_small(db, key, found, member, score)? {
            let target = self.target_of(db, key);
            self.journal.note(Effect::ZsetAdd { target, member, score: score.to_bits() });
            return Ok(());
        }
        let (found, number) = self.zset_object(db, key, found)?;
        match self.ranking_insert(number, member, score) {
            Ok(()) => {
                let target = Target::Object(number);
                self.journal.note(Effect::ZsetAdd { target, member, score: score.to_bits() });
                Ok(())
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

    fn ranking_insert(
        &mut self,
        number: u32,
        member: &[u8],
        score: f64,
    ) -> Result<(), OutOfMemory> {
        let pool = &mut self.pool;
        let inserted = self.objects.with(number, |object| match object {
            Object::Zset(ranking) => ranking.insert(pool, member, score),
            _ => panic!("a sorted set is a sorted set"),
        });
        inserted.expect("the object of a key is there")
    }

    /// Sets a score where the set is small, and stays so; returns whether that is the case.
    fn zset_set_small(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
        member: &[u8],
        score: f64,
    ) -> Result<bool, OutOfMemory> {
        if !self.replaying && member.len() > self.encoding.zset_value_max {
            return Ok(false);
        }
        let mut room = [0; 9];
        let pair = [Word::from_bytes(member), score_word(score, &mut room)];
        let Some(found) = found else {
            let mut packed = PackedBuf::new();
            packed.push_back(&pair);
            let is_small = self.encoding.zset_entries_max > 0 || self.replaying;
            if !is_small || !self.is_small(packed.bytes().len()) {
                return Ok(false);
            }
            self.put(db, key, None, Kind::Zset, &[packed.bytes()], None)?;
            return Ok(true);
        };
        if self.kind(found) != Kind::Zset {
            return Ok(false);
        }
        let packed = Packed::new(self.value(found));
        let before = pairs_before(packed, score, member);
        let Some((index, item)) = packed.find_every(pair[0], 2) else {
            let splice = packed.insert_at(before * 2, &pair);
            let entries = usize::from(splice.count) / 2;
            let too_many = !self.replaying && entries > self.encoding.zset_entries_max;
            if too_many || !self.has_room(packed, &splice) {
                return Ok(false);
            }
            return self.splice_packed(found, 0, &splice).map(|_| true);
        };
        let rank = index / 2;
        // A pair that comes before where it shall be does not count once it is taken out.
        let place = if rank < before { before - 1 } else { before };
        if place == rank {
            let (held, _) = packed.item_at(item.end).expect("a member has a score");
            let splice = packed.replace(held, &pair[1]);
            return self.splice_packed(found, 0, &splice).map(|_| true);
        }
        // It is written whole, so that it is never seen without the member.
        let mut whole = PackedBuf::new();
        whole.append(packed);
        whole.remove(index..index + 2);
        whole.insert_at(place * 2, &pair);
        let expire = self.expires_at(found);
        self.put(db, key, Some(found), Kind::Zset, &[whole.bytes()], expire)?;
        Ok(true)
    }

    /// Makes sure that a sorted set is an object; tells its number.
    fn zset_object(
        &mut self,
        db: usize,
        key: &[u8],
        found: Option<Found>,
    ) -> Result<(Found, u32), OutOfMemory> {
        let Some(found) = found else {
            return self.bind(db, key, None, Object::Zset(Ranking::default()), None);
        };
        if let Some(number) = self.object_number(found) {
            return Ok((found, number));
        }
        let (bytes, expire) = (self.value(found).to_vec(), self.expires_at(found));
        let (mut ranking, mut scratch) = (Ranking::default(), [0; 20]);
        for (member, score) in pairs(Packed::new(&bytes)) {
            let inserted = ranking.insert(&mut self.pool, member.as_bytes(&mut scratch), score);
            if let Err(error) = inserted {
                while ranking.shed(&mut self.pool, usize::MAX) {}
                return Err(error);
            }
        }
        let (found, number) = self.bind(db, key, Some(found), Object::Zset(ranking), expire)?;
        for (member, score) in pairs(Packed::new(&bytes)) {
            let (member, score) = (member.as_bytes(&mut scratch), score.to_bits());
            self.journal.note(Effect::ZsetAdd { target: Target::Object(number), member, score });
        }
        Ok((found, number))
    }

    /// Makes a key the sorted set of these members, each of them once, whatever it was; without
    /// members there is no such key any more. No score is NaN.
    ///
    /// # Errors
    /// [`Refused::OutOfMemory`]; nothing has changed then.
    pub fn zset_store(
        &mut self,
        db: usize,
        key: &[u8],
        members: &mut [(Vec<u8>, f64)],
    ) -> Result<(), Refused> {
        let found = self.find(db, key);
        if members.is_empty() {
            found.into_iter().for_each(|found| self.remove(found));
            return Ok(());
        }
        members.sort_unstable_by(|one, other| compare((one.1, &one.0), (other.1, &other.0)));
        let borrowed = members.iter().map(|(member, score)| (member.as_slice(), *score));
        let encoding = &self.encoding;
        let is_short = |(member, _): &(Vec<u8>, f64)| member.len() <= encoding.zset_value_max;
        let few = members.len() <= encoding.zset_entries_max && members.iter().all(is_short);
        let packed = few.then(|| pack(borrowed.clone()));
        if let Some(packed) = packed.filter(|packed| self.is_small(packed.bytes().len())) {
            let (kind, value) = (Kind::Zset, packed.bytes());
            self.put(db, key, found, kind, &[value], None)?;
            let id = self.dbs[db].id;
            self.journal.note(Effect::Put { db: id, key, expire: 0, kind, value });
        } else {
            let ranking = Ranking::build(&mut self.pool, borrowed.clone())?;
            let (_, number) = self.bind(db, key, found, Object::Zset(ranking), None)?;
            let target = Target::Object(number);
            for (member, score) in borrowed {
                self.journal.note(Effect::ZsetAdd { target, member, score: score.to_bits() });
            }
        }
        self.touch(db, key);
        Ok(())
    }

    /// Takes members out of a sorted set.
    ///
    /// # Errors
    /// See [`Refused`]. Where memory ends in between, the members before are gone.
    pub fn zset_remove<'a>(
        &mut self,
        db: usize,
        key: &[u8],
        members: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Removed, Refused> {
        let mut removed = Removed::default();
        let Some(mut found) = self.find(db, key) else { return Ok(removed) };
        self.scores(found)?;
        let mut outcome = Ok(());
        for member in members {
            match self.zset_remove_one(db, key, found, member) {
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

    fn zset_remove_one(
        &mut self,
        db: usize,
        key: &[u8],
        found: Found,
        member: &[u8],
    ) -> Result<Option<Found>, OutOfMemory> {
        let Some(number) = self.object_number(found) else {
            let packed = Packed::new(self.value(found));
            let Some((_, item)) = packed.find_every(Word::from_bytes(member), 2) else {
                return Ok(None);
            };
            let splice = packed.remove_from(item.start, 2);
            let found = self.splice_packed(found, 0, &splice)?;
            let target = self.target_of(db, key);
            self.journal.note(Effect::ZsetRemove { target, member });
            return Ok(Some(found));
        };
        if !self.ranking_remove(number, member) {
            return Ok(None);
        }
        self.journal.note(Effect::ZsetRemove { target: Target::Object(number), member });
        Ok(Some(found))
    }

    fn ranking_remove(&mut self, number: u32, member: &[u8]) -> bool {
        let pool = &mut self.pool;
        let removed = self.objects.with(number, |object| match object {
            Object::Zset(ranking) => ranking.remove(pool, member),
            _ => false,
        });
        removed.unwrap_or(false)
    }

    /// Takes the members of these ranks out of a sorted set.
    ///
    /// # Errors
    /// See [`Refused`]; nothing has changed then.
    pub fn zset_remove_range(
        &mut self,
        db: usize,
        key: &[u8],
        ranks: Range<u64>,
    ) -> Result<Removed, Refused> {
        let Some(found) = self.find(db, key) else { return Ok(Removed::default()) };
        let len = self.scores(found)?.len();
        let ranks = ranks.start..ranks.end.min(len);
        if ranks.is_empty() {
            return Ok(Removed::default());
        }
        let count = ranks.end - ranks.start;
        if count == len {
            self.remove(found);
            return Ok(Removed { count, gone: true });
        }
        if let Some(number) = self.object_number(found) {
            let (pool, journal) = (&mut self.pool, &mut self.journal);
            self.objects.with(number, |object| match object {
                Object::Zset(ranking) => ranking.remove_range(pool, ranks, |member| {
                    journal.note(Effect::ZsetRemove { target: Target::Object(number), member });
                }),
                _ => panic!("a sorted set is a sorted set"),
            });
        } else {
            let value = self.value(found).to_vec();
            let packed = Packed::new(&value);
            let splice = packed.remove(ranks.start as usize * 2..ranks.end as usize * 2);
            self.splice_packed(found, 0, &splice)?;
            let (target, mut scratch) = (self.target_of(db, key), [0; 20]);
            Scores::Small(packed).each_in(ranks, false, |member, _| {
                let member = member.as_bytes(&mut scratch);
                self.journal.note(Effect::ZsetRemove { target, member });
            });
        }
        self.touch(db, key);
        Ok(Removed { count, gone: false })
    }

    /// A member has this score, a log says.
    pub(crate) fn apply_zset_add(
        &mut self,
        target: Target<'_>,
        member: &[u8],
        score: u64,
    ) -> Result<(), ApplyError> {
        let score = f64::from_bits(score);
        if score.is_nan() {
            return Err(NoEffect.into());
        }
        match target {
            Target::Named(db, key) => {
                let Some((db, found)) = self.make_way(db, key, &[Kind::Zset]) else {
                    return Ok(());
                };
                if !self.zset_set_small(db, key, found, member, score)? {
                    return Err(NoEffect.into());
                }
            }
            Target::Object(number) => {
                if number > OBJECTS_MAX {
                    return Err(NoEffect.into());
                }
                self.objects.ensure(number, Shape::Zset);
                self.ranking_insert(number, member, score)?;
            }
        }
        Ok(())
    }

    /// A member is gone, a log says.
    pub(crate) fn apply_zset_remove(
        &mut self,
        target: Target<'_>,
        member: &[u8],
    ) -> Result<(), ApplyError> {
        match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &[Kind::Zset]) else { return Ok(()) };
                // A set without members stays: what else it has comes later, and it may expire.
                self.zset_remove_one(found.db, key, found, member)?;
            }
            Target::Object(number) => drop(self.ranking_remove(number, member)),
        }
        Ok(())
    }

    /// Notes a member again if it has this score.
    pub(crate) fn relocate_zset_add(
        &mut self,
        target: Target<'_>,
        member: &[u8],
        score: u64,
    ) -> bool {
        let is_so =
            |scores: Scores<'_>| scores.score(member).is_some_and(|now| now.to_bits() == score);
        let (named, is_so) = match target {
            Target::Named(db, key) => {
                let Some(found) = self.named_of(db, key, &[Kind::Zset]) else { return false };
                (Some(found), is_so(Scores::Small(Packed::new(self.value(found)))))
            }
            Target::Object(number) => match self.objects.get(number) {
                Some(Object::Zset(ranking)) => (None, is_so(Scores::Large(ranking, &self.pool))),
                _ => return false,
            },
        };
        if is_so {
            self.journal.note(Effect::ZsetAdd { target, member, score });
        }
        named.into_iter().for_each(|found| self.note_expire_again(found));
        is_so
    }
}
