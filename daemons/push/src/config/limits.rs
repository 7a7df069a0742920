//! The settings under `[limits]`: how fast clients may come and publish, so that a storm of them
//! is taken in at a pace that everybody else can bear. Zero is no limit, and the default.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_service::config::{Bytes, Faults, Span};

/// More than any machine does; what is configured beyond is a typing error.
const PER_SECOND_MAX: u64 = 1_000_000_000;

/// The settings under `[limits]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CONNECT packets that are let in a second, all cores together, each core its share of them.
    /// As many as a second lets in may come at once; what is beyond waits for its turn. 0 is no
    /// limit.
    pub connects_per_second: u32,
    /// CONNECT packets that wait for their turn, all cores together; those beyond are refused.
    pub connects_waiting_max: u32,
    /// How long one may wait. One that would have to wait longer is refused at once.
    pub connect_wait_max: Span,
    /// PUBLISH packets a second of one client; of what is beyond, two seconds' worth is taken at
    /// once, and then it is not read from. 0 is no limit.
    pub client_messages_per_second: u32,
    /// Their bytes, headers included.
    pub client_bytes_per_second: Bytes,
    /// PUBLISH packets a second of all clients together; each core takes its share of them.
    pub messages_per_second: u32,
    /// Traces of clients at once.
    pub traces_max: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connects_per_second: 0,
            connects_waiting_max: 100_000,
            connect_wait_max: Span::secs(20),
            client_messages_per_second: 0,
            client_bytes_per_second: Bytes::new(0),
            messages_per_second: 0,
            traces_max: 16,
        }
    }
}

impl Limits {
    pub(super) fn check(&self, faults: &mut Faults<'_>) {
        for (key, value) in [
            ("limits.connects_per_second", u64::from(self.connects_per_second)),
            ("limits.client_messages_per_second", u64::from(self.client_messages_per_second)),
            ("limits.messages_per_second", u64::from(self.messages_per_second)),
        ] {
            faults.require(
                key,
                value <= PER_SECOND_MAX,
                format_args!("must be at most {PER_SECOND_MAX}; 0 is no limit"),
            );
        }
        faults.require(
            "limits.client_bytes_per_second",
            self.client_bytes_per_second <= Bytes::gib(1024),
            "must be 1TiB or less; 0 is no limit",
        );
        faults.require(
            "limits.traces_max",
            self.traces_max <= 1000,
            "must be at most 1000; 0 lets nobody trace",
        );
        faults.require(
            "limits.connects_waiting_max",
            self.connects_waiting_max <= 100_000_000,
            "must be at most 100000000; 0 lets none wait",
        );
        faults.require(
            "limits.connect_wait_max",
            self.connect_wait_max.get() <= Duration::from_secs(3600),
            "must be 1h or less; 0 lets none wait",
        );
    }
}
