//! `tributary demo`: all services in one process on a simulated Kubernetes cluster.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ::registry::{Grant, Role};
use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use kubesim::Scenario;
use tokio_util::sync::CancellationToken;

use crate::{
    all_in_one::Stack,
    console,
    flags::{all_in_one::StackArgs, collecting::Source, simulation::SimulationArgs},
    kube_client,
};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary demo
  tributary demo --auth keys
  tributary demo --listen 127.0.0.1:0 --kubeconfig-out kubeconfig
  tributary demo --scenario scenario.toml";

/// Pods that the demo adds to the built-in scenario.
const IMPORT: &str = include_str!("import.toml");

/// Rate limit of the built-in scenario: the pod `import` exceeds it, which leaves a gap.
const DEMO_RATE: ByteSize = ByteSize::kb(4);
const DEMO_BURST: ByteSize = ByteSize::kb(16);

/// Owner and lifetime of the key that `--auth keys` creates.
const KEY_EMAIL: &str = "demo@example.com";
const DEFAULT_KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The default of `--server`: the commands leave it out then.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    #[command(flatten)]
    simulation: SimulationArgs,
    #[command(flatten)]
    stack: StackArgs,
    /// Store lines, checkpoints and the registry in this directory [default: a temporary directory]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR", help_heading = "Storage")]
    data_dir: Option<PathBuf>,
}

/// Runs until `shutdown`.
pub(crate) async fn run(mut args: DemoArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    args.stack.validate()?;
    let mut scenario = args.simulation.scenario()?;
    let temporary = match &args.data_dir {
        Some(_) => None,
        None => Some(tempfile::tempdir().context("cannot create a temporary directory for the demo; set --data-dir")?),
    };
    let is_temporary = temporary.is_some();
    let given = args.data_dir.unwrap_or_default();
    let data_dir = temporary.as_ref().map_or(given, |dir| dir.path().to_owned());
    let is_built_in = args.simulation.is_built_in();
    let collect = &mut args.stack.collect;
    if collect.source == Source::Files || collect.pod_log_dir.is_some() {
        scenario.log_files.dir = Some(collect.pod_log_dir.get_or_insert_with(|| data_dir.join("pods")).clone());
    }
    let has_demo_rate = is_built_in && collect.app_rate.is_none();
    if is_built_in {
        scenario.pods.extend(Scenario::from_toml(IMPORT)?.pods);
    }
    if has_demo_rate {
        collect.app_rate = Some(DEMO_RATE);
        collect.app_burst = DEMO_BURST;
    }
    let mut apps: Vec<String> = Vec::new();
    for pod in &scenario.pods {
        if !apps.contains(&pod.namespace) {
            apps.push(pod.namespace.clone());
        }
    }
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let cluster = args.simulation.start(any_port, scenario).await?;
    let kubernetes = kube_client::for_simulated(cluster.addr())?;
    let ran = match Stack::start(&args.stack, &data_dir, kubernetes).await {
        Ok(stack) => {
            let stored = (&*data_dir, is_temporary);
            match introduce(&stack, &args.stack, &apps, stored, (is_built_in, has_demo_rate)).await {
                Ok(()) => stack.run(shutdown).await,
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    };
    cluster.shutdown().await;
    ran
}

/// Prints what runs, where, and what to do next, as soon as the apps can be read.
async fn introduce(
    stack: &Stack,
    args: &StackArgs,
    apps: &[String],
    (data_dir, is_temporary): (&Path, bool),
    (is_built_in, has_demo_rate): (bool, bool),
) -> anyhow::Result<()> {
    stack.wait_for_apps(apps).await;
    let key = if args.read.auth.requires_keys() {
        Some(create_key(stack, apps).await?)
    } else {
        None
    };
    let url = stack.url();
    let data = if is_temporary { "removed at exit" } else { "kept" };
    let mut lines = vec![
        format!(
            "Tributary demo: all services on a simulated cluster with {}.",
            match apps {
                [] => "no apps".to_owned(),
                [app] => format!("the app {app}"),
                apps => format!("the apps {}", apps.join(", ")),
            }
        ),
        format!("  API      {url}/openapi.json (listener set by --listen)"),
        format!(
            "  metrics  {}/metrics (admin listener set by --admin-listen)",
            stack.admin_url()
        ),
        format!("  data     {} ({data})", data_dir.display()),
    ];
    if let Some(key) = &key {
        lines.push(format!("  API key  {key} ({KEY_EMAIL}, all apps, valid for 24 hours)"));
    }
    lines.extend([String::new(), "Read an app's logs in another terminal:".to_owned()]);
    let mut flags = String::new();
    if url != DEFAULT_URL {
        flags.push_str(&format!(" --server {url}"));
    }
    if let Some(key) = &key {
        flags.push_str(&format!(" --key {key}"));
    }
    let program = std::env::args().next().unwrap_or_else(|| "tributary".to_owned());
    lines.extend(apps.iter().map(|app| format!("  {program} logs {app}{flags}")));
    let user = key.map(|key| format!("-u {KEY_EMAIL}:{key} ")).unwrap_or_default();
    lines.extend(
        apps.iter()
            .map(|app| format!("  curl -N {user}'{url}/api/apps/{app}/logs'")),
    );
    lines.extend([
        String::new(),
        format!("Forward logs to a drain: {program} drains add --help. Documentation: docs/introduction.md."),
    ]);
    if is_built_in {
        lines.push(String::new());
        if has_demo_rate {
            lines.push("In the first minute, shop exceeds its rate limit, which leaves a gap notice (L12).".to_owned());
        }
        lines.push("In the first minute, the process `reports` of mailer crashes and restarts.".to_owned());
    }
    lines.extend([String::new(), "Stop with Ctrl-C.".to_owned()]);
    // An unusable stdout stops no service.
    let _ = lines.iter().try_for_each(|line| console::println_line(line));
    Ok(())
}

/// Creates an owner's key for all apps and returns it.
async fn create_key(stack: &Stack, apps: &[String]) -> anyhow::Result<String> {
    let registry = stack.registry().context("no registry to create a key in")?;
    let grant = |app: &String| Grant {
        app: app.clone(),
        role: Role::Owner,
    };
    let grants = apps.iter().map(grant).collect();
    let created = registry.add_key(KEY_EMAIL, grants, DEFAULT_KEY_LIFETIME).await?;
    Ok(created.key)
}
