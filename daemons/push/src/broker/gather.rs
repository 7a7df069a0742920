//! What a connection has sent of a packet that is cut off, before its client is known: nobody has
//! to prove anything to send a CONNECT byte by byte. A packet's header says how long it is, so the
//! bytes are looked at again when that many are there, and not at each of them; and they are copied
//! about twice, however many pieces they come in.

use sextant_mqtt::frame_needs;

/// Bytes that wait for more.
#[derive(Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    /// So many are to be there when they are looked at again.
    wanted: u32,
}

impl Gathered {
    /// Keeps bytes of which those from `at` on are the beginning of a packet.
    pub(super) fn cut_off(bytes: Vec<u8>, at: usize, packet_bytes_max: u32) -> Gathered {
        // What is no packet is looked at with the next byte.
        let needed = frame_needs(&bytes[at..], packet_bytes_max).unwrap_or(0);
        Gathered { bytes, wanted: u32::try_from(at + needed).unwrap_or(u32::MAX) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds what arrived; gives all of it if it is to be looked at.
    pub(super) fn add(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let (len, wanted) = (self.bytes.len() + data.len(), self.wanted as usize);
        if len > self.bytes.capacity() {
            // No more than the packet will have: whoever says a length has not sent it.
            let capacity = (self.bytes.capacity() * 2).clamp(len, wanted.max(len));
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(data);
        (len >= wanted).then(|| std::mem::take(&mut self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 1 << 20;

    /// A header that says so many bytes, and they.
    fn packet(body: usize) -> Vec<u8> {
        let length = [0x80 | (body % 128) as u8, (body / 128) as u8];
        [&[0x10], &length[..], &vec![7; body]].concat()
    }

    /// How often the bytes are looked at when they come one by one, behind others.
    fn looks(before: &[u8], packet: &[u8]) -> usize {
        let mut gathered = Gathered::cut_off(before.to_vec(), before.len(), MAX);
        let mut looks = 0;
        for (at, byte) in packet.iter().enumerate() {
            let Some(bytes) = gathered.add(&[*byte]) else { continue };
            looks += 1;
            assert_eq!(bytes, [before, &packet[..=at]].concat());
            if at + 1 < packet.len() {
                gathered = Gathered::cut_off(bytes, before.len(), MAX);
            }
        }
        looks
    }

    #[test]
    fn a_packet_in_pieces_is_looked_at_as_often_however_long_it_is() {
        // With each byte of its header, and when it is whole.
        for body in [200, 2000, 16_000] {
            assert_eq!(looks(&[], &packet(body)), 4, "{body}");
            assert_eq!(looks(&[9; 100], &packet(body)), 4, "{body}");
        }
    }

    #[test]
    fn memory_follows_what_arrives_and_ends_with_the_packet() {
        let whole = packet(16_000);
        let mut gathered = Gathered::cut_off(whole[..3].to_vec(), 0, MAX);
        let mut grown = 0;
        for piece in whole[3..whole.len() - 1].chunks(7) {
            let before = gathered.bytes.capacity();
            assert!(gathered.add(piece).is_none());
            let capacity = gathered.bytes.capacity();
            assert!(capacity <= (2 * gathered.bytes.len()).min(whole.len()));
            grown += usize::from(capacity > before);
        }
        assert!(grown <= 14, "{grown}");
    }

    #[test]
    fn what_comes_behind_the_packet_is_given_with_it() {
        let whole = packet(200);
        let mut gathered = Gathered::cut_off(whole[..10].to_vec(), 0, MAX);
        let rest = [&whole[10..], b"more"].concat();
        assert_eq!(gathered.add(&rest), Some([&whole[..], b"more"].concat()));
        assert!(gathered.is_empty());
    }
}
