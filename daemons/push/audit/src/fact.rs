//! What the audit says: facts, of one message on one device, and events, of a message as a whole
//! or of the platform.

use std::fmt;

/// One thing that happened to one message on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// The platform's number of the message.
    pub message: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The platform's number of the device.
    pub device: u32,
    /// The app that the message is of.
    pub app: u16,
    /// What happened.
    pub stage: Stage,
    /// Why, by a code of the caller's own; zero is none.
    pub reason: u8,
}

const _: () = assert!(size_of::<Fact>() == 24, "millions of facts wait in memory");

/// How far a message has come on a device. The numbers are those on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Stage {
    /// It is to go to this device.
    Accepted = 0,
    /// It waits for the device.
    Queued = 1,
    /// It was written to the device's connection.
    Sent = 2,
    /// The device has it.
    Acknowledged = 3,
    /// The device has shown it.
    Shown = 4,
    /// Somebody has opened it there.
    Clicked = 5,
    /// It will not go to the device; the reason says why.
    Dropped = 6,
    /// Its time was over before the device had it.
    Expired = 7,
    /// It was taken back.
    Recalled = 8,
}

impl Stage {
    /// All of them, each at its number.
    pub const ALL: [Stage; 9] = [
        Stage::Accepted,
        Stage::Queued,
        Stage::Sent,
        Stage::Acknowledged,
        Stage::Shown,
        Stage::Clicked,
        Stage::Dropped,
        Stage::Expired,
        Stage::Recalled,
    ];

    /// The stage of a number, if there is one.
    pub fn from_code(code: u8) -> Option<Stage> {
        Stage::ALL.get(usize::from(code)).copied()
    }

    /// Its number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Its name, as in an export.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Accepted => "accepted",
            Stage::Queued => "queued",
            Stage::Sent => "sent",
            Stage::Acknowledged => "acknowledged",
            Stage::Shown => "shown",
            Stage::Clicked => "clicked",
            Stage::Dropped => "dropped",
            Stage::Expired => "expired",
            Stage::Recalled => "recalled",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stages(u16);

const _: () = assert!(Stage::ALL.len() < 15, "a stage is a bit of a set, and half a byte on disk");

impl Stages {
    /// Every stage.
    pub const ALL: Stages = Stages(u16::MAX);
    /// No stage.
    pub const NONE: Stages = Stages(0);

    /// This set and one more.
    #[must_use]
    pub fn with(self, stage: Stage) -> Stages {
        Stages(self.0 | 1 << stage.code())
    }

    /// Whether a stage is in it.
    pub fn has(self, stage: Stage) -> bool {
        self.0 & 1 << stage.code() != 0
    }

    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Stages {
        Stages(bits)
    }
}

impl FromIterator<Stage> for Stages {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Stages {
        stages.into_iter().fold(Stages::NONE, Stages::with)
    }
}

/// What an event is about: a number of the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKind(pub u8);

/// Something that happened to a message as a whole, or to the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The platform's number of the message; zero if it is about none.
    pub message: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The app that it is about.
    pub app: u16,
    /// What it is about.
    pub kind: EventKind,
    /// Who did it; at most [`Event::ACTOR_BYTES_MAX`] long.
    pub actor: Box<str>,
    /// What there is to say of it: a JSON object, at most [`Event::DETAIL_BYTES_MAX`] long.
    pub detail: Box<[u8]>,
}

impl Event {
    /// The longest actor, in bytes.
    pub const ACTOR_BYTES_MAX: usize = 512;
    /// The longest detail, in bytes.
    pub const DETAIL_BYTES_MAX: usize = 48 << 10;

    /// Whether it can be written.
    ///
    /// # Errors
    /// What of it cannot.
    pub fn check(&self) -> Result<(), EventError> {
        if self.actor.len() > Self::ACTOR_BYTES_MAX {
            return Err(EventError::Actor);
        }
        if self.detail.len() > Self::DETAIL_BYTES_MAX {
            return Err(EventError::DetailTooLong);
        }
        if !is_json_object(&self.detail) {
            return Err(EventError::Detail);
        }
        Ok(())
    }
}

/// Whether bytes are one JSON object and nothing else but white space, nested no deeper than
/// readers of JSON bear.
pub(crate) fn is_json_object(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(bytes).is_ok_and(|value| value.is_object())
}

/// Why an event cannot be written: the caller's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// See [`Event::ACTOR_BYTES_MAX`].
    #[error("the actor of an event is too long")]
    Actor,
    /// See [`Event::DETAIL_BYTES_MAX`].
    #[error("the detail of an event is too long")]
    DetailTooLong,
    /// The detail is something else.
    #[error("the detail of an event is no JSON object")]
    Detail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_found_by_its_number_and_nothing_else_is() {
        for code in 0..=u8::MAX {
            let stage = Stage::from_code(code);
            assert_eq!(stage.map(Stage::code), Some(code).filter(|code| *code < 9), "{code}");
        }
    }

    #[test]
    fn a_set_has_the_stages_that_it_was_made_of() {
        let set = Stages::NONE.with(Stage::Sent).with(Stage::Dropped);
        let has: Vec<Stage> = Stage::ALL.into_iter().filter(|stage| set.has(*stage)).collect();
        assert_eq!(has, [Stage::Sent, Stage::Dropped]);
        assert!(Stage::ALL.into_iter().all(|stage| Stages::ALL.has(stage)));
        assert_eq!(Stages::from_iter(has), set);
    }

    #[test]
    fn an_event_has_an_object_for_detail_and_an_actor_of_bounded_length() {
        let event = |actor: &str, detail: &[u8]| {
            let (actor, detail) = (actor.into(), detail.into());
            Event { message: 1, at: 2, app: 3, kind: EventKind(4), actor, detail }.check()
        };
        assert_eq!(event("a", b" {\"a\": [1, {}]}\n"), Ok(()));
        for wrong in [&b""[..], b"[]", b"{", b"{}{}", b"null", b"\xFF", b"{\"a\":\xFF}"] {
            assert_eq!(event("a", wrong), Err(EventError::Detail), "{wrong:?}");
        }
        let nested = [b"{\"a\":".repeat(5000), b"1".to_vec(), b"}".repeat(5000)].concat();
        assert_eq!(event("a", &nested), Err(EventError::Detail));
        let long = [b"{\"a\":\"".to_vec(), vec![b'x'; 48 << 10], b"\"}".to_vec()].concat();
        assert_eq!(event("a", &long), Err(EventError::DetailTooLong));
        assert_eq!(event(&"a".repeat(513), b"{}"), Err(EventError::Actor));
    }
}
