//! Where a tree grows and shrinks: leaves are split, filled up from one another and merged, inner
//! nodes split and merged, the root raised and lowered.
//!
//! A full leaf first gives to a neighbour under the same parent, and is split when both are full;
//! at the tree's ends it is not halved, so that items put there in order leave full leaves behind.
//! An inner node is split as soon as it is full: between operations each has room for one child.
//!
//! Nothing here recurses; each loop goes from a leaf to the root at most.

use super::node::{Child, Inner, Leaf};
use super::slab::NONE;
use super::{Cursor, Tree, Weigh};

impl<T: Weigh, const LEAF: usize, const FAN: usize> Tree<T, LEAF, FAN> {
    /// A neighbour with less room than this is not worth the copying.
    const ROOM_MIN: usize = if LEAF / 8 > 2 { LEAF / 8 } else { 2 };

    /// The first leaf.
    pub(super) fn plant(&mut self) -> Cursor {
        let root = self.leaves.push(Leaf::new());
        (self.root, self.first, self.last) = (root, root, root);
        Cursor::new(root, 0)
    }

    /// Sees to it that an item can be inserted at the place; returns where that is now. If its slot
    /// is 0, the keys above are not right before the item is in and its weight counted.
    pub(super) fn make_room(&mut self, cursor: Cursor) -> Cursor {
        let leaf = self.leaves.get(cursor.leaf);
        if leaf.len() < LEAF {
            return cursor;
        }
        let slot = cursor.slot();
        let at = if slot == LEAF && leaf.next == NONE {
            LEAF
        } else if slot == 0 && leaf.prev == NONE {
            0
        } else {
            if let Some(cursor) = self.give_to_neighbour(cursor) {
                return cursor;
            }
            LEAF / 2
        };
        let right = self.split_leaf(cursor.leaf, at);
        if slot <= at && at < LEAF { cursor } else { Cursor::new(right, slot - at) }
    }

    /// Moves items of a full leaf to the one before or behind it, if that has room and the same
    /// parent.
    fn give_to_neighbour(&mut self, cursor: Cursor) -> Option<Cursor> {
        let (id, slot) = (cursor.leaf, cursor.slot());
        let (prev, next) = self.leaf_siblings(id);
        let room = |leaf| match leaf {
            NONE => 0,
            leaf => LEAF - self.leaves.get(leaf).len(),
        };
        let (before, behind) = (room(prev), room(next));
        if before.max(behind) < Self::ROOM_MIN {
            return None;
        }
        if before >= behind {
            let count = before / 2;
            self.level_leaves(prev, id, |left, right| left.pull(right, count));
            let held = LEAF - before;
            Some(match slot.checked_sub(count) {
                Some(slot) => Cursor::new(id, slot),
                None => Cursor::new(prev, held + slot),
            })
        } else {
            let count = behind / 2;
            self.level_leaves(id, next, |left, right| left.push(right, count));
            Some(match slot.checked_sub(LEAF - count) {
                Some(slot) if slot > 0 => Cursor::new(next, slot),
                _ => cursor,
            })
        }
    }

    fn split_leaf(&mut self, id: u32, at: usize) -> u32 {
        let right = self.leaves.push(Leaf::new());
        let (leaf, new) = self.leaves.pair_mut(id, right);
        leaf.push(new, leaf.len() - at);
        let next = std::mem::replace(&mut leaf.next, right);
        (new.prev, new.next) = (id, next);
        let (weight, key) = (new.weight(), new.first_key().unwrap_or_default());
        match next {
            NONE => self.last = right,
            next => self.leaves.get_mut(next).prev = right,
        }
        self.divide(id, Child { id: right, weight, key });
        right
    }

    /// A node has given a part of its weight to a new one right behind it, which its parent is told
    /// of. Splits the inner nodes that become full by that.
    fn divide(&mut self, left: u32, right: Child<T::Key>) {
        let (mut left, mut right) = (left, right);
        for level in 0..=self.height {
            let parent = match self.parent(level, left) {
                NONE => self.raise_root(level),
                parent => parent,
            };
            self.set_parent(level, right.id, parent);
            let inner = self.inners.get_mut(parent);
            let index = inner.position(left);
            inner.weights_mut()[index] -= right.weight;
            inner.insert(index + 1, right);
            if inner.len() < FAN {
                return;
            }
            let at = match index {
                0 => 1,
                _ if index + 2 == FAN => FAN - 1,
                _ => FAN / 2,
            };
            right = self.split_inner(parent, at);
            left = parent;
        }
    }

    fn split_inner(&mut self, id: u32, at: usize) -> Child<T::Key> {
        let level = self.inners.get(id).level;
        let right = self.inners.push(Inner::new(level));
        let (inner, new) = self.inners.pair_mut(id, right);
        inner.move_from(at, new);
        let (weight, key) = (new.weights().iter().sum(), new.keys()[0]);
        self.claim_children(right, 0);
        Child { id: right, weight, key }
    }

    /// A new root above the one there is.
    fn raise_root(&mut self, level: u32) -> u32 {
        assert_eq!(level, self.height, "only the root has no parent");
        let key = match level {
            0 => self.leaves.get(self.root).first_key(),
            _ => self.inners.get(self.root).keys().first().copied(),
        };
        let mut root = Inner::new(level + 1);
        // What the new right half took along is the old root's until the division is entered.
        let weight = self.weight;
        root.insert(0, Child { id: self.root, weight, key: key.unwrap_or_default() });
        let id = self.inners.push(root);
        self.set_parent(level, self.root, id);
        self.root = id;
        self.height += 1;
        id
    }

    /// After an item was taken out at the place: frees its leaf or merges it with a neighbour where
    /// that is due. Returns where the place is now.
    pub(super) fn tighten(&mut self, cursor: Cursor) -> Cursor {
        let (id, slot) = (cursor.leaf, cursor.slot());
        let (len, next) = (self.leaves.get(id).len(), self.leaves.get(id).next);
        if len == 0 {
            self.detach(id);
            let next = self.free_leaf(id, next);
            return if next == NONE { self.end() } else { Cursor::new(next, 0) };
        }
        if len >= LEAF / 2 {
            return self.settle(id, slot);
        }
        let (prev, next) = self.leaf_siblings(id);
        let fits = |leaf| leaf != NONE && self.leaves.get(leaf).len() + len <= LEAF / 4 * 3;
        if fits(prev) {
            let held = self.leaves.get(prev).len();
            let left = self.merge_leaves(prev, id);
            self.settle(left, held + slot)
        } else if fits(next) {
            let left = self.merge_leaves(id, next);
            self.settle(left, slot)
        } else {
            self.settle(id, slot)
        }
    }

    /// The leaves before and behind one that have the same parent.
    fn leaf_siblings(&self, id: u32) -> (u32, u32) {
        let leaf = self.leaves.get(id);
        let sibling = |other: u32| {
            let same = other != NONE && self.leaves.get(other).parent == leaf.parent;
            if same { other } else { NONE }
        };
        (sibling(leaf.prev), sibling(leaf.next))
    }

    /// All items of the right leaf go to the left one. Returns the id that the left one has now.
    fn merge_leaves(&mut self, left: u32, right: u32) -> u32 {
        let count = self.leaves.get(right).len();
        self.level_leaves(left, right, |left, right| left.pull(right, count));
        self.detach(right);
        self.free_leaf(right, left)
    }

    /// Lets `shift` move items between two neighbours under one parent, and enters there what they
    /// hold after that.
    fn level_leaves(
        &mut self,
        left: u32,
        right: u32,
        shift: impl FnOnce(&mut Leaf<T, LEAF>, &mut Leaf<T, LEAF>),
    ) {
        let (before, behind) = self.leaves.pair_mut(left, right);
        shift(before, behind);
        let (parent, weight, key) = (behind.parent, behind.weight(), behind.first_key());
        let inner = self.inners.get_mut(parent);
        let index = inner.position(left);
        let weights = inner.weights_mut();
        weights[index] = weights[index] + weights[index + 1] - weight;
        weights[index + 1] = weight;
        if let Some(key) = key {
            inner.set_key(index + 1, key);
        }
    }

    /// Takes a leaf that is empty out of its parent, and what becomes empty or can be merged by
    /// that out of the levels above. The leaf itself is freed by the caller.
    fn detach(&mut self, leaf: u32) {
        let (mut child, mut parent) = (leaf, self.leaves.get(leaf).parent);
        for level in 0..=self.height {
            if parent == NONE {
                assert_eq!(self.len, 0, "a root goes when nothing is left");
                if level > 0 {
                    self.free_inner(child, NONE);
                }
                (self.root, self.height) = (NONE, 0);
                return;
            }
            let inner = self.inners.get_mut(parent);
            let index = inner.position(child);
            assert_eq!(inner.weights()[index], 0, "what goes holds nothing");
            inner.remove(index);
            let first = if index == 0 { inner.keys().first().copied() } else { None };
            if level > 0 {
                parent = self.free_inner(child, parent);
            }
            if let Some(key) = first {
                self.tell_first_key(parent, key);
            }
            if self.inners.get(parent).len() == 0 {
                (child, parent) = (parent, self.inners.get(parent).parent);
            } else if let Some(right) = self.merge_inner(parent) {
                (child, parent) = (right, self.inners.get(right).parent);
            } else {
                break;
            }
        }
        self.lower_root();
    }

    /// The first key below an inner node is another one.
    fn tell_first_key(&mut self, id: u32, key: T::Key) {
        let (mut child, mut parent) = (id, self.inners.get(id).parent);
        while parent != NONE {
            let inner = self.inners.get_mut(parent);
            let index = inner.position(child);
            inner.set_key(index, key);
            if index > 0 {
                return;
            }
            (child, parent) = (parent, inner.parent);
        }
    }

    /// If an inner node is less than half full and there is room in it or beside it for both: all
    /// children of the right one go to the left one. Returns the right one, empty.
    fn merge_inner(&mut self, id: u32) -> Option<u32> {
        let inner = self.inners.get(id);
        let (len, parent) = (inner.len(), inner.parent);
        if parent == NONE || len >= FAN / 2 {
            return None;
        }
        let above = self.inners.get(parent);
        let index = above.position(id);
        let fits = |other: u32| self.inners.get(other).len() + len <= FAN / 4 * 3;
        let left_at = match index.checked_sub(1) {
            Some(before) if fits(above.children()[before]) => before,
            _ if above.children().get(index + 1).is_some_and(|next| fits(*next)) => index,
            _ => return None,
        };
        let (left, right) = (above.children()[left_at], above.children()[left_at + 1]);
        let above = self.inners.get_mut(parent);
        let weight = std::mem::take(&mut above.weights_mut()[left_at + 1]);
        above.weights_mut()[left_at] += weight;
        let (into, from) = self.inners.pair_mut(left, right);
        let held = into.len();
        from.move_from(0, into);
        self.claim_children(left, held);
        Some(right)
    }

    /// While the root has one child, that one is the root.
    fn lower_root(&mut self) {
        while self.height > 0 && self.inners.get(self.root).len() == 1 {
            let old = self.root;
            let only = self.inners.get(old).children()[0];
            self.height -= 1;
            self.set_parent(self.height, only, NONE);
            self.root = only;
            if self.height > 0 {
                self.root = self.free_inner(old, only);
            } else {
                self.free_inner(old, NONE);
            }
        }
    }

    fn parent(&self, level: u32, id: u32) -> u32 {
        if level == 0 { self.leaves.get(id).parent } else { self.inners.get(id).parent }
    }

    fn set_parent(&mut self, level: u32, id: u32, parent: u32) {
        if level == 0 {
            self.leaves.get_mut(id).parent = parent;
        } else {
            self.inners.get_mut(id).parent = parent;
        }
    }

    /// Tells the children of an inner node from index `from` on whose they are.
    fn claim_children(&mut self, id: u32, from: usize) {
        let level = self.inners.get(id).level;
        for index in from..self.inners.get(id).len() {
            let child = self.inners.get(id).children()[index];
            self.set_parent(level - 1, child, id);
        }
    }

    /// Frees an inner node that no node links to any more. Another one may get its id: returns the
    /// id that `watched` has after that.
    fn free_inner(&mut self, id: u32, watched: u32) -> u32 {
        let Some(from) = self.inners.swap_remove(id) else { return watched };
        self.claim_children(id, 0);
        match self.inners.get(id).parent {
            NONE => self.root = id,
            parent => {
                let above = self.inners.get_mut(parent);
                above.set_child(above.position(from), id);
            }
        }
        if watched == from { id } else { watched }
    }

    /// Frees a leaf that no inner node links to any more, as [`Tree::free_inner`] does.
    fn free_leaf(&mut self, id: u32, watched: u32) -> u32 {
        let leaf = self.leaves.get(id);
        let (prev, next) = (leaf.prev, leaf.next);
        self.link(prev, next);
        let Some(from) = self.leaves.swap_remove(id) else { return watched };
        let leaf = self.leaves.get(id);
        let (prev, next, parent) = (leaf.prev, leaf.next, leaf.parent);
        self.link(prev, id);
        self.link(id, next);
        match parent {
            NONE => self.root = id,
            parent => {
                let above = self.inners.get_mut(parent);
                above.set_child(above.position(from), id);
            }
        }
        if watched == from { id } else { watched }
    }

    /// Makes two leaves neighbours; none before the first, none behind the last.
    fn link(&mut self, prev: u32, next: u32) {
        match prev {
            NONE => self.first = next,
            prev => self.leaves.get_mut(prev).next = next,
        }
        match next {
            NONE => self.last = prev,
            next => self.leaves.get_mut(next).prev = prev,
        }
    }
}
