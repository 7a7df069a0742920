//! The signals that a daemon answers: TERM and INT stop it, HUP makes it read its configuration
//! again.
//!
//! A first TERM or INT asks for an orderly end; a second one, of either kind, ends the process at
//! once, whatever the daemon is doing about the first.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;

/// What the process was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// Stop: drain, then exit. Comes at most once.
    Shutdown,
    /// Read the configuration again.
    Reload,
}

/// Requests that wait for the daemon: a reload, and the request to stop.
const PENDING_MAX: usize = 2;

/// The signals of this process, as they come.
#[derive(Debug)]
pub struct Signals {
    pending: mpsc::Receiver<Signal>,
}

impl Signals {
    /// Takes over TERM, INT and HUP for the whole process, for good. Needs a runtime with I/O.
    ///
    /// # Errors
    ///
    /// The handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        let term = signal(SignalKind::terminate())?;
        let int = signal(SignalKind::interrupt())?;
        let hup = signal(SignalKind::hangup())?;
        let (sender, pending) = mpsc::channel(PENDING_MAX);
        tokio::spawn(watch(term, int, hup, sender));
        Ok(Self { pending })
    }

    /// The next request.
    pub async fn next(&mut self) -> Signal {
        match self.pending.recv().await {
            Some(signal) => signal,
            // The watching task ends only with its runtime, and then nobody waits here.
            None => std::future::pending().await,
        }
    }
}

async fn watch(mut term: Stream, mut int: Stream, mut hup: Stream, sender: mpsc::Sender<Signal>) {
    let mut stopping = false;
    loop {
        let number = tokio::select! {
            _ = term.recv() => rustix::process::Signal::TERM,
            _ = int.recv() => rustix::process::Signal::INT,
            _ = hup.recv() => rustix::process::Signal::HUP,
        };
        if number == rustix::process::Signal::HUP {
            // A reload that has yet to begin will see this one's changes; and one place is kept
            // for the request to stop.
            if sender.capacity() > 1 {
                let _ = sender.try_send(Signal::Reload);
            }
        } else if stopping {
            tracing::warn!("second signal to stop: ending at once");
            crate::telemetry::flush();
            std::process::exit(128 + number.as_raw());
        } else {
            stopping = true;
            let _ = sender.try_send(Signal::Shutdown);
        }
    }
}
