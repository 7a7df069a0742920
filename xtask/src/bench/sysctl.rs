//! Settings of the kernel that a run needs, changed with a word about it and put back when the
//! [`Settings`] are dropped.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sh;

/// Changed settings, with their old values.
#[must_use = "dropped, they are put back"]
pub(crate) struct Settings {
    old: Vec<(&'static str, String)>,
}

impl Settings {
    /// Changes settings, each a name as `sysctl` knows it and a value. What is as wanted already
    /// is left alone.
    ///
    /// # Errors
    /// This user may not, or the kernel knows no such setting; then none is changed.
    pub(crate) fn change(wanted: &'static [(&'static str, &'static str)]) -> Result<Settings> {
        let mut settings = Settings { old: Vec::new() };
        for (name, value) in wanted {
            let old = fs::read_to_string(path(name))
                .with_context(|| format!("this kernel has no setting {name}"))?;
            let old = old.split_whitespace().collect::<Vec<_>>().join(" ");
            if old == *value {
                continue;
            }
            println!("set {name} to {value} for this run (it is {old})");
            fs::write(path(name), value).with_context(|| {
                format!("cannot set {name}: run this as root, or set it by hand")
            })?;
            settings.old.push((name, old));
        }
        Ok(settings)
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        for (name, old) in self.old.drain(..).rev() {
            match fs::write(path(name), &old) {
                Ok(()) => println!("{name} is {old} again"),
                Err(error) => eprintln!(
                    "{} {name} was {old} and could not be put back: {error}",
                    sh::paint(sh::RED, "error:")
                ),
            }
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_right_already_is_left_alone() {
        let now = fs::read_to_string(path("kernel.ostype")).unwrap();
        assert_eq!(now.trim(), "Linux");
        let settings = Settings::change(&[("kernel.ostype", "Linux")]).unwrap();
        assert!(settings.old.is_empty());
    }

    #[test]
    fn an_unknown_setting_is_an_error_that_names_it() {
        let error = Settings::change(&[("net.no_such_setting", "1")]).err().unwrap();
        assert!(error.to_string().contains("net.no_such_setting"), "{error}");
    }
}
