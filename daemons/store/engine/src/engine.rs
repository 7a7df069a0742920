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

use crate::acl::Acl;
use crate::admission::{Admitted, Pause};
use crate::blocking::{Blocking, Waiting};
use crate::call::{Call, Caller};
use crate::client::{Client, ClientId, Clients, Multi, Mute, Peer};
use crate::command::{Flags, Known, Spec, Table};
use crate::commands;
use crate::eviction::Eviction;
use crate::fault::Fault;
use crate::info::CommandInfo;
use crate::notify::{Class, Notices};
use crate::output::Output;
use crate::pubsub::{PubSub, Space};
use crate::settings::Settings;
use crate::stats::{Stats, monitor_line};
use crate::tracking::Tracked;
use crate::words::{is, quoted};

/// Bytes that may wait for a client that sees all commands.
const MONITOR_BYTES_MAX: u64 = 64 << 20;

/// What an instance is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Secret from clients, and different at each start.
    pub seed: u64,
    /// Databases.
    pub databases: usize,
    /// Whether changes are noted for a log.
    pub journal: bool,
    /// Nanoseconds since some beginning, which never get fewer: what commands are timed by.
    pub clock: fn() -> u64,
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
    /// Keys that had to go when memory was short.
    pub evicted: u64,
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
    pub(crate) pubsub: PubSub,
    pub(crate) tracked: Tracked,
    pub(crate) pause: Option<Pause>,
    /// The client whose command is being done.
    pub(crate) current: Option<ClientId>,
    pub(crate) stats: Stats,
    pub(crate) settings: Settings,
    pub(crate) acl: Acl,
    pub(crate) eviction: Eviction,
    /// Clients that see all commands.
    pub(crate) monitors: Vec<ClientId>,
    /// Forty digits that no other start has.
    pub(crate) run_id: String,
    /// Changes are noted for a log.
    pub(crate) journals: bool,
    /// Keys expire though nobody looks.
    pub(crate) active_expire: bool,
}

impl Engine {
    /// An instance without keys and clients.
    pub fn new(options: &Options) -> Engine {
        let journal = if options.journal { Journal::default() } else { Journal::off() };
        let mut random = fastrand::Rng::with_seed(options.seed ^ 0x5851_f42d_4c95_7f2d);
        let run_id: String = (0..40).map(|_| random.digit(16).to_ascii_lowercase()).collect();
        let mut engine = Engine {
            keys: Keyspace::new(options.seed, options.databases, journal),
            clients: Clients::default(),
            blocking: Blocking::default(),
            notices: Notices::default(),
            table: Table::new(commands::FAMILIES),
            counts: Counts::default(),
            room: Room::default(),
            started: 0,
            watchers: 0,
            pubsub: PubSub::default(),
            tracked: Tracked::default(),
            pause: None,
            current: None,
            stats: Stats::new(options.clock),
            settings: Settings::default(),
            acl: Acl::default(),
            eviction: Eviction::default(),
            monitors: Vec::new(),
            run_id,
            journals: options.journal,
            active_expire: true,
        };
        let databases = options.databases.to_string();
        engine.configure("databases", &databases).expect("any text is taken");
        engine
    }

    /// The log was read: users, and settings that were to be kept, are made of what it has.
    pub fn restore(&mut self) {
        self.restore_settings();
        self.restore_users();
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
        let id = self.clients.add(peer, self.keys.now());
        self.client_mut(id).user = self.acl.anybody();
        self.guard(id);
        id
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
        if client.monitors {
            self.monitors.retain(|other| *other != id);
        }
        if let Some(own) = client.subscriptions.take() {
            self.pubsub.remove(id, *own);
        }
        if let Some(own) = client.tracking.take() {
            self.tracked.stop(id, &own);
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
        self.clients.get(id).is_some_and(Client::waits)
    }

    /// The next client that was told something although it did not just ask, with what
    /// [`Engine::execute`] would have returned.
    pub fn next_told(&mut self) -> Option<(ClientId, Executed)> {
        let id = self.clients.next_told()?;
        let client = self.clients.get_mut(id);
        let (gate, closing, waits) =
            client.map_or((0, true, false), |client| (client.gate, client.closing, client.waits()));
        let next = match (closing, waits) {
            (true, _) => Next::Close,
            (_, true) => Next::Waiting,
            _ => Next::Ready,
        };
        Some((id, Executed { gate, next }))
    }

    /// Words of a client that will soon be executed name this key: asks for the memory of its place
    /// in the index. [`Engine::prefetch_value`] takes what this returns.
    #[inline]
    pub fn prefetch(&self, id: ClientId, key: &[u8]) -> (usize, u64) {
        let db = self.clients.get(id).map_or(0, |client| client.db);
        (db, self.keys.prefetch(db, key))
    }

    /// Asks for the memory of a key that was named a moment ago.
    #[inline]
    pub fn prefetch_value(&self, (db, hash): (usize, u64)) {
        self.keys.prefetch_value(db, hash);
    }

    /// Does a command of a client, whose reply is then in its output.
    pub fn execute(&mut self, id: ClientId, args: Args<'_>) -> Executed {
        let Some(client) = self.clients.get_mut(id) else {
            return Executed { gate: 0, next: Next::Close };
        };
        client.last_active = self.keys.now();
        let (mute, mark) = (client.mute, client.output.mark());
        self.counts.commands += 1;
        match self.admit(id, args) {
            Ok(Admitted::Now(known)) => self.run(id, known, args),
            Ok(Admitted::Queue(known)) => self.queue(id, known, args),
            Ok(Admitted::Postponed) => self.postpone(id, args),
            Err(fault) if is(&args[0], "exec") => self.abort(id, &fault),
            Err(fault) => self.refuse(id, &fault),
        }
        let gate = self.keys.take_seen();
        let client = self.clients.get_mut(id).expect("a client ends by `disconnect` alone");
        client.gate = client.gate.max(gate);
        if mute != Mute::No && client.mute != Mute::No {
            client.output.cut(mark);
            if mute == Mute::Next {
                client.mute = Mute::No;
            }
        }
        let next = match (client.closing, client.waits()) {
            (true, _) => Next::Close,
            (_, true) => Next::Waiting,
            _ => Next::Ready,
        };
        Executed { gate: client.gate, next }
    }

    /// Finds the command that the first words name.
    pub(crate) fn find(&self, args: Args<'_>) -> Result<Known, Fault> {
        let Some(known) = self.table.find(&args[0]) else { return Err(unknown(args)) };
        let spec = known.spec;
        if spec.subs.is_empty() {
            return match spec.takes(args.len()) {
                true => Ok(known),
                false => Err(Fault::arity(spec.name)),
            };
        }
        let Some(sub) = args.get(1) else {
            return if spec.takes(1) { Ok(known) } else { Err(Fault::arity(spec.name)) };
        };
        let Some(found) = known.sub(sub) else {
            let (sub, upper) = (quoted(sub), spec.name.to_uppercase());
            return Err(Fault::text(format!("ERR unknown subcommand '{sub}'. Try {upper} HELP.")));
        };
        match found.spec.takes(args.len()) {
            true => Ok(found),
            false => Err(Fault::arity(&format!("{}|{}", spec.name, found.spec.name))),
        }
    }

    pub(crate) fn check_room(&self, spec: &Spec) -> Result<(), Fault> {
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
        self.stats.error(fault.line());
    }

    /// Answers an EXEC that is refused itself: its transaction is over.
    fn abort(&mut self, id: ClientId, fault: &Fault) {
        self.forget_transaction(id);
        let reason = fault.line();
        let reason = reason.strip_prefix("ERR ").unwrap_or(reason);
        let text = format!("EXECABORT Transaction discarded because of: {reason}");
        self.client_mut(id).output.error(text);
    }

    /// Ends a client's transaction, and its watching; returns what was queued.
    pub(crate) fn forget_transaction(&mut self, id: ClientId) -> Option<Multi> {
        self.forget_watched(id);
        self.client_mut(id).multi.take()
    }

    /// Ends a client's watching.
    pub(crate) fn forget_watched(&mut self, id: ClientId) {
        let client = self.client_mut(id);
        client.watched_changed = false;
        if !std::mem::take(&mut client.watched).is_empty() {
            self.watchers -= 1;
            self.watch_if_needed();
        }
    }

    fn queue(&mut self, id: ClientId, known: Known, args: Args<'_>) {
        let client = self.clients.get_mut(id).expect("a client is there while its command is done");
        let multi = client.multi.as_mut().expect("it was admitted to be queued");
        multi.bytes += args.bytes();
        multi.flags |= known.spec.flags.0;
        multi.commands.push(args.to_owned());
        client.output.simple("QUEUED");
    }

    /// Does a command whose reply goes to its client, or makes the client wait.
    fn run(&mut self, id: ClientId, known: Known, args: Args<'_>) {
        self.current = Some(id);
        self.run_as(id, known, args, Caller::Client);
        self.settle();
        self.current = None;
    }

    fn run_as(&mut self, id: ClientId, known: Known, args: Args<'_>, caller: Caller) {
        let client = self.clients.get_mut(id).expect("a client is there while its command is done");
        client.last_command = Some(known.number);
        let Known { spec, number } = known;
        self.keys.set_untouched(client.no_touch);
        let meanwhile = Output::new(client.output.resp3);
        let (db, out) = (client.db, std::mem::replace(&mut client.output, meanwhile));
        let mut call =
            Call { engine: self, id, db, out, caller, spec, number, wait: None, again: None };
        perform(&mut call, args);
        let Call { wait, again, mut out, .. } = call;
        let now = self.keys.now();
        let client = self.clients.get_mut(id).expect("a client ends by `disconnect` alone");
        if let Some(own) = client.tracking.as_mut().filter(|_| client.multi.is_none())
            && known.spec.name != "caching"
        {
            own.caching = None;
        }
        // Something may have been told to it meanwhile.
        if !client.output.is_empty() {
            out.append(&mut client.output);
        }
        client.output = out;
        if let Some(wait) = wait {
            let command = again.unwrap_or_else(|| args.to_owned());
            let waiting = Waiting { wait, command, db, since: now };
            self.blocking.add(id, &waiting);
            client.waiting = Some(waiting);
            self.watch_if_needed();
        }
    }

    /// The databases tell which keys change while anybody cares.
    pub(crate) fn watch_if_needed(&mut self) {
        let anybody = !self.blocking.is_empty() || self.watchers > 0 || !self.tracked.is_off();
        self.keys.set_watching(anybody);
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
                if !self.tracked.is_off() {
                    self.tracked.changed(key.clone(), self.current);
                }
                if !self.blocking.is_empty() {
                    self.wake(db, &key);
                }
            }
        }
        if self.tracked.has_news() {
            self.tell_tracking();
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
        for notice in std::mem::take(&mut self.notices.waiting) {
            let (db, event) = (notice.db, notice.event.as_bytes());
            if self.notices.by_key() {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), &notice.key].concat();
                self.publish(Space::Channels, &channel, event);
            }
            if self.notices.by_event() {
                let channel = [format!("__keyevent@{db}__:").as_bytes(), event].concat();
                self.publish(Space::Channels, &channel, &notice.key);
            }
        }
    }

    /// Sends a message to all who hear a channel, once what was seen until now is durable; returns
    /// to how many.
    pub(crate) fn publish(&mut self, space: Space, channel: &[u8], message: &[u8]) -> usize {
        let (now, gate) = (self.keys.now(), self.keys.seen());
        self.pubsub.publish(&mut self.clients, now, gate, space, channel, message)
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
            let (since, deadline) = (waiting.since, waiting.wait.deadline);
            let Ok(known) = self.find(waiting.command.args()) else { continue };
            let db = std::mem::replace(&mut self.client_mut(id).db, waiting.db);
            self.run_as(id, known, waiting.command.args(), Caller::Woken);
            // Whoever did the command that woke this one has seen as much, and is yet to be told.
            let seen = self.keys.seen();
            let client = self.clients.get_mut(id).expect("it was there a line ago");
            client.db = db;
            client.gate = client.gate.max(seen);
            match &mut client.waiting {
                Some(again) => {
                    again.since = since;
                    // To have been woken for nothing is no reason to wait for longer.
                    self.blocking.set_deadline(id, again, deadline);
                }
                None => self.clients.tell(id),
            }
        }
        if self.blocking.is_empty() {
            self.watch_if_needed();
        }
    }

    /// Takes the time of a command that is done, and keeps it if that was long.
    fn timed(&mut self, id: ClientId, known: Known, args: Args<'_>, began: u64) {
        let now = self.keys.now();
        let micros = self.stats.end(known, began, now);
        if self.stats.is_slow(known, micros)
            && let Some(client) = self.clients.get(id)
        {
            let (address, name) = (client.peer.address.clone(), client.name.clone());
            self.stats.keep_slow(args, micros, now, address, name);
        }
    }

    /// Shows a command to those who want to see all.
    fn show(&mut self, id: ClientId, db: usize, known: Known, args: Args<'_>) {
        if known.spec.flags.has(Flags::ADMIN.and(Flags::SECRET)) {
            return;
        }
        let address = self.clients.get(id).map_or("", |client| client.peer.address.as_str());
        let line = monitor_line(self.keys.now(), db, address, args);
        for id in &self.monitors {
            if let Some(client) = self.clients.get_mut(*id) {
                client.output.simple(&line);
                if client.output.len() as u64 > MONITOR_BYTES_MAX {
                    client.output.clear();
                    client.closing = true;
                }
            }
            self.clients.tell(*id);
        }
    }

    /// Ends a client's connection: at once, or once what waits for it was sent.
    pub(crate) fn close(&mut self, id: ClientId, at_once: bool) {
        let client = self.client_mut(id);
        client.closing = true;
        if at_once {
            client.output.clear();
        }
        self.clients.tell(id);
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
        let expire = self.active_expire && self.keys.expire_due(LIMIT);
        self.stats.memory_peak = self.stats.memory_peak.max(self.keys.memory_bytes());
        self.stats.count_ops(now, self.counts.commands);
        let evict = self.is_over_memory() && self.evict() && self.is_over_memory();
        let shed = self.keys.shed(LIMIT * 4);
        self.end_pause();
        self.settle();
        expire || shed || evict || self.blocking.overdue(now).is_some()
    }

    /// When [`Engine::tick`] has to be called at the latest, in milliseconds since 1970.
    pub fn deadline(&self) -> Option<u64> {
        let (expiry, waiting) =
            (self.keys.next_expiry().filter(|_| self.active_expire), self.blocking.next_deadline());
        let pause = self.pause.as_ref().map(|pause| pause.until);
        expiry.into_iter().chain(waiting).chain(pause).min()
    }
}

/// Whether a key of this type is what a client waits for.
fn is_worth_a_look(waiting: &Waiting, kind: Option<Type>) -> bool {
    match kind {
        Some(kind) => kind == waiting.wait.kind || waiting.wait.gone_too,
        None => waiting.wait.gone_too,
    }
}

/// Does a command that was found and allowed; its reply, or its fault, is in `call.out`.
pub(crate) fn perform(call: &mut Call<'_>, args: Args<'_>) {
    let (mark, known) = (call.out.mark(), Known { spec: call.spec, number: call.number });
    let began = call.engine.stats.begin(known);
    if !call.engine.monitors.is_empty() {
        call.engine.show(call.id, call.db, known, args);
    }
    if let Err(fault) = (call.spec.handler)(call, args) {
        call.out.cut(mark);
        call.out.error(fault.line());
        call.engine.stats.error(fault.line());
        call.engine.stats.failed(known.number);
    }
    if !call.engine.tracked.is_off() {
        call.engine.remember_reads(call.id, known.spec, args);
    }
    match began {
        _ if call.wait.is_some() => call.engine.stats.unbegin(known),
        Some(began) => call.engine.timed(call.id, known, args, began),
        None => {}
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
        Ok(known @ Known { spec, number }) => {
            let guarded = call.client().guarded;
            let permitted =
                if guarded { call.engine.permit(call.id, known, args, "multi") } else { Ok(()) };
            if let Err(fault) = permitted {
                call.out.error(fault.line());
                return;
            }
            let outer = (call.spec, call.number);
            (call.spec, call.number) = (spec, number);
            call.db = call.client().db;
            perform(call, args);
            (call.spec, call.number) = outer;
        }
        Err(fault) => call.out.error(fault.line()),
    }
}
