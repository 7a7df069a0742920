//! Going through the entries of a stream, upwards and downwards.

use std::collections::btree_map;

use crate::stream::node::{Entry, Node};
use crate::stream::{Stream, StreamId};

/// Entries upwards.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    nodes: btree_map::Range<'a, StreamId, Node>,
    /// The node that it is in: its base, and where the next entry begins.
    inside: Option<(StreamId, &'a Node, usize)>,
    from: StreamId,
    to: StreamId,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let Some((base, node, at)) = &mut self.inside else {
                let (base, node) = self.nodes.next()?;
                self.inside = Some((*base, node, node.start()));
                continue;
            };
            if *at == node.end() {
                self.inside = None;
                continue;
            }
            let (entry, next) = node.read(*base, *at);
            *at = next;
            if entry.id > self.to {
                return None;
            }
            if entry.id >= self.from {
                return Some(entry);
            }
        }
    }
}

/// Entries downwards.
#[derive(Clone, Debug)]
pub struct EntriesBack<'a> {
    nodes: btree_map::Range<'a, StreamId, Node>,
    /// The node that it is in: its base, and where the entries begin that are still to come.
    inside: Option<(StreamId, &'a Node, Vec<u32>)>,
    from: StreamId,
    to: StreamId,
}

impl<'a> Iterator for EntriesBack<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let Some((base, node, places)) = &mut self.inside else {
                let (base, node) = self.nodes.next_back()?;
                self.inside = Some((*base, node, node.places()));
                continue;
            };
            let Some(at) = places.pop() else {
                self.inside = None;
                continue;
            };
            let (entry, _) = node.read(*base, at as usize);
            if entry.id < self.from {
                return None;
            }
            if entry.id <= self.to {
                return Some(entry);
            }
        }
    }
}

impl Stream {
    /// The nodes that entries of a range may be in.
    fn nodes_of(&self, from: StreamId, to: StreamId) -> btree_map::Range<'_, StreamId, Node> {
        let first = self.nodes.range(..=from).next_back().map_or(from, |(base, _)| *base);
        // A range that ends before it begins has no nodes.
        self.nodes.range(first..=to.max(first))
    }

    /// The entries of a range, both ends included.
    pub fn range(&self, from: StreamId, to: StreamId) -> Entries<'_> {
        Entries { nodes: self.nodes_of(from, to), inside: None, from, to }
    }

    /// The same from the highest on.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> EntriesBack<'_> {
        EntriesBack { nodes: self.nodes_of(from, to), inside: None, from, to }
    }
}
