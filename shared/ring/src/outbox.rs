//! What waits to be sent on one connection. A lone payload is kept as it came, shared with every
//! other receiver; once several wait, small ones are copied together, so that a backlog leaves as
//! few long runs and not as many short ones.
//!
//! An empty outbox owns no memory.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::driver::Outgoing;

/// Up to here copying costs less than a run of its own (an entry for the kernel to walk, and a
/// reference count that cores may share).
const COPY_MAX: usize = 1024;
/// A run of copied pieces is closed at this size.
const RUN_BYTES: usize = 64 * 1024;

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
        self.open.extend_from_slice(bytes);
        self.bytes += bytes.len();
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed.push_back(Bytes::from(std::mem::take(&mut self.open)));
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

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in prop::collection::vec((0usize..5000, any::<bool>(), any::<bool>()), 0..300),
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
            for (n, (len, copy, take)) in pieces.into_iter().enumerate() {
                let piece = vec![n as u8; len];
                expected.extend_from_slice(&piece);
                if copy {
                    outbox.push_copy(&piece);
                } else {
                    outbox.push(Bytes::from(piece));
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
