//! What waits to be sent on one connection. A lone payload is kept as it came, shared with every
//! other receiver; once several wait, small ones are copied together, so that a backlog leaves as
//! few long runs and not as many short ones.
//!
//! What goes to many is copied once, into a page of the turn. A connection that is sent one such
//! piece after another, none left out and nothing between them, has a stretch of the page waiting:
//! it grows by a comparison and a sum, and is sent from there.
//!
//! ```text
//!   page  │ piece 1 │ piece 2 │ piece 3 │       conn A  ├── 1 2 3 ──┤   a stretch
//!                                               conn B      ├─ 2 3 ─┤   a stretch
//!                                               conn C  copies of 1 3   had no 2
//! ```
//!
//! A page lives for as long as a send from it is under way. So that peers which take nothing do not
//! keep one each, there is a limit to pages that live; past it, stretches are copied.
//!
//! An empty outbox owns no memory: what small pieces were copied into goes back to the thread's
//! spare buffers once it is sent, and the next outbox takes it from there. Growing a fresh one for
//! each send, and giving it back to the system, cost more than a quarter of a saturated fan-out.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::driver::Outgoing;

/// Up to here copying costs less than a run of its own (an entry for the kernel to walk, and a
/// reference count that cores may share).
const COPY_MAX: usize = 1024;
/// A run of copied pieces is closed at this size.
const RUN_BYTES: usize = 64 * 1024;

/// Bytes that one operation sends. The kernel copies all that it can take of them in one go, during
/// which nobody else on this core is served: at some 5 GB/s, for 50 µs.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// A page takes no more pieces past this size.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Pages of a thread that may live at once: with the size of a page, some 16 MB.
const PAGES_MAX: usize = 64;

/// Bytes that a thread keeps in spare buffers.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// Memory of a run that was sent, or is to be.
struct Copied(Vec<u8>);

/// Memory of a page, from its turn's end on.
struct Page(Copied);

/// A thread's spare buffers, and how many of its pages live. The last to come is the first to go,
/// so what is not needed lies at the bottom.
#[derive(Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    /// As many have not been needed since [`shed_spare`].
    idle: usize,
    bytes: usize,
    pages: usize,
}

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
}

impl Copied {
    /// A spare buffer, or one without memory.
    fn take() -> Vec<u8> {
        SPARE.with_borrow_mut(|spare| {
            let buffer = spare.buffers.pop().unwrap_or_default();
            spare.bytes -= buffer.capacity();
            spare.idle = spare.idle.min(spare.buffers.len());
            buffer
        })
    }
}

/// Frees this thread's spare buffers that were not needed since the last time.
pub(crate) fn shed_spare() {
    SPARE.with_borrow_mut(|spare| {
        let freed: usize = spare.buffers.drain(..spare.idle).map(|buffer| buffer.capacity()).sum();
        spare.bytes -= freed;
        spare.idle = spare.buffers.len();
    });
}

impl Page {
    /// A page as bytes to share; `None` when too many live.
    fn print(bytes: &mut Vec<u8>) -> Option<Bytes> {
        let fits = SPARE.with_borrow_mut(|spare| {
            let fits = spare.pages < PAGES_MAX;
            spare.pages += usize::from(fits);
            fits
        });
        fits.then(|| Bytes::from_owner(Page(Copied(std::mem::take(bytes)))))
    }
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.0.0
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = SPARE.try_with(|spare| spare.borrow_mut().pages -= 1);
    }
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        // A thread that ends has no spare buffers any more; this one is freed then.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.bytes + buffer.capacity() <= SPARE_BYTES_MAX {
                spare.bytes += buffer.capacity();
                spare.buffers.push(buffer);
            }
        });
    }
}

/// Bytes that go to many connections within one turn: [`Cx::share`](crate::core::Cx::share).
#[derive(Clone, Debug)]
pub struct Shared(SharedKind);

#[derive(Clone, Debug)]
enum SharedKind {
    Piece { stretch: Stretch, turn: u64 },
    Lone(Bytes),
}

impl Shared {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        match &self.0 {
            SharedKind::Piece { stretch, .. } => stretch.len(),
            SharedKind::Lone(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what was shared next along, so that both are sent by one call. `false`, and nothing
    /// changed, if they do not lie side by side: on another lane, with a piece between them, or
    /// too large.
    #[must_use]
    pub fn join(&mut self, next: &Shared) -> bool {
        match (&mut self.0, &next.0) {
            (
                SharedKind::Piece { stretch, turn },
                SharedKind::Piece { stretch: next, turn: next_turn },
            ) if (stretch.lane, stretch.end, *turn) == (next.lane, next.start, *next_turn) => {
                stretch.end = next.end;
                true
            }
            _ => false,
        }
    }
}

/// A part of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    lane: u8,
    start: u32,
    end: u32,
}

impl Stretch {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The pages of a turn: one a lane, and one for what goes to one connection each.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    lanes: [Vec<u8>; Pages::LANES + 1],
    /// Lanes with something on them, in the order of their first pieces: few, in most turns none,
    /// and a turn's end costs nothing for the others.
    used: Vec<u8>,
    turn: u64,
}

/// The pages of a turn that is over, to be sent.
#[derive(Default)]
pub(crate) struct Printed(Vec<(u8, Sheet)>);

enum Sheet {
    Shared(Bytes),
    /// Too many pages live: it is copied from.
    Private(Copied),
}

impl Pages {
    /// Streams of pieces that do not get in each other's way.
    pub(crate) const LANES: usize = 12;

    /// Where pieces for one connection each are.
    const OWN: usize = Pages::LANES;

    pub(crate) fn share(&mut self, lane: usize, bytes: &[u8]) -> Shared {
        assert!(lane < Pages::LANES, "a lane that there is");
        match self.place(lane, bytes) {
            Some(stretch) => Shared(SharedKind::Piece { stretch, turn: self.turn }),
            None => Shared(SharedKind::Lone(Bytes::copy_from_slice(bytes))),
        }
    }

    /// What was shared in this turn, in memory of its own.
    pub(crate) fn copy(&self, shared: &Shared) -> Bytes {
        match &shared.0 {
            SharedKind::Lone(bytes) => bytes.clone(),
            SharedKind::Piece { stretch, turn } => {
                assert!(*turn == self.turn, "what is shared is copied within its turn");
                Bytes::copy_from_slice(self.bytes(*stretch))
            }
        }
    }

    /// Copies a piece into a page, if it is small and there is room.
    fn place(&mut self, lane: usize, bytes: &[u8]) -> Option<Stretch> {
        let page = &mut self.lanes[lane];
        if bytes.len() > COPY_MAX || page.len() + bytes.len() > PAGE_BYTES_MAX {
            return None;
        }
        if page.is_empty() && !bytes.is_empty() {
            *page = Copied::take();
            self.used.push(lane as u8);
        }
        let start = page.len() as u32;
        page.extend_from_slice(bytes);
        Some(Stretch { lane: lane as u8, start, end: page.len() as u32 })
    }

    pub(crate) fn shared_bytes<'a>(&'a self, shared: &'a Shared) -> &'a [u8] {
        match &shared.0 {
            SharedKind::Lone(bytes) => bytes,
            SharedKind::Piece { stretch, turn } => {
                assert!(*turn == self.turn, "what is shared is read within its turn");
                self.bytes(*stretch)
            }
        }
    }

    fn bytes(&self, stretch: Stretch) -> &[u8] {
        &self.lanes[usize::from(stretch.lane)][stretch.range()]
    }

    /// Ends the turn: its pieces are not valid any more, nor is what was printed before.
    pub(crate) fn print(&mut self, printed: &mut Printed) {
        self.turn += 1;
        printed.0.clear();
        let Pages { lanes, used, .. } = self;
        printed.0.extend(used.drain(..).map(|lane| {
            let page = &mut lanes[usize::from(lane)];
            let sheet = match Page::print(page) {
                Some(shared) => Sheet::Shared(shared),
                None => Sheet::Private(Copied(std::mem::take(page))),
            };
            (lane, sheet)
        }));
    }
}

impl Printed {
    #[inline]
    fn sheet(&self, lane: u8) -> Option<&Sheet> {
        self.0.iter().find(|sheet| sheet.0 == lane).map(|sheet| &sheet.1)
    }

    /// The turn's sends are started: their pages live for as long as those are under way.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }

    fn bytes(&self, stretch: Stretch) -> &[u8] {
        let page: &[u8] = match self.sheet(stretch.lane) {
            None => &[],
            Some(Sheet::Shared(page)) => page,
            Some(Sheet::Private(page)) => &page.0,
        };
        &page[stretch.range()]
    }

    fn slice(&self, stretch: Stretch) -> Bytes {
        match self.sheet(stretch.lane) {
            None => Bytes::new(),
            Some(Sheet::Shared(page)) => page.slice(stretch.range()),
            Some(Sheet::Private(page)) => Bytes::copy_from_slice(&page.0[stretch.range()]),
        }
    }
}

/// Small, since nearly all are empty: what does not come from a page is in a box.
#[derive(Debug, Default)]
pub(crate) enum Outbox {
    #[default]
    Empty,
    /// Of a page of this turn.
    Stretch(Stretch),
    One(Box<Bytes>),
    Many(Box<Runs>),
}

const _: () = assert!(size_of::<Outbox>() <= 16, "there are many idle connections");

#[derive(Debug, Default)]
pub(crate) struct Runs {
    closed: VecDeque<Bytes>,
    open: Vec<u8>,
    bytes: usize,
}

impl Outbox {
    pub(crate) fn len(&self) -> usize {
        match self {
            Outbox::Empty => 0,
            Outbox::Stretch(stretch) => stretch.len(),
            Outbox::One(bytes) => bytes.len(),
            Outbox::Many(runs) => runs.bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: Bytes, pages: &Pages) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Outbox::Empty => *self = Outbox::One(Box::new(bytes)),
            Outbox::Many(runs) => runs.push(bytes),
            Outbox::One(_) | Outbox::Stretch(_) => self.as_runs(pages).push(bytes),
        }
    }

    /// Of this turn's pages.
    pub(crate) fn push_shared(&mut self, shared: &Shared, pages: &Pages) {
        let piece = match &shared.0 {
            SharedKind::Lone(bytes) => return self.push(bytes.clone(), pages),
            SharedKind::Piece { stretch, turn } => {
                assert!(*turn == pages.turn, "what is shared is sent within its turn");
                *stretch
            }
        };
        match self {
            _ if piece.len() == 0 => {}
            Outbox::Empty => *self = Outbox::Stretch(piece),
            Outbox::Stretch(held) if (held.lane, held.end) == (piece.lane, piece.start) => {
                held.end = piece.end;
            }
            _ => self.as_runs(pages).copy(pages.bytes(piece)),
        }
    }

    pub(crate) fn push_copy(&mut self, bytes: &[u8], pages: &mut Pages) {
        let at = pages.lanes[Pages::OWN].len() as u32;
        let goes_on = match self {
            Outbox::Empty => true,
            Outbox::Stretch(held) => (usize::from(held.lane), held.end) == (Pages::OWN, at),
            Outbox::One(_) | Outbox::Many(_) => false,
        };
        let piece = if goes_on { pages.place(Pages::OWN, bytes) } else { None };
        match (self, piece) {
            _ if bytes.is_empty() => {}
            (Outbox::Stretch(held), Some(piece)) => held.end = piece.end,
            (outbox, Some(piece)) => *outbox = Outbox::Stretch(piece),
            (outbox @ Outbox::Empty, None) => {
                *outbox = Outbox::One(Box::new(Bytes::copy_from_slice(bytes)));
            }
            (outbox, None) => outbox.as_runs(pages).copy(bytes),
        }
    }

    /// At its turn's end, a stretch that has to wait becomes a copy: its page is not kept for it.
    pub(crate) fn settle(&mut self, pages: &Printed) {
        if let Outbox::Stretch(stretch) = *self {
            let mut runs = Box::<Runs>::default();
            runs.copy(pages.bytes(stretch));
            *self = Outbox::Many(runs);
        }
    }

    /// At its turn's end, what is about to be sent keeps its stretch of a page.
    pub(crate) fn keep(&mut self, pages: &Printed) {
        if let Outbox::Stretch(stretch) = *self {
            *self = Outbox::One(Box::new(pages.slice(stretch)));
        }
    }

    /// Takes what one operation sends, at its turn's end.
    pub(crate) fn take(&mut self, pages: &Printed) -> Outgoing {
        match std::mem::take(self) {
            Outbox::Empty => Outgoing::One(Bytes::new()),
            Outbox::Stretch(stretch) => Outgoing::One(pages.slice(stretch)),
            Outbox::One(mut bytes) => {
                let first = bytes.split_to(bytes.len().min(SEND_BYTES_MAX));
                if !bytes.is_empty() {
                    *self = Outbox::One(bytes);
                }
                Outgoing::One(first)
            }
            Outbox::Many(mut runs) => {
                let taken = runs.take();
                if runs.bytes > 0 {
                    *self = Outbox::Many(runs);
                }
                taken
            }
        }
    }

    fn as_runs(&mut self, pages: &Pages) -> &mut Runs {
        if !matches!(self, Outbox::Many(_)) {
            let mut runs = Box::<Runs>::default();
            match std::mem::take(self) {
                Outbox::One(first) => runs.push(*first),
                Outbox::Stretch(first) => runs.copy(pages.bytes(first)),
                Outbox::Empty | Outbox::Many(_) => {}
            }
            *self = Outbox::Many(runs);
        }
        match self {
            Outbox::Many(runs) => runs,
            _ => unreachable!("it was just made so"),
        }
    }
}

impl Runs {
    fn push(&mut self, bytes: Bytes) {
        if bytes.len() <= COPY_MAX {
            self.copy(&bytes);
            return;
        }
        self.close();
        self.bytes += bytes.len();
        self.closed.push_back(bytes);
    }

    fn copy(&mut self, bytes: &[u8]) {
        if self.open.len() + bytes.len() > RUN_BYTES {
            self.close();
        }
        if self.open.capacity() == 0 {
            self.open = Copied::take();
        }
        self.open.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    /// Takes the first runs, as many as one operation may send; there are some.
    fn take(&mut self) -> Outgoing {
        self.close();
        if self.closed.len() <= Outgoing::RUNS_MAX && self.bytes <= SEND_BYTES_MAX {
            self.bytes = 0;
            let mut closed = std::mem::take(&mut self.closed);
            return match closed.len() {
                1 => Outgoing::One(closed.pop_front().expect("there is one")),
                _ => Outgoing::Many(closed.into()),
            };
        }
        let mut room = SEND_BYTES_MAX;
        let mut taken = Vec::new();
        while room > 0
            && taken.len() < Outgoing::RUNS_MAX
            && let Some(mut run) = self.closed.pop_front()
        {
            let first = run.split_to(run.len().min(room));
            room -= first.len();
            taken.push(first);
            if !run.is_empty() {
                self.closed.push_front(run);
            }
        }
        self.bytes -= SEND_BYTES_MAX - room;
        Outgoing::Many(taken)
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let open = Copied(std::mem::take(&mut self.open));
            self.closed.push_back(Bytes::from_owner(open));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printed(pages: &mut Pages) -> Printed {
        let mut printed = Printed::default();
        pages.print(&mut printed);
        printed
    }

    fn taken(outbox: &mut Outbox, pages: &mut Pages) -> Vec<Bytes> {
        match outbox.take(&printed(pages)) {
            Outgoing::One(run) => vec![run],
            Outgoing::Many(runs) => {
                assert!(runs.len() <= Outgoing::RUNS_MAX);
                runs
            }
        }
    }

    #[test]
    fn a_lone_payload_is_shared_and_not_copied() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let payload = Bytes::from(vec![1; 10]);
        outbox.push(payload.clone(), &pages);
        assert_eq!(taken(&mut outbox, &mut pages)[0].as_ptr(), payload.as_ptr());
        assert!(outbox.is_empty());
    }

    #[test]
    fn small_pieces_leave_as_one_run() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        for _ in 0..100 {
            outbox.push(Bytes::from_static(b"0123456789"), &pages);
        }
        assert_eq!(taken(&mut outbox, &mut pages), [b"0123456789".repeat(100)]);
    }

    #[test]
    fn one_operation_does_not_send_without_bound() {
        const LARGE: usize = 10 << 20;
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let large = Bytes::from((0..LARGE).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        for behind in [0, 3, 200] {
            outbox.push(large.clone(), &pages);
            let mut expected = large.to_vec();
            for n in 0..behind {
                let run = vec![n as u8; 100 * COPY_MAX];
                expected.extend_from_slice(&run);
                outbox.push(run.into(), &pages);
            }
            let mut got = Vec::new();
            while !outbox.is_empty() {
                let runs = taken(&mut outbox, &mut pages);
                let bytes: usize = runs.iter().map(Bytes::len).sum();
                assert!(bytes == SEND_BYTES_MAX || outbox.is_empty(), "{bytes} at once");
                let copied = |run: &Bytes| !large.as_ptr_range().contains(&run.as_ptr());
                assert!(got.len() >= LARGE || !runs.iter().take(1).any(copied), "it is shared");
                runs.iter().for_each(|run| got.extend_from_slice(run));
                assert_eq!(outbox.len(), expected.len() - got.len());
            }
            assert!(got == expected);
            assert!(matches!(outbox, Outbox::Empty), "it owns no memory");
        }
    }

    #[test]
    fn what_all_get_is_there_once() {
        let mut pages = Pages::default();
        let mut outboxes: Vec<Outbox> = (0..10).map(|_| Outbox::default()).collect();
        for n in 0..20u8 {
            let (lamp, door) = (pages.share(0, &[n; 10]), pages.share(1, &[n | 128; 7]));
            for (at, outbox) in outboxes.iter_mut().enumerate() {
                outbox.push_shared(if at % 2 == 0 { &lamp } else { &door }, &pages);
            }
        }
        let printed = printed(&mut pages);
        let runs: Vec<Bytes> = outboxes
            .iter_mut()
            .map(|outbox| match outbox.take(&printed) {
                Outgoing::One(run) => run,
                Outgoing::Many(_) => panic!("one run"),
            })
            .collect();
        assert!(runs.iter().step_by(2).all(|run| run.as_ptr() == runs[0].as_ptr()));
        assert!(runs.iter().skip(1).step_by(2).all(|run| run.as_ptr() == runs[1].as_ptr()));
        assert_eq!((runs[0].len(), runs[1].len()), (200, 140));
    }

    #[test]
    fn what_lies_side_by_side_is_sent_by_one_call() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let mut all = pages.share(0, b"one");
        assert!(all.join(&pages.share(0, b"two")));
        assert!(!all.join(&pages.share(1, b"of another lane")));
        assert!(!all.join(&pages.share(0, &[7; COPY_MAX + 1])), "too large for a page");
        let _for_others = pages.share(0, b"for others");
        assert!(!all.join(&pages.share(0, b"behind a gap")));
        outbox.push_shared(&all, &pages);
        assert_eq!(taken(&mut outbox, &mut pages), [&b"onetwo"[..]]);
        let _ = printed(&mut pages);
        assert!(!all.join(&pages.share(0, b"of another turn")));
    }

    #[test]
    fn who_cannot_be_sent_to_yet_keeps_a_copy_and_no_page() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let shared = pages.share(0, b"piece");
        outbox.push_shared(&shared, &pages);
        let printed = printed(&mut pages);
        let page = printed.slice(Stretch { lane: 0, start: 0, end: 1 }).as_ptr();
        outbox.settle(&printed);
        drop(printed);
        let next = pages.share(0, b"next");
        outbox.push_shared(&next, &pages);
        let runs = taken(&mut outbox, &mut pages);
        assert_eq!(runs, [&b"piecenext"[..]]);
        assert_ne!(runs[0].as_ptr(), page);
    }

    #[test]
    fn a_copy_of_what_was_shared_outlives_its_turn() {
        let mut pages = Pages::default();
        let mut both = pages.share(0, b"one");
        assert!(both.join(&pages.share(0, b"two")));
        let lone = pages.share(1, &[7; COPY_MAX + 1]);
        let copies = [pages.copy(&both), pages.copy(&lone)];
        let _ = printed(&mut pages);
        assert_eq!(copies, [&b"onetwo"[..], &[7; COPY_MAX + 1]]);
    }

    #[test]
    #[should_panic(expected = "within its turn")]
    fn what_is_shared_does_not_outlive_its_turn() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let shared = pages.share(0, b"piece");
        let _ = printed(&mut pages);
        outbox.push_shared(&shared, &pages);
    }

    #[test]
    fn the_memory_of_copies_is_used_again() {
        let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
        let mut send = |len: usize| {
            outbox.push_copy(&vec![1; len], &mut pages);
            let runs = taken(&mut outbox, &mut pages);
            assert_eq!((runs.len(), runs[0].len()), (1, len));
            runs[0].as_ptr()
        };
        let first = send(1000);
        assert_eq!(send(10), first);
        assert_eq!(send(300), first);
    }

    #[test]
    fn peers_that_take_nothing_do_not_keep_a_page_each() {
        let mut pages = Pages::default();
        let mut turn = |n: usize| {
            let mut outbox = Outbox::default();
            let shared = pages.share(0, &[n as u8; 1000]);
            let _for_others = pages.share(0, &[0; 1000]);
            outbox.push_shared(&shared, &pages);
            taken(&mut outbox, &mut pages).pop().unwrap()
        };
        let live = || SPARE.with_borrow(|spare| spare.pages);
        let stuck: Vec<Bytes> = (0..200).map(&mut turn).collect();
        assert_eq!(live(), PAGES_MAX);
        assert!(stuck.iter().enumerate().all(|(n, run)| **run == [n as u8; 1000]));
        drop(stuck);
        assert_eq!(live(), 0);
        assert_eq!(turn(7), [7; 1000][..]);
    }

    #[test]
    fn spare_buffers_have_a_limit() {
        let runs: Vec<Bytes> = (0..1000)
            .map(|_| {
                let mut runs = Runs::default();
                runs.copy(&[1; RUN_BYTES]);
                runs.close();
                runs.closed.pop_front().unwrap()
            })
            .collect();
        drop(runs);
        SPARE.with_borrow(|spare| {
            let held: usize = spare.buffers.iter().map(Vec::capacity).sum();
            assert_eq!(held, spare.bytes);
            assert!(held > SPARE_BYTES_MAX / 2 && held <= SPARE_BYTES_MAX, "{held}");
        });
    }

    #[test]
    fn spare_buffers_that_nobody_needs_are_freed() {
        let runs = |count: usize| -> Vec<Bytes> {
            let run = |_| {
                let mut runs = Runs::default();
                runs.copy(&[1; RUN_BYTES]);
                runs.close();
                runs.closed.pop_front().unwrap()
            };
            (0..count).map(run).collect()
        };
        let held = || SPARE.with_borrow(|spare| spare.buffers.len());
        drop(runs(100));
        shed_spare();
        assert_eq!(held(), 100, "all were needed since the thread began");
        drop(runs(30));
        shed_spare();
        assert_eq!(held(), 30);
        shed_spare();
        assert_eq!((held(), SPARE.with_borrow(|spare| spare.bytes)), (0, 0));
        drop(runs(10));
        assert_eq!(held(), 10);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in prop::collection::vec((0usize..3000, 0u8..6, 0u8..8), 0..300),
        ) {
            let (mut outbox, mut pages) = (Outbox::default(), Pages::default());
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for (n, (len, way, end)) in pieces.into_iter().enumerate() {
                let piece = vec![n as u8; len];
                expected.extend_from_slice(&piece);
                match way {
                    0 => outbox.push_copy(&piece, &mut pages),
                    1 => outbox.push(Bytes::from(piece), &pages),
                    lane => {
                        let lane = usize::from(lane) % Pages::LANES;
                        if n % 5 == 0 {
                            let _ = pages.share(lane, b"for others");
                        }
                        let shared = pages.share(lane, &piece);
                        outbox.push_shared(&shared, &pages);
                    }
                }
                prop_assert_eq!(outbox.len(), expected.len() - got.len());
                match end {
                    0 => taken(&mut outbox, &mut pages)
                        .iter()
                        .for_each(|run| got.extend_from_slice(run)),
                    1 => outbox.settle(&printed(&mut pages)),
                    _ => {}
                }
            }
            while !outbox.is_empty() {
                let runs = taken(&mut outbox, &mut pages);
                runs.iter().for_each(|run| got.extend_from_slice(run));
            }
            prop_assert_eq!(got, expected);
        }
    }
}
