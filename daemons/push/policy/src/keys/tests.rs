use proptest::prelude::*;

use super::*;

#[test]
fn a_request_that_is_repeated_finds_the_message_of_the_first() {
    let mut keys = IdempotencyKeys::new(86_400_000, 100);
    assert_eq!(keys.claim(1, "order-17", 5, 0), Ok(Claim::New));
    assert_eq!(keys.claim(1, "order-17", 6, 86_399_999), Ok(Claim::Taken(5)));
    assert_eq!(keys.claim(2, "order-17", 7, 0), Ok(Claim::New), "another app's");
    assert_eq!(keys.get(1, "order-17", 86_400_000), None);
    assert_eq!(keys.claim(1, "order-17", 8, 86_400_000), Ok(Claim::New), "a day later");
    assert_eq!(keys.get(1, "order-17", 86_400_000), Some(8));
}

#[test]
fn a_refused_message_gives_its_key_back() {
    let mut keys = IdempotencyKeys::new(1000, 100);
    keys.claim(1, "a", 5, 0).expect("a key");
    keys.release(1, "a");
    keys.release(1, "b");
    assert_eq!(keys.claim(1, "a", 6, 1), Ok(Claim::New));
    assert_eq!(keys.expire(1000), 1);
    assert_eq!(keys.expire(1001), 0);
}

#[test]
fn a_key_expires_on_time_behind_one_that_a_later_clock_gave() {
    let mut keys = IdempotencyKeys::new(1000, 100);
    keys.claim(1, "late", 1, 50_000).expect("a key");
    keys.claim(1, "a", 2, 0).expect("a key");
    assert_eq!(keys.claim(1, "a", 3, 999), Ok(Claim::Taken(2)));
    assert_eq!(keys.claim(1, "a", 3, 1000), Ok(Claim::New));
    assert_eq!(keys.claim(1, "a", 4, 1999), Ok(Claim::Taken(3)));
    assert_eq!((keys.expire(60_000), keys.keys.len()), (0, 0));
}

#[test]
fn beyond_the_bound_the_oldest_goes() {
    let mut keys = IdempotencyKeys::new(1000, 3);
    for (number, key) in (1..).zip(["a", "b", "c", "d"]) {
        assert_eq!(keys.claim(1, key, number, 0), Ok(Claim::New));
    }
    assert_eq!((keys.get(1, "a", 0), keys.get(1, "b", 0)), (None, Some(2)));
}

#[test]
fn what_is_no_key_is_refused() {
    let mut keys = IdempotencyKeys::new(1000, 3);
    let longest = "k".repeat(IDEMPOTENCY_KEY_BYTES_MAX);
    assert_eq!(keys.claim(1, &longest, 1, 0), Ok(Claim::New));
    let long = KeyError::TooLong { bytes: 129, max: 128 };
    assert_eq!(keys.claim(1, &format!("{longest}k"), 1, 0), Err(long));
    assert_eq!(keys.claim(1, "", 1, 0), Err(KeyError::Empty));
    assert_eq!(keys.claim(1, "a\nb", 1, 0), Err(KeyError::Control));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn idempotency_keys_are_those_of_a_list(
        steps in proptest::collection::vec(
            (0u16..2, "[a-c]{1,2}", 0u64..40, any::<bool>(), any::<u64>()), 0..200),
        keys_max in 1usize..12,
    ) {
        let mut keys = IdempotencyKeys::new(100, keys_max);
        // With what was released, which takes its place until it would have expired.
        let mut list: Vec<(u64, u16, String, Option<u64>)> = Vec::new();
        let mut now = 0;
        for (app, key, pause, release, message) in steps {
            now += pause;
            list.retain(|(since, ..)| since + 100 > now);
            let of = |entry: &(u64, u16, String, Option<u64>)| {
                entry.1 == app && entry.2 == key && entry.3.is_some()
            };
            let found = list.iter().position(of);
            prop_assert_eq!(keys.get(app, &key, now), found.and_then(|at| list[at].3));
            if release {
                keys.expire(now);
                keys.release(app, &key);
                found.into_iter().for_each(|at| list[at].3 = None);
                continue;
            }
            let claim = keys.claim(app, &key, message, now);
            match found {
                Some(at) => prop_assert_eq!(claim, Ok(Claim::Taken(list[at].3.expect("found")))),
                None => {
                    prop_assert_eq!(claim, Ok(Claim::New));
                    if list.len() >= keys_max {
                        list.remove(0);
                    }
                    list.push((now, app, key, Some(message)));
                }
            }
        }
    }
}
