//! The addresses that drains may connect to: public ones, and those the operator allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses that drains may connect to: public addresses, and the networks that the operator
/// allows.
///
/// Check an address in a drain's URL when the drain is added, and the resolved address before each
/// connection.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Allows public addresses and these networks.
    pub fn with_allowed(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a drain may connect to this address.
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        is_public(address) || self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// Whether an address is globally reachable: not loopback, private, link-local (cloud metadata) or
/// reserved.
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
        // Carrier-grade NAT.
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
        // NAT64 embeds an IPv4 address.
        (0x64, 0xff9b) => [c, d, e, f] == [0; 4] && embedded(g, h),
        // 6to4 embeds an IPv4 address.
        (0x2002, high) => embedded(high, c),
        // Protocol assignments (Teredo among them), and documentation.
        (0x2001, 0..0x200 | 0xdb8) => false,
        // Global unicast; the rest is local, multicast or reserved.
        (0x2000..0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &AddressPolicy, address: &str) -> bool {
        policy.permits(address.parse().unwrap())
    }

    #[test]
    fn non_public_addresses_are_refused_in_every_notation() {
        let public = AddressPolicy::default();
        for address in [
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
            assert!(!permits(&public, address), "{address}");
        }
        for address in [
            "8.8.8.8",
            "93.184.216.34",
            "2606:2800:220:1::1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::",
            "172.32.0.1",
        ] {
            assert!(permits(&public, address), "{address}");
        }
    }

    #[test]
    fn allowed_networks_are_permitted() {
        let policy = AddressPolicy::with_allowed(vec!["10.1.0.0/16".parse().unwrap()]);
        assert!(permits(&policy, "10.1.2.3"));
        assert!(permits(&policy, "::ffff:10.1.2.3"));
        assert!(!permits(&policy, "10.2.2.3"));
    }
}
