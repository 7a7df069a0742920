//! The devices that have something in common, by their numbers. Most tags and values are of a few
//! devices only, and a bitmap of two numbers takes as much as twenty in a list.

use std::borrow::Cow;

use roaring::RoaringBitmap;

/// A posting of more numbers than this is a bitmap.
const FEW: usize = 8;

/// An ascending set of numbers.
#[derive(Debug)]
pub(crate) enum Posting {
    Few(Vec<u32>),
    Many(RoaringBitmap),
}

impl Default for Posting {
    fn default() -> Posting {
        Posting::Few(Vec::new())
    }
}

impl Posting {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Posting::Few(numbers) => numbers.is_empty(),
            Posting::Many(bitmap) => bitmap.is_empty(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Posting::Few(numbers) => numbers.len() as u64,
            Posting::Many(bitmap) => bitmap.len(),
        }
    }

    pub(crate) fn insert(&mut self, number: u32) {
        match self {
            Posting::Few(numbers) => {
                let Err(place) = numbers.binary_search(&number) else { return };
                if numbers.len() < FEW {
                    numbers.insert(place, number);
                } else {
                    let mut bitmap = self.to_bitmap().into_owned();
                    bitmap.insert(number);
                    *self = Posting::Many(bitmap);
                }
            }
            Posting::Many(bitmap) => {
                bitmap.insert(number);
            }
        }
    }

    pub(crate) fn remove(&mut self, number: u32) {
        match self {
            Posting::Few(numbers) => numbers.retain(|other| *other != number),
            Posting::Many(bitmap) => {
                bitmap.remove(number);
                if bitmap.is_empty() {
                    *self = Posting::default();
                }
            }
        }
    }

    pub(crate) fn to_bitmap(&self) -> Cow<'_, RoaringBitmap> {
        match self {
            Posting::Few(numbers) => Cow::Owned(numbers.iter().copied().collect()),
            Posting::Many(bitmap) => Cow::Borrowed(bitmap),
        }
    }

    /// How many of them `bitmap` has.
    pub(crate) fn count_in(&self, bitmap: &RoaringBitmap) -> u64 {
        match self {
            Posting::Few(numbers) => {
                numbers.iter().filter(|number| bitmap.contains(**number)).count() as u64
            }
            Posting::Many(own) => own.intersection_len(bitmap),
        }
    }

    /// Those of them that `bitmap` has.
    pub(crate) fn within(&self, bitmap: &RoaringBitmap) -> RoaringBitmap {
        match self {
            Posting::Few(numbers) => {
                numbers.iter().copied().filter(|number| bitmap.contains(*number)).collect()
            }
            Posting::Many(own) => own & bitmap,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_posting_is_a_set(changes: Vec<(bool, u8)>, others: BTreeSet<u8>) {
            let (mut posting, mut set) = (Posting::default(), BTreeSet::new());
            let others = others.into_iter().map(u32::from).collect::<RoaringBitmap>();
            for (inserts, number) in changes {
                let number = u32::from(number % 24);
                match inserts {
                    true => { posting.insert(number); set.insert(number); }
                    false => { posting.remove(number); set.remove(&number); }
                }
                prop_assert_eq!(posting.len(), set.len() as u64);
                prop_assert_eq!(posting.is_empty(), set.is_empty());
                let bitmap = set.iter().copied().collect::<RoaringBitmap>();
                prop_assert_eq!(&*posting.to_bitmap(), &bitmap);
                prop_assert_eq!(posting.count_in(&others), bitmap.intersection_len(&others));
                prop_assert_eq!(posting.within(&others), bitmap & &others);
            }
        }
    }
}
