//! Who a client is, and what users may: AUTH, ACL.

use std::sync::Arc;

use sextant_resp::Args;

use crate::acl::{self, Category, DEFAULT, Selector, USERS_MAX, User, merge, to_hex};
use crate::call::Call;
use crate::client::ClientId;
use crate::command::{Flags, Group, Handler, Keys, Spec, container, spec};
use crate::commands::help::HELP;
use crate::engine::Room;
use crate::fault::Fault;
use crate::words::{int, is, quoted};

const OPEN: Flags = Flags::NOSCRIPT;
const ADMIN: Flags = Flags::NOSCRIPT.and(Flags::ADMIN);
const SECRET: Flags = ADMIN.and(Flags::SECRET);

const fn row(
    name: &'static str,
    arity: i32,
    flags: Flags,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, flags, Keys::None, Group::Server, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[
    spec(
        "auth",
        -2,
        Flags::NOSCRIPT
            .and(Flags::FAST)
            .and(Flags::NO_AUTH)
            .and(Flags::ALLOW_BUSY)
            .and(Flags::SECRET),
        Keys::None,
        Group::Connection,
        "1.0.0",
        "Tells who the client is.",
        auth,
    ),
    container("acl", Group::Server, "6.0.0", "Is about users.", ACL),
];

const ACL: &[Spec] = &[
    row("cat", -2, OPEN, "6.0.0", "Lists categories, or commands of one.", cat),
    row("deluser", -3, SECRET, "6.0.0", "Deletes users.", deluser),
    row("dryrun", -4, ADMIN, "7.0.0", "Tells whether a user may do something.", dryrun),
    row("genpass", -2, OPEN, "6.0.0", "Makes a password.", genpass),
    row("getuser", 3, SECRET, "6.0.0", "Tells what a user may.", getuser),
    HELP,
    row("list", 2, SECRET, "6.0.0", "Lists users as the rules that make them.", list),
    row("load", 2, ADMIN, "6.0.0", "Does nothing: users are as the log has them.", accept),
    row("log", -2, ADMIN, "6.0.0", "Tells what was refused.", log),
    row("save", 2, ADMIN, "6.0.0", "Does nothing: users are in the log.", accept),
    row("setuser", -3, SECRET, "6.0.0", "Makes or changes a user.", setuser),
    row("users", 2, ADMIN, "6.0.0", "Lists users by name.", users),
    row("whoami", 2, OPEN, "6.0.0", "Tells which user the client is.", whoami),
];

fn auth(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (name, password) = match args.len() {
        2 => {
            let user = call.engine.acl.user(DEFAULT).expect("it is never deleted");
            if user.nopass {
                return Err(Fault::text(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                ));
            }
            (DEFAULT, &args[1])
        }
        3 => (&args[1], &args[2]),
        _ => return Err(Fault::Syntax),
    };
    call.engine.authenticate(call.id, name, password, "AUTH")?;
    call.out.ok();
    Ok(())
}

fn accept(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.ok();
    Ok(())
}

fn whoami(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let client = call.engine.clients.get(call.id).expect("its command is being done");
    let name = call.engine.user_name(client).to_vec();
    call.out.bulk(&name);
    Ok(())
}

fn users(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(call.engine.acl.users.len());
    call.engine.acl.users.keys().for_each(|name| call.out.bulk(name));
    Ok(())
}

fn list(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(call.engine.acl.users.len());
    for (name, user) in &call.engine.acl.users {
        call.out.bulk_parts(&[b"user ", name, b" ", user.describe().as_bytes()]);
    }
    Ok(())
}

fn getuser(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let Some(user) = call.engine.acl.user(&args[2]) else {
        call.out.null();
        return Ok(());
    };
    let out = &mut call.out;
    out.map(6);
    out.bulk(b"flags");
    let flags = user.flags();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"passwords");
    out.array(user.passwords.len());
    user.passwords.iter().for_each(|hash| out.bulk(to_hex(hash).as_bytes()));
    let tell = |out: &mut crate::output::Output, selector: &Selector| {
        for (name, text) in [
            ("commands", selector.describe_commands()),
            ("keys", selector.describe_keys()),
            ("channels", selector.describe_channels()),
        ] {
            out.bulk(name.as_bytes());
            out.bulk(text.as_bytes());
        }
    };
    tell(out, &user.root);
    out.bulk(b"selectors");
    out.array(user.selectors.len());
    for selector in &user.selectors {
        out.map(3);
        tell(out, selector);
    }
    Ok(())
}

/// Users are kept in the log: nothing is changed that is not.
fn check_log(call: &Call<'_>) -> Result<(), Fault> {
    match call.engine.room {
        Room::Enough => Ok(()),
        _ => Err(Fault::text("MISCONF users are kept in the log, and that cannot be written now")),
    }
}

fn setuser(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_log(call)?;
    let name = &args[2];
    if name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Err(Fault::text("ERR Usernames can't contain spaces or null characters"));
    }
    let rules = merge(args.iter().skip(3)).map_err(|open| {
        let open = quoted(&open);
        Fault::text(format!("ERR Unmatched parenthesis in acl selector starting at '{open}'."))
    })?;
    let acl = &call.engine.acl;
    let known = acl.user(name).cloned();
    if known.is_none() && acl.users.len() >= USERS_MAX {
        return Err(Fault::text(format!("ERR there are {USERS_MAX} users at most")));
    }
    let fresh = || {
        let mut user = User::default();
        if call.engine.settings.get("acl-pubsub-default") == "allchannels" {
            let done = user.apply(&call.engine.table, b"allchannels");
            assert_eq!(done, Ok(()), "the rule is known");
        }
        user
    };
    let mut user = known.unwrap_or_else(fresh);
    // All rules, or none.
    for rule in &rules {
        user.apply(&call.engine.table, rule).map_err(|why| {
            let rule = quoted(rule);
            Fault::text(format!("ERR Error in ACL SETUSER modifier '{rule}': {why}"))
        })?;
    }
    call.engine.acl.users.insert(Arc::from(name), user);
    call.engine.users_changed();
    call.engine.keep_user(name);
    call.out.ok();
    Ok(())
}

fn deluser(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    check_log(call)?;
    if args.iter().skip(2).any(|name| name == DEFAULT) {
        return Err(Fault::text("ERR The 'default' user cannot be removed"));
    }
    let mut deleted = 0;
    for name in args.iter().skip(2) {
        if call.engine.acl.users.remove(name).is_none() {
            continue;
        }
        deleted += 1;
        call.engine.keep_user(name);
        let is_it = |client: &&crate::client::Client| client.user.as_deref() == Some(name);
        let gone = call.engine.clients.iter().filter(is_it).map(|client| client.id);
        let gone: Vec<ClientId> = gone.collect();
        for id in gone {
            call.engine.client_mut(id).user = None;
            call.engine.close(id, id != call.id);
        }
    }
    call.engine.users_changed();
    call.out.int(deleted);
    Ok(())
}

fn cat(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    match args.len() {
        2 => {
            call.out.array(Category::all().count());
            Category::all().for_each(|category| call.out.bulk(category.name().as_bytes()));
        }
        3 => {
            let category = Category::named(&args[2]).ok_or_else(|| {
                Fault::text(format!("ERR Unknown category '{}'", quoted(&args[2])))
            })?;
            let rows = call.engine.table.rows();
            let names =
                rows.iter().filter(|row| row.spec.subs.is_empty() && category.has(row.spec));
            let names: Vec<&str> = names.map(|row| row.name.as_str()).collect();
            call.out.array(names.len());
            names.iter().for_each(|name| call.out.bulk(name.as_bytes()));
        }
        _ => return Err(crate::commands::help::wrong_sub(args)),
    }
    Ok(())
}

fn genpass(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    const BITS_MAX: i64 = 4096;
    let bits = match args.len() {
        2 => 256,
        3 => int(&args[2])?,
        _ => return Err(crate::commands::help::wrong_sub(args)),
    };
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(Fault::text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a \
             positive number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|_| Fault::text("ERR the system has no random numbers to give"))?;
    let text = to_hex(&bytes);
    call.out.bulk(&text.as_bytes()[..digits]);
    Ok(())
}

fn dryrun(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let name = &args[2];
    let engine = &call.engine;
    let Some(user) = engine.acl.user(name) else {
        return Err(Fault::text(format!("ERR User '{}' not found", quoted(name))));
    };
    let inner = args.skip(3);
    let Some(top) = engine.table.find(&inner[0]) else {
        return Err(Fault::text(format!("ERR Command '{}' not found", quoted(&inner[0]))));
    };
    let known = engine.find(inner)?;
    let command = &engine.table.rows()[known.number as usize].name;
    match user.check(known, top.spec.name, inner) {
        Ok(()) => call.out.ok(),
        Err(denied) => {
            let text = acl::denial(&denied, name, command, true);
            call.out.bulk(text.as_bytes());
        }
    }
    Ok(())
}

fn log(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let count = match args.get(2) {
        Some(word) if is(word, "RESET") => {
            call.engine.acl.log.clear();
            call.out.ok();
            return Ok(());
        }
        Some(word) => usize::try_from(int(word)?.max(0)).unwrap_or(usize::MAX),
        None => 10,
    };
    let now = call.now();
    let (log, out) = (&call.engine.acl.log, &mut call.out);
    out.array(log.len().min(count));
    for entry in log.iter().take(count) {
        out.map(10);
        out.bulk(b"count");
        out.int(entry.count as i64);
        for (name, text) in [
            ("reason", entry.reason.as_bytes()),
            ("context", entry.context.as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            out.bulk(name.as_bytes());
            out.bulk(text);
        }
        out.bulk(b"age-seconds");
        out.double(now.saturating_sub(entry.created) as f64 / 1000.0);
        out.bulk(b"client-info");
        out.bulk(entry.client.as_bytes());
        for (name, number) in [
            ("entry-id", entry.id),
            ("timestamp-created", entry.created),
            ("timestamp-last-updated", entry.updated),
        ] {
            out.bulk(name.as_bytes());
            out.int(number as i64);
        }
    }
    Ok(())
}
