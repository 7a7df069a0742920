//! What waits to be sent on one connection. A lone payload is kept as it came, shared with every
//! other receiver; once several wait, small ones are copied together, so that a backlog leaves as
//! few long runs and not as many short ones.
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

/// Bytes that a thread keeps in spare buffers.
const SPARE_BYTES_MAX: usize = 16 << 20;

/// Memory of a run that was sent, or is to be.
struct Copied(Vec<u8>);

/// A thread's spare buffers.
#[derive(Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
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
            buffer
        })
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

#[derive(Debug, Default)]
pub(crate) enum Outbox {
    #[default]
    Empty,
    One(Bytes),
    Many(Box<Runs>),
}

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
            Outbox::One(bytes) => bytes.len(),
            Outbox::Many(runs) => runs.bytes,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Outbox::Empty => *self = Outbox::One(bytes),
            Outbox::One(_) => self.as_runs().push(bytes),
            Outbox::Many(runs) => runs.push(bytes),
        }
    }

    /// As [`Outbox::push`], of bytes that the caller keeps for others.
    pub(crate) fn push_shared(&mut self, bytes: &Bytes) {
        match self {
            Outbox::Many(runs) if bytes.len() <= COPY_MAX => runs.copy(bytes),
            Outbox::One(_) if bytes.len() <= COPY_MAX => self.as_runs().copy(bytes),
            _ => self.push(bytes.clone()),
        }
    }

    pub(crate) fn push_copy(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.as_runs().copy(bytes);
        }
    }

    /// Takes what one operation sends.
    pub(crate) fn take(&mut self) -> Outgoing {
        match std::mem::take(self) {
            Outbox::Empty => Outgoing::One(Bytes::new()),
            Outbox::One(bytes) => Outgoing::One(bytes),
            Outbox::Many(mut runs) => {
                runs.close();
                if runs.closed.len() == 1 {
                    return Outgoing::One(runs.closed.pop_front().expect("there is one"));
                }
                if runs.closed.len() <= Outgoing::RUNS_MAX {
                    return Outgoing::Many(runs.closed.into());
                }
                let rest = runs.closed.split_off(Outgoing::RUNS_MAX);
                let taken = Outgoing::Many(std::mem::replace(&mut runs.closed, rest).into());
                runs.bytes -= taken.len();
                *self = Outbox::Many(runs);
                taken
            }
        }
    }

    fn as_runs(&mut self) -> &mut Runs {
        if !matches!(self, Outbox::Many(_)) {
            let mut runs = Box::<Runs>::default();
            if let Outbox::One(first) = std::mem::take(self) {
                runs.push(first);
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

    #[test]
    fn a_lone_payload_is_shared_and_not_copied() {
        let payload = Bytes::from(vec![1; 10]);
        let mut outbox = Outbox::default();
        outbox.push(payload.clone());
        let Outgoing::One(sent) = outbox.take() else { panic!("one run") };
        assert_eq!(sent.as_ptr(), payload.as_ptr());
        assert!(outbox.is_empty());
    }

    #[test]
    fn small_pieces_leave_as_one_run() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            outbox.push(Bytes::from_static(b"0123456789"));
        }
        assert!(matches!(outbox.take(), Outgoing::One(run) if run.len() == 1000));
    }

    #[test]
    fn the_memory_of_copies_is_used_again() {
        let mut outbox = Outbox::default();
        let mut send = |len: usize| {
            outbox.push_copy(&vec![1; len]);
            let Outgoing::One(run) = outbox.take() else { panic!("one run") };
            assert_eq!(run.len(), len);
            run.as_ptr()
        };
        let first = send(5000);
        assert_eq!(send(10), first);
        assert_eq!(send(3000), first);
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

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in prop::collection::vec((0usize..5000, 0u8..3, any::<bool>()), 0..300),
        ) {
            let mut outbox = Outbox::default();
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            let collect = |outbox: &mut Outbox, got: &mut Vec<u8>| match outbox.take() {
                Outgoing::One(run) => got.extend_from_slice(&run),
                Outgoing::Many(runs) => {
                    assert!(runs.len() <= Outgoing::RUNS_MAX);
                    runs.iter().for_each(|run| got.extend_from_slice(run));
                }
            };
            for (n, (len, way, take)) in pieces.into_iter().enumerate() {
                let piece = vec![n as u8; len];
                expected.extend_from_slice(&piece);
                match way {
                    0 => outbox.push_copy(&piece),
                    1 => outbox.push(Bytes::from(piece)),
                    _ => outbox.push_shared(&Bytes::from(piece)),
                }
                prop_assert_eq!(outbox.len(), expected.len() - got.len());
                if take {
                    collect(&mut outbox, &mut got);
                }
            }
            while !outbox.is_empty() {
                collect(&mut outbox, &mut got);
            }
            prop_assert_eq!(got, expected);
        }
    }
}
