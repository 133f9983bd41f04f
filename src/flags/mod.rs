//! Flags that several subcommands have, by what they are about.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ::registry::Registry;
use anyhow::{Context, bail};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use collector::AppFrom;
use ipnet::IpNet;
use streamer::{Access, Door, Sites, Tls};
use tokio::net::TcpListener;

pub(crate) mod auth;
pub(crate) mod bus;
pub(crate) mod registry;

use auth::AuthArgs;
use registry::DrainArgs;

/// What `up` and `demo` have in common: every service's flags.
#[derive(Args)]
pub(crate) struct StackArgs {
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// How many bytes of lines are kept, shared evenly: apps above their share lose their oldest first
    #[arg(long, env = "TRIBUTARY_RETENTION_BYTES", value_name = "BYTES", default_value = "1GB")]
    pub(crate) retention_bytes: ByteSize,
}

/// How apps are read.
#[derive(Args)]
pub(crate) struct ReadArgs {
    /// Where readers connect; port 0 takes a free one
    #[arg(
        long,
        env = "TRIBUTARY_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) auth: AuthArgs,
    /// Speaks TLS with this certificate and its chain, PEM; read again when the file changes. Without: plain, for a loopback address or behind a proxy that ends TLS
    #[arg(long, env = "TRIBUTARY_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, env = "TRIBUTARY_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Believes proxies of this network, such as 10.0.0.0/8, whom a request came from (`X-Forwarded-For`); may be given again
    #[arg(long, env = "TRIBUTARY_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    trusted_proxy: Vec<IpNet>,
    /// Lets pages of this site ask, such as `https://console.example.com`; may be given again [default: the server's own alone]
    ///
    /// With --auth none the server is asked by address, by `localhost`, or by the host of such a site: any page could make another name lead here.
    #[arg(long, env = "TRIBUTARY_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<String>,
    #[command(flatten)]
    pub(crate) drains: DrainArgs,
    /// The most lines of history that one request can have
    #[arg(long, env = "TRIBUTARY_MAX_NUM_LINES", value_name = "N", default_value_t = 1_000_000)]
    pub(crate) max_num_lines: u64,
    /// How many may read at once
    #[arg(long, env = "TRIBUTARY_MAX_TAILS", value_name = "N", default_value_t = 50_000)]
    pub(crate) max_tails: usize,
    /// How many may read one app at once
    #[arg(
        long,
        env = "TRIBUTARY_MAX_TAILS_PER_APP",
        value_name = "N",
        default_value_t = 20_000
    )]
    pub(crate) max_tails_per_app: usize,
    /// How many may read at once from one address (IPv6: one /64); this machine's own are not counted
    #[arg(
        long,
        env = "TRIBUTARY_MAX_TAILS_PER_ADDRESS",
        value_name = "N",
        default_value_t = 200
    )]
    pub(crate) max_tails_per_address: usize,
    /// How long an app is read on after its last reader has gone, so that the next one begins at once
    #[arg(
        long,
        env = "TRIBUTARY_LINGER",
        value_name = "TIME",
        default_value = "1m",
        value_parser = humantime::parse_duration
    )]
    pub(crate) linger: Duration,
}

/// How often apps that are gone are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// What is collected.
#[derive(Args)]
pub(crate) struct CollectArgs {
    /// Follow the pods of this node alone [default: of all nodes]
    #[arg(long, env = "TRIBUTARY_NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Collect only pods with these labels, as in `kubectl get pods -l` [default: all]
    ///
    /// A pod with the annotation `tributary.dev/exclude: "true"` is always left out.
    #[arg(long, env = "TRIBUTARY_POD_SELECTOR", value_name = "LABELS")]
    pub(crate) pod_selector: Option<String>,
    /// Collect only pods of namespaces with these labels; needs the right to list namespaces [default: all]
    #[arg(long, env = "TRIBUTARY_NAMESPACE_SELECTOR", value_name = "LABELS")]
    pub(crate) namespace_selector: Option<String>,
    /// What names a pod's app: `namespace`, or `label:KEY`
    #[arg(long, env = "TRIBUTARY_APP_FROM", value_name = "FROM", default_value = "namespace")]
    pub(crate) app_from: AppFrom,
    /// Where the collector keeps how far it has read [default: `checkpoints` in the data directory]
    #[arg(long, env = "TRIBUTARY_CHECKPOINT_DIR", value_name = "DIR")]
    pub(crate) checkpoint_dir: Option<PathBuf>,
    /// Where lines are read; docs/operations.md says which to choose
    #[arg(long, env = "TRIBUTARY_SOURCE", value_enum, default_value_t = Source::Api)]
    pub(crate) source: Source,
    /// Where the node keeps its containers' log files, read with --source files; `demo` has its simulated node write them there
    ///
    /// By default /var/log/pods; for `demo`, `pods` in the data directory.
    #[arg(long, env = "TRIBUTARY_POD_LOG_DIR", value_name = "DIR")]
    pub(crate) pod_log_dir: Option<PathBuf>,
    /// How many bytes a second an app may print on a node, all its containers together [0: what it likes]
    ///
    /// What is above is dropped, and told in the app's log in its place, with the count (L12).
    #[arg(long, env = "TRIBUTARY_APP_RATE", value_name = "BYTES", default_value = "0")]
    pub(crate) app_rate: ByteSize,
    /// How many bytes an app may print at once above its rate [0: ten seconds of it]
    #[arg(long, env = "TRIBUTARY_APP_BURST", value_name = "BYTES", default_value = "0")]
    pub(crate) app_burst: ByteSize,
    /// Remove the topics of apps that have been gone from the cluster for the retention and have no drain; for a bus that this cluster has to itself
    ///
    /// Needs the right to list namespaces, or, where a label names the app, pods.
    #[arg(long, env = "TRIBUTARY_REMOVE_GONE_APPS")]
    pub(crate) remove_gone_apps: bool,
    /// How many bytes wait on disk while the bus is away; past that the oldest are lost, and told (L12)
    #[arg(long, env = "TRIBUTARY_SPOOL_BYTES", value_name = "BYTES", default_value = "1GiB")]
    pub(crate) spool_bytes: ByteSize,
}

/// Where lines are read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// Through the Kubernetes log API
    Api,
    /// From the files that the container runtime writes on this node: stdout and stderr told apart
    Files,
}

/// How long lines are kept.
#[derive(Args)]
pub(crate) struct KeepArgs {
    /// How long lines are kept for readers who ask for history
    #[arg(
        long,
        env = "TRIBUTARY_RETENTION",
        value_name = "TIME",
        default_value = "1d",
        value_parser = humantime::parse_duration
    )]
    pub(crate) retention: Duration,
}

/// Where a service answers operators.
#[derive(Args)]
pub(crate) struct AdminArgs {
    /// Where probes and Prometheus ask: /healthz, /readyz, /metrics
    ///
    /// By default 127.0.0.1 and port 9601 (collector, up, demo), 9602 (streamer), 9603 (sinks), or where that is taken a free port.
    #[arg(long, env = "TRIBUTARY_ADMIN_LISTEN", value_name = "ADDR")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

impl StackArgs {
    /// Finds everything that cannot be meant, all of it at once.
    ///
    /// # Errors
    /// One line with each flag, its value and what is expected.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut wrong = self.read.mistakes();
        wrong.extend(self.keep.mistakes());
        if self.retention_bytes < ByteSize::mb(16) {
            wrong.push(format!(
                "--retention-bytes {}: keep at least 16MB",
                self.retention_bytes
            ));
        }
        wrong.extend(self.collect.mistakes());
        refuse(&wrong)
    }
}

impl ReadArgs {
    /// What cannot be meant.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        wrong.extend(self.auth.mistake(self.listen));
        if self.max_num_lines == 0 {
            wrong.push("--max-num-lines 0: give at least 1".to_owned());
        }
        for (name, most) in [
            ("--max-tails", self.max_tails),
            ("--max-tails-per-app", self.max_tails_per_app),
            ("--max-tails-per-address", self.max_tails_per_address),
        ] {
            if most == 0 {
                wrong.push(format!("{name} 0: give at least 1"));
            }
        }
        wrong
    }

    /// Where clients come in.
    ///
    /// # Errors
    /// One line that says what is wrong with certificate, key or sites.
    pub(crate) fn door(&self, listener: TcpListener) -> anyhow::Result<Door> {
        let sites = Sites::allowing(&self.allow_origin).context("--allow-origin")?;
        let sites = if self.auth.is_open_to_pages() {
            sites.by_address()
        } else {
            sites
        };
        let door = Door::from(listener)
            .with_proxies(self.trusted_proxy.clone())
            .with_sites(sites);
        let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(door);
        };
        let tls = Tls::open(certificate, key).context("no TLS (--tls-cert, --tls-key)")?;
        Ok(door.with_tls(tls))
    }

    /// How what is listened on is asked.
    pub(crate) fn url(&self, addr: SocketAddr) -> String {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        format!("{scheme}://{addr}")
    }

    /// Who may do what, by the keys and drains of this registry, or by what this cluster says (none: that of the current kubeconfig).
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn access(
        &self,
        registry: Option<Arc<dyn Registry>>,
        client: Option<kube::Client>,
    ) -> anyhow::Result<Access> {
        let access = self.auth.access(registry, client).await?;
        let access = access.with_drains(self.drains.send.addresses(), self.drains.max_drains_per_app);
        Ok(access.with_prober(self.drains.send.prober()?))
    }

    /// The streamer's settings; `history` is how long lines are kept.
    pub(crate) fn config(&self, history: Duration) -> streamer::Config {
        streamer::Config {
            max_num_lines: self.max_num_lines,
            max_tails: self.max_tails,
            max_tails_per_app: self.max_tails_per_app,
            max_tails_per_address: self.max_tails_per_address,
            linger: self.linger,
            history,
            ..streamer::Config::default()
        }
    }
}

impl CollectArgs {
    /// What cannot be meant.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.app_rate == ByteSize::b(0) && self.app_burst != ByteSize::b(0) {
            wrong.push(format!("--app-burst {}: give --app-rate too", self.app_burst));
        }
        let small = self.spool_bytes < ByteSize::mib(4);
        let told = || format!("--spool-bytes {}: give at least 4MiB", self.spool_bytes);
        wrong.extend(small.then(told));
        wrong
    }

    /// The collector's settings; its checkpoints lie in `data_dir` unless they were given a place; `retention` is how far history reaches.
    pub(crate) fn config(&self, data_dir: &std::path::Path, retention: Duration) -> collector::Config {
        let checkpoint_dir = self
            .checkpoint_dir
            .clone()
            .unwrap_or_else(|| data_dir.join("checkpoints"));
        collector::Config {
            node_name: self.node_name.clone(),
            pod_selector: self.pod_selector.clone(),
            namespace_selector: self.namespace_selector.clone(),
            app_from: self.app_from.clone(),
            source: match self.source {
                Source::Api => collector::Source::Api,
                Source::Files => collector::Source::Files,
            },
            pod_log_dir: self
                .pod_log_dir
                .clone()
                .unwrap_or_else(|| collector::POD_LOG_DIR.into()),
            app_rate: self.app_rate.as_u64(),
            app_burst: self.app_burst.as_u64(),
            spool_bytes: self.spool_bytes.as_u64(),
            sweep: self.remove_gone_apps.then_some(collector::Sweep {
                gone_for: retention,
                interval: SWEEP_INTERVAL,
            }),
            ..collector::Config::new(checkpoint_dir)
        }
    }
}

impl KeepArgs {
    /// What cannot be meant.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let short = self.retention < Duration::from_secs(60);
        let told = || {
            format!(
                "--retention {}: keep lines for at least 1m",
                humantime::format_duration(self.retention)
            )
        };
        short.then(told).into_iter().collect()
    }
}

/// Refuses a command with all of its mistakes.
///
/// # Errors
/// Where there is one.
pub(crate) fn refuse(mistakes: &[String]) -> anyhow::Result<()> {
    if mistakes.is_empty() {
        return Ok(());
    }
    bail!("{}", mistakes.join("; "))
}

/// Where a user's programs keep what lasts (XDG Base Directory Specification).
///
/// # Errors
/// Where the environment names no place.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    let base =
        base.context("no place to keep data in (neither XDG_DATA_HOME nor HOME is set): give one with --data-dir")?;
    Ok(base.join("tributary"))
}
