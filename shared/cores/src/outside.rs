//! Messages to the cores from threads that are no cores: one end of the mesh, which several
//! threads may share.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sextant_ring::core::Envelope;
use sextant_ring::mesh::Port;

/// A core has taken none of the messages that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the core is too busy for a message")]
pub struct Busy;

/// An end of the mesh for threads that are no cores.
pub struct Outside<M> {
    port: Mutex<Port<Envelope<M>>>,
    cores: usize,
}

impl<M> Outside<M> {
    /// With one of the ports beyond the cores' own.
    pub fn new(port: Port<Envelope<M>>) -> Outside<M> {
        let cores = port.cores();
        Outside { port: Mutex::new(port), cores }
    }

    /// The number of cores.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Tells a core something, unless as much waits for it as may.
    ///
    /// # Errors
    /// [`Busy`]: it was told nothing.
    pub fn tell(&self, core: usize, message: M) -> Result<(), Busy> {
        let mut port = self.port();
        if port.is_full(core) {
            return Err(Busy);
        }
        port.send(core, Envelope::Message(message));
        port.flush();
        Ok(())
    }

    /// Tells a core something, and waits for as long as that takes. A core takes its messages many
    /// times a second; one that does not for long is stuck, and its watchdog ends the daemon.
    pub fn tell_patiently(&self, core: usize, message: M) {
        let mut port = self.port();
        while port.is_full(core) {
            std::thread::sleep(Duration::from_millis(1));
            port.flush();
        }
        port.send(core, Envelope::Message(message));
        port.flush();
    }

    fn port(&self) -> MutexGuard<'_, Port<Envelope<M>>> {
        self.port.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
