//! Sorted sets that are waited for: BZPOPMIN and its kin. Where a client may not wait they answer
//! what a client that gives up is answered.

use sextant_keyspace::Type;
use sextant_resp::Args;

use super::waiting_lists::{ALL_BUT_ONE, deadline, wait_for};
use super::zsets::{End, Form, len_of, parse_zmpop, pop_members, zmpop_now};
use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;

const WAIT: Flags = Flags::WRITE.and(Flags::BLOCKING);
const WAIT_FAST: Flags = WAIT.and(Flags::FAST);
const ZSET: Group = Group::SortedSet;

#[rustfmt::skip]
pub(crate) const COMMANDS: &[Spec] = &[
    spec("bzpopmin", -3, WAIT_FAST, ALL_BUT_ONE, ZSET, "5.0.0", "Takes the member with the lowest score, or waits for one.", bzpopmin),
    spec("bzpopmax", -3, WAIT_FAST, ALL_BUT_ONE, ZSET, "5.0.0", "Takes the member with the highest score, or waits for one.", bzpopmax),
    spec("bzmpop", -5, WAIT, Keys::Counted { count: 2, store: None }, ZSET, "7.0.0", "Takes members of the first sorted set that has some, or waits for one.", bzmpop),
];

fn pop(call: &mut Call<'_>, args: Args<'_>, end: End) -> Result<(), Fault> {
    let last = args.len() - 1;
    let deadline = deadline(call, &args[last])?;
    let keys = || args.iter().take(last).skip(1);
    for key in keys() {
        if len_of(call, key)?.is_some() {
            call.out.array(3);
            call.out.bulk(key);
            return pop_members(call, key, end, 1, Form::Flat);
        }
    }
    wait_for(call, keys(), Type::Zset, deadline, |out| out.null_array());
    Ok(())
}

fn bzpopmin(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, End::Min)
}

fn bzpopmax(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    pop(call, args, End::Max)
}

fn bzmpop(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (mpop, end) = parse_zmpop(args.skip(2))?;
    let deadline = deadline(call, &args[1])?;
    if !zmpop_now(call, &mpop, end)? {
        wait_for(call, mpop.keys(), Type::Zset, deadline, |out| out.null_array());
    }
    Ok(())
}
