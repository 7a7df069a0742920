//! What reads bytes that others wrote, under a fuzzer. A target takes any bytes at all, and panics
//! if what reads them breaks a promise: it neither panics nor hangs, and what it accepts means the
//! same when it is written and read again.
//!
//! ```text
//!   corpus/NAME.hex     inputs that between them reach what is known to be reachable
//!   findings/NAME.hex   inputs that once found a bug, each below a line that tells which
//! ```
//!
//! Both are text: an input in hexadecimal digits a line, `#` begins a comment. `cargo xtask fuzz`
//! looks for more of both, and this crate's tests run all of them.

mod audit_index;
mod audit_record;
mod mqtt_decode;
mod mqtt_session;
mod push_config;
mod push_hook;
mod push_jwt;
mod push_policy;
mod push_records;
mod push_rules;
mod push_scram;
mod push_tokens;
mod push_transport;
mod resp;
mod segment_log;
mod service_quantities;
mod websocket;

/// What can be fuzzed.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, also of its corpus.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 17] = [
    Target { name: "audit-index", run: audit_index::run },
    Target { name: "audit-record", run: audit_record::run },
    Target { name: "mqtt-decode", run: mqtt_decode::run },
    Target { name: "mqtt-session", run: mqtt_session::run },
    Target { name: "push-config", run: push_config::run },
    Target { name: "push-hook", run: push_hook::run },
    Target { name: "push-jwt", run: push_jwt::run },
    Target { name: "push-policy", run: push_policy::run },
    Target { name: "push-records", run: push_records::run },
    Target { name: "push-rules", run: push_rules::run },
    Target { name: "push-scram", run: push_scram::run },
    Target { name: "push-tokens", run: push_tokens::run },
    Target { name: "push-transport", run: push_transport::run },
    Target { name: "resp", run: resp::run },
    Target { name: "segment-log", run: segment_log::run },
    Target { name: "service-quantities", run: service_quantities::run },
    Target { name: "websocket", run: websocket::run },
];

/// The target of that name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The inputs of a file, each with its line. No file holds none.
    fn inputs(path: &Path) -> Vec<(usize, Vec<u8>)> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().enumerate();
        let digits = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let bytes = |line: &str| -> Option<Vec<u8>> {
            let pairs = line
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
            pairs.collect()
        };
        digits
            .map(|(at, line)| {
                let input = bytes(line);
                (at + 1, input.unwrap_or_else(|| panic!("{}:{}", path.display(), at + 1)))
            })
            .collect()
    }

    fn run_all(dir: &str) -> usize {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let mut count = 0;
        for target in TARGETS {
            let path = dir.join(target.name).with_extension("hex");
            for (line, input) in inputs(&path) {
                // Said before it runs: captured, and shown if it fails.
                println!("{}:{line}", path.display());
                (target.run)(&input);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn every_input_of_the_corpora_is_taken() {
        assert!(run_all("corpus") > 0, "the corpora are there");
    }

    #[test]
    fn what_was_found_once_stays_fixed() {
        run_all("findings");
    }

    #[test]
    fn every_corpus_belongs_to_a_target() {
        for dir in ["corpus", "findings"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
            for entry in std::fs::read_dir(dir).into_iter().flatten() {
                let path = entry.expect("a folder that can be read").path();
                let name = path.file_stem().and_then(|name| name.to_str());
                assert!(name.and_then(find).is_some(), "{}", path.display());
            }
        }
    }
}
