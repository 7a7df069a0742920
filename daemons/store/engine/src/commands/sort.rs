//! SORT: the elements of a list, set or sorted set in order, by themselves or by what other keys
//! hold, told or kept.

use std::cmp::Ordering;
use std::ops::Range;

use sextant_keyspace::packed::Word;
use sextant_keyspace::{Found, Side, Type};
use sextant_resp::Args;

use crate::call::{Call, Caller};
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, is, parse_float};

const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::MOVABLE_KEYS);
const READ: Flags = Flags::READONLY.and(Flags::MOVABLE_KEYS);

pub(crate) const COMMANDS: &[Spec] = &[
    spec(
        "sort",
        -2,
        WRITE,
        Keys::Found(keys),
        Group::Generic,
        "1.0.0",
        "Sorts a list, a set or a sorted set; keeps the outcome, if asked to.",
        sort,
    ),
    spec(
        "sort_ro",
        -2,
        READ,
        Keys::ONE,
        Group::Generic,
        "7.0.0",
        "Sorts a list, a set or a sorted set.",
        sort_ro,
    ),
];

/// The key that is sorted, and the one that the outcome goes to.
fn keys(args: Args<'_>) -> Vec<usize> {
    let (mut at, mut store) = (2, None);
    while at < args.len() {
        let word = &args[at];
        at += match () {
            () if is(word, "LIMIT") => 3,
            () if is(word, "GET") || is(word, "BY") => 2,
            () if is(word, "STORE") && at + 1 < args.len() => {
                store = Some(at + 1);
                2
            }
            () => 1,
        };
    }
    [1].into_iter().chain(store).collect()
}

/// What is asked for.
struct Sort<'a> {
    descending: bool,
    alpha: bool,
    /// From the first, and how many; all if negative.
    limit: (i64, i64),
    /// What each element is weighed by.
    by: Option<&'a [u8]>,
    /// A pattern without a star was given: the elements stay as they are.
    unsorted: bool,
    get: Vec<&'a [u8]>,
    store: Option<&'a [u8]>,
}

impl<'a> Sort<'a> {
    fn parse(args: Args<'a>, may_store: bool) -> Result<Sort<'a>, Fault> {
        let mut sort = Sort {
            descending: false,
            alpha: false,
            limit: (0, -1),
            by: None,
            unsorted: false,
            get: Vec::new(),
            store: None,
        };
        let mut at = 2;
        while let Some(word) = args.get(at) {
            let operand = || args.get(at + 1).ok_or(Fault::Syntax);
            at += match () {
                () if is(word, "ASC") || is(word, "DESC") => {
                    sort.descending = is(word, "DESC");
                    1
                }
                () if is(word, "ALPHA") => {
                    sort.alpha = true;
                    1
                }
                () if is(word, "LIMIT") => {
                    let count = args.get(at + 2).ok_or(Fault::Syntax)?;
                    sort.limit = (int(operand()?)?, int(count)?);
                    3
                }
                () if is(word, "STORE") && may_store => {
                    sort.store = Some(operand()?);
                    2
                }
                () if is(word, "BY") => {
                    let pattern = operand()?;
                    sort.by = Some(pattern);
                    sort.unsorted |= !pattern.contains(&b'*');
                    2
                }
                () if is(word, "GET") => {
                    sort.get.push(operand()?);
                    2
                }
                () => return Err(Fault::Syntax),
            };
        }
        Ok(sort)
    }

    /// The places that the limit leaves of so many.
    fn range(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.limit.0).unwrap_or(0).min(len);
        let count = usize::try_from(self.limit.1).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

/// What an element is sorted by.
enum Weight {
    Score(f64),
    Text(Option<Vec<u8>>),
}

fn sort(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let sort = Sort::parse(args, true)?;
    run(call, &args[1], sort)
}

fn sort_ro(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let sort = Sort::parse(args, false)?;
    run(call, &args[1], sort)
}

fn run(call: &mut Call<'_>, key: &[u8], mut sort: Sort<'_>) -> Result<(), Fault> {
    let found = call.look(key);
    let kind = found.map_or(Type::List, |found| call.engine.keys.type_of(found));
    // A set has no order of its own: what is kept, or done again, gets one.
    let repeatable = sort.store.is_some() || call.caller == Caller::Script;
    if sort.unsorted && kind == Type::Set && repeatable {
        (sort.unsorted, sort.alpha, sort.by) = (false, true, None);
    }
    let elements = match found {
        Some(found) => elements(call, found, &sort)?,
        None => Vec::new(),
    };
    let elements = match sort.unsorted {
        true => elements,
        false => sorted(call, elements, &sort)?,
    };
    match sort.store {
        Some(to) => store(call, to, &elements, &sort),
        None => {
            reply(call, &elements, &sort);
            Ok(())
        }
    }
}

/// The elements of a key; what the limit leaves of them if they are not sorted.
fn elements(call: &Call<'_>, found: Found, sort: &Sort<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let (keys, backwards) = (&call.engine.keys, sort.unsorted && sort.descending);
    let range = |len: u64| if sort.unsorted { sort.range(len as usize) } else { 0..len as usize };
    let own = |word: Word<'_>| word.as_bytes(&mut [0; 20]).to_vec();
    match keys.type_of(found) {
        Type::List => {
            let list = keys.elements(found)?;
            let range = range(list.len());
            let (start, count) = (range.start, range.len());
            Ok(match backwards {
                true => list.iter_back().skip(start).take(count).map(own).collect(),
                false => list.iter_from(start as u64).take(count).map(own).collect(),
            })
        }
        Type::Set => {
            let set = keys.members(found)?;
            let range = range(set.len());
            Ok(set.iter().skip(range.start).take(range.len()).map(own).collect())
        }
        Type::Zset => {
            let zset = keys.scores(found)?;
            let (len, range) = (zset.len(), range(zset.len()));
            let (start, end) = (range.start as u64, range.end as u64);
            let ranks = if backwards { len - end..len - start } else { start..end };
            let mut members = Vec::with_capacity(range.len());
            zset.each_in(ranks, backwards, |member, _| members.push(own(member)));
            Ok(members)
        }
        _ => Err(Fault::WrongType),
    }
}

/// The elements in order, as far as the limit goes.
fn sorted(
    call: &mut Call<'_>,
    elements: Vec<Vec<u8>>,
    sort: &Sort<'_>,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut weighed = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match sort.by {
            Some(pattern) => pointed_to(call, pattern, &element),
            None if sort.alpha => None,
            None => Some(element.clone()),
        };
        let weight = match sort.alpha {
            true => Weight::Text(text),
            false => Weight::Score(text.map_or(Ok(0.0), |text| score(&text))?),
        };
        weighed.push((weight, element));
    }
    let by_itself = sort.by.is_none();
    let compare = |one: &(Weight, Vec<u8>), other: &(Weight, Vec<u8>)| {
        let order = match (&one.0, &other.0) {
            (Weight::Score(one), Weight::Score(other)) => {
                one.partial_cmp(other).expect("a score is a number")
            }
            (Weight::Text(one), Weight::Text(other)) if !by_itself => return one.cmp(other),
            _ => Ordering::Equal,
        };
        order.then_with(|| one.1.cmp(&other.1))
    };
    match sort.descending {
        true => weighed.sort_by(|one, other| compare(other, one)),
        false => weighed.sort_by(compare),
    }
    let range = sort.range(weighed.len());
    let left = weighed.into_iter().skip(range.start).take(range.len());
    Ok(left.map(|(_, element)| element).collect())
}

/// A number as the C library reads it: with spaces before it, and nothing is zero.
fn score(text: &[u8]) -> Result<f64, Fault> {
    const FAULT: &str = "ERR One or more scores can't be converted into double";
    let number = text.trim_ascii_start();
    if text.is_empty() {
        return Ok(0.0);
    }
    let score = parse_float(number).ok_or(Fault::text(FAULT))?;
    let is_named = number.iter().any(|byte| matches!(byte, b'i' | b'I'));
    match score.is_infinite() && !is_named {
        true => Err(Fault::text(FAULT)),
        false => Ok(score),
    }
}

/// What a pattern points to for an element: the element itself for `#`; for `a*b` the string of
/// the key that has the element in place of the star; for `a*b->c` field `c` of that hash.
fn pointed_to(call: &mut Call<'_>, pattern: &[u8], element: &[u8]) -> Option<Vec<u8>> {
    if pattern == b"#" {
        return Some(element.to_vec());
    }
    let star = pattern.iter().position(|byte| *byte == b'*')?;
    let (before, behind) = (&pattern[..star], &pattern[star + 1..]);
    let arrow = behind.windows(2).position(|two| two == b"->");
    let arrow = arrow.filter(|at| at + 2 < behind.len());
    let (behind, field) = match arrow {
        Some(at) => (&behind[..at], Some(&behind[at + 2..])),
        None => (behind, None),
    };
    let key = [before, element, behind].concat();
    let found = call.look(&key)?;
    let keys = &call.engine.keys;
    match field {
        Some(field) => {
            let value = keys.fields(found).ok()?.get(field)?;
            Some(value.as_bytes(&mut [0; 20]).to_vec())
        }
        None => keys.text(found).ok().map(|text| text.bytes().into_owned()),
    }
}

fn reply(call: &mut Call<'_>, elements: &[Vec<u8>], sort: &Sort<'_>) {
    call.out.array(elements.len() * sort.get.len().max(1));
    for element in elements {
        if sort.get.is_empty() {
            call.out.bulk(element);
        }
        for pattern in &sort.get {
            match pointed_to(call, pattern, element) {
                Some(value) => call.out.bulk(&value),
                None => call.out.null(),
            }
        }
    }
}

/// Keeps the outcome as a list; what is not there is an empty element.
fn store(
    call: &mut Call<'_>,
    to: &[u8],
    elements: &[Vec<u8>],
    sort: &Sort<'_>,
) -> Result<(), Fault> {
    let mut list = Vec::with_capacity(elements.len() * sort.get.len().max(1));
    for element in elements {
        if sort.get.is_empty() {
            list.push(element.clone());
        }
        for pattern in &sort.get {
            list.push(pointed_to(call, pattern, element).unwrap_or_default());
        }
    }
    let db = call.db;
    let was_there = call.keys().delete(db, to);
    if !list.is_empty() {
        call.keys().list_push(db, to, Side::Right, list.iter().map(Vec::as_slice))?;
        call.notify(Class::LIST, "sortstore", to);
    } else if was_there {
        call.notify(Class::GENERIC, "del", to);
    }
    call.out.int(list.len() as i64);
    Ok(())
}

#[cfg(test)]
mod tests;
