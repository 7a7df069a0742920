//! A soak: clients that connect, subscribe, publish at every QoS, stop reading, leave and break off
//! at random, for as long as one likes; and at every rest, when all have left for good, whether the
//! daemon is where it was at the first one.
//!
//! ```text
//!   warm up ─► rest ─► play five minutes ─► rest ─► play … ─► rest
//!              what the daemon has then: connections, sessions, messages, descriptors, memory
//! ```
//!
//! Everything random comes from one seed, which is printed. What the kernel does with it is not
//! the same twice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sextant_mqtt::{ClientHandshake, Connect, Inbound, QoS, Version, Will, WillProperties};
use sextant_service::client::Client as Admin;

use crate::compare::{Bench, Case, Run};
use crate::idle::proc_bytes;
use crate::mqtt::{PACKET_BYTES_MAX, publish_head, subscribe};
use crate::push::{Layout, start_push_with_admin};
use crate::report::{Figure, Wanted, number};
use crate::server::Server;

/// Clients.
const CLIENTS: usize = 400;
/// Topics that they publish to.
const TOPICS: usize = 60;
/// Between two rests.
const PLAY: Duration = Duration::from_secs(300);
/// How long a daemon may take to be at rest.
const REST_MAX: Duration = Duration::from_secs(60);
/// What a level of `/metrics` is at rest.
const EMPTY: [&str; 4] = [
    "sextant_push_sessions",
    "sextant_push_subscriptions",
    "sextant_push_retained_messages",
    "sextant_push_held_messages",
];

/// What `soak` is given besides.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// Play for so many minutes [default: 30; a few seconds if quick]
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// The seed of the play [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// One client, which is connected or not.
struct Actor {
    id: String,
    stream: Option<TcpStream>,
    inbound: Inbound,
    answered: bool,
    /// Does not read for so many of its turns.
    deaf: u32,
    next_id: u16,
}

/// What was done so far.
#[derive(Clone, Copy, Default)]
struct Done {
    connects: u64,
    breaks: u64,
    published: u64,
    received: u64,
}

struct Play {
    rng: fastrand::Rng,
    to: SocketAddr,
    actors: Vec<Actor>,
    done: Done,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Play {
    fn new(seed: u64, to: SocketAddr) -> Play {
        let actors = (0..CLIENTS).map(|number| Actor {
            id: format!("soak-{number}"),
            stream: None,
            inbound: Inbound::new(PACKET_BYTES_MAX),
            answered: false,
            deaf: 0,
            next_id: 0,
        });
        Play {
            rng: fastrand::Rng::with_seed(seed),
            to,
            actors: actors.collect(),
            done: Done::default(),
            out: Vec::new(),
            buffer: vec![0; 64 << 10],
        }
    }

    fn play(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            for number in 0..CLIENTS {
                self.step(number)?;
            }
            // The machine has other things to do, and clients are not all busy at once.
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn step(&mut self, number: usize) -> Result<()> {
        let actor = &mut self.actors[number];
        if actor.stream.is_none() {
            if self.rng.u32(..40) == 0 {
                self.connect(number)?;
            }
            return Ok(());
        }
        if actor.deaf > 0 {
            actor.deaf -= 1;
        } else {
            self.read(number);
        }
        let actor = &mut self.actors[number];
        if actor.stream.is_none() || !actor.answered {
            return Ok(());
        }
        self.out.clear();
        match self.rng.u32(..1000) {
            0..60 => self.publish(number),
            60..66 => {
                let topic = self.filter();
                let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
                let qos = qos[self.rng.usize(..3)];
                subscribe(&topic, qos, &mut self.out).map_err(anyhow::Error::from_boxed)?;
            }
            66..68 => self.actors[number].deaf = self.rng.u32(..2000),
            68..72 => self.out.extend_from_slice(&[0xc0, 0]),
            72..74 => {
                // Leaves in order.
                self.out.extend_from_slice(&[0xe0, 0]);
                self.send(number);
                self.actors[number].stream = None;
                return Ok(());
            }
            74..76 => self.break_off(number),
            // The beginning of a packet, and then nothing.
            76 => {
                self.out.extend_from_slice(&[0x30, 200, 1, 0]);
                self.send(number);
                self.break_off(number);
            }
            _ => return Ok(()),
        }
        self.send(number);
        Ok(())
    }

    fn filter(&mut self) -> String {
        let topic = self.rng.usize(..TOPICS);
        match self.rng.u32(..10) {
            0 => "soak/#".to_owned(),
            1 => format!("+/{topic}"),
            2 => format!("$share/group/soak/{topic}"),
            _ => format!("soak/{topic}"),
        }
    }

    fn connect(&mut self, number: usize) -> Result<()> {
        let stream = TcpStream::connect(self.to).context("the daemon takes no connection")?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let clean = self.rng.bool();
        let actor = &mut self.actors[number];
        let will = self.rng.u32(..5) == 0;
        let connect = Connect {
            clean_start: clean,
            keep_alive_s: 60,
            will: will.then_some(Will {
                qos: QoS::AtLeastOnce,
                retain: false,
                topic: "soak/7",
                payload: b"gone",
                properties: WillProperties::default(),
            }),
            ..Connect::new(Version::V311, &actor.id)
        };
        self.out.clear();
        ClientHandshake::start(0, &connect, &mut self.out)?;
        actor.stream = Some(stream);
        actor.answered = false;
        actor.deaf = 0;
        actor.inbound = Inbound::new(PACKET_BYTES_MAX);
        self.done.connects += 1;
        self.send(number);
        Ok(())
    }

    fn publish(&mut self, number: usize) {
        let qos = self.rng.u8(..3);
        let retain = u8::from(self.rng.u32(..20) == 0);
        let topic = format!("soak/{}", self.rng.usize(..TOPICS));
        let bytes = self.rng.usize(..2000);
        let actor = &mut self.actors[number];
        actor.next_id = actor.next_id.checked_add(1).unwrap_or(1);
        let id = (qos > 0).then_some(actor.next_id);
        publish_head(qos << 1 | retain, &topic, id, bytes, &mut self.out);
        self.out.resize(self.out.len() + bytes, b'.');
        self.done.published += 1;
    }

    /// Sends what is in `out`; a client that cannot breaks off.
    fn send(&mut self, number: usize) {
        let Some(stream) = &mut self.actors[number].stream else { return };
        if stream.write_all(&self.out).is_err() {
            self.break_off(number);
        }
        self.out.clear();
    }

    /// The connection ends with a reset.
    fn break_off(&mut self, number: usize) {
        if let Some(stream) = self.actors[number].stream.take() {
            // Where the kernel does not know that, it ends in order.
            let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
            self.done.breaks += 1;
        }
        self.out.clear();
    }

    fn read(&mut self, number: usize) {
        let actor = &mut self.actors[number];
        let Some(stream) = &mut actor.stream else { return };
        let read = match stream.read(&mut self.buffer) {
            Ok(0) => {
                actor.stream = None;
                return;
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => {
                actor.stream = None;
                return;
            }
        };
        self.out.clear();
        let mut input = &self.buffer[..read];
        while let Ok(Some(frame)) = actor.inbound.next_frame(&mut input) {
            let ack = |kind: u8, id: &[u8]| [kind, 2, id[0], id[1]];
            match frame.first_byte >> 4 {
                2 => actor.answered = true,
                3 => {
                    self.done.received += 1;
                    let topic = usize::from(u16::from_be_bytes([frame.body[0], frame.body[1]]));
                    let id = frame.body.get(2 + topic..4 + topic);
                    match (frame.first_byte >> 1 & 3, id) {
                        (1, Some(id)) => self.out.extend_from_slice(&ack(0x40, id)),
                        (2, Some(id)) => self.out.extend_from_slice(&ack(0x50, id)),
                        _ => {}
                    }
                }
                5 => self.out.extend_from_slice(&ack(0x62, frame.body)),
                6 => self.out.extend_from_slice(&ack(0x70, frame.body)),
                _ => {}
            }
        }
        self.send(number);
    }

    /// All leave for good: their sessions end, and what is retained is cleared.
    fn leave(&mut self, admin: &Admin) -> Result<()> {
        for actor in &mut self.actors {
            actor.stream = None;
        }
        // A CONNECT that one of them had just sent may be read by another core, and later, than
        // its farewell, and would then begin a session anew.
        at_rest(admin, &["sextant_push_connections"])?;
        sleep(Duration::from_secs(1));
        at_rest(admin, &["sextant_push_connections"])?;
        for actor in &self.actors {
            visit(self.to, &actor.id, &[])?;
        }
        // By now the daemon has read what those had sent who have gone.
        let mut clear = Vec::new();
        for topic in 0..TOPICS {
            let topic = format!("soak/{topic}");
            publish_head(1, &topic, None, 0, &mut clear);
        }
        visit(self.to, "soak-clears", &clear)
    }
}

/// Connects with a clean session, says something, and leaves.
fn visit(to: SocketAddr, id: &str, packets: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("the daemon takes no connection")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut out = Vec::new();
    let connect = Connect { clean_start: true, ..Connect::new(Version::V311, id) };
    ClientHandshake::start(0, &connect, &mut out)?;
    out.extend_from_slice(packets);
    stream.write_all(&out)?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).context("no CONNACK at a rest")?;
    stream.write_all(&[0xe0, 0])?;
    // Until the daemon has closed it, so that it has read all of it.
    stream.read_to_end(&mut out).context("a client could not leave")?;
    Ok(())
}

/// What the daemon has at a rest.
#[derive(Clone, Copy)]
struct Level {
    anonymous_bytes: u64,
    descriptors: usize,
    log_bytes: f64,
}

fn rest(server: &Server, admin: &Admin) -> Result<Level> {
    at_rest(admin, &EMPTY)?;
    // The daemon looks twice a minute for memory to give back.
    sleep(Duration::from_secs(31));
    Ok(Level {
        anonymous_bytes: anonymous_bytes(server.pid())?,
        descriptors: std::fs::read_dir(format!("/proc/{}/fd", server.pid()))?.count(),
        log_bytes: level(&admin.text("/metrics")?, "sextant_push_log_bytes").unwrap_or(f64::NAN),
    })
}

/// Waits until levels of `/metrics` are zero.
fn at_rest(admin: &Admin, levels: &[&str]) -> Result<()> {
    let began = Instant::now();
    loop {
        let page = admin.text("/metrics")?;
        let left: Vec<String> = levels
            .iter()
            .map(|name| (name, level(&page, name)))
            .filter(|(_, value)| *value != Some(0.0))
            .map(|(name, value)| format!("{name} is {value:?}"))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < REST_MAX, "all have left, and {}", left.join(", "));
        sleep(Duration::from_millis(200));
    }
}

fn level(page: &str, name: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|text| text.trim().parse().ok())
}

fn anonymous_bytes(pid: u32) -> Result<u64> {
    proc_bytes(&format!("/proc/{pid}/status"), "RssAnon:")
}

/// Runs it.
pub(crate) fn run(run: &Run, args: SoakArgs) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 40));
    let (warm_up, whole) = match (args.minutes, run.quick) {
        (Some(minutes), _) => (Duration::from_secs(60), Duration::from_secs(60 * minutes)),
        (None, true) => (Duration::from_secs(1), Duration::from_secs(3)),
        (None, false) => (Duration::from_secs(60), Duration::from_secs(30 * 60)),
    };
    println!("seed {seed}");
    let mut bench =
        Bench::new(run, "soak", "A push daemon before and after half an hour of everything")?;
    bench.note(format!(
        "{CLIENTS} clients connect, subscribe, publish at every QoS, stop reading, leave and break \
         off at random (seed {seed}) for {} s, behind {} s in which the daemon's buffers find \
         their size.",
        whole.as_secs(),
        warm_up.as_secs()
    ));
    bench.note(
        "At each rest all sessions have ended and nothing is retained: the run fails unless the \
         daemon then counts no session, subscription, retained or held message. Memory is \
         anonymous memory; maps of the log are not in it.",
    );
    let case = Case::new("soak", "KiB more at the last rest than at the first");
    let case = case.side("push", move |_| soak(seed, warm_up, whole));
    bench.add(case.limit("push", Wanted::AtMost(4096.0)));
    bench.run()
}

fn soak(seed: u64, warm_up: Duration, whole: Duration) -> Result<Vec<Figure>> {
    let layout = Layout { cores: 2, connections_max: 10_000, pinned: false, addrs: 1 };
    let (server, admin) = start_push_with_admin(layout)?;
    let mut play = Play::new(seed, server.addrs()[0]);
    play.play(Instant::now() + warm_up)?;
    play.leave(&admin)?;
    let first = rest(&server, &admin)?;
    let (began, mut last) = (Instant::now(), first);
    while began.elapsed() < whole {
        let until = (Instant::now() + PLAY).min(began + whole);
        play.play(until)?;
        play.leave(&admin)?;
        last = rest(&server, &admin)?;
        let Done { connects, published, received, .. } = play.done;
        println!(
            "    {} of {} s: {} connections made, {} messages published, {} received; at rest {:.1} \
             MiB, {} descriptors, a log of {:.1} MiB",
            began.elapsed().as_secs(),
            whole.as_secs(),
            number(connects as f64),
            number(published as f64),
            number(received as f64),
            last.anonymous_bytes as f64 / f64::from(1 << 20),
            last.descriptors,
            last.log_bytes / f64::from(1 << 20),
        );
    }
    let more = last.anonymous_bytes as f64 - first.anonymous_bytes as f64;
    Ok(vec![
        Figure::new("", more / 1024.0),
        Figure::new("MiB at the last", last.anonymous_bytes as f64 / f64::from(1 << 20)),
        Figure::new("descriptors at the first", first.descriptors as f64),
        Figure::new("descriptors at the last", last.descriptors as f64),
        Figure::new("connections made", play.done.connects as f64),
        Figure::new("of them broken off", play.done.breaks as f64),
        Figure::new("messages published", play.done.published as f64),
        Figure::new("messages received", play.done.received as f64),
    ])
}
