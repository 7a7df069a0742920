//! The push daemon: MQTT 3.1.1 and 5 to devices, HTTP/JSON to senders, every message that is
//! acknowledged on disk first.
//!
//! - [`broker`]: what one core does; [`daemon`] puts the cores and the control plane together.
//! - [`control`]: what the control plane asks of the cores; [`api`] asks it over HTTP.
//! - [`auth`]: who may connect, and what they may do; [`bans`]: who may not, whatever they know.
//! - [`home`]: which core a name lives on.
//! - [`tls`]: what TLS is served with.
//! - [`platform`]: the sender platform, joined to the cores; [`hooks`] tells apps of it.
//! - [`config`], [`meters`]: settings, and what is counted; [`sys`] tells subscribers of it.
//! - [`presence`]: who comes and who goes, told to subscribers; [`webhook`] tells others,
//!   through [`outbound`].

pub mod api;
pub mod auth;
pub mod bans;
pub mod broker;
pub mod config;
pub mod control;
pub mod daemon;
pub mod home;
pub mod hooks;
pub mod meters;
pub mod outbound;
pub mod platform;
pub mod presence;
pub mod sys;
pub mod tls;
pub mod webhook;
