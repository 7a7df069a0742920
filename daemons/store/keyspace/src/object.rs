//! What is too large for a block of its key: objects, by numbers that small effects name them by.

use crate::image::ImageError;
use crate::list::List;
use crate::long::Long;
use crate::stream::Stream;
use crate::table::{Pool, Table};
use crate::zset::Ranking;

/// What an object is. Its number is in effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Shape {
    /// A long string.
    Long = 0,
    /// A hash in a table.
    Hash = 1,
    /// A set in a table.
    Set = 2,
    /// A sorted set in a table and a tree.
    Zset = 3,
    /// A list in nodes.
    List = 4,
    /// A stream.
    Stream = 5,
}

impl Shape {
    pub(crate) fn from_number(number: u8) -> Option<Shape> {
        Some(match number {
            0 => Shape::Long,
            1 => Shape::Hash,
            2 => Shape::Set,
            3 => Shape::Zset,
            4 => Shape::List,
            5 => Shape::Stream,
            _ => return None,
        })
    }
}

/// A large value.
pub(crate) enum Object {
    /// A long string.
    Long(Long),
    /// Fields and values.
    Hash(Table),
    /// Members, with empty values.
    Set(Table),
    /// Members and scores.
    Zset(Ranking),
    /// Elements.
    List(List),
    /// Entries, and groups that read them.
    Stream(Stream),
}

impl Object {
    pub(crate) fn new(shape: Shape) -> Object {
        match shape {
            Shape::Long => Object::Long(Long::default()),
            Shape::Hash => Object::Hash(Table::new()),
            Shape::Set => Object::Set(Table::new()),
            Shape::Zset => Object::Zset(Ranking::default()),
            Shape::List => Object::List(List::default()),
            Shape::Stream => Object::Stream(Stream::default()),
        }
    }

    pub(crate) fn shape(&self) -> Shape {
        match self {
            Object::Long(_) => Shape::Long,
            Object::Hash(_) => Shape::Hash,
            Object::Set(_) => Shape::Set,
            Object::Zset(_) => Shape::Zset,
            Object::List(_) => Shape::List,
            Object::Stream(_) => Shape::Stream,
        }
    }

    /// Bytes of what it holds.
    pub(crate) fn payload_bytes(&self) -> u64 {
        match self {
            Object::Long(long) => long.len() as u64,
            Object::Hash(table) | Object::Set(table) => table.payload_bytes() + 8 * table.len(),
            Object::Zset(ranking) => ranking.payload_bytes(),
            Object::List(list) => list.payload_bytes(),
            Object::Stream(stream) => stream.payload_bytes(),
        }
    }

    /// Gives back about `count` elements; returns whether there are more.
    pub(crate) fn shed(&mut self, pool: &mut Pool, count: usize) -> bool {
        match self {
            Object::Long(long) => long.shed(count / 64 + 1),
            Object::Hash(table) | Object::Set(table) => table.drain(pool, count),
            Object::Zset(ranking) => ranking.shed(pool, count),
            Object::List(list) => list.shed(count),
            Object::Stream(stream) => stream.shed(count),
        }
    }
}

/// The highest number of an object.
const NUMBER_MAX: usize = 1 << 30;

/// Objects by number.
#[derive(Default)]
pub(crate) struct Objects {
    slots: Vec<Option<Box<Object>>>,
    free: Vec<u32>,
    /// Bytes of what all of them hold.
    payload_bytes: u64,
}

impl Objects {
    pub(crate) fn add(&mut self, object: Object) -> u32 {
        self.payload_bytes += object.payload_bytes();
        let object = Some(Box::new(object));
        if let Some(number) = self.free.pop() {
            self.slots[number as usize] = object;
            return number;
        }
        self.slots.push(object);
        (self.slots.len() - 1) as u32
    }

    /// Objects by their numbers, as an image has them.
    pub(crate) fn restore(objects: Vec<(u32, Object)>) -> Result<Objects, ImageError> {
        let mut restored = Objects::default();
        for (number, object) in objects {
            let at = number as usize;
            if at > NUMBER_MAX {
                return Err(ImageError::Damaged("an object's number is too large"));
            }
            if restored.slots.len() <= at {
                restored.slots.resize_with(at + 1, || None);
            }
            restored.payload_bytes += object.payload_bytes();
            restored.slots[at] = Some(Box::new(object));
        }
        restored.count_free();
        Ok(restored)
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Object> {
        self.slots.get(number as usize)?.as_deref()
    }

    /// Changes an object, and counts what it holds anew.
    pub(crate) fn with<R>(
        &mut self,
        number: u32,
        change: impl FnOnce(&mut Object) -> R,
    ) -> Option<R> {
        let object = self.slots.get_mut(number as usize)?.as_deref_mut()?;
        let before = object.payload_bytes();
        let result = change(object);
        self.payload_bytes = self.payload_bytes - before + object.payload_bytes();
        Some(result)
    }

    /// Makes sure that there is an object of this number, as a log says.
    pub(crate) fn ensure(&mut self, number: u32, shape: Shape) {
        let at = number as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        if self.slots[at].as_ref().is_none_or(|object| object.shape() != shape) {
            self.remove(number);
            self.slots[at] = Some(Box::new(Object::new(shape)));
        }
    }

    /// Takes an object out. Its number is given again only after [`Objects::release`].
    pub(crate) fn remove(&mut self, number: u32) -> Option<Box<Object>> {
        let object = self.slots.get_mut(number as usize)?.take()?;
        self.payload_bytes -= object.payload_bytes();
        Some(object)
    }

    pub(crate) fn release(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Finds the free numbers, after a log was read.
    pub(crate) fn count_free(&mut self) {
        let free = |(number, slot): (usize, &Option<_>)| slot.is_none().then_some(number as u32);
        self.free = self.slots.iter().enumerate().filter_map(free).collect();
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        let taken = |(number, slot): (usize, &Option<_>)| slot.is_some().then_some(number as u32);
        self.slots.iter().enumerate().filter_map(taken)
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }
}
