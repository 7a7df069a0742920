//! Lists that are waited for: BLPOP and its kin. Where a client may not wait they answer what a
//! client that gives up is answered.

use sextant_keyspace::{Side, Type};
use sextant_resp::Args;

use super::lists::{len_of, lmpop_now, move_element, parse_lmpop, pop_reply, side};
use crate::blocking::Wait;
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::output::Output;
use crate::words::parse_float;

const WAIT: Flags = Flags::WRITE.and(Flags::BLOCKING);
const MOVE: Flags = WAIT.and(Flags::DENYOOM);
const TWO: Keys = Keys::At { first: 1, last: 2, step: 1 };
/// All words but the last, which is how long to wait.
pub(super) const ALL_BUT_ONE: Keys = Keys::At { first: 1, last: -2, step: 1 };
const LIST: Group = Group::List;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("blpop", -3, WAIT, ALL_BUT_ONE, LIST, "2.0.0", "Takes an element off the left of a list, or waits for one.", blpop),
    spec("brpop", -3, WAIT, ALL_BUT_ONE, LIST, "2.0.0", "Takes an element off the right of a list, or waits for one.", brpop),
    spec("blmove", 6, MOVE, TWO, LIST, "6.2.0", "Moves an element to an end of a list, or waits for one.", blmove),
    spec("brpoplpush", 4, MOVE, TWO, LIST, "2.2.0", "Moves the last element to the front of a list, or waits for one.", brpoplpush),
    spec("blmpop", -5, WAIT, Keys::Counted { count: 2, store: None }, LIST, "7.0.0", "Takes elements off the first list that has some, or waits for one.", blmpop),
];

/// Until when to wait, in milliseconds since 1970; none is for ever. The word is in seconds.
pub(crate) fn deadline(call: &Call<'_>, word: &[u8]) -> Result<Option<u64>, Fault> {
    let seconds = parse_float(word);
    let seconds = seconds.ok_or(Fault::text("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    if ms < 0.0 {
        return Err(Fault::text("ERR timeout is negative"));
    }
    let deadline = (ms as i64).checked_add(call.now() as i64).filter(|_| ms < i64::MAX as f64);
    let deadline = deadline.ok_or(Fault::text("ERR timeout is out of range"))?;
    Ok((ms > 0.0).then_some(deadline as u64))
}

/// Waits until one of these keys is of a type, or gives up at once where that is not allowed.
pub(crate) fn wait_for<'k>(
    call: &mut Call<'_>,
    keys: impl Iterator<Item = &'k [u8]>,
    kind: Type,
    deadline: Option<u64>,
    refusal: fn(&mut Output),
) {
    let keys = keys.map(<[u8]>::to_vec).collect();
    let give_up: fn(&mut Output) = |out| out.null_array();
    let wait = Wait { keys, kind, gone_too: false, deadline, give_up };
    if !call.wait(wait) {
        refusal(&mut call.out);
    }
}

fn pop(call: &mut Call<'_>, args: Args<'_>, side: Side) -> Result<(), Fault> {
    let last = args.len() - 1;
    let deadline = deadline(call, &args[last])?;
    let keys = || args.iter().take(last).skip(1);
    for key in keys() {
        if len_of(call, key)?.is_some() {
            call.out.array(2);
            call.out.bulk(key);
            return pop_reply(call, key, side, None);
        }
    }
    wait_for(call, keys(), Type::List, deadline, |out| out.null_array());
    Ok(())
}

fn blpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, Side::Left)
}

fn brpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, Side::Right)
}

fn move_or_wait(
    call: &mut Call<'_>,
    from: (&[u8], Side),
    to: (&[u8], Side),
    deadline: Option<u64>,
) -> Result<(), Fault> {
    if len_of(call, from.0)?.is_some() {
        return move_element(call, from, to);
    }
    wait_for(call, [from.0].into_iter(), Type::List, deadline, |out| out.null());
    Ok(())
}

fn blmove(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (from, to) = (side(args.get(3))?, side(args.get(4))?);
    let deadline = deadline(call, &args[5])?;
    move_or_wait(call, (&args[1], from), (&args[2], to), deadline)
}

fn brpoplpush(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let deadline = deadline(call, &args[3])?;
    move_or_wait(call, (&args[1], Side::Right), (&args[2], Side::Left), deadline)
}

fn blmpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mpop, side) = parse_lmpop(args.skip(2))?;
    let deadline = deadline(call, &args[1])?;
    if !lmpop_now(call, &mpop, side)? {
        wait_for(call, mpop.keys(), Type::List, deadline, |out| out.null_array());
    }
    Ok(())
}
