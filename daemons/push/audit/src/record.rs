//! The payloads of the log's records: what `FORMAT.md` describes. A record is a block of facts, or
//! an event; either begins with the hash of the payload before it.
//!
//! ```text
//!   facts   │ hash before (32) │ form │ facts │ first_at │ span │ entry │ entry │ …
//!   event   │ hash before (32) │ form │ message │ app │ at │ kind │ actor │ detail
//!
//!   entry   │ tag │ group … or device … │ reason? │ time │
//!             tag   = stage (4 bits) │ has a reason (1) │ step (3)
//!             step  = 0–4 the device is so many further, 5 it is further by what follows,
//!                     6 another message follows, 7 another message and app
//! ```
//!
//! Numbers are varints (LEB128). The facts of a block are sorted by message and device, so that
//! most of them differ from the one before by a step and a short time: two to four bytes of a
//! broadcast, and six of a message to one device.

use crate::chain::{HASH_BYTES, Hash};
use crate::fact::{Event, EventKind, Fact, Stage};

/// The kind of a log's record that is a block of facts.
pub(crate) const FACTS: u8 = 1;
/// The kind of a log's record that is an event.
pub(crate) const EVENT: u8 = 2;

/// The form of both that this version writes, and the only one that it reads.
const FORM: u8 = 1;

/// Facts in one block.
pub(crate) const BLOCK_FACTS_MAX: usize = 4096;

/// The longest payload of a record, hash included.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// Form and three varints.
const HEAD_BYTES_MAX: usize = 1 + 3 * VARINT_BYTES_MAX;

/// Tag, message, app, device, reason and time.
const ENTRY_BYTES_MAX: usize = 1 + VARINT_BYTES_MAX + 3 + 5 + 1 + VARINT_BYTES_MAX;

/// The shortest entry: tag and time.
const ENTRY_BYTES_MIN: usize = 2;

const VARINT_BYTES_MAX: usize = 10;

const STAGE_MASK: u8 = 0x0F;
const HAS_REASON: u8 = 0x10;
const STEP_SHIFT: u8 = 5;

/// The steps behind those that say by how much the device is further.
const STEP_FAR: u8 = 5;
const STEP_MESSAGE: u8 = 6;
const STEP_APP: u8 = 7;

const _: () = assert!(
    HASH_BYTES + 1 + 2 * VARINT_BYTES_MAX + 16 + Event::ACTOR_BYTES_MAX + Event::DETAIL_BYTES_MAX
        < PAYLOAD_BYTES_MAX,
    "every event fits in a record"
);

/// A payload that this version does not understand. Since its record was whole, a later version
/// wrote it, or somebody who is not the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the audit has a form that this version does not know")]
pub(crate) struct Unreadable;

type Parsed<T> = Result<T, Unreadable>;

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads what was put.
#[derive(Clone, Copy, Debug)]
struct Take<'a>(&'a [u8]);

impl<'a> Take<'a> {
    fn byte(&mut self) -> Parsed<u8> {
        let (byte, rest) = self.0.split_first().ok_or(Unreadable)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Parsed<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7F);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            // The tenth byte has room for one bit. One number has one spelling.
            if (shift == 63 && bits > 1) || byte == 0 {
                return Err(Unreadable);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn medium(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| Unreadable)
    }

    fn small(&mut self) -> Parsed<u16> {
        u16::try_from(self.number()?).map_err(|_| Unreadable)
    }

    fn bytes(&mut self, bytes_max: usize) -> Parsed<&'a [u8]> {
        let len = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        if len > bytes_max {
            return Err(Unreadable);
        }
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// Makes small numbers of small differences, whatever their sign.
fn zigzag(difference: u64) -> u64 {
    difference << 1 ^ ((difference as i64) >> 63) as u64
}

fn unzigzag(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

/// The payload of a record but for the hash that it begins with, in memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Payload {
    /// The parts that are appended behind the hash.
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.body]
    }

    /// Becomes a block of the first of these facts, as many as it takes, and tells how many. They
    /// are sorted by message and device; there is at least one.
    pub(crate) fn set_facts(&mut self, facts: &[Fact]) -> usize {
        self.head.clear();
        self.body.clear();
        let mut before =
            Fact { message: 0, at: 0, device: 0, app: 0, stage: Stage::Sent, reason: 0 };
        let mut begun = false;
        let (mut first_at, mut last_at) = (u64::MAX, 0);
        let body_bytes_max = PAYLOAD_BYTES_MAX - HASH_BYTES - HEAD_BYTES_MAX;
        let mut taken = 0;
        for fact in facts.iter().take(BLOCK_FACTS_MAX) {
            if self.body.len() + ENTRY_BYTES_MAX > body_bytes_max {
                break;
            }
            self.put_entry(fact, &before, begun);
            (first_at, last_at) = (first_at.min(fact.at), last_at.max(fact.at));
            (before, begun) = (*fact, true);
            taken += 1;
        }
        assert!(taken > 0, "a block has room for its first fact");
        self.head.push(FORM);
        put_number(&mut self.head, taken as u64);
        put_number(&mut self.head, first_at);
        put_number(&mut self.head, last_at - first_at);
        taken
    }

    fn put_entry(&mut self, fact: &Fact, before: &Fact, begun: bool) {
        let body = &mut self.body;
        let reason = if fact.reason == 0 { 0 } else { HAS_REASON };
        let tag = |step: u8| fact.stage.code() | reason | step << STEP_SHIFT;
        if begun && fact.message == before.message && fact.app == before.app {
            let step = fact.device.checked_sub(before.device).expect("devices are sorted");
            match u8::try_from(step) {
                Ok(step) if step < STEP_FAR => body.push(tag(step)),
                _ => {
                    body.push(tag(STEP_FAR));
                    put_number(body, u64::from(step));
                }
            }
        } else {
            let further = fact.message.checked_sub(before.message).expect("messages are sorted");
            let same_app = fact.app == before.app;
            body.push(tag(if same_app { STEP_MESSAGE } else { STEP_APP }));
            put_number(body, further);
            if !same_app {
                put_number(body, u64::from(fact.app));
            }
            put_number(body, u64::from(fact.device));
        }
        if fact.reason != 0 {
            body.push(fact.reason);
        }
        put_number(body, zigzag(fact.at.wrapping_sub(before.at)));
    }

    /// Becomes an event, which was [checked](Event::check).
    pub(crate) fn set_event(&mut self, event: &Event) {
        self.head.clear();
        self.body.clear();
        self.head.push(FORM);
        put_number(&mut self.head, event.message);
        put_number(&mut self.head, u64::from(event.app));
        put_number(&mut self.head, event.at);
        self.head.push(event.kind.0);
        put_number(&mut self.head, event.actor.len() as u64);
        self.head.extend_from_slice(event.actor.as_bytes());
        put_number(&mut self.body, event.detail.len() as u64);
        self.body.extend_from_slice(&event.detail);
    }
}

/// A record's payload, taken apart.
#[derive(Clone, Debug)]
pub(crate) enum Parsing<'a> {
    Facts(Facts<'a>),
    Event(Event),
}

/// The hash that a payload begins with, and what it says.
pub(crate) fn parse(kind: u8, payload: &[u8]) -> Parsed<(Hash, Parsing<'_>)> {
    let (before, rest) = payload.split_first_chunk::<HASH_BYTES>().ok_or(Unreadable)?;
    let mut take = Take(rest);
    if take.byte()? != FORM {
        return Err(Unreadable);
    }
    let parsing = match kind {
        FACTS => Parsing::Facts(Facts::begin(take)?),
        EVENT => Parsing::Event(parse_event(take)?),
        _ => return Err(Unreadable),
    };
    Ok((Hash(*before), parsing))
}

fn parse_event(mut take: Take<'_>) -> Parsed<Event> {
    let message = take.number()?;
    let app = take.small()?;
    let at = take.number()?;
    let kind = EventKind(take.byte()?);
    let actor = take.bytes(Event::ACTOR_BYTES_MAX)?;
    let actor = std::str::from_utf8(actor).map_err(|_| Unreadable)?.into();
    let detail = take.bytes(Event::DETAIL_BYTES_MAX)?.into();
    if !take.0.is_empty() {
        return Err(Unreadable);
    }
    Ok(Event { message, at, app, kind, actor, detail })
}

/// The facts of a block in order. Ends after the first error.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    rest: Take<'a>,
    left: u32,
    begun: bool,
    before: Fact,
    /// The earliest and the latest time that was read.
    seen: (u64, u64),
    /// What the block says of its times.
    pub(crate) first_at: u64,
    pub(crate) last_at: u64,
}

impl<'a> Facts<'a> {
    fn begin(mut take: Take<'a>) -> Parsed<Facts<'a>> {
        let facts = take.medium()?;
        let first_at = take.number()?;
        let last_at = first_at.checked_add(take.number()?).ok_or(Unreadable)?;
        let fits = facts as usize <= take.0.len() / ENTRY_BYTES_MIN;
        if facts == 0 || facts as usize > BLOCK_FACTS_MAX || !fits {
            return Err(Unreadable);
        }
        let before = Fact { message: 0, at: 0, device: 0, app: 0, stage: Stage::Sent, reason: 0 };
        let seen = (u64::MAX, 0);
        Ok(Facts { rest: take, left: facts, begun: false, before, seen, first_at, last_at })
    }

    /// Facts that are still to come.
    pub(crate) fn left(&self) -> usize {
        self.left as usize
    }

    fn take(&mut self) -> Parsed<Fact> {
        let tag = self.rest.byte()?;
        let stage = Stage::from_code(tag & STAGE_MASK).ok_or(Unreadable)?;
        let mut fact = Fact { stage, reason: 0, ..self.before };
        match tag >> STEP_SHIFT {
            _ if !self.begun && tag >> STEP_SHIFT < STEP_MESSAGE => return Err(Unreadable),
            step @ (STEP_MESSAGE | STEP_APP) => {
                let further = self.rest.number()?;
                fact.message = fact.message.checked_add(further).ok_or(Unreadable)?;
                if step == STEP_APP {
                    fact.app = self.rest.small()?;
                }
                fact.device = self.rest.medium()?;
                // What could be said by a shorter step is, and devices are sorted.
                let is_app_other = fact.app != self.before.app;
                let is_sorted = is_app_other && fact.device >= self.before.device;
                if (step == STEP_APP) != is_app_other || (self.begun && further == 0 && !is_sorted)
                {
                    return Err(Unreadable);
                }
            }
            STEP_FAR => {
                let further = self.rest.medium()?;
                if further < u32::from(STEP_FAR) {
                    return Err(Unreadable);
                }
                fact.device = fact.device.checked_add(further).ok_or(Unreadable)?;
            }
            step => {
                let further = u32::from(step);
                fact.device = fact.device.checked_add(further).ok_or(Unreadable)?;
            }
        }
        if tag & HAS_REASON != 0 {
            fact.reason =
                Some(self.rest.byte()?).filter(|reason| *reason != 0).ok_or(Unreadable)?;
        }
        fact.at = fact.at.wrapping_add(unzigzag(self.rest.number()?));
        self.seen = (self.seen.0.min(fact.at), self.seen.1.max(fact.at));
        let is_end = self.left == 1;
        let ends_right = !is_end || self.seen == (self.first_at, self.last_at);
        if !ends_right || is_end != self.rest.0.is_empty() {
            return Err(Unreadable);
        }
        Ok(fact)
    }
}

impl Iterator for Facts<'_> {
    type Item = Parsed<Fact>;

    fn next(&mut self) -> Option<Parsed<Fact>> {
        if self.left == 0 {
            return None;
        }
        let taken = self.take();
        self.left = if taken.is_ok() { self.left - 1 } else { 0 };
        if let Ok(fact) = taken {
            (self.before, self.begun) = (fact, true);
        }
        Some(taken)
    }
}

/// For fuzzing: any bytes as a record, the first its kind. What is read is written as the same
/// bytes again.
#[doc(hidden)]
pub fn fuzz_record(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut payload = Payload::default();
    let before = match parse(*kind, bytes) {
        Err(Unreadable) => return,
        Ok((before, Parsing::Event(event))) => {
            payload.set_event(&event);
            before
        }
        Ok((before, Parsing::Facts(block))) => {
            let Ok(facts) = block.collect::<Parsed<Vec<Fact>>>() else { return };
            assert_eq!(payload.set_facts(&facts), facts.len(), "they came out of one block");
            before
        }
    };
    let [head, body] = payload.parts();
    assert_eq!([&before.0, head, body].concat(), bytes);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fact(message: u64, device: u32, stage: Stage, at: u64) -> Fact {
        Fact { message, at, device, app: 7, stage, reason: 0 }
    }

    /// What is written behind a hash, as one.
    fn payload_of(payload: &Payload, before: Hash) -> Vec<u8> {
        let [head, body] = payload.parts();
        [&before.0[..], head, body].concat()
    }

    fn facts_in(bytes: &[u8]) -> Parsed<Vec<Fact>> {
        match parse(FACTS, bytes)?.1 {
            Parsing::Facts(facts) => facts.collect(),
            Parsing::Event(_) => Err(Unreadable),
        }
    }

    #[test]
    fn a_fact_of_a_broadcast_takes_less_than_four_bytes() {
        let stages = [Stage::Queued, Stage::Sent, Stage::Acknowledged];
        let facts: Vec<Fact> = (0..3000u32)
            .map(|at| (at / 3, at % 3))
            .map(|(device, stage)| {
                let at = 1_700_000_000_000 + u64::from(device) / 20 + u64::from(stage) * 90;
                fact(1 << 40, device, stages[stage as usize], at)
            })
            .collect();
        let mut payload = Payload::default();
        assert_eq!(payload.set_facts(&facts), 3000);
        let bytes = payload_of(&payload, Hash::NONE);
        assert!(bytes.len() < 3000 * 4, "{}", bytes.len());
        assert_eq!(facts_in(&bytes), Ok(facts));
    }

    #[test]
    fn a_block_takes_4096_facts_or_64_kibibytes_of_them() {
        let mut payload = Payload::default();
        let small: Vec<Fact> = (0..5000).map(|device| fact(1, device, Stage::Sent, 9)).collect();
        assert_eq!(payload.set_facts(&small), BLOCK_FACTS_MAX);
        let large: Vec<Fact> = (0..4096u64)
            .map(|n| Fact {
                message: n << 52,
                at: (n % 2) << 63,
                device: u32::MAX,
                app: u16::MAX - (n % 2) as u16,
                stage: Stage::Recalled,
                reason: 255,
            })
            .collect();
        let taken = payload.set_facts(&large);
        let bytes = payload_of(&payload, Hash::NONE);
        assert!((1000..4096).contains(&taken) && bytes.len() <= PAYLOAD_BYTES_MAX, "{taken}");
        assert_eq!(facts_in(&bytes), Ok(large[..taken].to_vec()));
    }

    #[test]
    fn a_number_has_one_spelling() {
        let take = |bytes: &[u8]| Take(bytes).number();
        assert_eq!(take(&[&[0xFF; 9][..], &[1]].concat()), Ok(u64::MAX));
        assert_eq!(take(&[0x80, 0]), Err(Unreadable));
        assert_eq!(take(&[0xFF; 10]), Err(Unreadable));
        assert_eq!(
            take(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]),
            Err(Unreadable)
        );
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        let message = prop_oneof![0..5u64, any::<u64>()];
        let device = prop_oneof![0..20u32, any::<u32>()];
        let at = prop_oneof![1000..1100u64, any::<u64>()];
        (message, at, device, 0..3u16, 0..9u8, prop_oneof![Just(0u8), any::<u8>()]).prop_map(
            |(message, at, device, app, stage, reason)| {
                let stage = Stage::from_code(stage).expect("below the number of stages");
                Fact { message, at, device, app, stage, reason }
            },
        )
    }

    #[test]
    fn what_could_be_said_shorter_or_in_order_is_not_read() {
        let block = |facts: u8, body: &[u8]| {
            let head = [&[0; HASH_BYTES][..], &[FORM, facts, 5, 1]].concat();
            facts_in(&[head, body.to_vec()].concat()).map(|facts| facts.len())
        };
        let step = |step: u8| 2 | step << STEP_SHIFT;
        // Message 9 of app 0 on device 7 at time 5; then on device 8 at time 6.
        let first = [step(6), 9, 7, 10];
        assert_eq!(block(2, &[&first[..], &[step(1), 2]].concat()), Ok(2));
        for wrong in [
            &[step(5), 1, 2][..],
            &[step(6), 0, 8, 2],
            &[step(7), 1, 0, 8, 2],
            &[step(7), 0, 1, 6, 2],
            &[step(1) | HAS_REASON, 0, 2],
            &[step(1), 0],
            &[step(1), 4],
            &[15, 2],
        ] {
            let read = block(2, &[&first[..], wrong].concat());
            assert_eq!(read, Err(Unreadable), "{wrong:?}");
        }
        assert_eq!(block(1, &[step(1), 10]), Err(Unreadable), "nothing was before it");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn facts_come_back_as_they_were(mut facts in proptest::collection::vec(any_fact(), 1..300)) {
            facts.sort_by_key(|fact| (fact.message, fact.device));
            let mut payload = Payload::default();
            prop_assert_eq!(payload.set_facts(&facts), facts.len());
            let bytes = payload_of(&payload, Hash::of(&[b"before"]));
            let (before, _) = parse(FACTS, &bytes).expect("it was just made");
            prop_assert_eq!(before, Hash::of(&[b"before"]));
            prop_assert_eq!(facts_in(&bytes), Ok(facts));
        }

        #[test]
        fn what_is_read_of_a_changed_block_is_written_as_it_was_read(
            mut facts in proptest::collection::vec(any_fact(), 1..12),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        ) {
            facts.sort_by_key(|fact| (fact.message, fact.device));
            let mut payload = Payload::default();
            payload.set_facts(&facts);
            let mut bytes = [&[FACTS][..], &payload_of(&payload, Hash::NONE)].concat();
            for (at, byte) in changes {
                let at = 33 + at % (bytes.len() - 33);
                bytes[at] = byte;
            }
            fuzz_record(&bytes);
        }

        #[test]
        fn no_cut_block_is_read(
            mut facts in proptest::collection::vec(any_fact(), 1..30), cut in any::<usize>()
        ) {
            facts.sort_by_key(|fact| (fact.message, fact.device));
            let mut payload = Payload::default();
            payload.set_facts(&facts);
            let bytes = payload_of(&payload, Hash::NONE);
            prop_assert_eq!(facts_in(&bytes[..cut % bytes.len()]), Err(Unreadable));
            prop_assert_eq!(facts_in(&[&bytes[..], b"\0"].concat()), Err(Unreadable));
        }

        #[test]
        fn events_come_back_as_they_were(
            message in any::<u64>(), at in any::<u64>(), app in any::<u16>(), kind in any::<u8>(),
            actor in ".{0,40}", detail in proptest::collection::vec(any::<u8>(), 0..100)
        ) {
            let kind = EventKind(kind);
            let (actor, detail) = (actor.into(), detail.into());
            let event = Event { message, at, app, kind, actor, detail };
            let mut payload = Payload::default();
            payload.set_event(&event);
            let bytes = payload_of(&payload, Hash::NONE);
            let (_, Parsing::Event(back)) = parse(EVENT, &bytes).expect("it was just made") else {
                panic!("an event is read as facts");
            };
            prop_assert_eq!(back, event);
            for cut in 0..bytes.len() {
                prop_assert!(parse(EVENT, &bytes[..cut]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_read_as_no_more_facts_than_there_is_room_for(
            kind in 0..4u8, mut bytes in proptest::collection::vec(any::<u8>(), 0..400)
        ) {
            if let Some(form) = bytes.get_mut(HASH_BYTES) {
                *form = FORM;
            }
            if let Ok((_, Parsing::Facts(facts))) = parse(kind, &bytes) {
                prop_assert!(facts.left() <= bytes.len() / ENTRY_BYTES_MIN);
                prop_assert!(facts.count() <= bytes.len());
            }
            bytes.insert(0, kind);
            fuzz_record(&bytes);
        }
    }
}
