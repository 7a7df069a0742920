//! What each command does, a module a family.

mod bitmaps;
mod clients;
mod connection;
mod expiry;
mod geo;
mod hashes;
mod help;
mod keys;
mod lists;
mod numbers;
mod pubsub;
mod server;
mod sets;
mod sort;
mod streams;
mod strings;
mod tracking;
mod transactions;
mod waiting_lists;
mod waiting_zsets;
mod zset_algebra;
mod zset_ranges;
mod zsets;

use crate::command::Spec;

/// All commands.
pub(crate) const FAMILIES: &[&[Spec]] = &[
    bitmaps::COMMANDS,
    clients::COMMANDS,
    connection::COMMANDS,
    expiry::COMMANDS,
    geo::COMMANDS,
    hashes::COMMANDS,
    keys::COMMANDS,
    lists::COMMANDS,
    numbers::COMMANDS,
    pubsub::COMMANDS,
    server::COMMANDS,
    sets::COMMANDS,
    sort::COMMANDS,
    streams::COMMANDS,
    strings::COMMANDS,
    transactions::COMMANDS,
    waiting_lists::COMMANDS,
    waiting_zsets::COMMANDS,
    zset_algebra::COMMANDS,
    zset_ranges::COMMANDS,
    zsets::COMMANDS,
];

#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod pubsub_tests;
#[cfg(test)]
pub(crate) mod tests;
