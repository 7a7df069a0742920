//! An instance: its databases and its clients, and the way of a command from its words to its
//! reply.
//!
//! ```text
//!   execute ─► known? ─► right number of words? ─► may the client? ─► is there room?
//!                                                                        │
//!      reply ◄── told to those who watch, wait, subscribe ◄── done ◄─────┴─► or queued by MULTI
//! ```
//!
//! There is no I/O here. Whoever owns an engine gives it time and words, sends what is in the
//! outputs, and gives the journal to a log. What a reply tells may not be durable yet: each comes
//! with the number of the journal's batch that has to be so first ([`Executed::gate`]).

use sextant_keyspace::{Event, Journal, Keyspace, Type};
use sextant_resp::{Args, OwnedArgs};

use crate::blocking::{Blocking, Waiting};
use crate::call::{Call, Caller};
use crate::client::{Client, ClientId, Clients, Peer};
use crate::command::{Flags, Spec, Table};
use crate::commands;
use crate::fault::Fault;
use crate::info::CommandInfo;
use crate::notify::{Class, Notices};
use crate::output::Output;
use crate::words::quoted;

/// What an instance is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Secret from clients, and different at each start.
    pub seed: u64,
    /// Databases.
    pub databases: usize,
    /// Whether changes are noted for a log.
    pub journal: bool,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Executed {
    /// The batch of the journal that has to be durable before anything that waits for this client
    /// is sent; zero if none has to be.
    pub gate: u64,
    /// What the client does next.
    pub next: Next,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its next command may be executed.
    Ready,
    /// It waits: none may be until [`Engine::is_waiting`] says otherwise.
    Waiting,
    /// The connection ends once what waits for it was sent.
    Close,
}

/// Whether changes can be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Yes.
    #[default]
    Enough,
    /// The log's room is used up: commands that write are refused.
    Full,
    /// The log is damaged, or the disk has failed.
    ReadOnly,
}

/// What was counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Commands done.
    pub commands: u64,
    /// Connections made.
    pub connections: u64,
    /// Keys that were looked for and found.
    pub hits: u64,
    /// Keys that were looked for in vain.
    pub misses: u64,
    /// Keys whose time had come.
    pub expired: u64,
}

/// An instance.
pub struct Engine {
    pub(crate) keys: Keyspace,
    pub(crate) clients: Clients,
    pub(crate) blocking: Blocking,
    pub(crate) notices: Notices,
    pub(crate) table: Table,
    pub(crate) counts: Counts,
    pub(crate) room: Room,
    pub(crate) started: u64,
    /// Clients that watch keys.
    pub(crate) watchers: usize,
}

impl Engine {
    /// An instance without keys and clients.
    pub fn new(options: &Options) -> Engine {
        let journal = if options.journal { Journal::default() } else { Journal::off() };
        Engine {
            keys: Keyspace::new(options.seed, options.databases, journal),
            clients: Clients::default(),
            blocking: Blocking::default(),
            notices: Notices::default(),
            table: Table::new(commands::FAMILIES),
            counts: Counts::default(),
            room: Room::default(),
            started: 0,
            watchers: 0,
        }
    }

    /// All commands that an instance knows, each followed by its subcommands.
    pub fn commands() -> impl Iterator<Item = CommandInfo> {
        CommandInfo::all()
    }

    /// The databases: for whoever reads and writes the log.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        &mut self.keys
    }

    /// It is now this many milliseconds since 1970.
    pub fn set_now(&mut self, unix_ms: u64) {
        self.keys.set_now(unix_ms);
        if self.started == 0 {
            self.started = unix_ms;
        }
    }

    /// Says whether changes can be kept.
    pub fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Clients.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// A client has connected.
    pub fn connect(&mut self, peer: Peer) -> ClientId {
        self.counts.connections += 1;
        self.clients.add(peer, self.keys.now())
    }

    /// A client's connection has ended.
    pub fn disconnect(&mut self, id: ClientId) {
        let Some(mut client) = self.clients.remove(id) else { return };
        if let Some(waiting) = client.waiting.take() {
            self.blocking.remove(id, &waiting);
        }
        if !client.watched.is_empty() {
            self.watchers -= 1;
        }
        self.watch_if_needed();
    }

    /// What waits to be sent to a client.
    pub fn output(&mut self, id: ClientId) -> Option<&mut Output> {
        self.clients.get_mut(id).map(|client| &mut client.output)
    }

    /// The batch of the journal that has to be durable before anything is sent to a client.
    pub fn gate(&self, id: ClientId) -> u64 {
        self.clients.get(id).map_or(0, |client| client.gate)
    }

    /// Where a client comes from, once that is known.
    pub fn set_address(&mut self, id: ClientId, address: String) {
        if let Some(client) = self.clients.get_mut(id) {
            client.peer.address = address;
        }
    }

    /// Whether a client waits for a key.
    pub fn is_waiting(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|client| client.waiting.is_some())
    }

    /// The next client that was told something although it did not just ask, with what
    /// [`Engine::execute`] would have returned.
    pub fn next_told(&mut self) -> Option<(ClientId, Executed)> {
        let id = self.clients.next_told()?;
        let client = self.clients.get_mut(id);
        let (gate, closing, waits) = client.map_or((0, true, false), |client| {
            (client.gate, client.closing, client.waiting.is_some())
        });
        let next = match (closing, waits) {
            (true, _) => Next::Close,
            (_, true) => Next::Waiting,
            _ => Next::Ready,
        };
        Some((id, Executed { gate, next }))
    }

    /// Does a command of a client, whose reply is then in its output.
    pub fn execute(&mut self, id: ClientId, args: Args<'_>) -> Executed {
        let Some(client) = self.clients.get_mut(id) else {
            return Executed { gate: 0, next: Next::Close };
        };
        client.last_active = self.keys.now();
        self.counts.commands += 1;
        match self.admit(id, args) {
            Ok(Admitted::Now(spec)) => self.run(id, spec, args),
            Ok(Admitted::Queue) => self.queue(id, args),
            Err(fault) => self.refuse(id, &fault),
        }
        let gate = self.keys.take_seen();
        let client = self.clients.get_mut(id).expect("a client ends by `disconnect` alone");
        client.gate = client.gate.max(gate);
        let next = match (client.closing, &client.waiting) {
            (true, _) => Next::Close,
            (_, Some(_)) => Next::Waiting,
            _ => Next::Ready,
        };
        Executed { gate: client.gate, next }
    }

    /// A command that is whole and allowed now, or why not.
    fn admit(&mut self, id: ClientId, args: Args<'_>) -> Result<Admitted, Fault> {
        let spec = self.find(args)?;
        let client = self.clients.get_mut(id).expect("it was looked at a line ago");
        if client.multi.is_some() && !spec.flags.has(Flags::NO_MULTI) {
            self.check_room(spec)?;
            return Ok(Admitted::Queue);
        }
        self.check_room(spec)?;
        Ok(Admitted::Now(spec))
    }

    /// Finds the command that the first words name.
    pub(crate) fn find(&self, args: Args<'_>) -> Result<&'static Spec, Fault> {
        let Some((_, spec)) = self.table.find(&args[0]) else { return Err(unknown(args)) };
        if spec.subs.is_empty() {
            return match spec.takes(args.len()) {
                true => Ok(spec),
                false => Err(Fault::arity(spec.name)),
            };
        }
        let Some(sub) = args.get(1) else { return Err(Fault::arity(spec.name)) };
        let found = spec.subs.iter().find(|known| sub.eq_ignore_ascii_case(known.name.as_bytes()));
        let Some(found) = found else {
            let (sub, upper) = (quoted(sub), spec.name.to_uppercase());
            return Err(Fault::text(format!("ERR unknown subcommand '{sub}'. Try {upper} HELP.")));
        };
        match found.takes(args.len()) {
            true => Ok(found),
            false => Err(Fault::arity(&format!("{}|{}", spec.name, found.name))),
        }
    }

    fn check_room(&self, spec: &Spec) -> Result<(), Fault> {
        if !spec.flags.has(Flags::WRITE) {
            return Ok(());
        }
        match self.room {
            Room::Enough => Ok(()),
            Room::Full => Err(Fault::text(
                "MISCONF the disk, or this instance's share of it, is full: nothing can be written",
            )),
            Room::ReadOnly => {
                Err(Fault::text("MISCONF the log cannot be written any more: see the daemon's log"))
            }
        }
    }

    /// Answers with a fault, and spoils a transaction that is being queued.
    fn refuse(&mut self, id: ClientId, fault: &Fault) {
        let client = self.clients.get_mut(id).expect("a client is there while its command is done");
        if let Some(multi) = &mut client.multi {
            multi.refused = true;
        }
        client.output.error(fault.line());
    }

    fn queue(&mut self, id: ClientId, args: Args<'_>) {
        let client = self.clients.get_mut(id).expect("a client is there while its command is done");
        let multi = client.multi.as_mut().expect("it was admitted to be queued");
        multi.bytes += args.bytes();
        multi.commands.push(args.to_owned());
        client.output.simple("QUEUED");
    }

    /// Does a command whose reply goes to its client, or makes the client wait.
    fn run(&mut self, id: ClientId, spec: &'static Spec, args: Args<'_>) {
        self.run_as(id, spec, args, Caller::Client);
        self.settle();
    }

    fn run_as(&mut self, id: ClientId, spec: &'static Spec, args: Args<'_>, caller: Caller) {
        let client = self.clients.get_mut(id).expect("a client is there while its command is done");
        client.last_command = spec.name;
        let meanwhile = Output::new(client.output.resp3);
        let (db, out) = (client.db, std::mem::replace(&mut client.output, meanwhile));
        let mut call = Call { engine: self, id, db, out, caller, spec, wait: None };
        perform(&mut call, args);
        let Call { wait, mut out, .. } = call;
        let now = self.keys.now();
        let client = self.clients.get_mut(id).expect("a client ends by `disconnect` alone");
        // Something may have been told to it meanwhile.
        if !client.output.is_empty() {
            out.append(&mut client.output);
        }
        client.output = out;
        if let Some(wait) = wait {
            let waiting = Waiting { wait, command: args.to_owned(), db, since: now };
            self.blocking.add(id, &waiting);
            client.waiting = Some(waiting);
            self.watch_if_needed();
        }
    }

    /// The databases tell which keys change while anybody cares.
    pub(crate) fn watch_if_needed(&mut self) {
        self.keys.set_watching(!self.blocking.is_empty() || self.watchers > 0);
    }

    /// What a command's changes lead to: those who watch, and those who wait.
    pub(crate) fn settle(&mut self) {
        if self.keys.has_events() {
            self.tell_events();
        }
        while self.keys.has_touched() {
            let touched = self.keys.take_touched();
            for (db, key) in touched {
                if self.watchers > 0 {
                    self.mark_watchers(db, &key);
                }
                if !self.blocking.is_empty() {
                    self.wake(db, &key);
                }
            }
        }
        if !self.notices.waiting.is_empty() {
            self.tell_notices();
        }
    }

    fn tell_events(&mut self) {
        for event in self.keys.take_events() {
            let Event::Expired { db, key } = event;
            self.counts.expired += 1;
            self.notices.note(Class::EXPIRED, "expired", db, &key);
        }
    }

    fn tell_notices(&mut self) {
        self.notices.waiting.clear();
    }

    fn mark_watchers(&mut self, db: usize, key: &[u8]) {
        for client in self.clients.iter_mut() {
            let is_it = |(of, name): &(usize, Vec<u8>)| *of == db && name == key;
            client.watched_changed |= client.watched.iter().any(is_it);
        }
    }

    /// Does the commands again that wait for a key, the one that has waited longest first.
    fn wake(&mut self, db: usize, key: &[u8]) {
        for id in self.blocking.waiting_for(db, key) {
            let kind = self.keys.peek(db, key).map(|found| self.keys.type_of(found));
            let Some(client) = self.clients.get_mut(id) else { continue };
            let Some(waiting) = &client.waiting else { continue };
            if !is_worth_a_look(waiting, kind) {
                continue;
            }
            let waiting = client.waiting.take().expect("it was looked at a line ago");
            self.blocking.remove(id, &waiting);
            let since = waiting.since;
            let Ok(spec) = self.find(waiting.command.args()) else { continue };
            let db = std::mem::replace(&mut self.client_mut(id).db, waiting.db);
            self.run_as(id, spec, waiting.command.args(), Caller::Woken);
            let seen = self.keys.take_seen();
            let client = self.client_mut(id);
            client.db = db;
            client.gate = client.gate.max(seen);
            match &mut client.waiting {
                Some(again) => again.since = since,
                None => self.clients.tell(id),
            }
        }
        if self.blocking.is_empty() {
            self.watch_if_needed();
        }
    }

    pub(crate) fn client_mut(&mut self, id: ClientId) -> &mut Client {
        self.clients.get_mut(id).expect("a client is there while its command is done")
    }

    /// Ends a client's waiting, with a reply of its own kind or another.
    pub(crate) fn give_up(&mut self, id: ClientId, reply: Option<&str>) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let Some(waiting) = client.waiting.take() else { return false };
        match reply {
            Some(error) => client.output.error(error),
            None => (waiting.wait.give_up)(&mut client.output),
        }
        self.blocking.remove(id, &waiting);
        self.clients.tell(id);
        self.watch_if_needed();
        true
    }

    /// Does what is due: clients that give up, keys whose time has come, memory that is to be
    /// freed; a little of each. Returns whether there is more to do at once.
    pub fn tick(&mut self) -> bool {
        const LIMIT: usize = 64;
        let now = self.keys.now();
        for _ in 0..LIMIT {
            let Some(id) = self.blocking.overdue(now) else { break };
            self.give_up(id, None);
        }
        let expire = self.keys.expire_due(LIMIT);
        let shed = self.keys.shed(LIMIT * 4);
        self.settle();
        expire || shed || self.blocking.overdue(now).is_some()
    }

    /// When [`Engine::tick`] has to be called at the latest, in milliseconds since 1970.
    pub fn deadline(&self) -> Option<u64> {
        let (expiry, waiting) = (self.keys.next_expiry(), self.blocking.next_deadline());
        expiry.into_iter().chain(waiting).min()
    }
}

/// Whether a key of this type is what a client waits for.
fn is_worth_a_look(waiting: &Waiting, kind: Option<Type>) -> bool {
    match kind {
        Some(kind) => kind == waiting.wait.kind || waiting.wait.gone_too,
        None => waiting.wait.gone_too,
    }
}

/// A command that may be done now, or has to be queued.
enum Admitted {
    Now(&'static Spec),
    Queue,
}

/// Does a command that was found and allowed; its reply, or its fault, is in `call.out`.
pub(crate) fn perform(call: &mut Call<'_>, args: Args<'_>) {
    let mark = call.out.mark();
    if let Err(fault) = (call.spec.handler)(call, args) {
        call.out.cut(mark);
        call.out.error(fault.line());
    }
}

fn unknown(args: Args<'_>) -> Fault {
    const BYTES_MAX: usize = 128;
    let mut text =
        format!("ERR unknown command '{}', with args beginning with: ", quoted(&args[0]));
    let begin = text.len();
    for word in args.iter().skip(1) {
        if text.len() - begin >= BYTES_MAX {
            break;
        }
        let left = BYTES_MAX - (text.len() - begin);
        text.push_str(&format!("'{}' ", quoted(&word[..word.len().min(left)])));
    }
    Fault::text(text)
}

/// A queued command, for EXEC.
pub(crate) fn run_queued(call: &mut Call<'_>, command: &OwnedArgs) {
    let args = command.args();
    match call.engine.find(args) {
        Ok(spec) => {
            let outer = std::mem::replace(&mut call.spec, spec);
            call.db = call.client().db;
            perform(call, args);
            call.spec = outer;
        }
        Err(fault) => call.out.error(fault.line()),
    }
}
