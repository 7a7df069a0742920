use std::collections::BTreeMap;

use super::*;
use crate::effect::Journal;
use crate::keyspace::Keyspace;

fn bytes(word: Word<'_>) -> Vec<u8> {
    word.as_bytes(&mut [0; 20]).to_vec()
}

fn in_order(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    all.sort_by(|one, other| compare((one.1, &one.0), (other.1, &other.0)));
    all
}

fn read(scores: Scores<'_>, ranks: Range<u64>, backwards: bool) -> Vec<(Vec<u8>, f64)> {
    let mut all = Vec::new();
    scores.each_in(ranks, backwards, |member, score| all.push((bytes(member), score)));
    all
}

#[test]
fn scores_are_packed_and_read_back() {
    let scores = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1e300,
        f64::MIN_POSITIVE,
        f64::INFINITY,
        f64::NEG_INFINITY,
        9007199254740993.0,
        -9.3e18,
        0.1,
    ];
    for score in scores {
        let mut room = [0; 9];
        let word = score_word(score, &mut room);
        assert_eq!(word_score(word).map(f64::to_bits), Some(score.to_bits()), "{score}");
        assert!(matches!(word, Word::Int(_)) || canonical(word));
    }
    assert_eq!(word_score(Word::Bytes(&[SCORE_TAG, 0x7f, 0xf8])), None, "not a number");
    assert_eq!(word_score(Word::Bytes(b"1.5")), None);
}

/// Whether a word stays as it is when it is packed.
fn canonical(word: Word<'_>) -> bool {
    Word::from_bytes(&bytes(word)) == word
}

fn member(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.bool() {
        true => random.i32(-40..40).to_string().into_bytes(),
        false => vec![b'a' + random.u8(..4); random.usize(..10)],
    }
}

fn check(keys: &mut Keyspace, model: &BTreeMap<Vec<u8>, f64>, random: &mut fastrand::Rng) {
    let right = in_order(model);
    let Some(scores) = keys.zset(0, b"k").expect("a sorted set") else {
        assert!(right.is_empty());
        return;
    };
    let len = right.len() as u64;
    assert_eq!(read(scores, 0..len, false), right);
    let from = random.u64(..len);
    let to = random.u64(from..=len);
    let mut part = right[from as usize..to as usize].to_vec();
    assert_eq!(read(scores, from..to, false), part);
    part.reverse();
    assert_eq!(read(scores, from..to, true), part);
    let (some, score) = &right[from as usize];
    assert_eq!(scores.rank(some), Some((from, *score)));
    assert_eq!(
        scores.at(from).map(|(member, score)| (bytes(member), score)),
        Some((some.clone(), *score))
    );
    let (low, high) = (f64::from(random.i8(-4..4)), f64::from(random.i8(-4..4)));
    let range = scores.score_range(Bound::Included(low), Bound::Excluded(high));
    let held = read(scores, range, false);
    let wanted: Vec<_> =
        right.iter().filter(|(_, score)| low <= *score && *score < high).cloned().collect();
    assert_eq!(held, wanted);
    let chosen = scores.choose(5, random);
    let different: HashSet<_> = chosen.iter().map(|(member, _)| bytes(*member)).collect();
    assert_eq!(different.len() as u64, len.min(5));
    let (mut cursor, mut met) = (Cursor(0), BTreeMap::new());
    loop {
        cursor = scores.scan(cursor, 7, |member, score| {
            met.insert(bytes(member), score);
        });
        if cursor == Cursor(0) {
            break;
        }
    }
    assert_eq!(&met, model);
}

#[test]
fn a_sorted_set_is_what_was_done_to_it_small_or_large() {
    let from = fastrand::u64(..u64::MAX / 2);
    for seed in from..from + 60 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut keys = Keyspace::new(seed, 1, Journal::default());
        keys.encoding.zset_entries_max = [0, 5, 128][random.usize(..3)];
        let mut model = BTreeMap::new();
        for _ in 0..400 {
            let some = member(&mut random);
            match random.u8(..20) {
                0..14 => {
                    let score = f64::from(random.i8(-8..8)) / 2.0;
                    let before = model.get(&some).copied();
                    let put = keys.zset_put(0, b"k", &some, |held| {
                        assert_eq!(held, before);
                        (score < 3.0).then_some(score)
                    });
                    if score < 3.0 {
                        model.insert(some.clone(), score);
                    }
                    let after = model.get(&some).copied();
                    assert_eq!(put, Ok(Scored { before, after }));
                }
                14..18 => {
                    let removed = keys.zset_remove(0, b"k", [some.as_slice()].into_iter());
                    let count = u64::from(model.remove(&some).is_some());
                    assert_eq!(removed.expect("a sorted set").count, count);
                }
                18 if !model.is_empty() => {
                    let from = random.usize(..model.len());
                    let to = random.usize(from..=model.len().min(from + 3));
                    let gone = in_order(&model)[from..to].to_vec();
                    let removed = keys.zset_remove_range(0, b"k", from as u64..to as u64);
                    assert_eq!(removed.expect("a sorted set").count, gone.len() as u64);
                    model.retain(|member, _| gone.iter().all(|(gone, _)| gone != member));
                }
                _ if random.u8(..10) == 0 => {
                    let mut members: Vec<_> = in_order(&model).into_iter().step_by(2).collect();
                    keys.zset_store(0, b"k", &mut members).expect("there is memory");
                    model = members.into_iter().collect();
                }
                _ => {}
            }
            check(&mut keys, &model, &mut random);
            assert_eq!(keys.find(0, b"k").is_some(), !model.is_empty());
            keys.journal().clear();
        }
        keys.delete(0, b"k");
        while keys.shed(3) {}
        assert_eq!(keys.payload_bytes(), 0);
    }
}

#[test]
fn members_of_one_score_are_found_by_their_bytes() {
    for entries_max in [0, 128] {
        let mut keys = Keyspace::new(1, 1, Journal::off());
        keys.encoding.zset_entries_max = entries_max;
        for member in ["a", "aa", "b", "c", "d", "10", "9"] {
            keys.zset_put(0, b"k", member.as_bytes(), |_| Some(0.0)).expect("there is memory");
        }
        let scores = keys.zset(0, b"k").expect("a sorted set").expect("it is there");
        let range = |min: Bound<&[u8]>, max: Bound<&[u8]>| {
            let (up, down) = (scores.lex_range(min, max, false), scores.lex_range(min, max, true));
            assert!(up == down || (up.is_empty() && down.is_empty()));
            if up.is_empty() { 0..0 } else { up }
        };
        assert_eq!(range(Bound::Unbounded, Bound::Unbounded), 0..7);
        assert_eq!(range(Bound::Included(b"a"), Bound::Excluded(b"c")), 2..5);
        assert_eq!(range(Bound::Excluded(b"a"), Bound::Included(b"c")), 3..6);
        assert_eq!(range(Bound::Included(b"z"), Bound::Included(b"a")), 0..0);
        assert_eq!(range(Bound::Included(b"10"), Bound::Included(b"9")), 0..2);
    }
}
