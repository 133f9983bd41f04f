//! [`KubernetesRegistry`]: drains, keys and leases in Secrets.
//!
//! One Secret per app holds its drains, one per key the key's hash, one the HMAC secret of the
//! keys: these are watched. Leases, delivery times and reports change often and are spread over a
//! few Secrets that are not watched. Every write names the version that it replaces
//! (`resourceVersion`) and is retried on a conflict.
//!
//! Required in the namespace: `get`, `list`, `watch`, `create`, `update` and `delete` of Secrets.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture, future::try_join_all};
use kube::{
    Client,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;
use system::{clock, task};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    secret_client::{REQUEST_TIMEOUT, Secrets, Write},
    secret_layout::{self, Content},
    watch::{WatchedState, watch_secrets},
};
use crate::{
    drain::{Drain, DrainReport, DrainUrl, Drains},
    error::RegistryError,
    key::{Grant, KeyInfo, Keys, NewKey},
    lease::{Leases, ObservedLeases},
    registry::Registry,
};

/// How long a change waits until this process's watch has seen it. The change succeeds either way.
const VISIBLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of Secrets that hold leases: replicas that renew at once conflict less, and no Secret
/// approaches its size limit.
const LEASE_SECRETS: u32 = 16;

/// Drains and keys in a cluster's Secrets.
pub struct KubernetesRegistry {
    secrets: Secrets,
    state: Arc<WatchedState>,
    observed: Mutex<ObservedLeases>,
    _watching: DropGuard,
}

impl KubernetesRegistry {
    /// Opens the registry of a namespace, by default the client's, creates it if needed, and
    /// watches it until the registry is dropped.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`RegistryError::Kubernetes`] if the API does not respond within ten seconds or refuses
    /// access.
    pub async fn open(client: Client, namespace: Option<String>) -> Result<Self, RegistryError> {
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let secrets = Secrets::new(client, namespace);
        secrets.ensure_key_secret().await?;
        let (state, listed) = WatchedState::new();
        let state = Arc::new(state);
        let stop = CancellationToken::new();
        let watching = watch_secrets(secrets.api.clone(), Arc::clone(&state));
        task::spawn(stop.clone().run_until_cancelled_owned(watching));
        let opened = Self {
            secrets,
            state,
            observed: Mutex::default(),
            _watching: stop.drop_guard(),
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, listed).await {
            Ok(Ok(Ok(()))) => Ok(opened),
            Ok(Ok(Err(reason))) => Err(opened.secrets.error(reason)),
            _ => Err(opened.secrets.error(
                "listing and watching the Secrets did not succeed within 10 s; \
                 this needs the verbs get, list, watch, create, update and delete",
            )),
        }
    }

    /// The leases and reports of the Secret that a drain belongs to.
    async fn leases_of(&self, drain: u32) -> Result<Option<Leases>, RegistryError> {
        let secret = self
            .secrets
            .get(&secret_layout::leases_name(drain % LEASE_SECRETS))
            .await?;
        let leases = secret.as_ref().map(secret_layout::read_leases).transpose();
        leases.map_err(|reason| {
            self.secrets.error(format!(
                "the Secret of the drain's lease is corrupt: {reason}; delete it"
            ))
        })
    }

    /// Waits until this process's watch has seen a change.
    async fn wait_visible<T>(mut state: watch::Receiver<T>, is_visible: impl FnMut(&T) -> bool) {
        let _ = tokio::time::timeout(VISIBLE_TIMEOUT, state.wait_for(is_visible)).await;
    }

    /// Changes the leases of these drains, and collects the result of `change` for each Secret.
    async fn update_leases<T>(
        &self,
        drains: &[u32],
        change: impl Fn(&mut Leases, &[u32], &Drains) -> (T, bool),
    ) -> Result<Vec<T>, RegistryError> {
        let mut by_secret: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for drain in drains {
            by_secret.entry(drain % LEASE_SECRETS).or_default().push(*drain);
        }
        let existing_drains = Arc::clone(&self.state.drains().borrow());
        let (existing_drains, change) = (&existing_drains, &change);
        let updates = by_secret.into_iter().map(|(index, drains)| async move {
            let name = secret_layout::leases_name(index);
            let change = |leases: Option<Leases>| {
                let mut leases = leases.unwrap_or_default();
                let removed = leases.remove_stale(existing_drains, &mut self.observed.lock(), clock::steady());
                let (result, changed) = change(&mut leases, &drains, existing_drains);
                Ok((result, (changed || removed).then_some(Write::Put(leases))))
            };
            self.secrets
                .update(&name, secret_layout::read_leases, secret_layout::leases, change)
                .await
        });
        try_join_all(updates).await
    }
}

impl Registry for KubernetesRegistry {
    fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.state.drains()
    }

    fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.state.keys()
    }

    fn add_drain(&self, app: &str, url: &DrainUrl, max: usize) -> BoxFuture<'_, Result<Drain, RegistryError>> {
        let (app, url) = (app.to_owned(), url.clone());
        async move {
            let existing_drains = Arc::clone(&self.drains().borrow());
            let change = |drains: Option<Vec<Drain>>| {
                let mut drains = drains.unwrap_or_default();
                Drain::check_new(drains.iter(), url.as_str(), max)?;
                let drain = Drain::new(&app, url.as_str(), |id| existing_drains.contains_key(&id));
                drains.push(drain.clone());
                Ok((drain, Some(Write::Put(drains))))
            };
            let name = secret_layout::drains_name(&app);
            let changed = self
                .secrets
                .update(&name, secret_layout::read_drains, secret_layout::drains, change);
            let drain = changed.await?;
            Self::wait_visible(self.drains(), |drains| drains.contains_key(&drain.id)).await;
            Ok(drain)
        }
        .boxed()
    }

    fn remove_drain(&self, app: &str, id: u32) -> BoxFuture<'_, Result<(), RegistryError>> {
        let app = app.to_owned();
        async move {
            let change = |drains: Option<Vec<Drain>>| {
                let mut drains = drains.unwrap_or_default();
                let at = drains.iter().position(|drain| drain.id == id && drain.app == app);
                drains.remove(at.ok_or(RegistryError::UnknownDrain)?);
                let next = if drains.is_empty() {
                    Write::Delete
                } else {
                    Write::Put(drains)
                };
                Ok(((), Some(next)))
            };
            let name = secret_layout::drains_name(&app);
            let changed = self
                .secrets
                .update(&name, secret_layout::read_drains, secret_layout::drains, change);
            changed.await?;
            Self::wait_visible(self.drains(), |drains| !drains.contains_key(&id)).await;
            Ok(())
        }
        .boxed()
    }

    fn acquire_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>> {
        let (holder, wanted, now) = (holder.to_owned(), drains.to_vec(), clock::wall_time());
        async move {
            let acquire = |leases: &mut Leases, wanted: &[u32], existing_drains: &Drains| {
                let (observed, time) = (self.observed.lock(), (now, clock::steady()));
                let acquired = leases.acquire(&holder, wanted, existing_drains, &observed, time);
                let changed = !acquired.is_empty();
                (acquired, changed)
            };
            Ok(self.update_leases(&wanted, acquire).await?.concat())
        }
        .boxed()
    }

    fn release_leases(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>> {
        let (holder, released) = (holder.to_owned(), drains.to_vec());
        async move {
            let release = |leases: &mut Leases, drains: &[u32], _: &Drains| (leases.release(&holder, drains), true);
            self.update_leases(&released, release).await.map(drop)
        }
        .boxed()
    }

    fn record_delivered(&self, delivered: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        async move {
            let drains: Vec<u32> = delivered.iter().map(|(drain, _)| *drain).collect();
            let delivered: BTreeMap<u32, SystemTime> = delivered.into_iter().collect();
            let deliver = |leases: &mut Leases, drains: &[u32], existing_drains: &Drains| {
                let mut due = false;
                for (drain, at) in drains.iter().filter_map(|drain| delivered.get_key_value(drain)) {
                    due |= existing_drains.contains_key(drain) && leases.record_delivered(*drain, *at);
                }
                ((), due)
            };
            self.update_leases(&drains, deliver).await.map(drop)
        }
        .boxed()
    }

    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>> {
        async move {
            let leases = self.leases_of(drain).await?;
            Ok(leases.and_then(|leases| leases.last_delivered(drain)))
        }
        .boxed()
    }

    fn record_reports(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        async move {
            let drains: Vec<u32> = reports.iter().map(|(drain, _)| *drain).collect();
            let reports: BTreeMap<u32, DrainReport> = reports.into_iter().collect();
            let report = |leases: &mut Leases, drains: &[u32], existing_drains: &Drains| {
                let mut changed = false;
                for (drain, report) in drains.iter().filter_map(|drain| reports.get_key_value(drain)) {
                    changed |= existing_drains.contains_key(drain) && leases.record_report(*drain, report.clone());
                }
                ((), changed)
            };
            self.update_leases(&drains, report).await.map(drop)
        }
        .boxed()
    }

    fn drain_report(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>> {
        async move {
            let leases = self.leases_of(drain).await?;
            Ok(leases.and_then(|leases| leases.report(drain)))
        }
        .boxed()
    }

    fn add_key(
        &self,
        email: &str,
        grants: Vec<Grant>,
        lifetime: Duration,
    ) -> BoxFuture<'_, Result<NewKey, RegistryError>> {
        let email = email.to_owned();
        async move {
            let secret = self.state.secret();
            let secret = secret.ok_or_else(|| {
                self.secrets
                    .error("the Secret with the HMAC secret of the keys was deleted; restore it, or restart to create a new one, which makes all keys invalid")
            })?;
            let (key, stored) = NewKey::generate(&secret, &email, grants, lifetime);
            let object = secret_layout::key(&secret_layout::key_name(&key.info.id), &stored);
            let params = PostParams::default();
            let added = self.secrets.request(self.secrets.api.create(&params, &object)).await?;
            added.ok_or_else(|| self.secrets.error("the namespace does not exist"))?;
            Self::wait_visible(self.keys(), |keys| {
                keys.list().iter().any(|info| info.id == key.info.id)
            })
            .await;
            Ok(key)
        }
        .boxed()
    }

    fn revoke_key(&self, id: &str) -> BoxFuture<'_, Result<KeyInfo, RegistryError>> {
        let id = id.to_owned();
        async move {
            // The id becomes part of a Secret's name.
            let is_hex = id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
            if id.is_empty() || !is_hex {
                return Err(RegistryError::UnknownKey);
            }
            let name = secret_layout::key_name(&id);
            let secret = self.secrets.get(&name).await?.ok_or(RegistryError::UnknownKey)?;
            let Ok(Some(Content::Key(stored))) = secret_layout::read(&secret) else {
                return Err(self.secrets.error(format!("the Secret {name} is corrupt; delete it")));
            };
            let params = DeleteParams::default();
            let deleted = self.secrets.request(self.secrets.api.delete(&name, &params)).await?;
            deleted.ok_or(RegistryError::UnknownKey)?;
            Self::wait_visible(self.keys(), |keys| keys.list().iter().all(|info| info.id != id)).await;
            Ok(stored.info)
        }
        .boxed()
    }
}
