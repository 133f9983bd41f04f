//! `tributary keys`: who may read.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::registry::{Grant, KeyInfo, Registry, Role};
use anyhow::{Context, bail};
use bus::AppName;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    console as say,
    flags::{default_data_dir, registry::RegistryArgs},
};

#[derive(Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Makes a key and prints it, alone and only now: it is not kept
    Add(AddArgs),
    /// Lists keys, without the keys themselves
    List(ListArgs),
    /// Makes a key good for nothing, within a second, also for what is being read with it
    Revoke(RevokeArgs),
}

#[derive(Args)]
struct AddArgs {
    /// Whose it is: what the Gigalixir client has as `login` in netrc
    #[arg(long, value_name = "EMAIL")]
    email: String,
    /// An app that it is for; may be given again
    #[arg(long = "app", value_name = "APP", required = true)]
    apps: Vec<AppName>,
    /// What its holder may do: an owner reads the log and manages drains, a collaborator reads the log
    #[arg(long, value_enum, default_value_t = RoleArg::Owner)]
    role: RoleArg,
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = humantime::parse_duration)]
    expires_in: Duration,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Args)]
struct RevokeArgs {
    /// Which, as `tributary keys list` shows it
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Where keys are kept.
#[derive(Args)]
struct PlaceArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// The data directory of `up` or `demo` [default: $XDG_DATA_HOME/tributary, or ~/.local/share/tributary]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What a key's holder may do.
#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Reads the log and manages drains
    Owner,
    /// Reads the log
    Collaborator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Owner => Self::Owner,
            RoleArg::Collaborator => Self::Collaborator,
        }
    }
}

impl PlaceArgs {
    async fn open(self) -> anyhow::Result<Arc<dyn Registry>> {
        let data_dir = match (&self.registry.registry, self.data_dir) {
            (Some(_), _) => None,
            (None, Some(dir)) => Some(dir),
            (None, None) => Some(default_data_dir()?),
        };
        let opened = self.registry.open(data_dir.as_deref()).await?;
        opened.context(
            "say where the keys are, with --registry file:PATH, --registry kubernetes:NAMESPACE or --data-dir DIR",
        )
    }
}

/// Does what was asked for.
pub(crate) async fn run(args: KeysArgs) -> anyhow::Result<()> {
    match args.command {
        KeysCommand::Add(args) => add(args).await,
        KeysCommand::List(args) => list(args).await,
        KeysCommand::Revoke(args) => {
            let registry = args.place.open().await?;
            let revoked = registry.revoke_key(&args.id).await?;
            say::aside(&format!("revoked the key {} of {}", revoked.id, revoked.email));
            Ok(())
        }
    }
}

async fn add(args: AddArgs) -> anyhow::Result<()> {
    // A colon would end the user's name in HTTP Basic, a blank the word in netrc.
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
    if !args.email.contains('@') || !args.email.chars().all(fits) {
        bail!(
            "--email {:?}: give an e-mail address such as me@example.com",
            args.email
        );
    }
    if args.expires_in.is_zero() {
        bail!("--expires-in 0s: a key that is never good is of no use");
    }
    let role = Role::from(args.role);
    let grant = |app: &AppName| Grant {
        app: app.to_string(),
        role,
    };
    let grants = args.apps.iter().map(grant).collect();
    let registry = args.place.open().await?;
    let made = registry.add_key(&args.email, grants, args.expires_in).await?;
    say::answer(&made.key);
    say::aside(&format!(
        "this is shown once: the key {} of {}",
        made.info.id, made.info.email
    ));
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let registry = args.place.open().await?;
    let keys = Arc::clone(&registry.keys().borrow());
    for key in keys.list() {
        say::answer(&line(&key));
    }
    Ok(())
}

/// A key in one line, its fields between tabs.
fn line(key: &KeyInfo) -> String {
    let grants = key.grants.iter().map(|grant| match grant.role {
        Role::Owner => grant.app.clone(),
        Role::Collaborator => format!("{} (collaborator)", grant.app),
    });
    let ends = UNIX_EPOCH + Duration::from_secs(key.expires);
    let state = if ends <= SystemTime::now() {
        "expired"
    } else {
        "expires"
    };
    format!(
        "{}\t{}\t{}\t{state} {}",
        key.id,
        key.email,
        grants.collect::<Vec<_>>().join(", "),
        humantime::format_rfc3339_seconds(ends)
    )
}
