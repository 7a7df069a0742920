//! Who a message was queued for. Few stand in its record; of very many that would be longer than a
//! record may be, so they stand in records of their own right before it, in runs of sessions that
//! get it in the same way:
//!
//! ```text
//!   recipients   run…
//!   run          flags ids count first-number further-numbers-as-differences…
//! ```
//!
//! What an opening finds of them counts for the message that follows at once and says that it has
//! so many; without it, as a crash between them leaves them, they count for nothing. They go with
//! the oldest segment, and are never moved: by then the record of each of their sessions, which
//! was older, was written anew and names the message itself.

use bytes::Bytes;
use sextant_mqtt::QoS;

use super::{Parsed, Put, Queued, Take, Unreadable};

/// A message names as many recipients itself.
pub(in crate::broker) const INLINE_MAX: usize = 512;
/// A run of a list ends behind so many.
const RUN_MAX: usize = 2048;
/// A list ends behind the run that makes it this long, in bytes. A record takes more than both.
const LIST_BYTES: usize = 16 << 10;

/// A session that a message was queued for, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Recipient {
    /// The session's number.
    pub(in crate::broker) session: u64,
    pub(in crate::broker) qos: QoS,
    /// The RETAIN flag that it is sent with.
    pub(in crate::broker) retain: bool,
    /// Whether the message's receipt counts it.
    pub(in crate::broker) tracked: bool,
    pub(in crate::broker) subscription_ids: Box<[u32]>,
}

impl Recipient {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.number(self.session);
        out.byte(self.flags());
        out.number(self.subscription_ids.len() as u64);
        self.subscription_ids.iter().for_each(|id| out.number(u64::from(*id)));
    }

    pub(super) fn take(from: &mut Take) -> Parsed<Recipient> {
        let session = from.number()?;
        let (flags, count) = (from.byte()?, from.small()?);
        let subscription_ids = (0..count).map(|_| from.medium()).collect::<Parsed<_>>()?;
        Recipient::of(session, flags, subscription_ids)
    }

    fn flags(&self) -> u8 {
        self.qos as u8 | u8::from(self.retain) << 2 | u8::from(self.tracked) << 3
    }

    fn of(session: u64, flags: u8, subscription_ids: Box<[u32]>) -> Parsed<Recipient> {
        let qos = QoS::from_u8(flags & 3).ok_or(Unreadable)?;
        let (retain, tracked) = (flags & 4 != 0, flags & 8 != 0);
        Ok(Recipient { session, qos, retain, tracked, subscription_ids })
    }

    /// Whether another session gets the message in the same way.
    fn is_like(&self, other: &Recipient) -> bool {
        self.flags() == other.flags() && self.subscription_ids == other.subscription_ids
    }

    /// The entry in the recipient's queue; of `message`, or of what the session field holds.
    pub(in crate::broker) fn queued(self, message: Option<u64>) -> Queued {
        Queued {
            message: message.unwrap_or(self.session),
            qos: self.qos,
            retain: self.retain,
            tracked: self.tracked,
            subscription_ids: self.subscription_ids,
        }
    }
}

/// Writes recipients as records, in the order of their numbers.
pub(in crate::broker) struct RecipientLists {
    recipients: Vec<Recipient>,
    next: usize,
}

impl RecipientLists {
    pub(in crate::broker) fn new(mut recipients: Vec<Recipient>) -> RecipientLists {
        recipients.sort_by_key(|recipient| recipient.session);
        RecipientLists { recipients, next: 0 }
    }
}

impl Iterator for RecipientLists {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        while out.len() < LIST_BYTES
            && let Some(first) = self.recipients.get(self.next)
        {
            let rest = self.recipients[self.next..].iter().take(RUN_MAX);
            let count = rest.take_while(|other| other.is_like(first)).count();
            out.byte(first.flags());
            out.number(first.subscription_ids.len() as u64);
            first.subscription_ids.iter().for_each(|id| out.number(u64::from(*id)));
            out.number(count as u64);
            let mut before = 0;
            for recipient in &self.recipients[self.next..self.next + count] {
                out.number(recipient.session - before);
                before = recipient.session;
            }
            self.next += count;
        }
        Some(out).filter(|out| !out.is_empty())
    }
}

/// Reads one of these records.
pub(in crate::broker) fn take_recipients(record: Bytes) -> Parsed<Vec<Recipient>> {
    let mut from = Take::new(record);
    let mut recipients = Vec::new();
    while !from.is_empty() {
        let (flags, ids) = (from.byte()?, from.small()?);
        let subscription_ids: Box<[u32]> =
            (0..ids).map(|_| from.medium()).collect::<Parsed<_>>()?;
        let mut session = 0u64;
        for _ in 0..from.number()? {
            session = session.checked_add(from.number()?).ok_or(Unreadable)?;
            let subscription_ids = subscription_ids.clone();
            recipients.push(Recipient::of(session, flags, subscription_ids)?);
        }
    }
    Ok(recipients)
}

#[cfg(test)]
mod tests {
    use super::super::tests::recipient;
    use super::*;
    use proptest::prelude::*;

    fn read(recipients: Vec<Recipient>) -> Vec<Recipient> {
        let lists = RecipientLists::new(recipients);
        lists.flat_map(|list| take_recipients(list.into()).expect("it was just written")).collect()
    }

    proptest! {
        #[test]
        fn recipients_are_read_as_they_were_written(
            mut recipients in prop::collection::vec(recipient(), 0..50),
        ) {
            recipients.sort_by_key(|recipient| recipient.session);
            prop_assert_eq!(read(recipients.clone()), recipients);
        }
    }

    #[test]
    fn a_million_recipients_that_get_a_message_alike_take_little_more_than_a_byte_each() {
        let alike = |session| Recipient {
            session,
            qos: QoS::AtLeastOnce,
            retain: false,
            tracked: true,
            subscription_ids: Box::default(),
        };
        let recipients: Vec<Recipient> = (0..1_000_000).map(|n| alike(1000 + 2 * n)).collect();
        let lists: Vec<Vec<u8>> = RecipientLists::new(recipients.clone()).collect();
        let bytes: usize = lists.iter().map(Vec::len).sum();
        assert!(bytes < 1_010_000, "{bytes}");
        assert!(lists.iter().all(|list| list.len() < 2 * LIST_BYTES));
        assert_eq!(read(recipients.clone()), recipients);
    }
}
