//! COMMAND: what commands there are.

use sextant_resp::Args;

use crate::acl::Category;
use crate::call::Call;
use crate::command::{Flags, Group, Handler, Keys, Known, Row, Spec, container, spec};
use crate::commands::help::HELP;
use crate::fault::Fault;
use crate::info::CommandInfo;
use crate::output::Output;
use crate::words::{is, matches};

const OPEN: Flags = Flags::NONE;
const GROUP: Group = Group::Server;

const fn row(
    name: &'static str,
    arity: i32,
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    spec(name, arity, OPEN, Keys::None, GROUP, since, summary, handler)
}

pub(crate) const COMMANDS: &[Spec] = &[Spec {
    arity: -1,
    handler: all,
    ..container("command", GROUP, "2.8.13", "Tells which commands there are.", COMMAND)
}];

const COMMAND: &[Spec] = &[
    row("count", 2, "2.8.13", "Counts commands.", count),
    row("docs", -2, "7.0.0", "Tells what commands do.", docs),
    row("getkeys", -3, "2.8.13", "Tells which words are keys.", getkeys),
    row("getkeysandflags", -3, "7.0.0", "Tells which words are keys, and why.", getkeysandflags),
    HELP,
    row("info", -2, "2.8.13", "Tells of commands.", info),
    row("list", -2, "7.0.0", "Lists commands by name.", list),
];

fn count(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    let count = call.engine.table.len();
    call.out.int(count as i64);
    Ok(())
}

fn all(call: &mut Call<'_>, _: Args<'_>) -> Result<(), Fault> {
    call.out.array(call.engine.table.len());
    for known in call.engine.table.iter() {
        describe(&mut call.out, known.spec, None);
    }
    Ok(())
}

fn info(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    if args.len() == 2 {
        return all(call, args);
    }
    call.out.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match with_container(call, name) {
            Some((known, parent)) => describe(&mut call.out, known.spec, parent),
            None => call.out.null(),
        }
    }
    Ok(())
}

/// A command by its whole name, and the one that it belongs to.
fn with_container(call: &Call<'_>, name: &[u8]) -> Option<(Known, Option<&'static Spec>)> {
    let rows = call.engine.table.rows();
    let known = call.engine.table.find_whole(name)?;
    let parent = rows[known.number as usize].parent;
    Some((known, parent.map(|parent| rows[parent as usize].spec)))
}

/// A command as COMMAND INFO tells it.
fn describe(out: &mut Output, spec: &'static Spec, container: Option<&Spec>) {
    let told = CommandInfo::of(spec, container);
    out.array(10);
    out.bulk(told.name.as_bytes());
    out.int(i64::from(told.arity));
    out.set(told.flags.len());
    told.flags.iter().for_each(|flag| out.simple(flag));
    for number in [told.first_key, told.last_key, told.key_step] {
        out.int(i64::from(number));
    }
    let categories = Category::of(spec);
    out.set(categories.len());
    categories.iter().for_each(|category| out.simple(format!("@{}", category.name())));
    out.array(0);
    key_spec(out, spec);
    out.array(spec.subs.len());
    spec.subs.iter().for_each(|sub| describe(out, sub, Some(spec)));
}

fn use_of(spec: &Spec) -> [&'static str; 2] {
    match spec.flags.has(Flags::WRITE) {
        true => ["RW", "update"],
        false => ["RO", "access"],
    }
}

/// Where a command's keys are, if that is in fixed places.
fn key_spec(out: &mut Output, spec: &Spec) {
    let Keys::At { first, last, step } = spec.keys else {
        out.set(0);
        return;
    };
    out.set(1);
    out.map(3);
    out.bulk(b"flags");
    out.set(2);
    use_of(spec).iter().for_each(|flag| out.simple(flag));
    out.bulk(b"begin_search");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.int(first as i64);
    out.bulk(b"find_keys");
    out.map(2);
    out.bulk(b"type");
    out.bulk(b"range");
    out.bulk(b"spec");
    out.map(3);
    let last = if last < 0 { i64::from(last) } else { i64::from(last) - first as i64 };
    for (name, number) in [("lastkey", last), ("keystep", step as i64), ("limit", 0)] {
        out.bulk(name.as_bytes());
        out.int(number);
    }
}

fn docs(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let mut told: Vec<(&'static Spec, Option<&'static Spec>)> = Vec::new();
    match args.len() {
        2 => told.extend(call.engine.table.iter().map(|known| (known.spec, None))),
        _ => {
            let found = args.iter().skip(2).filter_map(|name| with_container(call, name));
            told.extend(found.map(|(known, parent)| (known.spec, parent)));
        }
    }
    call.out.map(told.len());
    told.into_iter().for_each(|(spec, parent)| document(&mut call.out, spec, parent));
    Ok(())
}

fn document(out: &mut Output, spec: &'static Spec, container: Option<&Spec>) {
    let told = CommandInfo::of(spec, container);
    out.bulk(told.name.as_bytes());
    out.map(if spec.subs.is_empty() { 3 } else { 4 });
    for (name, value) in [("summary", told.summary), ("since", told.since), ("group", told.group)] {
        out.bulk(name.as_bytes());
        out.bulk(value.as_bytes());
    }
    if !spec.subs.is_empty() {
        out.bulk(b"subcommands");
        out.map(spec.subs.len());
        spec.subs.iter().for_each(|sub| document(out, sub, Some(spec)));
    }
}

/// Which commands COMMAND LIST tells.
enum Filter {
    Commands,
    /// None are of a module.
    Module,
    Category(Option<Category>),
    Pattern(Vec<u8>),
}

impl Filter {
    fn parse(args: Args<'_>) -> Result<Filter, Fault> {
        match (args.len(), args.get(2), args.get(3), args.get(4)) {
            (2, ..) => Ok(Filter::Commands),
            (5, Some(by), Some(kind), Some(value)) if is(by, "FILTERBY") => match kind {
                kind if is(kind, "MODULE") => Ok(Filter::Module),
                kind if is(kind, "ACLCAT") => Ok(Filter::Category(Category::named(value))),
                kind if is(kind, "PATTERN") => Ok(Filter::Pattern(value.to_ascii_lowercase())),
                _ => Err(Fault::Syntax),
            },
            _ => Err(Fault::Syntax),
        }
    }

    fn takes(&self, row: &Row) -> bool {
        match self {
            Filter::Commands => row.parent.is_none(),
            Filter::Module => false,
            Filter::Category(category) => category.is_some_and(|own| own.has(row.spec)),
            Filter::Pattern(pattern) => matches(pattern, row.name.as_bytes()),
        }
    }
}

fn list(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let filter = Filter::parse(args)?;
    let names = call.engine.table.rows().iter().filter(|row| filter.takes(row));
    let names: Vec<&str> = names.map(|row| row.name.as_str()).collect();
    call.out.array(names.len());
    names.iter().for_each(|name| call.out.bulk(name.as_bytes()));
    Ok(())
}

/// The command that the words behind the second are, and where its keys are.
fn keys_of(call: &Call<'_>, args: Args<'_>) -> Result<(Known, Vec<usize>), Fault> {
    let inner = args.skip(2);
    let known = call.engine.table.find(&inner[0]);
    let known = known.ok_or(Fault::text("ERR Invalid command specified"))?;
    let sub = inner.get(1).and_then(|name| known.sub(name));
    let known = sub.unwrap_or(known);
    if matches!(known.spec.keys, Keys::None) {
        return Err(Fault::text("ERR The command has no key arguments"));
    }
    if !known.spec.takes(inner.len()) {
        return Err(Fault::text("ERR Invalid number of arguments specified for command"));
    }
    let places = known.spec.keys.places(inner);
    match places.is_empty() {
        true => Err(Fault::text("ERR Invalid arguments specified for command")),
        false => Ok((known, places)),
    }
}

fn getkeys(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (_, places) = keys_of(call, args)?;
    call.out.array(places.len());
    places.iter().filter_map(|at| args.get(at + 2)).for_each(|key| call.out.bulk(key));
    Ok(())
}

fn getkeysandflags(call: &mut Call<'_>, args: Args<'_>) -> Result<(), Fault> {
    let (known, places) = keys_of(call, args)?;
    let out = &mut call.out;
    out.array(places.len());
    for key in places.iter().filter_map(|at| args.get(at + 2)) {
        out.array(2);
        out.bulk(key);
        out.set(2);
        use_of(known.spec).iter().for_each(|flag| out.simple(flag));
    }
    Ok(())
}
