//! What a core promises its app, whatever driver stands behind it: each scenario runs in the
//! simulation, for many seeds, and on the kernel's io_uring and epoll over loopback, both ends in
//! this process.
//!
//! - [`harness`]: cores that play scripted roles, on any driver.
//! - [`streams`], [`endings`], [`cores`], [`datagrams`], [`files`], [`timers`], [`limits`],
//!   [`requests`], [`crowds`], [`resets`], [`listening`]: the scenarios.
//! - [`parking`]: connections that wait for long, cheaply.
//! - [`rings`]: more of them than fit in one table of descriptors.
//! - [`operations`]: what a driver promises a core.
//! - [`chaos`]: everything at once, and with faults.

#![allow(clippy::unwrap_used)]

mod chaos;
mod cores;
mod crowds;
mod datagrams;
mod endings;
mod files;
mod harness;
mod limits;
mod listening;
mod operations;
mod parking;
mod requests;
mod resets;
mod rings;
mod streams;
mod timers;
