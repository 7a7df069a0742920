//! Where texts lead: the hosts of what is a link, or what devices make one of.

use super::text::is_unspaced;

/// The longest host that is looked at, in bytes as it is written.
const HOST_BYTES_MAX: usize = 1_024;
/// Schemes that name a host of the web.
const SCHEMES: [&str; 6] = ["http", "https", "ws", "wss", "ftp", "intent"];

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// In ASCII, without port and final dot; none if it cannot be read.
    pub(crate) host: Option<String>,
    /// It has a scheme or begins with `www.`, so that it is no accident.
    pub(crate) is_meant: bool,
}

/// Appends the links of a text. One may be told twice.
pub(super) fn find(text: &str, found: &mut Vec<Link>) {
    with_scheme(text, found);
    bare(text, found);
}

fn with_scheme(text: &str, found: &mut Vec<Link>) {
    for (at, _) in text.match_indices(':') {
        let Some(authority) = authority_behind(&text[at + 1..]) else { continue };
        let is_scheme = |scheme: &str| {
            let before = at.checked_sub(scheme.len()).and_then(|from| text.get(from..at));
            before.is_some_and(|before| before.eq_ignore_ascii_case(scheme))
        };
        if SCHEMES.iter().any(|scheme| is_scheme(scheme)) {
            found.push(Link { host: host_of(authority), is_meant: true });
        }
    }
}

/// What is between `//` and the path, if there is that. Browsers take a backslash for a slash.
fn authority_behind(rest: &str) -> Option<&str> {
    let is_slash = |c: char| matches!(c, '/' | '\\');
    let behind = rest.strip_prefix(is_slash)?.strip_prefix(is_slash)?;
    let behind = behind.trim_start_matches(is_slash);
    let ends = |c: char| is_slash(c) || c.is_whitespace() || "?#<>\"'|^`{}".contains(c);
    let end = behind.char_indices().take(HOST_BYTES_MAX).find(|(_, c)| ends(*c));
    let end = end.map_or_else(|| floor(behind, HOST_BYTES_MAX), |(at, _)| at);
    Some(&behind[..end])
}

/// The last boundary of a character at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The host of `user@host:port`.
fn host_of(authority: &str) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.is_ascii().then(|| format!("[{}]", address.to_ascii_lowercase()));
    }
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    // A sentence may end behind a link, and words begin behind it that no space parts from it.
    let is_host = |host: &str| host.contains('.') && !host.ends_with('.');
    let end = host.find(is_unspaced).filter(|end| is_host(&host[..*end]));
    let host = &host[..end.unwrap_or(host.len())];
    ascii_host(host.trim_end_matches([',', ';', ')', ']', '!', '.']))
}

/// A host as it is looked up, if it is one.
pub(super) fn ascii_host(host: &str) -> Option<String> {
    if host.is_empty() || host.len() > HOST_BYTES_MAX {
        return None;
    }
    let mut ascii = idna::domain_to_ascii(host).ok()?;
    if ascii.ends_with('.') {
        ascii.pop();
    }
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!ascii.is_empty() && ascii.len() <= 253 && ascii.bytes().all(is_host)).then_some(ascii)
}

/// Names with dots that no scheme precedes, and which are neither part of a path nor behind the
/// `@` of an address.
fn bare(text: &str, found: &mut Vec<Link>) {
    let in_name =
        |c: char| (c.is_alphanumeric() && !is_unspaced(c)) || matches!(c, '.' | '-' | '_');
    let mut at = 0;
    while let Some(begin) = text[at..].find(in_name) {
        let begin = at + begin;
        let len = text[begin..].find(|c| !in_name(c)).unwrap_or(text.len() - begin);
        at = begin + len;
        let name = text[begin..at].trim_matches(['.', '-', '_']);
        let before = &text[..begin];
        // `//host` alone is a link; behind another scheme it is what an app makes of it.
        let is_link = before.ends_with("//") && !before.ends_with("://");
        let is_part = before.ends_with(['/', '\\', '@', '=', '&', '%', '#']) && !is_link;
        if is_part || !is_host_name(name) {
            continue;
        }
        if let Some(host) = ascii_host(name) {
            let is_meant = name.len() > 4 && name.as_bytes()[..4].eq_ignore_ascii_case(b"www.");
            found.push(Link { host: Some(host), is_meant });
        }
    }
}

/// Whether its last part could be that of a host: letters, two or more.
fn is_host_name(name: &str) -> bool {
    let Some((rest, last)) = name.rsplit_once('.') else { return false };
    let letters = last.chars().all(char::is_alphabetic) && last.chars().nth(1).is_some();
    let encoded = last.len() > 4 && last.as_bytes()[..4].eq_ignore_ascii_case(b"xn--");
    !rest.is_empty() && name.len() <= HOST_BYTES_MAX && (letters || encoded)
}
