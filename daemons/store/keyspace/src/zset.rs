//! Sorted sets: small ones packed in the blocks of their keys, member and score in turn by score;
//! large ones in a table, for the score of a member, and in a tree, for the order.
//!
//! ```text
//!   table   member ─► score          tree   1 ann │ 1 bob │ 7 zoe │ …   score, and where the
//!                                                                      table has the member
//! ```
//!
//! Members of one score are in the order of their bytes. A range by score or by bytes becomes a
//! range of ranks, which is all that is ever read or removed.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::ops::{Bound, Range};

use crate::heap::{OutOfMemory, Ref};
use crate::image::{ImageError, In, Out, put_ref, take_ref};
use crate::index::Cursor;
use crate::packed::{Packed, PackedBuf, Word};
use crate::table::{Pool, Table};
use crate::tree::{Cursor as Spot, Shed, Tree, Weigh};

mod change;

pub use change::Scored;

/// What packed scores begin with that are no integers. No decimal form does.
const SCORE_TAG: u8 = 0xF5;
/// Integers up to this are all doubles.
const INT_MAX: i64 = 1 << 53;

/// A member of a large sorted set, in twelve bytes.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed(4))]
struct Ranked {
    score: f64,
    at: Ref,
}

impl Default for Ranked {
    fn default() -> Ranked {
        Ranked { score: 0.0, at: Ref(0) }
    }
}

impl Weigh for Ranked {
    type Key = Ranked;

    fn weight(&self) -> u64 {
        1
    }

    fn key(&self) -> Ranked {
        *self
    }
}

/// Scores are numbers, none of them NaN.
fn compare(one: (f64, &[u8]), other: (f64, &[u8])) -> Ordering {
    let scores = one.0.partial_cmp(&other.0).expect("a score is a number");
    scores.then_with(|| one.1.cmp(other.1))
}

/// A large sorted set.
#[derive(Default)]
pub struct Ranking {
    table: Table,
    tree: Tree<Ranked>,
    /// The tree, when the set is given up.
    going: Option<Box<Shed<Ranked, 64, 32>>>,
}

impl Ranking {
    /// A set of these members, each of them once.
    ///
    /// # Errors
    /// [`OutOfMemory`]; what was taken is given back.
    fn build<'m>(
        pool: &mut Pool,
        members: impl Iterator<Item = (&'m [u8], f64)>,
    ) -> Result<Ranking, OutOfMemory> {
        let (mut ranking, mut ranked) = (Ranking::default(), Vec::new());
        for (member, score) in members {
            match ranking.table.insert(pool, member, &score.to_le_bytes()) {
                Ok((at, _)) => ranked.push(Ranked { score, at }),
                Err(error) => {
                    ranking.table.drain(pool, usize::MAX);
                    return Err(error);
                }
            }
        }
        ranked.sort_unstable_by(|one, other| {
            compare((one.score, pool.item(one.at).0), (other.score, pool.item(other.at).0))
        });
        ranking.tree.extend(ranked);
        Ok(ranking)
    }

    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        self.table.write_image(out)?;
        self.tree.iter().try_for_each(|ranked| {
            out.number(ranked.score.to_bits())?;
            put_ref(out, ranked.at)
        })
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<Ranking, ImageError> {
        let mut ranking = Ranking { table: Table::read_image(image)?, ..Ranking::default() };
        for _ in 0..ranking.table.len() {
            let score = f64::from_bits(image.number()?);
            ranking.tree.extend([Ranked { score, at: take_ref(image)? }]);
        }
        Ok(ranking)
    }

    pub(crate) fn len(&self) -> u64 {
        self.table.len()
    }

    /// Bytes of members and scores, and of the tree.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.table.payload_bytes() + (8 + size_of::<Ranked>() as u64 + 1) * self.table.len()
    }

    /// Where a member of this score stands, or would.
    fn spot(&self, pool: &Pool, score: f64, member: &[u8]) -> Spot {
        self.tree.partition_point(|key| {
            let held = key.score;
            held < score || (held == score && pool.item(key.at).0 < member)
        })
    }

    fn score(&self, pool: &Pool, member: &[u8]) -> Option<f64> {
        self.table.get(pool, member).map(score_of_item)
    }

    /// Gives a member this score.
    fn insert(&mut self, pool: &mut Pool, member: &[u8], score: f64) -> Result<(), OutOfMemory> {
        if let Some(before) = self.score(pool, member) {
            let spot = self.spot(pool, before, member);
            self.tree.remove(spot);
        }
        // An item whose value stays as long as it was stays where it is.
        let (at, _) = self.table.insert(pool, member, &score.to_le_bytes())?;
        let spot = self.spot(pool, score, member);
        self.tree.insert(spot, Ranked { score, at });
        Ok(())
    }

    /// Takes a member out; returns whether it was there.
    fn remove(&mut self, pool: &mut Pool, member: &[u8]) -> bool {
        let Some(score) = self.score(pool, member) else { return false };
        let spot = self.spot(pool, score, member);
        self.tree.remove(spot);
        self.table.remove(pool, member);
        true
    }

    /// Takes the members of these ranks out, each after it was told.
    fn remove_range(&mut self, pool: &mut Pool, ranks: Range<u64>, mut each: impl FnMut(&[u8])) {
        let Some((mut spot, _)) = self.tree.at_weight(ranks.start) else { return };
        let mut member = Vec::new();
        for _ in ranks {
            let (ranked, next) = self.tree.remove_then(spot);
            spot = next;
            member.clear();
            member.extend_from_slice(pool.item(ranked.at).0);
            each(&member);
            self.table.remove(pool, &member);
        }
    }

    /// Gives up to about `count` members back; returns whether there are more. For a set that is
    /// given up.
    pub(crate) fn shed(&mut self, pool: &mut Pool, count: usize) -> bool {
        if !self.tree.is_empty() {
            self.going = Some(Box::new(std::mem::take(&mut self.tree).into_shed()));
        }
        if self.going.as_mut().is_some_and(|going| going.shed(count, drop)) {
            return true;
        }
        self.table.drain(pool, count)
    }
}

fn score_of_item(value: &[u8]) -> f64 {
    f64::from_le_bytes(value.try_into().expect("a score is eight bytes"))
}

/// A score as a small set has it: an integer as such, anything else a tag and the upper bytes of
/// the double as far as they are not zero.
fn score_word(score: f64, room: &mut [u8; 9]) -> Word<'_> {
    let int = score as i64;
    if int as f64 == score && int.abs() <= INT_MAX && score.to_bits() != (-0.0f64).to_bits() {
        return Word::Int(int);
    }
    room[0] = SCORE_TAG;
    room[1..].copy_from_slice(&score.to_be_bytes());
    let len = room.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    Word::Bytes(&room[..len])
}

/// The score of a word of a small set, if it is one.
fn word_score(word: Word<'_>) -> Option<f64> {
    match word {
        Word::Int(int) => Some(int as f64),
        Word::Bytes([SCORE_TAG, upper @ ..]) if upper.len() <= 8 => {
            let mut bytes = [0; 8];
            bytes[..upper.len()].copy_from_slice(upper);
            Some(f64::from_be_bytes(bytes)).filter(|score| !score.is_nan())
        }
        Word::Bytes(_) => None,
    }
}

fn score_of(word: Word<'_>) -> f64 {
    word_score(word).expect("a member of a small set is followed by its score")
}

/// Whether words are members and scores in order.
pub(crate) fn is_in_order(packed: Packed<'_>) -> bool {
    let (mut words, mut last): (_, Option<(f64, Vec<u8>)>) = (packed.iter(), None);
    while let Some((_, member)) = words.next() {
        let Some(score) = words.next().and_then(|(_, score)| word_score(score)) else {
            return false;
        };
        let member = member.as_bytes(&mut [0; 20]).to_vec();
        let is_less = |last: &(f64, Vec<u8>)| compare((last.0, &last.1), (score, &member)).is_lt();
        if last.as_ref().is_some_and(|last| !is_less(last)) {
            return false;
        }
        last = Some((score, member));
    }
    true
}

/// The members and scores of a small set.
fn pairs(packed: Packed<'_>) -> impl DoubleEndedIterator<Item = (Word<'_>, f64)> + Clone {
    Pairs(packed.iter())
}

#[derive(Clone)]
struct Pairs<'a>(crate::packed::Iter<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Word<'a>, f64);

    fn next(&mut self) -> Option<Self::Item> {
        let (_, member) = self.0.next()?;
        let (_, score) = self.0.next().expect("a member has a score");
        Some((member, score_of(score)))
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        if n > 0 {
            self.0.nth(2 * n - 1)?;
        }
        self.next()
    }
}

impl DoubleEndedIterator for Pairs<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let (_, score) = self.0.next_back()?;
        let (_, member) = self.0.next_back().expect("a score has a member");
        Some((member, score_of(score)))
    }
}

/// How many pairs of a small set come before this one.
fn pairs_before(packed: Packed<'_>, score: f64, member: &[u8]) -> usize {
    let mut scratch = [0; 20];
    let is_before = |(held, held_score): &(Word<'_>, f64)| {
        *held_score < score || (*held_score == score && held.as_bytes(&mut scratch) < member)
    };
    pairs(packed).take_while(is_before).count()
}

/// A packed set of members that are in order.
fn pack<'m>(members: impl Iterator<Item = (&'m [u8], f64)>) -> PackedBuf {
    let (mut packed, mut room) = (PackedBuf::new(), [0; 9]);
    for (member, score) in members {
        packed.push_back(&[Word::from_bytes(member), score_word(score, &mut room)]);
    }
    packed
}

/// A sorted set, as it is kept.
#[derive(Clone, Copy)]
pub enum Scores<'a> {
    /// Member and score in turn.
    Small(Packed<'a>),
    /// A table with a tree, and where the members are.
    Large(&'a Ranking, &'a Pool),
}

impl<'a> Scores<'a> {
    /// Members.
    pub fn len(self) -> u64 {
        match self {
            Scores::Small(packed) => packed.len() as u64 / 2,
            Scores::Large(ranking, _) => ranking.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The score of a member.
    pub fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Scores::Small(packed) => {
                let (_, item) = packed.find_every(Word::from_bytes(member), 2)?;
                packed.item_at(item.end).map(|(_, score)| score_of(score))
            }
            Scores::Large(ranking, pool) => ranking.score(pool, member),
        }
    }

    /// How many members come before this one, and its score.
    pub fn rank(self, member: &[u8]) -> Option<(u64, f64)> {
        match self {
            Scores::Small(packed) => {
                let (index, item) = packed.find_every(Word::from_bytes(member), 2)?;
                let (_, score) = packed.item_at(item.end)?;
                Some((index as u64 / 2, score_of(score)))
            }
            Scores::Large(ranking, pool) => {
                let score = ranking.score(pool, member)?;
                let spot = ranking.spot(pool, score, member);
                Some((ranking.tree.weight_before(spot), score))
            }
        }
    }

    /// How many members come before those that `holds` is false for, if it is true for all before
    /// the first of them.
    fn count_while(self, mut holds: impl FnMut(f64, &[u8]) -> bool) -> u64 {
        match self {
            Scores::Small(packed) => {
                let mut scratch = [0; 20];
                let holds = |(m, score): &(Word<'_>, f64)| holds(*score, m.as_bytes(&mut scratch));
                pairs(packed).take_while(holds).count() as u64
            }
            Scores::Large(ranking, pool) => {
                let spot = ranking.tree.partition_point(|key| {
                    let score = key.score;
                    holds(score, pool.item(key.at).0)
                });
                ranking.tree.weight_before(spot)
            }
        }
    }

    /// The same where only scores count.
    fn count_scores_while(self, mut holds: impl FnMut(f64) -> bool) -> u64 {
        match self {
            Scores::Small(_) => self.count_while(|score, _| holds(score)),
            Scores::Large(ranking, _) => {
                let spot = ranking.tree.partition_point(|key| holds(key.score));
                ranking.tree.weight_before(spot)
            }
        }
    }

    /// The ranks of the members whose scores are in a range.
    pub fn score_range(self, min: Bound<f64>, max: Bound<f64>) -> Range<u64> {
        let start = match min {
            Bound::Unbounded => 0,
            Bound::Included(min) => self.count_scores_while(|score| score < min),
            Bound::Excluded(min) => self.count_scores_while(|score| score <= min),
        };
        let end = match max {
            Bound::Unbounded => self.len(),
            Bound::Included(max) => self.count_scores_while(|score| score <= max),
            Bound::Excluded(max) => self.count_scores_while(|score| score < max),
        };
        start..end.max(start)
    }

    /// The ranks of the members whose bytes are in a range, if all scores are the same. If they are
    /// not, those of a small set are found as a walk from the first, or the last, meets them.
    pub fn lex_range(self, min: Bound<&[u8]>, max: Bound<&[u8]>, backwards: bool) -> Range<u64> {
        let is_below = |member: &[u8]| match min {
            Bound::Unbounded => false,
            Bound::Included(min) => member < min,
            Bound::Excluded(min) => member <= min,
        };
        let is_above = |member: &[u8]| match max {
            Bound::Unbounded => false,
            Bound::Included(max) => member > max,
            Bound::Excluded(max) => member >= max,
        };
        let Scores::Small(packed) = self else {
            let start = self.count_while(|_, member| is_below(member));
            let end = self.count_while(|_, member| !is_above(member));
            return start..end.max(start);
        };
        let (mut room, len) = ([0; 20], self.len());
        let mut check = |(member, _): &(Word<'_>, f64), is: &dyn Fn(&[u8]) -> bool| {
            is(member.as_bytes(&mut room))
        };
        let (first, last) = (pairs(packed).next(), pairs(packed).next_back());
        let is_outside = first.is_none_or(|first| check(&first, &is_above))
            || last.is_none_or(|last| check(&last, &is_below));
        if is_outside {
            return 0..0;
        }
        let is_inside = |member: &[u8]| !is_below(member) && !is_above(member);
        if backwards {
            let skipped = pairs(packed).rev().take_while(|pair| check(pair, &is_above)).count();
            let rest = pairs(packed).rev().skip(skipped);
            let taken = rest.take_while(|pair| check(pair, &is_inside)).count() as u64;
            let end = len - skipped as u64;
            return end - taken..end;
        }
        let start = pairs(packed).take_while(|pair| check(pair, &is_below)).count();
        let rest = pairs(packed).skip(start);
        let taken = rest.take_while(|pair| check(pair, &is_inside)).count() as u64;
        start as u64..start as u64 + taken
    }

    /// Calls `each` for the members of these ranks, from the first on, or from the last one
    /// backwards.
    ///
    /// # Panics
    /// There are not so many.
    pub fn each_in(self, ranks: Range<u64>, backwards: bool, mut each: impl FnMut(Word<'a>, f64)) {
        assert!(ranks.end <= self.len(), "ranks are below the number of members");
        if ranks.is_empty() {
            return;
        }
        let count = (ranks.end - ranks.start) as usize;
        match self {
            Scores::Small(packed) => {
                let pairs = pairs(packed);
                let mut each = |(member, score)| each(member, score);
                if backwards {
                    let behind = (self.len() - ranks.end) as usize;
                    pairs.rev().skip(behind).take(count).for_each(&mut each);
                } else {
                    pairs.skip(ranks.start as usize).take(count).for_each(&mut each);
                }
            }
            Scores::Large(ranking, pool) => {
                let mut tell =
                    |ranked: &Ranked| each(Word::Bytes(pool.item(ranked.at).0), ranked.score);
                let from = if backwards { ranks.end - 1 } else { ranks.start };
                let (spot, _) = ranking.tree.at_weight(from).expect("the rank is one");
                if backwards {
                    ranking.tree.iter_back_from(spot).take(count).for_each(&mut tell);
                } else {
                    ranking.tree.iter_from(spot).take(count).for_each(&mut tell);
                }
            }
        }
    }

    /// The member of a rank.
    pub fn at(self, rank: u64) -> Option<(Word<'a>, f64)> {
        let mut found = None;
        if rank < self.len() {
            self.each_in(rank..rank + 1, false, |member, score| found = Some((member, score)));
        }
        found
    }

    /// Calls `each` for members from a cursor on, about `count` of them, and tells where to go on:
    /// who goes from zero to zero has met everything that was there all the time. A small set is
    /// told whole.
    pub fn scan(self, cursor: Cursor, count: usize, mut each: impl FnMut(Word<'a>, f64)) -> Cursor {
        match self {
            Scores::Small(packed) => {
                pairs(packed).for_each(|(member, score)| each(member, score));
                Cursor(0)
            }
            Scores::Large(ranking, pool) => {
                ranking.table.scan(pool, cursor, count, |member, score| {
                    each(Word::Bytes(member), score_of_item(score));
                })
            }
        }
    }

    /// So many different members by chance, or all if there are no more.
    pub fn choose(self, count: usize, random: &mut fastrand::Rng) -> Vec<(Word<'a>, f64)> {
        let (len, wanted) = (self.len(), (count as u64).min(self.len()));
        let at = |rank| self.at(rank).expect("the rank is one");
        // Where few of many are wanted, hardly any is drawn twice.
        if wanted * 3 <= len {
            let (mut drawn, mut chosen) = (HashSet::new(), Vec::with_capacity(wanted as usize));
            while (chosen.len() as u64) < wanted {
                let rank = random.u64(..len);
                if drawn.insert(rank) {
                    chosen.push(at(rank));
                }
            }
            return chosen;
        }
        let (mut chosen, mut left, mut wanted) = (Vec::new(), len, wanted);
        self.each_in(0..len, false, |member, score| {
            if random.u64(..left) < wanted {
                chosen.push((member, score));
                wanted -= 1;
            }
            left -= 1;
        });
        chosen
    }
}

#[cfg(test)]
mod tests;
