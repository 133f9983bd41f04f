//! TLS on the listener: certificate and key from files, read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
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
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often the files are looked at. A certificate is renewed weeks before its end.
const LOOK: Duration = Duration::from_secs(2);

/// What is spoken inside, as the client chooses (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A certificate and its key, as the files have them.
pub struct Tls {
    acceptor: TlsAcceptor,
    _looking: DropGuard,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or holds no PEM.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The two do not belong together, or are of no kind that is known.
    #[error("{certificate} and {key} do not make a certificate: {reason}")]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
}

/// The two files.
#[derive(Clone)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// What a change is seen by.
type Seen = [Option<(SystemTime, u64)>; 2];

/// What clients are shown now.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl Tls {
    /// Reads both, PEM, the certificate with its chain; and looks after them until it is dropped. What they are replaced with is shown to who connects from then on, and
    /// where it cannot be used, what was good stays.
    ///
    /// To be called within a runtime.
    ///
    /// # Errors
    /// [`TlsError`]: which file, and what is wrong with it.
    pub fn open(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.into(),
            key: key.into(),
        };
        let seen = files.look();
        let shown = Arc::new(Shown(RwLock::new(Arc::new(files.read()?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| files.pair(&error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(look_after(files, seen, shown)));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            _looking: stop.drop_guard(),
        })
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

async fn look_after(files: Files, mut seen: Seen, shown: Arc<Shown>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let looked = files.clone();
        // Small files on a local disk; yet a disk.
        let Ok(now) = tokio::task::spawn_blocking(move || looked.look()).await else {
            return;
        };
        if std::mem::replace(&mut seen, now) == now {
            continue;
        }
        match files.read() {
            Ok(read) => {
                *shown.0.write() = Arc::new(read);
                tracing::info!("the certificate was read again");
            }
            // The next change may complete it: the two are written one after the other.
            Err(error) => tracing::error!(%error, "the certificate stays the one that it was"),
        }
    }
}

impl Files {
    fn look(&self) -> Seen {
        [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let unreadable = |error| file(&self.certificate, &error);
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(unreadable)?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(unreadable)?;
        if chain.is_empty() {
            return Err(file(&self.certificate, &pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| file(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| self.pair(&error))
    }

    fn pair(&self, error: &rustls::Error) -> TlsError {
        TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason: error.to_string(),
        }
    }
}

fn file(path: &Path, error: &pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        _ => "it holds no PEM of the kind that is expected".to_owned(),
    };
    TlsError::File {
        path: path.to_owned(),
        reason,
    }
}
