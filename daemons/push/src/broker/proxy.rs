//! The header with which a proxy says whom it speaks for: the PROXY protocol, version 2, as
//! HAProxy's `send-proxy-v2` and others write it.
//!
//! ```text
//!   signature, 12 │ version, command │ family │ length, 2 │ addresses … │ extensions …
//!                   21 proxied         11, 12   big-endian  12, 36
//!                   20 the proxy's own
//! ```

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES: usize = 16;
/// Addresses and extensions. A proxy's certificate fields are far below it.
const LENGTH_MAX: usize = 4096;

/// What a proxy said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its length.
    pub(super) bytes: usize,
    /// The client's address; `None` of a connection that is the proxy's own (it looks whether we
    /// are well), or came to it by no address of the internet.
    pub(super) peer: Option<SocketAddr>,
}

/// What is wrong with a header. It is the fault of the proxy, or of somebody who is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the signature is missing: is this listener reached past its proxy?")]
    Signature,
    #[error("version and command are {0:#04x}, not 0x20 or 0x21")]
    Command(u8),
    #[error("{0} bytes are too many or too few for what they are to say")]
    Length(usize),
}

/// Reads a header; `None` while it is not whole.
pub(super) fn header(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let signed = bytes.len().min(SIGNATURE.len());
    if bytes[..signed] != SIGNATURE[..signed] {
        return Err(ProxyError::Signature);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [.., command, family, high, low] = *fixed;
    if !matches!(command, 0x20 | 0x21) {
        return Err(ProxyError::Command(command));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LENGTH_MAX {
        return Err(ProxyError::Length(length));
    }
    let Some(body) = bytes.get(FIXED_BYTES..FIXED_BYTES + length) else { return Ok(None) };
    let peer = match (command, family >> 4) {
        (0x21, 1) => Some(address::<4>(body)?),
        (0x21, 2) => Some(address::<16>(body)?),
        _ => None,
    };
    Ok(Some(Header { bytes: FIXED_BYTES + length, peer }))
}

/// Source and destination addresses, then their ports.
fn address<const N: usize>(body: &[u8]) -> Result<SocketAddr, ProxyError>
where
    IpAddr: From<[u8; N]>,
{
    let wrong = ProxyError::Length(body.len());
    let (source, rest) = body.split_first_chunk::<N>().ok_or(wrong)?;
    let ports = rest.get(N..N + 4).ok_or(wrong)?;
    let port = u16::from_be_bytes([ports[0], ports[1]]);
    Ok(SocketAddr::new(IpAddr::from(*source), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn a_proxy_tells_its_clients_address() {
        let mut v4 = bytes(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80, 4, 0, 0]);
        let length = v4.len();
        v4.extend(b"MQTT");
        let peer = Some("192.0.2.7:4660".parse().unwrap());
        assert_eq!(header(&v4), Ok(Some(Header { bytes: length, peer })));
        for cut in 0..length {
            assert_eq!(header(&v4[..cut]), Ok(None));
        }
        let mut body = [0; 36];
        (body[15], body[33]) = (1, 9);
        let peer = Some("[::1]:9".parse().unwrap());
        assert_eq!(header(&bytes(0x21, 0x21, &body)), Ok(Some(Header { bytes: 52, peer })));
    }

    #[test]
    fn a_proxys_own_connection_has_no_client() {
        for own in [bytes(0x20, 0, &[]), bytes(0x20, 0x11, &[1; 12]), bytes(0x21, 0x31, &[0; 216])]
        {
            let header = header(&own).unwrap().unwrap();
            assert_eq!((header.bytes, header.peer), (own.len(), None));
        }
    }

    #[test]
    fn what_is_no_header_is_told_at_its_first_wrong_byte() {
        assert_eq!(header(&[0x10]), Err(ProxyError::Signature));
        assert_eq!(header(b"\r\n\r\n\0\r\nQUIX"), Err(ProxyError::Signature));
        assert_eq!(header(&bytes(0x11, 0x11, &[0; 12])), Err(ProxyError::Command(0x11)));
        assert_eq!(header(&bytes(0x21, 0x11, &[0; 11])), Err(ProxyError::Length(11)));
        assert_eq!(header(&bytes(0x21, 0x21, &[0; 35])), Err(ProxyError::Length(35)));
        assert_eq!(header(&bytes(0x21, 0x11, &[0; 5000])[..16]), Err(ProxyError::Length(5000)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(rest in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = header(&rest);
            let _ = header(&[&SIGNATURE[..], &rest].concat());
        }
    }
}
