//! The log against everything that is not the log: an oracle, the host's file system, a disk that
//! forgets what was not synced, damage, faults, full disks, and `kill -9`.

mod crash;
mod damage;
mod faults;
mod host;
mod kill;
mod limits;
mod memory;
mod oracle;
mod rig;
mod sim;

use sextant_ring::driver::File;

/// Names an open file of a stand-in for a driver.
#[allow(unsafe_code)]
fn file(number: i32) -> File {
    const _: () = assert!(size_of::<File>() == size_of::<i32>());
    // SAFETY: a `File` is one `i32` and nothing else, and every `i32` is a value of it.
    unsafe { std::mem::transmute(number) }
}
