//! What operators say to a server of Redis, as far as it has a meaning here: WAIT, ROLE, DEBUG and
//! their kin. An instance has no replicas, is durable by itself, and is ended by whoever started
//! it.

use sextant_resp::Args;

use crate::call::Call;
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::clients::timeout_ms;
use crate::commands::help::HELP;
use crate::fault::Fault;
use crate::words::{int, is};

const ADMIN: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const OPEN: Flags = Flags::NONE;
const GROUP: Group = Group::Server;

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

pub(crate) const COMMANDS: &[Spec] = &[
    row("wait", 3, Flags::NOSCRIPT, "3.0.0", "Counts replicas that have all changes.", wait),
    row("waitaof", 4, Flags::NOSCRIPT, "7.2.0", "Tells whether changes are durable.", waitaof),
    row("role", 1, Flags::NOSCRIPT.and(Flags::FAST), "2.8.12", "Tells the role.", role),
    row("replicaof", 3, ADMIN, "5.0.0", "Makes a replica, which is not done.", replicaof),
    row("slaveof", 3, ADMIN, "1.0.0", "Makes a replica, which is not done.", replicaof),
    row("failover", -1, ADMIN, "6.2.0", "Gives a replica the lead.", failover),
    row("lastsave", 1, Flags::FAST, "1.0.0", "Tells when all was durable.", lastsave),
    row("save", 1, ADMIN, "1.0.0", "Makes a snapshot.", save),
    row("bgsave", -1, ADMIN, "1.0.0", "Makes a snapshot.", save),
    row("bgrewriteaof", 1, ADMIN, "1.0.0", "Makes the log short.", bgrewriteaof),
    row("shutdown", -1, ADMIN, "1.0.0", "Ends the server, which is not done.", shutdown),
    row("lolwut", -1, Flags::READONLY.and(Flags::FAST), "5.0.0", "Tells the version.", lolwut),
    container("cluster", GROUP, "3.0.0", "Is about a cluster.", CLUSTER),
    container("debug", GROUP, "1.0.0", "Is for tests.", DEBUG),
];

const CLUSTER: &[Spec] = &[
    row("countkeysinslot", 3, OPEN, "3.0.0", "Counts keys of a slot.", no_cluster),
    row("getkeysinslot", 4, OPEN, "3.0.0", "Lists keys of a slot.", no_cluster),
    HELP,
    row("info", 2, OPEN, "3.0.0", "Tells of the cluster.", no_cluster),
    row("keyslot", 3, OPEN, "3.0.0", "Tells the slot of a key.", no_cluster),
    row("links", 2, OPEN, "7.0.0", "Lists links.", no_cluster),
    row("myid", 2, OPEN, "3.0.0", "Tells the node's name.", no_cluster),
    row("nodes", 2, OPEN, "3.0.0", "Lists nodes.", no_cluster),
    row("shards", 2, OPEN, "7.0.0", "Lists shards.", no_cluster),
    row("slots", 2, OPEN, "3.0.0", "Lists slots.", no_cluster),
];

const DEBUG: &[Spec] = &[
    row("change-repl-id", 2, ADMIN, "1.0.0", "Does nothing.", accept),
    HELP,
    row("object", 3, ADMIN, "1.0.0", "Tells how a value is kept.", object),
    row("quicklist-packed-threshold", 3, ADMIN, "1.0.0", "Does nothing.", accept),
    row("set-active-expire", 3, ADMIN, "1.0.0", "Lets keys expire unasked, or not.", active_expire),
    row("sleep", 3, ADMIN, "1.0.0", "Sleeps for no time.", sleep),
];

fn wait(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    int(&args[1])?;
    timeout_ms(&args[2])?;
    // There is no replica that could come to have anything.
    call.out.int(0);
    Ok(())
}

fn waitaof(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let range = Fault::text("ERR value is out of range, must be positive");
    let (local, replicas) = (int(&args[1])?, int(&args[2])?);
    timeout_ms(&args[3])?;
    if !(0..=1).contains(&local) || replicas < 0 {
        return Err(range);
    }
    let durable = i64::from(call.engine.journals);
    if local > durable {
        return Err(Fault::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    // The reply is not sent before what this client was told is durable.
    call.out.array(2);
    call.out.int(durable);
    call.out.int(0);
    Ok(())
}

fn role(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(3);
    call.out.bulk(b"master");
    call.out.int(0);
    call.out.array(0);
    Ok(())
}

fn replicaof(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if is(&args[1], "NO") && is(&args[2], "ONE") {
        call.out.ok();
        return Ok(());
    }
    Err(Fault::text("ERR an instance is never a replica of another"))
}

fn failover(_: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    Err(Fault::text("ERR FAILOVER requires connected replicas."))
}

fn lastsave(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let started = call.engine.started / 1000;
    call.out.int(started as i64);
    Ok(())
}

fn save(_: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    Err(Fault::text("ERR every change is durable already; snapshots are made by the operator"))
}

fn bgrewriteaof(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.simple("Background append only file rewriting started");
    Ok(())
}

fn shutdown(_: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    Err(Fault::text("ERR the server is a service of systemd, and is ended by it alone"))
}

fn lolwut(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.verbatim("txt", b"Redis ver. 7.2.0\n");
    Ok(())
}

fn no_cluster(_: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    Err(Fault::text("ERR This instance has cluster support disabled"))
}

fn accept(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.ok();
    Ok(())
}

fn sleep(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if crate::words::float(&args[2])? > 0.0 {
        return Err(Fault::text("ERR an instance does not sleep, since others share its core"));
    }
    call.out.ok();
    Ok(())
}

fn active_expire(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    call.engine.active_expire = int(&args[2])? != 0;
    call.out.ok();
    Ok(())
}

fn object(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let keys = &call.engine.keys;
    let found = keys.peek(call.db, &args[2]).ok_or(Fault::NoSuchKey)?;
    let (encoding, bytes) = (keys.encoding_name(found), keys.memory_of(found));
    let idle = keys.idle_seconds(found).unwrap_or(0);
    call.out.simple(format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{bytes} lru:{} \
         lru_seconds_idle:{idle}",
        keys.access(found)
    ));
    Ok(())
}
