//! CLIENT TRACKING and its kin: what a client that caches is told.

use std::collections::BTreeSet;

use sextant_resp::Args;

use crate::call::Call;
use crate::client::ClientId;
use crate::fault::Fault;
use crate::tracking::{Choice, Tracking};
use crate::words::{int, is, quoted};

/// Prefixes that a client is told of at most.
const PREFIXES_MAX: usize = 1024;

/// What CLIENT TRACKING is given.
fn parse(call: &Call<'_>, args: Args<'_>) -> Result<Tracking, Fault> {
    let mut new = Tracking::default();
    let (mut opt_in, mut opt_out) = (false, false);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        match (word, value) {
            (word, Some(value)) if is(word, "REDIRECT") => {
                if new.redirect.is_some() {
                    return Err(Fault::text(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                new.redirect = redirect(call, value)?;
                at += 1;
            }
            (word, Some(value)) if is(word, "PREFIX") => {
                new.prefixes.insert(value.to_vec());
                at += 1;
            }
            (word, _) if is(word, "BCAST") => new.broadcast = true,
            (word, _) if is(word, "OPTIN") => opt_in = true,
            (word, _) if is(word, "OPTOUT") => opt_out = true,
            (word, _) if is(word, "NOLOOP") => new.noloop = true,
            _ => return Err(Fault::Syntax),
        }
        at += 1;
    }
    if !new.prefixes.is_empty() && !new.broadcast {
        return Err(Fault::text("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if new.broadcast && (opt_in || opt_out) {
        return Err(Fault::text("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    new.choice = match (opt_in, opt_out) {
        (true, true) => {
            return Err(Fault::text("ERR You can't specify both OPTIN mode and OPTOUT mode"));
        }
        (true, false) => Choice::OptIn,
        (false, true) => Choice::OptOut,
        (false, false) => Choice::All,
    };
    Ok(new)
}

fn redirect(call: &Call<'_>, word: &[u8]) -> Result<Option<ClientId>, Fault> {
    let number = int(word)?;
    if number == 0 || number == call.id.0 as i64 {
        return Ok(None);
    }
    let id = u64::try_from(number).ok().map(ClientId);
    let id = id.filter(|id| call.engine.clients.get(*id).is_some());
    let gone = "ERR The client ID you want redirect to does not exist";
    id.map(Some).ok_or(Fault::text(gone))
}

/// Whether one begins with the other.
fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn check_prefixes(old: &BTreeSet<Vec<u8>>, args: Args<'_>) -> Result<(), Fault> {
    let words: Vec<&[u8]> = args.iter().collect();
    let is_prefix = |pair: &&[&[u8]]| is(pair[0], "PREFIX");
    let new: Vec<&[u8]> = words[3..].windows(2).filter(is_prefix).map(|pair| pair[1]).collect();
    if new.len() + old.len() > PREFIXES_MAX {
        return Err(Fault::text(format!("ERR a client has {PREFIXES_MAX} prefixes at most")));
    }
    for (at, prefix) in new.iter().enumerate() {
        let existing = old.iter().find(|old| overlap(old, prefix) && old != prefix);
        let (other, which) = match existing {
            Some(old) => (old.as_slice(), "an existing"),
            None => match new[at + 1..].iter().find(|other| overlap(other, prefix)) {
                Some(other) => (*other, "another provided"),
                None => continue,
            },
        };
        return Err(Fault::text(format!(
            "ERR Prefix '{}' overlaps with {which} prefix '{}'. Prefixes for a single client must \
             not overlap.",
            quoted(prefix),
            quoted(other)
        )));
    }
    Ok(())
}

pub(super) fn tracking(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut new = parse(call, args)?;
    let id = call.id;
    match &args[2] {
        word if is(word, "ON") => {}
        word if is(word, "OFF") => {
            stop(call);
            call.out.ok();
            return Ok(());
        }
        _ => return Err(Fault::Syntax),
    }
    let old = call.client().tracking.take();
    if let Some(old) = old {
        let checked = check_change(&old, &new).and_then(|()| check_prefixes(&old.prefixes, args));
        if let Err(fault) = checked {
            call.client().tracking = Some(old);
            return Err(fault);
        }
        new.prefixes.extend(old.prefixes);
    } else {
        check_prefixes(&BTreeSet::new(), args)?;
        call.engine.tracked.start();
    }
    if new.broadcast {
        if new.prefixes.is_empty() {
            new.prefixes.insert(Vec::new());
        }
        new.prefixes.iter().for_each(|prefix| call.engine.tracked.add_prefix(id, prefix));
    }
    call.client().tracking = Some(Box::new(new));
    call.engine.watch_if_needed();
    call.out.ok();
    Ok(())
}

fn check_change(old: &Tracking, new: &Tracking) -> Result<(), Fault> {
    if old.broadcast != new.broadcast {
        return Err(Fault::text(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
             then re-enabling it with a different mode.",
        ));
    }
    if old.choice != new.choice && old.choice != Choice::All && new.choice != Choice::All {
        return Err(Fault::text(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
             then re-enabling it with a different mode.",
        ));
    }
    Ok(())
}

/// Tells a client nothing any more.
pub(crate) fn stop(call: &mut Call<'_>) {
    let id = call.id;
    if let Some(own) = call.client().tracking.take() {
        call.engine.tracked.stop(id, &own);
        call.engine.watch_if_needed();
    }
}

pub(super) fn caching(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let own = call.client().tracking.as_mut().filter(|own| own.choice != Choice::All);
    let Some(own) = own else {
        return Err(Fault::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        ));
    };
    own.caching = match &args[2] {
        word if is(word, "yes") => match own.choice {
            Choice::OptIn => Some(true),
            _ => {
                return Err(Fault::text(
                    "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
                ));
            }
        },
        word if is(word, "no") => match own.choice {
            Choice::OptOut => Some(false),
            _ => {
                return Err(Fault::text(
                    "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
                ));
            }
        },
        _ => return Err(Fault::Syntax),
    };
    call.out.ok();
    Ok(())
}

pub(super) fn getredir(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let own = call.client().tracking.as_ref();
    let target = own.map_or(-1, |own| own.redirect.map_or(0, |target| target.0 as i64));
    call.out.int(target);
    Ok(())
}

pub(super) fn trackinginfo(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let own = call.client().tracking.as_deref().cloned();
    let mut flags = vec![if own.is_some() { "on" } else { "off" }];
    let (mut target, mut prefixes) = (-1, BTreeSet::new());
    if let Some(own) = own {
        let gone = |target| call.engine.clients.get(target).is_none();
        let named = [
            (own.broadcast, "bcast"),
            (own.choice == Choice::OptIn, "optin"),
            (own.caching == Some(true), "caching-yes"),
            (own.choice == Choice::OptOut, "optout"),
            (own.caching == Some(false), "caching-no"),
            (own.noloop, "noloop"),
            (own.redirect.is_some_and(gone), "broken_redirect"),
        ];
        flags.extend(named.iter().filter(|(is, _)| *is).map(|(_, name)| *name));
        target = own.redirect.map_or(0, |target| target.0 as i64);
        prefixes = own.prefixes;
    }
    let out = &mut call.out;
    out.map(3);
    out.bulk(b"flags");
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"redirect");
    out.int(target);
    out.bulk(b"prefixes");
    out.array(prefixes.len());
    prefixes.iter().for_each(|prefix| out.bulk(prefix));
    Ok(())
}
