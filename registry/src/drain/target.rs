//! What a drain's URL means: what is spoken, where, and how.
//!
//! Of a syslog URL, what stands behind `?` are options: `framing`, `max`, `bom`, `verify`. Of a web URL it is the receiver's; there the options begin with `tributary.`, and
//! are not sent.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Syslog, a message a datagram: `syslog://`. What is lost on the way nobody can know.
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

/// How messages are told apart on a connection.
///
/// *Source*: RFC 6587, section 3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each begins with its length.
    Octets,
    /// Each ends in a newline.
    Lf,
}

/// Where a drain leads, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// What is spoken.
    pub protocol: Protocol,
    /// To whom: a name, or an address as text.
    pub host: String,
    /// The same, where it is an address.
    pub address: Option<IpAddr>,
    /// Where.
    pub port: u16,
    /// How messages are told apart.
    pub framing: Framing,
    /// The longest message in bytes; a line that needs more becomes several.
    pub max_bytes: usize,
    /// Whether messages begin with a byte order mark (RFC 5424, section 6.4).
    pub bom: bool,
    /// Whether who answers has to prove who it is.
    pub verify: bool,
    /// Of the web: path and query.
    pub path: String,
    /// Of the web: user and password.
    pub login: Option<(String, String)>,
    /// Of the web: whether frames are compressed.
    pub gzip: bool,
}

/// The size that every receiver of UDP takes (RFC 5424, section 6.1, asks for 480; 1,024 was RFC 3164's).
const UDP_BYTES: usize = 1024;

/// What Papertrail's own sender sends at most in a line over TCP.
const TCP_BYTES: usize = 99_990;

/// A frame holds some lines at least.
const WEB_BYTES: usize = 10_000;

/// Receivers that close a connection over what others take: host, and what it takes.
///
/// *Source*: axiom.co/docs/send-data/secure-syslog: closes above 64 KB.
const SMALLER: [(&str, usize); 1] = [(".axiom.co", 64_000)];

/// The least that a receiver must take, and more than any takes.
const MAX_BYTES: std::ops::RangeInclusive<usize> = 480..=1_000_000;

/// What a datagram can hold at all.
const MAX_UDP_BYTES: usize = 65_000;

impl Target {
    /// Reads a URL that is known to be one. Fails with what is wrong with an option, without words of the URL.
    pub(crate) fn of(url: &Url) -> Result<Self, &'static str> {
        let (protocol, port, max_bytes) = match url.scheme() {
            "syslog" => (Protocol::Udp, 514, UDP_BYTES),
            "syslog+tcp" => (Protocol::Tcp, 601, TCP_BYTES),
            "syslog+tls" => (Protocol::Tls, 6514, TCP_BYTES),
            "http" => (Protocol::Http, 80, WEB_BYTES),
            _ => (Protocol::Https, 443, WEB_BYTES),
        };
        let host = url.host().ok_or("names no host")?;
        let address = match &host {
            Host::Ipv4(address) => Some((*address).into()),
            Host::Ipv6(address) => Some((*address).into()),
            Host::Domain(_) => None,
        };
        let host = address.map_or_else(|| host.to_string(), |address: IpAddr| address.to_string());
        let smaller = SMALLER
            .iter()
            .find(|(end, _)| host.ends_with(end))
            .map(|(_, bytes)| *bytes);
        let mut target = Self {
            protocol,
            address,
            port: url.port().unwrap_or(port),
            framing: Framing::Octets,
            max_bytes: smaller.map_or(max_bytes, |bytes| max_bytes.min(bytes)),
            bom: false,
            verify: true,
            path: String::new(),
            login: None,
            gzip: false,
            host,
        };
        if protocol.is_web() {
            target.read_web(url)?;
        } else {
            for (name, value) in url.query_pairs() {
                target.read_option(&name, &value)?;
            }
        }
        Ok(target)
    }

    fn read_option(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let most = if self.protocol == Protocol::Udp {
            MAX_UDP_BYTES
        } else {
            *MAX_BYTES.end()
        };
        match (name, value) {
            ("framing", "octets") => self.framing = Framing::Octets,
            // RFC 5425, section 4.3, knows no other framing; receivers do.
            ("framing", "lf") => self.framing = Framing::Lf,
            ("framing", _) => return Err("framing: give octets or lf"),
            ("max", bytes) => {
                let bytes = bytes
                    .parse()
                    .ok()
                    .filter(|bytes| (*MAX_BYTES.start()..=most).contains(bytes));
                self.max_bytes =
                    bytes.ok_or("max: give the longest message in bytes, between 480 and 1000000 (65000 over UDP)")?;
            }
            ("bom", "on") => self.bom = true,
            ("bom", "off") => self.bom = false,
            ("bom", _) => return Err("bom: give on or off"),
            ("verify", _) => self.read_verify(value)?,
            _ => return Err("unknown option: there are framing, max, bom and verify"),
        }
        Ok(())
    }

    fn read_verify(&mut self, value: &str) -> Result<(), &'static str> {
        self.verify = match value {
            "on" => true,
            "off" => false,
            _ => return Err("verify: give on or off"),
        };
        Ok(())
    }

    fn read_web(&mut self, url: &Url) -> Result<(), &'static str> {
        let mut kept = Vec::new();
        // As they were typed: what is the receiver's is not spelt anew.
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
                Some(("gzip", _)) => return Err("tributary.gzip: give on or off"),
                Some(("verify", value)) => self.read_verify(value)?,
                Some(_) => return Err("unknown option: there are tributary.gzip and tributary.verify"),
            }
        }
        url.path().clone_into(&mut self.path);
        if !kept.is_empty() {
            self.path.push('?');
            self.path.push_str(&kept.join("&"));
        }
        let text = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let password = url.password().map(text).unwrap_or_default();
        let has_login = !url.username().is_empty() || !password.is_empty();
        self.login = has_login.then(|| (text(url.username()), password));
        Ok(())
    }

    /// As it may be told to anybody: without user, password, path and query.
    pub fn shown(&self) -> String {
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
    /// Whether frames are sent by HTTP.
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// Whether the connection is within TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }
}

/// Without what may be secret.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, &'static str> {
        Target::of(&Url::parse(url).unwrap())
    }

    #[test]
    fn a_scheme_says_what_is_spoken_and_where_unless_told_otherwise() {
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
                (target.protocol, target.port, target.max_bytes),
                (protocol, port, max),
                "{url}"
            );
        }
    }

    #[test]
    fn options_are_read_and_what_is_the_receivers_is_sent_as_it_was_typed() {
        let read = target("syslog+tls://logs.example.com?framing=lf&max=2048&bom=on&verify=off").unwrap();
        assert_eq!(
            (read.framing, read.max_bytes, read.bom, read.verify),
            (Framing::Lf, 2048, true, false)
        );
        let read = target("https://u%40x:p%3Aw@example.com/a/b?key=a%2Fb&tributary.gzip=on&verify=1").unwrap();
        assert_eq!(
            (read.path.as_str(), read.gzip, read.verify),
            ("/a/b?key=a%2Fb&verify=1", true, true)
        );
        assert_eq!(read.login, Some(("u@x".to_owned(), "p:w".to_owned())));
        assert_eq!(read.shown(), "https://example.com:443");
        for wrong in [
            "syslog://h?framing=cr",
            "syslog://h?max=66000",
            "syslog+tcp://h?max=100",
            "syslog+tcp://h?colour=red",
            "https://h/?tributary.gzip=yes",
            "https://h/?tributary.colour=red",
            "syslog+tls://h?verify=no",
        ] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
