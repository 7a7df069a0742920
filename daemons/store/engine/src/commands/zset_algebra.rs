//! What is made of several sorted sets: ZUNION, ZINTER, ZDIFF, and the forms that store or count.
//! A set takes part as well; each of its members has the score one.

use hashbrown::HashMap;
use sextant_keyspace::packed::Word;
use sextant_keyspace::{Members, Scores, Type};
use sextant_resp::Args;

use super::zset_ranges::store;
use super::zsets::reply_members;
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::words::{int, int_within, is, parse_float};

const READ: Flags = Flags::READONLY;
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const READ_KEYS: Keys = Keys::Counted { count: 1, store: None };
const STORE_KEYS: Keys = Keys::Counted { count: 2, store: Some(1) };
const ZSET: Group = Group::SortedSet;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("zunion", -3, READ, READ_KEYS, ZSET, "6.2.0", "Returns the members of any of some sorted sets.", zunion),
    spec("zunionstore", -4, GROW, STORE_KEYS, ZSET, "2.0.0", "Stores the members of any of some sorted sets.", zunionstore),
    spec("zinter", -3, READ, READ_KEYS, ZSET, "6.2.0", "Returns the members of all of some sorted sets.", zinter),
    spec("zinterstore", -4, GROW, STORE_KEYS, ZSET, "2.0.0", "Stores the members of all of some sorted sets.", zinterstore),
    spec("zintercard", -3, READ, READ_KEYS, ZSET, "7.0.0", "Counts the members of all of some sorted sets.", zintercard),
    spec("zdiff", -3, READ, READ_KEYS, ZSET, "6.2.0", "Returns the members of the first of some sorted sets alone.", zdiff),
    spec("zdiffstore", -4, GROW, STORE_KEYS, ZSET, "6.2.0", "Stores the members of the first of some sorted sets alone.", zdiffstore),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Union,
    Inter,
    Diff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, one: f64, other: f64) -> f64 {
        match self {
            // Infinities of both signs are nothing together.
            Aggregate::Sum => Some(one + other).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Aggregate::Min => {
                if other < one {
                    other
                } else {
                    one
                }
            }
            Aggregate::Max => {
                if other > one {
                    other
                } else {
                    one
                }
            }
        }
    }
}

/// A key that takes part.
#[derive(Clone, Copy)]
enum Source<'k> {
    Missing,
    Zset(Scores<'k>),
    Set(Members<'k>),
}

impl<'k> Source<'k> {
    fn len(self) -> u64 {
        match self {
            Source::Missing => 0,
            Source::Zset(scores) => scores.len(),
            Source::Set(members) => members.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Missing => None,
            Source::Zset(scores) => scores.score(member),
            Source::Set(members) => members.contains(member).then_some(1.0),
        }
    }

    /// Calls `each` for all members with their scores, as long as it returns true.
    fn each(self, mut each: impl FnMut(&[u8], f64) -> bool) {
        let mut room = [0; 20];
        match self {
            Source::Missing => {}
            Source::Zset(scores) => {
                let mut goes_on = true;
                scores.each_in(0..scores.len(), false, |member, score| {
                    goes_on = goes_on && each(member.as_bytes(&mut room), score);
                });
            }
            Source::Set(members) => {
                let mut members = members.iter();
                while let Some(member) = members.next()
                    && each(member.as_bytes(&mut room), 1.0)
                {}
            }
        }
    }
}

/// What a command asks for.
struct Question {
    aggregate: Aggregate,
    weights: Vec<f64>,
    with_scores: bool,
    /// No more than so many are counted.
    limit: u64,
}

/// Takes the number of keys; returns the words of keys.
fn keys_of<'a>(call: &Call<'_>, args: Args<'a>) -> Result<(Vec<&'a [u8]>, Args<'a>), Fault> {
    let count = int(args.get(0).ok_or(Fault::Syntax)?)?;
    let Some(count) = usize::try_from(count).ok().filter(|count| *count > 0) else {
        let name = call.spec.name;
        let fault = format!("ERR at least 1 input key is needed for '{name}' command");
        return Err(Fault::text(fault));
    };
    if count > args.len() - 1 {
        return Err(Fault::Syntax);
    }
    Ok((args.iter().skip(1).take(count).collect(), args.skip(1 + count)))
}

impl Question {
    fn parse(
        options: Args<'_>,
        keys: usize,
        of: Of,
        stores: bool,
        counts: bool,
    ) -> Result<Question, Fault> {
        let mut question = Question {
            aggregate: Aggregate::Sum,
            weights: vec![1.0; keys],
            with_scores: false,
            limit: u64::MAX,
        };
        let words: Vec<&[u8]> = options.iter().collect();
        let combines = of != Of::Diff && !counts;
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let left = words.len() - at - 1;
            if combines && left >= keys && is(word, "WEIGHTS") {
                for (weight, word) in question.weights.iter_mut().zip(&words[at + 1..]) {
                    let fault = Fault::text("ERR weight value is not a float");
                    *weight = parse_float(word).ok_or(fault)?;
                }
                at += keys;
            } else if combines && left >= 1 && is(word, "AGGREGATE") {
                question.aggregate = match words[at + 1] {
                    word if is(word, "SUM") => Aggregate::Sum,
                    word if is(word, "MIN") => Aggregate::Min,
                    word if is(word, "MAX") => Aggregate::Max,
                    _ => return Err(Fault::Syntax),
                };
                at += 1;
            } else if !stores && !counts && is(word, "WITHSCORES") {
                question.with_scores = true;
            } else if counts && left >= 1 && is(word, "LIMIT") {
                let limit = int_within(words[at + 1], 0..=i64::MAX, "ERR LIMIT can't be negative")?;
                question.limit = if limit == 0 { u64::MAX } else { limit as u64 };
                at += 1;
            } else {
                return Err(Fault::Syntax);
            }
            at += 1;
        }
        Ok(question)
    }
}

/// The sorted sets of keys, each with its place among the words.
fn sources<'c>(call: &'c mut Call<'_>, keys: &[&[u8]]) -> Result<Vec<(usize, Source<'c>)>, Fault> {
    let db = call.db;
    // A key whose time has come goes when it is looked for, so all are looked for before.
    for key in keys {
        call.engine.keys.find(db, key);
    }
    let keyspace = &call.engine.keys;
    let source = |key: &&[u8]| -> Result<Source<'c>, Fault> {
        let Some(found) = keyspace.peek(db, key) else { return Ok(Source::Missing) };
        Ok(match keyspace.type_of(found) {
            Type::Set => Source::Set(keyspace.members(found)?),
            _ => Source::Zset(keyspace.scores(found)?),
        })
    };
    keys.iter().map(source).enumerate().map(|(at, source)| Ok((at, source?))).collect()
}

type Scored = Vec<(Vec<u8>, f64)>;

/// A score times its weight; nothing times an infinity is nothing.
fn weighted(weight: f64, score: f64) -> f64 {
    Some(weight * score).filter(|product| !product.is_nan()).unwrap_or(0.0)
}

fn union_of(sources: &[(usize, Source<'_>)], question: &Question) -> Scored {
    let mut sums: HashMap<Vec<u8>, f64, foldhash::fast::RandomState> = HashMap::default();
    for (at, source) in sources {
        let weight = question.weights[*at];
        source.each(|member, score| {
            let score = weighted(weight, score);
            match sums.get_mut(member) {
                Some(sum) => *sum = question.aggregate.of(*sum, score),
                None => drop(sums.insert(member.to_vec(), score).is_some()),
            }
            true
        });
    }
    sums.into_iter().collect()
}

fn inter_of(sources: &[(usize, Source<'_>)], question: &Question) -> Scored {
    let mut members = Vec::new();
    let Some(((first, least), others)) = sources.split_first() else { return members };
    least.each(|member, score| {
        let mut sum = Some(weighted(question.weights[*first], score));
        for (at, other) in others {
            sum = sum.zip(other.score(member)).map(|(sum, score)| {
                question.aggregate.of(sum, weighted(question.weights[*at], score))
            });
        }
        members.extend(sum.map(|sum| (member.to_vec(), sum)));
        (members.len() as u64) < question.limit
    });
    members
}

fn diff_of(sources: &[(usize, Source<'_>)]) -> Scored {
    let mut members = Vec::new();
    let Some(((_, first), others)) = sources.split_first() else { return members };
    first.each(|member, score| {
        if others.iter().all(|(_, other)| other.score(member).is_none()) {
            members.push((member.to_vec(), score));
        }
        true
    });
    members
}

/// Combines sorted sets, in no order.
fn combine(
    call: &mut Call<'_>,
    args: Args<'_>,
    of: Of,
    stores: bool,
    counts: bool,
) -> Result<(Scored, bool), Fault> {
    let (keys, options) = keys_of(call, args)?;
    let mut sources = sources(call, &keys)?;
    let question = Question::parse(options, keys.len(), of, stores, counts)?;
    if of != Of::Diff {
        // Sums depend on their order in the last digits: the smallest set comes first.
        sources.sort_by_key(|(_, source)| source.len());
    }
    let members = match of {
        Of::Union => union_of(&sources, &question),
        Of::Inter => inter_of(&sources, &question),
        Of::Diff => diff_of(&sources),
    };
    Ok((members, question.with_scores))
}

fn reply(call: &mut Call<'_>, args: Args<'_>, of: Of) -> Result<(), Fault> {
    let (mut members, with_scores) = combine(call, args.skip(1), of, false, false)?;
    members.sort_unstable_by(|one, other| {
        one.1.partial_cmp(&other.1).expect("no score is NaN").then_with(|| one.0.cmp(&other.0))
    });
    reply_members(&mut call.out, members.len(), with_scores, |each| {
        members.iter().for_each(|(member, score)| each(Word::Bytes(member), *score));
    });
    Ok(())
}

fn store_of(call: &mut Call<'_>, args: Args<'_>, of: Of, event: &'static str) -> Result<(), Fault> {
    let (mut members, _) = combine(call, args.skip(2), of, true, false)?;
    store(call, &args[1], &mut members, event)
}

fn zunion(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply(call, args, Of::Union)
}

fn zunionstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_of(call, args, Of::Union, "zunionstore")
}

fn zinter(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply(call, args, Of::Inter)
}

fn zinterstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_of(call, args, Of::Inter, "zinterstore")
}

fn zintercard(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (members, _) = combine(call, args.skip(1), Of::Inter, false, true)?;
    call.out.int(members.len() as i64);
    Ok(())
}

fn zdiff(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    reply(call, args, Of::Diff)
}

fn zdiffstore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    store_of(call, args, Of::Diff, "zdiffstore")
}
