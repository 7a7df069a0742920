//! The fleet as an app of the ring: connections and their sessions, the phases of a load, and the
//! beginning of operations at each turn's end.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use sextant_ring::core::{CloseReason, ConnId, Cx, SendError};
use sextant_ring::time::Time;
use sextant_ring::wheel::TimerId;

use super::{Connections, Load, LoadError, Outcome, Pace, Session, Shown};
use crate::cpu::ProcessCpu;
use crate::recorder::Recorder;
use crate::schedule::{Schedule, Steady};

/// A timer may be up to two milliseconds late; what is due sooner is waited for by spinning.
const SPIN: Duration = Duration::from_micros(2_500);

/// What a fleet is told.
pub(super) enum Order {
    /// Turn again at once.
    Spin,
    /// End the load.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// All are ready; nothing is begun, or begun any more.
    Holding,
    WarmUp,
    Measuring,
    Draining,
    Over,
}

/// What had been counted when the window opened.
struct Opened {
    at: Time,
    done: u64,
    server_cpu: Option<Duration>,
    client_cpu: Duration,
}

struct Client<S> {
    conn: ConnId,
    number: u64,
    session: S,
    /// When it was called.
    called: Time,
    /// Counted among those that are ready.
    ready: bool,
}

pub(super) struct App<S, F> {
    load: Load,
    server: Option<ProcessCpu>,
    make: F,
    /// By the index of their connection.
    clients: Vec<Option<Client<S>>>,
    /// The connections that operate, by their number.
    operating: Vec<Option<ConnId>>,
    /// What connections under way are for: the intended start of their operation.
    pending: HashMap<u64, Time>,
    /// When connections under way were called, those that are to be held.
    calls: HashMap<u64, Time>,
    connects: Recorder,
    connecting: u32,
    /// Connections that were begun.
    numbers: u64,
    shown: Arc<Shown>,
    phase: Phase,
    /// When the phase ends, or when it is given up.
    phase_ends: Time,
    began: Time,
    connecting_took: Duration,
    schedule: Option<Schedule<Steady>>,
    recorder: Recorder,
    lateness: Recorder,
    begun: u64,
    /// Operations that are yet to begin of those that begin together.
    lot: u32,
    opened: Option<Opened>,
    outcome: Option<Outcome>,
    failure: Option<LoadError>,
    timer: Option<(TimerId, Time)>,
    out: Vec<u8>,
}

impl<S: Session, F: FnMut(u64) -> S> App<S, F> {
    /// What may wait for the server to read it, on one connection.
    pub(super) const UNREAD_BYTES_MAX: usize = 64 << 20;

    pub(super) fn new(
        load: Load,
        server: Option<ProcessCpu>,
        make: F,
        shown: Arc<Shown>,
    ) -> App<S, F> {
        let operating = match load.connections {
            Connections::Held { operating, .. } => operating as usize,
            Connections::PerOperation { .. } => 0,
        };
        let mut connects = Recorder::default();
        connects.open(Time::ZERO);
        App {
            load,
            server,
            make,
            clients: Vec::new(),
            operating: vec![None; operating],
            pending: HashMap::new(),
            calls: HashMap::new(),
            connects,
            connecting: 0,
            numbers: 0,
            shown,
            phase: Phase::Connecting,
            phase_ends: Time::NEVER,
            began: Time::ZERO,
            connecting_took: Duration::ZERO,
            schedule: None,
            recorder: Recorder::default(),
            lateness: Recorder::default(),
            begun: 0,
            lot: 0,
            opened: None,
            outcome: None,
            failure: None,
            timer: None,
            out: Vec::new(),
        }
    }

    pub(super) fn into_outcome(self) -> Result<Option<Outcome>, LoadError> {
        self.failure.map_or(Ok(self.outcome), Err)
    }

    fn fail(&mut self, cx: &mut Cx<Order>, failure: LoadError) {
        if self.phase != Phase::Over {
            self.failure = Some(failure);
            self.end(cx);
        }
    }

    fn end(&mut self, cx: &mut Cx<Order>) {
        self.phase = Phase::Over;
        cx.stop(cx.now());
    }

    fn connect_more(&mut self, cx: &mut Cx<Order>) {
        let Connections::Held { count, connecting_max, .. } = self.load.connections else { return };
        while self.numbers < u64::from(count) && self.connecting < connecting_max {
            let number = self.connect(cx);
            self.calls.insert(number, cx.now());
        }
    }

    fn connect(&mut self, cx: &mut Cx<Order>) -> u64 {
        let number = self.numbers;
        self.numbers += 1;
        self.connecting += 1;
        cx.connect(self.target(number), number);
        number
    }

    fn target(&self, number: u64) -> std::net::SocketAddr {
        self.load.targets[number as usize % self.load.targets.len()]
    }

    fn adopt(&mut self, cx: &mut Cx<Order>, number: u64, conn: ConnId) {
        let mut session = (self.make)(number);
        let called = self.calls.remove(&number).unwrap_or(cx.now());
        self.out.clear();
        let mut said = session.handle_connected(cx.now(), &mut self.out);
        if let Some(intended) = self.pending.remove(&number) {
            said = said.and_then(|()| session.begin(intended, &mut self.out));
        }
        if let Err(source) = said {
            return self.fail(cx, LoadError::Session { number, source });
        }
        if self.clients.len() <= conn.index() {
            self.clients.resize_with(conn.index() + 1, || None);
        }
        self.clients[conn.index()] = Some(Client { conn, number, session, called, ready: false });
        self.send(cx, number, conn);
        self.look_at(cx, conn);
    }

    /// Sends what is in `out`.
    fn send(&mut self, cx: &mut Cx<Order>, number: u64, conn: ConnId) {
        if self.out.is_empty() {
            return;
        }
        match cx.send_copy(conn, &self.out) {
            // That it is closed is told by itself.
            Ok(()) | Err(SendError::Closed) => {}
            Err(_) => {
                let bytes = cx.unsent(conn);
                self.fail(cx, LoadError::Unread { number, bytes });
            }
        }
    }

    fn client(&mut self, conn: ConnId) -> Option<&mut Client<S>> {
        self.clients.get_mut(conn.index())?.as_mut().filter(|client| client.conn == conn)
    }

    /// Takes note of a session that has become ready.
    fn look_at(&mut self, cx: &mut Cx<Order>, conn: ConnId) {
        let Some(client) = self.client(conn) else { return };
        if !client.session.is_ready() || std::mem::replace(&mut client.ready, true) {
            return;
        }
        let number = client.number as usize;
        let called = client.called;
        let Connections::Held { count, .. } = self.load.connections else { return };
        self.connects.record(called, cx.now());
        if let Some(place) = self.operating.get_mut(number) {
            *place = Some(conn);
        }
        let ready = self.shown.ready.fetch_add(1, Ordering::Relaxed) + 1;
        self.phase_ends = cx.now() + self.load.patience;
        if ready == count && self.phase == Phase::Connecting {
            self.connecting_took = cx.now().since(self.began);
            let _ = self.shown.connects.set(self.connects.summary());
            self.set_out(cx);
        }
    }

    /// Everything is ready: the first phase with operations begins.
    fn set_out(&mut self, cx: &Cx<Order>) {
        let now = cx.now();
        (self.phase, self.phase_ends) = match self.load.pace {
            Pace::Idle => (Phase::Holding, Time::NEVER),
            _ => (Phase::WarmUp, now + self.load.warm_up),
        };
        if let Pace::PerSecond(rate) = self.load.pace {
            self.schedule = Some(Schedule::new(Steady::new(now, rate)));
        }
    }

    /// Goes from phase to phase as time passes.
    fn keep_time(&mut self, cx: &mut Cx<Order>) {
        let is_over = cx.now() >= self.phase_ends;
        match self.phase {
            Phase::Connecting if is_over => {
                let ready = self.shown.ready.load(Ordering::Relaxed);
                let count = self.load.connections.at_once_max();
                self.fail(cx, LoadError::Stuck { ready, count });
            }
            Phase::WarmUp if is_over => match self.count(cx.now()) {
                Ok(opened) => {
                    self.recorder.open(opened.at);
                    self.lateness.open(opened.at);
                    self.phase_ends = opened.at + self.load.measure;
                    self.opened = Some(opened);
                    self.phase = Phase::Measuring;
                }
                Err(failure) => self.fail(cx, failure),
            },
            Phase::Measuring if is_over => match self.count(cx.now()) {
                Ok(closed) => self.close_window(&closed),
                Err(failure) => self.fail(cx, failure),
            },
            Phase::Draining if is_over || self.under_way() == 0 => {
                if let Some(outcome) = &mut self.outcome {
                    outcome.latency = self.recorder.summary();
                    let expected = outcome.begun * u64::from(self.load.completions);
                    outcome.missing = expected.saturating_sub(outcome.latency.count);
                }
                self.shown.measured.store(true, Ordering::Relaxed);
                if self.load.hold {
                    (self.phase, self.phase_ends) = (Phase::Holding, Time::NEVER);
                } else {
                    self.end(cx);
                }
            }
            _ => {}
        }
    }

    /// Completions of this turn had arrived by its beginning, so that is the time of the count.
    fn count(&self, now: Time) -> Result<Opened, LoadError> {
        let thread = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = Duration::from_secs(thread.tv_sec.unsigned_abs());
        let server_cpu = self.server.map(|server| server.used()).transpose()?;
        Ok(Opened {
            at: now,
            done: self.recorder.done(),
            server_cpu,
            client_cpu: seconds + Duration::from_nanos(thread.tv_nsec.unsigned_abs()),
        })
    }

    fn close_window(&mut self, closed: &Opened) {
        let opened = self.opened.take().expect("a window is closed after it was opened");
        self.recorder.close(closed.at);
        self.lateness.close(closed.at);
        self.schedule = None;
        self.phase = Phase::Draining;
        self.phase_ends = closed.at + self.load.drain_max;
        let lateness = self.lateness.summary();
        self.outcome = Some(Outcome {
            connecting: self.connecting_took,
            elapsed: closed.at.since(opened.at),
            // By intended start, as latencies are.
            begun: lateness.count,
            completed: closed.done - opened.done,
            missing: 0,
            latency: self.recorder.summary(),
            lateness,
            server_cpu: closed.server_cpu.zip(opened.server_cpu).map(|(to, from)| to - from),
            client_cpu: closed.client_cpu - opened.client_cpu,
        });
    }

    /// Completions that are still to come.
    fn under_way(&self) -> u64 {
        (self.begun * u64::from(self.load.completions)).saturating_sub(self.recorder.done())
    }

    /// Begins what is due.
    fn begin_due(&mut self, cx: &mut Cx<Order>) {
        while matches!(self.phase, Phase::WarmUp | Phase::Measuring) {
            if let Connections::PerOperation { at_once_max } = self.load.connections
                // Those that are closing have their sockets still.
                && self.connecting as usize + cx.connections() >= at_once_max as usize
            {
                return;
            }
            let intended = match self.load.pace {
                Pace::Idle => None,
                Pace::PerSecond(_) => self.schedule.as_mut().and_then(|s| s.take_due(cx.now())),
                Pace::Saturated { window, lot } => {
                    let room = u64::from(window - lot) * u64::from(self.load.completions);
                    if self.lot == 0 && self.under_way() <= room {
                        self.lot = lot;
                    }
                    let begins = self.lot > 0;
                    self.lot -= u32::from(begins);
                    begins.then_some(cx.now())
                }
            };
            let Some(intended) = intended else { return };
            self.lateness.record(intended, cx.now());
            self.begin(cx, intended);
        }
    }

    fn begin(&mut self, cx: &mut Cx<Order>, intended: Time) {
        let turn = self.begun as usize;
        self.begun += 1;
        if self.operating.is_empty() {
            let number = self.connect(cx);
            self.pending.insert(number, intended);
            return;
        }
        let conn = self.operating[turn % self.operating.len()].expect("all of them are ready");
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        // One that broke just now is about to be told as such.
        let Some(client) = self.client(conn) else { return };
        let number = client.number;
        let said = client.session.begin(intended, &mut out);
        self.out = out;
        match said {
            Ok(()) => self.send(cx, number, conn),
            Err(source) => self.fail(cx, LoadError::Session { number, source }),
        }
    }

    /// Makes sure that the next turn comes in time: at once if something is due soon.
    fn plan_wake(&mut self, cx: &mut Cx<Order>) {
        if self.phase == Phase::Over {
            return;
        }
        let due = self.schedule.as_mut().and_then(Schedule::next_time);
        let runs = matches!(self.phase, Phase::WarmUp | Phase::Measuring | Phase::Draining);
        if (self.load.spin && runs) || due.is_some_and(|due| due <= cx.now() + SPIN) {
            cx.tell(cx.core(), Order::Spin);
            return;
        }
        let at = due.map_or(self.phase_ends, |due| (due - SPIN).min(self.phase_ends));
        if self.timer.is_some_and(|(_, armed)| armed == at) || at == Time::NEVER {
            return;
        }
        if let Some((timer, _)) = self.timer.take() {
            cx.disarm(timer);
        }
        self.timer = cx.arm(at.max(cx.now()), 0).map(|timer| (timer, at));
    }
}

impl<S: Session, F: FnMut(u64) -> S> sextant_ring::core::App for App<S, F> {
    type Message = Order;

    fn on_start(&mut self, cx: &mut Cx<Order>) {
        self.began = cx.now();
        self.phase_ends = cx.now() + self.load.patience;
        match self.load.connections {
            Connections::Held { .. } => self.connect_more(cx),
            Connections::PerOperation { .. } => self.set_out(cx),
        }
    }

    fn on_accept(&mut self, cx: &mut Cx<Order>, conn: ConnId, _listener: usize) {
        cx.abort(conn);
    }

    fn on_connect(&mut self, cx: &mut Cx<Order>, number: u64, result: io::Result<ConnId>) {
        self.connecting -= 1;
        match result {
            Ok(conn) => self.adopt(cx, number, conn),
            Err(source) => {
                let to = self.target(number);
                self.fail(cx, LoadError::Connect { number, to, source });
            }
        }
        if self.phase == Phase::Connecting {
            self.connect_more(cx);
        }
    }

    fn on_data(&mut self, cx: &mut Cx<Order>, conn: ConnId, data: &[u8]) {
        let now = cx.now();
        let slot = self.clients.get_mut(conn.index()).and_then(Option::as_mut);
        let Some(client) = slot.filter(|client| client.conn == conn) else { return };
        self.out.clear();
        let number = client.number;
        let taken = client.session.handle_input(now, data, &mut self.out, &mut self.recorder);
        if let Err(source) = taken {
            return self.fail(cx, LoadError::Session { number, source });
        }
        let was_ready = client.ready;
        self.send(cx, number, conn);
        if !was_ready {
            self.look_at(cx, conn);
        }
    }

    fn on_close(&mut self, cx: &mut Cx<Order>, conn: ConnId, reason: CloseReason) {
        let slot = self.clients.get_mut(conn.index());
        let Some(mut client) = slot.and_then(Option::take) else { return };
        let number = client.number;
        match reason {
            CloseReason::PeerClosed => {
                if let Err(source) = client.session.handle_closed(cx.now(), &mut self.recorder) {
                    self.fail(cx, LoadError::Session { number, source });
                }
            }
            CloseReason::Failed(source) => self.fail(cx, LoadError::Broken { number, source }),
            CloseReason::Stopped => {}
        }
    }

    fn on_timer(&mut self, _cx: &mut Cx<Order>, _key: u64) {
        self.timer = None;
    }

    fn on_message(&mut self, cx: &mut Cx<Order>, message: Order) {
        match message {
            Order::Spin => {}
            Order::Stop => self.end(cx),
        }
    }

    fn on_turn_end(&mut self, cx: &mut Cx<Order>) {
        self.keep_time(cx);
        self.begin_due(cx);
        self.plan_wake(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SessionError;
    use sextant_ring::core::{Core, Limits};
    use sextant_ring::driver::Listener;
    use sextant_ring::mesh::{Remote, mesh};
    use sextant_ring::sim::{SimDriver, World};
    use std::net::SocketAddr;

    /// Echoes, but keeps what arrives in `pause` until that is over; or closes at the first byte.
    struct Server {
        /// In milliseconds since it began.
        pause: std::ops::Range<u64>,
        began: Time,
        kept: Vec<(ConnId, Vec<u8>)>,
        closes: bool,
    }

    impl sextant_ring::core::App for Server {
        type Message = Order;

        fn on_start(&mut self, cx: &mut Cx<Order>) {
            self.began = cx.now();
        }

        fn on_accept(&mut self, _cx: &mut Cx<Order>, _conn: ConnId, _listener: usize) {}

        fn on_data(&mut self, cx: &mut Cx<Order>, conn: ConnId, data: &[u8]) {
            if self.closes {
                return cx.abort(conn);
            }
            if !self.pause.contains(&(cx.now().since(self.began).as_millis() as u64)) {
                return cx.send_copy(conn, data).unwrap();
            }
            if self.kept.is_empty() {
                cx.arm(self.began + Duration::from_millis(self.pause.end), 0).unwrap();
            }
            self.kept.push((conn, data.to_vec()));
        }

        fn on_timer(&mut self, cx: &mut Cx<Order>, _key: u64) {
            for (conn, data) in self.kept.drain(..) {
                cx.send_copy(conn, &data).unwrap();
            }
        }

        fn on_close(&mut self, cx: &mut Cx<Order>, _conn: ConnId, _reason: CloseReason) {
            if cx.connections() == 1 && !self.closes {
                cx.stop(cx.now());
            }
        }
    }

    /// Sends when it should have begun, and hears it again.
    struct Echoed {
        intended: Option<Time>,
        until_closed: bool,
    }

    impl Session for Echoed {
        fn handle_connected(&mut self, _: Time, _: &mut Vec<u8>) -> Result<(), SessionError> {
            Ok(())
        }

        fn handle_input(
            &mut self,
            now: Time,
            input: &[u8],
            _out: &mut Vec<u8>,
            recorder: &mut Recorder,
        ) -> Result<(), SessionError> {
            let (stamps, rest) = input.as_chunks::<8>();
            assert!(rest.is_empty(), "this network cuts nothing");
            for stamp in stamps {
                recorder.record(Time::from_nanos(u64::from_ne_bytes(*stamp)), now);
            }
            Ok(())
        }

        fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
            self.intended = Some(intended);
            out.extend_from_slice(&intended.as_nanos().to_ne_bytes());
            Ok(())
        }

        fn is_ready(&self) -> bool {
            true
        }

        fn handle_closed(&mut self, now: Time, to: &mut Recorder) -> Result<(), SessionError> {
            let intended = self.intended.filter(|_| self.until_closed);
            to.record(intended.ok_or("nobody asked for that")?, now);
            Ok(())
        }
    }

    fn play(load: Load, server: Server) -> Result<Option<Outcome>, LoadError> {
        load.check()?;
        let world = World::new(7);
        world.plan(|plan| plan.cut = 0.0);
        let addr = load.targets[0];
        let until_closed = matches!(load.connections, Connections::PerOperation { .. });
        let remotes = [Remote::sim(), Remote::sim()]; // the server, the client
        let mut ports = mesh(&remotes, 0, 16);
        let limits = || Limits { linger: Duration::from_millis(1), ..Limits::default() };
        let listener = Arc::new(Listener::sim(addr));
        let (driver, port) = (world.driver(remotes[0].clone()), ports.pop().unwrap());
        let mut server: Core<SimDriver, Server> =
            Core::new(driver, server, port, vec![listener], limits(), world.clock());
        let make = move |_| Echoed { intended: None, until_closed };
        let app = App::new(load, None, make, Arc::default());
        let (driver, port) = (world.driver(remotes[1].clone()), ports.pop().unwrap());
        let mut client = Core::new(driver, app, port, Vec::new(), limits(), world.clock());
        let limit = world.now() + Duration::from_secs(60);
        while !client.is_finished() {
            match world.step(&remotes, limit) {
                Some(0) => world.turn(&mut server),
                Some(_) => world.turn(&mut client),
                None => panic!("the load does not end"),
            }
        }
        let (app, _) = client.app_mut();
        app.failure.take().map_or(Ok(app.outcome.take()), Err)
    }

    fn addr() -> SocketAddr {
        "127.0.0.1:7".parse().unwrap()
    }

    fn held(count: u32, pace: Pace) -> Load {
        Load {
            connections: Connections::Held { count, operating: count, connecting_max: 3 },
            pace,
            measure: Duration::from_secs(4),
            ..Load::new(vec![addr()])
        }
    }

    fn awake() -> Server {
        Server { pause: 0..0, began: Time::ZERO, kept: Vec::new(), closes: false }
    }

    #[test]
    fn a_server_that_stands_still_is_charged_for_all_that_should_have_started_meanwhile() {
        let server = Server { pause: 1_000..2_000, ..awake() };
        let outcome = play(held(4, Pace::PerSecond(200.0)), server).unwrap().unwrap();
        assert!(outcome.begun.abs_diff(800) <= 2, "{}", outcome.begun);
        assert_eq!((outcome.latency.count, outcome.missing), (outcome.begun, 0));
        assert!(outcome.latency.max_ns >= 980_000_000, "{:?}", outcome.latency);
        // A quarter of them met the pause, evenly spread over it.
        assert!(outcome.latency.p90_ns > 500_000_000, "{:?}", outcome.latency);
        assert!(outcome.latency.p50_ns < 50_000_000, "{:?}", outcome.latency);
        assert!(outcome.lateness.p99_ns < 5_000_000, "{:?}", outcome.lateness);
    }

    #[test]
    fn a_closed_loop_keeps_its_window_full_and_no_fuller() {
        let outcome =
            play(held(5, Pace::Saturated { window: 5, lot: 1 }), awake()).unwrap().unwrap();
        assert!(outcome.completed > 100 && outcome.missing == 0, "{outcome:?}");
        let in_flight = outcome.per_second() * outcome.latency.mean_ns as f64 / 1e9;
        assert!((4.0..=5.2).contains(&in_flight), "by Little's law {in_flight} in flight");
    }

    #[test]
    fn lots_begin_together_when_there_is_room_for_all() {
        let pace = Pace::Saturated { window: 8, lot: 4 };
        let outcome = play(held(8, pace), awake()).unwrap().unwrap();
        assert!(outcome.completed > 100 && outcome.missing == 0, "{outcome:?}");
        assert_eq!(outcome.begun % 4, 0, "whole lots");
        let in_flight = outcome.per_second() * outcome.latency.mean_ns as f64 / 1e9;
        assert!((4.0..=8.2).contains(&in_flight), "by Little's law {in_flight} in flight");
    }

    #[test]
    fn what_is_never_answered_is_missing() {
        let server = Server { pause: 1_000..1_000_000, ..awake() };
        let outcome = play(held(2, Pace::PerSecond(100.0)), server).unwrap().unwrap();
        assert!(outcome.missing > 300, "{outcome:?}");
        assert_eq!(outcome.begun, outcome.latency.count + outcome.missing);
    }

    #[test]
    fn operations_with_connections_of_their_own_end_when_the_server_closes() {
        let load = Load {
            connections: Connections::PerOperation { at_once_max: 50 },
            pace: Pace::PerSecond(100.0),
            ..Load::new(vec![addr()])
        };
        let outcome = play(load, Server { closes: true, ..awake() }).unwrap().unwrap();
        assert!(outcome.begun.abs_diff(200) <= 2, "{}", outcome.begun);
        assert_eq!((outcome.latency.count, outcome.missing), (outcome.begun, 0));
    }

    #[test]
    fn a_server_that_hangs_up_spoils_the_load() {
        let load = held(2, Pace::PerSecond(100.0));
        let failed = play(load, Server { closes: true, ..awake() });
        assert!(matches!(failed, Err(LoadError::Session { .. })), "{failed:?}");
    }

    #[test]
    fn a_load_without_sense_is_refused() {
        let good = || held(2, Pace::PerSecond(1.0));
        for load in [
            Load { targets: Vec::new(), ..good() },
            Load { completions: 0, ..good() },
            Load { pace: Pace::PerSecond(0.0), ..good() },
            Load { pace: Pace::Saturated { window: 0, lot: 0 }, ..good() },
            Load { pace: Pace::Saturated { window: 3, lot: 4 }, ..good() },
            Load { connections: Connections::PerOperation { at_once_max: 0 }, ..good() },
        ] {
            assert!(matches!(play(load, awake()), Err(LoadError::Load(_))));
        }
    }
}
