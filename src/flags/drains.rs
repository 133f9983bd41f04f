//! Drains: where they may lead and how lines are sent to them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ::registry::{AddressPolicy, Prober};
use anyhow::Context;
use clap::Args;
use ipnet::IpNet;
use sinks::{Config, DrainProber};

/// Flags of a service that manages drains.
#[derive(Args)]
#[command(next_help_heading = "Drains")]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    pub(crate) send: SendArgs,
    /// Allow at most this many drains per app
    #[arg(long, env = "TRIBUTARY_MAX_DRAINS_PER_APP", value_name = "N", default_value_t = streamer::MAX_DRAINS)]
    pub(crate) max_drains_per_app: usize,
}

/// Flags of a service that connects to drains.
#[derive(Args)]
#[command(next_help_heading = "Drains")]
pub(crate) struct SendArgs {
    /// Allow drains in this network, such as 10.1.0.0/16; repeatable [default: public addresses
    /// only]
    #[arg(long, env = "TRIBUTARY_ALLOW_ADDRESS", value_name = "CIDR", value_delimiter = ',', value_parser = crate::flags::values::network)]
    allow_address: Vec<IpNet>,
    /// Trust these certificate authorities (PEM) for TLS drains, in addition to the
    /// system's
    #[arg(long, env = "TRIBUTARY_DRAIN_CA", value_name = "FILE")]
    drain_ca: Option<PathBuf>,
    /// Present this client certificate (PEM) to drains that request one
    #[arg(long, env = "TRIBUTARY_DRAIN_CERT", value_name = "FILE", requires = "drain_key")]
    drain_cert: Option<PathBuf>,
    /// Use this private key (PEM) with --drain-cert
    #[arg(long, env = "TRIBUTARY_DRAIN_KEY", value_name = "FILE", requires = "drain_cert")]
    drain_key: Option<PathBuf>,
}

impl SendArgs {
    /// Returns the addresses that drains may lead to.
    pub(crate) fn addresses(&self) -> AddressPolicy {
        AddressPolicy::with_allowed(self.allow_address.clone())
    }

    /// Returns the settings of sinks. `holder` is the name that takes the leases of drains.
    pub(crate) fn config(&self, retention: Duration, holder: String) -> Config {
        Config {
            addresses: self.addresses(),
            holder,
            retention,
            ca: self.drain_ca.clone(),
            identity: self.drain_cert.clone().zip(self.drain_key.clone()),
            ..Config::default()
        }
    }

    /// Returns the prober that tests drains.
    ///
    /// # Errors
    /// One line with the flags and the cause.
    pub(crate) fn prober(&self) -> anyhow::Result<Arc<dyn Prober>> {
        let config = self.config(Duration::ZERO, String::new());
        let probe = DrainProber::new(&config).context("cannot use --drain-ca, --drain-cert and --drain-key")?;
        Ok(Arc::new(probe))
    }
}
