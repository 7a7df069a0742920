//! What each command does, a module a family.

mod acl;
mod admin;
mod bitmaps;
mod clients;
mod config;
mod connection;
mod expiry;
mod geo;
mod hashes;
mod help;
mod info;
mod keys;
mod lists;
mod numbers;
mod objects;
mod pubsub;
mod server;
mod sets;
mod slowlog;
mod sort;
mod streams;
mod strings;
mod table;
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
    acl::COMMANDS,
    admin::COMMANDS,
    bitmaps::COMMANDS,
    clients::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    expiry::COMMANDS,
    geo::COMMANDS,
    hashes::COMMANDS,
    info::COMMANDS,
    keys::COMMANDS,
    lists::COMMANDS,
    numbers::COMMANDS,
    objects::COMMANDS,
    pubsub::COMMANDS,
    server::COMMANDS,
    sets::COMMANDS,
    sort::COMMANDS,
    streams::COMMANDS,
    slowlog::COMMANDS,
    strings::COMMANDS,
    table::COMMANDS,
    transactions::COMMANDS,
    waiting_lists::COMMANDS,
    waiting_zsets::COMMANDS,
    zset_algebra::COMMANDS,
    zset_ranges::COMMANDS,
    zsets::COMMANDS,
];

#[cfg(test)]
mod acl_tests;
#[cfg(test)]
mod admin_tests;
#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod pubsub_tests;
#[cfg(test)]
pub(crate) mod tests;
