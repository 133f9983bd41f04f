//! A receiver's addresses: looked up with each dial, and never in the operator's network.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};
use registry::{Addresses, Target};

use crate::transport::error::Failure;

/// How long an answer is remembered at most, whatever it says itself.
const MAX_TTL: Duration = Duration::from_secs(10);

/// Looks names up, and lets through what drains may lead to.
pub(crate) struct Names {
    resolver: TokioResolver,
    addresses: Addresses,
}

impl Names {
    /// Asks this server, or those of the machine.
    ///
    /// # Errors
    /// Where the machine's configuration cannot be read, in words.
    pub(crate) fn new(server: Option<SocketAddr>, addresses: Addresses) -> Result<Self, String> {
        let unusable = |error: &dyn std::fmt::Display| format!("names cannot be looked up: {error}");
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
            addresses,
        })
    }

    /// Where this receiver can be dialled. What is returned is what is to be dialled: nothing is looked up again.
    ///
    /// # Errors
    /// [`Failure::Resolve`], [`Failure::Forbidden`] where all of it lies where drains may not go.
    pub(crate) async fn of(&self, target: &Target) -> Result<Vec<SocketAddr>, Failure> {
        let found = match target.address {
            Some(address) => vec![address],
            None => {
                let looked = self.resolver.lookup_ip(target.host.as_str()).await;
                looked
                    .map_err(|error| Failure::Resolve(error.to_string()))?
                    .iter()
                    .collect()
            }
        };
        if found.is_empty() {
            return Err(Failure::Resolve("it has no address".to_owned()));
        }
        let permitted = found.into_iter().filter(|address| self.addresses.permit(*address));
        let permitted: Vec<_> = permitted
            .map(|address| SocketAddr::new(address.to_canonical(), target.port))
            .collect();
        if permitted.is_empty() {
            return Err(Failure::Forbidden);
        }
        Ok(permitted)
    }
}
