//! Where the daemons are, and with which token to ask them.
//!
//! What the command line says comes first; then what a running `sextant up` has left in
//! `DATA/up.json`; then the defaults.
//!
//! ```text
//!   DATA/up.json             who runs, and where: here while `sextant up` runs
//!   DATA/push/admin.token    made by the daemon at its first start
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sextant_service::admin::AdminToken;
use sextant_service::client::Client;

use crate::error::Error;

/// How long a daemon may take to answer.
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// What the push daemon uses unless told otherwise.
pub(crate) const PUSH_URL: &str = "http://127.0.0.1:7701";
pub(crate) const PUSH_MQTT: &str = "127.0.0.1:1883";

/// What the command line says about the daemons.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) url: Option<String>,
    pub(crate) token: Option<String>,
}

impl Place {
    /// The push daemon's admin URL, without a slash at its end.
    pub(crate) fn push_url(&self) -> String {
        let url = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => self.running("push").map_or(PUSH_URL.to_owned(), |push| push.url),
        };
        if url.contains("://") { url } else { format!("http://{url}") }
    }

    /// The push daemon's first MQTT address.
    pub(crate) fn push_mqtt(&self) -> String {
        self.running("push")
            .and_then(|push| push.mqtt.into_iter().next())
            .unwrap_or_else(|| PUSH_MQTT.to_owned())
    }

    /// The push daemon, to be asked with the admin token.
    pub(crate) fn push(&self) -> Result<Daemon, Error> {
        let data = self.data.join("push");
        let token = match &self.token {
            Some(text) => AdminToken::parse(text),
            None => AdminToken::load(&data),
        };
        let token = token.map_err(|source| Error::Token { data, source })?;
        let url = self.push_url();
        Ok(Daemon { client: Client::new(&url, Some(token.clone()), ANSWER_TIME_MAX), url, token })
    }

    /// What `sextant up` says about a daemon that it runs now.
    pub(crate) fn running(&self, name: &str) -> Option<Running> {
        let up = Up::read(&self.data)?;
        up.daemons.into_iter().find(|daemon| daemon.name == name)
    }
}

/// A daemon that can be asked.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) client: Client,
    pub(crate) url: String,
    /// What it is asked with.
    pub(crate) token: AdminToken,
}

impl Daemon {
    /// For `map_err`: the error with what to do about it.
    pub(crate) fn failed(&self, source: sextant_service::client::ClientError) -> Error {
        Error::Daemon { url: self.url.clone(), source }
    }
}

/// What `sextant up` leaves in its data directory while it runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Up {
    /// The process id of `sextant up`.
    pub(crate) pid: u32,
    pub(crate) daemons: Vec<Running>,
    /// The console's address, if there is one.
    #[serde(default)]
    pub(crate) console: Option<String>,
}

/// A daemon that `sextant up` runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub(crate) name: String,
    /// Its process id; none while it is down.
    pub(crate) pid: Option<u32>,
    /// Its admin URL.
    pub(crate) url: String,
    /// Its MQTT addresses.
    #[serde(default)]
    pub(crate) mqtt: Vec<String>,
}

impl Up {
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("up.json")
    }

    /// What a running `sextant up` says; one that was killed left its file behind.
    fn read(data: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(Self::path(data)).ok()?;
        let up: Self = serde_json::from_str(&text).ok()?;
        is_alive(up.pid).then_some(up)
    }

    /// Writes the file anew, so that a reader sees the old one or the new one.
    pub(crate) fn write(&self, data: &Path) -> Result<(), Error> {
        let path = Self::path(data);
        let fresh = data.join("up.json.new");
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(Error::io(format!("write {}", path.display())))
    }

    pub(crate) fn remove(data: &Path) {
        // Without it the defaults hold; a file of a process that is gone is not believed anyway.
        let _ = std::fs::remove_file(Self::path(data));
    }
}

/// Whether there is such a process; one that has ended and was not waited for has no command line.
fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(data: &Path, url: Option<&str>) -> Place {
        Place { data: data.to_owned(), url: url.map(str::to_owned), token: None }
    }

    fn running() -> Running {
        Running {
            name: "push".to_owned(),
            pid: Some(1),
            url: "http://127.0.0.9:1".to_owned(),
            mqtt: vec!["127.0.0.9:2".to_owned()],
        }
    }

    #[test]
    fn what_runs_here_is_found_unless_the_command_line_says_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(place(dir.path(), None).push_url(), PUSH_URL);
        Up { pid: std::process::id(), daemons: vec![running()], console: None }
            .write(dir.path())
            .unwrap();
        assert_eq!(place(dir.path(), None).push_url(), "http://127.0.0.9:1");
        assert_eq!(place(dir.path(), None).push_mqtt(), "127.0.0.9:2");
        assert_eq!(place(dir.path(), Some("127.0.0.8:3/")).push_url(), "http://127.0.0.8:3");
    }

    #[test]
    fn what_a_dead_process_left_behind_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        Up { pid: u32::MAX, daemons: vec![running()], console: None }.write(dir.path()).unwrap();
        assert_eq!(place(dir.path(), None).push_url(), PUSH_URL);
    }

    #[test]
    fn a_missing_token_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = place(dir.path(), None).push().unwrap_err().to_string();
        assert!(error.contains("sextant up") && error.contains("SEXTANT_TOKEN"), "{error}");
    }
}
