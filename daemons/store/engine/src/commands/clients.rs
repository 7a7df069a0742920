//! CLIENT: what connections there are, and what is done to them.

use sextant_resp::Args;

use crate::call::Call;
use crate::client::{Client, ClientId, Mute};
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::help::HELP;
use crate::commands::tracking::{caching, getredir, tracking, trackinginfo};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::pubsub::Space;
use crate::words::{int, is, quoted};

const OPEN: Flags = Flags::NOSCRIPT;
const ADMIN: Flags = Flags::NOSCRIPT.and(Flags::ADMIN);
const GROUP: Group = Group::Connection;

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, flags, Keys::None, GROUP, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] =
    &[container("client", GROUP, "2.4.0", "Is about connections.", CLIENT)];

const CLIENT: &[Spec] = &[
    row("caching", 3, OPEN, "6.0.0", "Tells whether the next reads are cached.", caching),
    row("getname", 2, OPEN, "2.6.9", "Returns the connection's name.", getname),
    row("getredir", 2, OPEN, "6.0.0", "Tells who hears of changes instead.", getredir),
    HELP,
    row("id", 2, OPEN, "5.0.0", "Returns the connection's number.", id),
    row("info", 2, OPEN, "6.2.0", "Tells of this connection.", info),
    row("kill", -3, ADMIN, "2.4.0", "Ends connections.", kill),
    row("list", -2, ADMIN, "2.4.0", "Tells of all connections.", list),
    row("no-evict", 3, ADMIN, "7.0.0", "Keeps a connection when memory is short.", no_evict),
    row("no-touch", 3, OPEN, "7.2.0", "Lets reads not count as uses.", no_touch),
    row("pause", -3, ADMIN, "3.0.0", "Lets commands wait.", pause),
    row("reply", 3, OPEN, "3.2.0", "Tells which replies are wanted.", reply),
    row("setinfo", 4, OPEN, "7.2.0", "Tells which library the client uses.", setinfo),
    row("setname", 3, OPEN, "2.6.9", "Gives the connection a name.", setname),
    row("tracking", -3, OPEN, "6.0.0", "Tells of changes of keys, or not.", tracking),
    row("trackinginfo", 2, OPEN, "6.2.0", "Tells which changes are told.", trackinginfo),
    row("unblock", -3, ADMIN, "5.0.0", "Ends the waiting of a connection.", unblock),
    row("unpause", 2, ADMIN, "6.2.0", "Ends a pause.", unpause),
];

fn id(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let id = call.id.0 as i64;
    call.out.int(id);
    Ok(())
}

/// Takes a name as Redis allows it: printable, without spaces.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Fault> {
    match name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        true => Ok(()),
        false => Err(Fault::text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        )),
    }
}

fn setname(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_name(&args[2])?;
    call.client().name = args[2].to_vec();
    call.out.ok();
    Ok(())
}

fn getname(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let name = call.client().name.clone();
    match name.is_empty() {
        true => call.out.null(),
        false => call.out.bulk(&name),
    }
    Ok(())
}

fn setinfo(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (at, name) = match &args[2] {
        word if is(word, "LIB-NAME") => (0, "lib-name"),
        word if is(word, "LIB-VER") => (1, "lib-ver"),
        word => {
            return Err(Fault::text(format!("ERR Unrecognized option '{}'", quoted(word))));
        }
    };
    if !args[3].iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(Fault::text(format!(
            "ERR {name} cannot contain spaces, newlines or special characters."
        )));
    }
    let value = args[3].to_vec();
    call.client().library.get_or_insert_default()[at] = value;
    call.out.ok();
    Ok(())
}

/// Whether a connection is of the type of a name; none if there is no such type.
fn is_of_type(client: &Client, name: &[u8]) -> Option<bool> {
    let hears = client.subscriptions.is_some();
    match () {
        () if is(name, "normal") => Some(!hears),
        () if is(name, "pubsub") => Some(hears),
        () if is(name, "master") || is(name, "replica") || is(name, "slave") => Some(false),
        () => None,
    }
}

fn unknown_type(name: &[u8]) -> Fault {
    Fault::text(format!("ERR Unknown client type '{}'", quoted(name)))
}

/// The line of CLIENT LIST about a connection.
fn line(engine: &Engine, client: &Client, resp3: bool, db: usize) -> String {
    let now = engine.keys.now();
    let command = client
        .last_command
        .map_or("NULL", |number| engine.table.rows()[number as usize].name.as_str());
    let (multi, multi_bytes) =
        client.multi.as_ref().map_or((-1, 0), |multi| (multi.commands.len() as i64, multi.bytes));
    let redirect =
        client.tracking.as_ref().map_or(-1, |own| own.redirect.map_or(0, |target| target.0 as i64));
    let empty = Box::default();
    let library: &[Vec<u8>; 2] = client.library.as_ref().unwrap_or(&empty);
    let waits = client.output.len();
    format!(
        "id={} addr={} laddr={} name={} age={} idle={} flags={} db={db} sub={} psub={} ssub={} \
         multi={multi} watch={} multi-mem={multi_bytes} omem={waits} events=r cmd={command} \
         user={} redir={redirect} resp={} lib-name={} lib-ver={}",
        client.id.0,
        client.peer.address,
        client.peer.local,
        String::from_utf8_lossy(&client.name),
        now.saturating_sub(client.created) / 1000,
        now.saturating_sub(client.last_active) / 1000,
        flags(engine, client),
        client.subscribed(Space::Channels),
        client.subscribed(Space::Patterns),
        client.subscribed(Space::Shards),
        client.watched.len(),
        String::from_utf8_lossy(engine.user_name(client)),
        if resp3 { 3 } else { 2 },
        String::from_utf8_lossy(&library[0]),
        String::from_utf8_lossy(&library[1]),
    )
}

/// The letters that say what a connection is in.
fn flags(engine: &Engine, client: &Client) -> String {
    let tracking = client.tracking.as_ref();
    let broken = tracking.is_some_and(|own| {
        own.broken || own.redirect.is_some_and(|target| engine.clients.get(target).is_none())
    });
    let letters = [
        (client.monitors, 'O'),
        (client.subscriptions.is_some(), 'P'),
        (client.multi.is_some(), 'x'),
        (client.waits(), 'b'),
        (tracking.is_some(), 't'),
        (broken, 'R'),
        (tracking.is_some_and(|own| own.broadcast), 'B'),
        (client.watched_changed, 'd'),
        (client.closing, 'c'),
        (client.peer.unix, 'U'),
        (client.no_evict, 'e'),
        (client.no_touch, 'T'),
    ];
    let flags: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| *letter).collect();
    if flags.is_empty() { "N".to_owned() } else { flags }
}

impl Engine {
    /// The line of CLIENT LIST about a connection, for those who keep it.
    pub(crate) fn describe(&self, client: &Client) -> String {
        line(self, client, client.output.resp3, client.db)
    }
}

/// The same about any connection, the one whose command is being done among them.
fn line_of(call: &Call<'_>, client: &Client) -> String {
    let resp3 = if client.id == call.id { call.out.resp3 } else { client.output.resp3 };
    line(call.engine, client, resp3, client.db)
}

fn info(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let client = call.engine.clients.get(call.id).expect("its command is being done");
    let line = line_of(call, client) + "\n";
    call.out.verbatim("txt", line.as_bytes());
    Ok(())
}

fn list(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut kind = None;
    let mut ids: Option<Vec<ClientId>> = None;
    match (args.get(2), args.len()) {
        (None, _) => {}
        (Some(word), 4) if is(word, "TYPE") => kind = args.get(3),
        (Some(word), 4..) if is(word, "ID") => {
            // A number that no client has names none.
            let parse = |word| match int(word) {
                Ok(id) => Ok(ClientId(id.max(0) as u64)),
                Err(_) => Err(Fault::text("ERR Invalid client ID")),
            };
            ids = Some(args.iter().skip(3).map(parse).collect::<Result<_, _>>()?);
        }
        _ => return Err(Fault::Syntax),
    }
    let mut clients: Vec<&Client> = match ids {
        Some(ids) => ids.iter().filter_map(|id| call.engine.clients.get(*id)).collect(),
        None => call.engine.clients.iter().collect(),
    };
    if let Some(kind) = kind {
        let own = call.engine.clients.get(call.id).expect("its command is being done");
        is_of_type(own, kind).ok_or_else(|| unknown_type(kind))?;
        clients.retain(|client| is_of_type(client, kind) == Some(true));
    }
    clients.sort_unstable_by_key(|client| client.id);
    let lines: String = clients.iter().map(|client| line_of(call, client) + "\n").collect();
    call.out.verbatim("txt", lines.as_bytes());
    Ok(())
}

/// Which connections CLIENT KILL means.
#[derive(Default)]
struct Victims<'a> {
    id: Option<ClientId>,
    address: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    age_min_s: Option<u64>,
    spare_self: bool,
}

impl<'a> Victims<'a> {
    fn parse(call: &Call<'_>, args: Args<'a>) -> Result<Victims<'a>, Fault> {
        let mut victims = Victims { spare_self: true, ..Victims::default() };
        let words: Vec<&'a [u8]> = args.iter().skip(2).collect();
        for pair in words.chunks(2) {
            let [option, value] = *pair else { return Err(Fault::Syntax) };
            match option {
                word if is(word, "ID") => {
                    let number = int(value).ok().filter(|number| *number > 0);
                    let number =
                        number.ok_or(Fault::text("ERR client-id should be greater than 0"))?;
                    victims.id = Some(ClientId(number as u64));
                }
                word if is(word, "ADDR") => victims.address = Some(value),
                word if is(word, "LADDR") => victims.local = Some(value),
                word if is(word, "TYPE") => {
                    let own = call.engine.clients.get(call.id);
                    own.and_then(|own| is_of_type(own, value))
                        .ok_or_else(|| unknown_type(value))?;
                    victims.kind = Some(value);
                }
                word if is(word, "USER") => {
                    if !call.engine.has_user(value) {
                        let name = quoted(value);
                        return Err(Fault::text(format!("ERR No such user '{name}'")));
                    }
                    victims.user = Some(value);
                }
                word if is(word, "MAXAGE") => {
                    let age = int(value)?;
                    let age = u64::try_from(age).ok().filter(|age| *age > 0);
                    let fault = Fault::text("ERR maxage is not an integer or out of range");
                    victims.age_min_s = Some(age.ok_or(fault)?);
                }
                word if is(word, "SKIPME") => match value {
                    value if is(value, "yes") => victims.spare_self = true,
                    value if is(value, "no") => victims.spare_self = false,
                    _ => return Err(Fault::Syntax),
                },
                _ => return Err(Fault::Syntax),
            }
        }
        Ok(victims)
    }

    fn has(&self, engine: &Engine, client: &Client, own: ClientId) -> bool {
        let age = engine.keys.now().saturating_sub(client.created) / 1000;
        self.id.is_none_or(|id| client.id == id)
            && self.address.is_none_or(|address| client.peer.address.as_bytes() == address)
            && self.local.is_none_or(|local| client.peer.local.as_bytes() == local)
            && self.kind.is_none_or(|kind| is_of_type(client, kind) == Some(true))
            && self.user.is_none_or(|user| engine.is_user(client, user))
            && self.age_min_s.is_none_or(|min| age >= min)
            && !(self.spare_self && client.id == own)
    }
}

fn kill(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let by_address = args.len() == 3;
    let victims = match by_address {
        true => Victims { address: Some(&args[2]), ..Victims::default() },
        false => Victims::parse(call, args)?,
    };
    let engine = &*call.engine;
    let hit = engine.clients.iter().filter(|client| victims.has(engine, client, call.id));
    let hit: Vec<ClientId> = hit.map(|client| client.id).collect();
    hit.iter().for_each(|id| call.engine.close(*id, *id != call.id));
    match by_address {
        true if hit.is_empty() => return Err(Fault::text("ERR No such client")),
        true => call.out.ok(),
        false => call.out.int(hit.len() as i64),
    }
    Ok(())
}

fn pause(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let all = match args.get(3) {
        None => true,
        Some(mode) if is(mode, "ALL") && args.len() == 4 => true,
        Some(mode) if is(mode, "WRITE") && args.len() == 4 => false,
        _ => return Err(Fault::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let ms = timeout_ms(&args[2])?;
    call.engine.begin_pause(ms, all);
    call.out.ok();
    Ok(())
}

/// Milliseconds that a client gives for a timeout.
pub(crate) fn timeout_ms(word: &[u8]) -> Result<u64, Fault> {
    let ms = int(word).map_err(|_| Fault::text("ERR timeout is not an integer or out of range"))?;
    u64::try_from(ms).map_err(|_| Fault::text("ERR timeout is negative"))
}

fn unpause(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let now = call.now();
    if let Some(pause) = &mut call.engine.pause {
        pause.until = now;
    }
    call.out.ok();
    Ok(())
}

fn reply(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let client = call.client();
    match &args[2] {
        word if is(word, "ON") => {
            client.mute = Mute::No;
            call.out.ok();
        }
        word if is(word, "OFF") => client.mute = Mute::Yes,
        word if is(word, "SKIP") => {
            if client.mute != Mute::Yes {
                client.mute = Mute::Next;
            }
        }
        _ => return Err(Fault::Syntax),
    }
    Ok(())
}

fn on_off(word: &[u8]) -> Result<bool, Fault> {
    match word {
        word if is(word, "ON") => Ok(true),
        word if is(word, "OFF") => Ok(false),
        _ => Err(Fault::Syntax),
    }
}

fn no_evict(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    call.client().no_evict = on_off(&args[2])?;
    call.out.ok();
    Ok(())
}

fn no_touch(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    call.client().no_touch = on_off(&args[2])?;
    call.out.ok();
    Ok(())
}

fn unblock(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
    let error = match args.get(3) {
        None => None,
        Some(reason) if is(reason, "TIMEOUT") && args.len() == 4 => None,
        Some(reason) if is(reason, "ERROR") && args.len() == 4 => Some(UNBLOCKED),
        _ => {
            return Err(Fault::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
    };
    let number = int(&args[2])?;
    let id = u64::try_from(number).map(ClientId);
    let done = id.is_ok_and(|id| call.engine.give_up(id, error));
    call.out.int(i64::from(done));
    Ok(())
}
