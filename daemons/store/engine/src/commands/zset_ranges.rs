//! Ranges of sorted sets, by rank, by score and by the members' bytes: read, counted, stored and
//! removed. Each becomes a range of ranks first.

use std::ops::{Bound, Range};

use sextant_keyspace::Scores;
use sextant_resp::Args;

use super::zsets::reply_members;
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, parse_float, range};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
const ZSET: Group = Group::SortedSet;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("zrange", -4, READ, Keys::ONE, ZSET, "1.2.0", "Returns the members of a range.", zrange),
    spec("zrangestore", -5, GROW, TWO, ZSET, "6.2.0", "Stores the members of a range.", zrangestore),
    spec("zrevrange", -4, READ, Keys::ONE, ZSET, "1.2.0", "Returns the members of a range of ranks, backwards.", zrevrange),
    spec("zrangebyscore", -4, READ, Keys::ONE, ZSET, "1.0.5", "Returns the members of a range of scores.", zrangebyscore),
    spec("zrevrangebyscore", -4, READ, Keys::ONE, ZSET, "2.2.0", "Returns the members of a range of scores, backwards.", zrevrangebyscore),
    spec("zrangebylex", -4, READ, Keys::ONE, ZSET, "2.8.9", "Returns the members of a range of bytes.", zrangebylex),
    spec("zrevrangebylex", -4, READ, Keys::ONE, ZSET, "2.8.9", "Returns the members of a range of bytes, backwards.", zrevrangebylex),
    spec("zcount", 4, READ_FAST, Keys::ONE, ZSET, "2.0.0", "Counts the members of a range of scores.", zcount),
    spec("zlexcount", 4, READ_FAST, Keys::ONE, ZSET, "2.8.9", "Counts the members of a range of bytes.", zlexcount),
    spec("zremrangebyrank", 4, WRITE, Keys::ONE, ZSET, "2.0.0", "Takes the members of a range of ranks out.", zremrangebyrank),
    spec("zremrangebyscore", 4, WRITE, Keys::ONE, ZSET, "1.2.0", "Takes the members of a range of scores out.", zremrangebyscore),
    spec("zremrangebylex", 4, WRITE, Keys::ONE, ZSET, "2.8.9", "Takes the members of a range of bytes out.", zremrangebylex),
];

/// What a range goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// From one member to another.
type Between<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A range as a client says it.
enum Asked<'a> {
    Ranks(i64, i64),
    Scores(Bound<f64>, Bound<f64>),
    /// Nothing is in it if there is none.
    Lex(Option<Between<'a>>),
}

const NOT_FLOAT: &str = "ERR min or max is not a float";

/// A bound as C reads it: spaces before it are nothing, no number at all is zero, and one that is
/// too large for a double is infinite.
fn bound_number(word: &[u8]) -> Option<f64> {
    let digits = word.trim_ascii_start();
    if digits.is_empty() {
        return word.is_empty().then_some(0.0);
    }
    let lost = || std::str::from_utf8(digits).ok()?.parse().ok().filter(|n: &f64| !n.is_nan());
    parse_float(digits).or_else(lost)
}

fn score_bound(word: &[u8]) -> Result<Bound<f64>, Fault> {
    let number = |word: &[u8]| bound_number(word).ok_or(Fault::text(NOT_FLOAT));
    Ok(match word.strip_prefix(b"(") {
        Some(rest) => Bound::Excluded(number(rest)?),
        None => Bound::Included(number(word)?),
    })
}

/// A bound of bytes; `+` and `-` are beyond all and before all.
enum Edge<'a> {
    First,
    Last,
    At(Bound<&'a [u8]>),
}

fn edge(word: &[u8]) -> Result<Edge<'_>, Fault> {
    match word {
        b"-" => Ok(Edge::First),
        b"+" => Ok(Edge::Last),
        [b'[', rest @ ..] => Ok(Edge::At(Bound::Included(rest))),
        [b'(', rest @ ..] => Ok(Edge::At(Bound::Excluded(rest))),
        _ => Err(Fault::text("ERR min or max not valid string range item")),
    }
}

impl<'a> Asked<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Asked<'a>, Fault> {
        Ok(match by {
            By::Rank => Asked::Ranks(int(min)?, int(max)?),
            By::Score => Asked::Scores(score_bound(min)?, score_bound(max)?),
            By::Lex => Asked::Lex(match (edge(min)?, edge(max)?) {
                (Edge::Last, _) | (_, Edge::First) => None,
                (min, max) => {
                    let bound = |edge| if let Edge::At(at) = edge { at } else { Bound::Unbounded };
                    Some((bound(min), bound(max)))
                }
            }),
        })
    }

    /// The ranks that are in it.
    fn ranks(&self, scores: Scores<'_>, backwards: bool) -> Range<u64> {
        match self {
            Asked::Ranks(start, end) => {
                let ranks = range(*start, *end, scores.len() as usize);
                ranks.start as u64..ranks.end as u64
            }
            Asked::Scores(min, max) => scores.score_range(*min, *max),
            Asked::Lex(None) => 0..0,
            Asked::Lex(Some((min, max))) => scores.lex_range(*min, *max, backwards),
        }
    }
}

/// A range with all that ZRANGE says of it.
struct Query<'a> {
    asked: Asked<'a>,
    backwards: bool,
    with_scores: bool,
    offset: i64,
    /// All, if negative.
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads words from the lower end on. What the command says itself is not asked for.
    fn parse(
        args: Args<'a>,
        by: Option<By>,
        backwards: Option<bool>,
        stores: bool,
    ) -> Result<Query<'a>, Fault> {
        let words: Vec<&'a [u8]> = args.iter().collect();
        let (mut told_by, mut reverse, mut with_scores) = (by, backwards, false);
        let (mut offset, mut limit) = (0, -1);
        let mut at = 2;
        while let Some(word) = words.get(at) {
            match word {
                word if !stores && is(word, "WITHSCORES") => with_scores = true,
                word if is(word, "LIMIT") && words.len() > at + 2 => {
                    (offset, limit) = (int(words[at + 1])?, int(words[at + 2])?);
                    at += 2;
                }
                word if backwards.is_none() && is(word, "REV") && reverse.is_none() => {
                    reverse = Some(true);
                }
                word if told_by.is_none() && is(word, "BYLEX") => told_by = Some(By::Lex),
                word if told_by.is_none() && is(word, "BYSCORE") => told_by = Some(By::Score),
                _ => return Err(Fault::Syntax),
            }
            at += 1;
        }
        let (by, backwards) = (told_by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(Fault::text(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(Fault::text(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let swapped = backwards && by != By::Rank;
        let (min, max) = if swapped { (words[1], words[0]) } else { (words[0], words[1]) };
        let asked = Asked::parse(by, min, max)?;
        Ok(Query { asked, backwards, with_scores, offset, limit })
    }

    /// The ranks that it is about.
    fn ranks(&self, scores: Scores<'_>) -> Range<u64> {
        let (all, len) = match &self.asked {
            // From the end, ranks count from there.
            Asked::Ranks(start, end) if self.backwards => {
                let len = scores.len();
                let ranks = range(*start, *end, len as usize);
                return match ranks.is_empty() {
                    true => 0..0,
                    false => len - ranks.end as u64..len - ranks.start as u64,
                };
            }
            asked => (asked.ranks(scores, self.backwards), scores.len()),
        };
        let count = all.end - all.start;
        // An offset that is negative leaves everything behind.
        let skipped = u64::try_from(self.offset).unwrap_or(len).min(count);
        let taken = u64::try_from(self.limit).unwrap_or(len).min(count - skipped);
        match self.backwards {
            true => all.end - skipped - taken..all.end - skipped,
            false => all.start + skipped..all.start + skipped + taken,
        }
    }
}

fn reply_range(
    call: &mut Call<'_>,
    args: Args<'_>,
    by: Option<By>,
    backwards: Option<bool>,
) -> Result<(), Fault> {
    let query = Query::parse(args.skip(2), by, backwards, false)?;
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let Some(scores) = scores else {
        call.out.array(0);
        return Ok(());
    };
    let ranks = query.ranks(scores);
    let len = (ranks.end - ranks.start) as usize;
    reply_members(&mut call.out, len, query.with_scores, |each| {
        scores.each_in(ranks, query.backwards, each);
    });
    Ok(())
}

fn zrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, None, None)
}

fn zrevrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, Some(By::Rank), Some(true))
}

fn zrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, Some(By::Score), Some(false))
}

fn zrevrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, Some(By::Score), Some(true))
}

fn zrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, Some(By::Lex), Some(false))
}

fn zrevrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply_range(call, args, Some(By::Lex), Some(true))
}

/// Makes a key the sorted set of these members, tells it, and answers how many they are.
pub(super) fn store(
    call: &mut Call<'_>,
    key: &[u8],
    members: &mut [(Vec<u8>, f64)],
    event: &'static str,
) -> Result<(), Fault> {
    let db = call.db;
    let was_there = call.keys().find(db, key).is_some();
    call.keys().zset_store(db, key, members)?;
    if !members.is_empty() {
        call.notify(Class::ZSET, event, key);
    } else if was_there {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(members.len() as i64);
    Ok(())
}

fn zrangestore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let query = Query::parse(args.skip(3), None, None, true)?;
    let (mut members, mut room) = (Vec::new(), [0; 20]);
    if let Some(scores) = call.engine.keys.zset(call.db, &args[2])? {
        scores.each_in(query.ranks(scores), false, |member, score| {
            members.push((member.as_bytes(&mut room).to_vec(), score));
        });
    }
    store(call, &args[1], &mut members, "zrangestore")
}

fn count(call: &mut Call<'_>, args: Args<'_>, by: By) -> Result<(), Fault> {
    let asked = Asked::parse(by, &args[2], &args[3])?;
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let ranks = scores.map_or(0..0, |scores| asked.ranks(scores, false));
    call.out.int((ranks.end - ranks.start) as i64);
    Ok(())
}

fn zcount(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    count(call, args, By::Score)
}

fn zlexcount(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    count(call, args, By::Lex)
}

fn remove(call: &mut Call<'_>, args: Args<'_>, by: By, event: &'static str) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let asked = Asked::parse(by, &args[2], &args[3])?;
    let scores = call.engine.keys.zset(db, key)?;
    let ranks = scores.map_or(0..0, |scores| asked.ranks(scores, false));
    let removed = call.keys().zset_remove_range(db, key, ranks)?;
    if removed.count > 0 {
        call.notify(Class::ZSET, event, key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(removed.count as i64);
    Ok(())
}

fn zremrangebyrank(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    remove(call, args, By::Rank, "zremrangebyrank")
}

fn zremrangebyscore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    remove(call, args, By::Score, "zremrangebyscore")
}

fn zremrangebylex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    remove(call, args, By::Lex, "zremrangebylex")
}
