//! What can go wrong here, and whose fault it is. Every message is a sentence that says what to
//! do about it.

use std::io;
use std::path::PathBuf;

use sextant_service::admin::TokenError;
use sextant_service::client::ClientError;
use sextant_service::process::DataDirError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The command line or a configuration is wrong.
    #[error("{0}")]
    Usage(String),

    /// A daemon did not do what it was asked for.
    #[error("{}", refusal(.url, .source))]
    Daemon {
        /// Where it is.
        url: String,
        /// What it said, if anything.
        source: ClientError,
    },

    /// There is no admin token to show.
    #[error("{}", missing_token(.data, .source))]
    Token {
        /// Where it was looked for.
        data: PathBuf,
        /// What was found instead.
        source: TokenError,
    },

    /// The MQTT side did not work, for a reason that another try will not mend.
    #[error("{0}")]
    Mqtt(String),

    /// All went as it should, and what was waited for did not come about.
    #[error("{0}")]
    Outcome(String),

    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),

    /// The system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: says what was tried.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => sextant_service::args::EXIT_USAGE,
            _ => 1,
        }
    }
}

/// A daemon's refusal or silence, and what to do about it.
pub(crate) fn refusal(url: &str, error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { .. } => {
            let error = error.to_string();
            let stop = if error.ends_with('?') { "" } else { "." };
            format!("{error}{stop} Start it with `sextant up`, or give its address with --url")
        }
        ClientError::Problem(problem) if problem.status == 401 => format!(
            "the daemon at {url} refuses this token: give the one that is in admin.token in its \
             data directory, with --data, --token or SEXTANT_TOKEN"
        ),
        _ => error.to_string(),
    }
}

fn missing_token(data: &std::path::Path, error: &TokenError) -> String {
    match error {
        TokenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => format!(
            "there is no admin token in {}: start the daemon once with `sextant up`, or say where \
             its data is with --data, or give the token with --token or SEXTANT_TOKEN",
            data.display()
        ),
        _ => error.to_string(),
    }
}
