//! A drain's URL as it is given: parsed and checked.

use std::{borrow::Cow, fmt};

use url::{Host, ParseError, Url};

use super::{address_policy::AddressPolicy, target::DrainTarget};

/// The maximum length of a drain's URL: longer than any provider's, and bounded for the stores.
const MAX_URL_BYTES: usize = 2048;

/// The supported schemes.
const SCHEMES: [&str; 5] = ["syslog", "syslog+tcp", "syslog+tls", "https", "http"];

/// A valid drain URL: a supported scheme, a host, valid options, and no address that drains may not
/// connect to.
///
/// The text is kept as given and listed that way. A host name is resolved at each connection, not
/// here.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainUrl {
    text: String,
    target: DrainTarget,
}

/// Why a drain URL is invalid. ASCII. Names the scheme or the host if it is invalid, but no other
/// part of the URL, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDrainUrl(Cow<'static, str>);

impl DrainUrl {
    /// Parses and checks a URL.
    ///
    /// # Errors
    /// [`InvalidDrainUrl`] names the invalid part and what to use instead.
    pub fn parse(text: &str, policy: &AddressPolicy) -> Result<Self, InvalidDrainUrl> {
        let invalid = |reason: &'static str| Err(InvalidDrainUrl(reason.into()));
        if text.len() > MAX_URL_BYTES {
            return invalid("the URL is longer than 2048 bytes");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return invalid("the URL contains whitespace or a control character; percent-encode it (a space is %20)");
        }
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(ParseError::InvalidPort) => return invalid("invalid port; use a port from 1 to 65535"),
            Err(ParseError::EmptyHost) => {
                return invalid("the URL has no host; use a form such as syslog+tls://logs.example.com:6514");
            }
            Err(_) => {
                return invalid(
                    "not a URL; use a form such as syslog+tls://logs.example.com:6514 or https://logs.example.com/path",
                );
            }
        };
        if !SCHEMES.contains(&url.scheme()) {
            // Without slashes, the scheme can be the user of a URL whose scheme is missing.
            if text[url.scheme().len()..].starts_with("://") {
                return Err(InvalidDrainUrl(
                    format!(
                        "the scheme {} is not supported; use syslog, syslog+tcp, syslog+tls, https or http",
                        url.scheme()
                    )
                    .into(),
                ));
            }
            return invalid("the scheme is not supported; use syslog, syslog+tcp, syslog+tls, https or http");
        }
        if url.port() == Some(0) {
            return invalid("port 0 is invalid; use a port from 1 to 65535");
        }
        if url.fragment().is_some() {
            return invalid("the URL has a fragment, which is never sent; write # as %23, or remove it");
        }
        let host = url.host_str().unwrap_or_default();
        let forbidden = format!(
            "the host {host} is a loopback, private or reserved address; drains connect to public addresses only, \
             unless the operator allows others with --allow-address"
        );
        let forbidden = || Err(InvalidDrainUrl(forbidden.clone().into()));
        let address = match url.host() {
            None => return invalid("the URL has no host; use a form such as syslog+tls://logs.example.com:6514"),
            Some(Host::Domain("")) => {
                return invalid("the URL has no host; use a form such as syslog+tls://logs.example.com:6514");
            }
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(name)) => match literal(name) {
                Ok(address) => address,
                Err(()) => return forbidden(),
            },
        };
        match address {
            Some(address) if !policy.permits(address) => forbidden(),
            _ => match DrainTarget::parse(&url) {
                Ok(target) => Ok(Self {
                    text: text.to_owned(),
                    target,
                }),
                Err(reason) => invalid(reason),
            },
        }
    }

    /// The URL as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed URL.
    pub fn target(&self) -> &DrainTarget {
        &self.target
    }
}

/// The address that a host name denotes in any notation that system resolvers accept (`127.1`,
/// `0x7f000001`). The URL parser normalizes these only for HTTP URLs, so the name is parsed as one.
fn literal(name: &str) -> Result<Option<std::net::IpAddr>, ()> {
    let host = Url::parse(&format!("http://{name}/")).map_err(drop)?;
    match host.host() {
        Some(Host::Ipv4(address)) => Ok(Some(address.into())),
        Some(Host::Ipv6(address)) => Ok(Some(address.into())),
        // RFC 6761, section 6.3: `localhost` and its subdomains are loopback.
        Some(Host::Domain(name)) if is_localhost(name) => Ok(Some(std::net::Ipv4Addr::LOCALHOST.into())),
        _ => Ok(None),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Omits the URL, which may contain a password.
impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainUrl")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_providers_document_are_accepted_unchanged() {
        for url in [
            "syslog+tls://logs123.papertrailapp.com:12345",
            "syslog://logs.example.com",
            "syslog+tcp://logs.example.com:514?framing=lf",
            "https://user:$KEY@logs.timber.io/sources/7/frames",
            "https://key@logs.timber.io/frames",
            "https://api.logflare.app/logs/logplex?api_key=K&source=S",
            "https://93.184.216.34/x",
            "syslog+tls://[2606:2800:220:1::1]:6514",
        ] {
            let parsed = DrainUrl::parse(url, &AddressPolicy::default());
            assert_eq!(parsed.as_ref().map(DrainUrl::as_str), Ok(url));
        }
    }

    #[test]
    fn invalid_urls_and_forbidden_addresses_are_refused_with_a_reason() {
        for (url, reason) in [
            ("logs.example.com:514", "the scheme"),
            ("nonsense", "not a URL"),
            ("", "not a URL"),
            ("ftp://example.com/", "the scheme"),
            ("syslog+tls:///x", "no host"),
            ("https://example.com:0/", "port 0"),
            ("https://example.com:99999/", "invalid port"),
            ("ftp://example.com/", "the scheme ftp is"),
            ("https://10.0.0.1/", "the host 10.0.0.1 is"),
            ("https://example.com/#x", "fragment"),
            ("https://exa mple.com/", "whitespace"),
            ("https://example.com/\u{0}", "control"),
            ("https://localhost/", "loopback"),
            ("https://a.LOCALHOST./", "loopback"),
            ("syslog://localhost:514", "loopback"),
            ("syslog://127.0.0.1:514", "loopback"),
            ("syslog://127.1:514", "loopback"),
            ("syslog+tcp://0x7f000001:514", "loopback"),
            ("https://2130706433/", "loopback"),
            ("https://169.254.169.254/latest", "private"),
            ("syslog+tls://[::1]:6514", "loopback"),
            ("https://[::ffff:10.0.0.1]/", "private"),
        ] {
            let error = DrainUrl::parse(url, &AddressPolicy::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
        assert!(DrainUrl::parse(&long, &AddressPolicy::default()).is_err());
    }
}
