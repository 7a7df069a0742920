//! CONFIG: what settings are, and changing them.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::help::HELP;
use crate::fault::Fault;
use crate::words::{matches, quoted};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const GROUP: Group = Group::Server;

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, flags, Keys::None, GROUP, "2.0.0", summary, handler)
}

pub(crate) const COMMANDS: &[Spec] =
    &[container("config", GROUP, "2.0.0", "Is about settings.", CONFIG)];

const CONFIG: &[Spec] = &[
    row("get", -3, ADMIN, "Tells settings.", get),
    HELP,
    row("resetstat", 2, ADMIN, "Forgets what was counted.", resetstat),
    row("rewrite", 2, ADMIN, "Keeps the settings over a restart.", rewrite),
    row("set", -4, ADMIN.and(Flags::SECRET), "Changes settings.", set),
];

fn get(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let patterns: Vec<Vec<u8>> = args.iter().skip(2).map(<[u8]>::to_ascii_lowercase).collect();
    let wanted = |name: &str| {
        let is_it = |pattern: &Vec<u8>| matches(pattern, name.as_bytes());
        patterns.iter().any(is_it)
    };
    let settings = call.engine.settings.iter().filter(|(name, _)| wanted(name));
    let mut settings: Vec<(&str, &str)> = settings.collect();
    settings.sort_unstable();
    call.out.map(settings.len());
    for (name, value) in settings {
        call.out.bulk(name.as_bytes());
        call.out.bulk(value.as_bytes());
    }
    Ok(())
}

fn refused(name: &[u8], why: &str) -> Fault {
    let name = quoted(name);
    Fault::text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

fn set(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().skip(2).collect();
    if !words.len().is_multiple_of(2) {
        return Err(Fault::Syntax);
    }
    let mut pairs: Vec<(usize, &[u8], &[u8])> = Vec::new();
    for pair in words.chunks_exact(2) {
        let Some(at) = call.engine.settings.find(pair[0]) else {
            return Err(Fault::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                quoted(pair[0])
            )));
        };
        if call.engine.settings.is_fixed(at) {
            return Err(refused(pair[0], "can't set immutable config"));
        }
        if pairs.iter().any(|(other, _, _)| *other == at) {
            return Err(refused(pair[0], "duplicate parameter"));
        }
        pairs.push((at, pair[0], pair[1]));
    }
    // All of them, or none.
    let mut checked = Vec::new();
    for (at, name, value) in pairs {
        let value = call.engine.settings.check(at, value);
        checked.push((at, value.map_err(|why| refused(name, &why))?));
    }
    checked.into_iter().for_each(|(at, value)| call.engine.put_setting(at, &value));
    call.out.ok();
    Ok(())
}

fn resetstat(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.engine.stats.reset();
    call.engine.counts = crate::engine::Counts::default();
    call.out.ok();
    Ok(())
}

fn rewrite(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.engine.keep_settings();
    call.out.ok();
    Ok(())
}
