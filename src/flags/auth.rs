//! How readers prove who they are.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use ::registry::Registry;
use anyhow::{Context, bail};
use clap::Args;
use streamer::Access;

use crate::kube_client as client;

/// Who may read, and manage drains.
#[derive(Args)]
pub(crate) struct AuthArgs {
    /// Who may read, and manage drains: `none`, `keys`, `kubernetes` or `webhook=URL`
    ///
    /// `none`: everybody who can connect may do everything; on a loopback address only. `keys`: who has a key, as `tributary keys add` makes them: HTTP Basic with e-mail and
    /// key, or Bearer with the key. `kubernetes`: who has a token that the cluster knows, Bearer or the password of Basic: reads an app with the right to `get pods/log` in the
    /// namespace that is called as the app, manages its drains with `update drains.tributary.dev` there. `webhook=URL`: whom the platform's API lets in: it is sent a POST of
    /// `{"app", "action", "authorization"}`, action `read` or `drains`, and answers 200, 401 or 404.
    #[arg(long, env = "TRIBUTARY_AUTH", value_name = "HOW", default_value = "none")]
    auth: Auth,
    /// With `--auth none`, listen on any address all the same: for networks where everybody may read everything
    #[arg(long, env = "TRIBUTARY_AUTH_NONE_ANYWHERE")]
    auth_none_anywhere: bool,
    /// How long what the cluster or the webhook says is good for; what is being read ends at most twice that after the right has gone
    #[arg(
        long,
        env = "TRIBUTARY_AUTH_CACHE",
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    auth_cache: Duration,
}

/// How readers prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    /// They need not.
    None,
    /// With a key of the registry.
    Keys,
    /// With a token of the cluster.
    Kubernetes,
    /// With whatever this URL knows.
    Webhook(String),
}

impl FromStr for Auth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("webhook=")) {
            ("none", _) => Ok(Self::None),
            ("keys", _) => Ok(Self::Keys),
            ("kubernetes", _) => Ok(Self::Kubernetes),
            (_, Some(url)) => Ok(Self::Webhook(url.to_owned())),
            _ => Err("give none, keys, kubernetes or webhook=URL".to_owned()),
        }
    }
}

impl AuthArgs {
    /// Whether readers need a key of the registry.
    pub(crate) fn asks_for_keys(&self) -> bool {
        self.auth == Auth::Keys
    }

    /// Whether any page that a browser on this machine shows could read everything, if it made its name lead here.
    pub(crate) fn is_open_to_pages(&self) -> bool {
        self.auth == Auth::None && !self.auth_none_anywhere
    }

    /// What cannot be meant of who listens here.
    pub(crate) fn mistake(&self, listen: SocketAddr) -> Option<String> {
        if self.auth_cache < Duration::from_millis(100) || self.auth_cache > Duration::from_secs(3600) {
            let given = humantime::format_duration(self.auth_cache);
            return Some(format!("--auth-cache {given}: give between 100ms and 1h"));
        }
        let open = self.auth == Auth::None && !self.auth_none_anywhere && !listen.ip().is_loopback();
        open.then(|| {
            format!(
                "--listen {listen}: with --auth none everybody who can connect reads every app: listen on a loopback address such as 127.0.0.1:8080, or ask for keys with --auth keys"
            )
        })
    }

    /// Who may do what, by the keys of this registry, or by what this cluster says (none: that of the current kubeconfig).
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) async fn access(
        &self,
        registry: Option<Arc<dyn Registry>>,
        client: Option<kube::Client>,
    ) -> anyhow::Result<Access> {
        Ok(match (&self.auth, registry) {
            (Auth::None, registry) => Access::free(registry),
            (Auth::Keys, Some(registry)) => Access::keys(registry),
            (Auth::Keys, None) => {
                bail!(
                    "--auth keys: say where the keys are, with --registry file:PATH or --registry kubernetes:NAMESPACE"
                )
            }
            (Auth::Kubernetes, registry) => {
                let client = match client {
                    Some(client) => client,
                    None => client::unasked().await?,
                };
                Access::kubernetes(client, registry, self.auth_cache)
            }
            (Auth::Webhook(url), registry) => {
                // The URL is not shown: a password may stand in it.
                Access::webhook(url, registry, self.auth_cache).context("--auth webhook=URL")?
            }
        })
    }
}
