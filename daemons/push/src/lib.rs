//! The push daemon: MQTT 3.1.1 and 5 to devices, HTTP/JSON to senders, every message that is
//! acknowledged on disk first.

pub mod auth;
pub mod config;
pub mod control;
pub mod home;
