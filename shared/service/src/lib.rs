//! What every daemon's `main` needs, so that a daemon is its library and little more.
//!
//! ```text
//!   args ──► config ──► telemetry ──► process ──► activation ──► runtime (one thread)
//!                                                                  ├─ admin    HTTP
//!                                                                  ├─ signals  TERM, INT, HUP
//!                                                                  └─ notify   systemd, watchdog
//!   cores (threads of the daemon's own) ──► metrics, notify::Heartbeat: plain stores, no locks
//! ```
//!
//! The crate knows nothing of rings, logs or protocols. What a core touches here
//! ([`metrics::CoreMetrics`], [`notify::Heartbeat`]) are stores to memory that no other thread
//! writes; everything else runs on the control thread, and nothing on it can stall a core.
//!
//! - [`config`]: defaults, a TOML file, the environment and flags, merged into one checked type.
//! - [`args`]: the flags that all daemons share.
//! - [`telemetry`] and [`metrics`]: logs by `tracing`, metrics in Prometheus' text format.
//! - [`admin`]: the HTTP server of the control plane, its token and its errors.
//! - [`process`], [`signals`], [`notify`], [`activation`]: the life of a process under systemd.
//! - [`runtime`]: the control thread itself.
//! - [`client`]: the other end of [`admin`], for the command line.

pub mod activation;
pub mod admin;
pub mod args;
pub mod client;
pub mod config;
pub mod metrics;
pub mod notify;
pub mod process;
pub mod runtime;
pub mod signals;
pub mod telemetry;
