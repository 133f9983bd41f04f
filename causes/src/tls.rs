//! Words for TLS and PEM errors, whose own messages contain debug output.

use std::io;

use rustls::{CertificateError, Error, pki_types::pem};

/// Returns the TLS error inside an I/O error, if it is one.
pub fn of_io(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Returns the cause of a TLS error in words. `trust` is the remedy for a certificate of an unknown
/// authority.
pub fn describe(error: &Error, trust: &str) -> String {
    let text = match error {
        Error::InvalidCertificate(cause) => return describe_certificate(cause, trust),
        Error::InconsistentKeys(_) => "the key does not match the certificate",
        Error::InvalidMessage(_) => "the peer does not use TLS; check the port and the scheme",
        Error::PeerIncompatible(_) => "the peer supports neither TLS 1.2 nor TLS 1.3 with a common cipher suite",
        Error::AlertReceived(alert) => {
            return format!("the peer refused the connection ({})", words(&format!("{alert:?}")));
        }
        error => {
            let text = error.to_string();
            // The part before the colon is prose, the rest can be debug output.
            return text.split(": ").next().unwrap_or_default().to_owned();
        }
    };
    text.to_owned()
}

fn describe_certificate(error: &CertificateError, trust: &str) -> String {
    use CertificateError as Cause;
    let text = match error {
        Cause::UnknownIssuer => return format!("the certificate's issuer is not trusted; {trust}"),
        Cause::Expired | Cause::ExpiredContext { .. } => "the certificate has expired; renew it",
        Cause::NotValidYet | Cause::NotValidYetContext { .. } => "the certificate is not valid yet; check the clocks",
        Cause::NotValidForName | Cause::NotValidForNameContext { .. } => {
            "the certificate is for another host name; use a name that it contains"
        }
        Cause::Revoked => "the certificate is revoked",
        Cause::BadEncoding => "the certificate is not a valid X.509 certificate",
        Cause::InvalidPurpose | Cause::InvalidPurposeContext { .. } => "the certificate is not for this purpose",
        // The type of this error is private to rustls.
        cause if format!("{cause:?}").contains("CaUsedAsEndEntity") => {
            "the certificate is that of a certificate authority; use a server certificate"
        }
        _ => "the certificate is invalid",
    };
    text.to_owned()
}

/// Separates the words of a camel-case name.
fn words(name: &str) -> String {
    let mut words = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// Returns the cause of a PEM error in words.
pub fn describe_pem(error: &pem::Error) -> String {
    let text = match error {
        pem::Error::Io(error) => return error.to_string(),
        pem::Error::MissingSectionEnd { .. } => "a PEM section has no end line; the file may be truncated",
        pem::Error::IllegalSectionStart { .. } => "a PEM section has an invalid first line",
        pem::Error::Base64Decode(_) => "a PEM section is not valid base64",
        pem::Error::NoItemsFound => "the file contains no PEM section of the expected kind",
        _ => "the file is not valid PEM",
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_errors_are_described_in_words() {
        for (error, expected) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "issuer is not trusted",
            ),
            (
                Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "does not use TLS",
            ),
            (
                Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch),
                "does not match the certificate",
            ),
            (
                Error::AlertReceived(rustls::AlertDescription::HandshakeFailure),
                "(handshake failure)",
            ),
        ] {
            let text = describe(&error, "trust it");
            assert!(text.contains(expected), "{text}");
        }
    }
}
