use super::*;

use crate::presence::{Change, Outlet, outlet};
use serde_json::Value;
use std::cell::RefCell;
use std::rc::Rc;

fn event(client: &str) -> Event {
    Event {
        at: 1_800_000_000_000,
        client_id: client.into(),
        user: "u".into(),
        session_expiry_s: 0,
        change: Change::Offline { why: "disconnected", reason: None },
    }
}

/// The numbers of a post, and when it came.
type Told = (Duration, Vec<u64>);

/// What a receiver was told, and what it answers.
#[derive(Clone, Default)]
struct Receiver {
    bodies: Rc<RefCell<Vec<Told>>>,
    refusals: Rc<RefCell<u32>>,
}

impl Receiver {
    fn told(&self) -> Vec<Told> {
        self.bodies.borrow().clone()
    }

    fn seqs(&self) -> Vec<Vec<u64>> {
        self.told().into_iter().map(|(_, seqs)| seqs).collect()
    }

    /// Runs until the cores and the webhook have ended.
    async fn run(&self, webhook: &config::Webhook, scene: impl AsyncFnOnce(Outlet)) -> Arc<Counts> {
        let (outlet, inlet) = outlet();
        let counts = Arc::new(Counts::default());
        let outbox = Outbox::new(webhook, "L".to_owned(), Arc::clone(&counts));
        let (stop, stopped) = oneshot::channel();
        let began = Instant::now();
        let post = async |body: Bytes| {
            let events: Vec<Value> = serde_json::from_slice(&body).unwrap();
            assert!(events.iter().all(|event| event["life"] == "L"), "{events:?}");
            let seqs = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
            self.bodies.borrow_mut().push((began.elapsed(), seqs));
            let refusals = *self.refusals.borrow();
            *self.refusals.borrow_mut() = refusals.saturating_sub(1);
            if refusals == 0 { Ok(()) } else { Err("not now".to_owned()) }
        };
        let tell = tell(outbox, inlet, webhook.flush_max.get(), stopped, post);
        let scene = async {
            scene(outlet).await;
            stop.send(()).unwrap();
        };
        tokio::join!(tell, scene);
        counts
    }
}

fn counted(counts: &Counts) -> [u64; 5] {
    [&counts.events, &counts.sent, &counts.dropped, &counts.failures, &counts.waiting]
        .map(|counter| counter.load(Ordering::Relaxed))
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn events_that_come_together_are_told_together() {
    let receiver = Receiver::default();
    let webhook = config::Webhook { batch_max: 3, ..config::Webhook::default() };
    let counts = receiver
        .run(&webhook, async |outlet| {
            outlet.tell(event("a"));
            pass(100).await;
            outlet.tell(event("b"));
            pass(1000).await;
            (0..4).for_each(|_| outlet.tell(event("c")));
            pass(1000).await;
        })
        .await;
    let told = receiver.told();
    let seqs: Vec<_> = told.iter().map(|(_, seqs)| seqs.clone()).collect();
    assert_eq!(seqs, [vec![1, 2], vec![3, 4, 5], vec![6]]);
    let ms = |at: usize| told[at].0.as_millis();
    assert!((200..210).contains(&ms(0)) && (1100..1110).contains(&ms(1)), "{told:?}");
    assert_eq!(counted(&counts), [6, 6, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_taken_is_told_again_later_and_later_and_nothing_overtakes_it() {
    let receiver = Receiver::default();
    *receiver.refusals.borrow_mut() = 9;
    let retry_max = "4s".parse().unwrap();
    let webhook = config::Webhook { retry_max, ..config::Webhook::default() };
    let counts = receiver
        .run(&webhook, async |outlet| {
            outlet.tell(event("a"));
            pass(1000).await;
            outlet.tell(event("b"));
            pass(60_000).await;
        })
        .await;
    let told = receiver.told();
    assert_eq!(told.len(), 11, "{told:?}");
    assert!(told[..10].iter().all(|(_, seqs)| *seqs == [1]) && told[10].1 == [2], "{told:?}");
    for (n, pair) in told[..10].windows(2).enumerate() {
        let (pause, longest) = ((pair[1].0 - pair[0].0).as_millis(), (500u128 << n).min(4000));
        assert!((longest / 2..=longest + 2).contains(&pause), "{n}: {pause} of {longest}");
    }
    assert_eq!(counted(&counts), [2, 2, 0, 9, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_are_dropped_and_leave_a_gap() {
    let receiver = Receiver::default();
    *receiver.refusals.borrow_mut() = 1;
    let room = 3 * (event("a").bytes() + EVENT_OVERHEAD_BYTES) as u64;
    let webhook = config::Webhook {
        queue_bytes_max: sextant_service::config::Bytes::new(room),
        batch_max: 2,
        ..config::Webhook::default()
    };
    let counts = receiver
        .run(&webhook, async |outlet| {
            outlet.tell(event("a"));
            pass(220).await;
            for _ in 0..5 {
                outlet.tell(event("b"));
                pass(1).await;
            }
            pass(60_000).await;
        })
        .await;
    assert_eq!(receiver.seqs(), [vec![1], vec![1], vec![4, 5], vec![6]]);
    assert_eq!(counted(&counts), [6, 4, 2, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn events_that_cores_could_not_hand_over_leave_a_gap_too() {
    let receiver = Receiver::default();
    let webhook = config::Webhook { batch_max: 10_000, ..config::Webhook::default() };
    let counts = receiver
        .run(&webhook, async |outlet| {
            (0..1030).for_each(|_| outlet.tell(event("a")));
            pass(1000).await;
            outlet.tell(event("b"));
            pass(1000).await;
        })
        .await;
    let seqs: Vec<u64> = receiver.seqs().concat();
    assert_eq!((seqs.len(), seqs.last()), (1025, Some(&1031)));
    assert_eq!(counted(&counts), [1031, 1025, 6, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn at_the_end_everything_is_told_at_once_if_it_is_taken_in_time() {
    let receiver = Receiver::default();
    let webhook = config::Webhook::default();
    receiver.run(&webhook, async |outlet| outlet.tell(event("a"))).await;
    let told = receiver.told();
    assert!(told.len() == 1 && told[0].0 < Duration::from_millis(10), "{told:?}");

    let receiver = Receiver::default();
    *receiver.refusals.borrow_mut() = 1000;
    let began = Instant::now();
    let counts = receiver.run(&webhook, async |outlet| outlet.tell(event("a"))).await;
    let took = began.elapsed().as_millis();
    assert!((5000..5100).contains(&took), "{took} ms");
    assert_eq!(counted(&counts)[..3], [1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_cores_tell_after_the_stop_is_told() {
    let receiver = Receiver::default();
    let (outlet, inlet) = outlet();
    let webhook = config::Webhook::default();
    let outbox = Outbox::new(&webhook, "L".to_owned(), Arc::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let post = async |_: Bytes| {
        receiver.bodies.borrow_mut().push((Duration::ZERO, Vec::new()));
        Ok(())
    };
    drop(stop);
    let cores = async {
        pass(1000).await;
        outlet.tell(event("a"));
        drop(outlet);
    };
    tokio::join!(tell(outbox, inlet, webhook.flush_max.get(), stopped, post), cores);
    assert_eq!(receiver.told().len(), 1);
}

#[test]
fn a_signature_is_of_the_time_and_the_body() {
    // Made with: printf '1800000000.[]' | openssl dgst -sha256 -hmac 'sixteen bytes it is'
    let expected =
        "t=1800000000,v1=0c2c71693388b98fc47cfa91fbda82b05b514fffe9a57b53bff56685ad6d8dc7";
    assert_eq!(signature("sixteen bytes it is", 1_800_000_000, b"[]"), expected);
    assert_ne!(signature("sixteen bytes it is", 1_800_000_001, b"[]")[13..], expected[13..]);
    assert_ne!(signature("sixteen bytes it is", 1_800_000_000, b"[ ]"), expected);
}
