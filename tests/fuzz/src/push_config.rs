//! Any text as a configuration file: it is refused with a reason, or what it comes to is printed
//! and read again as the same.

use std::cell::OnceCell;
use std::path::PathBuf;

use sextant_push::config::Config;
use sextant_service::config::{ConfigError, Loaded, REDACTED, Sources, load};

/// One file for all inputs, in memory where there is such a folder.
fn path() -> PathBuf {
    thread_local! {
        static FILE: OnceCell<tempfile::TempPath> = const { OnceCell::new() };
    }
    FILE.with(|file| {
        let file = file.get_or_init(|| {
            let in_memory = std::path::Path::new("/dev/shm");
            let made = match in_memory.is_dir() {
                true => tempfile::NamedTempFile::new_in(in_memory),
                false => tempfile::NamedTempFile::new(),
            };
            made.expect("a file can be made").into_temp_path()
        });
        file.to_path_buf()
    })
}

fn read(bytes: &[u8]) -> Result<Loaded<Config>, ConfigError> {
    let path = path();
    std::fs::write(&path, bytes).expect("the file can be written");
    load("push", &Sources { file: Some(path), ..Sources::default() })
}

pub(crate) fn run(bytes: &[u8]) {
    match read(bytes) {
        Ok(loaded) => {
            let has_secrets = loaded.to_toml().contains(REDACTED);
            // A secret is not printed, so it cannot be read back.
            if !has_secrets {
                let again = read(loaded.to_toml().as_bytes()).expect("what is printed is accepted");
                assert_eq!(again.value, loaded.value);
            }
            // What was checked does not fail later.
            let cores = loaded.value.cores();
            let _ = loaded.value.server_limits();
            loaded.value.log_options(cores, 1, 1).check().expect("options that can be used");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
