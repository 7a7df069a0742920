//! Lists: LPUSH, LRANGE and their kin. What waits for a list is in `waiting_lists`.

use sextant_keyspace::packed::Word;
use sextant_keyspace::{Elements, Side};
use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::notify::Class;
use crate::words::{int, int_within, is, range};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const GROW: Flags = Flags::WRITE.and(Flags::DENYOOM);
const GROW_FAST: Flags = GROW.and(Flags::FAST);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
const LIST: Group = Group::List;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("lpush", -3, GROW_FAST, Keys::ONE, LIST, "1.0.0", "Adds elements at the left.", lpush),
    spec("rpush", -3, GROW_FAST, Keys::ONE, LIST, "1.0.0", "Adds elements at the right.", rpush),
    spec("lpushx", -3, GROW_FAST, Keys::ONE, LIST, "2.2.0", "Adds at the left of a list that is there.", lpushx),
    spec("rpushx", -3, GROW_FAST, Keys::ONE, LIST, "2.2.0", "Adds at the right of a list that is there.", rpushx),
    spec("lpop", -2, WRITE_FAST, Keys::ONE, LIST, "1.0.0", "Takes elements off the left.", lpop),
    spec("rpop", -2, WRITE_FAST, Keys::ONE, LIST, "1.0.0", "Takes elements off the right.", rpop),
    spec("llen", 2, READ_FAST, Keys::ONE, LIST, "1.0.0", "Returns how many elements there are.", llen),
    spec("lindex", 3, READ, Keys::ONE, LIST, "1.0.0", "Returns the element of an index.", lindex),
    spec("lrange", 4, READ, Keys::ONE, LIST, "1.0.0", "Returns the elements of a range.", lrange),
    spec("lset", 4, GROW, Keys::ONE, LIST, "1.0.0", "Sets the element of an index.", lset),
    spec("linsert", 5, GROW, Keys::ONE, LIST, "2.2.0", "Puts an element before or behind another.", linsert),
    spec("lrem", 4, WRITE, Keys::ONE, LIST, "1.0.0", "Takes elements out that are this one.", lrem),
    spec("ltrim", 4, WRITE, Keys::ONE, LIST, "1.0.0", "Keeps the elements of a range only.", ltrim),
    spec("lpos", -3, READ, Keys::ONE, LIST, "6.0.6", "Returns where elements are that are this one.", lpos),
    spec("lmove", 5, GROW, TWO, LIST, "6.2.0", "Moves an element to an end of a list.", lmove),
    spec("rpoplpush", 3, GROW, TWO, LIST, "1.2.0", "Moves the last element to the front of a list.", rpoplpush),
    spec("lmpop", -4, WRITE, Keys::Counted { count: 1, store: None }, LIST, "7.0.0", "Takes elements off the first list that has some.", lmpop),
];

/// The event of a push.
fn pushed(side: Side) -> &'static str {
    if side == Side::Left { "lpush" } else { "rpush" }
}

/// The event of a pop.
fn popped(side: Side) -> &'static str {
    if side == Side::Left { "lpop" } else { "rpop" }
}

/// LEFT or RIGHT.
pub(super) fn side(word: Option<&[u8]>) -> Result<Side, Fault> {
    match word {
        Some(word) if is(word, "LEFT") => Ok(Side::Left),
        Some(word) if is(word, "RIGHT") => Ok(Side::Right),
        _ => Err(Fault::Syntax),
    }
}

/// How many elements a key has; none if there is no such key.
pub(super) fn len_of(call: &mut Call<'_>, key: &[u8]) -> Result<Option<u64>, Fault> {
    Ok(call.engine.keys.list(call.db, key)?.map(Elements::len))
}

fn push(call: &mut Call<'_>, args: Args<'_>, side: Side, only_there: bool) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    if only_there && len_of(call, key)?.is_none() {
        call.out.int(0);
        return Ok(());
    }
    let len = call.keys().list_push(db, key, side, args.iter().skip(2))?;
    call.notify(Class::LIST, pushed(side), key);
    call.out.int(len as i64);
    Ok(())
}

fn lpush(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    push(call, args, Side::Left, false)
}

fn rpush(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    push(call, args, Side::Right, false)
}

fn lpushx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    push(call, args, Side::Left, true)
}

fn rpushx(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    push(call, args, Side::Right, true)
}

/// Takes elements off a list that is there, writes them as an array or as the one that it is, and
/// tells it.
pub(super) fn pop_reply(
    call: &mut Call<'_>,
    key: &[u8],
    side: Side,
    count: Option<u64>,
) -> Result<(), Fault> {
    let len = len_of(call, key)?.unwrap_or(0);
    if let Some(count) = count {
        call.out.array(count.min(len) as usize);
    }
    let out = &mut call.out;
    let taken = call.engine.keys.list_pop(call.db, key, side, count.unwrap_or(1), |word| {
        out.word(word);
    })?;
    let Some(taken) = taken.filter(|taken| taken.count > 0) else { return Ok(()) };
    call.notify(Class::LIST, popped(side), key);
    if taken.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    Ok(())
}

fn pop(call: &mut Call<'_>, args: Args<'_>, side: Side) -> Result<(), Fault> {
    const POSITIVE: &str = "ERR value is out of range, must be positive";
    if args.len() > 3 {
        return Err(Fault::arity(call.spec.name));
    }
    let count = args.get(2).map(|word| int_within(word, 0..=i64::MAX, POSITIVE)).transpose()?;
    match len_of(call, &args[1])? {
        Some(_) => pop_reply(call, &args[1], side, count.map(|count| count as u64)),
        None => {
            match count {
                Some(_) => call.out.null_array(),
                None => call.out.null(),
            }
            Ok(())
        }
    }
}

fn lpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, Side::Left)
}

fn rpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, Side::Right)
}

fn llen(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let list = found.map(|found| call.engine.keys.elements(found)).transpose()?;
    call.out.int(list.map_or(0, Elements::len) as i64);
    Ok(())
}

/// The index of an element, if negative from the end.
fn index_in(index: i64, len: u64) -> Option<u64> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    u64::try_from(index).ok().filter(|index| *index < len)
}

fn lindex(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let found = call.look(&args[1]);
    let list = found.map(|found| call.engine.keys.elements(found)).transpose()?;
    let Some(list) = list else {
        call.out.null();
        return Ok(());
    };
    let index = index_in(int(&args[2])?, list.len());
    match index.and_then(|index| list.get(index)) {
        Some(word) => call.out.word(word),
        None => call.out.null(),
    }
    Ok(())
}

fn lrange(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    let found = call.look(&args[1]);
    let list = found.map(|found| call.engine.keys.elements(found)).transpose()?;
    let Some(list) = list else {
        call.out.array(0);
        return Ok(());
    };
    let range = range(start, end, list.len() as usize);
    call.out.array(range.len());
    let words = list.iter_from(range.start as u64).take(range.len());
    words.for_each(|word| call.out.word(word));
    Ok(())
}

fn lset(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let len = len_of(call, key)?.ok_or(Fault::NoSuchKey)?;
    let index = index_in(int(&args[2])?, len).ok_or(Fault::IndexOutOfRange)?;
    call.keys().list_set(db, key, index, &args[3])?;
    call.notify(Class::LIST, "lset", key);
    call.out.ok();
    Ok(())
}

fn linsert(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let behind = match &args[2] {
        word if is(word, "BEFORE") => 0,
        word if is(word, "AFTER") => 1,
        _ => return Err(Fault::Syntax),
    };
    let (db, key, pivot) = (call.db, &args[1], &args[3]);
    let Some(list) = call.engine.keys.list(db, key)? else {
        call.out.int(0);
        return Ok(());
    };
    let (len, pivot) = (list.len(), Word::from_bytes(pivot));
    let Some(at) = list.iter_from(0).position(|word| word == pivot) else {
        call.out.int(-1);
        return Ok(());
    };
    call.keys().list_insert(db, key, at as u64 + behind, &args[4])?;
    call.notify(Class::LIST, "linsert", key);
    call.out.int(len as i64 + 1);
    Ok(())
}

fn lrem(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key, count) = (call.db, &args[1], int(&args[2])?);
    let (side, count) = match count {
        0 => (Side::Left, u64::MAX),
        count if count < 0 => (Side::Right, count.unsigned_abs()),
        count => (Side::Left, count.unsigned_abs()),
    };
    let removed = call.keys().list_remove(db, key, side, &args[3], count)?;
    if removed.count > 0 {
        call.notify(Class::LIST, "lrem", key);
    }
    if removed.gone {
        call.notify(Class::GENERIC, "del", key);
    }
    call.out.int(removed.count as i64);
    Ok(())
}

fn ltrim(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (db, key) = (call.db, &args[1]);
    let (start, end) = (int(&args[2])?, int(&args[3])?);
    if let Some(len) = len_of(call, key)? {
        let kept = range(start, end, len as usize);
        let trimmed = call.keys().list_trim(db, key, kept.start as u64..kept.end as u64)?;
        call.notify(Class::LIST, "ltrim", key);
        if trimmed.is_some_and(|trimmed| trimmed.gone) {
            call.notify(Class::GENERIC, "del", key);
        }
    }
    call.out.ok();
    Ok(())
}

/// What LPOS looks for.
struct Search {
    /// The first match that counts, from one on.
    rank: u64,
    side: Side,
    /// So many matches are told in an array.
    count: Option<u64>,
    /// So many elements are looked at.
    looks: u64,
}

impl Search {
    fn parse(args: Args<'_>) -> Result<Search, Fault> {
        const RANK_ZERO: &str = "ERR RANK can't be zero: use 1 to start from the first match, 2 \
            from the second ... or use negative to start from the end of the list";
        let least = Fault::text(
            "ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
        let mut search = Search { rank: 1, side: Side::Left, count: None, looks: u64::MAX };
        let words: Vec<&[u8]> = args.iter().collect();
        for option in words.chunks(2) {
            let [name, value] = option else { return Err(Fault::Syntax) };
            if is(name, "RANK") {
                let rank = int(value)?;
                match rank {
                    0 => return Err(Fault::text(RANK_ZERO)),
                    i64::MIN => return Err(least),
                    rank => search.rank = rank.unsigned_abs(),
                }
                search.side = if rank < 0 { Side::Right } else { Side::Left };
            } else if is(name, "COUNT") {
                let count = int_within(value, 0..=i64::MAX, "ERR COUNT can't be negative")?;
                search.count = Some(if count == 0 { u64::MAX } else { count as u64 });
            } else if is(name, "MAXLEN") {
                let looks = int_within(value, 0..=i64::MAX, "ERR MAXLEN can't be negative")?;
                search.looks = if looks == 0 { u64::MAX } else { looks as u64 };
            } else {
                return Err(Fault::Syntax);
            }
        }
        Ok(search)
    }

    fn matches<'w>(&self, words: impl Iterator<Item = Word<'w>>, wanted: Word<'_>) -> Vec<u64> {
        let looks = usize::try_from(self.looks).unwrap_or(usize::MAX);
        let before = usize::try_from(self.rank - 1).unwrap_or(usize::MAX);
        let count = usize::try_from(self.count.unwrap_or(1)).unwrap_or(usize::MAX);
        let numbered = words.take(looks).enumerate();
        let matching = numbered.filter(|(_, word)| *word == wanted);
        matching.skip(before).take(count).map(|(at, _)| at as u64).collect()
    }
}

fn lpos(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let search = Search::parse(args.skip(3))?;
    let wanted = Word::from_bytes(&args[2]);
    let found = call.look(&args[1]);
    let list = found.map(|found| call.engine.keys.elements(found)).transpose()?;
    let found = match list {
        None => Vec::new(),
        Some(list) if search.side == Side::Left => search.matches(list.iter_from(0), wanted),
        Some(list) => {
            let found = search.matches(list.iter_back(), wanted);
            found.into_iter().map(|at| list.len() - 1 - at).collect()
        }
    };
    if search.count.is_some() {
        call.out.array(found.len());
        found.iter().for_each(|at| call.out.int(*at as i64));
        return Ok(());
    }
    match found.first() {
        Some(at) => call.out.int(*at as i64),
        None => call.out.null(),
    }
    Ok(())
}

/// Moves an element of a list that is there.
pub(super) fn move_element(
    call: &mut Call<'_>,
    (from, from_side): (&[u8], Side),
    (to, to_side): (&[u8], Side),
) -> Result<(), Fault> {
    let db = call.db;
    len_of(call, to)?;
    let (mut moved, mut room) = (Vec::new(), [0; 20]);
    let taken = call.engine.keys.list_pop(db, from, from_side, 1, |word| {
        moved.extend_from_slice(word.as_bytes(&mut room));
    })?;
    call.keys().list_push(db, to, to_side, [moved.as_slice()].into_iter())?;
    call.notify(Class::LIST, pushed(to_side), to);
    call.notify(Class::LIST, popped(from_side), from);
    if taken.is_some_and(|taken| taken.gone) && from != to {
        call.notify(Class::GENERIC, "del", from);
    }
    call.out.bulk(&moved);
    Ok(())
}

fn move_or_null(call: &mut Call<'_>, from: (&[u8], Side), to: (&[u8], Side)) -> Result<(), Fault> {
    match len_of(call, from.0)? {
        Some(_) => move_element(call, from, to),
        None => {
            call.out.null();
            Ok(())
        }
    }
}

fn lmove(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (from, to) = (side(args.get(3))?, side(args.get(4))?);
    move_or_null(call, (&args[1], from), (&args[2], to))
}

fn rpoplpush(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    move_or_null(call, (&args[1], Side::Right), (&args[2], Side::Left))
}

/// What LMPOP and ZMPOP have in common: keys, a word behind them, and COUNT.
pub(super) struct Mpop<'a> {
    pub(super) keys: Args<'a>,
    keys_len: usize,
    /// LEFT or RIGHT, MIN or MAX.
    pub(super) which: &'a [u8],
    pub(super) count: u64,
}

impl<'a> Mpop<'a> {
    /// Reads words from the number of keys on. `is_which` says what may stand behind them.
    pub(super) fn parse(
        args: Args<'a>,
        is_which: impl Fn(&[u8]) -> bool,
    ) -> Result<Mpop<'a>, Fault> {
        let fault = "ERR numkeys should be greater than 0";
        let keys_len = int_within(args.get(0).ok_or(Fault::Syntax)?, 1..=i64::MAX, fault)?;
        let keys_len = usize::try_from(keys_len).map_err(|_| Fault::Syntax)?;
        let behind = args.skip(keys_len.saturating_add(1));
        let which = behind.get(0).filter(|word| is_which(word)).ok_or(Fault::Syntax)?;
        let count = match (behind.get(1), behind.get(2), behind.len()) {
            (None, ..) => 1,
            (Some(word), Some(count), 3) if is(word, "COUNT") => {
                int_within(count, 1..=i64::MAX, "ERR count should be greater than 0")? as u64
            }
            (Some(word), Some(count), _) if is(word, "COUNT") => {
                int_within(count, 1..=i64::MAX, "ERR count should be greater than 0")?;
                return Err(Fault::Syntax);
            }
            _ => return Err(Fault::Syntax),
        };
        Ok(Mpop { keys: args.skip(1), keys_len, which, count })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone + 'a {
        self.keys.iter().take(self.keys_len)
    }
}

pub(super) fn parse_lmpop(args: Args<'_>) -> Result<(Mpop<'_>, Side), Fault> {
    let mpop = Mpop::parse(args, |word| side(Some(word)).is_ok())?;
    let side = side(Some(mpop.which))?;
    Ok((mpop, side))
}

/// Pops from the first list that is there; returns whether there was one.
pub(super) fn lmpop_now(call: &mut Call<'_>, mpop: &Mpop<'_>, side: Side) -> Result<bool, Fault> {
    for key in mpop.keys() {
        if len_of(call, key)?.is_some() {
            call.out.array(2);
            call.out.bulk(key);
            pop_reply(call, key, side, Some(mpop.count))?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn lmpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mpop, side) = parse_lmpop(args.skip(1))?;
    if !lmpop_now(call, &mpop, side)? {
        call.out.null_array();
    }
    Ok(())
}
