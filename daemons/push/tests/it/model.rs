//! What was promised, and whether it was kept. The model hears what clients and senders saw, and
//! nothing of what happens inside the broker.
//!
//! A promise is made when an acknowledgement arrives, to whoever had seen a SUBACK before the
//! message was first sent. What was sent and never acknowledged may arrive or not.

use std::collections::{BTreeMap, BTreeSet};

use sextant_mqtt::topic::Filter;
use sextant_mqtt::{QoS, topic};

/// The number of a message: its payload begins with it.
pub(crate) type MsgId = usize;

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum From {
    Client(usize),
    Push,
    /// Each device gets it on a topic of its own.
    Platform,
    /// The will of a client.
    Will(usize),
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Msg {
    pub(crate) from: From,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) len: usize,
    /// Its place among all that its sender sent to this topic.
    pub(crate) place: u64,
    /// It may not be there any more when somebody comes to get it.
    pub(crate) expires: bool,
    /// When it was first sent, in events of this model.
    pub(crate) sent: Option<u64>,
    pub(crate) acknowledged: Option<u64>,
    /// Its sender was told no.
    pub(crate) refused: bool,
}

impl Msg {
    /// The bytes that carry it; none for one that clears a retained message.
    pub(crate) fn payload(&self, id: MsgId) -> Vec<u8> {
        if self.len == 0 {
            return Vec::new();
        }
        let mut payload = (id as u64).to_le_bytes().to_vec();
        payload.extend((0..self.len).map(|at| (id * 31 + at) as u8));
        payload
    }
}

/// A subscription as its client knows it.
#[derive(Clone, Debug)]
struct Sub {
    qos: QoS,
    no_local: bool,
    /// When its SUBACK was seen.
    granted: Option<u64>,
}

/// Whether a subscription may bring what is published to a topic. What it has to bring is said of
/// those alone that are not shared: [`topic::matches`] knows no `$share`.
fn covers(filter: &str, name: &str) -> bool {
    let filter = Filter::parse(filter).map_or(filter, |parsed| parsed.filter);
    topic::matches(filter, name)
}

/// What is known of one client's session.
#[derive(Debug, Default)]
struct Session {
    persistent: bool,
    subs: BTreeMap<String, Sub>,
    /// Filters that it ever asked for.
    asked: BTreeSet<String>,
    /// Messages that it has to get.
    owed: BTreeSet<MsgId>,
    /// How often it got each message, and at which QoS at least.
    got: BTreeMap<MsgId, (u32, QoS)>,
    /// The place of the last message that came for the first time, by sender, topic, the QoS that
    /// it was sent with, and the one that it came with.
    last: BTreeMap<(From, String, QoS, QoS), (u64, MsgId)>,
    /// Messages before this one are none of its business: it began anew.
    floor: MsgId,
    /// For a filter that is being subscribed to, what a topic's retained message has to be.
    retained_floor: BTreeMap<String, u64>,
}

/// The model.
#[derive(Debug, Default)]
pub(crate) struct Model {
    events: u64,
    pub(crate) messages: Vec<Msg>,
    places: BTreeMap<(From, String), u64>,
    sessions: Vec<Session>,
    pub(crate) deliveries: u64,
    /// Virtual time, microseconds, for whoever reads what is told.
    pub(crate) now_us: u64,
    /// Messages may be refused for want of room. One whose sender does not hear of that comes late,
    /// when it is sent again.
    pub(crate) refusals: bool,
    /// What a client sends may take so long that its keep-alive is over.
    pub(crate) clients_may_be_late: bool,
    /// The broker crashed.
    pub(crate) crashed: bool,
    /// Every event is told on standard error.
    pub(crate) tells: bool,
}

impl Model {
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            eprintln!("{:9} {}", self.now_us, what());
        }
    }

    pub(crate) fn add_client(&mut self, persistent: bool) -> usize {
        self.sessions.push(Session { persistent, ..Session::default() });
        self.sessions.len() - 1
    }

    fn event(&mut self) -> u64 {
        self.events += 1;
        self.events
    }

    /// A message that is about to be sent.
    pub(crate) fn new_message(
        &mut self,
        from: From,
        topic: &str,
        qos: QoS,
        retain: bool,
        len: usize,
    ) -> MsgId {
        let place = self.places.entry((from, topic.to_owned())).or_default();
        *place += 1;
        self.messages.push(Msg {
            from,
            topic: topic.to_owned(),
            qos,
            retain,
            len,
            place: *place,
            expires: false,
            sent: None,
            acknowledged: None,
            refused: false,
        });
        self.messages.len() - 1
    }

    pub(crate) fn sent(&mut self, id: MsgId) {
        let now = self.event();
        self.tell(|| format!("message {id} is sent: {:?}", self.messages[id]));
        self.messages[id].sent.get_or_insert(now);
    }

    /// The sender saw the acknowledgement: whoever was subscribed has to get it.
    pub(crate) fn acknowledged(&mut self, id: MsgId) {
        let now = self.event();
        self.tell(|| format!("message {id} is acknowledged"));
        let message = &mut self.messages[id];
        if message.acknowledged.is_some() {
            return;
        }
        message.acknowledged = Some(now);
        let message = message.clone();
        if message.expires || message.len == 0 || message.qos == QoS::AtMostOnce {
            return;
        }
        let sent = message.sent.expect("it was sent before it was acknowledged");
        for (client, session) in self.sessions.iter_mut().enumerate() {
            let own = message.from == From::Client(client);
            let owed = session.subs.iter().any(|(filter, sub)| {
                sub.qos > QoS::AtMostOnce
                    && sub.granted.is_some_and(|granted| granted < sent)
                    && !(own && sub.no_local)
                    && topic::matches(filter, &message.topic)
            });
            // A session that takes all its matches at QoS 0 is owed nothing; one of QoS 1 decides.
            if session.persistent && owed && id >= session.floor && !session.got.contains_key(&id) {
                session.owed.insert(id);
            }
        }
    }

    pub(crate) fn refused(&mut self, id: MsgId) {
        self.messages[id].refused = true;
    }

    /// A push was accepted for a device, that will get it whenever it comes.
    pub(crate) fn accepted_for(&mut self, id: MsgId, client: usize) {
        let now = self.event();
        let message = &mut self.messages[id];
        message.acknowledged = Some(now);
        let owes = !message.expires && message.qos > QoS::AtMostOnce;
        let session = &mut self.sessions[client];
        if owes && id >= session.floor && !session.got.contains_key(&id) {
            session.owed.insert(id);
        }
    }

    // --- Subscribing ---

    pub(crate) fn subscribing(&mut self, client: usize, filter: &str, qos: QoS, no_local: bool) {
        self.tell(|| format!("client {client} subscribes to {filter:?} at {qos:?}"));
        let sub = Sub { qos, no_local, granted: None };
        let floors: Vec<(String, u64)> = self
            .retained_topics()
            .filter(|topic| topic::matches(filter, topic))
            .map(|topic| (topic.clone(), self.retained_place(&topic)))
            .collect();
        let session = &mut self.sessions[client];
        session.subs.insert(filter.to_owned(), sub);
        session.asked.insert(filter.to_owned());
        for (topic, place) in floors {
            session.retained_floor.entry(topic).or_insert(place);
        }
    }

    pub(crate) fn subscribed(&mut self, client: usize, filter: &str) {
        let now = self.event();
        self.tell(|| format!("client {client} has subscribed to {filter:?}"));
        if let Some(sub) = self.sessions[client].subs.get_mut(filter) {
            sub.granted = Some(now);
        }
    }

    /// Whether a client has seen a filter granted.
    pub(crate) fn is_granted(&self, client: usize, filter: &str) -> bool {
        self.sessions[client].subs.get(filter).is_some_and(|sub| sub.granted.is_some())
    }

    pub(crate) fn unsubscribing(&mut self, client: usize, filter: &str) {
        self.tell(|| format!("client {client} unsubscribes from {filter:?}"));
        self.sessions[client].subs.remove(filter);
    }

    pub(crate) fn filters(&self, client: usize) -> Vec<String> {
        self.sessions[client].subs.keys().cloned().collect()
    }

    /// What was asked for on a connection that is gone, and not granted, is not known to be there.
    pub(crate) fn disconnected(&mut self, client: usize) {
        self.tell(|| format!("client {client} has no connection"));
        let session = &mut self.sessions[client];
        if !session.persistent {
            session.subs.clear();
            session.retained_floor.clear();
        }
        session.subs.retain(|_, sub| sub.granted.is_some());
    }

    /// The client begins anew, or found that its session has ended.
    pub(crate) fn session_is_new(&mut self, client: usize) {
        let floor = self.messages.len();
        let session = &mut self.sessions[client];
        let (persistent, asked) = (session.persistent, std::mem::take(&mut session.asked));
        *session = Session { persistent, asked, floor, ..Session::default() };
    }

    // --- Delivery ---

    /// A message reached a client's application.
    pub(crate) fn delivered(
        &mut self,
        client: usize,
        name: &str,
        qos: QoS,
        retain: bool,
        payload: &[u8],
    ) {
        self.deliveries += 1;
        let session = &mut self.sessions[client];
        assert!(
            session.asked.iter().any(|filter| covers(filter, name)),
            "client {client} got {name:?}, and never subscribed to it"
        );
        let Some(id) = payload.first_chunk().map(|id| u64::from_le_bytes(*id) as MsgId) else {
            assert!(payload.is_empty(), "a payload begins with its message's number");
            return;
        };
        if self.tells {
            eprintln!("{:9} client {client} got message {id} at {qos:?}", self.now_us);
        }
        let Some(message) = self.messages.get(id) else { panic!("nobody sent message {id}") };
        assert_eq!(message.payload(id), payload, "message {id} came changed");
        if message.from == From::Platform {
            let device = name.strip_prefix("d/").and_then(|rest| rest.strip_suffix("/push"));
            assert!(device.is_some(), "message {id} came on {name:?}");
        } else {
            assert_eq!(message.topic, name, "message {id} came with another topic");
        }
        assert!(message.sent.is_some(), "message {id} came before it was sent");
        assert!(qos <= message.qos, "message {id} came with a higher QoS");
        session.owed.remove(&id);
        if retain {
            // A core whose log has failed takes what it missed with its next start.
            if let Some(floor) = session.retained_floor.get(name).filter(|_| !self.refusals) {
                assert!(
                    message.place >= *floor,
                    "client {client} subscribed and got message {id} (number {} of {name:?}), when \
                     number {floor} had been acknowledged",
                    message.place
                );
            }
            return;
        }
        if id < session.floor {
            return;
        }
        let (count, least) = session.got.entry(id).or_insert((0, qos));
        *count += 1;
        *least = qos.min(*least);
        if *count > 1 {
            assert!(
                *least < QoS::ExactlyOnce,
                "client {client} got message {id} on {name:?} twice, at QoS 2"
            );
            return;
        }
        // What was first sent before the subscription, or comes at QoS 0, or has expired once, may
        // come late: when its sender sends it again.
        let own = message.from == From::Client(client);
        let in_order = session.subs.iter().any(|(filter, sub)| {
            sub.qos > QoS::AtMostOnce
                && sub.granted.is_some_and(|granted| Some(granted) < message.sent)
                && !(own && sub.no_local)
                && topic::matches(filter, name)
        });
        // That a QoS 0 push waits for its device no longer may not be on disk before it is sent;
        // if that was in vain, it waits again after a crash.
        let waits_again = self.crashed && message.from == From::Push && qos == QoS::AtMostOnce;
        // Each is of a connection of its own, and these may come in another order.
        let is_will = matches!(message.from, From::Will(_));
        let again = message.from == From::Platform;
        if !in_order || waits_again || is_will || again || message.expires || self.refusals {
            return;
        }
        let key = (message.from, name.to_owned(), message.qos, qos);
        let last = session.last.insert(key, (message.place, id));
        if let Some((place, before)) = last {
            assert!(
                place < message.place,
                "client {client} got message {id} behind {before}, which was sent later, both on \
                 {name:?} at {qos:?}: {message:?}, {:?}",
                self.messages[before]
            );
        }
    }

    /// How often a client got a message.
    pub(crate) fn got(&self, client: usize, id: MsgId) -> u32 {
        self.sessions[client].got.get(&id).map_or(0, |(count, _)| *count)
    }

    /// Whether every promise was kept; if not, which was not.
    pub(crate) fn owed(&self) -> Option<String> {
        self.sessions.iter().enumerate().find_map(|(client, session)| {
            let id = *session.owed.first()?;
            let message = &self.messages[id];
            Some(format!(
                "client {client} is owed {} messages, the first of them {id}: {message:?}",
                session.owed.len()
            ))
        })
    }

    /// Whether a client's session began after this message was made.
    pub(crate) fn began_after(&self, client: usize, id: MsgId) -> bool {
        id < self.sessions[client].floor
    }

    /// Whether a client gets what another one, or itself, publishes to a topic; `None` if it cannot
    /// know, having asked for something on a connection that was lost.
    pub(crate) fn takes(&self, client: usize, from: usize, name: &str) -> Option<bool> {
        let session = &self.sessions[client];
        let granted = session.subs.iter().any(|(filter, sub)| {
            sub.granted.is_some()
                && !(sub.no_local && from == client)
                && topic::matches(filter, name)
        });
        let asked = || session.asked.iter().any(|filter| covers(filter, name));
        if granted { Some(true) } else { Some(false).filter(|_| !asked()) }
    }

    // --- Retained messages ---

    fn retained_topics(&self) -> impl Iterator<Item = String> {
        let retained = self.messages.iter().filter(|message| message.retain);
        let topics: BTreeSet<String> = retained.map(|message| message.topic.clone()).collect();
        topics.into_iter()
    }

    /// The place of the last message of a topic that was acknowledged as retained.
    fn retained_place(&self, topic: &str) -> u64 {
        let acknowledged = self.messages.iter().filter(|message| {
            message.retain && message.topic == topic && message.acknowledged.is_some()
        });
        acknowledged.map(|message| message.place).max().unwrap_or(0)
    }

    /// For each topic on which one sender retained messages, those that may be there now; `None`
    /// among them stands for nothing.
    pub(crate) fn retained(&self) -> BTreeMap<String, BTreeSet<Option<MsgId>>> {
        let mut found: BTreeMap<String, BTreeSet<Option<MsgId>>> = BTreeMap::new();
        for topic in self.retained_topics() {
            let last = self.retained_place(&topic);
            let all = self.messages.iter().enumerate();
            let may = all.filter(|(_, message)| {
                message.retain
                    && message.topic == topic
                    && message.sent.is_some()
                    && message.place >= last
            });
            let mut may: BTreeSet<Option<MsgId>> =
                may.map(|(id, message)| Some(id).filter(|_| message.len > 0)).collect();
            if last == 0 {
                may.insert(None);
            }
            found.insert(topic, may);
        }
        found
    }
}
