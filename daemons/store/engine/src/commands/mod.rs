//! What each command does, a module a family.

mod connection;
mod expiry;
mod keys;
mod numbers;
mod server;
mod strings;
mod transactions;

use crate::command::Spec;

/// All commands.
pub(crate) const FAMILIES: &[&[Spec]] = &[
    connection::COMMANDS,
    expiry::COMMANDS,
    keys::COMMANDS,
    numbers::COMMANDS,
    server::COMMANDS,
    strings::COMMANDS,
    transactions::COMMANDS,
];

#[cfg(test)]
pub(crate) mod tests;
