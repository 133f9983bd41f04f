//! Which addresses a drain may lead to: never the operator's own network, unless the operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses that drains may lead to: the public ones, and those that the operator allows.
///
/// To be asked when a drain is added, where its URL holds an address, and at each connect, on the address that is dialled.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    allowed: Vec<IpNet>,
}

impl Addresses {
    /// The public ones and these.
    pub fn allowing(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a drain may lead there.
    pub fn permit(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// Whether an address is anybody's to reach: not this machine, not its network, not what a cloud tells its machines.
///
/// *Source*: the IANA special-purpose address registries (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        // Shared by a provider's customers.
        || (a == 100 && (64..128).contains(&b))
        // Protocol assignments, and benchmarks.
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        // Reserved, and broadcast.
        || a >= 240;
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([w, x], [y, z]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(w, x, y, z))
    };
    match (a, b) {
        // NAT64: what stands behind it is an address of IPv4.
        (0x64, 0xff9b) => [c, d, e, f] == [0; 4] && embedded(g, h),
        // 6to4, likewise.
        (0x2002, high) => embedded(high, c),
        // Protocol assignments (Teredo among them), and documentation.
        (0x2001, 0..0x200 | 0xdb8) => false,
        // What is given out at all: the rest is local, multicast or reserved.
        (0x2000..0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(addresses: &Addresses, address: &str) -> bool {
        addresses.permit(address.parse().unwrap())
    }

    #[test]
    fn the_operators_own_network_is_out_of_reach_however_it_is_spelt() {
        let public = Addresses::default();
        for own in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
        ] {
            assert!(!permitted(&public, own), "{own}");
        }
        for other in [
            "8.8.8.8",
            "93.184.216.34",
            "2606:2800:220:1::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "172.32.0.1",
        ] {
            assert!(permitted(&public, other), "{other}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_reached() {
        let allowing = Addresses::allowing(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(permitted(&allowing, "10.1.2.3"));
        assert!(permitted(&allowing, "::ffff:10.1.2.3"));
        assert!(!permitted(&allowing, "10.2.2.3"));
    }
}
