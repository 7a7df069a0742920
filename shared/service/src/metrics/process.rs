//! What Prometheus' own client libraries tell of a process, under the same names, so that
//! existing dashboards and alerts fit.
//!
//! A number that the kernel does not tell (no `/proc` in a container, say) is reported as `NaN`.

use std::fs;

use rustix::time::ClockId;

use super::Builder;

pub(super) fn declare(builder: &mut Builder, daemon: &str, version: &str) {
    builder.gauge_fn(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        || statm_bytes(1).unwrap_or(f64::NAN),
    );
    builder.gauge_fn("process_virtual_memory_bytes", "Address space of the process.", || {
        statm_bytes(0).unwrap_or(f64::NAN)
    });
    builder.gauge_fn(
        "process_open_fds",
        "Open file descriptors. Connections that live in a ring's own table are not among them.",
        || fs::read_dir("/proc/self/fd").map_or(f64::NAN, |dir| dir.count() as f64 - 1.0),
    );
    builder.gauge_fn("process_max_fds", "File descriptors the process may open.", || {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        limit.current.map_or(f64::INFINITY, |limit| limit as f64)
    });
    builder.counter_fn(
        "process_cpu_seconds_total",
        "CPU time that all threads of the process have used.",
        || seconds(ClockId::ProcessCPUTime),
    );
    let started = start_time().unwrap_or(f64::NAN);
    builder.gauge_fn(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        move || started,
    );
    builder.info(
        "sextant_build_info",
        "Always 1; the labels name the daemon and its version.",
        &[("daemon", daemon), ("version", version)],
    );
}

fn seconds(clock: ClockId) -> f64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Field `index` of `/proc/self/statm`, which counts pages.
fn statm_bytes(index: usize) -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(index)?.parse().ok()?;
    Some((pages * rustix::param::page_size() as u64) as f64)
}

/// `starttime` of `/proc/self/stat` counts ticks since the boot, which lies as far back as the boot
/// clock shows. (`/proc/stat` would date it, but is hidden from a unit with `ProcSubset=pid`.)
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in brackets, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let ticks: u64 = after_name.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let boot = seconds(ClockId::Realtime) - seconds(ClockId::Boottime);
    Some(boot + ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_young_and_has_memory() {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let started = start_time().unwrap();
        assert!(started <= now + 2.0 && now - started < 3_600.0, "{started} {now}");
        assert!(statm_bytes(1).unwrap() > 100_000.0);
        assert!(statm_bytes(0).unwrap() >= statm_bytes(1).unwrap());
    }
}
