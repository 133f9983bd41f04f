//! The streamer: its listener and its limits.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::registry::Registry;
use anyhow::Context;
use clap::{Args, builder::RangedU64ValueParser};
use ipnet::IpNet;
use streamer::{Access, AllowedOrigins, DrainService, Listener, Tls};
use system::net::TcpListener;

use crate::{
    bind_error::bind_error,
    flags::{auth::AuthArgs, drains::DrainArgs},
};

/// Flags of a service that serves readers.
#[derive(Args)]
#[command(next_help_heading = "Reading")]
pub(crate) struct ReadArgs {
    /// Serve clients on this address; port 0 means any free port
    #[arg(
        long,
        env = "TRIBUTARY_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080",
        value_parser = crate::flags::values::listen
    )]
    pub(crate) listen: SocketAddr,
    /// Limit the history of one request to this many lines
    #[arg(
        long,
        env = "TRIBUTARY_MAX_NUM_LINES",
        value_name = "N",
        default_value_t = 1_000_000,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..)
    )]
    pub(crate) max_num_lines: u64,
    /// Limit the number of live tails
    #[arg(
        long,
        env = "TRIBUTARY_MAX_TAILS",
        value_name = "N",
        default_value_t = 50_000,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_tails: usize,
    /// Limit the number of live tails of one app
    #[arg(
        long,
        env = "TRIBUTARY_MAX_TAILS_PER_APP",
        value_name = "N",
        default_value_t = 20_000,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_tails_per_app: usize,
    /// Limit the number of live tails from one client address (IPv6: one /64); loopback is exempt
    #[arg(
        long,
        env = "TRIBUTARY_MAX_TAILS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 200,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..)
    )]
    pub(crate) max_tails_per_address: usize,
    /// Keep an app's subscription open this long after the last reader disconnects
    #[arg(
        long,
        env = "TRIBUTARY_IDLE_SUBSCRIPTION_TIMEOUT",
        alias = "linger",
        value_name = "TIME",
        default_value = "1m",
        value_parser = crate::flags::values::duration
    )]
    pub(crate) idle_subscription_timeout: Duration,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    #[command(flatten)]
    pub(crate) drains: DrainArgs,
}

/// TLS, proxies and browsers.
#[derive(Args)]
#[command(next_help_heading = "Auth & TLS")]
pub(crate) struct TlsArgs {
    /// Serve TLS with this certificate chain (PEM), reloaded when the file changes [default: plain
    /// HTTP]
    #[arg(long, env = "TRIBUTARY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Use this private key (PEM) with --tls-cert
    #[arg(long, env = "TRIBUTARY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Trust X-Forwarded-For from proxies in this network, such as 10.0.0.0/8; repeatable
    #[arg(long, env = "TRIBUTARY_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = crate::flags::values::network)]
    trusted_proxy: Vec<IpNet>,
    /// Allow requests from pages of this origin, such as `https://console.example.com`; repeatable
    /// [default: the server's own origin]
    ///
    /// With --auth none the Host header must be an IP address, localhost or an allowed origin
    /// (DNS-rebinding protection).
    #[arg(long, env = "TRIBUTARY_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,
}

impl ReadArgs {
    /// Returns one message for each invalid value.
    pub(crate) fn validation_errors(&self) -> Vec<String> {
        let mut errors = self.auth.validation_errors(self.listen);
        if let Err(error) = AllowedOrigins::new(&self.tls.allow_origin) {
            errors.push(format!("--allow-origin: {error}"));
        }
        errors
    }

    /// Binds `--listen`.
    ///
    /// # Errors
    /// One line with the address, the cause and the flag.
    pub(crate) async fn bind(&self) -> anyhow::Result<TcpListener> {
        let listener = streamer::bind(self.listen).await;
        listener.map_err(|error| bind_error(self.listen, &error, "--listen"))
    }

    /// Returns the listener with its TLS, proxy and origin settings.
    ///
    /// # Errors
    /// One line with the flag and the cause.
    pub(crate) fn listener(&self, listener: TcpListener) -> anyhow::Result<Listener> {
        let tls = &self.tls;
        let origins = AllowedOrigins::new(&tls.allow_origin).context("cannot use --allow-origin")?;
        let origins = if self.auth.requires_host_check() {
            origins.with_host_check()
        } else {
            origins
        };
        let listener = Listener::from(listener)
            .with_proxies(tls.trusted_proxy.clone())
            .with_origins(origins);
        let (Some(certificate), Some(key)) = (&tls.tls_cert, &tls.tls_key) else {
            return Ok(listener);
        };
        let tls = Tls::open(certificate, key).context("cannot use --tls-cert and --tls-key")?;
        Ok(listener.with_tls(tls))
    }

    /// Returns the URL of the listener.
    pub(crate) fn url(&self, addr: SocketAddr) -> String {
        let scheme = if self.tls.tls_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{addr}")
    }

    /// Returns the access rules. `kubernetes` is the cluster that decides with `--auth kubernetes`;
    /// `None` means that of the current kubeconfig.
    ///
    /// # Errors
    /// One line with the flag and what to do.
    pub(crate) async fn access(
        &self,
        registry: Option<Arc<dyn Registry>>,
        kubernetes: Option<kube::Client>,
    ) -> anyhow::Result<Access> {
        self.auth.access(registry, kubernetes).await
    }

    /// Returns the service that manages the registry's drains.
    ///
    /// # Errors
    /// One line with the flags and the cause.
    pub(crate) fn drain_service(&self, registry: Option<Arc<dyn Registry>>) -> anyhow::Result<DrainService> {
        let drains =
            DrainService::new(registry).with_limits(self.drains.send.addresses(), self.drains.max_drains_per_app);
        Ok(drains.with_prober(self.drains.send.prober()?))
    }

    /// Returns the settings of the streamer.
    pub(crate) fn config(&self, retention: Duration) -> streamer::Config {
        streamer::Config {
            max_num_lines: self.max_num_lines,
            max_tails: self.max_tails,
            max_tails_per_app: self.max_tails_per_app,
            max_tails_per_address: self.max_tails_per_address,
            idle_subscription_timeout: self.idle_subscription_timeout,
            history: retention,
            ..streamer::Config::default()
        }
    }
}
