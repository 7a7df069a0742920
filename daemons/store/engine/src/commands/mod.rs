//! What each command does, a module a family.

mod clients;
mod connection;
mod expiry;
mod hashes;
mod help;
mod keys;
mod numbers;
mod pubsub;
mod server;
mod sets;
mod streams;
mod strings;
mod tracking;
mod transactions;

use crate::command::Spec;

/// All commands.
pub(crate) const FAMILIES: &[&[Spec]] = &[
    clients::COMMANDS,
    connection::COMMANDS,
    expiry::COMMANDS,
    hashes::COMMANDS,
    keys::COMMANDS,
    numbers::COMMANDS,
    pubsub::COMMANDS,
    server::COMMANDS,
    sets::COMMANDS,
    streams::COMMANDS,
    strings::COMMANDS,
    transactions::COMMANDS,
];

#[cfg(test)]
mod pubsub_tests;
#[cfg(test)]
pub(crate) mod tests;
