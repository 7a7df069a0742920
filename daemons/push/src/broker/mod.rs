//! The broker: one core's part of the push daemon, as the ring's [`App`].
//!
//! A session lives on one core, its *home*, found by a hash of its client identifier; so sessions
//! need no lock. A connection is read where it was accepted until its CONNECT is whole, and then
//! moves home. Each core keeps what its sessions must not lose in a log of its own.
//!
//! ```text
//!  connect  ── CONNECT ──► session      publish ── match ──► deliver ──► queue, flight ──► send
//!                             │                     │           │
//!                             │                     │           └─ store: on disk first
//!                             └─ subscribe ─► filters (own), interest (other cores)
//! ```
//!
//! A message that is queued is a reference to its record. When its turn comes and it is in memory
//! no more, it is brought back from the disk (`recall`), and its session waits; others go on.
//!
//! Whatever is promised waits in one of two places. A *ticket* counts the parts of one question
//! (this core's disk, other cores) and then answers whoever asked. A *gate* of the store holds
//! what may be done only once the disk has what was said before it.

mod admit;
mod aliases;
mod burst;
mod clients;
mod compact;
mod conn;
mod connect;
mod deliver;
mod devices;
mod dispatch;
mod drain;
mod encodings;
mod enhanced;
mod expiry;
mod filters;
mod gather;
mod handed_on;
mod keepalive;
mod levels;
mod message;
mod once;
mod packets;
mod presence;
mod proxy;
mod publish;
mod push;
mod rates;
mod recall;
mod receipts;
mod records;
mod relays;
mod reports;
mod restore;
mod retained;
mod session;
mod sessions;
mod shares;
mod store;
mod subscribe;
mod subscriptions;
mod throttle;
mod tick;
mod tickets;
mod top;
mod trace;
mod transport;
mod verify;
mod wills;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_mqtt::{ReasonCode, ServerLimits, SessionLimits};
use sextant_ring::core::{App, CloseReason, ConnId, Cx};
use sextant_ring::driver::FileDone;
use sextant_ring::slot::{SlotId, Slots};
use sextant_ring::table::Table;
use sextant_ring::time::Time;
use sextant_service::notify::Heartbeat;
use tracing::error;

pub use message::Message;
#[doc(hidden)]
pub use records::fuzz_records;
pub use restore::{RestoreError, Restored, restore};
pub use transport::{Arrival, Transports};
#[doc(hidden)]
pub use transport::{IDLE_BYTES as TLS_IDLE_BYTES, TransportAlone};

use crate::auth::hasher::Hasher;
use crate::auth::{Authenticator, Verification, Verified};
use crate::bans::Bans;
use crate::config::Limits;
use crate::control::platform::Platform;
use crate::control::{Command, CoreStatus};
use crate::meters::{Closed, Meters};
use crate::presence::Audience;
use crate::sys::Level;
use crate::tls::Endpoint;
use admit::Admission;
use aliases::Aliases;
use burst::Burst;
use clients::PeerAsked;
use compact::Compaction;
use conn::{Conn, Stage};
use devices::Devices;
use drain::Drain;
use filters::Filters;
use handed_on::HandedOn;
use keepalive::Hand;
use message::Held;
use presence::{End, Presence};
use publish::Postponed;
use receipts::Receipts;
use records::{MessageRecord, Told};
use relays::Relays;
use retained::Search;
use session::Subscriber;
use sessions::Sessions;
use shares::Shares;
use store::{Gated, Store};
use throttle::Throttle;
use tickets::{Then, Ticket};
use top::Top;
use trace::Trace;
use transport::Secured;
use wills::Wills;

/// A core's share of the daemon's limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What is told to clients.
    pub server: ServerLimits,
    /// What a session may have in flight.
    pub session: SessionLimits,
    /// Connections of clients, on all cores together.
    pub connections_max: usize,
    /// Messages that wait for one session.
    pub queue_messages_max: usize,
    /// Their bytes.
    pub queue_bytes_max: usize,
    /// Bytes that wait to be sent on one connection before QoS 1 and 2 stay queued; at QoS 0 as
    /// many wait behind them, of which the oldest are dropped.
    pub send_queue_bytes_max: usize,
    /// QoS 0 messages that wait so for one connection.
    pub send_queue_messages_max: usize,
    /// Bytes of retained messages on this core.
    pub retained_bytes_max: usize,
    /// Messages that wait for one device.
    pub device_waiting_max: usize,
    /// Receipts on this core.
    pub receipts_max: usize,
    /// How long a connection may take nothing while something waits for it.
    pub slow_client_timeout: Duration,
    /// How long what clients left waits for them to come back, after a start.
    pub will_grace: Duration,
    /// Bytes of this core's log.
    pub log_bytes_max: u64,
    /// What connections may come by.
    pub transports: Transports,
    /// Whether a SUBACK of MQTT 5 says why it refuses.
    pub suback_reasons: bool,
    /// How fast clients may come and publish, all cores together.
    pub limits: Limits,
}

/// What a core needs beside its settings and its log.
pub struct Parts {
    /// Decides who may do what.
    pub auth: Arc<Authenticator>,
    /// Who is not let in.
    pub bans: Arc<Bans>,
    /// What TLS is served with, if it is.
    pub endpoint: Option<Arc<Endpoint>>,
    /// Checks passwords.
    pub hasher: Hasher,
    /// Who is told of clients that come and go.
    pub presence: Audience,
    /// The sender platform, if there is one.
    pub platform: Option<Arc<dyn Platform>>,
    /// This core's sign of life.
    pub heartbeat: Heartbeat,
    /// What the cores share.
    pub shared: Arc<Shared>,
    /// The names of the metrics.
    pub names: crate::meters::Names,
    /// This core's hand on them.
    pub metrics: sextant_service::metrics::CoreMetrics,
}

/// What the cores share: two numbers.
#[derive(Debug, Default)]
pub struct Shared {
    /// Connections of clients, on all cores together.
    pub online: AtomicUsize,
    /// Cores that serve.
    pub ready: AtomicUsize,
}

/// What a timer is for, in the upper bits of its key.
mod timer {
    pub(super) const SHIFT: u32 = 58;
    pub(super) const CONN: u64 = 1;
    pub(super) const SESSION: u64 = 2;
    pub(super) const HELD: u64 = 3;
    pub(super) const TICK: u64 = 4;
    pub(super) const LOG: u64 = 5;
    pub(super) const HAND: u64 = 6;
    pub(super) const ADMIT: u64 = 7;
    pub(super) const THROTTLE: u64 = 8;
    pub(super) const DRAIN: u64 = 9;
    pub(super) const WILLS: u64 = 10;
    pub(super) const HANDED_ON: u64 = 11;
    pub(super) const PLATFORM: u64 = 12;

    pub(super) fn key(kind: u64, number: u64) -> u64 {
        assert!(number >> SHIFT == 0, "a timer's number has 58 bits");
        kind << SHIFT | number
    }
}

type Map<K, V> = HashMap<K, V, RandomState>;

/// One core of the broker.
pub struct Broker {
    settings: Arc<Settings>,
    auth: Arc<Authenticator>,
    bans: Arc<Bans>,
    endpoint: Option<Arc<Endpoint>>,
    secured: Secured,
    hasher: Hasher,
    heartbeat: Heartbeat,
    shared: Arc<Shared>,
    /// Cores whose restored filters this one knows.
    introduced: usize,
    meters: Meters,
    admission: Admission,
    throttle: Throttle,
    traces: Vec<Trace>,
    /// What is counted while somebody looks.
    top: Option<Box<Top>>,
    /// Clients are sent elsewhere.
    drain: Option<Box<Drain>>,
    store: Store,
    conns: Table<Option<Conn>>,
    sessions: Sessions,
    next_number: u64,
    filters: Filters<Subscriber>,
    /// Which other cores have subscribers.
    interest: Filters<u16>,
    shares: Shares,
    /// Messages of groups whose members are gone.
    handed_on: VecDeque<HandedOn>,
    subscriptions: usize,
    /// Filters that other cores have yet to hear of, each with the ticket that counts them.
    announced: Map<Arc<str>, SlotId>,
    retained: BTreeMap<Rc<str>, Rc<Held>>,
    searches: Slots<Search>,
    retained_bytes: usize,
    /// Messages for devices that have no session which takes them.
    waiting: Map<Box<str>, VecDeque<Rc<Held>>>,
    receipts: Receipts,
    /// What clients leave that no session has.
    wills: Wills,
    tickets: Slots<Ticket>,
    /// Messages relayed from each core, up to this one.
    origins: Vec<Told>,
    /// Which life of this core this is.
    life: u64,
    /// Relayed messages that other cores have yet to confirm.
    relays: Relays,
    /// Those of them that were found at the start, until they are relayed again.
    to_relay: Vec<MessageRecord>,
    /// Messages of other cores that the disk has no room for yet, in their order. They are as many
    /// as clients of those cores may have unanswered.
    postponed: VecDeque<Postponed>,
    /// There was no room for the first of them when it was last tried.
    postponed_full: bool,
    /// Connections that are not read from while this core cannot keep up.
    held_back: Vec<ConnId>,
    /// Finds clients that are silent for too long.
    hand: Hand,
    /// Connections that take nothing.
    blocked: Vec<ConnId>,
    /// Who waits to be told of a client.
    peers_asked: Vec<PeerAsked>,
    /// Connections whose check waits until it is known where they come from.
    verifying: Map<u64, Verification>,
    /// What is to be told of clients that came and went.
    presence: Presence,
    /// `None` without a platform.
    devices: Option<Box<Devices>>,
    compaction: Option<Compaction>,
    /// What is published on the broker's own topics.
    levels: Arc<[Level]>,
    matches: Vec<(SlotId, Subscriber)>,
    burst: Burst,
    aliases: Aliases,
    scratch: Vec<u8>,
    settling: bool,
    told_read_only: bool,
    log_timer: Option<Time>,
    /// How far the wall clock was ahead of the monotonic one, milliseconds.
    wall_ahead_ms: Option<i64>,
}

type Context = Cx<Message>;

impl Broker {
    /// A core of the broker, with what was found in its log.
    pub fn new(settings: Settings, parts: Parts, restored: Restored, cores: usize) -> Broker {
        let Parts { auth, bans, endpoint, hasher, presence, platform, .. } = parts;
        let Parts { heartbeat, shared, names, metrics, .. } = parts;
        let receipts = Receipts::new(settings.receipts_max);
        let aliases = Aliases::new(settings.server.outbound_alias_max);
        let Restored { log, state } = restored;
        let admission = Admission::new(&settings.limits, cores);
        let throttle = Throttle::new(&settings.limits, cores);
        let mut broker = Broker {
            settings: Arc::new(settings),
            auth,
            bans,
            endpoint,
            secured: Secured::default(),
            hasher,
            heartbeat,
            shared,
            introduced: 0,
            meters: Meters::new(names, metrics),
            admission,
            throttle,
            traces: Vec::new(),
            top: None,
            drain: None,
            store: Store::new(log),
            conns: Table::default(),
            sessions: Sessions::default(),
            next_number: 1,
            filters: Filters::default(),
            interest: Filters::default(),
            shares: Shares::default(),
            handed_on: VecDeque::new(),
            subscriptions: 0,
            announced: Map::default(),
            retained: BTreeMap::new(),
            searches: Slots::new(1 << 24),
            retained_bytes: 0,
            waiting: Map::default(),
            receipts,
            wills: Wills::default(),
            tickets: Slots::new(1 << 24),
            origins: vec![Told::default(); cores],
            life: 0,
            relays: Relays::default(),
            to_relay: Vec::new(),
            postponed: VecDeque::new(),
            postponed_full: false,
            held_back: Vec::new(),
            hand: Hand::default(),
            blocked: Vec::new(),
            peers_asked: Vec::new(),
            verifying: Map::default(),
            presence: Presence::new(presence),
            devices: platform.map(|platform| Box::new(Devices::new(platform))),
            compaction: None,
            levels: Arc::default(),
            matches: Vec::new(),
            burst: Burst::default(),
            aliases,
            scratch: Vec::new(),
            settling: false,
            told_read_only: false,
            log_timer: None,
            wall_ahead_ms: None,
        };
        broker.load_state(state);
        broker
    }

    /// What this core has not finished, in words: for tests, which end with nothing left.
    #[doc(hidden)]
    pub fn unfinished(&self) -> Vec<String> {
        let devices = |what: fn(&Devices) -> usize| self.devices.as_deref().map_or(0, what);
        let counts = [
            ("connections", self.conns.iter().flatten().count()),
            ("sessions", self.sessions.len()),
            ("names of sessions", self.sessions.names()),
            ("subscriptions", self.subscriptions),
            ("filters", usize::from(!self.filters.is_empty())),
            ("filters of other cores", usize::from(!self.interest.is_empty())),
            ("groups of shared subscriptions", self.shares.len()),
            ("retained messages", self.retained.len()),
            ("bytes of retained messages", self.retained_bytes),
            ("searches for retained messages", self.searches.len()),
            ("messages asked for", self.store.recall.asked()),
            ("devices waited for", self.waiting.len()),
            ("messages held", self.store.held()),
            ("filters announced", self.announced.len()),
            ("tickets", self.tickets.len()),
            ("gates", self.store.gated()),
            ("relays", self.relays.len()),
            ("messages postponed", self.postponed.len()),
            ("connections held back", self.held_back.len()),
            ("connections blocked", self.blocked.len()),
            ("peers asked for", self.peers_asked.len()),
            ("connections that wait to be let in", self.admission.len()),
            ("connections throttled", self.throttle.len()),
            ("connections within TLS", self.secured.levels()[0]),
            ("handshakes", self.secured.levels()[1]),
            ("bytes of TLS", self.secured.levels()[2]),
            ("checks that wait for a peer", self.verifying.len()),
            ("comings and goings", self.presence.len()),
            ("wills", self.wills.len()),
            ("messages handed on", self.handed_on.len()),
            ("devices", devices(Devices::len)),
            ("dispatches", devices(|devices| devices.jobs.len())),
            ("receipts to be settled", devices(|devices| devices.unsettled.len())),
        ];
        let left = counts.iter().filter(|(_, count)| *count > 0);
        left.map(|(what, count)| format!("{count} {what}")).collect()
    }

    fn conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(conn.index())?.as_mut().filter(|held| held.id == conn)
    }

    /// Does what need not wait any more.
    fn open_gates(&mut self, cx: &mut Context) {
        self.end_burst(cx);
        while let Some(gated) = self.store.next_open() {
            match gated {
                Gated::Part(ticket) => self.part_done(cx, ticket, 0, None),
                Gated::Publish { session, conn, packet_id, dup } => {
                    self.send_started(cx, session, conn, packet_id, dup);
                }
                Gated::Release { session, conn, packet_id } => {
                    self.send_released(cx, session, conn, packet_id);
                }
                Gated::Connect(conn, principal) => {
                    self.verified(cx, conn, Verified::Admitted(principal));
                }
                Gated::Relay(relay) => self.relay(cx, *relay),
            }
        }
    }

    /// A log that takes no more appends keeps none of the promises that wait for it.
    fn refuse_gates(&mut self, cx: &mut Context) {
        let Some(reason) = self.store.log.read_only() else { return };
        if !std::mem::replace(&mut self.told_read_only, true) {
            error!(core = cx.core(), %reason, "the log takes no more appends");
        }
        let refused = Some(ReasonCode::ImplementationSpecificError);
        for gated in self.store.take_gates() {
            match gated {
                Gated::Part(ticket) => self.part_done(cx, ticket, 0, refused),
                Gated::Relay(relay) => self.refuse_relay(cx, &relay, refused),
                // It will find that the log is read-only.
                Gated::Connect(conn, principal) => {
                    self.verified(cx, conn, Verified::Admitted(principal));
                }
                Gated::Publish { .. } | Gated::Release { .. } => {}
            }
        }
    }

    fn introduced(&mut self, cx: &mut Context) {
        self.introduced += 1;
        if self.introduced < cx.cores() {
            return;
        }
        // A connection that is accepted here may move to any core: all are to know the filters.
        if self.shared.ready.fetch_add(1, Ordering::AcqRel) + 1 == cx.cores() {
            let me = cx.core();
            for core in (0..cx.cores()).filter(|core| *core != me) {
                cx.tell(core, Message::AllReady);
            }
            cx.set_accepting(true);
        }
    }

    fn command(&mut self, cx: &mut Context, command: Command) {
        match command {
            Command::Push { push, reply } => self.push(cx, &push, reply),
            Command::Lookup { id, reply } => {
                // Whoever asked may have gone.
                let _ = reply.send(self.receipts.get(id).cloned());
            }
            Command::Status { reply } => {
                let _ = reply.send(self.status(cx));
            }
            Command::Clients(listing) => {
                let listed = self.list_clients(cx, &listing);
                let _ = listing.reply.send(listed);
            }
            Command::Client { client_id, reply } => self.tell_client(cx, &client_id, reply),
            Command::Kick { client_id, session, reply } => {
                self.kick(cx, &client_id, session, reply);
            }
            Command::Bans { bans, reply } => {
                self.bans = bans;
                let _ = reply.send(());
            }
            Command::Evict { from, reply } => {
                let _ = reply.send(self.evict(cx, from));
            }
            Command::Verified { conn, result } => {
                self.verified(cx, ConnId::from_bits(conn), result);
            }
            Command::Trace(tracing) => self.begin_trace(cx, tracing),
            Command::TopBegin(begin) => self.begin_top(cx, &begin),
            Command::TopEnd(end) => self.end_top(cx, end),
            Command::Drain { draining, reply } => {
                self.drain(cx, draining);
                let _ = reply.send(());
            }
            Command::Drained { reply } => {
                let _ = reply.send(self.drain_state());
            }
            Command::Levels(levels) => self.take_levels(cx, &levels),
            Command::Known(known) => self.know(&known),
            Command::Dispatch(dispatch) => self.dispatch(cx, &dispatch),
            Command::Withdraw(withdraw) => self.withdraw(withdraw),
            Command::Settled(settled) => self.settled(cx, settled),
            Command::Authenticate(auth) => self.auth = auth,
            Command::Secure(endpoint) => self.endpoint = Some(endpoint),
            Command::Stop { deadline } => cx.stop(deadline),
        }
    }

    fn status(&self, cx: &Context) -> CoreStatus {
        let sum =
            |counters: [_; 3]| counters.iter().map(|counter| self.meters.core.read(*counter)).sum();
        CoreStatus {
            connections: cx.connections() as u64,
            connects_waiting: self.admission.len() as u64,
            connects_delayed: self.meters.core.read(self.meters.names.connects_delayed),
            connects_refused: self.meters.storm_refused(),
            throttled: self.throttle.len() as u64,
            sessions: self.sessions.len() as u64,
            subscriptions: self.subscriptions as u64,
            retained: self.retained.len() as u64,
            held: self.store.held() as u64,
            messages_in: sum(self.meters.names.published),
            messages_out: sum(self.meters.names.delivered),
            log_bytes: self.store.log.file_bytes(),
            log_segments: self.store.log.segments().count() as u64,
            log_read_only: self.store.log.read_only().is_some(),
        }
    }

    /// Stops reading from a connection until this core has caught up.
    fn hold_back(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(held) = self.conn(conn) else { return };
        if !std::mem::replace(&mut held.paused, true) {
            cx.pause(conn);
            self.held_back.push(conn);
        }
    }

    /// Whether more than this core can handle is on its way.
    fn is_overloaded(&self, cx: &Context) -> bool {
        /// Messages that found another core's queue full.
        const BACKLOG_MAX: usize = 256;
        cx.backlog() > BACKLOG_MAX
            || self.store.is_stuck()
            || self.store.log.is_backlogged()
            || self.devices.as_ref().is_some_and(|devices| devices.behind)
    }

    fn let_go(&mut self, cx: &mut Context) {
        if self.held_back.is_empty() || self.is_overloaded(cx) {
            return;
        }
        for conn in std::mem::take(&mut self.held_back) {
            let Some(held) = self.conn(conn) else { continue };
            if held.owes_too_much() {
                self.held_back.push(conn);
                continue;
            }
            self.read_on(cx, conn);
        }
    }

    /// Goes on reading from a connection that was paused, with what it had sent.
    fn read_on(&mut self, cx: &mut Context, conn: ConnId) {
        let now = cx.now().as_millis();
        let Some(held) = self.conn(conn) else { return };
        held.paused = false;
        if let Stage::Online { link, .. } = &mut held.stage {
            link.forgive_silence(now);
        }
        let unread = held.busy.as_mut().map(|busy| std::mem::take(&mut busy.unread));
        held.rest();
        let unread = unread.unwrap_or_default();
        if !unread.is_empty() {
            self.read_packets(cx, conn, &unread);
        }
        // It may be paused again by what it had sent.
        if self.conn(conn).is_some_and(|held| !held.paused) {
            cx.resume(conn);
        }
    }
}

impl App for Broker {
    type Message = Message;

    fn on_start(&mut self, cx: &mut Context) {
        cx.set_accepting(false);
        self.tick(cx);
        self.start_restored(cx);
        // Behind the filters of what was restored: a core that has heard this of all others
        // knows who is subscribed where.
        let me = cx.core();
        for core in (0..cx.cores()).filter(|core| *core != me) {
            cx.tell(core, Message::Introduced);
        }
        self.introduced(cx);
    }

    fn on_accept(&mut self, cx: &mut Context, conn: ConnId, listener: usize) {
        self.end_burst(cx);
        self.accepted_from(cx, conn, listener);
    }

    fn on_handed(&mut self, cx: &mut Context, conn: ConnId, note: Message, data: &[u8]) {
        self.end_burst(cx);
        let Message::Arrived(arrival) = note else {
            unreachable!("a connection comes with nothing else")
        };
        self.arrived(cx, conn, arrival, data);
    }

    fn on_data(&mut self, cx: &mut Context, conn: ConnId, data: &[u8]) {
        self.received(cx, conn, data);
    }

    fn on_peer(&mut self, cx: &mut Context, conn: ConnId, addr: std::io::Result<SocketAddr>) {
        self.verify_peer(cx, conn, addr.as_ref().ok().copied());
        self.peer_known(conn, addr.ok());
    }

    fn on_drained(&mut self, cx: &mut Context, conn: ConnId) {
        self.end_burst(cx);
        self.drained(cx, conn);
    }

    fn on_close(&mut self, cx: &mut Context, conn: ConnId, reason: CloseReason) {
        self.end_burst(cx);
        let why = match reason {
            CloseReason::PeerClosed => Closed::ByPeer,
            CloseReason::Failed(_) => Closed::Failed,
            CloseReason::Stopped => Closed::Server,
        };
        self.closes(cx, conn, why);
        self.detach(cx, conn, End::silent(why));
    }

    fn on_timer(&mut self, cx: &mut Context, key: u64) {
        self.end_burst(cx);
        let number = key & ((1 << timer::SHIFT) - 1);
        match key >> timer::SHIFT {
            timer::CONN => self.conn_timer(cx, ConnId::from_bits(number)),
            timer::SESSION => self.session_timer(cx, number),
            timer::HELD => self.held_timer(cx, number),
            timer::TICK => self.tick(cx),
            timer::HAND => self.pass_hand(cx),
            // The turn's end looks at the log, and hands messages on.
            timer::LOG => self.log_timer = None,
            timer::HANDED_ON => {}
            timer::PLATFORM => self.platform_timer(number),
            timer::ADMIT => self.admission_timer(cx),
            timer::THROTTLE => self.throttle_timer(cx),
            timer::DRAIN => self.drain_timer(cx),
            timer::WILLS => self.wills_timer(cx),
            kind => unreachable!("no timer is of kind {kind}"),
        }
    }

    fn on_message(&mut self, cx: &mut Context, message: Message) {
        if !matches!(message, Message::Publish { .. }) {
            self.end_burst(cx);
        }
        match message {
            Message::Command(command) => self.command(cx, command),
            Message::Arrived(_) => unreachable!("it comes with a connection"),
            Message::Introduced => self.introduced(cx),
            Message::AllReady => cx.set_accepting(true),
            Message::Publish { publication, keep, deliver, answer } => {
                self.postponed.push_back(Postponed { publication, keep, deliver, answer });
                self.take_postponed(cx);
            }
            Message::Stored { ticket, recipients, refused } => {
                self.part_done(cx, SlotId::from_bits(ticket), recipients, refused);
            }
            Message::Interest { filter, core, has, ticket } => {
                self.note_interest(cx, &filter, core, has, ticket);
            }
            Message::Share { key, core, part, ticket } => {
                self.note_share(cx, &key, core, part, ticket);
            }
            Message::RetainedAsk(ask) => self.answer_retained(cx, &ask),
            Message::RetainedMore { core, ask } => self.ask_for_more(cx, core, ask),
            Message::RetainedFound { ask, publication } => {
                self.retained_found(cx, &ask, &publication);
            }
            Message::Progress { id, progress, at } => {
                self.receipts.advance(id, progress, at, &mut self.store);
            }
        }
    }

    fn on_file(&mut self, cx: &mut Context, done: FileDone) {
        self.end_burst(cx);
        let clock = cx.clock();
        let progress = self.store.handle(done, cx, clock);
        if progress.poisoned {
            self.refuse_gates(cx);
        }
        self.open_gates(cx);
        self.take_recalled(cx);
    }

    fn on_turn_end(&mut self, cx: &mut Context) {
        self.end_burst(cx);
        self.tell_presence(cx);
        self.compact(cx);
        self.take_postponed(cx);
        self.hand_on(cx);
        self.go_on_dispatching(cx);
        self.end_burst(cx);
        self.take_recalled(cx);
        if self.settling {
            // What was said since the last time is to be durable too.
            self.store.log.settle();
        }
        let clock = cx.clock();
        if self.settling {
            self.store.log.settle();
        }
        self.store.end_turn(cx, clock);
        // Without waiting for the disk, by configuration: at once.
        self.open_gates(cx);
        self.take_recalled(cx);
        if self.store.log.read_only().is_some() {
            self.refuse_gates(cx);
        }
        self.look_at_platform(cx);
        self.let_go(cx);
        self.end_burst(cx);
        for timer in self.store.take_timers() {
            cx.disarm(timer);
        }
        if let Some(deadline) = self.store.log.deadline()
            && self.log_timer.is_none_or(|armed| deadline < armed)
            && cx.arm(deadline, timer::key(timer::LOG, 0)).is_some()
        {
            self.log_timer = Some(deadline);
        }
        self.tell_noted(cx);
        self.heartbeat.beat();
    }

    fn on_stop(&mut self, cx: &mut Context) {
        self.end_burst(cx);
        for at in 0..self.conns.span() {
            let held = self.conns.get(at).and_then(Option::as_ref);
            if let Some(conn) = held.map(|held| held.id) {
                self.disconnect(cx, conn, ReasonCode::ServerShuttingDown, Closed::Server);
            }
        }
        self.settling = true;
    }

    fn is_busy(&self) -> bool {
        self.settling && !self.store.is_settled()
    }
}
