//! Sorted sets: ZADD, ZSCORE and their kin. Ranges are in `zset_ranges`, what is made of several
//! sets in `zset_algebra`, what waits in `waiting_zsets`.

use sextant_keyspace::Scores;
use sextant_keyspace::packed::Word;
use sextant_resp::Args;

use super::keys::{ScanOptions, reply_scan, scan_found};
use super::lists::Mpop;
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::output::Output;
use crate::words::{chance_count, float, int_within, is, repeated};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW_FAST: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const ZSET: Group = Group::SortedSet;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("zadd", -4, GROW_FAST, Keys::ONE, ZSET, "1.2.0", "Gives members scores.", zadd),
    spec("zincrby", 4, GROW_FAST, Keys::ONE, ZSET, "1.2.0", "Adds to a member's score.", zincrby),
    spec("zrem", -3, WRITE_FAST, Keys::ONE, ZSET, "1.2.0", "Takes members out.", zrem),
    spec("zcard", 2, READ_FAST, Keys::ONE, ZSET, "1.2.0", "Returns how many members there are.", zcard),
    spec("zscore", 3, READ_FAST, Keys::ONE, ZSET, "1.2.0", "Returns a member's score.", zscore),
    spec("zmscore", -3, READ_FAST, Keys::ONE, ZSET, "6.2.0", "Returns the scores of members.", zmscore),
    spec("zrank", -3, READ_FAST, Keys::ONE, ZSET, "2.0.0", "Returns how many members come before one.", zrank),
    spec("zrevrank", -3, READ_FAST, Keys::ONE, ZSET, "2.0.0", "Returns how many members come behind one.", zrevrank),
    spec("zpopmin", -2, WRITE_FAST, Keys::ONE, ZSET, "5.0.0", "Takes the members with the lowest scores.", zpopmin),
    spec("zpopmax", -2, WRITE_FAST, Keys::ONE, ZSET, "5.0.0", "Takes the members with the highest scores.", zpopmax),
    spec("zmpop", -4, WRITE, Keys::Counted { count: 1, store: None }, ZSET, "7.0.0", "Takes members of the first sorted set that has some.", zmpop),
    spec("zrandmember", -2, READ.and(Flags::RANDOM), Keys::ONE, ZSET, "6.2.0", "Returns members by chance.", zrandmember),
    spec("zscan", -3, READ.and(Flags::RANDOM), Keys::ONE, ZSET, "2.8.0", "Goes through the members, some at a time.", zscan),
];

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
pub(super) struct Rule {
    /// Only members that are not there.
    pub(super) if_new: bool,
    /// Only members that are there.
    pub(super) if_there: bool,
    greater: bool,
    less: bool,
    /// Changed members are counted too.
    pub(super) changed: bool,
    incr: bool,
}

impl Rule {
    /// Takes an option; returns whether the word is one.
    fn take(&mut self, word: &[u8]) -> bool {
        let option = match () {
            () if is(word, "NX") => &mut self.if_new,
            () if is(word, "XX") => &mut self.if_there,
            () if is(word, "GT") => &mut self.greater,
            () if is(word, "LT") => &mut self.less,
            () if is(word, "CH") => &mut self.changed,
            () if is(word, "INCR") => &mut self.incr,
            () => return false,
        };
        *option = true;
        true
    }

    fn check(&self, pairs: usize) -> Result<(), Fault> {
        let fault = match () {
            () if self.if_new && self.if_there => {
                "ERR XX and NX options at the same time are not compatible"
            }
            () if (self.greater || self.less) && self.if_new || self.greater && self.less => {
                "ERR GT, LT, and/or NX options at the same time are not compatible"
            }
            () if self.incr && pairs > 1 => {
                "ERR INCR option supports a single increment-element pair"
            }
            () => return Ok(()),
        };
        Err(Fault::text(fault))
    }

    /// The score that a member gets that has `before`, or none: it stays as it is.
    fn score(&self, before: Option<f64>, given: f64) -> Option<f64> {
        let Some(before) = before else { return (!self.if_there).then_some(given) };
        let score = if self.incr { before + given } else { given };
        let refused =
            self.if_new || (self.greater && score <= before) || (self.less && score >= before);
        (!refused).then_some(score)
    }
}

/// What was done to members.
#[derive(Default)]
pub(super) struct Added {
    new: u64,
    changed: u64,
    /// The last member's score, if it was not left as it is.
    score: Option<f64>,
}

/// Gives members scores, and tells it.
pub(super) fn add<'m>(
    call: &mut Call<'_>,
    key: &[u8],
    rule: Rule,
    members: impl Iterator<Item = (f64, &'m [u8])>,
) -> Result<Added, Fault> {
    let (db, mut added, mut outcome) = (call.db, Added::default(), Ok(()));
    for (given, member) in members {
        let mut score = None;
        let put = call.keys().zset_put(db, key, member, |before| {
            score = rule.score(before, given);
            score.filter(|score| !score.is_nan())
        });
        if score.is_some_and(f64::is_nan) {
            outcome = Err(Fault::text("ERR resulting score is not a number (NaN)"));
            break;
        }
        match put {
            Ok(put) => {
                added.new += u64::from(put.is_new());
                added.changed += u64::from(put.is_changed() && !put.is_new());
                added.score = score;
            }
            Err(refused) => {
                outcome = Err(refused.into());
                break;
            }
        }
    }
    if added.new + added.changed > 0 {
        call.notify(Class::ZSET, if rule.incr { "zincr" } else { "zadd" }, key);
    }
    outcome.map(|()| added)
}

fn zadd(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut rule = Rule::default();
    let mut at = 2;
    while args.get(at).is_some_and(|word| rule.take(word)) {
        at += 1;
    }
    let pairs = args.skip(at);
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err(Fault::Syntax);
    }
    rule.check(pairs.len() / 2)?;
    let scores: Vec<f64> = pairs.iter().step_by(2).map(float).collect::<Result<Vec<_>, Fault>>()?;
    call.engine.keys.zset(call.db, &args[1])?;
    let members = scores.into_iter().zip(pairs.iter().skip(1).step_by(2));
    let added = add(call, &args[1], rule, members)?;
    reply_added(call, rule, &added);
    Ok(())
}

pub(super) fn reply_added(call: &mut Call<'_>, rule: Rule, added: &Added) {
    match added.score {
        Some(score) if rule.incr => call.out.double(score),
        None if rule.incr => call.out.null(),
        _ if rule.changed => call.out.int((added.new + added.changed) as i64),
        _ => call.out.int(added.new as i64),
    }
}

fn zincrby(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let rule = Rule { incr: true, ..Rule::default() };
    let by = float(&args[2])?;
    let added = add(call, &args[1], rule, [(by, &args[3])].into_iter())?;
    reply_added(call, rule, &added);
    Ok(())
}

fn zrem(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let removed = call.keys().zset_remove(db, key, args.iter().skip(2))?;
    if removed.count > 0 {
        call.notify(Class::ZSET, "zrem", key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(removed.count as i64);
    Ok(())
}

fn zcard(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let len = scores.map_or(0, Scores::len);
    call.out.int(len as i64);
    Ok(())
}

fn reply_score(out: &mut Output, score: Option<f64>) {
    match score {
        Some(score) => out.double(score),
        None => out.null(),
    }
}

fn zscore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let score = scores.and_then(|scores| scores.score(&args[2]));
    reply_score(&mut call.out, score);
    Ok(())
}

fn zmscore(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    call.out.array(args.len() - 2);
    for member in args.iter().skip(2) {
        reply_score(&mut call.out, scores.and_then(|scores| scores.score(member)));
    }
    Ok(())
}

fn rank(call: &mut Call<'_>, args: Args<'_>, from_end: bool) -> Result<(), Fault> {
    if args.len() > 4 {
        return Err(Fault::arity(call.spec.name));
    }
    let with_score = args.get(3).map(|word| is(word, "WITHSCORE"));
    if with_score == Some(false) {
        return Err(Fault::Syntax);
    }
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let ranked = scores.and_then(|scores| Some((scores.rank(&args[2])?, scores.len())));
    match (ranked, with_score) {
        (None, None) => call.out.null(),
        (None, Some(_)) => call.out.null_array(),
        (Some(((rank, score), len)), _) => {
            let rank = if from_end { len - 1 - rank } else { rank };
            if with_score.is_some() {
                call.out.array(2);
            }
            call.out.int(rank as i64);
            if with_score.is_some() {
                call.out.double(score);
            }
        }
    }
    Ok(())
}

fn zrank(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    rank(call, args, false)
}

fn zrevrank(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    rank(call, args, true)
}

/// An end of a sorted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Min,
    Max,
}

impl End {
    pub(super) fn parse(word: &[u8]) -> Option<End> {
        match word {
            word if is(word, "MIN") => Some(End::Min),
            word if is(word, "MAX") => Some(End::Max),
            _ => None,
        }
    }
}

/// How members that are popped stand in a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In turn.
    Flat,
    /// Each with its score in an array.
    Nested,
}

/// How many members a key has; none if there is no such key.
pub(super) fn len_of(call: &mut Call<'_>, key: &[u8]) -> Result<Option<u64>, Fault> {
    Ok(call.engine.keys.zset(call.db, key)?.map(Scores::len))
}

/// Takes up to `count` members of a sorted set that is there, writes them behind a header that the
/// caller has written, and tells it.
pub(super) fn pop_members(
    call: &mut Call<'_>,
    key: &[u8],
    end: End,
    count: u64,
    form: Form,
) -> Result<(), Fault> {
    let (db, out) = (call.db, &mut call.out);
    let Some(scores) = call.engine.keys.zset(db, key)? else { return Ok(()) };
    let (len, count) = (scores.len(), count.min(scores.len()));
    let ranks = if end == End::Min { 0..count } else { len - count..len };
    scores.each_in(ranks.clone(), end == End::Max, |member, score| {
        if form == Form::Nested {
            out.array(2);
        }
        out.word(member);
        out.double(score);
    });
    let removed = call.keys().zset_remove_range(db, key, ranks)?;
    if removed.count > 0 {
        call.notify(Class::ZSET, if end == End::Min { "zpopmin" } else { "zpopmax" }, key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    Ok(())
}

fn pop(call: &mut Call<'_>, args: Args<'_>, end: End) -> Result<(), Fault> {
    const POSITIVE: &str = "ERR value is out of range, must be positive";
    if args.len() > 3 {
        return Err(Fault::Syntax);
    }
    let count = args.get(2).map(|word| int_within(word, 0..=i64::MAX, POSITIVE)).transpose()?;
    let len = len_of(call, &args[1])?.unwrap_or(0);
    let taken = len.min(count.unwrap_or(1) as u64);
    let nested = count.is_some() && call.out.resp3;
    let form = if nested { Form::Nested } else { Form::Flat };
    call.out.array(if nested { taken as usize } else { taken as usize * 2 });
    pop_members(call, &args[1], end, taken, form)
}

fn zpopmin(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, End::Min)
}

fn zpopmax(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, End::Max)
}

pub(super) fn parse_zmpop(args: Args<'_>) -> Result<(Mpop<'_>, End), Fault> {
    let mpop = Mpop::parse(args, |word| End::parse(word).is_some())?;
    let end = End::parse(mpop.which).ok_or(Fault::Syntax)?;
    Ok((mpop, end))
}

/// Pops from the first sorted set that is there; returns whether there was one.
pub(super) fn zmpop_now(call: &mut Call<'_>, mpop: &Mpop<'_>, end: End) -> Result<bool, Fault> {
    for key in mpop.keys() {
        if let Some(len) = len_of(call, key)? {
            call.out.array(2);
            call.out.bulk(key);
            call.out.array(mpop.count.min(len) as usize);
            pop_members(call, key, end, mpop.count, Form::Nested)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn zmpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mpop, end) = parse_zmpop(args.skip(1))?;
    if !zmpop_now(call, &mpop, end)? {
        call.out.null_array();
    }
    Ok(())
}

/// Writes members, with their scores if that is wanted: in turn, or as pairs in RESP3.
pub(super) fn reply_members<'w>(
    out: &mut Output,
    len: usize,
    with_scores: bool,
    each: impl FnOnce(&mut dyn FnMut(Word<'w>, f64)),
) {
    let nested = with_scores && out.resp3;
    out.array(if with_scores && !nested { len * 2 } else { len });
    each(&mut |member, score| {
        if nested {
            out.array(2);
        }
        out.word(member);
        if with_scores {
            out.double(score);
        }
    });
}

fn zrandmember(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut random = call.engine.keys.random();
    let count = args.get(2).map(chance_count).transpose()?;
    let with_scores = args.len() == 4 && is(&args[3], "WITHSCORES");
    if args.len() > 4 || (args.len() == 4 && !with_scores) {
        return Err(Fault::Syntax);
    }
    if with_scores && count.is_some_and(|count| count.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(Fault::text("ERR value is out of range"));
    }
    let found = call.look(&args[1]);
    let scores = found.map(|found| call.engine.keys.scores(found)).transpose()?;
    let (Some(scores), Some(count)) = (scores, count) else {
        match (scores, count) {
            (None, None) => call.out.null(),
            (None, Some(_)) => call.out.array(0),
            (Some(scores), _) => {
                let at = scores.at(random.u64(..scores.len()));
                let (member, _) = at.expect("the rank is one");
                call.out.word(member);
            }
        }
        return Ok(());
    };
    let chosen = match usize::try_from(count) {
        Ok(count) => scores.choose(count, &mut random),
        Err(_) => {
            let ranks = (0..repeated(count)?).map(|_| random.u64(..scores.len()));
            ranks.map(|rank| scores.at(rank).expect("the rank is one")).collect()
        }
    };
    reply_members(&mut call.out, chosen.len(), with_scores, |each| {
        chosen.iter().for_each(|(member, score)| each(*member, *score));
    });
    Ok(())
}

fn zscan(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(found) = scan_found(call, args)? else { return Ok(()) };
    let scores = call.engine.keys.scores(found)?;
    let options = ScanOptions::parse(args.skip(2), false)?;
    let (mut members, mut room) = (Vec::new(), [0; 20]);
    let next = scores.scan(options.cursor, options.count, |member, score| {
        if options.takes(member.as_bytes(&mut room)) {
            members.push((member, score));
        }
    });
    reply_scan(&mut call.out, next, members.len() * 2);
    for (member, score) in members {
        call.out.word(member);
        match scores {
            Scores::Small(_) => {
                let mut printed = sextant_resp::DoubleBuf::new();
                call.out.bulk(printed.format(score));
            }
            Scores::Large(..) => call.out.bulk(seventeen_digits(score).as_bytes()),
        }
    }
    Ok(())
}

/// A number with up to 17 digits that count, as C's `%.17g` has it, which is how Redis tells the
/// scores of large sets to who scans them.
fn seventeen_digits(score: f64) -> String {
    if score.is_infinite() {
        return if score > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let text = format!("{score:.16e}");
    let (digits, exponent) = text.split_once('e').expect("the form has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a number");
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..17).contains(&exponent) {
        let places = usize::try_from(16 - exponent).expect("the exponent is 16 at most");
        return trimmed(&format!("{score:.places$}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seventeen_digits_are_those_of_c() {
        let cases = [
            (0.1, "0.10000000000000001"),
            (3.0, "3"),
            (-0.0, "-0"),
            (1e17, "1e+17"),
            (12345678901234567.0, "12345678901234568"),
            (1e-5, "1.0000000000000001e-05"),
            (0.0001, "0.0001"),
            (1e300, "1.0000000000000001e+300"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (score, text) in cases {
            assert_eq!(seventeen_digits(score), text);
        }
    }
}
