use std::collections::VecDeque;

use super::*;
use crate::keyspace::Keyspace;

fn elements(keys: &mut Keyspace) -> Vec<Vec<u8>> {
    let Some(list) = keys.list(0, b"k").expect("a list") else { return Vec::new() };
    let all: Vec<_> = list.iter_from(0).map(|word| word.as_bytes(&mut [0; 20]).to_vec()).collect();
    let mut back: Vec<_> =
        list.iter_back().map(|word| word.as_bytes(&mut [0; 20]).to_vec()).collect();
    back.reverse();
    assert_eq!(all, back);
    assert_eq!(all.len() as u64, list.len());
    all
}

/// The nodes are in order, none is too long, and their bytes are counted.
fn check_nodes(keys: &mut Keyspace, limit: NodeLimit) {
    let Some(found) = keys.find(0, b"k") else { return };
    let Elements::Large(list) = keys.elements(found).expect("a list") else { return };
    let (mut bytes, mut last) = (0, None);
    for node in list.nodes.iter() {
        assert!(last.is_none_or(|last| last < node.order), "keys rise");
        last = Some(node.order);
        let (len, size) = (node.packed.len(), node.packed.bytes().len());
        assert!(len == 1 || (len <= limit.elements && size <= limit.bytes), "{len}, {size}");
        bytes += size as u64;
    }
    assert_eq!(bytes, list.bytes);
}

fn element(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u8(..20) {
        0 => vec![b'x'; random.usize(..9000)],
        1..10 => random.i32(..).to_string().into_bytes(),
        _ => vec![random.u8(..3); random.usize(..4)],
    }
}

/// Does something to a list and to its model.
fn step(keys: &mut Keyspace, model: &mut VecDeque<Vec<u8>>, random: &mut fastrand::Rng) {
    let side = if random.bool() { Side::Left } else { Side::Right };
    let some = element(random);
    match random.u8(..12) {
        0..5 => {
            match side {
                Side::Left => model.push_front(some.clone()),
                Side::Right => model.push_back(some.clone()),
            }
            let len = keys.list_push(0, b"k", side, [some.as_slice()].into_iter());
            assert_eq!(len, Ok(model.len() as u64));
        }
        5..7 => {
            let (count, mut popped) = (random.u64(..4), Vec::new());
            keys.list_pop(0, b"k", side, count, |word| {
                popped.push(word.as_bytes(&mut [0; 20]).to_vec());
            })
            .expect("a list");
            let take = |model: &mut VecDeque<Vec<u8>>| match side {
                Side::Left => model.pop_front(),
                Side::Right => model.pop_back(),
            };
            let right: Vec<_> = (0..count).map_while(|_| take(model)).collect();
            assert_eq!(popped, right);
        }
        7..9 if !model.is_empty() => {
            let at = random.usize(..model.len());
            keys.list_set(0, b"k", at as u64, &some).expect("there is memory");
            model[at] = some;
        }
        9 if !model.is_empty() => {
            // The same place, time and again.
            for _ in 0..random.u8(1..30) {
                let at = model.len() / 2;
                keys.list_insert(0, b"k", at as u64, &some).expect("there is memory");
                model.insert(at, some.clone());
            }
        }
        10 => {
            let count = random.u64(1..5);
            let removed = keys.list_remove(0, b"k", side, &some, count).expect("a list");
            let mut left = count;
            let mut at = if side == Side::Left { 0 } else { model.len() };
            loop {
                let next = match side {
                    Side::Left => model.iter().skip(at).position(|e| *e == some).map(|n| n + at),
                    Side::Right => model.iter().take(at).rposition(|e| *e == some),
                };
                let Some(next) = next.filter(|_| left > 0) else { break };
                model.remove(next);
                left -= 1;
                at = next;
            }
            assert_eq!(removed.count, count - left);
        }
        11 if !model.is_empty() && random.u8(..4) == 0 => {
            let from = random.usize(..model.len());
            let to = random.usize(from..=model.len());
            keys.list_trim(0, b"k", from as u64..to as u64).expect("a list");
            model.truncate(to);
            model.drain(..from);
        }
        _ => {}
    }
}

#[test]
fn a_list_is_what_was_done_to_it_small_or_large() {
    let from = fastrand::u64(..u64::MAX / 2);
    for seed in from..from + 60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut keys = Keyspace::new(seed, 1, Journal::default());
        keys.encoding.list_max = [-2, -1, 1, 2, 5, 128][random.usize(..6)];
        let limit = NodeLimit::new(keys.encoding.list_max);
        let mut model = VecDeque::new();
        println!("seed {seed}");
        for _ in 0..400 {
            step(&mut keys, &mut model, &mut random);
            keys.journal().clear();
            if random.u8(..10) == 0 {
                assert_eq!(elements(&mut keys), model.iter().cloned().collect::<Vec<_>>());
                check_nodes(&mut keys, limit);
            }
            if !model.is_empty() {
                let at = random.usize(..model.len());
                let list = keys.list(0, b"k").expect("a list").expect("it is there");
                assert!(list.get(at as u64).expect("it is there").eq_bytes(&model[at]));
                assert!(list.get(list.len()).is_none());
                let next = list.iter_from(at as u64).next().expect("it is there");
                assert!(next.eq_bytes(&model[at]));
            }
        }
        assert_eq!(elements(&mut keys), model.iter().cloned().collect::<Vec<_>>());
        check_nodes(&mut keys, limit);
        assert_eq!(keys.find(0, b"k").is_some(), !model.is_empty());
        keys.delete(0, b"k");
        while keys.shed(3) {}
        assert_eq!(keys.payload_bytes(), 0);
    }
}

#[test]
fn keys_of_nodes_are_numbered_anew_where_there_is_no_room() {
    let mut journal = Journal::default();
    let (mut next_base, limit) = (1, NodeLimit::new(1));
    let mut notes = Notes { journal: &mut journal, next_base: &mut next_base, object: 0 };
    let mut list = List::default();
    list.push(Side::Right, b"0", limit, &mut notes);
    let spot = list.nodes.start();
    list.nodes.get_mut(spot, |node| node.order = i64::MAX - 1);
    for n in 1..100 {
        list.push(Side::Right, n.to_string().as_bytes(), limit, &mut notes);
    }
    let spot = list.nodes.start();
    list.nodes.get_mut(spot, |node| node.order = i64::MIN + 1);
    list.push(Side::Left, b"-1", limit, &mut notes);
    for n in 0..200 {
        list.splice(50, 0, format!("m{n}").as_bytes(), limit, &mut notes);
    }
    let orders: Vec<i64> = list.nodes.iter().map(|node| node.order).collect();
    assert_eq!((orders.len(), orders.is_sorted_by(|a, b| a < b)), (301, true));
    // What was noted makes the same list.
    let mut keys = Keyspace::new(1, 1, Journal::default());
    keys.begin_replay();
    keys.apply(journal.bytes()).expect("the journal wrote it");
    let Some(crate::object::Object::List(again)) = keys.objects.get(0) else { panic!("a list") };
    let all = |list: &List| {
        let words = Elements::Large(list).iter_from(0).map(|w| w.as_bytes(&mut [0; 20]).to_vec());
        words.collect::<Vec<_>>()
    };
    // The first keys were changed behind the journal's back.
    let made = all(again);
    assert!(all(&list).iter().all(|element| made.contains(element)));
}

#[test]
fn a_node_s_key_is_read_as_it_was_written() {
    for order in [0, 1, -1, GAP, -GAP, i64::MAX, i64::MIN] {
        assert_eq!(from_effect(to_effect(order)), order);
    }
    assert_eq!((to_effect(0), to_effect(-1), to_effect(1)), (0, 1, 2));
}
