//! A counted B+ tree: a sequence of items, each with a weight, found by place, by cumulative weight
//! or by a property that holds up to some place. Sorted sets, the nodes of lists and the blocks of
//! streams are kept in it.
//!
//! ```text
//!                     Inner │ 131 a │ 118 g │ 96 q │            weight and first key of each child
//!                  ┌────────────┘       │      └────────────┐
//!   Leaf │ a b c d … │ ◄──► Leaf │ g h i … │ ◄──► Leaf │ q r s … │
//! ```
//!
//! A node knows its parent, so a [`Cursor`] is a leaf and a slot, and a rank is summed from there
//! upwards. Nodes are links into slabs without holes; no item has an allocation of the tree's own.
//!
//! Every operation copies a bounded number of nodes and visits no more of them than the tree is
//! high, except those that say otherwise. Memory follows the items: a node that is less than half
//! full and loses something becomes one with a neighbour under the same parent if three quarters
//! of a node have room for both, so two such neighbours hold at least half a node together.
//!
//! What orders the items is the caller's: the tree puts an item where it is told to.

mod balance;
mod node;
mod shed;
mod slab;
#[cfg(test)]
mod tests;

use node::{Inner, Leaf, run_length};
pub use shed::Shed;
use slab::{NONE, Slab};

/// An item of a [`Tree`]. Its default fills the places of a leaf that hold nothing: it must own no
/// memory, and its key and weight are never asked for.
pub trait Weigh: Default {
    /// What [`Tree::partition_point`] looks at. Inner nodes hold a copy of the key of the first
    /// item of each child, and of no item that is not in the tree. `()` where no one searches.
    type Key: Copy + Default;

    /// How many positions the item takes, at least one. The weights of a tree add up to less than
    /// 2^64.
    fn weight(&self) -> u64;

    /// The item's key.
    fn key(&self) -> Self::Key;
}

/// A place in a [`Tree`]: an item, or the end behind the last one.
///
/// It is valid until items are inserted or removed; what [`Tree::insert`] and
/// [`Tree::remove_then`] return is valid after it. [`Tree::get_mut`] leaves all cursors valid. A
/// cursor that is not valid names another place of the tree, or none: that is a panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    leaf: u32,
    slot: u32,
}

impl Cursor {
    fn new(leaf: u32, slot: usize) -> Cursor {
        Cursor { leaf, slot: slot as u32 }
    }

    fn slot(self) -> usize {
        self.slot as usize
    }
}

/// The counted tree. A leaf holds up to `LEAF` items, an inner node fewer than `FAN` children.
///
/// An empty tree holds no memory; the first item takes one leaf. The sizes that it has when none are
/// named suit items of 16 bytes: with leaves of 32 an item costs a byte more and finding a rank
/// half as much time again, with twice the fan nothing gets better.
#[derive(Clone, Debug)]
pub struct Tree<T: Weigh, const LEAF: usize = 64, const FAN: usize = 32> {
    leaves: Slab<Leaf<T, LEAF>>,
    inners: Slab<Inner<T::Key, FAN>>,
    /// A leaf if `height` is 0.
    root: u32,
    /// Levels of inner nodes.
    height: u32,
    first: u32,
    last: u32,
    len: usize,
    weight: u64,
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> Default for Tree<T, LEAF, FAN> {
    fn default() -> Self {
        Tree::new()
    }
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> Tree<T, LEAF, FAN> {
    /// A tree without items.
    pub const fn new() -> Self {
        const { assert!(LEAF >= 4 && FAN >= 4 && LEAF <= 4096 && FAN <= 4096) };
        Tree {
            leaves: Slab::new(),
            inners: Slab::new(),
            root: NONE,
            height: 0,
            first: NONE,
            last: NONE,
            len: 0,
            weight: 0,
        }
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The weight of all items.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// Bytes allocated for nodes. What the items own besides is not in it. Visits every 256th
    /// node.
    pub fn memory_bytes(&self) -> usize {
        self.leaves.memory_bytes() + self.inners.memory_bytes()
    }

    /// The first item.
    pub fn first(&self) -> Option<&T> {
        self.get(self.start())
    }

    /// The last item.
    pub fn last(&self) -> Option<&T> {
        self.prev(self.end()).and_then(|cursor| self.get(cursor))
    }

    /// The place of the first item, or the end.
    pub fn start(&self) -> Cursor {
        Cursor::new(self.first, 0)
    }

    /// The place behind the last item.
    pub fn end(&self) -> Cursor {
        match self.last {
            NONE => Cursor::new(NONE, 0),
            last => Cursor::new(last, self.leaves.get(last).len()),
        }
    }

    /// The item at a place; none at the end.
    pub fn get(&self, cursor: Cursor) -> Option<&T> {
        if cursor.leaf == NONE {
            return None;
        }
        self.leaves.get(cursor.leaf).items().get(cursor.slot())
    }

    /// Lets `change` alter the item at a place, and counts its weight anew. The caller sees to it
    /// that the item still is where its order wants it.
    ///
    /// # Panics
    /// There is no item at the cursor, or its weight has become 0.
    pub fn get_mut<R>(&mut self, cursor: Cursor, change: impl FnOnce(&mut T) -> R) -> R {
        assert_ne!(cursor.leaf, NONE, "an empty tree has no item to change");
        let item = self.leaves.get_mut(cursor.leaf).item_mut(cursor.slot());
        let before = item.weight();
        let result = change(item);
        let (after, key) = (item.weight(), item.key());
        assert_ne!(after, 0, "an item has a weight");
        self.weight = self.weight - before + after;
        self.climb(cursor.leaf, before, after, (cursor.slot == 0).then_some(key));
        result
    }

    /// The item that position `weight` falls into, and how far in it does. None from the tree's
    /// weight on.
    pub fn at_weight(&self, weight: u64) -> Option<(Cursor, u64)> {
        if weight >= self.weight {
            return None;
        }
        let (mut node, mut rest) = (self.root, weight);
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            let index = pass(inner.weights().iter().copied(), &mut rest);
            node = inner.children()[index];
        }
        let slot = pass(self.leaves.get(node).items().iter().map(Weigh::weight), &mut rest);
        Some((Cursor::new(node, slot), rest))
    }

    /// The first item for whose key `holds` is false, if it is true for those of all items before
    /// it; the end if it is true for all.
    pub fn partition_point(&self, mut holds: impl FnMut(&T::Key) -> bool) -> Cursor {
        if self.root == NONE {
            return self.end();
        }
        let mut node = self.root;
        for _ in 0..self.height {
            let inner = self.inners.get(node);
            // The first child is where what is before all keys goes; its own need not be asked.
            let index = run_length(&inner.keys()[1..], &mut holds);
            node = inner.children()[index];
        }
        let slot = run_length(self.leaves.get(node).items(), |item| holds(&item.key()));
        self.settle(node, slot)
    }

    /// The weight of all items before a place: the rank of the item there.
    pub fn weight_before(&self, cursor: Cursor) -> u64 {
        if cursor.leaf == NONE {
            return 0;
        }
        let leaf = self.leaves.get(cursor.leaf);
        let mut sum = leaf.weight_before(cursor.slot());
        let (mut child, mut parent) = (cursor.leaf, leaf.parent);
        while parent != NONE {
            let inner = self.inners.get(parent);
            sum += inner.weights()[..inner.position(child)].iter().sum::<u64>();
            (child, parent) = (parent, inner.parent);
        }
        sum
    }

    /// Puts an item before a place; at the end, behind all. Returns its place. All other cursors
    /// become invalid.
    ///
    /// # Panics
    /// The item has no weight, or the cursor is not valid.
    pub fn insert(&mut self, cursor: Cursor, item: T) -> Cursor {
        let (weight, key) = (item.weight(), item.key());
        assert_ne!(weight, 0, "an item has a weight");
        let place = if self.root == NONE { self.plant() } else { self.make_room(cursor) };
        self.leaves.get_mut(place.leaf).insert(place.slot(), item);
        self.climb(place.leaf, 0, weight, (place.slot == 0).then_some(key));
        self.weight += weight;
        self.len += 1;
        place
    }

    /// Takes the item at a place out. All cursors become invalid.
    ///
    /// # Panics
    /// There is no item at the cursor.
    pub fn remove(&mut self, cursor: Cursor) -> T {
        self.remove_then(cursor).0
    }

    /// Takes the item at a place out; returns it and the place of the one that was behind it. All
    /// other cursors become invalid.
    ///
    /// # Panics
    /// There is no item at the cursor.
    pub fn remove_then(&mut self, cursor: Cursor) -> (T, Cursor) {
        assert_ne!(cursor.leaf, NONE, "an empty tree has no item to take out");
        let leaf = self.leaves.get_mut(cursor.leaf);
        assert!(cursor.slot() < leaf.len(), "there is an item to take out");
        let item = leaf.remove(cursor.slot());
        let key = if cursor.slot == 0 { leaf.first_key() } else { None };
        let weight = item.weight();
        self.climb(cursor.leaf, weight, 0, key);
        self.weight -= weight;
        self.len -= 1;
        (item, self.tighten(cursor))
    }

    /// Puts an item behind all others. All other cursors become invalid.
    pub fn push_back(&mut self, item: T) -> Cursor {
        self.insert(self.end(), item)
    }

    /// Puts an item before all others. All other cursors become invalid.
    pub fn push_front(&mut self, item: T) -> Cursor {
        self.insert(self.start(), item)
    }

    /// Takes the last item out. All cursors become invalid.
    pub fn pop_back(&mut self) -> Option<T> {
        self.prev(self.end()).map(|cursor| self.remove(cursor))
    }

    /// Takes the first item out. All cursors become invalid.
    pub fn pop_front(&mut self) -> Option<T> {
        (!self.is_empty()).then(|| self.remove(self.start()))
    }

    /// The place behind that of an item: the next item or the end. None behind the end.
    pub fn next(&self, cursor: Cursor) -> Option<Cursor> {
        self.get(cursor).map(|_| self.settle(cursor.leaf, cursor.slot() + 1))
    }

    /// The item before a place. None before the first.
    pub fn prev(&self, cursor: Cursor) -> Option<Cursor> {
        if cursor.leaf == NONE {
            return None;
        }
        if cursor.slot > 0 {
            return Some(Cursor { slot: cursor.slot - 1, ..cursor });
        }
        match self.leaves.get(cursor.leaf).prev {
            NONE => None,
            prev => Some(Cursor::new(prev, self.leaves.get(prev).len() - 1)),
        }
    }

    /// The items from a place on, in order.
    pub fn iter_from(&self, cursor: Cursor) -> impl Iterator<Item = &T> {
        let mut leaf = cursor.leaf;
        let mut items = match leaf {
            NONE => [].iter(),
            _ => self.leaves.get(leaf).items()[cursor.slot()..].iter(),
        };
        std::iter::from_fn(move || {
            if let Some(item) = items.next() {
                return Some(item);
            }
            leaf = if leaf == NONE { NONE } else { self.leaves.get(leaf).next };
            if leaf == NONE {
                return None;
            }
            items = self.leaves.get(leaf).items().iter();
            items.next()
        })
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.iter_from(self.start())
    }

    /// The item at a place and those before it, backwards; at the end, all items.
    pub fn iter_back_from(&self, cursor: Cursor) -> impl Iterator<Item = &T> {
        let mut leaf = cursor.leaf;
        let mut items = match leaf {
            NONE => [].iter(),
            _ => {
                let held = self.leaves.get(leaf).items();
                held[..held.len().min(cursor.slot() + 1)].iter()
            }
        };
        std::iter::from_fn(move || {
            if let Some(item) = items.next_back() {
                return Some(item);
            }
            leaf = if leaf == NONE { NONE } else { self.leaves.get(leaf).prev };
            if leaf == NONE {
                return None;
            }
            items = self.leaves.get(leaf).items().iter();
            items.next_back()
        })
    }

    /// The tree's items to be dropped a few at a time.
    pub fn into_shed(self) -> Shed<T, LEAF, FAN> {
        Shed::new(self.leaves, self.inners)
    }

    /// A place by leaf and slot; what is behind a leaf's last item is the next leaf's first.
    fn settle(&self, leaf: u32, slot: usize) -> Cursor {
        let held = self.leaves.get(leaf);
        if slot == held.len() && held.next != NONE {
            return Cursor::new(held.next, 0);
        }
        Cursor::new(leaf, slot)
    }

    /// The weight of a leaf went from a sum with `before` in it to one with `after`; `first` is the
    /// key of its first item if that is another than it was.
    fn climb(&mut self, leaf: u32, before: u64, after: u64, mut first: Option<T::Key>) {
        let (mut child, mut parent) = (leaf, self.leaves.get(leaf).parent);
        while parent != NONE {
            let inner = self.inners.get_mut(parent);
            let index = inner.position(child);
            let weight = &mut inner.weights_mut()[index];
            *weight = *weight - before + after;
            if let Some(key) = first {
                inner.set_key(index, key);
            }
            if index > 0 {
                first = None;
            }
            (child, parent) = (parent, inner.parent);
        }
    }
}

/// Items in order, put behind all others. Leaves are filled whole, so this is how a tree is built.
impl<T: Weigh, const LEAF: usize, const FAN: usize> Extend<T> for Tree<T, LEAF, FAN> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        let mut gained = 0;
        for item in items {
            let weight = item.weight();
            assert_ne!(weight, 0, "an item has a weight");
            if self.last != NONE && self.leaves.get(self.last).len() < LEAF {
                let leaf = self.leaves.get_mut(self.last);
                leaf.insert(leaf.len(), item);
                gained += weight;
                self.len += 1;
            } else {
                self.gain(gained);
                gained = 0;
                self.push_back(item);
            }
        }
        self.gain(gained);
    }
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> Tree<T, LEAF, FAN> {
    /// Counts what was put into the last leaf.
    fn gain(&mut self, weight: u64) {
        if weight > 0 {
            self.climb(self.last, 0, weight, None);
            self.weight += weight;
        }
    }
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> FromIterator<T> for Tree<T, LEAF, FAN> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut tree = Tree::new();
        tree.extend(items);
        tree
    }
}

/// Which of the weights position `rest` falls into. Takes those before it off `rest`, which is
/// less than their sum.
fn pass(weights: impl Iterator<Item = u64>, rest: &mut u64) -> usize {
    for (index, weight) in weights.enumerate() {
        if *rest < weight {
            return index;
        }
        *rest -= weight;
    }
    unreachable!("the weights of a node add up to what its parent says");
}
