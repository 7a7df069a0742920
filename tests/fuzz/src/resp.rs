//! Any bytes as requests, and as replies: neither panics, they mean the same however they are
//! cut, and what they say means the same when it is written again.

use sextant_resp::{
    Limits, OwnedArgs, Parsed, ProtocolError, ReplyError, ReplyLimits, ReplyParser, RequestParser,
    Value, encode_command, skip,
};

/// Pieces that between them cut in the midst of most things.
const PIECES: [usize; 2] = [1, 7];

pub(crate) fn run(bytes: &[u8]) {
    let Some((limits, bytes)) = bytes.split_first() else { return };
    requests(bytes, *limits);
    replies(bytes, *limits);
}

/// Commands, and how the bytes ended.
type Requests = (Vec<OwnedArgs>, Result<usize, ProtocolError>);

fn read_requests(bytes: &[u8], piece: usize, limits: Limits) -> Requests {
    let mut parser = RequestParser::new(limits);
    let (mut commands, mut begin, mut arrived) = (Vec::new(), 0, 0);
    loop {
        let unread = &bytes[begin..arrived];
        match parser.parse(unread) {
            Ok(Parsed::Command { args, consumed }) => {
                assert!(!args.is_empty() && args.bytes() < consumed && consumed <= unread.len());
                commands.push(args.to_owned());
                begin += consumed;
            }
            Ok(Parsed::Nothing { consumed }) => {
                assert!((1..=unread.len()).contains(&consumed));
                begin += consumed;
            }
            Ok(Parsed::Incomplete { .. }) if arrived == bytes.len() => {
                return (commands, Ok(unread.len()));
            }
            Ok(Parsed::Incomplete { at_least }) => {
                assert!(at_least > 0);
                arrived = bytes.len().min(arrived + piece);
            }
            Err(error) => return (commands, Err(error)),
        }
    }
}

fn requests(bytes: &[u8], flags: u8) {
    let limits = Limits {
        bulk_bytes_max: if flags & 1 == 0 { 1000 } else { 1 << 40 },
        args_max: if flags & 2 == 0 { 100 } else { u32::MAX },
        request_bytes_max: if flags & 4 == 0 { 4000 } else { u32::MAX },
        unauthenticated: flags & 8 != 0,
    };
    let whole = read_requests(bytes, bytes.len().max(1), limits);
    for piece in PIECES {
        assert_eq!(read_requests(bytes, piece, limits), whole);
    }
    let mut written = Vec::new();
    for command in &whole.0 {
        encode_command(&mut written, command.args().iter());
    }
    let again = read_requests(&written, written.len().max(1), Limits::default());
    assert_eq!(again, (whole.0, Ok(0)));
}

/// Replies, and how the bytes ended.
type Replies = (Vec<Value>, Result<usize, ReplyError>);

fn read_replies(bytes: &[u8], piece: usize, limits: ReplyLimits) -> Replies {
    let mut parser = ReplyParser::new(limits);
    let (mut values, mut pieces) = (Vec::new(), bytes.chunks(piece));
    loop {
        match parser.next_reply() {
            Ok(Some(value)) => values.push(value),
            Ok(None) => match pieces.next() {
                Some(piece) => parser.push(piece),
                None => return (values, Ok(parser.unread())),
            },
            Err(error) => return (values, Err(error)),
        }
    }
}

fn replies(bytes: &[u8], flags: u8) {
    let limits = ReplyLimits {
        depth_max: usize::from(flags & 15),
        reply_bytes_max: if flags & 16 == 0 { 1000 } else { usize::MAX },
    };
    let whole = read_replies(bytes, bytes.len().max(1), limits);
    for piece in PIECES {
        // As text, in which what is not a number is like itself.
        assert_eq!(format!("{:?}", read_replies(bytes, piece, limits)), format!("{whole:?}"));
    }
    let mut rest = bytes;
    for _ in &whole.0 {
        let len = skip(rest).expect("it was read").expect("all of it");
        rest = &rest[len..];
    }
    assert!(whole.1.is_err() || whole.1 == Ok(rest.len()));
}
