//! TLS to receivers. Certificates are verified unless a drain's URL disables it.

use std::{fs, io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use causes::tls::{describe, describe_pem};

use super::error::TRUST;
use crate::config::Config;

/// TLS settings with and without verification of certificates.
pub(crate) struct TlsConnectors {
    verified: TlsConnector,
    unverified: TlsConnector,
}

impl TlsConnectors {
    /// Loads the system's and the configured certificate authorities, and the client certificate.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        let (count, _) = roots.add_parsable_certificates(native.certs);
        if let Some(path) = &config.ca {
            let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in read(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unreadable(&describe(&error, TRUST)))?;
            }
        } else if count == 0 {
            tracing::warn!(
                "no certificate authorities found, drains over TLS will fail; install ca-certificates or set SSL_CERT_FILE"
            );
        }
        let provider = Arc::new(ring::default_provider());
        let build = |unverified: bool| -> Result<TlsConnector, String> {
            let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| describe(&error, TRUST))?;
            let builder = if unverified {
                let verifier = Arc::new(AcceptAny(Arc::clone(&provider)));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            } else {
                builder.with_root_certificates(roots.clone())
            };
            let built = match &config.identity {
                None => builder.with_no_client_auth(),
                Some((certificate, key)) => {
                    let read_key = PrivateKeyDer::from_pem_file(key);
                    let read_key = read_key.map_err(|error| format!("{}: {}", key.display(), describe_pem(&error)))?;
                    let built = builder.with_client_auth_cert(read(certificate)?, read_key);
                    built.map_err(|error| format!("{}: {}", certificate.display(), describe(&error, TRUST)))?
                }
            };
            Ok(TlsConnector::from(Arc::new(built)))
        };
        Ok(Self {
            verified: build(false)?,
            unverified: build(true)?,
        })
    }

    /// The connector that verifies certificates, or the one that accepts any.
    pub(crate) fn connector(&self, verify: bool) -> &TlsConnector {
        if verify { &self.verified } else { &self.unverified }
    }
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    #[allow(
        clippy::disallowed_methods,
        reason = "a pipe works too, which system::files cannot read"
    )]
    let text = fs::read(path).map_err(|error| unreadable(&error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| unreadable(&describe_pem(&error)))?;
    if read.is_empty() {
        return Err(unreadable(&io::Error::other("the file contains no certificate")));
    }
    Ok(read)
}

/// Accepts any certificate, but checks that the receiver has its private key.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
