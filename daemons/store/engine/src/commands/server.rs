//! What operators and tools ask: TIME, COMMAND and their kin.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;

pub(crate) const COMMANDS: &[Spec] = &[spec(
    "time",
    1,
    Flags::FAST.and(Flags::RANDOM),
    Keys::None,
    Group::Server,
    "2.6.0",
    "Returns the time.",
    time,
)];

fn time(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let now = call.now();
    call.out.array(2);
    call.out.bulk_int((now / 1000) as i64);
    call.out.bulk_int((now % 1000 * 1000) as i64);
    Ok(())
}
