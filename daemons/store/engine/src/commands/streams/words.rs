//! The words that commands of streams share: identifiers, ranges of them, and how a stream is cut.

use sextant_keyspace::canonical_int;
use sextant_keyspace::stream::{Keep, StreamId, Trim};
use sextant_resp::Args;

use crate::call::Call;
use crate::fault::Fault;
use crate::words::{int, is};

/// An identifier in words is no longer than this.
const ID_WORD_BYTES_MAX: usize = 127;

/// What identifier a new entry shall get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// By the time.
    Any,
    /// The next one of this time.
    In(u64),
    /// This one.
    This(StreamId),
}

/// A part of an identifier: an unsigned number as C reads it, so with a sign or zeros before it.
fn part(word: &[u8]) -> Option<u64> {
    if let Some(number) = canonical_int(word) {
        return u64::try_from(number).ok();
    }
    let (digits, negative) = match word {
        [b'+', digits @ ..] => (digits, false),
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

/// The two parts of an identifier; the second may be missing.
fn parts(word: &[u8]) -> Option<(u64, Option<&[u8]>)> {
    if word.len() > ID_WORD_BYTES_MAX {
        return None;
    }
    match word.iter().position(|byte| *byte == b'-') {
        Some(at) => Some((part(&word[..at])?, Some(&word[at + 1..]))),
        None => Some((part(word)?, None)),
    }
}

fn parse(word: &[u8], missing_seq: u64) -> Option<StreamId> {
    let (ms, seq) = parts(word)?;
    Some(StreamId::new(ms, seq.map_or(Some(missing_seq), part)?))
}

fn no_id() -> Fault {
    Fault::text("ERR Invalid stream ID specified as stream command argument")
}

/// An identifier. One without a second part has this one.
pub(super) fn id(word: &[u8], missing_seq: u64) -> Result<StreamId, Fault> {
    parse(word, missing_seq).ok_or_else(no_id)
}

/// An identifier, or `-` or `+` for the lowest and the highest.
pub(super) fn id_or_end(word: &[u8], missing_seq: u64) -> Result<StreamId, Fault> {
    match word {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => id(word, missing_seq),
    }
}

/// Where a range begins; an identifier behind a bracket is not in it.
pub(super) fn start(word: &[u8]) -> Result<StreamId, Fault> {
    let outside = || Fault::text("ERR invalid start ID for the interval");
    match word {
        [b'(', word @ ..] if !word.is_empty() => id(word, 0)?.next().ok_or_else(outside),
        _ => id_or_end(word, 0),
    }
}

/// Both ends of a range.
pub(super) fn interval(from: &[u8], to: &[u8]) -> Result<(StreamId, StreamId), Fault> {
    let from = start(from)?;
    let outside = || Fault::text("ERR invalid end ID for the interval");
    let to = match to {
        [b'(', word @ ..] if !word.is_empty() => id(word, u64::MAX)?.prev().ok_or_else(outside)?,
        _ => id_or_end(to, u64::MAX)?,
    };
    Ok((from, to))
}

/// The words of XADD before its fields, or those of XTRIM.
pub(super) struct AddWords {
    pub(super) id: Asked,
    pub(super) trim: Option<Trim>,
    /// A stream that is not there is not made.
    pub(super) only_if_there: bool,
    /// Where they end.
    pub(super) end: usize,
}

/// How a stream shall be cut, as far as it was said.
#[derive(Default)]
struct TrimWords {
    keep: Option<Keep>,
    about: bool,
    limit: Option<u64>,
}

impl TrimWords {
    /// Reads MAXLEN or MINID, which stands at `at`; returns where its value stands.
    fn keep(&mut self, args: Args<'_>, at: usize) -> Result<usize, Fault> {
        if self.keep.is_some() {
            return Err(Fault::text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let marked = args.len() - at > 2 && matches!(&args[at + 1], b"~" | b"=");
        self.about = marked && &args[at + 1] == b"~";
        let value = at + 1 + usize::from(marked);
        self.keep = Some(if is(&args[at], "MAXLEN") {
            let negative = |_| Fault::text("ERR The MAXLEN argument must be >= 0.");
            Keep::Newest(u64::try_from(int(&args[value])?).map_err(negative)?)
        } else {
            Keep::From(id(&args[value], 0)?)
        });
        Ok(value)
    }

    fn check(self, usual_limit: u64, adds: bool) -> Result<Option<Trim>, Fault> {
        let Some(keep) = self.keep else {
            return match (self.limit.unwrap_or(0), adds) {
                (0, true) => Ok(None),
                (0, false) => Err(Fault::text(
                    "ERR syntax error, XTRIM must be called with a trimming strategy",
                )),
                _ => Err(Fault::text(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                )),
            };
        };
        let limit = match (self.limit, self.about) {
            (Some(_), false) => {
                return Err(Fault::text(
                    "ERR syntax error, LIMIT cannot be used without the special ~ option",
                ));
            }
            (Some(limit), true) => limit,
            (None, true) => usual_limit,
            (None, false) => 0,
        };
        Ok(Some(Trim { keep, about: self.about, limit }))
    }
}

/// Entries that cutting about removes at most, if nobody says another number.
fn usual_limit(call: &mut Call<'_>) -> u64 {
    const NODES: u64 = 100;
    let entries = call.keys().encoding.stream_node_entries_max as u64;
    match entries.saturating_mul(NODES) {
        0 => 10_000,
        limit => limit.min(1_000_000),
    }
}

/// Reads the words of XADD up to the identifier, or all of XTRIM.
pub(super) fn add_words(
    call: &mut Call<'_>,
    args: Args<'_>,
    adds: bool,
) -> Result<AddWords, Fault> {
    let (mut trim, mut only_if_there, mut at) = (TrimWords::default(), false, 2);
    let mut asked = Asked::Any;
    while let Some(word) = args.get(at) {
        let more = at + 1 < args.len();
        if adds && word == b"*" {
            break;
        } else if more && (is(word, "MAXLEN") || is(word, "MINID")) {
            at = trim.keep(args, at)?;
        } else if more && is(word, "LIMIT") {
            at += 1;
            let negative = |_| Fault::text("ERR The LIMIT argument must be >= 0.");
            trim.limit = Some(u64::try_from(int(&args[at])?).map_err(negative)?);
        } else if adds && is(word, "NOMKSTREAM") {
            only_if_there = true;
        } else if adds {
            asked = match parts(word).ok_or_else(no_id)? {
                (ms, Some(b"*")) => Asked::In(ms),
                _ => Asked::This(id(word, 0)?),
            };
            break;
        } else {
            return Err(Fault::Syntax);
        }
        at += 1;
    }
    let trim = trim.check(usual_limit(call), adds)?;
    Ok(AddWords { id: asked, trim, only_if_there, end: at + 1 })
}
