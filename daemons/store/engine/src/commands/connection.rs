//! What a client says about its connection: PING, HELLO, SELECT and their kin.

use sextant_resp::Args;

use crate::call::Call;
use crate::client::Mute;
use crate::command::{Flags, Group, Keys, Spec, spec};
use crate::commands::clients::check_name;
use crate::commands::keys::database;
use crate::commands::tracking::stop;
use crate::commands::transactions::forget;
use crate::fault::Fault;
use crate::words::{int, is};

const FAST: Flags = Flags::FAST;
const OPEN: Flags = Flags::FAST.and(Flags::NO_AUTH).and(Flags::NOSCRIPT);
const CONNECTION: Group = Group::Connection;

pub(crate) const COMMANDS: &[Spec] = &[
    spec(
        "ping",
        -1,
        FAST.and(Flags::SUBSCRIBED),
        Keys::None,
        CONNECTION,
        "1.0.0",
        "Answers.",
        ping,
    ),
    spec("echo", 2, FAST, Keys::None, CONNECTION, "1.0.0", "Returns what it is given.", echo),
    spec("select", 2, FAST, Keys::None, CONNECTION, "1.0.0", "Chooses a database.", select),
    spec(
        "hello",
        -1,
        OPEN.and(Flags::SECRET),
        Keys::None,
        CONNECTION,
        "6.0.0",
        "Chooses the protocol, and greets.",
        hello,
    ),
    spec(
        "quit",
        -1,
        OPEN.and(Flags::SUBSCRIBED).and(Flags::NO_MULTI),
        Keys::None,
        CONNECTION,
        "1.0.0",
        "Ends the connection.",
        quit,
    ),
    spec(
        "reset",
        1,
        OPEN.and(Flags::SUBSCRIBED).and(Flags::NO_MULTI),
        Keys::None,
        CONNECTION,
        "6.2.0",
        "Makes the connection a new one.",
        reset,
    ),
];

fn ping(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let subscribed = call.client().subscriptions.is_some() && !call.out.resp3;
    match args.len() {
        1 | 2 if subscribed => {
            call.out.array(2);
            call.out.bulk(b"pong");
            call.out.bulk(args.get(1).unwrap_or(b""));
        }
        1 => call.out.simple("PONG"),
        2 => call.out.bulk(&args[1]),
        _ => return Err(Fault::arity("ping")),
    }
    Ok(())
}

fn echo(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    call.out.bulk(&args[1]);
    Ok(())
}

fn select(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let db = database(call, &args[1])?;
    call.db = db;
    call.client().db = db;
    call.out.ok();
    Ok(())
}

fn hello(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut resp3 = call.out.resp3;
    if let Some(version) = args.get(1) {
        let wrong = || Fault::text("ERR Protocol version is not an integer or out of range");
        resp3 = match int(version).map_err(|_| wrong())? {
            2 => false,
            3 => true,
            _ => return Err(Fault::text("NOPROTO unsupported protocol version")),
        };
    }
    let mut at = 2;
    let (mut name, mut identity) = (None, None);
    while let Some(word) = args.get(at) {
        if is(word, "AUTH") && args.len() > at + 2 {
            identity = Some((&args[at + 1], &args[at + 2]));
            at += 3;
        } else if is(word, "SETNAME") && args.len() > at + 1 {
            check_name(&args[at + 1])?;
            name = Some(args[at + 1].to_vec());
            at += 2;
        } else {
            let word = crate::words::quoted(word);
            return Err(Fault::text(format!("ERR Syntax error in HELLO option '{word}'")));
        }
    }
    if let Some((user, password)) = identity {
        call.engine.authenticate(call.id, user, password, "HELLO")?;
    }
    if call.client().user.is_none() {
        return Err(Fault::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    call.out.resp3 = resp3;
    let client = call.client();
    client.name = name.unwrap_or(std::mem::take(&mut client.name));
    let id = call.id.0;
    let out = &mut call.out;
    out.map(7);
    for (field, value) in [("server", "redis"), ("version", "7.2.0")] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.int(if resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.int(id as i64);
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
    Ok(())
}

fn quit(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.client().closing = true;
    call.out.ok();
    Ok(())
}

fn reset(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    forget(call);
    stop(call);
    call.db = 0;
    call.out.resp3 = false;
    let id = call.id;
    let client = call.client();
    (client.db, client.name) = (0, Vec::new());
    (client.mute, client.no_evict, client.no_touch) = (Mute::No, false, false);
    if let Some(own) = client.subscriptions.take() {
        call.engine.pubsub.remove(id, *own);
    }
    let anybody = call.engine.acl.anybody();
    let client = call.client();
    client.user = anybody;
    if std::mem::take(&mut client.monitors) {
        call.engine.monitors.retain(|other| *other != id);
    }
    call.engine.guard(id);
    call.out.simple("RESET");
    Ok(())
}
