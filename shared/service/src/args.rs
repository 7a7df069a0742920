//! The flags that every daemon has, and what they mean for its start.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{self, Config, ConfigError, Flag, Loaded, Sources};

/// The exit code for a configuration or command line that cannot be run with.
pub const EXIT_USAGE: u8 = 2;

/// Flags to `#[command(flatten)]` into a daemon's own.
///
/// `--data`, `--log` and `--log-format` set the keys `data`, `telemetry.level` and
/// `telemetry.format`: a daemon's settings have a `data: PathBuf` and a
/// `telemetry: `[`telemetry::Settings`](crate::telemetry::Settings).
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CommonArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Keep data in this directory
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// Say whether the settings are right, and stop: exit code 0 or 2
    #[arg(long)]
    pub check_config: bool,

    /// Print the settings in effect, without secrets, and stop
    #[arg(long)]
    pub print_config: bool,

    /// Set one key, such as mqtt.connections_max=100 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Log at this level: error, warn, info, debug, trace, or a filter such as
    /// info,sextant_push=debug
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,

    /// Log as human, json, or auto: json under systemd
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl CommonArgs {
    /// Where the settings are to be looked for: the file, this process's environment, these flags
    /// and the daemon's own.
    pub fn sources(&self, own: Vec<Flag>) -> Sources {
        let common = [
            ("--data", "data", &self.data),
            ("--log", "telemetry.level", &self.log),
            ("--log-format", "telemetry.format", &self.log_format),
        ];
        let mut flags: Vec<Flag> = common
            .into_iter()
            .filter_map(|(name, key, value)| Some(Flag::new(name, key, value.clone()?)))
            .collect();
        flags.extend(own);
        let (file, sets) = (self.config.clone(), self.sets.clone());
        Sources { file, sets, flags, ..Sources::from_env() }
    }

    /// Loads the settings of `daemon`, or does what `--check-config` or `--print-config` ask for.
    ///
    /// # Errors
    ///
    /// The code to exit with, after what there was to say was said: 0 when only a check or print
    /// was asked for, [`EXIT_USAGE`] when the settings are faulty.
    pub fn load<T: Config>(&self, daemon: &str, own: Vec<Flag>) -> Result<Loaded<T>, ExitCode> {
        let result = config::load(daemon, &self.sources(own));
        match self.answer(&result) {
            Answer::Run => result.map_err(|_| ExitCode::from(EXIT_USAGE)),
            Answer::Print(text) => {
                print!("{text}");
                Err(ExitCode::SUCCESS)
            }
            Answer::Refuse(text) => {
                eprint!("{text}");
                Err(ExitCode::from(EXIT_USAGE))
            }
        }
    }

    fn answer<T: Config>(&self, result: &Result<Loaded<T>, ConfigError>) -> Answer {
        match result {
            Err(error) => Answer::Refuse(format!("{error}\n")),
            Ok(_) if self.check_config => Answer::Print("config ok\n".to_owned()),
            Ok(loaded) if self.print_config => Answer::Print(loaded.to_toml()),
            Ok(_) => Answer::Run,
        }
    }
}

enum Answer {
    Run,
    Print(String),
    Refuse(String),
}
