//! What a log says of lists.

use super::{BASE_BYTES, List, NODE_ELEMENTS_MAX, Node, Notes, from_effect};
use crate::apply::{ApplyError, OBJECTS_MAX};
use crate::effect::{Effect, NoEffect, Side, Target};
use crate::entry::Kind;
use crate::keyspace::{Found, Keyspace};
use crate::object::{Object, Shape};
use crate::packed::{PACKED_BYTES_MAX, Packed, PackedBuf, Word, validate};

/// A base's number is below this.
const BASE_MAX: u64 = 1 << 62;

/// What a packed item takes besides its bytes, at most.
const ITEM_BYTES_MAX: usize = 16;

/// The number of the base of a small list.
pub(crate) fn base_of(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..BASE_BYTES].try_into().expect("a base's number is eight bytes"))
}

/// Whether a value that a log has whole is a small list.
pub(crate) fn is_small_list(value: &[u8]) -> bool {
    value.len() > BASE_BYTES
        && base_of(value) < BASE_MAX
        && validate(&value[BASE_BYTES..]).is_ok()
        && Packed::new(&value[BASE_BYTES..]).len() <= NODE_ELEMENTS_MAX
}

impl List {
    /// Adds an element to a node, if it is there; returns whether there was room.
    fn replay_push(&mut self, node: u64, side: Side, element: &[u8]) -> bool {
        let (spot, is_there) = self.find(from_effect(node));
        if !is_there {
            return true;
        }
        let held = self.node(spot).packed.packed();
        let bytes = held.bytes().len().saturating_add(element.len());
        if held.len() >= NODE_ELEMENTS_MAX || bytes > PACKED_BYTES_MAX - ITEM_BYTES_MAX {
            return false;
        }
        let words = [Word::from_bytes(element)];
        self.change(spot, |node| match side {
            Side::Left => node.packed.push_front(&words),
            Side::Right => node.packed.push_back(&words),
        });
        true
    }

    /// Takes elements off a node, if it is there; one that loses its last goes.
    fn replay_pop(&mut self, node: u64, side: Side, count: u64) {
        let (spot, is_there) = self.find(from_effect(node));
        if !is_there {
            return;
        }
        let len = self.node(spot).packed.len();
        match usize::try_from(count) {
            Ok(count) if count < len => self.change(spot, |node| match side {
                Side::Left => node.packed.remove(0..count),
                Side::Right => node.packed.remove(len - count..len),
            }),
            _ => drop(self.remove_node(spot)),
        }
    }
}

impl Keyspace {
    /// No base from now on has this number.
    pub(crate) fn take_base(&mut self, base: u64) {
        self.next_base = self.next_base.max(base + 1);
    }

    /// An element came, a log says.
    pub(crate) fn apply_list_push(
        &mut self,
        target: Target<'_>,
        node: u64,
        side: Side,
        element: &[u8],
    ) -> Result<(), ApplyError> {
        if let Target::Named(db, key) = target {
            let Some(found) = self.named_of(db, key, &[Kind::List]) else { return Ok(()) };
            let words = [Word::from_bytes(element)];
            let packed = self.small_list(found);
            let splice = match side {
                Side::Left => packed.push_front(&words),
                Side::Right => packed.push_back(&words),
            };
            if !self.has_room(packed, &splice) || packed.len() >= NODE_ELEMENTS_MAX {
                return Err(NoEffect.into());
            }
            self.splice_packed(found, BASE_BYTES, &splice)?;
            return Ok(());
        }
        let mut fits = true;
        self.with_replayed(target, |list| fits = list.replay_push(node, side, element));
        if fits { Ok(()) } else { Err(NoEffect.into()) }
    }

    /// Elements are gone, a log says.
    pub(crate) fn apply_list_pop(
        &mut self,
        target: Target<'_>,
        node: u64,
        side: Side,
        count: u64,
    ) -> Result<(), ApplyError> {
        if let Target::Named(db, key) = target {
            let Some(found) = self.named_of(db, key, &[Kind::List]) else { return Ok(()) };
            self.list_drop_small(found, side, count)?;
            return Ok(());
        }
        self.with_replayed(target, |list| list.replay_pop(node, side, count));
        Ok(())
    }

    fn with_replayed(&mut self, target: Target<'_>, change: impl FnOnce(&mut List)) {
        let Target::Object(number) = target else { return };
        self.objects.with(number, |object| {
            if let Object::List(list) = object {
                change(list);
            }
        });
    }

    /// A node is this, a log says.
    pub(crate) fn apply_list_node(
        &mut self,
        number: u32,
        node: u64,
        base: u64,
        value: &[u8],
    ) -> Result<(), ApplyError> {
        if value.is_empty() {
            let target = Target::Object(number);
            self.with_replayed(target, |list| list.replay_pop(node, Side::Left, u64::MAX));
            return Ok(());
        }
        let packed = PackedBuf::from_bytes(value.to_vec()).map_err(|_| NoEffect)?;
        let fits = (1..=NODE_ELEMENTS_MAX).contains(&packed.len());
        if number > OBJECTS_MAX || base >= BASE_MAX || !fits {
            return Err(NoEffect.into());
        }
        self.take_base(base);
        self.objects.ensure(number, Shape::List);
        self.with_replayed(Target::Object(number), |list| {
            let order = from_effect(node);
            let (mut spot, is_there) = list.find(order);
            if is_there {
                spot = list.remove_node(spot).1;
            }
            list.insert_node(spot, Node { packed, order, base });
        });
        Ok(())
    }

    /// Notes a small list again, as it is, if this effect is its base.
    pub(crate) fn relocate_small_list(&mut self, found: Found, effect: Effect<'_>) -> bool {
        let Effect::Put { key, kind: Kind::List, value, .. } = effect else { return false };
        if value.len() < BASE_BYTES || base_of(self.value(found)) != base_of(value) {
            return false;
        }
        // Whoever meets the old one once more shall know that it is not the base any more.
        let base = self.new_base().to_le_bytes();
        let found = self.splice(found, 0, BASE_BYTES, &base);
        self.note_list(found.expect("its length stays as it is"), key);
        true
    }

    /// Notes a node again, as it is, if this is its base.
    pub(crate) fn relocate_list_node(&mut self, number: u32, node: u64, base: u64) -> bool {
        let (journal, next_base) = (&mut self.journal, &mut self.next_base);
        let mut notes = Notes { journal, next_base, object: number };
        let noted = self.objects.with(number, |object| {
            let Object::List(list) = object else { return false };
            let (spot, is_there) = list.find(from_effect(node));
            let is_base = is_there && list.node(spot).base == base;
            if is_base {
                list.nodes.get_mut(spot, |node| notes.whole(node));
            }
            is_base
        });
        noted.unwrap_or(false)
    }
}
