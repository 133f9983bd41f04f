//! Who asks, where a proxy asks for them.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// What proxies write into a request: whom it came from, each behind the ones before it.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of who asks: the peer, or where that is a proxy that is trusted, the last address that none of those has.
///
/// What stands before that address, anybody can have written.
pub(crate) fn client(peer: SocketAddr, headers: &HeaderMap, proxies: &[IpNet]) -> SocketAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(&address));
    let mut client = peer.ip().to_canonical();
    let lists: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let lists = lists.iter().rev().map(|list| list.to_str().unwrap_or_default());
    for address in lists.flat_map(|list| list.rsplit(',')) {
        if !is_proxy(client) {
            break;
        }
        let Some(address) = read(address.trim()) else { break };
        client = address;
    }
    SocketAddr::new(client, peer.port())
}

/// An address as proxies write it: some with its port.
fn read(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(peer: &str, lists: &[&str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        client(peer, &headers, &proxies).ip().to_string()
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_nobody_else() {
        assert_eq!(asks("192.0.2.1", &["203.0.113.9"]), "192.0.2.1", "no proxy of ours");
        assert_eq!(asks("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(asks("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(asks("::ffff:10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(asks("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        let through_two = ["1.1.1.1, 203.0.113.9", "10.9.9.9"];
        assert_eq!(
            asks("10.0.0.1", &through_two),
            "203.0.113.9",
            "the first was written by who asks"
        );
        assert_eq!(
            asks("10.0.0.1", &["203.0.113.9, junk"]),
            "10.0.0.1",
            "what cannot be read ends it"
        );
    }
}
