//! The record of a will.

use bytes::Bytes;
use sextant_mqtt::QoS;

use super::{Parsed, Put, Take, Unreadable};

/// A will record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct WillRecord {
    pub(in crate::broker) number: u64,
    pub(in crate::broker) client_id: Box<str>,
    pub(in crate::broker) user: Box<str>,
    pub(in crate::broker) topic: Box<str>,
    /// The MQTT 5 properties that go to every receiver.
    pub(in crate::broker) forward: Bytes,
    pub(in crate::broker) payload: Bytes,
    pub(in crate::broker) qos: QoS,
    pub(in crate::broker) retain: bool,
    /// Seconds that it lives once published; zero is for ever.
    pub(in crate::broker) expiry_s: u32,
    /// Seconds that it waits for its client to come back.
    pub(in crate::broker) delay_s: u32,
}

impl WillRecord {
    pub(in crate::broker) fn put(&self, out: &mut Vec<u8>) {
        out.number(self.number);
        out.bytes(self.client_id.as_bytes());
        out.bytes(self.user.as_bytes());
        out.bytes(self.topic.as_bytes());
        out.byte(self.qos as u8 | u8::from(self.retain) << 2);
        out.number(u64::from(self.expiry_s));
        out.number(u64::from(self.delay_s));
        out.bytes(&self.forward);
        out.bytes(&self.payload);
    }

    pub(in crate::broker) fn take(record: Bytes) -> Parsed<WillRecord> {
        let mut from = Take::new(record);
        let number = from.number()?;
        let (client_id, user, topic) = (from.text()?, from.text()?, from.text()?);
        let flags = from.byte()?;
        Ok(WillRecord {
            number,
            client_id,
            user,
            topic,
            qos: QoS::from_u8(flags & 3).ok_or(Unreadable)?,
            retain: flags & 4 != 0,
            expiry_s: from.medium()?,
            delay_s: from.medium()?,
            forward: from.bytes()?,
            payload: from.bytes()?,
        })
    }
}
