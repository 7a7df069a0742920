//! A value's bytes as batches of its elements.
//!
//! ```text
//!   type ──► Text ─────────────────────────────────► Done
//!        ──► Count ──► Plain: strings one by one ──► Done
//!        ──► Nodes: packed nodes, then their words ► Done
//!        ──► Stream, Module
//! ```

use bytes::Bytes;

use crate::error::{RdbError, Stop, corrupt};
use crate::input::{Input, checked_score};
use crate::node::{Form, Node};
use crate::stream::StreamDecoder;
use crate::value::{BATCH_BYTES, BATCH_ELEMENTS, Elements, Kind};

/// The types of values, as files number them.
pub(crate) mod types {
    pub(crate) const TEXT: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    pub(crate) const ZSET: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    pub(crate) const ZSET_2: u8 = 5;
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const ZSET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const ZSET_LISTPACK: u8 = 17;
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_3: u8 = 21;
}

/// What a batch may still take.
pub(crate) struct Budget {
    elements: usize,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget { elements: BATCH_ELEMENTS, bytes: BATCH_BYTES }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.elements > 0 && self.bytes > 0
    }

    pub(crate) fn spend(&mut self, bytes: usize) {
        self.elements = self.elements.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

enum State {
    Text,
    /// How many elements follow, or nodes, is next.
    Count(Layout),
    Plain {
        layout: Layout,
        left: u64,
    },
    Stream(Box<StreamDecoder>),
    ModuleId,
    Module,
    Done,
}

/// How the parts of a collection lie in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// A string each.
    Singles,
    /// Two strings each.
    Pairs,
    /// A string and decimal text.
    TextScores,
    /// A string and 8 bytes.
    Scores,
    /// Nodes of one form.
    Nodes(Form),
    /// Nodes that each say their form.
    MixedNodes,
}

/// Reads one value.
pub(crate) struct Decoder {
    kind: Kind,
    state: State,
    /// A node whose words are not all given out.
    node: Option<Node>,
}

impl Decoder {
    /// For a value of this type.
    pub(crate) fn new(value_type: u8) -> Result<Decoder, RdbError> {
        use Layout::{MixedNodes, Nodes, Pairs, Scores, Singles, TextScores};
        let one = |form| State::Plain { layout: Nodes(form), left: 1 };
        let stream = |version| State::Stream(Box::new(StreamDecoder::new(version)));
        let (kind, state) = match value_type {
            types::TEXT => (Kind::Text, State::Text),
            types::LIST => (Kind::List, State::Count(Singles)),
            types::SET => (Kind::Set, State::Count(Singles)),
            types::ZSET => (Kind::ZSet, State::Count(TextScores)),
            types::HASH => (Kind::Hash, State::Count(Pairs)),
            types::ZSET_2 => (Kind::ZSet, State::Count(Scores)),
            types::MODULE => return Err(RdbError::Module),
            types::MODULE_2 => (Kind::Module, State::ModuleId),
            types::HASH_ZIPMAP => (Kind::Hash, one(Form::Zipmap)),
            types::LIST_ZIPLIST => (Kind::List, one(Form::Ziplist)),
            types::SET_INTSET => (Kind::Set, one(Form::Intset)),
            types::ZSET_ZIPLIST => (Kind::ZSet, one(Form::Ziplist)),
            types::HASH_ZIPLIST => (Kind::Hash, one(Form::Ziplist)),
            types::LIST_QUICKLIST => (Kind::List, State::Count(Nodes(Form::Ziplist))),
            types::STREAM => (Kind::Stream, stream(1)),
            types::HASH_LISTPACK => (Kind::Hash, one(Form::Listpack)),
            types::ZSET_LISTPACK => (Kind::ZSet, one(Form::Listpack)),
            types::LIST_QUICKLIST_2 => (Kind::List, State::Count(MixedNodes)),
            types::STREAM_2 => (Kind::Stream, stream(2)),
            types::SET_LISTPACK => (Kind::Set, one(Form::Listpack)),
            types::STREAM_3 => (Kind::Stream, stream(3)),
            unknown => return Err(RdbError::Unknown(unknown)),
        };
        Ok(Decoder { kind, state, node: None })
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The next batch; none after the last.
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Option<Elements>, Stop> {
        loop {
            if let Some(node) = &mut self.node {
                if let Some(elements) = words(self.kind, node)? {
                    return Ok(Some(elements));
                }
                self.node = None;
            }
            match &mut self.state {
                State::Text => {
                    let text = input.whole(Input::string)?;
                    self.state = State::Done;
                    return Ok(Some(Elements::Text(text)));
                }
                State::Count(layout) => {
                    let left = input.whole(Input::length)?;
                    self.state = State::Plain { layout: *layout, left };
                }
                State::Plain { left: 0, .. } => self.state = State::Done,
                State::Plain { layout: Layout::Nodes(form), left } => {
                    self.node = Some(Node::new(input.whole(Input::string)?, *form)?);
                    *left -= 1;
                }
                State::Plain { layout: Layout::MixedNodes, left } => {
                    self.node = Some(input.whole(mixed_node)?);
                    *left -= 1;
                }
                State::Plain { layout, left } => {
                    return plain(self.kind, *layout, left, input).map(Some);
                }
                State::Stream(stream) => return stream.next(input),
                State::ModuleId => {
                    input.whole(Input::length)?;
                    self.state = State::Module;
                }
                State::Module => {
                    if skip_of_module(input)? {
                        self.state = State::Done;
                    }
                }
                State::Done => return Ok(None),
            }
        }
    }
}

fn mixed_node(input: &mut Input<'_>) -> Result<Node, Stop> {
    let form = match input.length()? {
        1 => Form::Plain,
        2 => Form::Listpack,
        _ => return corrupt("a node of a list has an unknown form"),
    };
    Ok(Node::new(input.string()?, form)?)
}

/// Passes over one part of what a module wrote; true after the mark of its end.
pub(crate) fn skip_of_module(input: &mut Input<'_>) -> Result<bool, Stop> {
    input.whole(|input| {
        match input.length()? {
            0 => return Ok(true),
            1 | 2 => _ = input.length()?,
            3 => _ = input.take(4)?,
            4 => _ = input.take(8)?,
            5 => input.skip_string()?,
            _ => return corrupt("a part of a module's value has an unknown form"),
        }
        Ok(false)
    })
}

/// Elements that lie in the file one by one: as many as have arrived and a batch takes.
fn plain(
    kind: Kind,
    layout: Layout,
    left: &mut u64,
    input: &mut Input<'_>,
) -> Result<Elements, Stop> {
    match layout {
        Layout::Pairs => {
            let pairs = gather(left, || {
                let (name, value) = input.two_strings()?;
                let bytes = name.len() + value.len();
                Ok(((name, value), bytes))
            })?;
            Ok(Elements::Hash(pairs))
        }
        Layout::Scores | Layout::TextScores => {
            let pairs = gather(left, || {
                let (member, score) = input.whole(|input| scored(input, layout))?;
                let bytes = member.len();
                Ok(((member, score), bytes))
            })?;
            Ok(Elements::ZSet(pairs))
        }
        _ => {
            let words = gather(left, || {
                let word = input.whole(Input::string)?;
                let bytes = word.len();
                Ok((word, bytes))
            })?;
            Ok(if kind == Kind::Set { Elements::Set(words) } else { Elements::List(words) })
        }
    }
}

fn scored(input: &mut Input<'_>, layout: Layout) -> Result<(Bytes, f64), Stop> {
    let member = input.string()?;
    let score = if layout == Layout::Scores { input.score()? } else { input.score_text()? };
    Ok((member, score))
}

/// Takes elements until a batch is full or the next has not arrived. Each comes with its bytes.
fn gather<T>(
    left: &mut u64,
    mut next: impl FnMut() -> Result<(T, usize), Stop>,
) -> Result<Vec<T>, Stop> {
    let (mut batch, mut budget) = (Vec::new(), Budget::new());
    while *left > 0 && budget.has_room() {
        match next() {
            Ok((element, bytes)) => {
                batch.push(element);
                budget.spend(bytes);
                *left -= 1;
            }
            Err(Stop::More) if !batch.is_empty() => break,
            Err(stop) => return Err(stop),
        }
    }
    Ok(batch)
}

/// The next batch of a node's words; none after the last.
fn words(kind: Kind, node: &mut Node) -> Result<Option<Elements>, RdbError> {
    let elements = match kind {
        Kind::Hash => batch(node, |node, name| {
            let value = node.partner()?;
            let bytes = name.len() + value.len();
            Ok(((name, value), bytes))
        })?
        .map(Elements::Hash),
        Kind::ZSet => batch(node, |node, member| {
            let score = score_of(&node.partner()?)?;
            let bytes = member.len();
            Ok(((member, score), bytes))
        })?
        .map(Elements::ZSet),
        _ => {
            let words = batch(node, |_, word| {
                let bytes = word.len();
                Ok((word, bytes))
            })?;
            words.map(if kind == Kind::Set { Elements::Set } else { Elements::List })
        }
    };
    Ok(elements)
}

fn batch<T>(
    node: &mut Node,
    mut element: impl FnMut(&mut Node, Bytes) -> Result<(T, usize), RdbError>,
) -> Result<Option<Vec<T>>, RdbError> {
    let (mut batch, mut budget) = (Vec::new(), Budget::new());
    while budget.has_room()
        && let Some(word) = node.text()?
    {
        let (element, bytes) = element(node, word)?;
        batch.push(element);
        budget.spend(bytes);
    }
    Ok((!batch.is_empty()).then_some(batch))
}

fn score_of(text: &[u8]) -> Result<f64, RdbError> {
    let score = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    checked_score(score.unwrap_or(f64::NAN))
        .map_err(|_| RdbError::Corrupt("a score is not a number"))
}
