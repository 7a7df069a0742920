//! A platform in a directory of its own, a clock, and devices that behave as they are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use sextant_devices::Device;
use sextant_platform::engine::{Funnel, MessageView, Submitted};
use sextant_platform::model::{Request, State};
use sextant_platform::told::{Cores, Devices, Moved, Order, Told};
use sextant_platform::{Engine, Options, Refusal};
use sextant_policy::Policy;
use sextant_policy::decide::Draft;
use tempfile::TempDir;
use uuid::Uuid;

/// Noon in UTC, on a Tuesday.
pub(crate) const NOON_MS: u64 = 1_795_003_200_000;

/// The broker: what the platform ordered, and what devices got.
#[derive(Default)]
pub(crate) struct Broker {
    /// Who is connected, by id: the number of the session, and of the device once it is told.
    pub(crate) sessions: BTreeMap<String, (u64, Option<u32>)>,
    /// On their way: message, device.
    pub(crate) flying: VecDeque<(u64, u32)>,
    /// What each device got, by message: how often, and what it said.
    pub(crate) got: BTreeMap<(u32, u64), (u32, String)>,
    pub(crate) settled: Vec<(u64, bool)>,
    pub(crate) kicked: Vec<String>,
    told: Vec<Told>,
    at: u64,
}

impl Broker {
    fn has(&self, device: u32) -> bool {
        self.sessions.values().any(|(_, number)| *number == Some(device))
    }

    fn moved(&mut self, message: u64, device: u32, what: Moved) {
        self.told.push(Told::Moved { message, device, at: self.at, what });
    }
}

impl Cores for Broker {
    fn order(&mut self, _core: u16, order: Order) {
        match order {
            Order::Known { client_id, session, device, .. } => {
                if let Some(found) = self.sessions.get_mut(&*client_id)
                    && found.0 == session
                {
                    found.1 = Some(device);
                }
            }
            Order::Dispatch(dispatch) => {
                let devices: Vec<u32> = match &dispatch.devices {
                    Devices::One(device) => vec![*device],
                    Devices::Many(devices) => devices.iter().collect(),
                };
                for device in devices {
                    if !self.has(device) {
                        self.moved(dispatch.message, device, Moved::Returned);
                        continue;
                    }
                    let text = String::from_utf8(dispatch.payload.to_vec()).expect("JSON");
                    let got = self.got.entry((device, dispatch.message)).or_default();
                    *got = (got.0 + 1, text);
                    self.flying.push_back((dispatch.message, device));
                    self.moved(dispatch.message, device, Moved::Sent);
                }
            }
            Order::Withdraw { .. } => {}
            Order::Settled { ticket, refused } => self.settled.push((ticket, refused)),
            Order::Kick { client_id } => self.kicked.push(client_id.into()),
        }
    }

    fn flush(&mut self) -> bool {
        true
    }
}

/// A platform, its broker and its clock.
pub(crate) struct World {
    dir: TempDir,
    policy: Policy,
    engine: Option<Engine>,
    pub(crate) broker: Broker,
    pub(crate) now: u64,
    pub(crate) app: u16,
    sessions: u64,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(free_policy())
    }

    pub(crate) fn with(policy: Policy) -> World {
        let dir = tempfile::tempdir().expect("a directory");
        let mut world = World {
            dir,
            policy,
            engine: None,
            broker: Broker::default(),
            now: NOON_MS,
            app: 0,
            sessions: 0,
        };
        world.open();
        world.app = world.engine().make_app("shop", "admin", NOON_MS).expect("a name").0;
        world.turn();
        world
    }

    fn options(&self) -> Options {
        Options::new(PathBuf::from(self.dir.path()))
    }

    pub(crate) fn open(&mut self) {
        let draft = Draft::new(self.policy.clone()).expect("a policy");
        let (engine, _) = Engine::open(self.options(), draft, self.now).expect("it opens");
        self.engine = Some(engine);
    }

    pub(crate) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("it is open")
    }

    /// The process dies: what was not written is gone, and so are all connections.
    pub(crate) fn crash(&mut self) {
        self.engine = None;
        let got = std::mem::take(&mut self.broker.got);
        self.broker = Broker { got, ..Broker::default() };
        self.open();
    }

    pub(crate) fn register(&mut self, id: &str) -> u32 {
        self.register_as(&Device::new(id, "shop", "android"))
    }

    pub(crate) fn register_as(&mut self, device: &Device) -> u32 {
        let now = self.now;
        self.engine().register(device, now).expect("a device");
        self.engine().registry().number(&device.id).expect("it is registered")
    }

    pub(crate) fn register_many(&mut self, count: u32) {
        for number in 0..count {
            self.register(&format!("d{number}"));
        }
        self.turn();
    }

    pub(crate) fn connect(&mut self, id: &str) {
        self.sessions += 1;
        let session = self.sessions;
        self.broker.sessions.insert(id.to_owned(), (session, None));
        self.broker.told.push(Told::Arrived { client_id: id.into(), session });
    }

    /// The session ends with its connection.
    pub(crate) fn disconnect(&mut self, id: &str) {
        let Some((session, device)) = self.broker.sessions.remove(id) else { return };
        let Some(device) = device else {
            self.broker.told.push(Told::LeftUnknown { client_id: id.into(), session });
            return;
        };
        self.broker.told.push(Told::Left { device, session });
        let mut lost = Vec::new();
        self.broker.flying.retain(|(message, of)| {
            let is_lost = *of == device;
            lost.extend(is_lost.then_some(*message));
            !is_lost
        });
        for message in lost {
            self.broker.moved(message, device, Moved::Returned);
        }
    }

    /// Devices acknowledge the oldest of what is on its way to them.
    pub(crate) fn acknowledge(&mut self, count: usize) {
        for _ in 0..count {
            let Some((message, device)) = self.broker.flying.pop_front() else { return };
            self.broker.moved(message, device, Moved::Acknowledged);
        }
    }

    /// The platform hears what was told, and does what it can at this time.
    pub(crate) fn turn(&mut self) {
        let told = std::mem::take(&mut self.broker.told);
        let (now, engine) = (self.now, self.engine.as_mut().expect("it is open"));
        self.broker.at = now;
        engine.tell(0, told, now);
        engine.commit(&mut self.broker, now).expect("the disk takes it");
        engine.run(&mut self.broker, now);
        engine.commit(&mut self.broker, now).expect("the disk takes it");
        engine.run(&mut self.broker, now);
    }

    /// Until nobody has anything left to do: everybody acknowledges.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            self.turn();
            if self.broker.flying.is_empty() && self.broker.told.is_empty() {
                return;
            }
            self.acknowledge(usize::MAX);
        }
        panic!("it does not come to rest");
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.pass_ms(seconds * 1000);
    }

    pub(crate) fn pass_ms(&mut self, ms: u64) {
        self.now += ms;
        self.turn();
    }

    pub(crate) fn submit(&mut self, json: &str) -> Result<Uuid, Refusal> {
        self.submit_as("crm", json)
    }

    pub(crate) fn submit_as(&mut self, sender: &str, json: &str) -> Result<Uuid, Refusal> {
        let request: Request = serde_json::from_str(json).expect("a request");
        let (app, now) = (self.app, self.now);
        match self.engine().submit(app, sender, request, now)? {
            Submitted::New(number) | Submitted::Known(number) => {
                Ok(self.engine().ids().uuid(number))
            }
            Submitted::Dry(_) => panic!("this is no dry run"),
        }
    }

    pub(crate) fn send(&mut self, json: &str) -> Uuid {
        let id = self.submit(json).expect("it is taken");
        self.turn();
        id
    }

    pub(crate) fn message(&mut self, id: Uuid) -> MessageView {
        let app = self.app;
        self.engine().message(app, id).expect("it is known")
    }

    pub(crate) fn funnel(&mut self, id: Uuid) -> Funnel {
        self.message(id).funnel
    }

    pub(crate) fn state(&mut self, id: Uuid) -> State {
        self.message(id).state
    }

    pub(crate) fn number(&mut self, id: Uuid) -> u64 {
        self.engine().ids().number(id).expect("it is one of ours")
    }

    /// How many copies of a message a device got.
    pub(crate) fn got(&mut self, id: Uuid, device: u32) -> u32 {
        let number = self.number(id);
        self.broker.got.get(&(device, number)).map_or(0, |(count, _)| *count)
    }

    /// What a message said to a device.
    pub(crate) fn said(&mut self, id: Uuid, device: u32) -> serde_json::Value {
        let number = self.number(id);
        let (_, text) = self.broker.got.get(&(device, number)).expect("it got it");
        serde_json::from_str(text).expect("JSON")
    }

    /// The devices that got a message.
    pub(crate) fn reached(&mut self, id: Uuid) -> BTreeSet<u32> {
        let number = self.number(id);
        let got = self.broker.got.keys().filter(|(_, message)| *message == number);
        got.map(|(device, _)| *device).collect()
    }
}

/// Rules that hold nothing back.
pub(crate) fn free_policy() -> Policy {
    let mut policy = Policy::default();
    for class in policy.classes.values_mut() {
        class.hours = sextant_policy::Hours::ALL;
        class.per_day = 0;
    }
    policy
}

/// What a message to everyone says.
pub(crate) const TO_ALL: &str = r#"{"target":{"everyone":true},"notification":{"title":"hi"}}"#;
