//! CPU time of another process, and on which CPU a thread runs.
//!
//! [`ProcessCpu`] reads the process's own CPU clock (`clock_getcpuclockid(3)`): all its threads,
//! those that have ended included, and the kernel's workers that serve its ring. It is exact to the
//! nanosecond; `/proc/PID/stat` counts hundredths of a second. What the kernel does for a process
//! in soft interrupts on its time, such as the receiving half of a send over loopback, is in it.

use std::io;
use std::time::Duration;

use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Why a process's CPU time is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// The process has ended.
    #[error("process {0} has ended")]
    Gone(u32),
    /// The kernel refuses.
    #[error("the CPU time of process {pid} is not to be had")]
    Refused {
        /// The process.
        pid: u32,
        /// What the kernel says.
        source: nix::errno::Errno,
    },
}

/// The CPU clock of a process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessCpu {
    pid: u32,
    clock: ClockId,
}

impl ProcessCpu {
    /// That of the process with this identifier.
    ///
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<ProcessCpu, CpuError> {
        let raw = i32::try_from(pid).map_err(|_| CpuError::Gone(pid))?;
        match ClockId::pid_cpu_clock_id(Pid::from_raw(raw)) {
            Ok(clock) => Ok(ProcessCpu { pid, clock }),
            Err(error) => Err(refusal(pid, error)),
        }
    }

    /// The CPU time that it has used since it began.
    ///
    /// # Errors
    /// The process has ended.
    pub fn used(&self) -> Result<Duration, CpuError> {
        match self.clock.now() {
            Ok(time) => Ok(time.into()),
            Err(error) => Err(refusal(self.pid, error)),
        }
    }
}

fn refusal(pid: u32, source: nix::errno::Errno) -> CpuError {
    match source {
        // A clock of a process that is gone is no clock.
        nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL => CpuError::Gone(pid),
        source => CpuError::Refused { pid, source },
    }
}

/// Keeps the calling thread, and threads and processes that it starts from now on, on one CPU.
/// `cpu` counts among the CPUs that the thread may run on; past the last it begins again with the
/// first. Returns the CPU's number.
///
/// # Errors
/// The kernel's.
pub fn pin(cpu: usize) -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let Some(chosen) = cpus.get(cpu % cpus.len().max(1)).copied() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut only = CpuSet::new();
    only.set(chosen);
    sched_setaffinity(None, &only)?;
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    fn spin(for_at_least: Duration) {
        let cpu = ProcessCpu::of(std::process::id()).unwrap();
        let (before, began) = (cpu.used().unwrap(), Instant::now());
        while cpu.used().unwrap() - before < for_at_least {
            assert!(began.elapsed() < Duration::from_secs(60), "the CPU clock stands still");
        }
    }

    #[test]
    fn threads_that_have_ended_are_counted() {
        let cpu = ProcessCpu::of(std::process::id()).unwrap();
        let before = cpu.used().unwrap();
        std::thread::spawn(|| spin(Duration::from_millis(30))).join().unwrap();
        assert!(cpu.used().unwrap() - before >= Duration::from_millis(30));
    }

    #[test]
    fn another_process_is_measured_until_it_ends() {
        // A shell that works until its input ends.
        let mut child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let cpu = ProcessCpu::of(child.id()).unwrap();
        let began = Instant::now();
        while cpu.used().unwrap() < Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(60), "nothing is counted");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(cpu.used(), Err(CpuError::Gone(child.id())));
        assert_eq!(ProcessCpu::of(child.id()).unwrap_err(), CpuError::Gone(child.id()));
    }

    #[test]
    fn a_thread_is_kept_on_one_cpu() {
        std::thread::spawn(|| {
            let cpu = pin(usize::MAX).unwrap();
            let now = sched_getaffinity(None).unwrap();
            assert!(now.is_set(cpu) && now.count() == 1);
        })
        .join()
        .unwrap();
    }
}
