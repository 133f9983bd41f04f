//! Where a drain leads, as it is typed: what can be meant, and what is refused.

use std::fmt;

use url::{Host, Url};

use super::{address::Addresses, target::Target};

/// How long a drain's URL may be: longer than any provider's, and short enough for what keeps it.
const MAX_URL_BYTES: usize = 2048;

/// What drains speak.
const SCHEMES: [&str; 5] = ["syslog", "syslog+tcp", "syslog+tls", "https", "http"];

/// A URL that a drain can have: a known scheme, a host, and no address that drains may not lead to.
///
/// Kept as it was typed, because that is how it is listed. A host name is not looked up here, but at each connect.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainUrl {
    text: String,
    target: Target,
}

/// Why a URL is no drain's. ASCII, and without a word of the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDrainUrl(&'static str);

impl DrainUrl {
    /// Reads it, as it was typed.
    ///
    /// # Errors
    /// [`InvalidDrainUrl`], for who typed it.
    pub fn parse(text: &str, addresses: &Addresses) -> Result<Self, InvalidDrainUrl> {
        let wrong = |reason| Err(InvalidDrainUrl(reason));
        if text.len() > MAX_URL_BYTES {
            return wrong("longer than 2048 bytes");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong("contains a blank or a control character");
        }
        let Ok(url) = Url::parse(text) else {
            return wrong(
                "not a URL: give one such as syslog+tls://logs.example.com:6514 or https://logs.example.com/path",
            );
        };
        if !SCHEMES.contains(&url.scheme()) {
            return wrong("the scheme must be one of syslog, syslog+tcp, syslog+tls, https, http");
        }
        if url.port() == Some(0) {
            return wrong("port 0 leads nowhere");
        }
        if url.fragment().is_some() {
            return wrong("ends in a fragment (#), which no receiver gets to see");
        }
        let refused = "leads to this machine or to a private network, where drains may not go";
        let address = match url.host() {
            None => return wrong("names no host"),
            Some(Host::Domain("")) => return wrong("names no host"),
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(name)) => match literal(name) {
                Ok(address) => address,
                Err(()) => return wrong(refused),
            },
        };
        match address {
            Some(address) if !addresses.permit(address) => wrong(refused),
            _ => match Target::of(&url) {
                Ok(target) => Ok(Self {
                    text: text.to_owned(),
                    target,
                }),
                Err(reason) => wrong(reason),
            },
        }
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// The address that a host's name spells. Only web URLs are read so by the parser, and the system's resolver takes all spellings: `127.1`, `0x7f000001`.
fn literal(name: &str) -> Result<Option<std::net::IpAddr>, ()> {
    let host = Url::parse(&format!("http://{name}/")).map_err(drop)?;
    match host.host() {
        Some(Host::Ipv4(address)) => Ok(Some(address.into())),
        Some(Host::Ipv6(address)) => Ok(Some(address.into())),
        // RFC 6761, section 6.3: it and all below it are this machine.
        Some(Host::Domain(name)) if is_localhost(name) => Ok(Some(std::net::Ipv4Addr::LOCALHOST.into())),
        _ => Ok(None),
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// Without the URL: it may hold a password.
impl fmt::Debug for DrainUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrainUrl")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_providers_tell_their_customers_to_type_is_taken_as_typed() {
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
            let parsed = DrainUrl::parse(url, &Addresses::default());
            assert_eq!(parsed.as_ref().map(DrainUrl::as_str), Ok(url));
        }
    }

    #[test]
    fn what_leads_nowhere_or_into_the_operators_network_is_refused_with_a_reason() {
        for (url, reason) in [
            ("logs.example.com:514", "the scheme"),
            ("nonsense", "not a URL"),
            ("", "not a URL"),
            ("ftp://example.com/", "the scheme"),
            ("syslog+tls:///x", "names no host"),
            ("https://example.com:0/", "port 0"),
            ("https://example.com/#x", "fragment"),
            ("https://exa mple.com/", "blank"),
            ("https://example.com/\u{0}", "control"),
            ("https://localhost/", "this machine"),
            ("https://a.LOCALHOST./", "this machine"),
            ("syslog://localhost:514", "this machine"),
            ("syslog://127.0.0.1:514", "this machine"),
            ("syslog://127.1:514", "this machine"),
            ("syslog+tcp://0x7f000001:514", "this machine"),
            ("https://2130706433/", "this machine"),
            ("https://169.254.169.254/latest", "private network"),
            ("syslog+tls://[::1]:6514", "this machine"),
            ("https://[::ffff:10.0.0.1]/", "private network"),
        ] {
            let error = DrainUrl::parse(url, &Addresses::default()).unwrap_err().to_string();
            assert!(error.contains(reason), "{url}: {error}");
        }
        let long = format!("https://example.com/{}", "x".repeat(MAX_URL_BYTES));
        assert!(DrainUrl::parse(&long, &Addresses::default()).is_err());
    }
}
