//! Resolves receivers' host names before each connection, and drops forbidden addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    Resolver, ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig},
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
        let mut builder = builder(server).map_err(|error| unusable(&error))?;
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
            None => self.lookup(&target.host).await.map_err(DeliveryError::Resolve)?,
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

    /// The addresses of a host, or why there are none.
    async fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Some(found) = system::net::simulated_lookup(host).await {
            return found.map_err(|error| format!("the lookup of {host} failed: {error}"));
        }
        match self.resolver.lookup_ip(host).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) => Err(describe(host, &error)),
        }
    }
}

fn builder(server: Option<SocketAddr>) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
    let with_servers = |servers| {
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    if system::net::is_simulated() {
        // It is never asked, so it does not read the machine's files.
        let mut builder = with_servers(Vec::new());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        return Ok(builder);
    }
    let Some(server) = server else {
        return Resolver::builder_tokio();
    };
    let mut connection = ConnectionConfig::udp();
    connection.port = server.port();
    Ok(with_servers(vec![NameServerConfig::new(
        server.ip(),
        true,
        vec![connection],
    )]))
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
