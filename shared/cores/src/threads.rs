//! The cores' threads: started, and watched. A core that ends before it was told to has failed, and
//! the daemon with it.

use std::sync::mpsc::SyncSender;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use sextant_ring::core::{App, Core};
use sextant_ring::driver::Driver;
use sextant_ring::memory;
use tracing::debug;

/// A core's thread, and how its core ended.
pub type Thread = JoinHandle<anyhow::Result<()>>;

/// What a core's thread tells of its start with.
pub struct Starting {
    core: usize,
    to: SyncSender<anyhow::Result<()>>,
}

/// Starts a core's thread; its core has begun when this returns.
///
/// # Errors
/// There is no further thread, or what the core was made with is an error.
pub fn spawn(
    core: usize,
    run: impl FnOnce(Starting) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Thread> {
    let (to, outcome) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name(format!("core-{core}"))
        .spawn(move || run(Starting { core, to }))?;
    outcome.recv().context("a core's thread says how it started")??;
    Ok(thread)
}

impl Starting {
    /// Tells how the core was made, and runs it until it has stopped.
    ///
    /// # Errors
    /// It has failed. That it was not made is told to whoever started it.
    pub fn run<D: Driver, A: App>(self, made: anyhow::Result<Core<D, A>>) -> anyhow::Result<()> {
        let (outcome, made) = match made {
            Ok(core) => (Ok(()), Some(core)),
            Err(error) => (Err(error), None),
        };
        // Whoever started it waits for this.
        let _ = self.to.send(outcome);
        let Some(core) = made else { return Ok(()) };
        core.run().map(drop).with_context(|| format!("core {} failed", self.core))
    }
}

/// Waits for a core to end by itself, which it does not unless it has failed.
///
/// # Errors
/// Always, when it returns.
pub async fn watch(threads: &[Thread]) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if threads.iter().any(JoinHandle::is_finished) {
            bail!("a core ended");
        }
    }
}

/// Waits until `ready`, while the cores read back what they have kept.
///
/// # Errors
/// A core has ended meanwhile.
pub async fn until(ready: impl Fn() -> bool, threads: &[Thread]) -> anyhow::Result<()> {
    while !ready() {
        if threads.iter().any(JoinHandle::is_finished) {
            bail!("a core ended while it started");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Waits for the threads of cores that were told to stop.
///
/// # Errors
/// How the last of those that failed did.
pub fn join(threads: Vec<Thread>) -> anyhow::Result<()> {
    let mut failed = Ok(());
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(error) => failed = error,
            // A panic has ended the process before.
            Err(_) => bail!("a core ended in a panic"),
        }
    }
    failed
}

/// Looks twice a minute whether a storm has left memory behind. Never ends.
pub async fn give_memory_back() {
    const EVERY: Duration = Duration::from_secs(30);
    loop {
        tokio::time::sleep(EVERY).await;
        let heap = memory::give_back();
        if heap.is_slack() {
            debug!(free = heap.free_bytes, used = heap.used_bytes, "free memory was given back");
        }
    }
}
