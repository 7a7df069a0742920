//! The client of the floor's servers, and what it asks them for.

use sextant_load::fleet::SessionError;
use sextant_load::{Recorder, Session};
use sextant_ring::time::Time;

use super::FRAME_BYTES;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Echo,
    Subscribe,
    Publish,
    Close,
}

impl Role {
    /// The byte with which a client asks for it.
    fn wish(self) -> u8 {
        match self {
            Role::Echo => b'E',
            Role::Subscribe => b'S',
            Role::Publish => b'P',
            Role::Close => b'C',
        }
    }

    /// What a client asks for; any other byte asks for the end.
    pub(super) fn of(wish: u8) -> Role {
        let roles = [Role::Echo, Role::Subscribe, Role::Publish];
        roles.into_iter().find(|role| role.wish() == wish).unwrap_or(Role::Close)
    }
}

/// One connection.
pub(super) struct Talk {
    role: Role,
    ready: bool,
    /// Bytes of a frame whose end is still to come.
    partial: Vec<u8>,
    /// Of an operation that has this connection to itself.
    intended: Option<Time>,
}

impl Talk {
    pub(super) fn new(role: Role) -> Talk {
        Talk { role, ready: false, partial: Vec::new(), intended: None }
    }

    fn take_frames(&mut self, mut input: &[u8], now: Time, recorder: &mut Recorder) {
        if !self.partial.is_empty() {
            let missing = (FRAME_BYTES - self.partial.len()).min(input.len());
            self.partial.extend_from_slice(&input[..missing]);
            input = &input[missing..];
            if self.partial.len() < FRAME_BYTES {
                return;
            }
            record(&self.partial, now, recorder);
            self.partial.clear();
        }
        let frames = input.chunks_exact(FRAME_BYTES);
        self.partial.extend_from_slice(frames.remainder());
        frames.for_each(|frame| record(frame, now, recorder));
    }
}

fn record(frame: &[u8], now: Time, recorder: &mut Recorder) {
    let stamp = frame.first_chunk().expect("a frame begins with its stamp");
    recorder.record(Time::from_nanos(u64::from_le_bytes(*stamp)), now);
}

impl Session for Talk {
    fn handle_connected(&mut self, _now: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        out.push(self.role.wish());
        Ok(())
    }

    fn handle_input(
        &mut self,
        now: Time,
        mut input: &[u8],
        _out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), SessionError> {
        if !self.ready {
            match input {
                [b'+', rest @ ..] => input = rest,
                _ => return Err("the server does not answer with +".into()),
            }
            self.ready = true;
        }
        self.take_frames(input, now, recorder);
        Ok(())
    }

    fn begin(&mut self, intended: Time, out: &mut Vec<u8>) -> Result<(), SessionError> {
        if self.role == Role::Close {
            self.intended = Some(intended);
            return Ok(());
        }
        let at = out.len();
        out.resize(at + FRAME_BYTES, b'.');
        out[at..at + 8].copy_from_slice(&intended.as_nanos().to_le_bytes());
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn handle_closed(&mut self, now: Time, recorder: &mut Recorder) -> Result<(), SessionError> {
        let intended = self.intended.ok_or("the server closed the connection")?;
        recorder.record(intended, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        for piece in [1, 7, 109, 110, 111, 1000] {
            let (mut talk, mut recorder) = (Talk::new(Role::Echo), Recorder::default());
            recorder.open(Time::ZERO);
            let mut bytes = vec![b'+'];
            for n in 0..50 {
                talk.begin(Time::from_nanos(n), &mut bytes).unwrap();
            }
            for part in bytes.chunks(piece) {
                talk.handle_input(Time::from_nanos(100), part, &mut Vec::new(), &mut recorder)
                    .unwrap();
            }
            assert_eq!((recorder.done(), talk.partial.len()), (50, 0), "pieces of {piece}");
            assert_eq!(recorder.summary().max_ns, 100);
        }
    }
}
