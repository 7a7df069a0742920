use super::*;
use proptest::prelude::*;

fn qos() -> impl Strategy<Value = QoS> {
    (0u8..3).prop_map(|qos| QoS::from_u8(qos).unwrap())
}

fn text() -> impl Strategy<Value = Box<str>> {
    "[a-z/]{0,20}".prop_map(String::into_boxed_str)
}

prop_compose! {
    pub(super) fn recipient()(
        session in any::<u64>(),
        qos in qos(),
        retain in any::<bool>(),
        tracked in any::<bool>(),
        ids in prop::collection::vec(any::<u32>(), 0..3),
    ) -> Recipient {
        Recipient { session, qos, retain, tracked, subscription_ids: ids.into() }
    }
}

prop_compose! {
    fn subscribed()(
        filter in text(), qos in qos(), no_local in any::<bool>(),
        retain_as_published in any::<bool>(), subscription_id in any::<u32>(),
    ) -> Subscribed {
        Subscribed { filter: filter.into(), qos, no_local, retain_as_published, subscription_id }
    }
}

prop_compose! {
    fn message()(
        (id, topic, expires_at, qos) in (1..u64::MAX, text(), any::<u64>(), 0u8..3),
        (retain, retained) in any::<(bool, bool)>(),
        receipt in any::<Option<(u16, u128)>>(),
        waits_for in prop::option::of(text()),
        publisher in any::<Option<(u64, u16, Option<u64>)>>(),
        origin in any::<Option<(u16, u64, u64)>>(),
        recipients in prop::collection::vec(recipient(), 0..5),
        shares in prop::collection::vec((any::<u16>(), text()), 0..3),
        (listed, forward, payload) in any::<(u64, Vec<u8>, Vec<u8>)>(),
    ) -> MessageRecord {
        let publisher = publisher
            .map(|(session, packet_id, relayed)| Publisher { session, packet_id, relayed });
        MessageRecord {
            id, topic, expires_at, qos, retain, retained, receipt, waits_for, recipients,
            listed, publisher,
            origin: origin.map(|(core, life, id)| Origin { core, told: Told { life, id } }),
            shares: shares.into_iter().map(|(core, key)| (core, Arc::from(key))).collect(),
            forward: forward.into(),
            payload: payload.into(),
        }
    }
}

fn fact() -> impl Strategy<Value = Fact> {
    let queued = recipient().prop_map(|recipient| recipient.queued(None));
    prop_oneof![
        (any::<u64>(), subscribed()).prop_map(|(s, sub)| Fact::Subscribed(s, sub)),
        (any::<u64>(), text()).prop_map(|(s, filter)| Fact::Unsubscribed(s, filter)),
        any::<(u64, u32, u64)>().prop_map(|(s, e, at)| Fact::Presence(s, e, at)),
        any::<u64>().prop_map(Fact::Ended),
        (any::<(u64, u64)>(), qos()).prop_map(|((s, m), qos)| Fact::Done(s, m, qos)),
        (any::<u64>(), queued).prop_map(|(s, q)| Fact::Queued(s, q)),
        any::<(u64, u16, u64)>().prop_map(|(s, p, m)| Fact::Started(s, p, m)),
        any::<(u64, u16)>().prop_map(|(s, p)| Fact::Released(s, p)),
        any::<(u64, u16)>().prop_map(|(s, p)| Fact::Completed(s, p)),
        any::<(u64, u16)>().prop_map(|(s, p)| Fact::Received(s, p)),
        any::<(u64, u16)>().prop_map(|(s, p)| Fact::Forgotten(s, p)),
        any::<(u128, u32, u64)>().prop_map(|(id, n, at)| Fact::Receipt(
            id,
            Progress::Expired(n),
            at
        )),
        any::<(u128, u64)>().prop_map(|(id, at)| Fact::Receipt(id, Progress::Sent, at)),
        any::<u64>().prop_map(Fact::Relayed),
        any::<(u16, u64, u64)>()
            .prop_map(|(core, life, id)| Fact::OriginMark(core, Told { life, id })),
        text().prop_map(Fact::Unretained),
        any::<u64>().prop_map(Fact::Claimed),
        any::<u64>().prop_map(Fact::Life),
        any::<u64>().prop_map(Fact::WillGone),
    ]
}

proptest! {
    #[test]
    fn a_message_reads_back_as_it_was_written(message in message()) {
        let mut bytes = Vec::new();
        message.put_head(message.payload.len(), &mut bytes);
        bytes.extend_from_slice(&message.payload);
        prop_assert_eq!(MessageRecord::take(bytes.into(), 7).unwrap(), message);
    }

    #[test]
    fn a_session_reads_back_as_it_was_written(
        (number, expiry_s, left_at) in any::<(u64, u32, u64)>(),
        (client_id, user) in (text(), text()),
        subscriptions in prop::collection::vec(subscribed(), 0..4),
        received in any::<Vec<u16>>(),
        exchanges in prop::collection::vec((any::<u16>(), prop::option::of(recipient())), 0..4),
        queue in prop::collection::vec(recipient(), 0..4),
    ) {
        let exchanges = exchanges
            .into_iter()
            .map(|(id, queued)| (id, match queued {
                Some(recipient) => Exchange::Publish(recipient.queued(None)),
                None => Exchange::Release,
            }))
            .collect();
        let queue = queue.into_iter().map(|recipient| recipient.queued(None)).collect();
        let session = SessionRecord {
            number, client_id, user, expiry_s, left_at, subscriptions, received, exchanges,
            queue,
        };
        let mut bytes = Vec::new();
        session.put(&mut bytes);
        prop_assert_eq!(SessionRecord::take(bytes.into()).unwrap(), session);
    }

    #[test]
    fn a_will_reads_back_as_it_was_written(
        (number, expiry_s, delay_s, retain) in any::<(u64, u32, u32, bool)>(),
        (client_id, user, topic, qos) in (text(), text(), text(), qos()),
        (forward, payload) in any::<(Vec<u8>, Vec<u8>)>(),
    ) {
        let (forward, payload) = (forward.into(), payload.into());
        let will = WillRecord {
            number, client_id, user, topic, forward, payload, qos, retain, expiry_s, delay_s,
        };
        let mut bytes = Vec::new();
        will.put(&mut bytes);
        prop_assert_eq!(WillRecord::take(bytes.into()).unwrap(), will);
    }

    #[test]
    fn facts_read_back_as_they_were_written(facts in prop::collection::vec(fact(), 0..20)) {
        let mut bytes = Vec::new();
        facts.iter().for_each(|fact| fact.put(&mut bytes));
        let mut from = Take::new(bytes.into());
        let mut read = Vec::new();
        while !from.is_empty() {
            read.push(Fact::take(&mut from).unwrap());
        }
        prop_assert_eq!(read, facts);
    }

    #[test]
    fn what_was_written_before_lives_were_counted_is_of_life_zero(
        (core, id) in any::<(u16, u64)>(),
    ) {
        let mut mark = vec![14];
        mark.number(u64::from(core));
        mark.number(id);
        let told = Told { life: 0, id };
        let read = Fact::take(&mut Take::new(mark.into())).unwrap();
        prop_assert_eq!(read, Fact::OriginMark(core, told));

        let mut message = Vec::new();
        message.number(flag::PUBLISHER | flag::RELAYED | flag::ORIGIN);
        // An identifier, a topic, nothing forwarded; a session and packet identifier; an
        // origin; no recipients and no payload.
        [9, 1].into_iter().for_each(|number| message.number(number));
        message.extend_from_slice(b"t");
        [0, 5, 6, u64::from(core), id, 0, 0].into_iter().for_each(|n| message.number(n));
        let read = MessageRecord::take(message.into(), 9).unwrap();
        let publisher = Publisher { session: 5, packet_id: 6, relayed: Some(0) };
        prop_assert_eq!(read.publisher, Some(publisher));
        prop_assert_eq!(read.origin, Some(Origin { core, told }));
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(bytes in any::<Vec<u8>>()) {
        let bytes = Bytes::from(bytes);
        let _ = MessageRecord::take(bytes.clone(), 1);
        let _ = SessionRecord::take(bytes.clone());
        let _ = take_receipt(bytes.clone());
        let _ = WillRecord::take(bytes.clone());
        let _ = Fact::take(&mut Take::new(bytes));
    }
}
