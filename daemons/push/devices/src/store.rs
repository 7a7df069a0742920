//! The devices by their numbers: where the row of each is, and the second in which it was
//! registered, which expressions compare without reading rows.
//!
//! ```text
//!   row   app:2  flags:1  id_len:1  alias_len:1  id  alias
//!         generation  registered_at  updated_at − registered_at
//!         terms…  numbers…
//! ```
//!
//! Behind the texts all are varints. Terms, which are tags, values and all else that the app's
//! [`Terms`](crate::terms::Terms) knows, ascend and are told by their distances, and so are the
//! keys of attributes that are numbers, each before its value.

use roaring::RoaringBitmap;

use crate::codec::{Put, Take, Unreadable};
use crate::column::{Bits, MUCH_SMALLER};
use crate::device::Number;
use crate::rows::{NONE, Rows};

const CHUNK: u32 = 1024;

const TEST: u8 = 1;

#[derive(Clone, Copy, Debug)]
struct Slot {
    row: u32,
    registered_s: u32,
}

#[derive(Debug)]
struct Chunk {
    slots: [Slot; CHUNK as usize],
    used: u32,
}

/// What a row says, as far as it is read.
pub(crate) struct Row<'a> {
    pub(crate) app: u16,
    pub(crate) test: bool,
    pub(crate) id: &'a str,
    pub(crate) alias: Option<&'a str>,
    rest: &'a [u8],
}

/// What a row says behind its texts.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) token_generation: u32,
    pub(crate) registered_at: u64,
    pub(crate) updated_at: u64,
    /// Ascending.
    pub(crate) terms: Vec<u32>,
    /// By keys, ascending.
    pub(crate) numbers: Vec<(u32, Number)>,
}

impl<'a> Row<'a> {
    fn parse(bytes: &'a [u8]) -> Row<'a> {
        let [a, b, flags, id, alias, texts @ ..] = bytes else {
            unreachable!("rows are written by `put`, with this head")
        };
        let (id, rest) = texts.split_at(usize::from(*id));
        let (alias, rest) = rest.split_at(usize::from(*alias));
        let text = |bytes| std::str::from_utf8(bytes).expect("rows are written from texts");
        Row {
            app: u16::from_le_bytes([*a, *b]),
            test: flags & TEST != 0,
            id: text(id),
            alias: (!alias.is_empty()).then(|| text(alias)),
            rest,
        }
    }

    pub(crate) fn token_generation(&self) -> u32 {
        Take::new(self.rest).medium().expect("rows are written by `put`")
    }

    pub(crate) fn facts(&self) -> Facts {
        take_facts(&mut Take::new(self.rest)).expect("rows are written by `put`")
    }
}

fn take_facts(from: &mut Take<'_>) -> Result<Facts, Unreadable> {
    let token_generation = from.medium()?;
    let registered_at = from.number()?;
    let updated_at = registered_at.wrapping_add_signed(from.signed()?);
    let count = from.count()?;
    let mut last = 0;
    let mut terms = Vec::with_capacity(count);
    for _ in 0..count {
        last += from.medium()?;
        terms.push(last);
    }
    let count = from.count()?;
    let mut last = 0;
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        last += from.medium()?;
        numbers.push((last, from.value()?));
    }
    Ok(Facts { token_generation, registered_at, updated_at, terms, numbers })
}

/// Writes a row.
pub(crate) fn put(
    (app, test): (u16, bool),
    (id, alias): (&str, Option<&str>),
    facts: &Facts,
    out: &mut Vec<u8>,
) {
    let alias = alias.unwrap_or_default();
    let len = |text: &str| u8::try_from(text.len()).expect("texts of a device are shorter");
    out.extend_from_slice(&app.to_le_bytes());
    out.extend_from_slice(&[if test { TEST } else { 0 }, len(id), len(alias)]);
    out.extend_from_slice(id.as_bytes());
    out.extend_from_slice(alias.as_bytes());
    out.number(u64::from(facts.token_generation));
    out.number(facts.registered_at);
    out.signed(facts.updated_at.wrapping_sub(facts.registered_at).cast_signed());
    out.number(facts.terms.len() as u64);
    let mut last = 0;
    for term in &facts.terms {
        out.number(u64::from(term - last));
        last = *term;
    }
    out.number(facts.numbers.len() as u64);
    let mut last = 0;
    for (key, value) in &facts.numbers {
        out.number(u64::from(key - last));
        out.value(*value);
        last = *key;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    chunks: Vec<Option<Box<Chunk>>>,
    rows: Rows,
}

fn split(number: u32) -> (usize, usize) {
    ((number / CHUNK) as usize, (number % CHUNK) as usize)
}

impl Store {
    /// Whether one more row has room.
    pub(crate) fn has_room(&self) -> bool {
        self.rows.has_room()
    }

    fn slot(&self, number: u32) -> Option<Slot> {
        let (chunk, place) = split(number);
        let slot = self.chunks.get(chunk)?.as_ref()?.slots[place];
        (slot.row != NONE).then_some(slot)
    }

    /// The first device of this number or a higher one.
    pub(crate) fn first_from(&self, number: u32) -> Option<u32> {
        let (first, place) = split(number);
        let chunks = self.chunks.iter().enumerate().skip(first);
        let mut chunks = chunks.filter_map(|(at, chunk)| Some((at, chunk.as_ref()?)));
        chunks.find_map(|(at, chunk)| {
            let from = if at == first { place } else { 0 };
            let found = chunk.slots[from..].iter().position(|slot| slot.row != NONE)?;
            Some(at as u32 * CHUNK + (from + found) as u32)
        })
    }

    pub(crate) fn row(&self, number: u32) -> Option<Row<'_>> {
        self.slot(number).map(|slot| Row::parse(self.rows.get(slot.row)))
    }

    /// The row of a device that an index names.
    pub(crate) fn row_of(&self, number: u32) -> Row<'_> {
        self.row(number).expect("what an index names has a row")
    }

    /// Those of some devices that were registered in a second since 1970 that is `wanted`.
    pub(crate) fn registered(
        &self,
        devices: &RoaringBitmap,
        wanted: impl Fn(u32) -> bool,
    ) -> RoaringBitmap {
        if devices.len() * MUCH_SMALLER < u64::from(CHUNK) * self.chunks.len() as u64 {
            let wanted =
                |device: &u32| self.slot(*device).is_some_and(|at| wanted(at.registered_s));
            return devices.iter().filter(wanted).collect();
        }
        let mut out = RoaringBitmap::new();
        let mut bits = Bits::default();
        for (place, chunk) in self.chunks.iter().enumerate() {
            let Some(chunk) = chunk else { continue };
            let seconds = chunk.slots.iter().map(|slot| wanted(slot.registered_s));
            bits.add(place as u32 * CHUNK, seconds.enumerate(), &mut out);
        }
        bits.close(&mut out);
        out & devices
    }

    /// Writes a row in the place of the one that the device has, if it has one.
    pub(crate) fn set(&mut self, number: u32, registered_at: u64, row: &[u8]) {
        let old = self.slot(number);
        let (chunk, place) = split(number);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let empty = Slot { row: NONE, registered_s: 0 };
        let fresh = || Box::new(Chunk { slots: [empty; CHUNK as usize], used: 0 });
        let chunk = self.chunks[chunk].get_or_insert_with(fresh);
        let registered_s = u32::try_from(registered_at / 1000).unwrap_or(u32::MAX);
        chunk.slots[place] = Slot { row: self.rows.push(number, row), registered_s };
        match old {
            Some(old) => self.kill(old.row),
            None => chunk.used += 1,
        }
    }

    /// Removes the row of a device that has one.
    pub(crate) fn remove(&mut self, number: u32) {
        let slot = self.slot(number).expect("what is removed has a row");
        let (at, place) = split(number);
        if let Some(chunk) = &mut self.chunks[at] {
            chunk.slots[place].row = NONE;
            chunk.used -= 1;
            if chunk.used == 0 {
                self.chunks[at] = None;
            }
        }
        self.kill(slot.row);
    }

    fn kill(&mut self, row: u32) {
        let Store { chunks, rows } = self;
        rows.kill(row, |number, to| {
            let (chunk, place) = split(number);
            let chunk = chunks[chunk].as_mut().expect("a row that lives has a slot");
            chunk.slots[place].row = to;
        });
    }
}
