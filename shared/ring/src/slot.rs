//! Slots with generations. A slot's number is used again after it was freed, its identifier never
//! (within 2³² uses): a stale identifier finds nothing.

use std::fmt;
use std::num::NonZeroU32;

use crate::table::Table;

/// Names the content of a slot for as long as it is there. An `Option` of it takes no more memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The index and one.
    ordinal: NonZeroU32,
    generation: u32,
}

impl SlotId {
    fn new(index: u32, generation: u32) -> SlotId {
        let ordinal = index.checked_add(1).and_then(NonZeroU32::new);
        SlotId { ordinal: ordinal.expect("no slot has the last number"), generation }
    }

    /// The slot's number: small, dense, and used again. For a side table of one's own.
    pub fn index(self) -> usize {
        self.ordinal.get() as usize - 1
    }

    /// Both parts in one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.ordinal.get() - 1)
    }

    /// The inverse of [`SlotId::to_bits`].
    ///
    /// # Panics
    /// `bits` are of no identifier.
    pub fn from_bits(bits: u64) -> SlotId {
        SlotId::new(bits as u32, (bits >> 32) as u32)
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.generation)
    }
}

enum Slot<T> {
    Free { next: u32, generation: u32 },
    Used { value: T, generation: u32 },
}

const NONE: u32 = u32::MAX;

impl<T> Default for Slot<T> {
    fn default() -> Slot<T> {
        Slot::Free { next: NONE, generation: 0 }
    }
}

/// A table of slots with a limit.
pub struct Slots<T> {
    slots: Table<Slot<T>>,
    /// Slots that were used at some time: the first ones.
    span: u32,
    free: u32,
    used: usize,
    max: u32,
    generation_mask: u32,
}

impl<T> Slots<T> {
    /// A table that holds at most `max` values.
    pub fn new(max: u32) -> Slots<T> {
        Slots::with_generation_bits(max, 32)
    }

    /// As [`Slots::new`], with generations that fit in fewer bits.
    pub(crate) fn with_generation_bits(max: u32, bits: u32) -> Slots<T> {
        assert!(max < NONE, "the last number marks the end of the free list");
        assert!((1..=32).contains(&bits));
        let generation_mask = u32::MAX >> (32 - bits);
        Slots { slots: Table::default(), span: 0, free: NONE, used: 0, max, generation_mask }
    }

    /// Puts a value into a free slot.
    ///
    /// # Errors
    /// Gives the value back when all slots are in use.
    pub fn insert(&mut self, value: T) -> Result<SlotId, T> {
        let index = self.free;
        if index == NONE {
            let index = self.span;
            if index >= self.max {
                return Err(value);
            }
            *self.slots.reach(index as usize) = Slot::Used { value, generation: 0 };
            self.span += 1;
            self.used += 1;
            return Ok(SlotId::new(index, 0));
        }
        let slot = self.slots.get_mut(index as usize).expect("the free list names slots");
        let Slot::Free { next, generation } = *slot else { panic!("free list names a used slot") };
        self.free = next;
        *slot = Slot::Used { value, generation };
        self.used += 1;
        Ok(SlotId::new(index, generation))
    }

    /// The value that an identifier names, if it is still there.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        match self.slots.get(id.index()) {
            Some(Slot::Used { value, generation }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// As [`Slots::get`], to change it.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        match self.slots.get_mut(id.index()) {
            Some(Slot::Used { value, generation }) if *generation == id.generation => Some(value),
            _ => None,
        }
    }

    /// The identifier of whatever is in a slot now.
    pub fn id_at(&self, index: usize) -> Option<SlotId> {
        match self.slots.get(index)? {
            Slot::Used { generation, .. } => Some(SlotId::new(index as u32, *generation)),
            Slot::Free { .. } => None,
        }
    }

    /// How many slots there are, used and free: every index is below it.
    pub fn span(&self) -> usize {
        self.span as usize
    }

    /// Whatever is in a slot now.
    pub fn at(&self, index: usize) -> Option<&T> {
        match self.slots.get(index)? {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    pub(crate) fn at_mut(&mut self, index: usize) -> Option<&mut T> {
        match self.slots.get_mut(index)? {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => None,
        }
    }

    /// Takes the value out and frees its slot.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.get(id)?;
        let next = id.generation.wrapping_add(1) & self.generation_mask;
        let free = Slot::Free { next: self.free, generation: next };
        let slot = std::mem::replace(self.slots.get_mut(id.index())?, free);
        self.free = id.index() as u32;
        self.used -= 1;
        match slot {
            Slot::Used { value, .. } => Some(value),
            Slot::Free { .. } => unreachable!("`get` found a value"),
        }
    }

    /// Values in the table.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// All values with their identifiers, in the order of the slots.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Used { value, generation } => {
                Some((SlotId::new(index as u32, *generation), value))
            }
            Slot::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn an_identifier_that_may_be_none_is_no_larger() {
        assert_eq!((size_of::<SlotId>(), size_of::<Option<SlotId>>()), (8, 8));
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut slots = Slots::new(1);
        let first = slots.insert('a').unwrap();
        assert_eq!(slots.insert('b'), Err('b'));
        assert_eq!(slots.remove(first), Some('a'));
        assert!(slots.insert('b').is_ok());
    }

    proptest! {
        #[test]
        fn an_identifier_finds_its_own_value_or_nothing(ops in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..200)) {
            let mut slots = Slots::new(16);
            let mut oracle = HashMap::new();
            let mut given: Vec<SlotId> = Vec::new();
            for (n, (insert, pick)) in ops.into_iter().enumerate() {
                if insert {
                    match slots.insert(n) {
                        Ok(id) => {
                            prop_assert!(oracle.insert(id, n).is_none(), "identifier used twice");
                            given.push(id);
                        }
                        Err(value) => prop_assert_eq!((value, oracle.len()), (n, 16)),
                    }
                } else if !given.is_empty() {
                    let id = given[pick.index(given.len())];
                    prop_assert_eq!(slots.remove(id), oracle.remove(&id));
                }
                prop_assert_eq!(slots.len(), oracle.len());
                for id in &given {
                    prop_assert_eq!(slots.get(*id), oracle.get(id));
                    prop_assert_eq!(SlotId::from_bits(id.to_bits()), *id);
                }
            }
        }
    }
}
