//! A play: the machine, its clients and its senders together; and how it comes to a quiet end, in
//! which every promise is looked at.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use sextant_mqtt::{QoS, Version};
use sextant_push::control::{Command, Push, PushError, Receipt, ReceiptState, Target};
use sextant_push::home::home;
use sextant_ring::sim::Plan;
use tokio::sync::oneshot;

use crate::client::{Client, Parting, Profile};
use crate::model::{From, Model, MsgId};
use crate::rig::{Rig, Setup};

/// A push that was sent.
pub(crate) struct Sent {
    pub(crate) message: MsgId,
    pub(crate) id: u128,
    target: Target,
    /// The device's client.
    client: Option<usize>,
    long_lived: bool,
    reply: Option<oneshot::Receiver<Result<u32, PushError>>>,
    /// `None`: nobody knows, since the broker crashed.
    pub(crate) answer: Option<Result<u32, PushError>>,
}

/// Everything together.
pub(crate) struct Play {
    pub(crate) rig: Rig,
    pub(crate) model: Model,
    pub(crate) clients: Vec<Client>,
    pub(crate) pushes: Vec<Sent>,
    pub(crate) rng: Rng,
    pub(crate) crashes: u32,
    /// Whether clients send their packets in pieces.
    pub(crate) pieces: bool,
    /// How far the wall clock is ahead of what it would be without leaps, milliseconds.
    ahead_ms: i64,
}

/// How far a leap may take the wall clock from what it would be without: what lives for a day is
/// not to expire by leaps.
const AHEAD_MS_MAX: i64 = 6 * 3600 * 1000;

impl Play {
    pub(crate) fn new(seed: u64, setup: Setup) -> Play {
        Play::planned(seed, setup, |_| {})
    }

    pub(crate) fn planned(seed: u64, setup: Setup, plan: impl FnOnce(&mut Plan)) -> Play {
        let rig = Rig::new(seed, setup, plan);
        let rng = rig.world.random();
        let mut model = Model::default();
        model.tells = std::env::var_os("SEXTANT_SIM_TELL").is_some();
        Play {
            rig,
            model,
            clients: Vec::new(),
            pushes: Vec::new(),
            rng,
            crashes: 0,
            pieces: false,
            ahead_ms: 0,
        }
    }

    pub(crate) fn add(&mut self, profile: Profile) -> usize {
        self.clients.push(Client::new(profile, &mut self.model));
        self.clients.len() - 1
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.rig.world.now().as_millis()
    }

    // --- What can be done ---

    pub(crate) fn connect(&mut self, client: usize) {
        let (peer, now_ms) = (self.rig.connect(), self.now_ms());
        self.renew_will(client);
        self.clients[client].connect(peer, now_ms, &mut self.model);
    }

    /// Each connection has a will of its own.
    fn renew_will(&mut self, client: usize) {
        let Some(will) = &mut self.clients[client].profile.will else { return };
        let before = &self.model.messages[will.message];
        if before.sent.is_some() {
            let (from, topic) = (before.from, before.topic.clone());
            let (qos, retain, len) = (before.qos, before.retain, before.len);
            will.message = self.model.new_message(from, &topic, qos, retain, len);
        }
    }

    pub(crate) fn part(&mut self, client: usize, how: Parting) {
        let (now_ms, cut) = (self.now_ms(), self.rng.usize(0..64));
        self.clients[client].part(how, cut, now_ms, &mut self.model);
    }

    /// An operator ends a client's connection.
    pub(crate) fn kick(&mut self, client: usize) {
        let client_id = self.clients[client].profile.name.clone();
        let core = home(&client_id, self.rig.setup.cores);
        let (reply, _) = oneshot::channel();
        let kicked = self.rig.command(core, Command::Kick { client_id, session: false, reply });
        assert!(kicked, "a core takes a command");
    }

    pub(crate) fn publish(
        &mut self,
        client: usize,
        topic: &str,
        qos: QoS,
        retain: bool,
        len: usize,
    ) -> MsgId {
        let id = self.model.new_message(From::Client(client), topic, qos, retain, len);
        self.clients[client].publish(id);
        id
    }

    pub(crate) fn subscribe(&mut self, client: usize, filter: &str, qos: QoS) -> bool {
        self.clients[client].subscribe(&[filter], qos, false, &mut self.model)
    }

    /// Pushes a message to a client as a device, or to a topic.
    pub(crate) fn push(
        &mut self,
        to: Result<usize, &str>,
        qos: QoS,
        ttl: Duration,
        len: usize,
    ) -> usize {
        let target = match to {
            Ok(client) => Target::Device(self.clients[client].profile.name.clone()),
            Err(topic) => Target::Topic(topic.to_owned()),
        };
        let topic = target.topic();
        let message = self.model.new_message(From::Push, &topic, qos, false, len);
        let long_lived = ttl >= Duration::from_secs(3600);
        self.model.messages[message].expires = !long_lived;
        self.model.sent(message);
        let accepted_at = self.rig.world.clock().unix_ms;
        let id = u128::from(accepted_at) << 80 | message as u128;
        let push = Push {
            id,
            target: target.clone(),
            payload: Bytes::from(self.model.messages[message].payload(message)),
            qos,
            retain: false,
            accepted_at,
            expires_at: accepted_at + ttl.as_millis() as u64,
        };
        let (Target::Device(name) | Target::Topic(name)) = &target;
        let core = home(name, self.rig.setup.cores);
        let (reply, answer) = oneshot::channel();
        let sent = self.rig.command(core, Command::Push { push, reply });
        self.pushes.push(Sent {
            message,
            id,
            target,
            client: to.ok(),
            long_lived,
            reply: sent.then_some(answer),
            answer: None,
        });
        self.pushes.len() - 1
    }

    pub(crate) fn crash(&mut self) {
        if self.rig.is_running() {
            self.crashes += 1;
            self.model.crashed = true;
            self.model.tell(|| "crash".to_owned());
            self.rig.crash();
        }
    }

    /// Stops the broker in order.
    pub(crate) fn stop(&mut self) {
        self.model.tell(|| "stop".to_owned());
        self.rig.ask_to_stop();
        self.until("the broker stops", Duration::from_secs(10), |play| {
            let clients_had_gone = play.clients.is_empty();
            play.rig.has_stopped(clients_had_gone)
        });
    }

    // --- Time ---

    /// Sets the wall clock to `ahead_ms` more than it would be without leaps.
    pub(crate) fn leap(&mut self, ahead_ms: i64) {
        let ahead_ms = ahead_ms.clamp(-AHEAD_MS_MAX, AHEAD_MS_MAX);
        self.model.tell(|| format!("the wall clock leaps by {} ms", ahead_ms - self.ahead_ms));
        self.rig.world.leap_unix_ms(ahead_ms - self.ahead_ms);
        self.ahead_ms = ahead_ms;
    }

    /// The wall clock leaps to anywhere.
    pub(crate) fn leap_anywhere(&mut self) {
        let ahead_ms = self.rng.i64(-AHEAD_MS_MAX..=AHEAD_MS_MAX);
        self.leap(ahead_ms);
    }

    /// The machine stands still, and everybody with it.
    pub(crate) fn suspend(&mut self, time: Duration) {
        self.model.tell(|| format!("suspended for {time:?}"));
        self.rig.world.suspend(time);
        self.clients.iter_mut().for_each(|client| client.suspended(time));
    }

    /// Lets some time pass, in steps that clients take part in.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.rig.world.now() + time;
        loop {
            let left = until.since(self.rig.world.now());
            if left.is_zero() {
                return;
            }
            let step = Duration::from_micros(self.rng.u64(50..1000));
            self.step(left.min(step));
        }
    }

    /// Lets time pass until something is so, and panics if it takes too long.
    pub(crate) fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut done: impl FnMut(&mut Play) -> bool,
    ) {
        let until = self.rig.world.now() + limit;
        let mut pause = 500;
        while !done(self) {
            if self.rig.world.now() >= until {
                let waiting = self.clients.iter().filter(|client| !client.is_settled());
                waiting.for_each(|client| eprintln!("{}", client.waits_for()));
                self.rig.unfinished().iter().for_each(|what| eprintln!("{what}"));
                panic!("{limit:?} have passed and still not: {what}; {:?}", self.model.owed());
            }
            self.step(Duration::from_micros(pause));
            pause = (pause * 21 / 20).min(20_000);
        }
    }

    fn step(&mut self, time: Duration) {
        self.rig.pass(time);
        let now_ms = self.now_ms();
        self.model.now_us = self.rig.world.now().as_nanos() / 1000;
        for client in &mut self.clients {
            let cut = (self.pieces && self.rng.u8(..8) == 0).then(|| self.rng.usize(0..40));
            client.poll(now_ms, cut, &mut self.model);
        }
        for push in &mut self.pushes {
            let Some(reply) = &mut push.reply else { continue };
            match reply.try_recv() {
                Ok(answer) => {
                    push.reply = None;
                    push.answer = Some(answer);
                    match (answer, push.client) {
                        (Ok(_), Some(client)) => self.model.accepted_for(push.message, client),
                        (Ok(_), None) => self.model.acknowledged(push.message),
                        (Err(_), _) => self.model.refused(push.message),
                    }
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
                Err(oneshot::error::TryRecvError::Closed) => push.reply = None,
            }
        }
    }

    /// Connects whoever is offline, and waits until nobody waits for anything.
    pub(crate) fn settle(&mut self) {
        self.until(
            "everybody is connected, and has what is his",
            Duration::from_secs(60),
            |play| {
                for client in 0..play.clients.len() {
                    if play.clients[client].is_offline() {
                        play.connect(client);
                    }
                }
                play.clients.iter().all(Client::is_settled)
                    && play.model.owed().is_none()
                    && play.pushes.iter().all(|push| push.reply.is_none())
            },
        );
        // Whatever would be too much has time to arrive.
        self.pass(Duration::from_millis(50));
    }

    // --- The end ---

    /// A quiet end: the machine does no harm any more, and everything has to come out right.
    pub(crate) fn finish(&mut self) {
        self.rig.world.plan(|plan| {
            plan.reset = 0.0;
            plan.refuse = 0.0;
            plan.hand_over = 0.0;
            plan.wake_lost = 0.0;
            plan.stall = 0.0;
        });
        // Whatever lives for short is over.
        self.leap(AHEAD_MS_MAX);
        self.pieces = false;
        if !self.rig.is_running() {
            self.rig.start();
        }
        for client in &mut self.clients {
            client.lazy = false;
            client.resume_reading();
        }
        self.bring_devices();
        self.settle();
        self.check_retained();
        self.check_routing();
        self.check_receipts();
        self.leave();
        self.check_nothing_is_left();
        self.stop();
        // What is found on the disk is just as empty.
        self.rig.start();
        self.pass(Duration::from_millis(20));
        self.check_nothing_is_left();
        self.stop();
    }

    /// What waits for devices is theirs once they ask.
    fn bring_devices(&mut self) {
        let mut devices: Vec<usize> = self.pushes.iter().filter_map(|push| push.client).collect();
        devices.sort_unstable();
        devices.dedup();
        for device in devices {
            let filter = format!("d/{}/#", self.clients[device].profile.name);
            self.ensure_subscribed(device, &filter, QoS::ExactlyOnce);
        }
    }

    /// Subscribes a client, however many connections that takes.
    pub(crate) fn ensure_subscribed(&mut self, client: usize, filter: &str, qos: QoS) {
        let mut asked = false;
        self.until("a client is subscribed", Duration::from_secs(10), |play| {
            if play.clients[client].is_offline() {
                play.connect(client);
                asked = false;
            }
            asked = asked || play.subscribe(client, filter, qos);
            asked && play.model.is_granted(client, filter)
        });
    }

    /// Somebody new gets what is retained, all of it, and what was acknowledged last.
    fn check_retained(&mut self) {
        let probe = self.add(Profile::clean("probe", Version::V5));
        self.ensure_subscribed(probe, "#", QoS::ExactlyOnce);
        self.settle();
        // Nobody owes it what has to be read from the disk first, one after the other at worst.
        let expected = self.model.retained();
        let nothing = |may: &&BTreeSet<Option<MsgId>>| !may.contains(&None);
        let least = expected.values().filter(nothing).count();
        for _ in 0..20 {
            self.pass(Duration::from_millis(400));
            if self.clients[probe].inbox.iter().filter(|(_, _, retain)| *retain).count() >= least {
                break;
            }
        }
        let retained: Vec<MsgId> = self.clients[probe]
            .inbox
            .iter()
            .filter(|(_, _, retain)| *retain)
            .map(|(id, ..)| *id)
            .collect();
        for (topic, may) in &expected {
            let found: Vec<MsgId> = retained
                .iter()
                .copied()
                .filter(|id| self.model.messages[*id].topic == *topic)
                .collect();
            assert!(found.len() <= 1, "{topic:?} has several retained messages: {found:?}");
            let found = found.first().copied();
            assert!(
                may.contains(&found),
                "{topic:?}: {found:?} is retained, and not one of {may:?}"
            );
        }
        self.part(probe, Parting::Disconnect);
        self.clients.pop();
    }

    /// With nothing going wrong everybody gets everything once, at every QoS.
    fn check_routing(&mut self) {
        let mut sent = Vec::new();
        for client in 0..self.clients.len() {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                sent.push((client, self.publish(client, "t/a", qos, false, 20)));
            }
        }
        self.settle();
        self.until("everybody gets everything", Duration::from_secs(60), |play| {
            let missing = |(from, id): &(usize, MsgId)| {
                let takes = |client| play.model.takes(client, *from, "t/a") == Some(true);
                (0..play.clients.len()).any(|n| takes(n) && play.model.got(n, *id) == 0)
            };
            !sent.iter().any(missing)
        });
        self.pass(Duration::from_millis(50));
        for (from, id) in sent {
            for client in 0..self.clients.len() {
                let got = self.model.got(client, id);
                let takes = self.model.takes(client, from, "t/a");
                assert_eq!(
                    got,
                    takes.map_or(got.min(1), u32::from),
                    "client {client} got message {id} of {from} {got} times: {:?}",
                    self.model.messages[id]
                );
            }
        }
    }

    fn receipt(&mut self, id: u128) -> Option<Receipt> {
        let mut found = self.rig.ask(|reply| Command::Lookup { id, reply });
        assert!(found.iter().flatten().count() <= 1, "one core keeps a receipt");
        found.iter_mut().find_map(Option::take)
    }

    fn check_receipts(&mut self) {
        // Those that live for short have expired by then.
        self.pass_quickly(Duration::from_secs(5));
        for at in 0..self.pushes.len() {
            let Sent { message, id, ref target, client, long_lived, answer, .. } = self.pushes[at];
            let target = target.clone();
            if !matches!(answer, Some(Ok(_))) {
                continue;
            }
            let Some(receipt) = self.receipt(id) else {
                panic!("push {message} was accepted, and is not known")
            };
            let ended = receipt.acknowledged + receipt.dropped + receipt.expired;
            if client.is_some() || self.rig.starts == 1 {
                assert!(
                    receipt.sent >= receipt.acknowledged && receipt.recipients >= ended,
                    "push {message} has been counted wrong: {receipt:?}"
                );
            }
            // What the sessions of other cores did, and what sessions had that ended with a
            // crash, is not counted for sure; a subscriber at QoS 0 acknowledges nothing.
            if client.is_some() && receipt.qos > 0 {
                assert_eq!(
                    receipt.recipients, ended,
                    "push {message} to {target:?} has not come to an end: {receipt:?}"
                );
            }
            if let Some(device) = client
                && long_lived
                && receipt.qos > 0
                && !self.model.began_after(device, message)
            {
                assert_eq!(
                    (receipt.state(), receipt.recipients, receipt.acknowledged),
                    (ReceiptState::Acknowledged, 1, 1),
                    "push {message} to {target:?}: {receipt:?}"
                );
            }
        }
    }

    /// Ends all sessions, and clears what is retained.
    fn leave(&mut self) {
        let clear: Vec<String> = self.model.retained().into_keys().collect();
        for topic in clear {
            let from = self.model.messages.iter().find(|message| {
                message.retain && message.topic == topic && matches!(message.from, From::Client(_))
            });
            let Some(From::Client(client)) = from.map(|message| message.from) else { continue };
            self.publish(client, &topic, QoS::AtLeastOnce, true, 0);
        }
        self.settle();
        for client in 0..self.clients.len() {
            self.part(client, Parting::Disconnect);
        }
        self.clients.retain(|client| client.profile.persistent);
        for client in &mut self.clients {
            client.want_clean();
            client.profile.expiry_s = 0;
            client.profile.will = None;
            client.session_present = None;
        }
        self.until("all sessions are ended", Duration::from_secs(10), |play| {
            for client in 0..play.clients.len() {
                if play.clients[client].is_offline()
                    && play.clients[client].session_present.is_none()
                {
                    play.connect(client);
                }
            }
            play.clients.iter().all(|client| client.session_present.is_some())
        });
        for client in 0..self.clients.len() {
            self.part(client, Parting::Disconnect);
        }
        self.clients.clear();
        // Lingering connections go, and the logs are made smaller.
        self.pass_quickly(Duration::from_secs(60));
    }

    /// Lets a longer time pass in which clients do nothing much.
    pub(crate) fn pass_quickly(&mut self, time: Duration) {
        let until = self.rig.world.now() + time;
        while self.rig.world.now() < until {
            self.step(Duration::from_millis(25));
        }
    }

    fn check_nothing_is_left(&mut self) {
        let left = self.rig.unfinished();
        assert!(left.is_empty(), "something is left: {left:?}");
        for (core, status) in self.rig.status().into_iter().enumerate() {
            assert_eq!(
                (status.connections, status.sessions, status.subscriptions),
                (0, 0, 0),
                "core {core}: {status:?}"
            );
            assert_eq!((status.retained, status.held), (0, 0), "core {core}: {status:?}");
            assert!(!status.log_read_only);
            // What the receipts take, and segments that are not full.
            assert!(status.log_segments <= 4, "core {core}: {status:?}");
        }
    }
}
