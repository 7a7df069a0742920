use std::time::Instant;

use proptest::prelude::*;

use super::*;

/// An item with a weight of its own.
#[derive(Clone, Debug, Default, PartialEq)]
struct Stone {
    key: u32,
    weight: u64,
}

impl Weigh for Stone {
    type Key = u32;

    fn weight(&self) -> u64 {
        self.weight
    }

    fn key(&self) -> u32 {
        self.key
    }
}

/// A sorted set's item.
impl Weigh for (f64, u32) {
    type Key = (f64, u32);

    fn weight(&self) -> u64 {
        1
    }

    fn key(&self) -> (f64, u32) {
        *self
    }
}

/// An item that owns memory.
#[derive(Debug, Default)]
struct Owner(Vec<u8>);

impl Weigh for Owner {
    type Key = ();

    fn weight(&self) -> u64 {
        self.0.len() as u64
    }

    fn key(&self) {}
}

type Small = Tree<Stone, 4, 4>;

impl<T: Weigh, const LEAF: usize, const FAN: usize> Tree<T, LEAF, FAN>
where
    T::Key: PartialEq + std::fmt::Debug,
{
    /// Checks everything that holds between operations; returns leaves and inner nodes.
    fn check(&self) -> (usize, usize) {
        let mut leaves = Vec::new();
        let mut inners = 0;
        let mut below = vec![(self.root, self.height, NONE)];
        while let Some((id, level, parent)) = below.pop() {
            assert_eq!(self.check_node(id, level, parent, &mut leaves), id != NONE);
            if id != NONE && level > 0 {
                inners += 1;
                let children = self.inners.get(id).children();
                below.extend(children.iter().rev().map(|child| (*child, level - 1, id)));
            }
        }
        assert_eq!((self.leaves.len(), self.inners.len()), (leaves.len(), inners));
        assert_eq!(self.first, leaves.first().copied().unwrap_or(NONE));
        assert_eq!(self.last, leaves.last().copied().unwrap_or(NONE));
        for (n, id) in leaves.iter().enumerate() {
            let leaf = self.leaves.get(*id);
            assert_eq!(leaf.prev, n.checked_sub(1).map_or(NONE, |n| leaves[n]));
            assert_eq!(leaf.next, leaves.get(n + 1).copied().unwrap_or(NONE));
        }
        let held: usize = leaves.iter().map(|id| self.leaves.get(*id).len()).sum();
        assert_eq!(held, self.len);
        (leaves.len(), inners)
    }

    fn check_node(&self, id: u32, level: u32, parent: u32, leaves: &mut Vec<u32>) -> bool {
        if id == NONE {
            assert_eq!((self.len, self.weight, self.height), (0, 0, 0));
            return false;
        }
        let (weight, key) = if level == 0 {
            let leaf = self.leaves.get(id);
            assert!(leaf.len() > 0 && leaf.parent == parent);
            leaves.push(id);
            (leaf.weight(), leaf.first_key())
        } else {
            let inner = self.inners.get(id);
            assert!(inner.len() > 0 && inner.len() < FAN);
            assert!(parent != NONE || inner.len() > 1, "a root of one child is none");
            assert_eq!((inner.level, inner.parent), (level, parent));
            (inner.weights().iter().sum(), inner.keys().first().copied())
        };
        if parent == NONE {
            assert_eq!(weight, self.weight);
        } else {
            let above = self.inners.get(parent);
            let index = above.position(id);
            assert_eq!((above.weights()[index], Some(above.keys()[index])), (weight, key));
        }
        true
    }
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> Tree<T, LEAF, FAN> {
    /// The place of the item that `index` others are before, found the slow way.
    fn nth(&self, index: usize) -> Cursor {
        let mut cursor = self.start();
        for _ in 0..index {
            cursor = self.next(cursor).expect("the tree is longer");
        }
        cursor
    }
}

/// What is done to a tree and to the vector that it is compared with. Places are taken modulo what
/// is there.
#[derive(Clone, Debug)]
enum Step {
    Insert(usize, Stone),
    PushBack(Stone),
    PushFront(Stone),
    Extend(Vec<Stone>),
    Remove(usize),
    RemoveRun(usize, usize),
    PopBack,
    PopFront,
    Change(usize, Stone),
    Look(usize),
}

fn stone() -> impl Strategy<Value = Stone> {
    (any::<u32>(), 1u64..9).prop_map(|(key, weight)| Stone { key, weight })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<usize>(), stone()).prop_map(|(at, stone)| Step::Insert(at, stone)),
        2 => stone().prop_map(Step::PushBack),
        2 => stone().prop_map(Step::PushFront),
        1 => prop::collection::vec(stone(), 0..40).prop_map(Step::Extend),
        4 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 0usize..60).prop_map(|(at, count)| Step::RemoveRun(at, count)),
        1 => Just(Step::PopBack),
        1 => Just(Step::PopFront),
        2 => (any::<usize>(), stone()).prop_map(|(at, stone)| Step::Change(at, stone)),
        2 => any::<usize>().prop_map(Step::Look),
    ]
}

/// Does the same to both, and compares what they answer.
fn take(step: Step, tree: &mut Small, oracle: &mut Vec<Stone>) {
    let len = oracle.len();
    match step {
        Step::Insert(at, stone) => {
            let at = at % (len + 1);
            oracle.insert(at, stone.clone());
            let place = tree.insert(tree.nth(at), stone);
            assert_eq!(place, tree.nth(at));
        }
        Step::PushBack(stone) => {
            oracle.push(stone.clone());
            tree.push_back(stone);
        }
        Step::PushFront(stone) => {
            oracle.insert(0, stone.clone());
            tree.push_front(stone);
        }
        Step::Extend(stones) => {
            oracle.extend_from_slice(&stones);
            tree.extend(stones);
        }
        Step::Remove(at) if len > 0 => {
            let at = at % len;
            let (stone, then) = tree.remove_then(tree.nth(at));
            assert_eq!(stone, oracle.remove(at));
            assert_eq!(then, tree.nth(at));
        }
        Step::RemoveRun(at, count) if len > 0 => {
            let at = at % len;
            let count = count.min(len - at);
            let mut place = tree.nth(at);
            for stone in oracle.drain(at..at + count) {
                let (removed, then) = tree.remove_then(place);
                assert_eq!(removed, stone);
                place = then;
            }
        }
        Step::PopBack => assert_eq!(tree.pop_back(), oracle.pop()),
        Step::PopFront => {
            assert_eq!(tree.pop_front(), (len > 0).then(|| oracle.remove(0)));
        }
        Step::Change(at, stone) if len > 0 => {
            oracle[at % len] = stone.clone();
            tree.get_mut(tree.nth(at % len), |held| *held = stone);
        }
        Step::Look(at) => look(at % (len + 1), tree, oracle),
        Step::Remove(_) | Step::RemoveRun(..) | Step::Change(..) => {}
    }
}

fn look(at: usize, tree: &Small, oracle: &[Stone]) {
    let place = tree.nth(at);
    assert_eq!(tree.get(place), oracle.get(at));
    assert_eq!(place == tree.end(), at == oracle.len());
    assert!(tree.iter_from(place).eq(&oracle[at..]));
    let upto = oracle.len().min(at + 1);
    assert!(tree.iter_back_from(place).eq(oracle[..upto].iter().rev()));
    assert_eq!(tree.prev(place), at.checked_sub(1).map(|before| tree.nth(before)));
    let before: u64 = oracle[..at].iter().map(|stone| stone.weight).sum();
    assert_eq!(tree.weight_before(place), before);
    match oracle.get(at) {
        None => assert_eq!(tree.at_weight(before), None),
        Some(stone) => {
            for offset in 0..stone.weight {
                assert_eq!(tree.at_weight(before + offset), Some((place, offset)));
            }
        }
    }
}

/// With nodes as small as these, two neighbours of one parent have three children at least, and
/// every third inner node may be the only child of its parent.
fn assert_dense(tree: &Small) {
    let (leaves, inners) = tree.check();
    assert!(inners <= 3 * leaves + 10, "{inners} inner nodes for {leaves} leaves");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_tree_is_a_vector(steps in prop::collection::vec(step(), 1..400)) {
        let (mut tree, mut oracle) = (Small::new(), Vec::new());
        for step in steps {
            take(step, &mut tree, &mut oracle);
            assert_dense(&tree);
            assert!(tree.iter().eq(&oracle));
            assert_eq!((tree.first(), tree.last()), (oracle.first(), oracle.last()));
        }
    }

    #[test]
    fn a_sorted_tree_finds_every_key(
        keys in prop::collection::vec(0u32..500, 0..600),
        gone in prop::collection::vec(0u32..500, 0..600),
    ) {
        let (mut tree, mut oracle) = (Small::new(), Vec::new());
        for key in keys {
            let at = tree.partition_point(|held| *held < key);
            assert_eq!(tree.weight_before(at) as usize, oracle.partition_point(|held| *held < key));
            tree.insert(at, Stone { key, weight: 1 });
            oracle.insert(oracle.partition_point(|held| *held < key), key);
        }
        tree.check();
        for key in gone {
            let at = tree.partition_point(|held| *held < key);
            let index = oracle.partition_point(|held| *held < key);
            assert_eq!(tree.weight_before(at) as usize, index);
            if index < oracle.len() {
                assert_eq!(tree.remove(at).key, oracle.remove(index));
            }
        }
        tree.check();
        assert!(tree.iter().map(|stone| stone.key).eq(oracle));
    }
}

#[test]
fn small_nodes_make_a_high_tree() {
    let tree: Small = (0..2000).map(|key| Stone { key, weight: 2 }).collect();
    assert!(tree.height >= 3, "{}", tree.height);
    assert_eq!((tree.len(), tree.weight()), (2000, 4000));
    assert_eq!(tree.check().0, 500, "leaves built in order are full");
}

#[test]
fn a_tree_that_was_large_is_as_small_as_one_that_never_was() {
    let seed = 0x5EED_0001;
    let mut random = fastrand::Rng::with_seed(seed);
    for keep in [0, 1, 100] {
        let mut tree: Tree<Stone> = (0..200_000).map(|key| Stone { key, weight: 1 }).collect();
        let full_bytes = tree.memory_bytes();
        while tree.len() > keep {
            let (cursor, _) = tree.at_weight(random.u64(..tree.weight())).expect("it is inside");
            tree.remove(cursor);
            if tree.len().is_multiple_of(20_000) {
                tree.check();
                let held = tree.len() * size_of::<Stone>();
                assert!(tree.memory_bytes() <= 3 * held + 600_000, "{} seed {seed}", tree.len());
            }
        }
        tree.check();
        assert!(tree.memory_bytes() < 20_000 && full_bytes > 3_000_000, "{}", tree.memory_bytes());
    }
}

#[test]
fn what_is_thinned_out_evenly_is_packed_together() {
    let mut tree: Tree<Stone> = (0..256_000).map(|key| Stone { key, weight: 1 }).collect();
    let mut place = tree.start();
    while tree.get(place).is_some() {
        for _ in 0..63 {
            place = tree.remove_then(place).1;
        }
        place = tree.next(place).expect("one in 64 stays");
    }
    let (leaves, inners) = tree.check();
    assert_eq!(tree.len(), 4000);
    assert!(leaves <= 4 * 4000 / 64 && inners <= 40, "{leaves} leaves, {inners} inner nodes");
}

#[test]
fn a_queue_does_not_grow_with_what_went_through() {
    let mut tree: Tree<Stone> = (0..1000).map(|key| Stone { key, weight: 1 }).collect();
    let mut most = 0;
    for key in 1000..200_000 {
        tree.push_back(Stone { key, weight: 1 });
        assert_eq!(tree.pop_front().map(|stone| stone.key), Some(key - 1000));
        most = most.max(tree.memory_bytes());
    }
    tree.check();
    assert!(most < 100_000, "{most}");
}

#[test]
fn items_pushed_to_the_front_fill_their_leaves() {
    let mut tree: Tree<Stone> = Tree::new();
    for key in 0..64_000 {
        tree.push_front(Stone { key, weight: 1 });
    }
    let (leaves, _) = tree.check();
    assert!(leaves <= 1001, "{leaves}");
}

#[test]
fn items_that_come_in_no_order_fill_three_quarters_of_their_leaves() {
    let seed = 0x5EED_0003;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tree: Tree<Stone> = Tree::new();
    for _ in 0..100_000 {
        let key = random.u32(..);
        tree.insert(tree.partition_point(|held| *held < key), Stone { key, weight: 1 });
    }
    let (leaves, _) = tree.check();
    assert!(tree.iter().is_sorted_by_key(|stone| stone.key), "seed {seed}");
    assert!(leaves * 64 * 3 / 4 <= tree.len(), "{leaves} leaves, seed {seed}");
}

#[test]
fn shedding_hands_out_every_item_once_in_slices() {
    let tree: Tree<Owner, 8, 4> = (1..=1000).map(|n| Owner(vec![0; n])).collect();
    let (mut shed, mut seen, mut calls) = (tree.into_shed(), [0u8; 1001], 0);
    loop {
        let mut handed = 0;
        let more = shed.shed(7, |item| {
            seen[item.0.len()] += 1;
            handed += 1;
        });
        calls += 1;
        assert!(handed <= 7 && calls <= 1000usize.div_ceil(7), "{handed} items in call {calls}");
        if !more {
            break;
        }
    }
    assert!(seen[1..].iter().all(|times| *times == 1));
    assert!(!shed.shed(7, |_| unreachable!("nothing is left")));
}

#[test]
fn a_change_of_weight_moves_all_positions_behind_it() {
    let mut tree: Tree<Owner, 4, 4> = (0..100).map(|_| Owner(vec![0; 3])).collect();
    let (cursor, offset) = tree.at_weight(151).expect("it is inside");
    assert_eq!(offset, 1);
    tree.get_mut(cursor, |item| item.0.push(1));
    tree.check();
    assert_eq!((tree.weight(), tree.weight_before(cursor)), (301, 150));
    assert_eq!(tree.at_weight(153), Some((cursor, 3)));
    let behind = tree.next(cursor).expect("there are more");
    assert_eq!(tree.at_weight(154), Some((behind, 0)));
}

#[test]
#[should_panic(expected = "an item has a weight")]
fn an_item_without_weight_is_refused() {
    Tree::<Owner>::new().push_back(Owner(Vec::new()));
}

fn lower(a: &(f64, u32), b: &(f64, u32)) -> bool {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).is_lt()
}

fn measure<const LEAF: usize, const FAN: usize>(count: usize, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let members: Vec<(f64, u32)> = (0..count).map(|n| (random.f64(), n as u32)).collect();
    let mut tree = Tree::<(f64, u32), LEAF, FAN>::new();
    let per = |start: Instant| start.elapsed().as_nanos() / count as u128;

    let start = Instant::now();
    for member in &members {
        tree.insert(tree.partition_point(|held| lower(held, member)), *member);
    }
    let insert = per(start);
    let bytes = tree.memory_bytes() as f64 / count as f64;
    let start = Instant::now();
    let ranks: u64 = members
        .iter()
        .map(|member| tree.weight_before(tree.partition_point(|held| lower(held, member))))
        .sum();
    let rank = per(start);
    assert_eq!(ranks, (count as u64) * (count as u64 - 1) / 2);
    let start = Instant::now();
    for _ in 0..count {
        assert!(tree.at_weight(random.u64(..count as u64)).is_some());
    }
    let at = per(start);
    let start = Instant::now();
    let order: u64 = tree.iter().map(|item| u64::from(item.1)).sum();
    let walk = start.elapsed().as_nanos() as f64 / count as f64;
    assert_eq!(order, ranks);
    let built: Tree<(f64, u32), LEAF, FAN> = tree.iter().copied().collect();
    let built_bytes = built.memory_bytes() as f64 / count as f64;
    let start = Instant::now();
    for member in &members {
        tree.remove(tree.partition_point(|held| lower(held, member)));
    }
    let remove = per(start);
    println!(
        "{count:>9} items, leaf {LEAF:>3}, fan {FAN:>3}: insert {insert} ns, rank {rank} ns, \
         by rank {at} ns, walk {walk:.1} ns, remove {remove} ns; {bytes:.1} bytes an item, \
         {built_bytes:.1} when built in order"
    );
}

#[test]
#[ignore = "a measurement of two minutes"]
fn measure_a_sorted_set() {
    let seed = 0x5EED_0002;
    for count in [1_000_000, 10_000_000] {
        measure::<32, 32>(count, seed);
        measure::<64, 32>(count, seed);
        measure::<64, 64>(count, seed);
    }
}
