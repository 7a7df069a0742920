//! What TLS is served with: certificates and their keys, one of which a client is shown by the name
//! that it asks for (`tls/names.rs`), and whose certificates clients may have.
//!
//! [`Endpoint::load`] reads the PEM files that `[tls]` names, and checks that they belong together.
//! An endpoint never changes: what was renewed is loaded into a new one, which every core is given,
//! and a connection keeps the one that it began with. One that cannot be loaded changes nothing.
//!
//! Sessions are resumed by tickets alone, in TLS 1.2 and 1.3; the keys of these tickets are an
//! endpoint's own. So a ticket is good on every core, for twelve hours at most, and not beyond a
//! reload: a client whose certificate was revoked meanwhile does not slip through by an old one.
//!
//! The records themselves are the broker's affair (`broker/transport`).

mod names;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tracing::{error, info, warn};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use self::names::ByName;
use crate::auth::token::check_device;
use crate::config::{ClientCertificate, Identity, Tls};

/// The longest file that is read: lists of revoked certificates are long.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// A certificate that ends sooner than this is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);
const WATCH_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Protocols that a client may name (ALPN), or it names none. Which is spoken is told by the first
/// bytes all the same.
const PROTOCOLS: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

/// Why there is nothing to serve TLS with. It is the operator's to set right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Only one of certificate and key is configured.
    #[error("certificate and key go together: set both, or neither")]
    Half,
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{} does not hold {wanted} in PEM", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// The certificate or its key cannot be used.
    #[error("{} and {} cannot be used together: {source}", .certificate.display(), .key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A further certificate that no client can ask for.
    #[error(
        "{} has no DNS name among its alternative names, so that no client could ask for it: only \
         the first certificate may be without",
        .path.display()
    )]
    Nameless {
        /// Its file.
        path: PathBuf,
    },
    /// Two certificates have one name.
    #[error(
        "{name} is in both {} and {}: each name is to have one certificate",
        .paths.0.display(),
        .paths.1.display()
    )]
    SameName {
        /// The name.
        name: String,
        /// Their files.
        paths: (PathBuf, PathBuf),
    },
    /// TLS itself will not do.
    #[error("TLS cannot be served: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authorities, or the lists of revoked certificates, cannot be used.
    #[error("clients' certificates cannot be checked by these files: {0}")]
    Verifier(#[from] VerifierBuilderError),
    /// Clients are to be asked for certificates, and nobody is named who issues them.
    #[error("to ask clients for certificates, tls.client_ca must name who issues them")]
    NoAuthority,
}

/// What TLS is served with.
pub struct Endpoint {
    server: Arc<ServerConfig>,
    identity: Identity,
    required: bool,
    handshakes_max: usize,
    expires_at: u64,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Reads what is configured; `None` if no certificate is.
    ///
    /// # Errors
    /// A file cannot be read, holds something else, or does not go with the others.
    pub fn load(tls: &Tls) -> Result<Option<Endpoint>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut pairs = pairs(tls)?.into_iter();
        let Some((certificate, key)) = pairs.next() else { return Ok(None) };
        let (pair, mut expires_at) = load_pair(certificate, key, &provider)?;
        let mut by_name = ByName::first(certificate, pair);
        for (certificate, key) in pairs {
            let (pair, ends) = load_pair(certificate, key, &provider)?;
            by_name.add(certificate, pair)?;
            expires_at = expires_at.min(ends);
        }
        let verifier = verifier(tls, &provider)?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(by_name));
        server.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = ring::Ticketer::new()?;
        // A device has one connection, and comes back with one.
        server.send_tls13_tickets = 1;
        Ok(Some(Endpoint {
            server: Arc::new(server),
            identity: tls.identity,
            required: tls.required,
            handshakes_max: tls.handshakes_max as usize,
            expires_at,
        }))
    }

    /// What rustls is given for a connection.
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// Whether every listener takes TLS alone.
    pub(crate) fn is_required(&self) -> bool {
        self.required
    }

    /// Handshakes that one core may have under way.
    pub(crate) fn handshakes_max(&self) -> usize {
        self.handshakes_max
    }

    /// The device that a client's certificate names, which was found to be good.
    pub(crate) fn device(&self, certificate: &CertificateDer<'_>) -> Option<Box<str>> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = match self.identity {
            Identity::Cn => parsed.subject().iter_common_name().next()?.as_str().ok()?,
            Identity::SanDns | Identity::SanUri => {
                let names = parsed.subject_alternative_name().ok()??;
                names.value.general_names.iter().find_map(|name| match (self.identity, name) {
                    (Identity::SanDns, GeneralName::DNSName(name))
                    | (Identity::SanUri, GeneralName::URI(name)) => Some(*name),
                    _ => None,
                })?
            }
        };
        check_device(name).ok().map(|()| name.into())
    }
}

/// When the certificate in service ends, of several the one that ends first: for the metrics, and
/// for warnings.
#[derive(Clone, Debug, Default)]
pub struct Certificate(Arc<AtomicU64>);

impl Certificate {
    /// This one is in service now.
    pub fn note(&self, endpoint: &Endpoint) {
        self.0.store(endpoint.expires_at, Ordering::Relaxed);
    }

    /// Whether one is.
    pub fn is_there(&self) -> bool {
        self.expires_at() > 0
    }

    /// When it ends, in seconds since 1970; 0 without one.
    pub fn expires_at(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Says how long it is good for from `unix_s` on, in seconds since 1970.
    pub fn tell(&self, unix_s: u64) {
        if !self.is_there() {
            return;
        }
        let left = Duration::from_secs(self.expires_at().saturating_sub(unix_s));
        let days = left.as_secs() / 86_400;
        if left.is_zero() {
            error!("a certificate has expired: clients refuse it");
        } else if left < EXPIRY_WARNING {
            warn!(days, "a certificate expires soon");
        } else {
            info!(days, "the certificate is good for so long");
        }
    }

    /// Does so once a day. Never ends.
    pub async fn watch(&self, unix_s: impl Fn() -> u64) {
        loop {
            self.tell(unix_s());
            tokio::time::sleep(WATCH_EVERY).await;
        }
    }
}

/// The files of all certificates and their keys, in their order.
fn pairs(tls: &Tls) -> Result<Vec<(&Path, &Path)>, TlsError> {
    let first = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Some((certificate.as_path(), key.as_path())),
        (None, None) => None,
        _ => return Err(TlsError::Half),
    };
    let more = tls.certificates.iter().map(|pair| (pair.certificate.as_path(), pair.key.as_path()));
    Ok(first.into_iter().chain(more).collect())
}

/// A certificate with its key, and when it ends.
fn load_pair(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, u64), TlsError> {
    let chain: Vec<CertificateDer<'static>> = items(certificate, "a certificate")?;
    let ends = expires_at(&chain[0]).ok_or_else(|| wrong(certificate, "a certificate"))?;
    let bytes = read(key)?;
    let secret = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| wrong(key, "a private key"))?;
    let pair = CertifiedKey::from_der(chain, secret, provider).map_err(|source| {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        TlsError::Pair { certificate, key, source }
    })?;
    Ok((pair, ends))
}

/// Who checks clients' certificates.
fn verifier(
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if tls.client_certificate == ClientCertificate::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let authorities = tls.client_ca.as_deref().ok_or(TlsError::NoAuthority)?;
    let mut roots = RootCertStore::empty();
    for authority in items::<CertificateDer<'static>>(authorities, "a certificate")? {
        roots.add(authority)?;
    }
    let provider = Arc::clone(provider);
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = &tls.client_crl {
        let lists: Vec<CertificateRevocationListDer<'static>> =
            items(path, "a list of revoked certificates")?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if tls.client_certificate == ClientCertificate::Optional {
        builder = builder.allow_unauthenticated();
    }
    Ok(builder.build()?)
}

fn expires_at(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(parsed.validity().not_after.timestamp()).ok()
}

fn wrong(path: &Path, wanted: &'static str) -> TlsError {
    TlsError::Content { path: path.to_owned(), wanted }
}

/// All of a kind that a file holds: one or more.
fn items<T: PemObject>(path: &Path, wanted: &'static str) -> Result<Vec<T>, TlsError> {
    let bytes = read(path)?;
    let items: Result<Vec<T>, pem::Error> = T::pem_slice_iter(&bytes).collect();
    match items {
        Ok(items) if !items.is_empty() => Ok(items),
        _ => Err(wrong(path, wanted)),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > FILE_BYTES_MAX {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    // With room for all: what is read twice as it grows would leave a key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests;
