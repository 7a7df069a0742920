//! Lists: small ones packed in the blocks of their keys, behind the number of their base; large
//! ones as nodes in a counted tree, each a packed sequence.
//!
//! ```text
//!   small   base u64 │ packed                large   node −2²⁰ │ node 0 │ node 2²⁰ │ …
//!                                                    with the number of its base each
//! ```
//!
//! A log has the elements that came to an end of a list or left it, one by one, as changes of what
//! was there: of the base, which is the node, or the small list, as it was last told whole. Each
//! base has a number of its own, so when the oldest part of a log goes it is known whether it had
//! the one that counts. A change whose base comes later says nothing.
//!
//! A node is named by the key that orders it. One at an end goes on from there, one in the middle
//! takes the middle between its neighbours; where there is none the nodes behind it are numbered
//! anew, as far as needed.

use std::io::{self, Read, Write};

use crate::effect::{Effect, Journal, Side, Target};
use crate::image::{ImageError, In, Out};
use crate::packed::{Packed, PackedBuf, Splice, Word};
use crate::tree::{Cursor as Spot, Shed, Tree, Weigh};

pub(crate) use replay::{base_of, is_small_list};

mod change;
mod replay;
#[cfg(test)]
mod tests;

/// Bytes before what is packed in a small list.
pub(crate) const BASE_BYTES: usize = 8;

/// How far apart the keys are of nodes that were added at an end.
const GAP: i64 = 1 << 20;

/// How far apart keys shall be at least where nodes are numbered anew.
const RENUMBERED_GAP: i64 = 1 << 8;

/// The most elements of a node.
const NODE_ELEMENTS_MAX: usize = 32 << 10;

/// Up to where a node grows. One that has a single element may be longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeLimit {
    bytes: usize,
    elements: usize,
}

impl NodeLimit {
    /// As `list-max-listpack-size` says it: a number of elements, or −1 to −5 for 4 KiB to 64 KiB.
    pub(crate) fn new(setting: i64) -> NodeLimit {
        const COUNTED_BYTES: usize = 8 << 10;
        if setting < 0 {
            let bytes = (4 << 10) << (setting.max(-5).unsigned_abs() - 1);
            return NodeLimit { bytes, elements: NODE_ELEMENTS_MAX };
        }
        let elements = usize::try_from(setting).unwrap_or(NODE_ELEMENTS_MAX);
        NodeLimit { bytes: COUNTED_BYTES, elements: elements.clamp(1, NODE_ELEMENTS_MAX) }
    }

    /// Whether a sequence may become what an edit makes of it.
    pub(crate) fn takes(self, packed: Packed<'_>, splice: &Splice<'_>) -> bool {
        let bytes = splice.bytes_after(packed.bytes().len());
        usize::from(splice.count) <= self.elements && bytes <= self.bytes
    }
}

/// A part of a large list. A node in a list has elements.
#[derive(Debug, Default)]
struct Node {
    packed: PackedBuf,
    order: i64,
    base: u64,
}

impl Weigh for Node {
    type Key = i64;

    fn weight(&self) -> u64 {
        self.packed.len() as u64
    }

    fn key(&self) -> i64 {
        self.order
    }
}

const LEAF: usize = 16;
const FAN: usize = 16;
type Nodes = Tree<Node, LEAF, FAN>;

/// A node's key as effects have it: small where the key is near zero.
fn to_effect(order: i64) -> u64 {
    ((order << 1) ^ (order >> 63)) as u64
}

/// The key of a node that an effect names.
fn from_effect(node: u64) -> i64 {
    (node >> 1) as i64 ^ -((node & 1) as i64)
}

/// Notes what happens to the nodes of a list.
struct Notes<'a> {
    journal: &'a mut Journal,
    next_base: &'a mut u64,
    object: u32,
}

impl Notes<'_> {
    /// A node as it is, which is its base from now on.
    fn whole(&mut self, node: &mut Node) {
        node.base = *self.next_base;
        *self.next_base += 1;
        let (object, base, value) = (self.object, node.base, node.packed.bytes());
        let node = to_effect(node.order);
        self.journal.note(Effect::ListNode { object, node, base, value });
    }

    fn gone(&mut self, order: i64) {
        let (object, node) = (self.object, to_effect(order));
        self.journal.note(Effect::ListNode { object, node, base: 0, value: &[] });
    }

    fn push(&mut self, order: i64, side: Side, element: &[u8]) {
        let (target, node) = (Target::Object(self.object), to_effect(order));
        self.journal.note(Effect::ListPush { target, node, side, element });
    }

    fn pop(&mut self, order: i64, side: Side, count: usize) {
        let (target, node, count) = (Target::Object(self.object), to_effect(order), count as u64);
        self.journal.note(Effect::ListPop { target, node, side, count });
    }
}

/// A large list.
#[derive(Default)]
pub struct List {
    nodes: Nodes,
    /// Bytes of what is packed.
    bytes: u64,
    /// The nodes, when the list is given up.
    going: Option<Box<Shed<Node, LEAF, FAN>>>,
}

impl List {
    pub(crate) fn write_image(&self, out: &mut Out<impl Write>) -> io::Result<()> {
        out.number(self.nodes.len() as u64)?;
        self.nodes.iter().try_for_each(|node| {
            out.number(node.order as u64)?;
            out.number(node.base)?;
            out.string(node.packed.packed().bytes())
        })
    }

    pub(crate) fn read_image(image: &mut In<impl Read>) -> Result<List, ImageError> {
        let mut list = List::default();
        for _ in 0..image.count()? {
            let (order, base) = (image.number()? as i64, image.number()?);
            let packed = PackedBuf::from_bytes(image.string()?)
                .map_err(|_| ImageError::Damaged("a list's node is not packed as it should be"))?;
            if packed.is_empty() {
                return Err(ImageError::Damaged("a list's node is empty"));
            }
            list.insert_node(list.nodes.end(), Node { packed, order, base });
        }
        Ok(list)
    }

    /// Elements.
    pub(crate) fn len(&self) -> u64 {
        self.nodes.weight()
    }

    /// Bytes of elements, and of nodes.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.bytes + (size_of::<Node>() * self.nodes.len()) as u64
    }

    /// Gives up to about `count` elements back; returns whether there are more. For a list that is
    /// given up.
    pub(crate) fn shed(&mut self, count: usize) -> bool {
        if !self.nodes.is_empty() {
            self.bytes = 0;
            self.going = Some(Box::new(std::mem::take(&mut self.nodes).into_shed()));
        }
        self.going.as_mut().is_some_and(|going| going.shed(count / 64 + 1, drop))
    }

    fn end_spot(&self, side: Side) -> Option<Spot> {
        match side {
            Side::Left => self.nodes.get(self.nodes.start()).map(|_| self.nodes.start()),
            Side::Right => self.nodes.prev(self.nodes.end()),
        }
    }

    fn node(&self, spot: Spot) -> &Node {
        self.nodes.get(spot).expect("the place is a node's")
    }

    /// Changes a node, which keeps an element at least, and counts its bytes anew.
    fn change<R>(&mut self, spot: Spot, change: impl FnOnce(&mut Node) -> R) -> R {
        let before = self.node(spot).packed.bytes().len() as u64;
        let result = self.nodes.get_mut(spot, change);
        self.bytes = self.bytes - before + self.node(spot).packed.bytes().len() as u64;
        result
    }

    fn insert_node(&mut self, spot: Spot, node: Node) -> Spot {
        self.bytes += node.packed.bytes().len() as u64;
        self.nodes.insert(spot, node)
    }

    /// Takes a node out; tells the place of the one behind it.
    fn remove_node(&mut self, spot: Spot) -> (Node, Spot) {
        let (node, behind) = self.nodes.remove_then(spot);
        self.bytes -= node.packed.bytes().len() as u64;
        (node, behind)
    }

    /// A list of the elements of a small one.
    fn from_packed(packed: Packed<'_>, limit: NodeLimit) -> List {
        let (mut list, mut node, mut order) = (List::default(), Node::default(), 0);
        for (_, word) in packed {
            let held = node.packed.packed();
            if !held.is_empty() && !limit.takes(held, &held.push_back(&[word])) {
                let full = Node { order, ..std::mem::take(&mut node) };
                list.insert_node(list.nodes.end(), full);
                order += GAP;
            }
            node.packed.push_back(&[word]);
        }
        if !node.packed.is_empty() {
            list.insert_node(list.nodes.end(), Node { order, ..node });
        }
        list
    }

    /// Notes all nodes.
    fn note_all(&mut self, notes: &mut Notes<'_>) {
        let mut spot = self.nodes.start();
        while self.nodes.get(spot).is_some() {
            self.nodes.get_mut(spot, |node| notes.whole(node));
            spot = self.nodes.next(spot).expect("there is a place behind a node");
        }
    }

    /// Adds an element at an end.
    fn push(&mut self, side: Side, element: &[u8], limit: NodeLimit, notes: &mut Notes<'_>) {
        let words = [Word::from_bytes(element)];
        let Some(spot) = self.end_spot(side) else {
            self.add_node(self.nodes.end(), 0, &words, notes);
            return;
        };
        let node = self.node(spot);
        let held = node.packed.packed();
        if limit.takes(held, &held.push_back(&words)) {
            notes.push(node.order, side, element);
            self.change(spot, |node| match side {
                Side::Left => node.packed.push_front(&words),
                Side::Right => node.packed.push_back(&words),
            });
            return;
        }
        // What it had spare was for elements that now go elsewhere.
        self.nodes.get_mut(spot, |node| node.packed.shrink_to_fit());
        let order = self.order_at(side, notes);
        let spot = if side == Side::Left { self.nodes.start() } else { self.nodes.end() };
        self.add_node(spot, order, &words, notes);
    }

    fn add_node(&mut self, spot: Spot, order: i64, words: &[Word<'_>], notes: &mut Notes<'_>) {
        let mut node = Node { order, ..Node::default() };
        node.packed.push_back(words);
        notes.whole(&mut node);
        self.insert_node(spot, node);
    }

    /// A key for a node that shall be at an end.
    fn order_at(&mut self, side: Side, notes: &mut Notes<'_>) -> i64 {
        let beyond = |list: &List| {
            let spot = list.end_spot(side)?;
            let end = list.node(spot).order;
            match side {
                Side::Left => end.checked_sub(GAP),
                Side::Right => end.checked_add(GAP),
            }
        };
        if let Some(order) = beyond(self) {
            return order;
        }
        self.renumber_all(notes);
        beyond(self).expect("keys of nodes that were numbered anew are far from the ends")
    }

    /// Numbers all nodes anew. Keys at an end are used up only after 2⁴³ nodes.
    fn renumber_all(&mut self, notes: &mut Notes<'_>) {
        let nodes = self.nodes.len();
        let first = -(nodes as i64 / 2) * GAP;
        self.renumber(self.nodes.start(), nodes, first, GAP, notes);
    }

    /// Gives so many nodes new keys.
    fn renumber(&mut self, from: Spot, nodes: usize, first: i64, step: i64, notes: &mut Notes<'_>) {
        self.nodes.iter_from(from).take(nodes).for_each(|node| notes.gone(node.order));
        let (mut spot, mut order) = (from, first);
        for _ in 0..nodes {
            self.nodes.get_mut(spot, |node| {
                node.order = order;
                notes.whole(node);
            });
            order += step;
            spot = self.nodes.next(spot).expect("there are so many nodes");
        }
    }

    /// Makes room for the keys of `count` nodes behind one; tells the first, and how far apart.
    fn orders_behind(&mut self, spot: Spot, count: i64, notes: &mut Notes<'_>) -> (i64, i64) {
        let here = self.node(spot).order;
        let behind = self.nodes.next(spot).expect("there is a place behind a node");
        let next = self.nodes.get(behind).map(|node| node.order);
        let Some(next) = next else {
            if here.checked_add(GAP * (count + 1)).is_none() {
                self.renumber_all(notes);
            }
            return (self.node(spot).order + GAP, GAP);
        };
        let step = ((i128::from(next) - i128::from(here)) / i128::from(count + 1)) as i64;
        if step > 0 {
            return (here + step, step);
        }
        // Nodes behind are taken along until there is room for them and the new ones.
        let mut taken = 0;
        let mut step = None;
        for node in self.nodes.iter_from(behind) {
            let room = i128::from(node.order) - i128::from(here);
            let wide = room / i128::from(count + taken + 1);
            if wide >= i128::from(RENUMBERED_GAP) {
                step = Some(wide as i64);
                break;
            }
            taken += 1;
        }
        let all = GAP.checked_mul(count + taken + 1).and_then(|room| here.checked_add(room));
        let Some(step) = step.or(all.map(|_| GAP)) else {
            self.renumber_all(notes);
            return self.orders_behind(spot, count, notes);
        };
        self.renumber(behind, taken as usize, here + step * (count + 1), step, notes);
        (here + step, step)
    }

    /// Takes up to `count` elements off an end, each of which is told.
    fn pop(
        &mut self,
        side: Side,
        count: u64,
        notes: &mut Notes<'_>,
        mut each: impl FnMut(Word<'_>),
    ) {
        let mut left = count;
        while left > 0
            && let Some(spot) = self.end_spot(side)
        {
            let node = self.node(spot);
            let (held, order) = (node.packed.len(), node.order);
            let taken = usize::try_from(left).map_or(held, |left| left.min(held));
            let words = node.packed.packed().iter().map(|(_, word)| word);
            match side {
                Side::Left => words.take(taken).for_each(&mut each),
                Side::Right => words.rev().take(taken).for_each(&mut each),
            }
            left -= taken as u64;
            if taken == held {
                self.remove_node(spot);
                notes.gone(order);
                continue;
            }
            let range = if side == Side::Left { 0..taken } else { held - taken..held };
            self.change(spot, |node| node.packed.remove(range));
            notes.pop(order, side, taken);
        }
    }

    /// Puts an element before one, in place of `replaced` (none or one) that are there.
    fn splice(
        &mut self,
        index: u64,
        replaced: usize,
        element: &[u8],
        limit: NodeLimit,
        notes: &mut Notes<'_>,
    ) {
        let (spot, at) = self.nodes.at_weight(index).expect("the index is an element's");
        let (at, words) = (at as usize, [Word::from_bytes(element)]);
        let held = self.node(spot).packed.packed();
        let edit = match held.nth(at).filter(|_| replaced == 1) {
            Some((item, _)) => held.replace(item, &words[0]),
            None => held.insert_at(at, &words),
        };
        if limit.takes(held, &edit) || edit.count == 1 {
            self.change(spot, |node| {
                node.packed.remove(at..at + replaced);
                node.packed.insert_at(at, &words);
                notes.whole(node);
            });
            return;
        }
        let mut left = PackedBuf::new();
        left.append(held);
        let right = left.split_off(at + replaced);
        left.remove(at..at + replaced);
        let mut parts = vec![left, right];
        let ends = (parts[0].packed(), parts[1].packed());
        if limit.takes(ends.0, &ends.0.push_back(&words)) {
            parts[0].push_back(&words);
        } else if limit.takes(ends.1, &ends.1.push_front(&words)) {
            parts[1].push_front(&words);
        } else {
            let mut own = PackedBuf::new();
            own.push_back(&words);
            parts.insert(1, own);
        }
        parts.retain(|part| !part.is_empty());
        self.write_parts(spot, parts, notes);
    }

    /// Makes a node several.
    fn write_parts(&mut self, spot: Spot, parts: Vec<PackedBuf>, notes: &mut Notes<'_>) {
        let new = parts.len() as i64 - 1;
        let (first, step) = match new {
            0 => (0, 0),
            new => self.orders_behind(spot, new, notes),
        };
        let (mut spot, mut order) = (spot, first);
        for (number, part) in parts.into_iter().enumerate() {
            if number == 0 {
                self.change(spot, |node| {
                    node.packed = part;
                    notes.whole(node);
                });
                continue;
            }
            let mut node = Node { packed: part, order, base: 0 };
            notes.whole(&mut node);
            let behind = self.nodes.next(spot).expect("there is a place behind a node");
            spot = self.insert_node(behind, node);
            order += step;
        }
    }

    /// Takes up to `count` elements out that are this one, from an end on; returns how many.
    fn remove_equal(
        &mut self,
        side: Side,
        element: &[u8],
        count: u64,
        notes: &mut Notes<'_>,
    ) -> u64 {
        let (word, mut left) = (Word::from_bytes(element), count);
        let mut next = self.end_spot(side);
        while left > 0
            && let Some(spot) = next
        {
            let kept = without(self.node(spot).packed.packed(), side, word, &mut left);
            if kept.as_ref().is_some_and(PackedBuf::is_empty) {
                let (node, behind) = self.remove_node(spot);
                notes.gone(node.order);
                next = match side {
                    Side::Left => self.nodes.get(behind).map(|_| behind),
                    Side::Right => self.nodes.prev(behind),
                };
                continue;
            }
            if let Some(kept) = kept {
                self.change(spot, |node| {
                    node.packed = kept;
                    notes.whole(node);
                });
            }
            next = match side {
                Side::Left => self.nodes.next(spot).filter(|next| self.nodes.get(*next).is_some()),
                Side::Right => self.nodes.prev(spot),
            };
        }
        count - left
    }

    /// The node of this key, if there is one, and its place, or that where it would be.
    fn find(&self, order: i64) -> (Spot, bool) {
        let spot = self.nodes.partition_point(|key| *key < order);
        (spot, self.nodes.get(spot).is_some_and(|node| node.order == order))
    }
}

/// A sequence without up to `left` of its items that are this word, from an end on; none if it has
/// no such item. Counts `left` down.
fn without(packed: Packed<'_>, side: Side, word: Word<'_>, left: &mut u64) -> Option<PackedBuf> {
    packed.find(word)?;
    let matching = packed.iter().filter(|(_, held)| *held == word).count() as u64;
    let removed = matching.min(*left);
    // From the right, those that stay come first.
    let mut kept = if side == Side::Right { matching - removed } else { 0 };
    let (mut gone, mut rest) = (removed, PackedBuf::new());
    for (_, held) in packed {
        if held == word && kept > 0 {
            kept -= 1;
        } else if held == word && gone > 0 {
            gone -= 1;
            continue;
        }
        rest.push_back(&[held]);
    }
    *left -= removed;
    Some(rest)
}

/// The items of a sequence without the first `count`.
fn behind(packed: Packed<'_>, count: u64) -> crate::packed::Iter<'_> {
    let (mut items, count) = (packed.iter(), usize::try_from(count).unwrap_or(usize::MAX));
    if let Some(last) = count.checked_sub(1) {
        let _ = items.nth(last);
    }
    items
}

/// A list, as it is kept.
#[derive(Clone, Copy)]
pub enum Elements<'a> {
    /// In one piece.
    Small(Packed<'a>),
    /// In nodes.
    Large(&'a List),
}

impl<'a> Elements<'a> {
    /// How many there are.
    pub fn len(self) -> u64 {
        match self {
            Elements::Small(packed) => packed.len() as u64,
            Elements::Large(list) => list.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The element of an index.
    pub fn get(self, index: u64) -> Option<Word<'a>> {
        match self {
            Elements::Small(packed) => packed.nth(usize::try_from(index).ok()?).map(|(_, w)| w),
            Elements::Large(list) => {
                let (spot, at) = list.nodes.at_weight(index)?;
                list.node(spot).packed.packed().nth(at as usize).map(|(_, word)| word)
            }
        }
    }

    /// The elements from an index on.
    pub fn iter_from(self, index: u64) -> ElementsIter<'a> {
        let empty = ElementsIter { now: None, nodes: None };
        match self {
            Elements::Small(packed) => ElementsIter { now: Some(behind(packed, index)), ..empty },
            Elements::Large(list) => {
                let Some((spot, at)) = list.nodes.at_weight(index) else { return empty };
                let mut nodes: NodesIter<'a> = Box::new(list.nodes.iter_from(spot));
                let now = nodes.next().map(|node| behind(node.packed.packed(), at));
                ElementsIter { now, nodes: Some(nodes) }
            }
        }
    }

    /// The elements from the last one on, backwards.
    pub fn iter_back(self) -> impl Iterator<Item = Word<'a>> {
        let (mut now, mut nodes): (_, Option<NodesIter<'a>>) = match self {
            Elements::Small(packed) => (Some(packed.iter()), None),
            Elements::Large(list) => {
                let last = list.nodes.prev(list.nodes.end());
                let back = last.map(|last| Box::new(list.nodes.iter_back_from(last)) as _);
                (None, back)
            }
        };
        std::iter::from_fn(move || {
            loop {
                if let Some((_, word)) = now.as_mut().and_then(DoubleEndedIterator::next_back) {
                    return Some(word);
                }
                now = Some(nodes.as_mut()?.next()?.packed.packed().iter());
            }
        })
    }
}

type NodesIter<'a> = Box<dyn Iterator<Item = &'a Node> + 'a>;

/// Elements of a list, in order.
pub struct ElementsIter<'a> {
    now: Option<crate::packed::Iter<'a>>,
    nodes: Option<NodesIter<'a>>,
}

impl<'a> Iterator for ElementsIter<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        loop {
            if let Some((_, word)) = self.now.as_mut()?.next() {
                return Some(word);
            }
            self.now = Some(self.nodes.as_mut()?.next()?.packed.packed().iter());
        }
    }
}
