//! The flags that every daemon has, and what they mean for its start.

use std::fmt;
use std::io::{self, Write};
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
///
/// `Debug` does not show what `--set` sets, which may be a secret.
#[derive(Clone, Default, clap::Args)]
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

    /// Set one key, such as telemetry.level=debug (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,

    /// Log at this level: error, warn, info, debug, trace, or a filter such as
    /// info,sextant_ring=debug
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,

    /// Log as human, json, or auto: json under systemd
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl fmt::Debug for CommonArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommonArgs")
            .field("config", &self.config)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
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
            // Whoever closed our output does not want to hear more.
            Answer::Print(text) => {
                let _ = io::stdout().write_all(text.as_bytes());
                Err(ExitCode::SUCCESS)
            }
            Answer::Refuse(text) => {
                let _ = io::stderr().write_all(text.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    use clap::Parser;
    use serde::{Deserialize, Serialize};

    use crate::config::Span;
    use crate::telemetry;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[derive(Serialize, Deserialize)]
    struct Settings {
        data: PathBuf,
        timeout: Span,
        telemetry: telemetry::Settings,
    }

    impl Default for Settings {
        fn default() -> Self {
            let telemetry = telemetry::Settings::default();
            Self { data: "./data/test".into(), timeout: Span::secs(1), telemetry }
        }
    }

    impl Config for Settings {}

    fn load(args: &[&str]) -> (Result<Loaded<Settings>, ConfigError>, Answer) {
        let words = std::iter::once("test").chain(args.iter().copied());
        let common = Command::try_parse_from(words).unwrap().common;
        let mut sources = common.sources(vec![Flag::new("--timeout", "timeout", "9s")]);
        sources.env.clear();
        let result = config::load("test", &sources);
        let answer = common.answer(&result);
        (result, answer)
    }

    #[test]
    fn flags_set_their_keys() {
        let args = ["--data", "/d", "--log", "debug", "--set", "telemetry.format=json"];
        let (result, answer) = load(&args);
        let settings = result.unwrap().value;
        assert_eq!(settings.data, PathBuf::from("/d"));
        assert_eq!(settings.telemetry.level, "debug");
        assert_eq!(settings.telemetry.format, telemetry::Format::Json);
        assert_eq!(settings.timeout, Span::secs(9));
        assert!(matches!(answer, Answer::Run));
    }

    #[test]
    fn a_check_says_ok_or_what_is_wrong() {
        let Answer::Print(text) = load(&["--check-config"]).1 else { panic!("ok") };
        assert_eq!(text, "config ok\n");
        let Answer::Refuse(text) = load(&["--check-config", "--set", "tmeout=1s"]).1 else {
            panic!("refused");
        };
        assert_eq!(text, "flag --set: `tmeout`: unknown key; did you mean `timeout`?\n");
    }

    #[test]
    fn a_print_shows_what_is_in_effect_and_who_set_it() {
        let Answer::Print(text) = load(&["--print-config", "--data", "/d"]).1 else {
            panic!("printed");
        };
        assert_eq!(
            text,
            "data = \"/d\"  # flag --data\ntimeout = \"9s\"  # flag --timeout\n\n\
             [telemetry]\nformat = \"auto\"\nlevel = \"info\"\n"
        );
    }
}
