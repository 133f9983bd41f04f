//! TLS with certificate and key from files, which are reloaded when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use system::{files, task};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

use causes::tls::{describe, describe_pem};

/// The remedy for a certificate of an unknown authority.
const TRUST: &str = "use a certificate of a trusted authority";

/// Interval at which the files are checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Protocols offered with ALPN (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A TLS configuration whose certificate is reloaded from files.
pub struct Tls {
    acceptor: TlsAcceptor,
    _reload: DropGuard,
}

/// Why a certificate cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or contains no PEM of the expected kind.
    #[error("cannot load {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Certificate and key do not match, or their type is not supported.
    #[error("certificate {certificate} and key {key} cannot be used together: {reason}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        reason: String,
    },
}

/// The files of certificate and key.
#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Modification time and size of both files.
type FileStates = [Option<(Duration, u64)>; 2];

/// Resolves to the certificate loaded last.
#[derive(Debug)]
struct CurrentCertificate(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl Tls {
    /// Loads a PEM certificate chain and its key, and reloads them when the files change, until the
    /// value is dropped. New connections use the new certificate. If it cannot be loaded, the
    /// previous one stays in use.
    ///
    /// Call it within a Tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`] with the file and the cause.
    pub fn open(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let states = files.states();
        let current = Arc::new(CurrentCertificate(RwLock::new(Arc::new(files.read()?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| files.pair_error(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let stop = CancellationToken::new();
        task::spawn(stop.clone().run_until_cancelled_owned(reload(files, states, current)));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _reload: stop.drop_guard(),
        })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

/// Reloads the files whenever they change.
async fn reload(files: Files, mut states: FileStates, current: Arc<CurrentCertificate>) {
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let checked = files.clone();
        let Ok(new) = task::blocking(move || checked.states()).await else {
            return;
        };
        if std::mem::replace(&mut states, new) == new {
            continue;
        }
        match files.read() {
            Ok(certificate) => {
                *current.0.write() = Arc::new(certificate);
                tracing::info!("certificate reloaded");
            }
            // Usually temporary: certificate and key are replaced one after the other.
            Err(error) => tracing::error!(%error, "certificate reload failed, keeping the previous one"),
        }
    }
}

impl Files {
    fn states(&self) -> FileStates {
        [&self.certificate, &self.key].map(|path| {
            let metadata = files::metadata(path).ok()?;
            Some((metadata.modified, metadata.len))
        })
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let unreadable = |error| file_error(&self.certificate, &error);
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(unreadable)?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(unreadable)?;
        if chain.is_empty() {
            return Err(file_error(&self.certificate, &pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file_error(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| self.pair_error(&error))
    }

    fn pair_error(&self, error: &rustls::Error) -> TlsError {
        TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: describe(error, TRUST),
        }
    }
}

fn file_error(path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "no such file; check the path".to_owned(),
        pem::Error::NoItemsFound => "contains no PEM section of the expected kind".to_owned(),
        error => describe_pem(error),
    };
    TlsError::File {
        path: path.to_owned(),
        reason,
    }
}
