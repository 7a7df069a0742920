//! What this core has of TLS: how many connections and handshakes, what they take, which failed;
//! and how packets are sealed and sent.

use std::time::Duration;

use bytes::Bytes;
use sextant_ring::core::{ConnId, SendError, Shared};
use sextant_ring::time::Time;
use tracing::info;

use super::super::{Broker, Context};
use super::tls::{Completed, IDLE_BYTES, Tls};
use super::{Over, Transport};
use crate::meters::HandshakeFailed;
use crate::tls::Endpoint;

/// Up to here what is sealed is copied into the page of a turn rather than sent as a run of its
/// own.
const COPY_MAX: usize = 2048;
/// Up to here beginning and rest of a packet are one record.
const JOIN_MAX: usize = 16 << 10;
/// Failed handshakes are told no more often than this: anybody can make them fail.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The connections of a core that speak TLS.
#[derive(Debug, Default)]
pub(in crate::broker) struct Secured {
    total: Load,
    told: Option<Time>,
    /// Failed handshakes that were not told.
    untold: u64,
}

/// What connections take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
    pub(super) bytes: usize,
}

impl Load {
    fn of(transport: &Transport) -> Load {
        let Some(tls) = &transport.tls else { return Load::default() };
        Load {
            connections: 1,
            handshakes: usize::from(tls.is_handshaking()),
            bytes: IDLE_BYTES + tls.extra_bytes(),
        }
    }
}

impl Secured {
    /// What it has of connections, handshakes under way and bytes of memory.
    pub(in crate::broker) fn levels(&self) -> [usize; 3] {
        [self.total.connections, self.total.handshakes, self.total.bytes]
    }

    pub(super) fn is_busy(&self, endpoint: &Endpoint) -> bool {
        self.total.handshakes >= endpoint.handshakes_max()
    }

    pub(super) fn before(&self, transport: &Transport) -> Load {
        Load::of(transport)
    }

    pub(super) fn after(&mut self, before: Load, transport: &Transport) {
        self.change(before, Load::of(transport));
    }

    /// A connection has come, or goes.
    pub(super) fn note(&mut self, before: Option<&Transport>, after: Option<&Transport>) {
        let load = |transport: Option<&Transport>| transport.map_or(Load::default(), Load::of);
        self.change(load(before), load(after));
    }

    fn change(&mut self, before: Load, after: Load) {
        let Load { connections, handshakes, bytes } = &mut self.total;
        *connections = *connections + after.connections - before.connections;
        *handshakes = *handshakes + after.handshakes - before.handshakes;
        *bytes = *bytes + after.bytes - before.bytes;
    }
}

impl Broker {
    /// Counts how a handshake went on, and tells of one that failed.
    pub(super) fn note_handshake(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        before: Load,
        completed: Option<Completed>,
    ) {
        if let Some(completed) = completed {
            self.meters.core.inc(self.meters.names.handshakes[completed as usize]);
        }
        let Some(transport) = self.conn(conn).and_then(|held| held.transport()) else { return };
        let began = before == Load::default();
        let (why, what) = match &transport.over {
            Some(Over::Tls(fault)) if before.handshakes > 0 || began => {
                (fault.of_handshake(), fault.explain())
            }
            Some(over @ Over::Busy) => (HandshakeFailed::Busy, over.to_string()),
            Some(over @ Over::NotSecure) => (HandshakeFailed::NotSecure, over.to_string()),
            _ => return,
        };
        let proxied = transport.peer();
        self.meters.core.inc(self.meters.names.handshakes_failed[why as usize]);
        let now = cx.now();
        if self.secured.told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            self.secured.untold += 1;
            return;
        }
        self.secured.told = Some(now);
        let untold = Some(std::mem::take(&mut self.secured.untold)).filter(|untold| *untold > 0);
        let proxied = proxied.map(tracing::field::display);
        info!(why = %what, proxied, untold, "a TLS handshake failed");
    }

    /// A connection is being forgotten.
    pub(super) fn forget_secured(&mut self, transport: &Transport) {
        let load = self.secured.before(transport);
        if load.handshakes > 0 {
            let unfinished = HandshakeFailed::Unfinished as usize;
            self.meters.core.inc(self.meters.names.handshakes_failed[unfinished]);
        }
        self.secured.note(Some(transport), None);
    }
}

/// Sends a packet that is in two parts.
pub(super) fn send(
    cx: &mut Context,
    conn: ConnId,
    tls: &mut Tls,
    head: &mut Vec<u8>,
    rest: &[u8],
) -> Result<(), SendError> {
    admit(cx, conn, Tls::sealed_bytes_max(head.len()) + Tls::sealed_bytes_max(rest.len()))?;
    let mut records = Vec::new();
    let sealed = if head.len() + rest.len() <= JOIN_MAX {
        head.extend_from_slice(rest);
        tls.seal(head, &mut records)
    } else {
        tls.seal(head, &mut records).and_then(|()| tls.seal(rest, &mut records))
    };
    sealed.map_err(|_| SendError::Closed)?;
    put(cx, conn, records)
}

/// Sends what was shared with others.
pub(super) fn send_shared(
    cx: &mut Context,
    conn: ConnId,
    tls: &mut Tls,
    shared: &Shared,
) -> Result<(), SendError> {
    admit(cx, conn, Tls::sealed_bytes_max(shared.len()))?;
    let mut records = Vec::new();
    tls.seal(cx.shared_bytes(shared), &mut records).map_err(|_| SendError::Closed)?;
    put(cx, conn, records)
}

/// Whether there will be room: what is sealed has its number, and has to be sent.
fn admit(cx: &mut Context, conn: ConnId, bytes: usize) -> Result<(), SendError> {
    if cx.room(conn).ok_or(SendError::Closed)? < bytes {
        cx.tell_drained(conn);
        return Err(SendError::Full);
    }
    Ok(())
}

fn put(cx: &mut Context, conn: ConnId, records: Vec<u8>) -> Result<(), SendError> {
    match records.len() <= COPY_MAX {
        true => cx.send_copy(conn, &records),
        false => cx.send(conn, Bytes::from(records)),
    }
}
