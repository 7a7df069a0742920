//! The wake path: what a message from core to core costs, on one core and across two, and how many
//! messages share a wake when there are many.
//!
//! ```text
//!   to itself    core 0 ──► core 0                   the queue alone
//!   ping-pong    core 0 ──► core 1 ──► core 0 …      each message finds the other core asleep
//!   streaming    core 0 ──►►►► core 1, by a schedule the other core sleeps when it has caught up
//! ```
//!
//! Beside the ping-pong stands what it cannot go below: two threads that wake each other through
//! a bare eventfd, with a blocking read. Cores across are threads of this process, each on a CPU of
//! its own.

use std::os::fd::AsFd;
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, eventfd};
use sextant_load::{Recorder, Schedule, Steady, pin};
use sextant_ring::core::{App, CloseReason, ConnId, Core, Cx, Envelope, Limits, Stats};
use sextant_ring::mesh::{Port, Remote, mesh};
use sextant_ring::time::{Clock, Time};
use sextant_ring::uring::{Options, Uring};

use crate::compare::{Bench, Case, Plan, Run};
use crate::report::Figure;
use crate::server::{LOAD_CPU, SERVER_CPU};

/// Messages that fit between two cores: as push has it.
const QUEUE: usize = 4096;

/// What the cores tell each other.
enum Message {
    /// Sent at this time, or due then.
    Ball(Time),
    Stop,
}

/// What a core does with a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// Tells itself again.
    Alone,
    /// Sends it back.
    Player,
    /// Takes it.
    Sink,
    /// Sends by a schedule, so many a second.
    Source(f64),
}

struct Wakes {
    role: Role,
    plan: Plan,
    schedule: Option<Schedule<Steady>>,
    recorder: Recorder,
    opened: Option<(Time, u64, Stats)>,
    /// Messages a second, nanoseconds for each, and the counters over the window.
    found: Option<Found>,
    ends: Time,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    taken: u64,
    elapsed: Duration,
    stats: Stats,
}

/// What changed between two counts.
fn since(now: Stats, before: Stats) -> Stats {
    Stats {
        turns: now.turns - before.turns,
        messages: now.messages - before.messages,
        wakes_sent: now.wakes_sent - before.wakes_sent,
        wakes_received: now.wakes_received - before.wakes_received,
        ..now
    }
}

impl Wakes {
    fn new(role: Role, plan: Plan) -> Wakes {
        Wakes {
            role,
            plan,
            schedule: None,
            recorder: Recorder::default(),
            opened: None,
            found: None,
            ends: Time::NEVER,
        }
    }

    fn other(cx: &Cx<Message>) -> usize {
        cx.cores() - 1 - cx.core()
    }

    fn keep_time(&mut self, cx: &mut Cx<Message>) {
        if cx.now() < self.ends || self.found.is_some() {
            return;
        }
        let Some((from, taken, before)) = self.opened else {
            self.recorder.open(cx.now());
            self.opened = Some((cx.now(), self.recorder.done(), cx.stats()));
            self.ends = cx.now() + self.plan.measure;
            let _ = cx.arm(self.ends, 0);
            return;
        };
        self.recorder.close(cx.now());
        self.found = Some(Found {
            taken: self.recorder.done() - taken,
            elapsed: cx.now().since(from),
            stats: since(cx.stats(), before),
        });
        if cx.core() == 0 {
            if cx.cores() > 1 {
                cx.tell(Wakes::other(cx), Message::Stop);
            }
            cx.stop(cx.now());
        }
    }

    fn send_due(&mut self, cx: &mut Cx<Message>) {
        let now = cx.now();
        let Some(schedule) = &mut self.schedule else { return };
        // A full queue holds the source up, and the schedule does not forget what was due.
        while cx.backlog() == 0
            && let Some(intended) = schedule.take_due(now)
        {
            cx.tell(1, Message::Ball(intended));
        }
    }
}

impl App for Wakes {
    type Message = Message;

    fn on_start(&mut self, cx: &mut Cx<Message>) {
        self.ends = cx.now() + self.plan.warm_up;
        let _ = cx.arm(self.ends, 0);
        match self.role {
            Role::Alone => cx.tell(0, Message::Ball(cx.now())),
            Role::Player if cx.core() == 0 => cx.tell(1, Message::Ball(cx.now())),
            Role::Source(rate) => {
                self.schedule = Some(Schedule::new(Steady::new(cx.now(), rate)));
                cx.tell(0, Message::Ball(cx.now()));
            }
            Role::Player | Role::Sink => {}
        }
    }

    fn on_accept(&mut self, cx: &mut Cx<Message>, conn: ConnId, _listener: usize) {
        cx.abort(conn);
    }

    fn on_data(&mut self, _cx: &mut Cx<Message>, _conn: ConnId, _data: &[u8]) {}

    fn on_close(&mut self, _cx: &mut Cx<Message>, _conn: ConnId, _reason: CloseReason) {}

    fn on_message(&mut self, cx: &mut Cx<Message>, message: Message) {
        let Message::Ball(at) = message else {
            // The window closes with that of the core which says so.
            self.ends = cx.now();
            return cx.stop(cx.now());
        };
        self.recorder.record(at, cx.now());
        if cx.is_stopping() {
            return;
        }
        match self.role {
            // The source spins, so that its schedule is kept to the turn.
            Role::Alone | Role::Source(_) => cx.tell(cx.core(), Message::Ball(cx.now())),
            Role::Player => cx.tell(Wakes::other(cx), Message::Ball(cx.now())),
            Role::Sink => {}
        }
    }

    fn on_turn_end(&mut self, cx: &mut Cx<Message>) {
        self.keep_time(cx);
        if !cx.is_stopping() {
            self.send_due(cx);
        }
    }
}

/// Plays these roles, each on a core and a CPU of its own, and tells what each found.
fn play(roles: &[Role], plan: &Plan) -> Result<Vec<(Found, Recorder)>> {
    let remotes = roles.iter().map(|_| Remote::host()).collect::<std::io::Result<Vec<_>>>()?;
    let ports = mesh(&remotes, 0, QUEUE);
    let ready = Arc::new(Barrier::new(roles.len()));
    let mut threads: Vec<JoinHandle<Result<(Found, Recorder)>>> = Vec::new();
    for (core, ((role, remote), port)) in roles.iter().zip(remotes).zip(ports).enumerate() {
        let (app, ready) = (Wakes::new(*role, *plan), Arc::clone(&ready));
        let run = move || run_core(core, app, remote, port, &ready);
        threads.push(std::thread::Builder::new().name(format!("core-{core}")).spawn(run)?);
    }
    let found = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| anyhow!("a core ended in a panic"))?);
    found.collect()
}

fn run_core(
    core: usize,
    app: Wakes,
    remote: Remote,
    port: Port<Envelope<Message>>,
    ready: &Barrier,
) -> Result<(Found, Recorder)> {
    let placed = pin(if core == 0 { LOAD_CPU } else { SERVER_CPU });
    let options = Options { sockets_max: 16, ..Options::default() };
    let driver = Uring::new(&options, remote);
    // The others wait for this one, whatever became of it.
    ready.wait();
    placed.context("cannot stay on one CPU")?;
    let driver = driver.context("no ring")?;
    let core = Core::new(driver, app, port, Vec::new(), Limits::default(), Clock::read());
    let app = core.run().context("the core ended")?;
    Ok((app.found.context("the window was not closed")?, app.recorder))
}

fn ns_each(found: &Found) -> f64 {
    found.elapsed.as_nanos() as f64 / found.taken as f64
}

fn alone(plan: &Plan) -> Result<Vec<Figure>> {
    let found = play(&[Role::Alone], plan)?;
    let (found, _) = found.first().context("there was a core")?;
    Ok(vec![
        Figure::new("", ns_each(found)),
        Figure::new("messages a turn", found.stats.messages as f64 / found.stats.turns as f64),
    ])
}

fn ping_pong(plan: &Plan) -> Result<Vec<Figure>> {
    let found = play(&[Role::Player, Role::Player], plan)?;
    let (found, recorder) = found.first().context("there were two cores")?;
    // A core sees every second message.
    Ok(vec![
        Figure::new("", ns_each(found) / 2.0),
        Figure::new("messages a wake", per_wake(&found.stats)),
        Figure::new("p99 ns", recorder.quantile_ns(0.99) as f64),
    ])
}

fn per_wake(stats: &Stats) -> f64 {
    stats.messages as f64 / stats.wakes_received.max(1) as f64
}

fn streaming(rate: f64, plan: &Plan) -> Result<Vec<Figure>> {
    let found = play(&[Role::Source(rate), Role::Sink], plan)?;
    let (found, recorder) = found.get(1).context("there were two cores")?;
    Ok(vec![
        Figure::new("", per_wake(&found.stats)),
        Figure::new("a second", found.taken as f64 / found.elapsed.as_secs_f64()),
        Figure::new("p50 µs", recorder.quantile_ns(0.5) as f64 / 1000.0),
        Figure::new("p99 µs", recorder.quantile_ns(0.99) as f64 / 1000.0),
    ])
}

/// Two threads that wake each other through an eventfd.
fn bare_ping_pong(plan: &Plan) -> Result<Vec<Figure>> {
    let (ping, pong) = (Arc::new(event()?), Arc::new(event()?));
    let (from, to) = (Arc::clone(&ping), Arc::clone(&pong));
    // Ends when it reads the largest value.
    let other = std::thread::spawn(move || -> Result<()> {
        pin(SERVER_CPU)?;
        while take(&from)? < STOP {
            give(&to, 1)?;
        }
        Ok(())
    });
    let time = plan.warm_up + plan.measure;
    let mine = std::thread::spawn(move || -> Result<f64> {
        pin(LOAD_CPU)?;
        let (began, mut rounds) = (Instant::now(), 0u64);
        while began.elapsed() < time {
            give(&ping, 1)?;
            take(&pong)?;
            rounds += 1;
        }
        let each = began.elapsed().as_nanos() as f64 / (rounds * 2) as f64;
        give(&ping, STOP)?;
        Ok(each)
    });
    let each = mine.join().map_err(|_| anyhow!("a thread ended in a panic"))?;
    other.join().map_err(|_| anyhow!("a thread ended in a panic"))??;
    Ok(vec![Figure::new("", each?)])
}

/// More than the other thread ever adds up.
const STOP: u64 = 1 << 32;

fn event() -> Result<std::os::fd::OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC).context("no eventfd")
}

fn give(event: impl AsFd, value: u64) -> Result<()> {
    rustix::io::write(event, &value.to_ne_bytes()).context("an eventfd is full")?;
    Ok(())
}

fn take(event: impl AsFd) -> Result<u64> {
    let mut value = [0; 8];
    rustix::io::read(event, &mut value).context("an eventfd is gone")?;
    Ok(u64::from_ne_bytes(value))
}

/// Runs the wake path.
pub(crate) fn run(run: &Run) -> Result<()> {
    let mut bench = Bench::new(run, "wake", "Messages between cores, and waking")?;
    bench.note("Two cores, each a thread on a CPU of its own; no sockets.");
    bench.note(
        "A turn of a core that has nothing else to do is one system call; a message to itself takes \
         one turn.",
    );
    let name = "one message at a time";
    let case = Case::new(name, "ns per message")
        .side("to itself", alone)
        .side("ping-pong across", ping_pong)
        .side("bare eventfd, ping-pong", bare_ping_pong)
        .costs("ping-pong across", "bare eventfd, ping-pong", None);
    bench.add(case);
    for (name, rate) in [
        ("streaming, 10,000 a second", 1e4),
        ("streaming, 100,000 a second", 1e5),
        ("streaming, 1,000,000 a second", 1e6),
        ("streaming, 5,000,000 a second", 5e6),
    ] {
        let case = Case::new(name, "messages per wake");
        bench.add(case.side("across", move |plan| streaming(rate, plan)));
    }
    bench.run()
}
