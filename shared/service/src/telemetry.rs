//! Logs by `tracing`: for people on a terminal, JSON lines under systemd.
//!
//! A thread that logs never waits for the terminal, pipe or journal behind standard error: lines
//! go through a bounded queue to a writer thread, and when that queue is full they are dropped
//! and counted ([`Log::lines_dropped`]). [`flush`] writes out what is queued, for a process that
//! is about to end.

use std::io::{self, IsTerminal};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::Faults;

/// Log lines that wait for the writer; the memory is theirs, a few hundred bytes each.
const LINES_QUEUED_MAX: usize = 16_384;

/// The settings under `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,sextant_push=debug`.
    pub level: String,
    /// How lines look.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: Format::Auto }
    }
}

impl Settings {
    /// For a daemon's [`check`](crate::config::Config::check).
    pub fn check(&self, faults: &mut Faults<'_>) {
        if let Err(error) = filter(&self.level) {
            faults.add("telemetry.level", error);
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// [`Json`](Self::Json) when systemd started the process and standard error is no terminal,
    /// else [`Human`](Self::Human).
    #[default]
    Auto,
    /// For people, in colour when standard error is a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// What `Auto` stands for. A shell in a terminal that systemd started has systemd's variables
    /// too, so a terminal comes first.
    fn resolve(self, is_terminal: bool, under_systemd: bool) -> Self {
        match self {
            Self::Auto if under_systemd && !is_terminal => Self::Json,
            Self::Auto => Self::Human,
            chosen => chosen,
        }
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The level is no filter. The operator's fault.
    #[error("log level \"{level}\": {why}")]
    Level {
        /// What was written.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// The process has a logger already. A bug.
    #[error("logging was set up twice")]
    Twice(#[from] TryInitError),
}

/// The running logger.
pub struct Log {
    set_filter: Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    dropped: ErrorCounter,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("lines_dropped", &self.lines_dropped()).finish()
    }
}

impl Log {
    /// Changes the level of the running process.
    ///
    /// # Errors
    ///
    /// The level is no filter; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let wrong = |why: String| TelemetryError::Level { level: level.to_owned(), why };
        (self.set_filter)(filter(level)?).map_err(|error| wrong(error.to_string()))
    }

    /// Lines that were dropped since the start because the reader of standard error was slow.
    pub fn lines_dropped(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// The same as a closure, for [`metrics`](crate::metrics).
    pub fn lines_dropped_counter(&self) -> impl Fn() -> f64 + Send + Sync + 'static {
        let dropped = self.dropped.clone();
        move || dropped.dropped_lines() as f64
    }
}

/// The writer thread's handle; whoever takes and drops it waits for the queue to drain.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Sets up logging to standard error for this process.
///
/// # Errors
///
/// A level that is no filter, or a second call.
pub fn init(settings: &Settings) -> Result<Log, TelemetryError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_QUEUED_MAX)
        .thread_name("log")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let (filter, handle) = reload::Layer::new(filter(&settings.level)?);
    let is_terminal = io::stderr().is_terminal();
    let under_systemd =
        ["INVOCATION_ID", "JOURNAL_STREAM"].iter().any(|name| std::env::var_os(name).is_some());
    let lines = lines(settings.format.resolve(is_terminal, under_systemd), is_terminal, writer);
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    if let Ok(mut slot) = WRITER.lock() {
        *slot = Some(guard);
    }
    Ok(Log { set_filter: Box::new(move |filter| handle.reload(filter)), dropped })
}

/// Writes out what is queued, within a second; lines logged afterwards are lost. For the end of a
/// process.
pub fn flush() {
    // A thread that panicked while it held the lock, or holds it now, is flushing already.
    if let Ok(mut slot) = WRITER.try_lock() {
        drop(slot.take());
    }
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |why: String| TelemetryError::Level { level: level.to_owned(), why };
    if level.trim().is_empty() {
        return Err(wrong("expected a level such as info".to_owned()));
    }
    EnvFilter::builder().parse(level).map_err(|error| wrong(error.to_string()))
}

/// The layer that formats lines.
fn lines<S>(format: Format, colour: bool, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        Format::Json => layer.json().flatten_event(true).with_current_span(true).boxed(),
        _ => layer.with_ansi(colour).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format) -> String {
        let written = Lines::default();
        let (writer, guard) = NonBlockingBuilder::default().finish(written.clone());
        let subscriber = tracing_subscriber::registry().with(lines(format, false, writer));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(connections = 3, "line one\nline two");
        });
        drop(guard);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn json_lines_are_one_object_each() {
        let text = logged(Format::Json);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["connections"], 3);
        assert_eq!(line["message"], "line one\nline two");
    }

    #[test]
    fn human_lines_name_level_message_and_fields() {
        let text = logged(Format::Human);
        assert!(text.contains("INFO") && text.contains("connections=3"), "{text}");
    }

    #[test]
    fn json_is_chosen_only_under_systemd_and_off_a_terminal() {
        assert_eq!(Format::Auto.resolve(false, true), Format::Json);
        assert_eq!(Format::Auto.resolve(true, true), Format::Human);
        assert_eq!(Format::Auto.resolve(false, false), Format::Human);
        assert_eq!(Format::Json.resolve(true, false), Format::Json);
    }

    #[test]
    fn a_level_that_is_no_filter_is_refused() {
        assert!(filter("info,sextant_push=debug").is_ok());
        assert!(filter("").is_err());
        assert!(filter("sextant=loud").is_err());
    }
}
