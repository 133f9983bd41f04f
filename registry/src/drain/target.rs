//! The meaning of a drain's URL: protocol, host and options.
//!
//! The query of a syslog URL holds the options `framing`, `max`, `bom` and `verify`. The query of
//! an HTTP URL belongs to the receiver; options there start with `tributary.` and are not sent.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

/// The protocol of a drain, from the URL's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Syslog over UDP, one message per datagram: `syslog://`. Delivery is not confirmed.
    Udp,
    /// Syslog over TCP: `syslog+tcp://`.
    Tcp,
    /// Syslog over TLS: `syslog+tls://`.
    Tls,
    /// Logplex frames over HTTP: `http://`.
    Http,
    /// Logplex frames over HTTPS: `https://`.
    Https,
}

/// The framing of syslog messages on a connection.
///
/// *Source*: RFC 6587, section 3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The length, a space, the message.
    OctetCounting,
    /// The message and a line feed.
    LineFeed,
}

/// The receiver of a drain and how to send to it.
#[derive(Clone, PartialEq, Eq)]
pub struct DrainTarget {
    /// The protocol.
    pub protocol: Protocol,
    /// The host name, or the address as text.
    pub host: String,
    /// The address, if the URL contains one.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The framing of syslog over TCP and TLS.
    pub framing: Framing,
    /// The maximum message size in bytes; longer lines are split.
    pub max_message_bytes: usize,
    /// Whether the message text starts with a byte order mark (RFC 5424, section 6.4).
    pub bom: bool,
    /// Whether the receiver's certificate is verified.
    pub verify: bool,
    /// HTTP: path and query.
    pub path_and_query: String,
    /// HTTP: user and password.
    pub credentials: Option<(String, String)>,
    /// HTTP: whether request bodies are compressed with gzip.
    pub gzip: bool,
}

/// The default for UDP: the limit of RFC 3164, which every receiver accepts (RFC 5424, section 6.1,
/// requires 480).
const UDP_BYTES: usize = 1024;

/// The default for TCP and TLS: the limit of Papertrail's own sender.
const TCP_BYTES: usize = 99_990;

/// The default for HTTP, so that a frame holds several lines.
const HTTP_BYTES: usize = 10_000;

/// Hosts that close the connection on longer messages, with their limit.
///
/// *Source*: axiom.co/docs/send-data/secure-syslog: closes above 64 KB.
const HOST_LIMITS: [(&str, usize); 1] = [(".axiom.co", 64_000)];

/// The accepted values of `max`: every receiver accepts the lower bound, none the upper.
const MAX_BYTES: std::ops::RangeInclusive<usize> = 480..=1_000_000;

/// The maximum of `max` for UDP, below the size of a datagram.
const MAX_UDP_BYTES: usize = 65_000;

impl DrainTarget {
    /// Reads a URL whose scheme is supported. The error names the option but contains no part of
    /// the URL.
    pub(crate) fn parse(url: &Url) -> Result<Self, &'static str> {
        let (protocol, port, max_bytes) = match url.scheme() {
            "syslog" => (Protocol::Udp, 514, UDP_BYTES),
            "syslog+tcp" => (Protocol::Tcp, 601, TCP_BYTES),
            "syslog+tls" => (Protocol::Tls, 6514, TCP_BYTES),
            "http" => (Protocol::Http, 80, HTTP_BYTES),
            _ => (Protocol::Https, 443, HTTP_BYTES),
        };
        let host = url.host().ok_or("the URL has no host")?;
        let address = match &host {
            Host::Ipv4(address) => Some((*address).into()),
            Host::Ipv6(address) => Some((*address).into()),
            Host::Domain(_) => None,
        };
        let host = address.map_or_else(|| host.to_string(), |address: IpAddr| address.to_string());
        let host_limit = HOST_LIMITS
            .iter()
            .find(|(end, _)| host.ends_with(end))
            .map(|(_, bytes)| *bytes);
        let mut target = Self {
            protocol,
            address,
            port: url.port().unwrap_or(port),
            framing: Framing::OctetCounting,
            max_message_bytes: host_limit.map_or(max_bytes, |limit| max_bytes.min(limit)),
            bom: false,
            verify: true,
            path_and_query: String::new(),
            credentials: None,
            gzip: false,
            host,
        };
        if protocol.is_http() {
            target.read_http_query(url)?;
        } else {
            for (name, value) in url.query_pairs() {
                target.read_option(&name, &value)?;
            }
        }
        Ok(target)
    }

    fn read_option(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let max = if self.protocol == Protocol::Udp {
            MAX_UDP_BYTES
        } else {
            *MAX_BYTES.end()
        };
        match (name, value) {
            ("framing", "octets") => self.framing = Framing::OctetCounting,
            // RFC 5425, section 4.3, defines only octet counting; receivers accept line feeds too.
            ("framing", "lf") => self.framing = Framing::LineFeed,
            ("framing", _) => return Err("invalid value of the option framing; use framing=octets or framing=lf"),
            ("max", bytes) => {
                let bytes = bytes
                    .parse()
                    .ok()
                    .filter(|bytes| (*MAX_BYTES.start()..=max).contains(bytes));
                self.max_message_bytes = bytes.ok_or("invalid value of the option max; use the maximum message size in bytes, from 480 to 1000000 (65000 over UDP)")?;
            }
            ("bom", "on") => self.bom = true,
            ("bom", "off") => self.bom = false,
            ("bom", _) => return Err("invalid value of the option bom; use bom=on or bom=off"),
            ("verify", _) => self.read_verify(value)?,
            _ => return Err("unknown option in the query; a syslog URL takes framing, max, bom and verify"),
        }
        Ok(())
    }

    fn read_verify(&mut self, value: &str) -> Result<(), &'static str> {
        self.verify = match value {
            "on" => true,
            "off" => false,
            _ => return Err("invalid value of the option verify; use on or off"),
        };
        Ok(())
    }

    fn read_http_query(&mut self, url: &Url) -> Result<(), &'static str> {
        let mut kept = Vec::new();
        // Split by hand: the receiver's parameters are passed on unchanged.
        for pair in url
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            match pair
                .strip_prefix("tributary.")
                .map(|option| option.split_once('=').unwrap_or((option, "")))
            {
                None => kept.push(pair),
                Some(("gzip", "on")) => self.gzip = true,
                Some(("gzip", "off")) => self.gzip = false,
                Some(("gzip", _)) => return Err("invalid value of the option tributary.gzip; use on or off"),
                Some(("verify", value)) => self.read_verify(value)?,
                Some(_) => {
                    return Err(
                        "unknown option with the prefix tributary. in the query; use tributary.gzip or tributary.verify",
                    );
                }
            }
        }
        url.path().clone_into(&mut self.path_and_query);
        if !kept.is_empty() {
            self.path_and_query.push('?');
            self.path_and_query.push_str(&kept.join("&"));
        }
        let text = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let password = url.password().map(text).unwrap_or_default();
        let has_credentials = !url.username().is_empty() || !password.is_empty();
        self.credentials = has_credentials.then(|| (text(url.username()), password));
        Ok(())
    }

    /// Scheme, host and port: the URL without user, password, path and query, for messages.
    pub fn redacted(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Udp => "syslog",
            Protocol::Tcp => "syslog+tcp",
            Protocol::Tls => "syslog+tls",
            Protocol::Http => "http",
            Protocol::Https => "https",
        };
        match self.address {
            Some(IpAddr::V6(address)) => format!("{scheme}://[{address}]:{}", self.port),
            _ => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Protocol {
    /// Whether lines are sent as Logplex frames over HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether the connection uses TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// Omits everything that may be secret.
impl fmt::Debug for DrainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<DrainTarget, &'static str> {
        DrainTarget::parse(&Url::parse(url).unwrap())
    }

    #[test]
    fn the_scheme_sets_protocol_port_and_message_size() {
        for (url, protocol, port, max) in [
            ("syslog://logs.example.com", Protocol::Udp, 514, 1024),
            ("syslog+tcp://logs.example.com", Protocol::Tcp, 601, 99_990),
            ("syslog+tls://logs.example.com", Protocol::Tls, 6514, 99_990),
            ("syslog+tls://eu.axiom.co:6514", Protocol::Tls, 6514, 64_000),
            ("https://logs.example.com", Protocol::Https, 443, 10_000),
            ("http://logs.example.com:81", Protocol::Http, 81, 10_000),
        ] {
            let target = target(url).unwrap();
            assert_eq!(
                (target.protocol, target.port, target.max_message_bytes),
                (protocol, port, max),
                "{url}"
            );
        }
    }

    #[test]
    fn options_are_parsed_and_receiver_parameters_are_kept_unchanged() {
        let read = target("syslog+tls://logs.example.com?framing=lf&max=2048&bom=on&verify=off").unwrap();
        assert_eq!(
            (read.framing, read.max_message_bytes, read.bom, read.verify),
            (Framing::LineFeed, 2048, true, false)
        );
        let read = target("https://u%40x:p%3Aw@example.com/a/b?key=a%2Fb&tributary.gzip=on&verify=1").unwrap();
        assert_eq!(
            (read.path_and_query.as_str(), read.gzip, read.verify),
            ("/a/b?key=a%2Fb&verify=1", true, true)
        );
        assert_eq!(read.credentials, Some(("u@x".to_owned(), "p:w".to_owned())));
        assert_eq!(read.redacted(), "https://example.com:443");
        for invalid in [
            "syslog://h?framing=cr",
            "syslog://h?max=66000",
            "syslog+tcp://h?max=100",
            "syslog+tcp://h?colour=red",
            "https://h/?tributary.gzip=yes",
            "https://h/?tributary.colour=red",
            "syslog+tls://h?verify=no",
        ] {
            assert!(target(invalid).is_err(), "{invalid}");
        }
    }
}
