//! When two replies are the same. Most have to be byte for byte; where an order, a chance or the
//! time has a say, a rule tells what is left to compare, and where this store goes its own way on
//! purpose, a difference is written down with its reason.

use sextant_resp::{ReplyLimits, ReplyParser, Value, skip};

use crate::words::Words;

/// How two replies are compared. Errors are always compared as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Byte for byte.
    Exact,
    /// Numbers as numbers: 7.0 prints all digits of a double, 7.2 only those that tell it.
    Floats,
    /// Elements in any order, as hash tables have none.
    Unordered,
    /// Pairs in any order.
    Pairs,
    /// A cursor, and elements in any order.
    ScanAll,
    /// A cursor, and pairs in any order.
    ScanAllPairs,
    /// A cursor and elements: how many come at once is each server's choice.
    Scan,
    /// Chosen by chance: as many, of the same kinds.
    Random,
    /// Values of the same kinds.
    Shape,
    /// The same kind of value.
    Kind,
    /// An integer that the time makes, and how much later it may be looked at. Negative ones are
    /// as they are.
    Near(i64),
    /// A greeting: versions and numbers of connections differ.
    Hello,
    /// Milliseconds among other things: integers are not compared.
    Idle,
    /// Confirmations, whose names come in any order.
    Unsubscribed,
    /// A value in Redis' file format, whose version 7.2 has raised.
    Dump,
}

/// Where the two servers differ on purpose.
pub struct Difference {
    /// Why.
    pub reason: &'static str,
    holds: fn(&Words, &[u8], &[u8]) -> bool,
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        reason: "7.2 names the command in the error of streams without identifiers",
        holds: |_, ours, theirs| {
            [ours, theirs].iter().all(|reply| reply.starts_with(b"-ERR Unbalanced "))
        },
    },
    Difference {
        reason: "a stream's identifier has no space and no plus before it",
        holds: |words, ours, _| {
            let is_lax = |word: &Vec<u8>| matches!(word.first(), Some(b' ' | b'+'));
            ours.starts_with(b"-ERR Invalid stream ID") && words.iter().any(is_lax)
        },
    },
    Difference {
        reason: "a word that is quoted in an error is text: what is not UTF-8 in it is replaced",
        holds: |_, ours, theirs| {
            let text = String::from_utf8_lossy(theirs);
            theirs.starts_with(b"-") && text.contains('\u{fffd}') && text.as_bytes() == ours
        },
    },
    Difference {
        reason: "a key expires in the year 10889 at the latest",
        holds: |words, ours, theirs| {
            let name = words[0].to_ascii_lowercase();
            let scale = match &*name {
                b"ttl" | b"expiretime" => 1000,
                b"pttl" | b"pexpiretime" => 1,
                _ => return false,
            };
            match (value(ours), value(theirs)) {
                (Value::Int(ours), Value::Int(theirs)) => {
                    let latest = (1 << 48) / scale + 1;
                    ours < theirs && ours <= latest && theirs > latest - (1 << 42) / scale
                }
                _ => false,
            }
        },
    },
    Difference {
        reason: "a cursor that no scan has given is no place in particular",
        holds: |words, ours, theirs| {
            let name = words[0].to_ascii_lowercase();
            let at = if name == b"scan" { 1 } else { 2 };
            name.ends_with(b"scan")
                && words.get(at).is_some_and(|cursor| cursor != b"0")
                && scanned(value(ours)).is_some()
                && scanned(value(theirs)).is_some()
        },
    },
    Difference {
        reason: "there is no file that CONFIG REWRITE could lack: settings are kept in the log",
        holds: |words, ours, theirs| {
            words.get(1).is_some_and(|word| word.eq_ignore_ascii_case(b"rewrite"))
                && ours == b"+OK\r\n"
                && theirs.starts_with(b"-ERR The server is running without a config file")
        },
    },
    Difference {
        reason: "7.2 adds WITHSCORE to ZRANK and ZREVRANK: 7.0 takes no further word",
        holds: |words, ours, theirs| {
            let name = words[0].to_ascii_lowercase();
            matches!(&*name, b"zrank" | b"zrevrank")
                && words.len() == 4
                && theirs.starts_with(b"-ERR wrong number")
                && !ours.starts_with(b"-ERR wrong")
        },
    },
];

/// A reply's value.
///
/// # Panics
/// It is no reply.
pub fn value(reply: &[u8]) -> Value {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    parser.push(reply);
    parser.next_reply().expect("what was skipped can be read").expect("all of it is there")
}

/// Whether two replies to a command are the same; `queued` are the commands that an EXEC has done,
/// and their rules.
pub fn same(
    words: &Words,
    rule: Rule,
    queued: &[(Words, Rule)],
    ours: &[u8],
    theirs: &[u8],
) -> bool {
    if ours == theirs {
        return true;
    }
    if DIFFERENCES.iter().any(|difference| (difference.holds)(words, ours, theirs)) {
        return true;
    }
    if ours.starts_with(b"-") || theirs.starts_with(b"-") {
        return rule == Rule::Dump;
    }
    if words[0].eq_ignore_ascii_case(b"exec") {
        return same_parts(queued, ours, theirs);
    }
    by_rule(rule, value(ours), value(theirs))
}

/// Compares a transaction's replies one by one.
fn same_parts(queued: &[(Words, Rule)], ours: &[u8], theirs: &[u8]) -> bool {
    let (Some(ours), Some(theirs)) = (parts(ours), parts(theirs)) else { return false };
    ours.len() == theirs.len()
        && ours.len() == queued.len()
        && queued
            .iter()
            .zip(ours.iter().zip(&theirs))
            .all(|((words, rule), (ours, theirs))| same(words, *rule, &[], ours, theirs))
}

/// The elements of an array as they were sent.
pub(crate) fn parts(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let head = reply.iter().position(|byte| *byte == b'\n')? + 1;
    let (mut rest, mut parts) = (&reply[head..], Vec::new());
    while let Ok(Some(len)) = skip(rest) {
        let (part, more) = rest.split_at(len);
        parts.push(part);
        rest = more;
    }
    (reply[0] == b'*').then_some(parts)
}

fn by_rule(rule: Rule, ours: Value, theirs: Value) -> bool {
    match rule {
        Rule::Exact => false,
        Rule::Floats => same_floats(&ours, &theirs),
        Rule::Unordered => sorted(ours) == sorted(theirs),
        Rule::Pairs => sorted(paired(ours)) == sorted(paired(theirs)),
        Rule::ScanAll | Rule::ScanAllPairs => {
            let (Some((at, ours)), Some((other, theirs))) = (scanned(ours), scanned(theirs)) else {
                return false;
            };
            let pairs = rule == Rule::ScanAllPairs;
            let in_order = |value| sorted(if pairs { paired(value) } else { value });
            at == other && in_order(ours) == in_order(theirs)
        }
        Rule::Scan => scanned(ours).is_some() && scanned(theirs).is_some(),
        Rule::Random | Rule::Shape => same_size(&ours, &theirs),
        Rule::Kind => std::mem::discriminant(&ours) == std::mem::discriminant(&theirs),
        Rule::Near(margin) => match (ours, theirs) {
            (Value::Int(ours), Value::Int(theirs)) => {
                ours >= 0 && theirs >= 0 && ours.abs_diff(theirs) <= margin.unsigned_abs()
            }
            _ => false,
        },
        Rule::Unsubscribed => without_names(ours) == without_names(theirs),
        Rule::Hello => hello(ours) == hello(theirs),
        Rule::Idle => without_ints(ours) == without_ints(theirs),
        Rule::Dump => matches!((ours, theirs), (Value::Bulk(_), Value::Bulk(_))),
    }
}

/// Values in an order of their own.
fn sorted(value: Value) -> Value {
    let by_text = |value: &Value| format!("{value:?}");
    match value {
        Value::Array(mut values) => {
            values.sort_by_key(by_text);
            Value::Array(values)
        }
        Value::Set(mut values) => {
            values.sort_by_key(by_text);
            Value::Set(values)
        }
        Value::Map(mut pairs) => {
            pairs.sort_by_key(|pair| format!("{pair:?}"));
            Value::Map(pairs)
        }
        other => other,
    }
}

/// An array of names and values in turn, as pairs.
fn paired(value: Value) -> Value {
    match value {
        Value::Array(values) if values.len().is_multiple_of(2) => {
            Value::Array(values.chunks(2).map(|pair| Value::Array(pair.to_vec())).collect())
        }
        other => other,
    }
}

fn scanned(value: Value) -> Option<(Value, Value)> {
    let Value::Array(values) = value else { return None };
    let [cursor, elements] = values.try_into().ok()?;
    matches!((&cursor, &elements), (Value::Bulk(_), Value::Array(_))).then_some((cursor, elements))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Bulk(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn same_floats(ours: &Value, theirs: &Value) -> bool {
    let all = |ours: &[Value], theirs: &[Value]| {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same_floats(a, b))
    };
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => all(ours, theirs),
        (ours, theirs) if std::mem::discriminant(ours) == std::mem::discriminant(theirs) => {
            ours == theirs || number(ours).zip(number(theirs)).is_some_and(|(a, b)| a == b)
        }
        _ => false,
    }
}

fn same_size(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) | (Value::Set(ours), Value::Set(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(ours, theirs)| same_size(ours, theirs))
        }
        _ => std::mem::discriminant(ours) == std::mem::discriminant(theirs),
    }
}

fn hello(value: Value) -> Value {
    let is_ours =
        |name: &Value| matches!(name, Value::Bulk(name) if matches!(&**name, b"version" | b"id"));
    match value {
        Value::Map(pairs) => {
            Value::Map(pairs.into_iter().filter(|(name, _)| !is_ours(name)).collect())
        }
        Value::Array(values) => Value::Array(
            values.chunks(2).filter(|pair| !is_ours(&pair[0])).flatten().cloned().collect(),
        ),
        other => other,
    }
}

fn without_ints(value: Value) -> Value {
    match value {
        Value::Int(_) => Value::Int(0),
        Value::Array(values) => Value::Array(values.into_iter().map(without_ints).collect()),
        Value::Map(pairs) => {
            Value::Map(pairs.into_iter().map(|(name, value)| (name, without_ints(value))).collect())
        }
        other => other,
    }
}

/// A confirmation, whatever its name. Which names there are is told by those that remain.
fn without_names(value: Value) -> Value {
    match value {
        Value::Array(mut values) | Value::Push(mut values) if values.len() == 3 => {
            values.remove(1);
            Value::Array(values)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Words {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        let words = said("x");
        let plays: [(Rule, &str, &str, bool); 10] = [
            (Rule::Exact, "$-1\r\n", "*-1\r\n", false),
            (Rule::Unordered, "*2\r\n:1\r\n:2\r\n", "*2\r\n:2\r\n:1\r\n", true),
            (Rule::Unordered, "*2\r\n:1\r\n:2\r\n", "~2\r\n:2\r\n:1\r\n", false),
            (Rule::Pairs, "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n", "*4\r\n:3\r\n:4\r\n:1\r\n:2\r\n", true),
            (
                Rule::Pairs,
                "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
                "*4\r\n:2\r\n:1\r\n:3\r\n:4\r\n",
                false,
            ),
            (Rule::Near(3), ":5\r\n", ":7\r\n", true),
            (Rule::Near(3), ":-1\r\n", ":1\r\n", false),
            (Rule::Floats, ",0.1\r\n", ",0.10000000000000001\r\n", true),
            (Rule::Floats, ",0.1\r\n", "$3\r\n0.1\r\n", false),
            (Rule::Near(3), "-ERR a\r\n", "-ERR b\r\n", false),
        ];
        for (rule, ours, theirs, expected) in plays {
            let got = same(&words, rule, &[], ours.as_bytes(), theirs.as_bytes());
            assert_eq!(got, expected, "{rule:?} {ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_transaction_is_compared_by_the_rules_of_its_commands() {
        let queued = [(said("ttl k"), Rule::Near(3)), (said("get k"), Rule::Exact)];
        let same_exec =
            |ours: &[u8], theirs: &[u8]| same(&said("EXEC"), Rule::Exact, &queued, ours, theirs);
        assert!(same_exec(b"*2\r\n:5\r\n$-1\r\n", b"*2\r\n:6\r\n$-1\r\n"));
        assert!(!same_exec(b"*2\r\n:5\r\n$-1\r\n", b"*2\r\n:6\r\n*-1\r\n"));
        assert!(!same_exec(b"*2\r\n:5\r\n$-1\r\n", b"*1\r\n:5\r\n"));
    }
}
