//! The client's address behind trusted proxies.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Lists the addresses that a request came through; each proxy appends one.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns the client's address: the peer's, or if the peer is a trusted proxy, the last address in
/// `X-Forwarded-For` that is not one.
///
/// Earlier addresses are ignored because the client can set them.
pub(crate) fn client(peer: SocketAddr, headers: &HeaderMap, proxies: &[IpNet]) -> SocketAddr {
    let is_proxy = |address: IpAddr| proxies.iter().any(|network| network.contains(&address));
    let mut client = peer.ip().to_canonical();
    let lists: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
    let lists = lists.iter().rev().map(|list| list.to_str().unwrap_or_default());
    for address in lists.flat_map(|list| list.rsplit(',')) {
        if !is_proxy(client) {
            break;
        }
        let Some(address) = parse(address.trim()) else { break };
        client = address;
    }
    SocketAddr::new(client, peer.port())
}

/// Parses an address, with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port)?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_address(peer: &str, lists: &[&str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        let peer = SocketAddr::new(peer.parse().unwrap(), 1);
        client(peer, &headers, &proxies).ip().to_string()
    }

    #[test]
    fn the_header_is_trusted_only_from_trusted_proxies() {
        assert_eq!(
            client_address("192.0.2.1", &["203.0.113.9"]),
            "192.0.2.1",
            "not a trusted proxy"
        );
        assert_eq!(client_address("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client_address("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client_address("::ffff:10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client_address("fd00::1", &["[2001:db8::1]:80"]), "2001:db8::1");
        let through_two = ["1.1.1.1, 203.0.113.9", "10.9.9.9"];
        assert_eq!(
            client_address("10.0.0.1", &through_two),
            "203.0.113.9",
            "the client can set the first address"
        );
        assert_eq!(
            client_address("10.0.0.1", &["203.0.113.9, junk"]),
            "10.0.0.1",
            "an invalid address ends the search"
        );
    }
}
