//! Frames, both ways.
//!
//! ```text
//!   byte 0                 byte 1
//!   FIN RSV1-3 opcode(4) │ MASK length(7) │ length, 0, 2 or 8 bytes │ mask, 4 bytes │ payload …
//! ```

/// The code of a close for which there is no other reason.
pub const NORMAL_CLOSURE: u16 = 1000;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const CONTROL_BYTES_MAX: u64 = 125;
const HEAD_BYTES_MAX: usize = 14;

mod opcode {
    pub(super) const CONTINUATION: u8 = 0;
    pub(super) const TEXT: u8 = 1;
    pub(super) const BINARY: u8 = 2;
    pub(super) const CLOSE: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
}

/// What a client did that it may not. All of it is the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// RFC 6455, 5.1.
    #[error("a frame is not masked")]
    NotMasked,
    /// RFC 6455, 5.2: no extension was agreed on.
    #[error("a reserved bit is set")]
    Reserved,
    /// RFC 6455, 5.2.
    #[error("opcode {0} is unknown")]
    Opcode(u8),
    /// `[MQTT-6.0.0-1]`.
    #[error("a text frame, where only binary ones may be")]
    Text,
    /// RFC 6455, 5.2.
    #[error("a length that is not in its shortest form, or past 2^63")]
    Length,
    /// RFC 6455, 5.5.
    #[error("a control frame in fragments, or of more than 125 bytes")]
    Control,
    /// RFC 6455, 5.4.
    #[error("a continuation of nothing, or a new message inside another one")]
    Continuation,
    /// RFC 6455, 5.5.1 and 7.4.
    #[error("a close frame with half a code, or one that may not be sent")]
    CloseCode,
    /// RFC 6455, 5.5.1.
    #[error("a close frame whose reason is not UTF-8")]
    CloseReason,
}

impl Fault {
    /// The code that tells the client (RFC 6455, 7.4.1).
    pub fn close_code(self) -> u16 {
        match self {
            Fault::Text => 1003,
            Fault::CloseReason => 1007,
            _ => 1002,
        }
    }
}

/// The client closes, with the code that it gave. It is owed a close frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close(pub Option<u16>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Payload,
    Over,
}

/// Takes frames apart. Where one ends means nothing to what is inside `[MQTT-6.0.0-2]`.
#[derive(Debug)]
pub struct Receiver {
    stage: Stage,
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// Payload bytes of this frame that are missing.
    left: u64,
    /// The mask, turned so that its first byte is for the next byte of payload.
    mask: [u8; 4],
    /// A message has begun and not ended.
    in_message: bool,
    /// The payload of a control frame that is cut off.
    control: Vec<u8>,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver {
            stage: Stage::Head,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            left: 0,
            mask: [0; 4],
            in_message: false,
            control: Vec::new(),
        }
    }
}

impl Receiver {
    /// Takes bytes in: what they carry is appended to `payload`, and the pongs that the client is
    /// owed to `pongs`. Once it has closed, what follows is ignored.
    ///
    /// # Errors
    /// [`Fault`]: the connection is to be closed with its code. What came before it is in
    /// `payload`. Further input is ignored.
    pub fn handle_input(
        &mut self,
        mut data: &[u8],
        payload: &mut Vec<u8>,
        pongs: &mut Vec<u8>,
    ) -> Result<Option<Close>, Fault> {
        while !data.is_empty() && self.stage != Stage::Over {
            let ended = match self.stage {
                Stage::Head => self.take_head(&mut data),
                _ => {
                    self.take_payload(&mut data, payload);
                    Ok(self.left == 0)
                }
            };
            let outcome = match ended {
                Ok(true) => self.end_frame(pongs),
                Ok(false) => Ok(None),
                Err(fault) => Err(fault),
            };
            if !matches!(outcome, Ok(None)) {
                self.stage = Stage::Over;
                return outcome;
            }
        }
        Ok(None)
    }

    /// Reads the head as far as it is there; whether the frame is whole with it.
    fn take_head(&mut self, data: &mut &[u8]) -> Result<bool, Fault> {
        while let Some((first, rest)) = data.split_first() {
            *data = rest;
            self.head[usize::from(self.head_len)] = *first;
            self.head_len += 1;
            if self.head_len == 2 {
                self.check_head()?;
            }
            if self.head_len >= 2 && usize::from(self.head_len) == self.head_bytes() {
                self.begin_payload()?;
                return Ok(self.left == 0);
            }
        }
        Ok(false)
    }

    fn opcode(&self) -> u8 {
        self.head[0] & 0xf
    }

    fn is_control(&self) -> bool {
        self.opcode() >= opcode::CLOSE
    }

    fn check_head(&mut self) -> Result<(), Fault> {
        let (first, length) = (self.head[0], u64::from(self.head[1] & !MASKED));
        if first & RESERVED != 0 {
            return Err(Fault::Reserved);
        }
        match self.opcode() {
            opcode::CONTINUATION if self.in_message => {}
            opcode::BINARY if !self.in_message => {}
            opcode::CONTINUATION | opcode::BINARY => return Err(Fault::Continuation),
            opcode::TEXT => return Err(Fault::Text),
            opcode::CLOSE | opcode::PING | opcode::PONG => {
                if first & FIN == 0 || length > CONTROL_BYTES_MAX {
                    return Err(Fault::Control);
                }
            }
            unknown => return Err(Fault::Opcode(unknown)),
        }
        if self.head[1] & MASKED == 0 {
            return Err(Fault::NotMasked);
        }
        Ok(())
    }

    fn head_bytes(&self) -> usize {
        2 + self.length_bytes() + 4
    }

    fn length_bytes(&self) -> usize {
        match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn begin_payload(&mut self) -> Result<(), Fault> {
        let bytes = self.length_bytes();
        let (length, mask) = self.head[2..].split_at(bytes);
        let long = length.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        self.left = match bytes {
            0 => u64::from(self.head[1] & !MASKED),
            2 if long < 126 => return Err(Fault::Length),
            8 if long <= u64::from(u16::MAX) || long >> 63 != 0 => return Err(Fault::Length),
            _ => long,
        };
        self.mask.copy_from_slice(&mask[..4]);
        if !self.is_control() {
            self.in_message = self.head[0] & FIN == 0;
        }
        self.stage = Stage::Payload;
        Ok(())
    }

    fn take_payload(&mut self, data: &mut &[u8], payload: &mut Vec<u8>) {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
        let (masked, rest) = data.split_at(here);
        *data = rest;
        self.left -= here as u64;
        let out = if self.is_control() { &mut self.control } else { payload };
        let start = out.len();
        out.extend_from_slice(masked);
        unmask(&mut out[start..], self.mask);
        self.mask.rotate_left(here % 4);
    }

    fn end_frame(&mut self, pongs: &mut Vec<u8>) -> Result<Option<Close>, Fault> {
        self.stage = Stage::Head;
        self.head_len = 0;
        let control = std::mem::take(&mut self.control);
        match self.opcode() {
            opcode::CLOSE => return close_code(&control).map(|code| Some(Close(code))),
            opcode::PING => {
                pongs.extend_from_slice(&[FIN | opcode::PONG, control.len() as u8]);
                pongs.extend_from_slice(&control);
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Eight bytes at a time, which is four times as fast as one.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

/// The code of a close frame's payload: none, or a code and a text.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::CloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Fault::CloseReason),
    }
}

/// What goes before a payload so that both are a binary message. It is the same for all clients:
/// a server does not mask.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; 10],
    len: u8,
}

impl Head {
    /// Of a payload of so many bytes.
    pub fn of(payload_bytes: usize) -> Head {
        let mut bytes = [0; 10];
        bytes[0] = FIN | opcode::BINARY;
        let length = payload_bytes as u64;
        let len = if length <= 125 {
            bytes[1] = length as u8;
            2
        } else if let Ok(length) = u16::try_from(payload_bytes) {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            4
        } else {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&length.to_be_bytes());
            10
        };
        Head { bytes, len }
    }

    /// Its bytes, 2 to 10.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Puts it before bytes that are the whole payload, or its beginning.
    pub fn put_before(&self, bytes: &mut Vec<u8>) {
        bytes.splice(0..0, self.as_bytes().iter().copied());
    }
}

/// A close frame, after which nothing more is sent.
pub fn close(code: Option<u16>) -> Vec<u8> {
    match code {
        None => vec![FIN | opcode::CLOSE, 0],
        Some(code) => {
            let [high, low] = code.to_be_bytes();
            vec![FIN | opcode::CLOSE, 2, high, low]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let head = Head::of(payload.len());
        let mut bytes = head.as_bytes().to_vec();
        bytes[0] = first;
        bytes[1] |= MASKED;
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn all(bytes: &[u8]) -> (Result<Option<Close>, Fault>, Vec<u8>, Vec<u8>) {
        let (mut payload, mut pongs) = (Vec::new(), Vec::new());
        let outcome = Receiver::default().handle_input(bytes, &mut payload, &mut pongs);
        (outcome, payload, pongs)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // RFC 6455, 5.7, "Hello", with a binary opcode.
        let hello = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(all(&hello), (Ok(None), b"Hello".to_vec(), vec![]));
        let ping = [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(all(&ping), (Ok(None), vec![], b"\x8a\x05Hello".to_vec()));
    }

    #[test]
    fn what_a_client_may_not_send_is_told_from_what_it_may() {
        let mask = [1, 2, 3, 4];
        let twice = |first: u8, second: u8| [masked(first, b"", mask), masked(second, b"", mask)];
        let cases = [
            (vec![0x82, 0x00], Fault::NotMasked, 1002),
            (masked(0xc2, b"", mask), Fault::Reserved, 1002),
            (masked(0x83, b"", mask), Fault::Opcode(3), 1002),
            (masked(0x81, b"text", mask), Fault::Text, 1003),
            (masked(0x80, b"", mask), Fault::Continuation, 1002),
            (twice(0x02, 0x82).concat(), Fault::Continuation, 1002),
            (masked(0x09, b"", mask), Fault::Control, 1002),
            (masked(0x89, &[0; 126], mask), Fault::Control, 1002),
            (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], Fault::Length, 1002),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], Fault::Length, 1002),
            (vec![0x82, 0xff, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Fault::Length, 1002),
            (masked(0x88, &[3], mask), Fault::CloseCode, 1002),
            (masked(0x88, &1005u16.to_be_bytes(), mask), Fault::CloseCode, 1002),
            (masked(0x88, &[3, 232, 255], mask), Fault::CloseReason, 1007),
        ];
        for (bytes, fault, code) in cases {
            assert_eq!((all(&bytes).0, fault.close_code()), (Err(fault), code), "{bytes:x?}");
        }
    }

    #[test]
    fn what_follows_a_close_is_ignored() {
        let mut bytes = masked(0x82, b"before", [9; 4]);
        bytes.extend(masked(0x88, &1001u16.to_be_bytes(), [7; 4]));
        bytes.extend(masked(0x82, b"after", [9; 4]));
        assert_eq!(all(&bytes), (Ok(Some(Close(Some(1001)))), b"before".to_vec(), vec![]));
        assert_eq!(all(&masked(0x88, b"", [7; 4])).0, Ok(Some(Close(None))));
    }

    #[test]
    fn a_head_says_its_length_in_the_shortest_form() {
        let lengths = [0usize, 125, 126, 65_535, 65_536];
        let heads = lengths.map(|length| Head::of(length).as_bytes().len());
        assert_eq!(heads, [2, 2, 4, 4, 10]);
        let mut packet = b"packet".to_vec();
        Head::of(6).put_before(&mut packet);
        assert_eq!(packet, b"\x82\x06packet");
    }

    proptest! {
        #[test]
        fn a_stream_comes_out_as_it_went_in_however_it_is_cut(
            messages in prop::collection::vec(
                (prop::collection::vec(0usize..300, 1..4), any::<[u8; 4]>(), any::<bool>()), 0..20),
            long in 0usize..70_000,
            cuts in prop::collection::vec(1usize..2000, 1..10),
        ) {
            let (mut wire, mut sent, mut owed) = (Vec::new(), Vec::new(), Vec::new());
            let mut add = |first: u8, len: usize, mask: [u8; 4]| {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
                wire.extend(masked(first, &payload, mask));
                if first & 0xf == opcode::PING {
                    owed.extend([FIN | opcode::PONG, len as u8]);
                    owed.extend(payload);
                } else {
                    sent.extend(payload);
                }
            };
            add(FIN | opcode::BINARY, long, [1, 2, 3, 4]);
            for (parts, mask, ping) in messages {
                let last = parts.len() - 1;
                for (at, len) in parts.into_iter().enumerate() {
                    let fin = if at == last { FIN } else { 0 };
                    let opcode = if at == 0 { opcode::BINARY } else { opcode::CONTINUATION };
                    add(fin | opcode, len, mask);
                    if ping {
                        add(FIN | opcode::PING, len.min(125), mask);
                    }
                }
            }
            let mut receiver = Receiver::default();
            let (mut payload, mut pongs) = (Vec::new(), Vec::new());
            let mut rest = &wire[..];
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                prop_assert_eq!(receiver.handle_input(piece, &mut payload, &mut pongs), Ok(None));
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(payload, sent);
            prop_assert_eq!(pongs, owed);
        }

        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes);
        }
    }
}
