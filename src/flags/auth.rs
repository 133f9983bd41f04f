//! Authentication and authorization of readers.

use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};

use ::registry::Registry;
use anyhow::{Context, bail};
use clap::Args;
use streamer::{Access, InvalidWebhook};

use crate::{console::without_credentials, kube_client};

/// Authentication and authorization of readers and drain managers.
#[derive(Args)]
#[command(next_help_heading = "Auth & TLS")]
pub(crate) struct AuthArgs {
    /// Authenticate clients with `none`, `keys`, `kubernetes` or `webhook=URL`
    ///
    /// none: no authentication; requires a loopback --listen address. keys: API keys created with
    /// `tributary keys add`. kubernetes: bearer tokens of the cluster, authorized by RBAC. webhook:
    /// the response to a POST to URL decides. See docs/operators/security.md.
    #[arg(
        long,
        env = "TRIBUTARY_AUTH",
        value_name = "MODE",
        default_value = "none",
        hide_env_values = true
    )]
    auth: Auth,
    /// Allow `--auth none` on any address: everyone who can connect reads every app
    #[arg(long, env = "TRIBUTARY_ALLOW_UNAUTHENTICATED", alias = "auth-none-anywhere")]
    allow_unauthenticated: bool,
    /// Cache decisions of the cluster or the webhook for this long
    ///
    /// An open stream ends within twice this time after the client's permission is revoked.
    #[arg(
        long,
        env = "TRIBUTARY_AUTH_CACHE",
        value_name = "TIME",
        default_value = "5s",
        value_parser = crate::flags::values::duration
    )]
    auth_cache: Duration,
}

/// An authentication mode.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Auth {
    /// No authentication.
    None,
    /// API keys of the registry.
    Keys,
    /// Tokens of the cluster.
    Kubernetes,
    /// An external authorizer at this URL.
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
            _ => Err("expected none, keys, kubernetes or webhook=URL".to_owned()),
        }
    }
}

impl AuthArgs {
    /// Returns whether readers need an API key of the registry.
    #[cfg(feature = "demo")]
    pub(crate) fn requires_keys(&self) -> bool {
        self.auth == Auth::Keys
    }

    /// Returns whether the server must reject host names, as a protection against DNS rebinding: a
    /// page in a local browser could read everything otherwise.
    pub(crate) fn requires_host_check(&self) -> bool {
        self.auth == Auth::None && !self.allow_unauthenticated
    }

    /// Returns one message for each invalid value, given the address of the listener.
    pub(crate) fn validation_errors(&self, listen: SocketAddr) -> Vec<String> {
        let mut errors = Vec::new();
        if self.auth_cache < Duration::from_millis(100) || self.auth_cache > Duration::from_secs(3600) {
            let value = humantime::format_duration(self.auth_cache);
            errors.push(format!("--auth-cache {value}: set a time from 100ms to 1h"));
        }
        if let Auth::Webhook(url) = &self.auth
            && let Err(InvalidWebhook::Url) = Access::webhook(url, None, self.auth_cache)
        {
            errors.push(format!(
                "--auth webhook={}: expected a URL such as https://api.example.com/tributary, without user and password",
                without_credentials(url)
            ));
        }
        if self.requires_host_check() && !listen.ip().is_loopback() {
            errors.push(format!(
                "--listen {listen}: with --auth none every client that can connect reads every app; use a loopback address such as 127.0.0.1:8080, or require keys with --auth keys"
            ));
        }
        errors
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
        Ok(match (&self.auth, registry) {
            (Auth::None, _) => Access::unauthenticated(),
            (Auth::Keys, Some(registry)) => Access::api_keys(registry),
            (Auth::Keys, None) => {
                bail!("--auth keys needs a registry; set --registry file:PATH or --registry kubernetes:NAMESPACE")
            }
            (Auth::Kubernetes, registry) => {
                let client = match kubernetes {
                    Some(client) => client,
                    None => kube_client::without_probe().await?,
                };
                Access::kubernetes(client, registry, self.auth_cache)
            }
            (Auth::Webhook(url), registry) => {
                // The URL may contain a password, so the error does not repeat it.
                Access::webhook(url, registry, self.auth_cache).context("cannot use --auth webhook=URL")?
            }
        })
    }
}
