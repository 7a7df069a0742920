//! A tree that goes, a few items at a time, so that freeing a large one does not hold up its core.

use super::Weigh;
use super::node::{Inner, Leaf};
use super::slab::Slab;

/// What is left of a [`Tree`](super::Tree) that is being dropped. Dropping this drops the rest at
/// once.
#[derive(Debug)]
pub struct Shed<T: Weigh, const LEAF: usize, const FAN: usize> {
    leaves: Slab<Leaf<T, LEAF>>,
    inners: Slab<Inner<T::Key, FAN>>,
}

impl<T: Weigh, const LEAF: usize, const FAN: usize> Shed<T, LEAF, FAN> {
    pub(super) fn new(
        leaves: Slab<Leaf<T, LEAF>>,
        inners: Slab<Inner<T::Key, FAN>>,
    ) -> Shed<T, LEAF, FAN> {
        Shed { leaves, inners }
    }

    /// Hands up to `items_max` items to `each`, in no particular order, and frees their nodes.
    /// Returns whether something is left.
    pub fn shed(&mut self, items_max: usize, mut each: impl FnMut(T)) -> bool {
        let mut left = items_max;
        while let Some(leaf) = self.leaves.last_mut() {
            while left > 0
                && let Some(item) = leaf.pop()
            {
                each(item);
                left -= 1;
            }
            if leaf.len() > 0 {
                return true;
            }
            // There are fewer inner nodes than leaves.
            self.leaves.pop();
            self.inners.pop();
        }
        false
    }
}
