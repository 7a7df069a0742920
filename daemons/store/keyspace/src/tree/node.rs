//! The two kinds of nodes, and what can be done within one or between two of them.
//!
//! ```text
//!   Inner   weights [u64]   keys [Key]   children [u32]     of child i: its weight, its first
//!                                                           item's key, its id
//!   Leaf    items [T]       what is behind len is T::default()
//! ```

use super::Weigh;
use super::slab::NONE;

#[derive(Clone, Debug)]
pub(super) struct Leaf<T, const LEAF: usize> {
    items: [T; LEAF],
    len: u32,
    pub(super) parent: u32,
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl<T: Weigh, const LEAF: usize> Leaf<T, LEAF> {
    pub(super) fn new() -> Leaf<T, LEAF> {
        Leaf {
            items: std::array::from_fn(|_| T::default()),
            len: 0,
            parent: NONE,
            prev: NONE,
            next: NONE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn items(&self) -> &[T] {
        &self.items[..self.len()]
    }

    pub(super) fn item_mut(&mut self, slot: usize) -> &mut T {
        let len = self.len();
        &mut self.items[..len][slot]
    }

    pub(super) fn first_key(&self) -> Option<T::Key> {
        self.items().first().map(Weigh::key)
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight_before(self.len())
    }

    /// The weight of the items before `slot`.
    pub(super) fn weight_before(&self, slot: usize) -> u64 {
        self.items()[..slot].iter().map(Weigh::weight).sum()
    }

    pub(super) fn insert(&mut self, slot: usize, item: T) {
        let len = self.len();
        assert!(slot <= len && len < LEAF, "there is room for it");
        self.items[slot..=len].rotate_right(1);
        self.items[slot] = item;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, slot: usize) -> T {
        let len = self.len();
        self.items[slot..len].rotate_left(1);
        self.len -= 1;
        std::mem::take(&mut self.items[len - 1])
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.len().checked_sub(1)?;
        self.len -= 1;
        Some(std::mem::take(&mut self.items[last]))
    }

    /// Moves the first `count` items of the leaf behind this one into this one.
    pub(super) fn pull(&mut self, right: &mut Leaf<T, LEAF>, count: usize) {
        let (len, right_len) = (self.len(), right.len());
        self.items[len..len + count].swap_with_slice(&mut right.items[..count]);
        right.items[..right_len].rotate_left(count);
        self.len += count as u32;
        right.len -= count as u32;
    }

    /// Moves the last `count` items of this leaf into the one behind it.
    pub(super) fn push(&mut self, right: &mut Leaf<T, LEAF>, count: usize) {
        let (keep, right_len) = (self.len() - count, right.len());
        right.items[..right_len + count].rotate_right(count);
        right.items[..count].swap_with_slice(&mut self.items[keep..keep + count]);
        self.len -= count as u32;
        right.len += count as u32;
    }
}

/// How many items from the first one on `holds` is true for, if it is true for those and no
/// others.
///
/// Halving would wait for memory once a step. Here one item of each few is asked first, all of
/// them, so that they are fetched together; that costs some more questions.
pub(super) fn run_length<T>(items: &[T], mut holds: impl FnMut(&T) -> bool) -> usize {
    const STRIDE: usize = 8;
    let strides = items.iter().step_by(STRIDE).filter(|item| holds(item)).count();
    let Some(full) = strides.checked_sub(1) else { return 0 };
    let (from, to) = (full * STRIDE + 1, items.len().min(strides * STRIDE));
    from + items[from..to].partition_point(holds)
}

/// An entry of an inner node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Child<K> {
    pub(super) id: u32,
    pub(super) weight: u64,
    pub(super) key: K,
}

#[derive(Clone, Debug)]
pub(super) struct Inner<K, const FAN: usize> {
    weights: [u64; FAN],
    keys: [K; FAN],
    children: [u32; FAN],
    len: u32,
    pub(super) parent: u32,
    /// 1 above the leaves.
    pub(super) level: u32,
}

impl<K: Copy + Default, const FAN: usize> Inner<K, FAN> {
    pub(super) fn new(level: u32) -> Inner<K, FAN> {
        Inner {
            weights: [0; FAN],
            keys: [K::default(); FAN],
            children: [NONE; FAN],
            len: 0,
            parent: NONE,
            level,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn children(&self) -> &[u32] {
        &self.children[..self.len()]
    }

    pub(super) fn weights(&self) -> &[u64] {
        &self.weights[..self.len()]
    }

    pub(super) fn weights_mut(&mut self) -> &mut [u64] {
        let len = self.len();
        &mut self.weights[..len]
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys[..self.len()]
    }

    pub(super) fn set_key(&mut self, index: usize, key: K) {
        let len = self.len();
        self.keys[..len][index] = key;
    }

    pub(super) fn set_child(&mut self, index: usize, id: u32) {
        let len = self.len();
        self.children[..len][index] = id;
    }

    /// Where the child is among the children.
    pub(super) fn position(&self, id: u32) -> usize {
        self.children()
            .iter()
            .position(|child| *child == id)
            .expect("a node is a child of its parent")
    }

    pub(super) fn insert(&mut self, index: usize, child: Child<K>) {
        let len = self.len();
        assert!(index <= len && len < FAN, "there is room for it");
        self.weights[index..=len].rotate_right(1);
        self.keys[index..=len].rotate_right(1);
        self.children[index..=len].rotate_right(1);
        self.weights[index] = child.weight;
        self.keys[index] = child.key;
        self.children[index] = child.id;
        self.len += 1;
    }

    pub(super) fn remove(&mut self, index: usize) {
        let len = self.len();
        self.weights[index..len].rotate_left(1);
        self.keys[index..len].rotate_left(1);
        self.children[index..len].rotate_left(1);
        self.len -= 1;
    }

    /// Moves the entries from `at` on to the end of another node.
    pub(super) fn move_from(&mut self, at: usize, to: &mut Inner<K, FAN>) {
        let (len, to_len) = (self.len(), to.len());
        let count = len - at;
        assert!(to_len + count <= FAN, "there is room for them");
        to.weights[to_len..to_len + count].copy_from_slice(&self.weights[at..len]);
        to.keys[to_len..to_len + count].copy_from_slice(&self.keys[at..len]);
        to.children[to_len..to_len + count].copy_from_slice(&self.children[at..len]);
        self.len = at as u32;
        to.len += count as u32;
    }
}
