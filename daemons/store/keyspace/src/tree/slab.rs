//! Nodes of one kind in a row of chunks, named by `u32`.
//!
//! There are no holes: where a node is taken out, the last one moves into its place, and whoever
//! links to it is told. So the memory is that of the nodes there are, plus at most a chunk. Growing
//! never copies more than the first chunk.
//!
//! ```text
//!   chunks  ──► [ 0 … 255 ] [ 256 … 511 ] [ 512 … len ]
//!                grows by a   allocated whole
//!                quarter
//! ```

/// Nodes in a chunk.
const CHUNK_NODES: usize = 256;

/// The link that leads nowhere.
pub(super) const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
pub(super) struct Slab<N> {
    chunks: Vec<Vec<N>>,
    len: usize,
}

impl<N> Slab<N> {
    pub(super) const fn new() -> Slab<N> {
        Slab { chunks: Vec::new(), len: 0 }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let nodes: usize = self.chunks.iter().map(Vec::capacity).sum();
        nodes * size_of::<N>() + self.chunks.capacity() * size_of::<Vec<N>>()
    }

    pub(super) fn get(&self, id: u32) -> &N {
        &self.chunks[id as usize / CHUNK_NODES][id as usize % CHUNK_NODES]
    }

    pub(super) fn get_mut(&mut self, id: u32) -> &mut N {
        &mut self.chunks[id as usize / CHUNK_NODES][id as usize % CHUNK_NODES]
    }

    /// Two different nodes at once.
    pub(super) fn pair_mut(&mut self, a: u32, b: u32) -> (&mut N, &mut N) {
        let (a, b) = (a as usize, b as usize);
        let (chunk_a, chunk_b) = (a / CHUNK_NODES, b / CHUNK_NODES);
        if chunk_a == chunk_b {
            let [x, y] = self.chunks[chunk_a]
                .get_disjoint_mut([a % CHUNK_NODES, b % CHUNK_NODES])
                .expect("both are nodes, and not the same one");
            return (x, y);
        }
        let [x, y] = self
            .chunks
            .get_disjoint_mut([chunk_a, chunk_b])
            .expect("every node is in a chunk, and these are two");
        (&mut x[a % CHUNK_NODES], &mut y[b % CHUNK_NODES])
    }

    pub(super) fn push(&mut self, node: N) -> u32 {
        let id = u32::try_from(self.len).expect("2^32 nodes are more than memory holds");
        assert_ne!(id, NONE, "2^32 nodes are more than memory holds");
        let at = self.len / CHUNK_NODES;
        if at == self.chunks.len() {
            self.chunks.push(Vec::new());
        }
        let chunk = &mut self.chunks[at];
        if chunk.len() == chunk.capacity() {
            let room = CHUNK_NODES - chunk.len();
            let more = if at == 0 { (chunk.len() / 4).clamp(1, room) } else { room };
            chunk.reserve_exact(more);
        }
        chunk.push(node);
        self.len += 1;
        id
    }

    /// The node of the highest id.
    pub(super) fn pop(&mut self) -> Option<N> {
        let last = self.len.checked_sub(1)?;
        let node = self.chunks[last / CHUNK_NODES].pop();
        self.len = last;
        self.release();
        node
    }

    /// The node of the highest id, in its place.
    pub(super) fn last_mut(&mut self) -> Option<&mut N> {
        let last = self.len.checked_sub(1)?;
        self.chunks[last / CHUNK_NODES].last_mut()
    }

    /// Takes a node out. The last node is `id` from now on; returns what it was before.
    pub(super) fn swap_remove(&mut self, id: u32) -> Option<u32> {
        let last = self.pop().expect("there is a node, since one is taken out");
        let from = self.len as u32;
        if id == from {
            return None;
        }
        *self.get_mut(id) = last;
        Some(from)
    }

    /// Gives back what is far from being needed: an empty chunk stays while the one before it is
    /// more than half full, so that nodes that come and go do not allocate each time.
    fn release(&mut self) {
        let used = self.len.div_ceil(CHUNK_NODES);
        let in_last = self.len - used.saturating_sub(1) * CHUNK_NODES;
        if self.chunks.len() > used && in_last <= CHUNK_NODES / 2 {
            self.chunks.truncate(used);
            if self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(2 * used);
            }
        }
        if used == 1 && in_last < self.chunks[0].capacity() / 2 {
            self.chunks[0].shrink_to(in_last + in_last / 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_without_nodes_holds_no_chunk() {
        let mut slab = Slab::new();
        for n in 0..1000u32 {
            assert_eq!(slab.push(n), n);
        }
        assert_eq!(slab.swap_remove(3), Some(999));
        assert_eq!((*slab.get(3), slab.len()), (999, 999));
        assert_eq!(slab.swap_remove(998), None);
        assert_eq!(slab.pair_mut(3, 700), (&mut 999, &mut 700));
        assert_eq!(slab.pair_mut(300, 299), (&mut 300, &mut 299));
        while slab.pop().is_some() {}
        assert_eq!(slab.chunks.len(), 0);
    }

    #[test]
    fn memory_follows_the_nodes_down() {
        let mut slab = Slab::new();
        for n in 0..100_000u64 {
            slab.push(n);
        }
        while slab.pop().is_some() {
            let held = slab.len() * 8;
            assert!(slab.memory_bytes() <= 3 * held + 2 * CHUNK_NODES * 8 + 1024, "{held}");
        }
    }
}
