//! A table that grows piece by piece and never moves what it holds.
//!
//! A `Vec` that outgrows its memory is copied, and a core with many connections stands still for as
//! long as that takes; and what it leaves is a hole of its size, which stays resident (30 % of the
//! memory of 100,000 idle MQTT connections, with glibc's allocator).
//!
//! ```text
//!   index   0 … 63    64 … 127   128 … 191
//!         │ piece   │ piece    │ piece   │     what was never set is T::default()
//! ```

/// Entries of a piece. As a constant that is a power of two it costs an access little.
const PIECE: usize = 64;

/// A table of entries by their numbers, which are dense.
pub struct Table<T> {
    pieces: Vec<Box<[T; PIECE]>>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { pieces: Vec::new() }
    }
}

impl<T: Default> Table<T> {
    /// The entry of that number, for which the table grows.
    pub fn reach(&mut self, index: usize) -> &mut T {
        while self.span() <= index {
            self.pieces.push(Box::new(std::array::from_fn(|_| T::default())));
        }
        &mut self.pieces[index / PIECE][index % PIECE]
    }
}

impl<T> Table<T> {
    /// The entry of that number, if the table has grown so far.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        Some(&self.pieces.get(index / PIECE)?[index % PIECE])
    }

    /// As [`Table::get`], to change it.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        Some(&mut self.pieces.get_mut(index / PIECE)?[index % PIECE])
    }

    /// How many entries there are: every number is below it.
    pub fn span(&self) -> usize {
        self.pieces.len() * PIECE
    }

    /// All entries, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_their_numbers_and_stay_where_they_are() {
        let mut table = Table::default();
        assert!(table.get(0).is_none() && table.get_mut(0).is_none());
        let mut places = Vec::new();
        for number in 0..5 * PIECE + 7 {
            *table.reach(number) = number + 1;
            places.push(std::ptr::from_ref(table.get(number).unwrap()));
        }
        assert_eq!(table.span(), 6 * PIECE);
        for (number, place) in places.into_iter().enumerate() {
            assert_eq!(table.get_mut(number), Some(&mut (number + 1)));
            assert!(std::ptr::eq(table.get(number).unwrap(), place));
        }
        assert!(table.iter().take(5 * PIECE + 7).copied().eq(1..5 * PIECE + 8));
        assert!(table.iter().skip(5 * PIECE + 7).all(|entry| *entry == 0));
        assert!(table.get(6 * PIECE).is_none());
    }
}
