//! What happens at the limits: whoever asks for too much is told so, and nothing else changes.

use std::io;
use std::time::Duration;

use sextant_ring::buf::IoBuf;
use sextant_ring::core::Cx;
use sextant_ring::driver::{File, FileOp, FileOutput, Files, OpenMode};
use sextant_ring::time::Time;

use crate::harness::{Event, Msg, Role, Shared, Stage, on_all_drivers, stop_all};

on_all_drivers! {
    a_connect_too_many_fails_and_the_others_do_not: 20 seeds;
    a_file_operation_too_many_fails_and_gives_its_buffer_back: 20 seeds;
    a_stopping_core_does_not_wait_for_connects_that_nobody_answers: 10 seeds;
    a_stopping_core_begins_no_connect: 10 seeds;
    wakes_and_messages_are_counted_on_both_sides: 20 seeds;
}

fn a_connect_too_many_fails_and_the_others_do_not(stage: &mut Stage) {
    const MAX: u64 = 4;
    const CALLS: u64 = 10;
    let listener = stage.listener();
    let to = listener.addr().unwrap();
    let server = |_: &mut Cx<Msg>, event: Event| match event {
        Event::Start | Event::Accepted(..) | Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let (mut connected, mut declined) = (0, Vec::new());
    let client = move |cx: &mut Cx<Msg>, event: Event| {
        match event {
            Event::Start => (0..CALLS).for_each(|key| cx.connect(to, key)),
            Event::Connected(_, Ok(_)) => connected += 1,
            Event::Connected(key, Err(error)) => {
                assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                declined.push(key);
            }
            Event::Closed(..) | Event::Stopping => {}
            other => panic!("{other:?}"),
        }
        if connected + declined.len() as u64 == CALLS && !cx.is_stopping() {
            assert_eq!(declined, (MAX..CALLS).collect::<Vec<_>>());
            stop_all(cx);
        }
    };
    let client = Role::new(client).limits(|limits| limits.connections_max = MAX as u32);
    stage.play(vec![Role::new(server).listening(&listener), client]);
}

fn a_file_operation_too_many_fails_and_gives_its_buffer_back(stage: &mut Stage) {
    const MAX: u64 = 3;
    const WRITES: u64 = 8;
    let path = stage.dir().join("file");
    let mut file: Option<File> = None;
    let (mut written, mut declined) = (0, 0);
    let writer = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            cx.submit(99, FileOp::Open { path: path.clone(), mode: OpenMode::CreateNew });
        }
        Event::File(done) if done.ticket == 99 => {
            let Ok(FileOutput::Opened(opened)) = done.result else { panic!("{done:?}") };
            file = Some(opened);
            for ticket in 0..WRITES {
                let mut buf = IoBuf::with_capacity(16);
                buf.push(&[ticket as u8; 16]);
                cx.submit(ticket, FileOp::Write { file: opened, offset: ticket * 16, buf });
            }
        }
        Event::File(done) => {
            match done.result {
                Ok(_) => written += 1,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
                    declined += 1;
                }
            }
            assert_eq!(&*done.buf.expect("it comes back"), [done.ticket as u8; 16]);
            if written + declined == WRITES {
                assert_eq!(written, MAX);
                assert!(file.is_some());
                stop_all(cx);
            }
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(writer).limits(|limits| limits.files_max = MAX as u32)]);
}

/// A listener that nobody accepts from, its backlog full: further calls hang.
fn a_stopping_core_does_not_wait_for_connects_that_nobody_answers(stage: &mut Stage) {
    const CALLS: u64 = 8;
    let (to, _full) = stage.deaf_addr();
    let began = Shared::new(Time::ZERO);
    let ended = Shared::new(Time::ZERO);
    let (start, end) = (began.clone(), ended.clone());
    let mut told = 0;
    let client = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => {
            (0..CALLS).for_each(|key| cx.connect(to, key));
            cx.arm(cx.now() + Duration::from_millis(20), 0).unwrap();
        }
        Event::Timer(_) => {
            *start.lock() = cx.now();
            cx.stop(cx.now());
        }
        Event::Connected(_, result) => {
            if let Err(error) = result {
                assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{error}");
            }
            told += 1;
            if told == CALLS {
                *end.lock() = cx.now();
            }
        }
        Event::Closed(..) | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(client)]);
    let (began, ended) = (*began.lock(), *ended.lock());
    assert!(ended > Time::ZERO, "each connect ends");
    assert!(ended.since(began) < Duration::from_secs(1), "stopped {began}, told {ended}");
}

fn a_stopping_core_begins_no_connect(stage: &mut Stage) {
    let to = stage.free_addr();
    stage.play(vec![Role::new(move |cx, event| match event {
        Event::Start => cx.stop(cx.now()),
        Event::Stopping => cx.connect(to, 5),
        Event::Connected(5, result) => {
            let error: io::Error = result.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        }
        other => panic!("{other:?}"),
    })]);
}

fn wakes_and_messages_are_counted_on_both_sides(stage: &mut Stage) {
    const MESSAGES: u64 = 100;
    let counted = Shared::new((0, 0, 0));
    let (told, seen) = (counted.clone(), counted.clone());
    let mut sent = 0;
    // One message after the other, each long after the last: the other core sleeps in between.
    let giver = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Start => drop(cx.arm(cx.now(), 0).unwrap()),
        Event::Timer(_) if sent < MESSAGES => {
            sent += 1;
            cx.tell(1, Msg::Number(sent));
            cx.arm(cx.now() + Duration::from_millis(2), 0).unwrap();
        }
        Event::Timer(_) => {
            told.lock().0 = cx.stats().wakes_sent;
            stop_all(cx);
        }
        Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    let taker = move |cx: &mut Cx<Msg>, event: Event| match event {
        Event::Message(Msg::Number(n)) => {
            // This one is counted when it was handled.
            assert_eq!(cx.stats().messages, n - 1);
            *seen.lock() = (0, cx.stats().wakes_received, n);
        }
        Event::Start | Event::Stopping => {}
        other => panic!("{other:?}"),
    };
    stage.play(vec![Role::new(giver), Role::new(taker)]);
    let (wakes_sent, wakes_received, messages) = *counted.lock();
    assert_eq!(messages, MESSAGES);
    assert!(wakes_sent <= MESSAGES && wakes_received <= MESSAGES);
    // A core that is late finds two messages at one wake.
    assert!(wakes_sent >= MESSAGES / 2 && wakes_received >= MESSAGES / 2, "{wakes_sent}");
}
