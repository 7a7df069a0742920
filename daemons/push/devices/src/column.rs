//! The numbers that an app's devices have as the value of one attribute: by ranges of 4,096
//! devices, those of them that have one, and what it is. Ten bytes a device, however many distinct
//! values there are; a comparison looks at all of them, which takes about a millisecond a million.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::device::Number;

/// Devices of a range.
const RANGE_BITS: u32 = 12;
/// Devices of one container of a bitmap.
const CONTAINER_BITS: u32 = 16;
const CONTAINER_BYTES: usize = 1 << (CONTAINER_BITS - 3);

/// A set of devices that is this much smaller than what is to be looked through is looked up in it
/// one by one.
pub(crate) const MUCH_SMALLER: u64 = 8;

#[derive(Debug, Default)]
struct Range {
    /// The devices, ascending, as distances from the range's first.
    devices: Vec<u16>,
    values: Vec<Number>,
}

#[derive(Debug, Default)]
pub(crate) struct Column {
    ranges: BTreeMap<u32, Range>,
    len: u64,
}

fn split(device: u32) -> (u32, u16) {
    (device >> RANGE_BITS, (device & ((1 << RANGE_BITS) - 1)) as u16)
}

/// Makes room in steps of a quarter: most columns grow slowly, and there are many.
fn grow<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 4 + 4);
    }
}

impl Column {
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn get(&self, device: u32) -> Option<Number> {
        let (range, place) = split(device);
        let range = self.ranges.get(&range)?;
        let place = range.devices.binary_search(&place).ok()?;
        Some(range.values[place])
    }

    pub(crate) fn set(&mut self, device: u32, value: Number) {
        let (range, low) = split(device);
        let range = self.ranges.entry(range).or_default();
        match range.devices.binary_search(&low) {
            Ok(place) => range.values[place] = value,
            Err(place) => {
                grow(&mut range.devices);
                grow(&mut range.values);
                range.devices.insert(place, low);
                range.values.insert(place, value);
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, device: u32) {
        let (key, low) = split(device);
        let Some(range) = self.ranges.get_mut(&key) else { return };
        let Ok(place) = range.devices.binary_search(&low) else { return };
        range.devices.remove(place);
        range.values.remove(place);
        self.len -= 1;
        if range.devices.is_empty() {
            self.ranges.remove(&key);
        }
    }

    /// The devices whose value is one that `wanted` wants.
    pub(crate) fn select(&self, wanted: impl Fn(f64) -> bool) -> RoaringBitmap {
        let mut out = RoaringBitmap::new();
        let mut container = Bits::default();
        for (key, range) in &self.ranges {
            let values = range.values.iter().map(|value| wanted(value.get()));
            let places = range.devices.iter().map(|place| usize::from(*place));
            container.add(key << RANGE_BITS, places.zip(values), &mut out);
        }
        container.close(&mut out);
        out
    }
}

/// The bits of one container of a bitmap that is made from its beginning to its end.
pub(crate) struct Bits {
    container: u32,
    bytes: Box<[u8; CONTAINER_BYTES]>,
}

impl Default for Bits {
    fn default() -> Bits {
        Bits { container: 0, bytes: Box::new([0; CONTAINER_BYTES]) }
    }
}

impl Bits {
    /// Adds devices of one container, which is none before that of the devices before: their
    /// distances from `first`, and whether each is in the bitmap.
    pub(crate) fn add(
        &mut self,
        first: u32,
        devices: impl Iterator<Item = (usize, bool)>,
        out: &mut RoaringBitmap,
    ) {
        let container = first >> CONTAINER_BITS;
        if container != self.container {
            self.close(out);
            self.container = container;
        }
        let offset = (first & ((1 << CONTAINER_BITS) - 1)) as usize;
        for (place, is_in) in devices {
            let place = offset + place;
            self.bytes[place >> 3] |= u8::from(is_in) << (place & 7);
        }
    }

    /// Gives the bitmap what is still here.
    pub(crate) fn close(&mut self, out: &mut RoaringBitmap) {
        if self.bytes.iter().any(|byte| *byte != 0) {
            let first = self.container << CONTAINER_BITS;
            *out |= RoaringBitmap::from_lsb0_bytes(first, &*self.bytes);
            self.bytes.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_column_is_a_map(
            changes in prop::collection::vec((0u32..40, 0u32..5, prop::option::of(-3i32..4)), 0..200),
            least in -4i32..5,
        ) {
            let (mut column, mut map) = (Column::default(), BTreeMap::new());
            for (high, low, value) in changes {
                let device = high * 3001 + low;
                match value {
                    Some(value) => {
                        column.set(device, value.into());
                        map.insert(device, Number::from(value));
                    }
                    None => {
                        column.remove(device);
                        map.remove(&device);
                    }
                }
                prop_assert_eq!(column.get(device), map.get(&device).copied());
                prop_assert_eq!(column.len(), map.len() as u64);
                prop_assert_eq!(column.is_empty(), map.is_empty());
            }
            let least = f64::from(least);
            let wanted = map.iter().filter(|(_, value)| value.get() >= least);
            let wanted = wanted.map(|(device, _)| *device).collect::<RoaringBitmap>();
            prop_assert_eq!(column.select(|value| value >= least), wanted);
        }
    }
}
