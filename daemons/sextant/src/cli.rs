//! The commands and their flags, with the help that teaches them.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::console;

const EXAMPLES: &str = "\
Examples:
  sextant up                                        run the daemons, data in ./data
  sextant status                                    how they are
  sextant push watch 'd/#'                          see every device's messages as they come
  sextant push send --device lamp --payload hello --wait
                                                    send one, and see it arrive";

/// The flags that every command has, apart from its own.
const WHERE: &str = "Where the daemons are";

/// Runs the Sextant daemons, and speaks to them.
#[derive(Debug, Parser)]
#[command(name = "sextant", version, after_help = EXAMPLES, propagate_version = true)]
pub(crate) struct Cli {
    /// Where the daemons' data is; the admin token is found in it
    #[arg(
        long,
        global = true,
        env = "SEXTANT_DATA",
        default_value = "./data",
        value_name = "DIR",
        help_heading = WHERE
    )]
    pub(crate) data: PathBuf,

    /// Ask the daemon at this address, such as http://127.0.0.1:7701
    #[arg(long, global = true, env = "SEXTANT_URL", value_name = "URL", help_heading = WHERE)]
    pub(crate) url: Option<String>,

    /// The admin token; without it DATA/push/admin.token is read
    #[arg(
        long,
        global = true,
        env = "SEXTANT_TOKEN",
        hide_env_values = true,
        help_heading = WHERE
    )]
    pub(crate) token: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemons until Ctrl-C, and start again what dies
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Say how each daemon is
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Send messages to devices, follow them, watch topics; see clients, and end them
    Push {
        #[command(subcommand)]
        command: PushCommand,
    },
    /// Become a daemon that dies with its parent
    #[command(name = "__exec", hide = true)]
    Exec(ExecArgs),
}

const UP_EXAMPLES: &str = "\
Settings of a daemon come from DATA/NAME.toml if that file is there, then from its environment
(SEXTANT_PUSH_...), then from --set.

Examples:
  sextant up                                        every daemon, data in ./data
  sextant up push --data /tmp/try                   one of them, data elsewhere
  sextant up --set push.mqtt.listen=127.0.0.1:1884  when port 1883 is taken
  sextant up --console off                          without the web page";

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// The daemons to run; all, if none is named
    #[arg(value_name = "DAEMON")]
    pub(crate) daemons: Vec<String>,

    /// Set one key of one daemon, such as push.mqtt.connections_max=100 (repeatable)
    #[arg(long = "set", value_name = "DAEMON.KEY=VALUE")]
    pub(crate) sets: Vec<String>,

    /// Serve the console, the web page of all daemons, at this address; `off`: not at all
    #[arg(
        long,
        env = "SEXTANT_CONSOLE",
        value_name = "ADDR",
        default_value_t = console::Place::default()
    )]
    pub(crate) console: console::Place,

    /// Do not say what to try next: whoever started this does
    #[arg(long, hide = true)]
    pub(crate) no_hints: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// The process that must be this one's parent
    #[arg(long)]
    pub(crate) parent: i32,

    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub(crate) program: Vec<std::ffi::OsString>,
}

const STATUS_EXAMPLES: &str = "\
The exit code is 0 if every daemon answered and serves, else 1.

Examples:
  sextant status
  sextant status --json | jq '.daemons[0].status.connections'";

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print JSON, with all that the daemons say
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PushCommand {
    /// Send a message to a device or a topic, and print its id
    #[command(after_help = SEND_EXAMPLES)]
    Send(SendArgs),
    /// Show what became of a message
    #[command(after_help = "Example:\n  sextant push show 0198a4f2-5b1e-7c3a-9d2e-3f1a2b3c4d5e")]
    Show(ShowArgs),
    /// Subscribe to topics, and print what comes
    #[command(after_help = WATCH_EXAMPLES)]
    Watch(WatchArgs),
    /// List the clients that have a session
    #[command(after_help = CLIENTS_EXAMPLES)]
    Clients(ClientsArgs),
    /// Show one client, with what it is subscribed to
    #[command(
        after_help = "Examples:\n  sextant push client lamp\n  sextant push client lamp --json | jq .filters"
    )]
    Client(ClientArgs),
    /// Close a client's connection
    #[command(after_help = KICK_EXAMPLES)]
    Kick(KickArgs),
    /// Show what a client sends and is sent, packet by packet
    #[command(after_help = TRACE_EXAMPLES)]
    Trace(TraceArgs),
    /// Show which clients and topics there is most of
    #[command(after_help = TOP_EXAMPLES)]
    Top(TopArgs),
    /// Send all clients to another server, or serve them again
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Keep clients and users out
    Ban {
        #[command(subcommand)]
        command: BanCommand,
    },
    /// Be devices of an app, that get messages, show and click them
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
    /// Check that the audit is as it was written
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Make a token with which a device can log in, and print it
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenArgs),
    /// Hash a password for a user of the configuration file
    #[command(after_help = PASSWD_EXAMPLES)]
    Passwd(PasswdArgs),
}

const SIMULATE_EXAMPLES: &str = "\
They are sim-0000, sim-0001 and so on, with platforms, versions, cities, tags (vip, beta) and time
zones that expressions can name, and log in with tokens of their own. Of what they get they show
seven in ten, and click one in six.

Examples:
  sextant push simulate --app shop
  sextant push simulate --app shop --devices 1000 --seconds 60";

#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// Their app, made if there is none of that name
    #[arg(long, value_name = "APP")]
    pub(crate) app: String,

    /// How many there are
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = parse_devices)]
    pub(crate) devices: usize,

    /// How long they are there; until Ctrl-C, if it is not said
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<u64>,
}

/// Each is a thread and a connection.
fn parse_devices(text: &str) -> Result<usize, String> {
    let devices = text.parse().ok().filter(|devices| (1..=5000).contains(devices));
    devices.ok_or_else(|| "1 to 5000".to_owned())
}

const AUDIT_VERIFY_EXAMPLES: &str = "\
Reads the files of the audit, also while the daemon writes them. The exit code is 0 if every
record is as it was written. What was cut off at the end is found by a head that was noted before.

Examples:
  sextant push audit verify
  sextant push audit verify --expect \"$(cat head.yesterday)\"
  sextant push audit verify --dir /backup/push/platform/audit";

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Read all of it, and tell each record that was changed, is missing or out of order
    #[command(after_help = AUDIT_VERIFY_EXAMPLES)]
    Verify(AuditVerifyArgs),
    /// Print the end of its chain, to be noted elsewhere
    #[command(after_help = "Example:\n  sextant push audit head > head.yesterday")]
    Head,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArgs {
    /// The directory of the audit [default: DATA/push/platform/audit]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// A head that was noted before, NUMBER:HASH
    #[arg(long, value_name = "HEAD")]
    pub(crate) expect: Option<String>,
}

const SEND_EXAMPLES: &str = "\
A message to a device goes to the topic d/DEVICE/push, and waits until the device is there.

Examples:
  sextant push send --device lamp --payload on
  sextant push send --device lamp --payload on --ttl 10m --wait
  sextant push send --topic weather/berlin --file report.json --retain
  date | sextant push send --topic clock --file -";

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("to").args(["device", "topic"]).required(true)))]
pub(crate) struct SendArgs {
    /// Send to this device
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,

    /// Send to everybody who is subscribed to this topic
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: Option<String>,

    /// What to send, as text
    #[arg(long, value_name = "TEXT", conflicts_with = "file", allow_hyphen_values = true)]
    pub(crate) payload: Option<String>,

    /// Send what is in this file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// 0: at most once, 1: at least once, 2: exactly once [the daemon's default is 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: Option<u8>,

    /// How long it is worth delivering, such as 10m; a bare number is seconds [the daemon's
    /// default is 24h]
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<String>,

    /// Keep it for those who subscribe afterwards
    #[arg(long)]
    pub(crate) retain: bool,

    /// Follow it until it is acknowledged or has expired; the exit code says which
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The id that `sextant push send` printed
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Print what the daemon says as it is
    #[arg(long)]
    pub(crate) json: bool,
}

const WATCH_EXAMPLES: &str = "\
A line is: time, topic, QoS, what is retained, and the payload; as text if it is text, else in
hexadecimal digits or base64. A lost connection is said, and made again.

Examples:
  sextant push watch '#'
  sextant push watch d/lamp/push d/door/push --qos 2
  sextant push watch 'd/+/state' --user dashboard --mqtt broker.internal:1883
  sextant push watch 'd/lamp/#' --user lamp --client-id lamp   as a device, with its token";

#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// Topics or filters: + is any one level, # at the end is all levels below
    #[arg(value_name = "TOPIC", required = true)]
    pub(crate) topics: Vec<String>,

    /// The highest QoS to get messages with
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(crate) qos: u8,

    /// Log in as this user
    #[arg(long)]
    pub(crate) user: Option<String>,

    /// The user's password, or the device's token; asked for on a terminal if it is not given
    #[arg(long, requires = "user", env = "SEXTANT_MQTT_PASSWORD", hide_env_values = true)]
    pub(crate) password: Option<String>,

    /// The broker's address [default: what `sextant up` uses, else 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR")]
    pub(crate) mqtt: Option<String>,

    /// The client identifier [default: one of its own]
    #[arg(long, value_name = "ID")]
    pub(crate) client_id: Option<String>,

    /// Stop after this many messages
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
}

const CLIENTS_EXAMPLES: &str = "\
Examples:
  sextant push clients
  sextant push clients --like 'lamp-*'
  sextant push clients --limit 1000000 --json | jq -r 'select(.queued > 0) | .client'";

#[derive(Debug, Args)]
pub(crate) struct ClientsArgs {
    /// Only those whose identifier is so, with * for any text
    #[arg(long, value_name = "PATTERN")]
    pub(crate) like: Option<String>,

    /// Stop after this many clients
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) limit: u64,

    /// Print what the daemon says as it is, one client a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The client identifier
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Print what the daemon says as it is
    #[arg(long)]
    pub(crate) json: bool,
}

const KICK_EXAMPLES: &str = "\
An MQTT 5 client is told why (reason 0x98, administrative action). Its session stays, with what
waits for it, and most clients connect again at once.

Examples:
  sextant push kick lamp
  sextant push kick lamp --session    and forget its subscriptions and queue";

#[derive(Debug, Args)]
pub(crate) struct KickArgs {
    /// The client identifier
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// End its session, too: its subscriptions and what waits for it are gone
    #[arg(long)]
    pub(crate) session: bool,
}

const TOP_EXAMPLES: &str = "\
Counted for two seconds at a time, and only while this runs.

Examples:
  sextant push top
  sextant push top --by topics --once
  sextant push top --once --json | jq '.clients_by_bytes[0]'";

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// What to show: clients by messages or by bytes, both ways, or topics by messages
    #[arg(long, value_name = "WHAT", default_value = "messages")]
    pub(crate) by: TopBy,

    /// So many of them
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=512)
    )]
    pub(crate) limit: u64,

    /// Look once, and end
    #[arg(long)]
    pub(crate) once: bool,

    /// Print what the daemon says as it is, all kinds in one
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `sextant push top` shows.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TopBy {
    Messages,
    Bytes,
    Topics,
}

const DRAIN_EXAMPLES: &str = "\
MQTT 5 clients are told the server (reason 0x9C, or 0x9D with --moved); MQTT 3.1.1 clients are
closed. Who connects meanwhile is told the same. Sessions stay. Without --to or --end it says how
it stands.

Examples:
  sextant push drain --to mqtt2.example.org:8883 --over 10m
  sextant push drain --end";

#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// The server that clients are sent to
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "end")]
    pub(crate) to: Option<String>,

    /// Over how long those that are connected are sent away, evenly [the daemon's default is 60s]
    #[arg(long, value_name = "TIME", requires = "to")]
    pub(crate) over: Option<String>,

    /// They are to use that server from now on, not only this time
    #[arg(long, requires = "to")]
    pub(crate) moved: bool,

    /// Serve clients here again
    #[arg(long)]
    pub(crate) end: bool,
}

const TRACE_EXAMPLES: &str = "\
It may begin before the client connects, and goes on when it leaves. Passwords are not shown.

Examples:
  sextant push trace lamp
  sextant push trace lamp --payload --for 1h
  sextant push trace lamp --json | jq 'select(.packet == \"PUBLISH\")'";

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The client identifier
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    /// Show payloads, too: their first KiB
    #[arg(long)]
    pub(crate) payload: bool,

    /// How long, such as 60s; a bare number is seconds [the daemon's default is 10m]
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) length: Option<String>,

    /// Print what the daemon says as it is, one event a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BanCommand {
    /// Ban a client identifier, and disconnect its client
    #[command(after_help = BAN_EXAMPLES)]
    Client(BanMakeArgs),
    /// Ban a user or a device by the name it logs in with, and disconnect all its clients
    #[command(after_help = BAN_EXAMPLES)]
    User(BanMakeArgs),
    /// Let a client or a user in again
    #[command(after_help = "Example:\n  sextant push ban lift client lamp")]
    Lift(BanNameArgs),
    /// Show all bans
    #[command(after_help = "Example:\n  sextant push ban list")]
    List(BanListArgs),
}

/// What a ban names.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BanOf {
    Client,
    User,
}

const BAN_EXAMPLES: &str = "\
Sessions stay, with what waits for them; `sextant push kick ID --session` ends one.

Examples:
  sextant push ban client lamp --for 1h --why 'floods the log'
  sextant push ban user bob";

#[derive(Debug, Args)]
pub(crate) struct BanMakeArgs {
    /// The client identifier, or the user's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// How long, such as 1h; a bare number is seconds [default: until it is lifted]
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) length: Option<String>,

    /// A note for people, shown by `sextant push ban list`
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BanNameArgs {
    /// Of what the name is
    #[arg(value_name = "KIND")]
    pub(crate) of: BanOf,

    /// The client identifier, or the user's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct BanListArgs {
    /// Print what the daemon says as it is
    #[arg(long)]
    pub(crate) json: bool,
}

const TOKEN_EXAMPLES: &str = "\
The device logs in with its id as client identifier and as user name, and the token as password.

Example:
  mosquitto_sub -i lamp -u lamp -P \"$(sextant push token lamp --ttl 30d)\" -t 'd/lamp/#'";

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The device's id
    #[arg(value_name = "DEVICE")]
    pub(crate) device: String,

    /// How long the token is good for, such as 30d; a bare number is seconds
    #[arg(long, value_name = "TIME")]
    pub(crate) ttl: Option<String>,
}

const PASSWD_EXAMPLES: &str = "\
The password is asked for on a terminal, or read from standard input's first line.

Example:
  sextant push passwd dashboard >> data/push.toml
  sextant push passwd dashboard --scram >> data/push.toml";

#[derive(Debug, Args)]
pub(crate) struct PasswdArgs {
    /// The user's name
    #[arg(value_name = "NAME", default_value = "user")]
    pub(crate) name: String,

    /// Print also what SCRAM-SHA-256 needs, the enhanced authentication of MQTT 5
    #[arg(long)]
    pub(crate) scram: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                if sub.has_subcommands() {
                    check(sub);
                } else if sub.get_name() != "help" {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains("Example"), "{} has none", sub.get_name());
                }
            }
        }
        check(&Cli::command());
    }
}
