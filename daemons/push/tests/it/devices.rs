//! Plays with a sender platform, in which devices come and go, and the network, the machine and the
//! platform itself do what the seed says. Each device of a dispatch comes to exactly one end, and
//! what clients publish to one another is kept as if nothing else went on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;
use sextant_mqtt::{QoS, Version};
use sextant_push::control::Command;
use sextant_push::control::platform::{Devices, Dispatch, Known, Settled, Told, Withdraw};
use sextant_push::home::home;
use sextant_ring::sim::seeds;

use crate::client::{Client, Parting, Profile};
use crate::model::{From, MsgId};
use crate::platform::Fake;
use crate::play::Play;
use crate::rig::Setup;

const APP: u16 = 3;
const CLIENTS: usize = 6;
/// Nobody is the device of this number.
const NOBODY: u32 = 1000;

/// How far a message has come with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Dispatched,
    Sent,
    /// At QoS 0, acknowledged, returned or dropped.
    Ended,
}

/// A platform that keeps books.
struct Office {
    fake: Fake,
    names: Vec<String>,
    cores: usize,
    /// By message and device. Those of a daemon that has ended are gone.
    open: BTreeMap<(u64, u32), Stands>,
    /// Whether each client has arrived, and with which session.
    arrived: Vec<Option<u64>>,
    /// Sessions that were told as known, the newest of each client.
    known: Vec<Option<u64>>,
    /// What it has yet to ask for.
    orders: VecDeque<(usize, Command)>,
    /// What it has yet to settle.
    tickets: Vec<(usize, u64)>,
    ends: [u64; 4],
    settles: u64,
}

impl Office {
    fn client_of(&self, name: &str) -> usize {
        self.names.iter().position(|other| other == name).expect("it is one of the cast")
    }

    fn core(&self, client: usize) -> usize {
        home(&self.names[client], self.cores)
    }

    /// The daemon has ended; what it told before counts.
    fn begin_anew(&mut self, play: &mut Play) {
        self.listen(play);
        self.open.clear();
        self.orders.clear();
        self.tickets.clear();
        self.arrived.fill(None);
        self.known.fill(None);
    }

    fn listen(&mut self, play: &mut Play) {
        for (core, told) in self.fake.take() {
            let core = usize::from(core);
            match told {
                // Who looks at everything, in the end.
                Told::Arrived { client_id, .. } | Told::LeftUnknown { client_id, .. }
                    if *client_id == *"probe" => {}
                Told::Arrived { client_id, session } => {
                    let client = self.client_of(&client_id);
                    assert_eq!(core, self.core(client));
                    assert_eq!(self.arrived[client].replace(session), None, "told once");
                    let device = client as u32;
                    let known = Known { client_id, session, device, app: APP };
                    self.orders.push_back((core, Command::Known(known)));
                }
                Told::Left { device, session } => {
                    let client = device as usize;
                    assert_eq!(self.arrived[client].take(), Some(session));
                    assert_eq!(self.known[client], Some(session), "it was said to be one");
                }
                Told::LeftUnknown { client_id, session } => {
                    let client = self.client_of(&client_id);
                    assert_eq!(self.arrived[client].take(), Some(session));
                }
                Told::Receipts { client_id, ticket, .. } => {
                    assert_eq!(core, self.core(self.client_of(&client_id)));
                    if ticket != 0 {
                        self.tickets.push((core, ticket));
                    }
                }
                Told::Sent { message, device, last, .. } => {
                    let next = if last { Stands::Ended } else { Stands::Sent };
                    self.moves(message, device, &[Stands::Dispatched], next);
                    self.ends[0] += u64::from(last);
                }
                Told::Acknowledged { message, device, .. } => {
                    self.moves(message, device, &[Stands::Sent], Stands::Ended);
                    // At the end of the play they are gone.
                    let client = play.clients.get(device as usize);
                    let got = |client: &Client| {
                        client.inbox.iter().any(|(id, ..)| *id == message as MsgId)
                    };
                    assert!(client.is_none_or(got), "it has it");
                    self.ends[1] += 1;
                }
                Told::Returned { message, device, .. } => {
                    let from = [Stands::Dispatched, Stands::Sent];
                    self.moves(message, device, &from, Stands::Ended);
                    self.ends[2] += 1;
                }
                Told::Dropped { message, device, .. } => {
                    self.moves(message, device, &[Stands::Dispatched], Stands::Ended);
                    self.ends[3] += 1;
                }
            }
        }
    }

    fn moves(&mut self, message: u64, device: u32, from: &[Stands], to: Stands) {
        let stands = self.open.get_mut(&(message, device));
        let stands = stands.unwrap_or_else(|| panic!("{message} was not sent to {device}"));
        assert!(from.contains(stands), "{message} to {device}: {to:?} after {stands:?}");
        *stands = to;
    }

    /// Asks for what it has yet to ask for, in its order, as far as the cores have room.
    fn ask(&mut self, play: &mut Play) {
        while let Some((core, command)) = self.orders.pop_front() {
            let copy = match &command {
                Command::Known(known) => Command::Known(known.clone()),
                Command::Dispatch(dispatch) => Command::Dispatch(Arc::clone(dispatch)),
                Command::Withdraw(withdraw) => Command::Withdraw(withdraw.clone()),
                Command::Settled(settled) => Command::Settled(*settled),
                other => panic!("{other:?}"),
            };
            if !play.rig.command(core, command) {
                return self.orders.push_front((core, copy));
            }
            if let Command::Known(Known { session, device, .. }) = copy {
                self.known[device as usize] = Some(session);
            }
        }
    }

    fn dispatch(&mut self, play: &mut Play) {
        let expires = play.rng.u8(..5) == 0;
        let len = if play.rng.u8(..4) == 0 { play.rng.usize(1..6000) } else { 50 };
        let id = play.model.new_message(From::Platform, "push", QoS::AtLeastOnce, false, len);
        play.model.messages[id].expires = expires;
        play.model.sent(id);
        let (message, payload) = (id as u64, play.model.messages[id].payload(id).into());
        let now = play.rig.world.clock().unix_ms;
        let expires_at = if expires { now + play.rng.u64(1..200) } else { 0 };
        let core = play.rng.usize(..self.cores);
        let here = (0..CLIENTS).filter(|client| self.core(*client) == core);
        let mut devices: Vec<u32> = here.map(|client| client as u32).collect();
        devices.push(NOBODY);
        let devices = match play.rng.bool() {
            true => {
                let device = devices[play.rng.usize(..devices.len())];
                self.open.insert((message, device), Stands::Dispatched);
                Devices::One(device)
            }
            false => {
                devices.extend(NOBODY + 1..NOBODY + 1 + play.rng.u32(..3000));
                let all = devices.iter().map(|device| ((message, *device), Stands::Dispatched));
                self.open.extend(all);
                Devices::Many(Arc::new(devices.into_iter().collect()))
            }
        };
        let dispatch = Dispatch { message, expires_at, payload, devices, app: APP };
        self.orders.push_back((core, Command::Dispatch(Arc::new(dispatch))));
    }

    fn withdraw(&mut self, play: &mut Play) {
        let newest = play.model.messages.len() as u64;
        let message = newest.saturating_sub(play.rng.u64(..20));
        let some = || (0..CLIENTS as u32).chain(NOBODY..NOBODY + 2000);
        let devices = match play.rng.u8(..3) {
            0 => None,
            1 => Some(Arc::new(RoaringBitmap::from([play.rng.u32(..CLIENTS as u32)]))),
            _ => Some(Arc::new(some().collect())),
        };
        for core in 0..self.cores {
            let withdraw = Withdraw { message, devices: devices.clone() };
            self.orders.push_back((core, Command::Withdraw(withdraw)));
        }
    }

    fn settle(&mut self, play: &mut Play, refuses: bool) {
        if self.tickets.is_empty() {
            return;
        }
        let (core, ticket) = self.tickets.swap_remove(play.rng.usize(..self.tickets.len()));
        let settled = Settled { ticket, refused: refuses && play.rng.u8(..10) == 0 };
        self.orders.push_back((core, Command::Settled(settled)));
        self.settles += 1;
    }

    /// Lets some time pass in which it answers everything at once.
    fn attend(&mut self, play: &mut Play, time: Duration) {
        let until = play.rig.world.now() + time;
        while play.rig.world.now() < until {
            play.pass(Duration::from_millis(2));
            self.listen(play);
            while !self.tickets.is_empty() {
                self.settle(play, false);
            }
            self.ask(play);
        }
    }
}

fn cast(play: &mut Play) {
    for n in 0..CLIENTS {
        let version = if play.rng.bool() { Version::V5 } else { Version::V311 };
        let name = format!("device-{n}");
        let mut profile = match n % 3 {
            0 => Profile::clean(&name, version),
            _ => Profile::persistent(&name, version),
        };
        if play.rng.u8(..3) == 0 {
            profile.receive_max = Some(play.rng.u16(1..8));
        }
        if n == 1 {
            profile.packet_bytes_max = 1000;
        }
        play.add(profile);
    }
}

fn act(play: &mut Play, office: &mut Office, crashes: u32) {
    let roll = |play: &mut Play, of_1000: u32| play.rng.u32(..1000) < of_1000;
    if roll(play, crashes) && play.rig.is_running() {
        match play.rng.bool() {
            true => play.crash(),
            false => play.stop(),
        }
        office.begin_anew(play);
    }
    if !play.rig.is_running() {
        if play.rng.u8(..10) == 0 {
            play.rig.start();
        }
        return;
    }
    let client = play.rng.usize(..CLIENTS);
    if roll(play, 200) && play.clients[client].is_offline() {
        if roll(play, 50) {
            play.clients[client].want_clean();
        }
        play.connect(client);
    }
    if roll(play, 15) {
        let how = [Parting::Reset, Parting::Close, Parting::Disconnect][play.rng.usize(..3)];
        play.part(client, how);
    }
    // A takeover.
    if roll(play, 4) {
        play.connect(client);
    }
    if roll(play, 15) {
        play.clients[client].pause_reading();
    }
    if roll(play, 60) {
        play.clients[client].resume_reading();
    }
    if roll(play, 20) {
        play.clients[client].lazy ^= true;
    }
    if roll(play, 120) {
        let own = format!("d/device-{client}/push");
        let filter = [&own, "d/+/push", "t/#"][play.rng.usize(..3)];
        let qos = QoS::from_u8(play.rng.u8(..3)).unwrap();
        // At QoS 0 nothing is promised of what others publish.
        let qos = if filter == "t/#" { QoS::ExactlyOnce } else { qos };
        play.clients[client].subscribe(&[filter], qos, false, &mut play.model);
    }
    if roll(play, 10) {
        let filters = play.model.filters(client);
        if !filters.is_empty() {
            let filter = &filters[play.rng.usize(..filters.len())];
            play.clients[client].unsubscribe(filter, &mut play.model);
        }
    }
    if roll(play, 100) && play.clients[client].outbox_len() < 20 {
        let qos = QoS::from_u8(play.rng.u8(..3)).unwrap();
        play.publish(client, "t/a", qos, false, 100);
    }
    if roll(play, 100) && play.clients[client].outbox_len() < 20 {
        let qos = QoS::from_u8(play.rng.u8(..3)).unwrap();
        let topic = format!("d/device-{client}/{}", ["receipts", "topics"][play.rng.usize(..2)]);
        play.publish(client, &topic, qos, false, 50);
    }
    if roll(play, 300) {
        for _ in 0..play.rng.usize(1..6) {
            office.dispatch(play);
        }
    }
    if roll(play, 60) {
        office.withdraw(play);
    }
    if roll(play, 300) {
        office.settle(play, true);
    }
    if roll(play, 10) {
        office.fake.set_behind(true);
    }
    if roll(play, 100) {
        office.fake.set_behind(false);
    }
    if roll(play, 400) {
        office.ask(play);
    }
}

/// What came to each kind of end, how much was settled, and what the machine did.
fn random_play(seed: u64) -> ([u64; 4], u64, u64) {
    let fake = Fake::default();
    let cores = 1 + (seed % 3) as usize;
    let mut setup = Setup { cores, platform: Some(fake.clone()), ..Setup::default() };
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x00de_71ce);
    setup.inflight_max = [2, 16][rng.usize(..2)];
    setup.send_queue_bytes_max = [8 << 10, 64 << 10][rng.usize(..2)];
    setup.mesh_capacity = [4, 64][rng.usize(..2)];
    setup.hot_bytes = [0, 16 << 20][rng.usize(..2)];
    let mut play = Play::planned(seed, setup, |plan| {
        plan.reset = [0.0, 0.002][rng.usize(..2)];
        plan.starve = [0.0, 0.01][rng.usize(..2)];
        plan.hand_over = [0.0, 0.05][rng.usize(..2)];
        plan.wake_lost = [0.0, 0.2][rng.usize(..2)];
        if rng.bool() {
            plan.disk_delay = Duration::from_micros(50)..=Duration::from_micros(20_000);
        }
    });
    cast(&mut play);
    let names = play.clients.iter().map(|client| client.profile.name.clone()).collect();
    let mut office = Office {
        fake,
        names,
        cores,
        open: BTreeMap::new(),
        arrived: vec![None; CLIENTS],
        known: vec![None; CLIENTS],
        orders: VecDeque::new(),
        tickets: Vec::new(),
        ends: [0; 4],
        settles: 0,
    };
    // What a platform refuses its client may send again under another number.
    play.model.refusals = true;
    let crashes = [0, 0, 4][rng.usize(..3)];
    for _ in 0..rng.u32(200..700) {
        act(&mut play, &mut office, crashes);
        let time = Duration::from_micros(play.rng.u64(50..3000));
        play.pass(time);
        office.listen(&mut play);
    }
    come_to_rest(&mut play, &mut office);
    play.finish();
    office.listen(&mut play);
    let left: Vec<_> = office.open.iter().filter(|(_, stands)| **stands != Stands::Ended).collect();
    assert!(left.is_empty(), "these have come to no end: {left:?}");
    assert!(office.arrived.iter().all(Option::is_none), "all have left");
    (office.ends, office.settles, play.rig.world.trace())
}

/// Everybody is connected, and what was published is answered.
fn come_to_rest(play: &mut Play, office: &mut Office) {
    if !play.rig.is_running() {
        play.rig.start();
    }
    play.rig.world.plan(|plan| (plan.reset, plan.hand_over, plan.wake_lost) = (0.0, 0.0, 0.0));
    office.fake.set_behind(false);
    for client in &mut play.clients {
        client.lazy = false;
        client.resume_reading();
    }
    for _ in 0..300 {
        for client in 0..CLIENTS {
            if play.clients[client].is_offline() {
                play.connect(client);
            }
        }
        office.attend(play, Duration::from_millis(100));
        if play.clients.iter().all(Client::is_settled) && office.orders.is_empty() {
            return;
        }
    }
    play.clients.iter().for_each(|client| eprintln!("{}", client.waits_for()));
    panic!("somebody waits for something after half a minute");
}

#[test]
fn each_device_of_a_dispatch_comes_to_one_end_whatever_happens() {
    let (mut ends, mut settles) = ([0; 4], 0);
    let all = seeds(150);
    let many = all.clone().count() >= 100;
    for seed in all {
        let (more, settled, _) = random_play(seed);
        ends.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        settles += settled;
    }
    assert!(!many || ends.iter().all(|end| *end > 100), "{ends:?}");
    assert!(!many || settles > 1000, "{settles}");
}

#[test]
fn a_seed_plays_the_same_dispatches_every_time() {
    assert_eq!(random_play(3), random_play(3));
}
