//! Datagrams come back whole, with their sender.

use bytes::Bytes;
use sextant_ring::core::Cx;

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, payload, stop_all};

on_all_drivers! {
    datagrams_of_every_size_come_back: 30 seeds;
}

fn datagrams_of_every_size_come_back(stage: &mut Stage) {
    const ROUNDS: usize = 200;
    let here = Shared::new(None);
    let there = Shared::new(None);
    let (own, mut rng) = (here.clone(), stage.random());
    let mut sent = Vec::new();
    let mut rounds = 0;
    let mut to = None;
    let client = move |cx: &mut Cx<Msg>, event: Event| {
        let (socket, _) = own.lock().expect("it is bound before the first turn");
        match event {
            Event::Message(Msg::Addr(addr)) => to = Some(addr),
            Event::Datagram(at, from, data) => {
                assert_eq!((at, Some(from)), (socket, to));
                assert!(data == sent, "{} bytes came back of {}", data.len(), sent.len());
                rounds += 1;
            }
            Event::Start => return,
            Event::Stopping => return,
            other => panic!("{other:?}"),
        }
        if rounds == ROUNDS {
            stop_all(cx);
            return;
        }
        let len = match rounds {
            0 => 0,
            1 => 1400,
            _ => rng.usize(0..1400),
        };
        sent = payload(&mut rng, len);
        cx.send_to(socket, to.expect("it was told"), Bytes::copy_from_slice(&sent));
    };
    let own = there.clone();
    let server = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            let (_, addr) = own.lock().expect("it is bound before the first turn");
            cx.tell(0, Msg::Addr(addr));
        }
        Event::Datagram(socket, from, data) => cx.send_to(socket, from, data.into()),
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(client).udp(&here), Role::new(server).udp(&there)]);
}
