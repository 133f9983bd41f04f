//! Resolves receivers' host names before each connection, and drops forbidden addresses.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use registry::{AddressPolicy, DrainTarget};

use super::error::DeliveryError;

/// The maximum time that an answer is cached, whatever its TTL.
const MAX_TTL: Duration = Duration::from_secs(10);

/// Resolves host names to allowed addresses.
pub(crate) struct HostResolver {
    resolver: TokioResolver,
    policy: AddressPolicy,
}

impl HostResolver {
    /// Uses this name server, or those of the system.
    ///
    /// # Errors
    /// The system's configuration cannot be read.
    pub(crate) fn new(server: Option<SocketAddr>, policy: AddressPolicy) -> Result<Self, String> {
        let unusable = |error: &dyn std::fmt::Display| format!("cannot set up name resolution: {error}");
        let mut builder = match server {
            Some(server) => {
                let mut connection = ConnectionConfig::udp();
                connection.port = server.port();
                let server = NameServerConfig::new(server.ip(), true, vec![connection]);
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => Resolver::builder_tokio().map_err(|error| unusable(&error))?,
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        (options.positive_max_ttl, options.negative_max_ttl) = (Some(MAX_TTL), Some(MAX_TTL));
        Ok(Self {
            resolver: builder.build().map_err(|error| unusable(&error))?,
            policy,
        })
    }

    /// The allowed addresses of a receiver. Connect to these; a second lookup could return others.
    ///
    /// # Errors
    /// [`DeliveryError::Resolve`], or [`DeliveryError::Forbidden`] if no address is allowed.
    pub(crate) async fn resolve(&self, target: &DrainTarget) -> Result<Vec<SocketAddr>, DeliveryError> {
        let found = match target.address {
            Some(address) => vec![address],
            None => {
                let lookup = self.resolver.lookup_ip(target.host.as_str()).await;
                lookup
                    .map_err(|error| DeliveryError::Resolve(describe(&target.host, &error)))?
                    .iter()
                    .collect()
            }
        };
        if found.is_empty() {
            return Err(DeliveryError::Resolve(format!("{} has no addresses", target.host)));
        }
        let allowed = found.into_iter().filter(|address| self.policy.permits(*address));
        let allowed: Vec<_> = allowed
            .map(|address| SocketAddr::new(address.to_canonical(), target.port))
            .collect();
        if allowed.is_empty() {
            return Err(DeliveryError::Forbidden);
        }
        Ok(allowed)
    }
}

/// Returns the cause of a failed lookup in words.
fn describe(host: &str, error: &NetError) -> String {
    match error {
        error if error.is_nx_domain() => format!("host name {host} not found; check the drain's URL"),
        error if error.is_no_records_found() => format!("{host} has no addresses; check the drain's URL"),
        NetError::Timeout | NetError::NoConnections => "the name server does not respond".to_owned(),
        NetError::Io(error) => format!("cannot reach the name server: {error}"),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server responded for {host}: {code}"),
        _ => format!("the lookup of {host} failed; check the name server"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_errors_are_described_in_words() {
        assert_eq!(
            describe("logs.example", &NetError::Timeout),
            "the name server does not respond"
        );
        let other = describe("logs.example", &NetError::Message("Query { name }"));
        assert!(!other.contains('{'), "{other}");
    }
}
