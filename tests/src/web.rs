//! A WebSocket client that does what it is told, right or wrong: a socket, and frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use sextant_mqtt::{Connect, Packet, Version, frame};

use crate::wait::DEADLINE;

/// A binary message, whole.
pub const BINARY: u8 = 0x82;
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x09];

/// A connection that asked for WebSocket.
#[derive(Debug)]
pub struct Web {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// Payload of messages that was no whole packet yet.
    mqtt: Vec<u8>,
}

impl Web {
    /// The request that is granted, with more header lines, each with its line's end.
    pub fn request(more: &str) -> String {
        format!(
            "GET /mqtt HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
             Sec-WebSocket-Version: 13\r\n{more}\r\n"
        )
    }

    /// Sends `first` and then a request, and waits until it is granted.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn open_behind(addr: SocketAddr, first: &[u8]) -> Web {
        let stream = match TcpStream::connect_timeout(&addr, DEADLINE) {
            Ok(stream) => stream,
            Err(error) => panic!("no connection to {addr}: {error}"),
        };
        stream.set_nodelay(true).ok();
        stream.set_read_timeout(Some(DEADLINE)).ok();
        let mut web = Web { stream, bytes: Vec::new(), mqtt: Vec::new() };
        web.send_bytes(first);
        web.send_bytes(Web::request("").as_bytes());
        let end = loop {
            if let Some(at) = web.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(web.receive(), "closed before its answer");
        };
        let answer: Vec<u8> = web.bytes.drain(..end).collect();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        web
    }

    /// A connection with an MQTT session, whose CONNECT was sent byte by byte in frames of one.
    ///
    /// # Panics
    /// It is refused.
    #[track_caller]
    pub fn connect(addr: SocketAddr, connect: &Connect<'_>) -> Web {
        let mut web = Web::open_behind(addr, b"");
        let mut bytes = Vec::new();
        Packet::Connect(*connect).encode(connect.version, &mut bytes).ok();
        bytes.iter().for_each(|byte| web.send(BINARY, &[*byte]));
        let connack = web.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02x?}");
        web
    }

    /// Sends a packet as a message.
    #[track_caller]
    pub fn send_packet(&mut self, packet: &Packet<'_>, version: Version) {
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes).ok();
        self.send(BINARY, &bytes);
    }

    /// Sends a frame with that first byte, masked.
    ///
    /// # Panics
    /// The connection is gone.
    #[track_caller]
    pub fn send(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0xfe);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.send_bytes(&bytes);
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// The connection is gone.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.stream.write_all(bytes) {
            panic!("the connection is gone: {error}");
        }
    }

    fn receive(&mut self) -> bool {
        let mut buffer = [0; 65536];
        let received = self.stream.read(&mut buffer).unwrap_or(0);
        self.bytes.extend_from_slice(&buffer[..received]);
        received > 0
    }

    /// The next frame: its first byte, and its payload. `None` if the connection is closed.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let head = match self.bytes.get(1) {
                Some(126) => 4,
                Some(127) => 10,
                _ => 2,
            };
            if let Some(length) = self.bytes.get(1..head) {
                let wide = if head == 2 { length } else { &length[1..] };
                let length = wide.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
                if self.bytes.len() >= head + length {
                    let frame: Vec<u8> = self.bytes.drain(..head + length).collect();
                    return Some((frame[0], frame[head..].to_vec()));
                }
            }
            if !self.receive() {
                return None;
            }
        }
    }

    /// The next packet of MQTT, whole.
    ///
    /// # Panics
    /// There comes something else.
    #[track_caller]
    pub fn packet(&mut self) -> Vec<u8> {
        loop {
            if let Ok(Some(whole)) = frame(&self.mqtt, u32::MAX) {
                let length = whole.total_len;
                return self.mqtt.drain(..length).collect();
            }
            match self.frame() {
                Some((BINARY, payload)) => self.mqtt.extend_from_slice(&payload),
                other => panic!("no message, but {other:02x?}"),
            }
        }
    }
}
