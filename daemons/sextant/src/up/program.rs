//! The daemons that there are, where their programs lie, and what settings they would run with.

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use sextant_service::admin::TOKEN_FILE;

use crate::cli::UpArgs;
use crate::error::Error;
use crate::terminal::Colour;

/// The daemons of this project, in the order of their start.
const KNOWN: [(&str, Colour); 1] = [("push", Colour::Cyan)];

/// A daemon that can be started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) colour: Colour,
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
    /// Its admin port.
    pub(super) admin: SocketAddr,
    /// Its admin URL.
    pub(super) url: String,
    /// Its MQTT addresses.
    pub(super) mqtt: Vec<String>,
}

impl Program {
    /// Where its admin token is.
    pub(super) fn token_path(&self, data: &Path) -> PathBuf {
        data.join(self.name).join(TOKEN_FILE)
    }
}

/// The programs to run, with their settings known and their ports free.
pub(super) fn find(data: &Path, args: &UpArgs) -> Result<Vec<Program>, Error> {
    let sets = sets(&args.sets)?;
    for name in &args.daemons {
        check_name(name)?;
    }
    let mut programs = Vec::new();
    for (name, colour) in KNOWN {
        let wanted = args.daemons.iter().any(|daemon| daemon == name);
        if !wanted && !args.daemons.is_empty() {
            continue;
        }
        let binary = format!("sextant-{name}");
        let Some(path) = locate(&binary) else {
            if wanted {
                return Err(not_found(&binary));
            }
            continue;
        };
        let args = arguments(data, name, &sets);
        programs.push(resolve(name, colour, path, args)?);
    }
    match programs.is_empty() {
        true => Err(not_found("sextant-push")),
        false => Ok(programs),
    }
}

fn not_found(binary: &str) -> Error {
    Error::Usage(format!(
        "{binary} is neither beside this program nor on PATH: build it with `cargo build \
         --release`, or install it"
    ))
}

fn check_name(name: &str) -> Result<(), Error> {
    if KNOWN.iter().any(|(known, _)| *known == name) {
        return Ok(());
    }
    let known = KNOWN.map(|(name, _)| name).join(", ");
    Err(Error::Usage(format!("there is no daemon \"{name}\": there is {known}")))
}

/// `push.mqtt.listen=…` as the daemon and the rest.
fn sets(sets: &[String]) -> Result<Vec<(&str, &str)>, Error> {
    sets.iter().map(|text| split_set(text)).collect()
}

fn split_set(text: &str) -> Result<(&str, &str), Error> {
    match text.split_once('.') {
        Some((daemon, rest)) if rest.contains('=') => {
            check_name(daemon)?;
            Ok((daemon, rest))
        }
        _ => Err(Error::Usage(format!(
            "--set {text} says nothing: write --set push.KEY=VALUE, such as \
             push.mqtt.listen=127.0.0.1:1884"
        ))),
    }
}

/// Beside this program, else on PATH.
fn locate(binary: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(binary)));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&on_path).map(|dir| dir.join(binary));
    beside.into_iter().chain(on_path).find(|path| path.is_file())
}

fn arguments(data: &Path, name: &str, sets: &[(&str, &str)]) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["--data".into(), data.join(name).into()];
    let config = data.join(format!("{name}.toml"));
    if config.is_file() {
        args.extend(["--config".into(), config.into()]);
    }
    for (_, set) in sets.iter().filter(|(daemon, _)| *daemon == name) {
        args.extend(["--set".into(), set.into()]);
    }
    args
}

/// Asks the program what it would run with, and whether that is possible here.
fn resolve(
    name: &'static str,
    colour: Colour,
    path: PathBuf,
    args: Vec<OsString>,
) -> Result<Program, Error> {
    let output = Command::new(&path)
        .args(&args)
        .arg("--print-config")
        .output()
        .map_err(Error::io(format!("run {}", path.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Usage(format!("{name} cannot run so: {}", said.trim_end())));
    }
    let (admin, mqtt) = listeners(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        Error::Usage(format!("{name} does not print its settings: is it another version?"))
    })?;
    for addr in mqtt.iter().chain([&admin]) {
        check_free(name, *addr)?;
    }
    Ok(Program {
        name,
        colour,
        path,
        args,
        admin,
        url: format!("http://{admin}"),
        mqtt: mqtt.iter().map(ToString::to_string).collect(),
    })
}

/// The admin address and the MQTT addresses of printed settings.
fn listeners(settings: &str) -> Option<(SocketAddr, Vec<SocketAddr>)> {
    let settings: toml::Table = settings.parse().ok()?;
    let admin = settings.get("admin")?.get("listen")?.as_str()?.parse().ok()?;
    let mqtt = match settings.get("mqtt").and_then(|mqtt| mqtt.get("listen")) {
        None => Vec::new(),
        Some(toml::Value::String(addr)) => vec![addr.parse().ok()?],
        Some(list) => list
            .as_array()?
            .iter()
            .map(|addr| addr.as_str()?.parse().ok())
            .collect::<Option<Vec<_>>>()?,
    };
    Some((admin, mqtt))
}

fn check_free(name: &str, addr: SocketAddr) -> Result<(), Error> {
    if addr.port() == 0 {
        return Err(Error::Usage(format!(
            "{name} is to listen on {addr}, a port that nobody could know: give it a number"
        )));
    }
    match TcpListener::bind(addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::Usage(format!(
            "{addr} is in use, and {name} wants it: stop what listens there (is it another \
             sextant-{name}?), or move this one with --set, such as --set push.mqtt.listen=\
             127.0.0.1:1884 or --set push.admin.listen=127.0.0.1:7711"
        ))),
        // Whatever else is wrong with it, the daemon says better.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_its_daemon() {
        let one = ["push.mqtt.listen=127.0.0.1:1".to_owned()];
        assert_eq!(sets(&one).unwrap(), [("push", "mqtt.listen=127.0.0.1:1")]);
        for wrong in ["mqtt", "pull.a=1", "push.mqtt"] {
            assert!(matches!(sets(&[wrong.to_owned()]), Err(Error::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn addresses_are_read_from_printed_settings() {
        let text = "[admin]\nlisten = \"127.0.0.1:1\"\n[mqtt]\nlisten = [\"127.0.0.1:2\"]\n";
        let (admin, mqtt) = listeners(text).unwrap();
        assert_eq!((admin.port(), mqtt[0].port(), mqtt.len()), (1, 2, 1));
        assert!(listeners("[admin]\nlisten = 5\n").is_none());
    }

    #[test]
    fn a_port_in_use_is_said_before_the_start() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let error = check_free("push", addr).unwrap_err().to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("--set"), "{error}");
        drop(listener);
        check_free("push", addr).unwrap();
    }

    #[test]
    fn a_configuration_file_beside_the_data_is_used() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(arguments(dir.path(), "push", &[]).len(), 2);
        std::fs::write(dir.path().join("push.toml"), "").unwrap();
        let args = arguments(dir.path(), "push", &[("push", "cores=1")]);
        let args: Vec<_> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        assert_eq!((args[2], args[4], args[5]), ("--config", "--set", "cores=1"));
    }
}
