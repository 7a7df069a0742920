//! Cuts the byte stream of a connection into frames.
//!
//! A frame that lies whole in what the socket gave is borrowed from there; only a frame that is
//! cut off is copied, and no more of it than what belongs to it. The copy never exceeds the
//! largest packet allowed, grows with what has arrived and not with what a header promises, and
//! is freed when its frame was taken: an idle connection holds no buffer.

use crate::decode::{self, Frame};
use crate::error::DecodeError;

/// The most bytes a fixed header takes.
const HEADER_LEN_MAX: usize = 5;

/// The receiving side of a byte stream: 32 bytes, and a buffer only while a frame is cut off.
///
/// ```
/// # use sextant_mqtt::{Inbound, DecodeError};
/// # fn received(mut input: &[u8], inbound: &mut Inbound) -> Result<usize, DecodeError> {
/// let mut frames = 0;
/// while let Some(frame) = inbound.next_frame(&mut input)? {
///     frames += usize::from(frame.total_len >= 2);
/// }
/// assert!(input.is_empty());
/// # Ok(frames) }
/// # let mut inbound = Inbound::new(100);
/// # assert_eq!(received(&[0xC0, 0, 0xC0], &mut inbound), Ok(1));
/// # assert_eq!(received(&[0], &mut inbound), Ok(1));
/// ```
#[derive(Debug)]
pub struct Inbound {
    /// The start of a frame that is cut off; or, if `taken`, one that was given out.
    partial: Vec<u8>,
    packet_bytes_max: u32,
    taken: bool,
}

impl Inbound {
    /// An empty stream whose packets have at most `packet_bytes_max` bytes, header included.
    pub const fn new(packet_bytes_max: u32) -> Self {
        Inbound { partial: Vec::new(), packet_bytes_max, taken: false }
    }

    /// A stream that begins with bytes received earlier, such as those of
    /// [`Inbound::into_partial`].
    pub const fn with_partial(partial: Vec<u8>, packet_bytes_max: u32) -> Self {
        Inbound { partial, packet_bytes_max, taken: false }
    }

    /// Changes the limit for packets whose header was not read yet.
    pub const fn set_packet_bytes_max(&mut self, packet_bytes_max: u32) {
        self.packet_bytes_max = packet_bytes_max;
    }

    /// Bytes of a frame that is cut off.
    pub const fn partial_len(&self) -> usize {
        if self.taken { 0 } else { self.partial.len() }
    }

    /// The bytes of a frame that is cut off, for a connection that moves elsewhere.
    pub fn into_partial(self) -> Vec<u8> {
        if self.taken { Vec::new() } else { self.partial }
    }

    /// Takes the next frame, advancing `input` past what was used of it. `Ok(None)` means that
    /// `input` is used up; the caller loops until then.
    ///
    /// # Errors
    /// The header is malformed or says too large a length. Nothing that follows can be
    /// understood; the connection must be closed.
    pub fn next_frame<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'f>>, DecodeError> {
        if self.taken {
            self.partial = Vec::new();
            self.taken = false;
        }
        if self.partial.is_empty() {
            let bytes = *input;
            if let Some(frame) = decode::frame(bytes, self.packet_bytes_max)? {
                *input = &bytes[frame.total_len..];
                return Ok(Some(frame));
            }
            self.partial.extend_from_slice(bytes);
            *input = &[];
            return Ok(None);
        }
        self.next_partial(input)
    }

    /// Completes the frame that is cut off, as far as `input` goes.
    fn next_partial<'f>(&'f mut self, input: &mut &[u8]) -> Result<Option<Frame<'f>>, DecodeError> {
        let total_len = loop {
            if let Some(header) = decode::header(&self.partial, self.packet_bytes_max)? {
                break header.total_len;
            }
            assert!(self.partial.len() < HEADER_LEN_MAX, "five bytes are a header or an error");
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            self.partial.push(byte);
            *input = rest;
        };
        let missing = total_len.saturating_sub(self.partial.len());
        let (used, rest) = input.split_at(missing.min(input.len()));
        self.make_room(used.len(), total_len);
        self.partial.extend_from_slice(used);
        *input = rest;
        if used.len() < missing {
            return Ok(None);
        }
        self.taken = true;
        decode::frame(&self.partial, self.packet_bytes_max)
    }

    /// Makes room for `additional` bytes: at least twice as much as before, so that a frame in
    /// many pieces is not copied as often, and never more than the frame will have.
    fn make_room(&mut self, additional: usize, total_len: usize) {
        let len = self.partial.len() + additional;
        if len > self.partial.capacity() {
            let capacity = (self.partial.capacity() * 2).clamp(len, total_len.max(len));
            self.partial.reserve_exact(capacity - self.partial.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(payload_len: usize) -> Vec<u8> {
        let publish = crate::Packet::Publish(crate::Publish {
            delivery: crate::Delivery::AtMostOnce,
            retain: false,
            topic: "t",
            properties: crate::PublishProperties::default(),
            payload: &vec![7; payload_len],
        });
        let mut bytes = Vec::new();
        publish.encode(crate::Version::V311, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_struct_is_small_and_holds_no_buffer_when_idle() {
        assert_eq!(size_of::<Inbound>(), 32);
        let mut inbound = Inbound::new(1000);
        let bytes = publish(10);
        let mut input = &bytes[..];
        assert!(inbound.next_frame(&mut input).unwrap().is_some());
        assert!(inbound.next_frame(&mut input).unwrap().is_none());
        assert_eq!(inbound.partial.capacity(), 0);
        let mut input = &bytes[..5];
        assert!(inbound.next_frame(&mut input).unwrap().is_none());
        assert_eq!(inbound.partial_len(), 5);
        let mut input = &bytes[5..];
        assert!(inbound.next_frame(&mut input).unwrap().is_some());
        assert_eq!(inbound.partial_len(), 0);
        assert!(inbound.next_frame(&mut input).unwrap().is_none());
        assert_eq!(inbound.partial.capacity(), 0);
    }

    #[test]
    fn a_whole_frame_is_borrowed_from_the_input() {
        let bytes = [publish(3), publish(4)].concat();
        let mut inbound = Inbound::new(1000);
        let mut input = &bytes[..];
        let range = bytes.as_ptr_range();
        for _ in 0..2 {
            let frame = inbound.next_frame(&mut input).unwrap().unwrap();
            assert!(range.contains(&frame.body.as_ptr()));
        }
    }

    #[test]
    fn every_way_to_cut_a_stream_gives_the_same_frames() {
        let stream = [publish(0), publish(200), publish(1), publish(20_000)].concat();
        for step in [1, 2, 3, 5, 7, 199, 203, 204, 4096, stream.len()] {
            let mut inbound = Inbound::new(30_000);
            let mut lens = Vec::new();
            for chunk in stream.chunks(step) {
                let mut input = chunk;
                while let Some(frame) = inbound.next_frame(&mut input).unwrap() {
                    lens.push(frame.total_len);
                }
                assert!(input.is_empty());
            }
            assert_eq!(lens, [5, 206, 6, 20_007], "chunks of {step}");
            assert_eq!(inbound.partial_len(), 0);
        }
    }

    #[test]
    fn no_more_is_copied_than_one_frame_and_no_more_held_than_arrived() {
        let mut inbound = Inbound::new(1 << 20);
        let announced = [0x30, 0xFF, 0xFF, 0x3E];
        assert_eq!(inbound.next_frame(&mut &announced[..]), Ok(None));
        assert!(inbound.partial.capacity() < 64, "memory follows what arrives");

        let bytes = publish(100_000);
        let mut inbound = Inbound::new(1 << 20);
        for chunk in bytes[..bytes.len() - 1].chunks(1000) {
            assert_eq!(inbound.next_frame(&mut &chunk[..]), Ok(None));
            assert!(inbound.partial.capacity() <= (2 * inbound.partial.len()).min(bytes.len()));
        }

        let mut inbound = Inbound::new(1000);
        let bytes = [publish(10), publish(300)].concat();
        assert_eq!(inbound.next_frame(&mut &bytes[..3]), Ok(None));
        let mut input = &bytes[3..];
        assert_eq!(inbound.next_frame(&mut input).unwrap().unwrap().total_len, 15);
        assert_eq!(input.len(), bytes.len() - 15);
    }

    #[test]
    fn a_packet_that_is_too_large_is_refused_in_pieces_too() {
        let mut inbound = Inbound::new(100);
        assert_eq!(inbound.next_frame(&mut &[0x30][..]), Ok(None));
        let error = DecodeError::TooLarge { len: 129, max: 100 };
        assert_eq!(inbound.next_frame(&mut &[127][..]), Err(error));
        assert_eq!(error.reason(), crate::ReasonCode::PacketTooLarge);
    }

    #[test]
    fn mqtt_1_5_5_1_a_length_that_is_cut_off_is_checked_all_the_same() {
        let mut inbound = Inbound::new(100);
        assert_eq!(inbound.next_frame(&mut &[0x30, 0x80][..]), Ok(None));
        assert_eq!(inbound.next_frame(&mut &[0x00][..]), Err(DecodeError::VariableInteger));
        let mut inbound = Inbound::new(100);
        assert_eq!(inbound.next_frame(&mut &[0x30, 0xFF, 0xFF][..]), Ok(None));
        assert_eq!(inbound.next_frame(&mut &[0xFF, 0xFF][..]), Err(DecodeError::VariableInteger));
    }

    #[test]
    fn a_connection_can_move_with_its_partial_frame() {
        let bytes = publish(10);
        let mut here = Inbound::new(100);
        assert_eq!(here.next_frame(&mut &bytes[..4]), Ok(None));
        let mut there = Inbound::with_partial(here.into_partial(), 100);
        assert_eq!(there.next_frame(&mut &bytes[4..]).unwrap().unwrap().total_len, bytes.len());
    }
}
