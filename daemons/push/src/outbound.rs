//! What speaks HTTP to others: to whom it is told to and nobody else, so that no redirect and no
//! proxy of the environment sees what is said; and for no longer than it is told to.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The longest file of certificates, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Certificates that are configured and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct CertificatesError {
    path: PathBuf,
    why: String,
}

/// Speaks on at most `connections_max` connections at once, for `timeout` with each request. Who is
/// spoken to over TLS is known by the certificates of `ca_file`, or else by those that browsers
/// know.
///
/// # Errors
/// The file cannot be read, or holds no certificates.
pub fn agent(
    timeout: Duration,
    connections_max: usize,
    ca_file: Option<&Path>,
) -> Result<Agent, CertificatesError> {
    let mut tls = TlsConfig::builder();
    if let Some(path) = ca_file {
        tls = tls.root_certs(certificates(path)?);
    }
    Ok(Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(connections_max)
        .max_idle_connections_per_host(connections_max)
        .user_agent(concat!("sextant-push/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.build())
        .build()
        .into())
}

fn certificates(path: &Path) -> Result<RootCerts, CertificatesError> {
    let wrong = |why: String| CertificatesError { path: path.to_owned(), why };
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut pem))
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err(wrong("holds no certificate as PEM".to_owned())),
        false => Ok(RootCerts::new_with_certs(&found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let why = || agent(Duration::from_secs(1), 1, Some(&path)).unwrap_err().to_string();
        assert!(why().contains("ca.pem: cannot be read"), "{}", why());
        std::fs::write(&path, "what?").unwrap();
        assert!(why().contains("holds no certificate"), "{}", why());
    }
}
