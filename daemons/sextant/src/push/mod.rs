//! `sextant push`: the push daemon's HTTP API by hand, and an MQTT client to look at topics with.

mod audit;
mod ban;
mod clients;
mod drain;
mod passwd;
mod receipt;
mod send;
mod simulate;
mod token;
mod top;
mod trace;
mod watch;

use crate::cli::PushCommand;
use crate::error::Error;
use crate::place::Place;

pub(crate) fn run(place: &Place, command: &PushCommand) -> Result<(), Error> {
    match command {
        PushCommand::Send(args) => send::run(place, args),
        PushCommand::Show(args) => receipt::run(place, args),
        PushCommand::Watch(args) => watch::run(place, args),
        PushCommand::Clients(args) => clients::list(place, args),
        PushCommand::Client(args) => clients::show(place, args),
        PushCommand::Kick(args) => clients::kick(place, args),
        PushCommand::Drain(args) => drain::run(place, args),
        PushCommand::Top(args) => top::run(place, args),
        PushCommand::Trace(args) => trace::run(place, args),
        PushCommand::Ban { command } => ban::run(place, command),
        PushCommand::Simulate(args) => simulate::run(place, args),
        PushCommand::Audit { command } => audit::run(place, command),
        PushCommand::Token(args) => token::run(place, args),
        PushCommand::Passwd(args) => passwd::run(args),
    }
}
