//! Which device has an id, and which have an alias: tables of numbers, hashed by texts that are in
//! the devices' rows. A table that doubles hashes all that it has again, so there are many small
//! tables in the place of one, and no registration waits for more than a part.

use hashbrown::HashTable;

const TABLES_BITS: u32 = 6;

#[derive(Debug)]
pub(crate) struct Index {
    tables: Box<[HashTable<u32>]>,
}

impl Default for Index {
    fn default() -> Index {
        Index { tables: (0..1 << TABLES_BITS).map(|_| HashTable::new()).collect() }
    }
}

/// The table of a hash. Tables find places by a hash's low and its highest seven bits.
fn table(hash: u64) -> usize {
    (hash >> 48) as usize & ((1 << TABLES_BITS) - 1)
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// Makes room for so many numbers, which are about to come.
    pub(crate) fn reserve(&mut self, count: usize, hash_of: impl Fn(u32) -> u64) {
        // Hashes fill no two tables alike.
        let each = count / self.tables.len() + count / self.tables.len() / 16;
        for table in &mut self.tables {
            table.reserve(each.saturating_sub(table.len()), |number| hash_of(*number));
        }
    }

    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.tables[table(hash)].find(hash, |number| is(*number)).copied()
    }

    /// All numbers of which `is` holds, in no order.
    pub(crate) fn find_all(
        &self,
        hash: u64,
        is: impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = u32> {
        self.tables[table(hash)].iter_hash(hash).copied().filter(move |number| is(*number))
    }

    /// Adds a number that is not there under this hash.
    pub(crate) fn insert(&mut self, hash: u64, number: u32, hash_of: impl Fn(u32) -> u64) {
        self.tables[table(hash)].insert_unique(hash, number, |number| hash_of(*number));
    }

    pub(crate) fn remove(&mut self, hash: u64, number: u32) {
        let entry = self.tables[table(hash)].find_entry(hash, |other| *other == number);
        entry.expect("what has a row is in the index").remove();
    }
}
