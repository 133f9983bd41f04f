//! `tributary keys`: manages API keys.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::registry::{Grant, KeyInfo, Registry, Role};
use anyhow::Context;
use bus::AppName;
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    console,
    flags::{registry::RegistryArgs, storage::default_data_dir, validation::reject},
};

/// Examples at the end of the help.
const EXAMPLES: &str = "\
Examples:
  tributary keys add --email me@example.com --app shop
  tributary keys add --email me@example.com --app shop --role collaborator --expires-in 30d
  tributary keys list --registry kubernetes:tributary
  tributary keys revoke 3f2a";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Create a key and print it; it cannot be printed again
    #[command(
        after_help = "Examples:\n  tributary keys add --email me@example.com --app shop\n  tributary keys add --email me@example.com --app shop --app mailer --role collaborator"
    )]
    Add(AddArgs),
    /// List keys: id, e-mail address, apps and expiry, without the secret
    #[command(after_help = "Examples:\n  tributary keys list\n  tributary keys list --registry kubernetes:tributary")]
    List(ListArgs),
    /// Revoke a key; its open streams end within a second
    #[command(after_help = "Examples:\n  tributary keys revoke 3f2a")]
    Revoke(RevokeArgs),
}

#[derive(Args)]
struct AddArgs {
    /// E-mail address of the owner: the `login` in ~/.netrc
    #[arg(long, value_name = "EMAIL")]
    email: String,
    /// Grant access to this app; repeatable
    #[arg(long = "app", value_name = "APP", required = true)]
    apps: Vec<AppName>,
    /// Role of the key on its apps
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = RoleArg::Owner)]
    role: RoleArg,
    /// Expire the key after this time
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = crate::flags::values::duration)]
    expires_in: Duration,
    #[command(flatten)]
    location: LocationArgs,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    location: LocationArgs,
}

#[derive(Args)]
struct RevokeArgs {
    /// Id of the key, as printed by `tributary keys list`
    #[arg(value_name = "ID")]
    id: String,
    #[command(flatten)]
    location: LocationArgs,
}

/// Where keys are stored.
#[derive(Args)]
#[command(next_help_heading = "Storage")]
struct LocationArgs {
    #[command(flatten)]
    registry: RegistryArgs,
    /// Use registry.json in this data directory of `up` or `demo` [default:
    /// $XDG_DATA_HOME/tributary or ~/.local/share/tributary]
    #[arg(long, env = "TRIBUTARY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// The value of `--role`.
#[derive(Clone, Copy, ValueEnum)]
enum RoleArg {
    /// Read logs and manage drains
    Owner,
    /// Read logs
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

impl LocationArgs {
    async fn open(self) -> anyhow::Result<Arc<dyn Registry>> {
        let data_dir = self.data_dir()?;
        let registry = self.registry.open(data_dir.as_deref()).await?;
        registry.context(NO_REGISTRY)
    }

    /// Opens a registry that exists; creates nothing.
    async fn open_existing(self) -> anyhow::Result<Arc<dyn Registry>> {
        let data_dir = self.data_dir()?;
        let registry = self.registry.open_existing(data_dir.as_deref()).await?;
        registry.context(NO_REGISTRY)
    }

    fn data_dir(&self) -> anyhow::Result<Option<PathBuf>> {
        match (&self.registry.registry, &self.data_dir) {
            (Some(_), _) => Ok(None),
            (None, Some(dir)) => Ok(Some(dir.clone())),
            (None, None) => default_data_dir().map(Some),
        }
    }
}

const NO_REGISTRY: &str =
    "no registry set: use --registry file:PATH, --registry kubernetes:NAMESPACE or --data-dir DIR";

/// The longest lifetime of a key: 100 years.
const MAX_LIFETIME: Duration = Duration::from_secs(36_525 * 24 * 3600);

/// The last second that RFC 3339 can express: the end of the year 9999.
const MAX_TIMESTAMP: u64 = 253_402_300_799;

/// Runs the command.
pub(crate) async fn run(args: KeysArgs) -> anyhow::Result<()> {
    match args.command {
        KeysCommand::Add(args) => add(args).await,
        KeysCommand::List(args) => list(args).await,
        KeysCommand::Revoke(args) => {
            let registry = args.location.open_existing().await?;
            let revoked = registry.revoke_key(&args.id).await?;
            console::eprintln_line(&format!("revoked key {} of {}", revoked.id, revoked.email));
            Ok(())
        }
    }
}

async fn add(args: AddArgs) -> anyhow::Result<()> {
    let mut errors = Vec::new();
    // A colon ends the user name in HTTP Basic; white space ends a word in netrc.
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != ':';
    if !args.email.contains('@') || !args.email.chars().all(allowed) {
        errors.push(format!(
            "--email {:?}: expected an e-mail address such as me@example.com",
            args.email
        ));
    }
    if args.expires_in.is_zero() {
        errors.push("--expires-in 0s: set a time above 0, such as 30d".to_owned());
    }
    if args.expires_in > MAX_LIFETIME {
        let value = humantime::format_duration(args.expires_in);
        errors.push(format!("--expires-in {value}: set at most 36525d (100 years)"));
    }
    reject(errors)?;
    let role = Role::from(args.role);
    let grant = |app: &AppName| Grant {
        app: app.to_string(),
        role,
    };
    let grants = args.apps.iter().map(grant).collect();
    let registry = args.location.open().await?;
    let created = registry.add_key(&args.email, grants, args.expires_in).await?;
    console::println_line(&created.key).with_context(|| {
        format!(
            "the new key is lost; revoke it with `tributary keys revoke {}` and the same --registry or --data-dir",
            created.info.id
        )
    })?;
    console::eprintln_line(&format!(
        "created key {} of {}; store it now, it cannot be printed again",
        created.info.id, created.info.email
    ));
    Ok(())
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let registry = args.location.open_existing().await?;
    let keys = Arc::clone(&registry.keys().borrow());
    for key in keys.list() {
        console::println_line(&row(&key))?;
    }
    Ok(())
}

/// Formats a key as one line of tab-separated fields.
fn row(key: &KeyInfo) -> String {
    let grants = key.grants.iter().map(|grant| match grant.role {
        Role::Owner => grant.app.clone(),
        Role::Collaborator => format!("{} (collaborator)", grant.app),
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let state = if key.expires <= now.as_secs() {
        "expired"
    } else {
        "expires"
    };
    let expiry = if key.expires > MAX_TIMESTAMP {
        "after 9999".to_owned()
    } else {
        humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(key.expires)).to_string()
    };
    format!(
        "{}\t{}\t{}\t{state} {expiry}",
        key.id,
        key.email,
        grants.collect::<Vec<_>>().join(", "),
    )
}
