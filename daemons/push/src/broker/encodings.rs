//! A QoS 0 message on its way to many, and its encodings: one for each version, RETAIN flag, framing
//! and way to name its topic, made when the first receiver wants it and the same bytes for all others. Where it goes,
//! and whether it may, is for its callers to know.

use bytes::Bytes;
use sextant_mqtt::{
    Delivery, ForwardProperties, Link, PublishHead, SubscriptionId, SubscriptionIds, Version,
};
use sextant_ring::core;

use super::Context;
use super::aliases::{Alias, Naming};
use super::message::Incoming;
use super::publish::Wanted;
use super::transport::Framing;

/// A QoS 0 message on its way to many: its encodings, each made once.
pub(super) struct Shared<'a> {
    incoming: &'a Incoming<'a>,
    /// Of its topic.
    alias: Option<Alias>,
    /// By version, RETAIN flag, framing and naming, each on a lane of its own.
    encoded: [Option<Encoded>; Context::LANES],
    /// The same for those for whom it has to wait.
    kept: Option<Box<[Option<Bytes>; Context::LANES]>>,
    payload: Option<Bytes>,
}

/// A packet for many.
pub(super) struct Encoded {
    pub(super) sent: core::Shared,
    /// The packet's length, without its framing.
    pub(super) packet_bytes: usize,
}

impl<'a> Shared<'a> {
    pub(super) fn new(incoming: &'a Incoming<'a>) -> Shared<'a> {
        let encoded = [const { None }; Context::LANES];
        Shared { incoming, alias: None, encoded, kept: None, payload: None }
    }

    /// With an alias for those who take it.
    pub(super) fn with_alias(self, alias: Option<Alias>) -> Shared<'a> {
        Shared { alias, ..self }
    }

    /// How its topic is named to a client.
    #[inline]
    pub(super) fn naming(&self, link: &Link, retain: bool) -> Naming {
        /// Header and lengths.
        const HEAD_BYTES_MAX: usize = 32;
        let Some(alias) = self.alias.filter(|_| !retain) else { return Naming::Topic };
        let Incoming { topic, payload, forward, .. } = self.incoming;
        let bytes = HEAD_BYTES_MAX + topic.len() + forward.len() + payload.len();
        Naming::of(Some(alias), link, bytes)
    }

    pub(super) fn incoming(&self) -> &'a Incoming<'a> {
        self.incoming
    }

    pub(super) fn head(&self, retain: bool, unix_ms: u64) -> PublishHead<'a> {
        PublishHead {
            retain,
            message_expiry_s: seconds_left(self.incoming.expires_at, unix_ms),
            forward: ForwardProperties::trusted(self.incoming.forward),
            ..PublishHead::new(
                Delivery::AtMostOnce,
                self.incoming.topic,
                self.incoming.payload.len(),
            )
        }
    }

    /// The whole packet for all clients of a version that want it plain, and know its topic so.
    pub(super) fn packet(
        &mut self,
        cx: &mut Context,
        scratch: &mut Vec<u8>,
        version: Version,
        retain: bool,
        framing: Framing,
        naming: Naming,
    ) -> Option<&Encoded> {
        let lane = lane(version, retain, framing, naming);
        if self.encoded[lane].is_none() {
            self.encode(version, retain, naming, cx.clock().unix_ms, scratch)?;
            let packet_bytes = scratch.len();
            framing.apply(scratch);
            self.encoded[lane] = Some(Encoded { sent: cx.share(lane, scratch), packet_bytes });
        }
        self.encoded[lane].as_ref()
    }

    /// The packet's bytes; `None` if it cannot be said.
    pub(super) fn encode(
        &self,
        version: Version,
        retain: bool,
        naming: Naming,
        unix_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        out.clear();
        let (topic, topic_alias) = naming.fields(self.incoming.topic);
        let head = PublishHead { topic, topic_alias, ..self.head(retain, unix_ms) };
        head.encode(version, out).ok()?;
        out.extend_from_slice(self.incoming.payload);
        Some(())
    }

    /// The whole packet for one client, to wait for it; `None` if it takes none so large.
    pub(super) fn kept(
        &mut self,
        scratch: &mut Vec<u8>,
        link: &Link,
        wanted: &Wanted<'_>,
        framing: Framing,
        unix_ms: u64,
    ) -> Option<Bytes> {
        let lane = lane(link.version(), wanted.retain, framing, Naming::Topic);
        let plain = wanted.is_plain();
        let packet_bytes_max = link.peer_packet_bytes_max() as usize;
        if let Some(kept) = self.kept.as_ref().and_then(|kept| kept[lane].as_ref())
            && plain
            && kept.len() <= packet_bytes_max
        {
            return Some(kept.clone());
        }
        let ids = subscription_ids(&wanted.subscription_ids());
        let head = PublishHead {
            subscription_ids: SubscriptionIds::new(&ids),
            ..self.head(wanted.retain, unix_ms)
        };
        scratch.clear();
        link.publish_head(&head, scratch).ok()?;
        scratch.extend_from_slice(self.incoming.payload);
        framing.apply(scratch);
        let packet = Bytes::copy_from_slice(scratch);
        if plain {
            self.kept.get_or_insert_default()[lane] = Some(packet.clone());
        }
        Some(packet)
    }

    pub(super) fn payload(&mut self) -> Bytes {
        let payload = self.incoming.payload;
        self.payload.get_or_insert_with(|| Bytes::copy_from_slice(payload)).clone()
    }
}

/// The lane of the packets that are alike for all clients of a version and framing that know the
/// topic so. What is retained has no alias.
pub(super) fn lane(version: Version, retain: bool, framing: Framing, naming: Naming) -> usize {
    match naming {
        Naming::Topic => {
            framing as usize * 4 + usize::from(version == Version::V5) * 2 + usize::from(retain)
        }
        Naming::Both(_) => 8 + framing as usize,
        Naming::Alias(_) => 10 + framing as usize,
    }
}

/// What is left of a message's life, for MQTT 5 `[MQTT-3.3.2-6]`.
pub(super) fn seconds_left(expires_at: u64, unix_ms: u64) -> Option<u32> {
    if expires_at == 0 {
        return None;
    }
    let left = expires_at.saturating_sub(unix_ms).div_ceil(1000);
    Some(u32::try_from(left).unwrap_or(u32::MAX))
}

pub(super) fn subscription_ids(ids: &[u32]) -> Vec<SubscriptionId> {
    ids.iter().filter_map(|id| SubscriptionId::new(*id)).collect()
}
