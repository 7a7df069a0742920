//! What collections have in common: up to where they are small.

/// Up to where collections are small. A size counts elements: fields, members, entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Fields of a small hash.
    pub hash_entries_max: usize,
    /// Bytes of a field, and of a value, of a small hash.
    pub hash_value_max: usize,
    /// Members of a set of integers.
    pub set_ints_max: usize,
    /// Members of a packed set.
    pub set_entries_max: usize,
    /// Bytes of a member of a packed set.
    pub set_value_max: usize,
    /// Members of a small sorted set.
    pub zset_entries_max: usize,
    /// Bytes of a member of a small sorted set.
    pub zset_value_max: usize,
    /// A node of a list: elements if positive; if negative, −1 is 4 KiB, and each one less twice
    /// as much, down to −5.
    pub list_max: i64,
    /// Bytes of a node of a stream.
    pub stream_node_bytes_max: usize,
    /// Entries of a node of a stream.
    pub stream_node_entries_max: usize,
}

impl Default for Encoding {
    /// As Redis has them.
    fn default() -> Encoding {
        Encoding {
            hash_entries_max: 128,
            hash_value_max: 64,
            set_ints_max: 512,
            set_entries_max: 128,
            set_value_max: 64,
            zset_entries_max: 128,
            zset_value_max: 64,
            list_max: -2,
            stream_node_bytes_max: 4096,
            stream_node_entries_max: 100,
        }
    }
}
