//! What HELP answers, for each command that has subcommands.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::fault::Fault;
use crate::words::quoted;

/// The subcommand HELP.
pub(crate) const HELP: Spec = spec(
    "help",
    2,
    Flags::NONE,
    Keys::None,
    Group::Server,
    "5.0.0",
    "Lists the subcommands.",
    help,
);

fn help(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let known = call.engine.table.find(&args[0]);
    let container = known.expect("its subcommand is being done").spec;
    let upper = container.name.to_uppercase();
    call.out.array(1 + 2 * container.subs.len());
    let head = "<subcommand> [<arg> [value] [opt] ...]. Subcommands are:";
    call.out.simple(format!("{upper} {head}"));
    for sub in container.subs {
        call.out.simple(sub.name.to_uppercase());
        call.out.simple(format!("    {}", sub.summary));
    }
    Ok(())
}

/// The fault of a subcommand with words that it does not know, where only it can tell.
pub(crate) fn wrong_sub(args: Args<'_>) -> Fault {
    let (sub, upper) = (quoted(&args[1]), quoted(&args[0]).to_uppercase());
    Fault::text(format!(
        "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {upper} HELP."
    ))
}
