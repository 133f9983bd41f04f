//! The registry of a cluster: Secrets of one namespace.
//!
//! An app's drains are one Secret, a key is one, what keys are hashed under is one: all of them watched. Who reads which drain, and what was delivered, is spread over a few
//! that nobody watches, because they change all the time. Every change names the version that it changes (`resourceVersion`), and is made again where another was faster.
//!
//! Needs, in that namespace, `get`, `list`, `watch`, `create`, `update` and `delete` of Secrets.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{FutureExt, future::BoxFuture, future::try_join_all};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use rand::RngExt;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    Drain, DrainReport, DrainUrl, Drains, Grant, KeyInfo, Keys, NewKey, Registry, RegistryError,
    kubernetes::{
        objects::{self, Content},
        watch::{Shown, watch as watch_secrets},
    },
    leases::Leases,
};

/// How long the API may take for an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// How long a change waits at most until it is shown here too. It is made whether it is or not.
const SHOWN_WAIT: Duration = Duration::from_secs(1);

/// How often a change is made again that another was faster than, and how long it waits before, at most.
const ATTEMPTS: usize = 20;
const RETRY: Duration = Duration::from_millis(100);

/// Over how many Secrets the leases are spread: replicas that renew at once disturb each other less, and none grows near what a Secret may hold.
const SHARDS: u32 = 16;

/// The HTTP statuses of the API's refusals.
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// Drains and keys in a cluster's Secrets.
pub struct KubernetesRegistry {
    secrets: Secrets,
    shown: Arc<Shown>,
    _looking: DropGuard,
}

/// The namespace's Secrets.
struct Secrets {
    api: Api<Secret>,
    namespace: String,
}

impl KubernetesRegistry {
    /// Opens the registry of a namespace (none: the client's own), begins it where there is none, and watches it until it is dropped.
    ///
    /// To be called within a runtime.
    ///
    /// # Errors
    /// [`RegistryError::Api`] where the API does not answer within ten seconds, or does not let us.
    pub async fn open(client: Client, namespace: Option<String>) -> Result<Self, RegistryError> {
        let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
        let secrets = Secrets {
            api: Api::namespaced(client, &namespace),
            namespace,
        };
        secrets.begin().await?;
        let (shown, read) = Shown::new();
        let shown = Arc::new(shown);
        let stop = CancellationToken::new();
        let watching = watch_secrets(secrets.api.clone(), Arc::clone(&shown));
        tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
        let opened = Self {
            secrets,
            shown,
            _looking: stop.drop_guard(),
        };
        match tokio::time::timeout(ANSWER_WAIT, read).await {
            Ok(Ok(Ok(()))) => Ok(opened),
            Ok(Ok(Err(refused))) => Err(opened.secrets.failed(refused)),
            _ => Err(opened
                .secrets
                .failed("its Secrets cannot be listed and watched within 10 s (this needs get, list, watch, create, update and delete of secrets)")),
        }
    }

    /// What is known of who reads a drain.
    async fn leases_of(&self, drain: u32) -> Result<Option<Leases>, RegistryError> {
        let secret = self.secrets.get(&objects::leases_name(drain % SHARDS)).await?;
        let leases = secret.as_ref().map(objects::read_leases).transpose();
        leases.map_err(|why| {
            self.secrets
                .failed(format!("the Secret of its leases is damaged: {why}"))
        })
    }

    /// Waits a moment until a change is shown.
    async fn wait_shown<T>(mut seen: watch::Receiver<T>, there: impl FnMut(&T) -> bool) {
        let _ = tokio::time::timeout(SHOWN_WAIT, seen.wait_for(there)).await;
    }

    /// Changes who reads the drains of the shards that these belong to; what `change` says of each shard's comes back in one.
    async fn change_leases<T>(
        &self,
        drains: &[u32],
        change: impl Fn(&mut Leases, &[u32], &Drains) -> (T, bool),
    ) -> Result<Vec<T>, RegistryError> {
        let mut shards: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for drain in drains {
            shards.entry(drain % SHARDS).or_default().push(*drain);
        }
        let known = Arc::clone(&self.shown.drains().borrow());
        let (known, change) = (&known, &change);
        let changed = shards.into_iter().map(|(shard, drains)| async move {
            let name = objects::leases_name(shard);
            let change = |leases: Option<Leases>| {
                let mut leases = leases.unwrap_or_default();
                let forgot = leases.keep(known, SystemTime::now());
                let (done, changed) = change(&mut leases, &drains, known);
                Ok((done, (changed || forgot).then_some(Next::Put(leases))))
            };
            self.secrets
                .change(&name, objects::read_leases, objects::leases, change)
                .await
        });
        try_join_all(changed).await
    }
}

/// What becomes of a Secret.
enum Next<T> {
    Put(T),
    Remove,
}

impl Secrets {
    fn failed(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Api {
            namespace: self.namespace.clone(),
            reason: reason.into(),
        }
    }

    /// What the API says, within a time. `None` where there is no such Secret, or another was faster.
    async fn ask<T>(&self, asked: impl Future<Output = kube::Result<T>>) -> Result<Option<T>, RegistryError> {
        match tokio::time::timeout(ANSWER_WAIT, asked).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, NOT_FOUND | CONFLICT) => Ok(None),
            Ok(Err(kube::Error::Api(refused))) => Err(self.failed(refused.message.clone())),
            Ok(Err(error)) => Err(self.failed(format!("the Kubernetes API does not answer: {error}"))),
            Err(_) => Err(self.failed("the Kubernetes API does not answer within 10 s")),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, RegistryError> {
        Ok(self.ask(self.api.get_opt(name)).await?.flatten())
    }

    /// Sees to it that there is a secret to hash keys under.
    async fn begin(&self) -> Result<(), RegistryError> {
        if self.get(objects::SECRET_NAME).await?.is_none() {
            let secret = objects::secret(&rand::random());
            // Where another is faster, theirs it is.
            self.ask(self.api.create(&PostParams::default(), &secret)).await?;
        }
        Ok(())
    }

    /// Changes what a Secret holds, again and again where others are faster. It stays as it is where `change` fails or names nothing.
    async fn change<T, R>(
        &self,
        name: &str,
        read: impl Fn(&Secret) -> Result<T, &'static str>,
        write: impl Fn(&str, &T) -> Secret,
        change: impl Fn(Option<T>) -> Result<(R, Option<Next<T>>), RegistryError>,
    ) -> Result<R, RegistryError> {
        for _ in 0..ATTEMPTS {
            let before = self.get(name).await?;
            let content = before.as_ref().map(&read).transpose();
            let content = content
                .map_err(|why| self.failed(format!("the Secret {name} is damaged: {why}: mend or delete it")))?;
            let (done, next) = change(content)?;
            let version = before
                .as_ref()
                .and_then(|before| before.metadata.resource_version.clone());
            let made = match next {
                None => return Ok(done),
                Some(Next::Put(content)) => {
                    let mut secret = write(name, &content);
                    secret.metadata.resource_version.clone_from(&version);
                    if version.is_some() {
                        self.ask(self.api.replace(name, &PostParams::default(), &secret))
                            .await?
                            .is_some()
                    } else {
                        self.ask(self.api.create(&PostParams::default(), &secret))
                            .await?
                            .is_some()
                    }
                }
                Some(Next::Remove) => {
                    let precise = DeleteParams::default().preconditions(Preconditions {
                        resource_version: version,
                        uid: None,
                    });
                    self.ask(self.api.delete(name, &precise)).await?.is_some()
                }
            };
            if made {
                return Ok(done);
            }
            let wait = rand::rng().random_range(Duration::ZERO..RETRY);
            tokio::time::sleep(wait).await;
        }
        Err(self.failed("others change it all the time: try again"))
    }
}

impl Registry for KubernetesRegistry {
    fn drains(&self) -> watch::Receiver<Arc<Drains>> {
        self.shown.drains()
    }

    fn keys(&self) -> watch::Receiver<Arc<Keys>> {
        self.shown.keys()
    }

    fn add_drain(&self, app: &str, url: &DrainUrl, most: usize) -> BoxFuture<'_, Result<Drain, RegistryError>> {
        let (app, url) = (app.to_owned(), url.clone());
        async move {
            let known = Arc::clone(&self.drains().borrow());
            let change = |drains: Option<Vec<Drain>>| {
                let mut drains = drains.unwrap_or_default();
                Drain::fits(drains.iter(), url.as_str(), most)?;
                let drain = Drain::new(&app, url.as_str(), |id| known.contains_key(&id));
                drains.push(drain.clone());
                Ok((drain, Some(Next::Put(drains))))
            };
            let name = objects::drains_name(&app);
            let changed = self
                .secrets
                .change(&name, objects::read_drains, objects::drains, change);
            let drain = changed.await?;
            Self::wait_shown(self.drains(), |drains| drains.contains_key(&drain.id)).await;
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
                    Next::Remove
                } else {
                    Next::Put(drains)
                };
                Ok(((), Some(next)))
            };
            let name = objects::drains_name(&app);
            let changed = self
                .secrets
                .change(&name, objects::read_drains, objects::drains, change);
            changed.await?;
            Self::wait_shown(self.drains(), |drains| !drains.contains_key(&id)).await;
            Ok(())
        }
        .boxed()
    }

    fn lease(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<Vec<u32>, RegistryError>> {
        let (holder, wanted, now) = (holder.to_owned(), drains.to_vec(), SystemTime::now());
        async move {
            let take = |leases: &mut Leases, wanted: &[u32], known: &Drains| {
                let had = leases.take(&holder, wanted, known, now);
                let changed = !had.is_empty();
                (had, changed)
            };
            Ok(self.change_leases(&wanted, take).await?.concat())
        }
        .boxed()
    }

    fn release(&self, holder: &str, drains: &[u32]) -> BoxFuture<'_, Result<(), RegistryError>> {
        let (holder, released) = (holder.to_owned(), drains.to_vec());
        async move {
            let release = |leases: &mut Leases, drains: &[u32], _: &Drains| (leases.release(&holder, drains), true);
            self.change_leases(&released, release).await.map(drop)
        }
        .boxed()
    }

    fn delivered(&self, delivered: Vec<(u32, SystemTime)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        async move {
            let drains: Vec<u32> = delivered.iter().map(|(drain, _)| *drain).collect();
            let delivered: BTreeMap<u32, SystemTime> = delivered.into_iter().collect();
            let deliver = |leases: &mut Leases, drains: &[u32], known: &Drains| {
                let mut due = false;
                for (drain, at) in drains.iter().filter_map(|drain| delivered.get_key_value(drain)) {
                    due |= known.contains_key(drain) && leases.deliver(*drain, *at);
                }
                ((), due)
            };
            self.change_leases(&drains, deliver).await.map(drop)
        }
        .boxed()
    }

    fn last_delivered(&self, drain: u32) -> BoxFuture<'_, Result<Option<SystemTime>, RegistryError>> {
        async move {
            let leases = self.leases_of(drain).await?;
            Ok(leases.and_then(|leases| leases.delivered(drain)))
        }
        .boxed()
    }

    fn report(&self, reports: Vec<(u32, DrainReport)>) -> BoxFuture<'_, Result<(), RegistryError>> {
        async move {
            let drains: Vec<u32> = reports.iter().map(|(drain, _)| *drain).collect();
            let reports: BTreeMap<u32, DrainReport> = reports.into_iter().collect();
            let report = |leases: &mut Leases, drains: &[u32], known: &Drains| {
                let mut changed = false;
                for (drain, report) in drains.iter().filter_map(|drain| reports.get_key_value(drain)) {
                    changed |= known.contains_key(drain) && leases.report(*drain, report.clone());
                }
                ((), changed)
            };
            self.change_leases(&drains, report).await.map(drop)
        }
        .boxed()
    }

    fn report_of(&self, drain: u32) -> BoxFuture<'_, Result<Option<DrainReport>, RegistryError>> {
        async move {
            let leases = self.leases_of(drain).await?;
            Ok(leases.and_then(|leases| leases.report_of(drain)))
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
            let secret = self.shown.secret();
            let secret = secret.ok_or_else(|| {
                self.secrets
                    .failed("the secret that keys are hashed under is not there any more")
            })?;
            let (key, stored) = NewKey::make(&secret, &email, grants, lifetime);
            let object = objects::key(&objects::key_name(&key.info.id), &stored);
            let plain = PostParams::default();
            let added = self.secrets.ask(self.secrets.api.create(&plain, &object)).await?;
            added.ok_or_else(|| self.secrets.failed("the namespace is not there, or the name is taken"))?;
            Self::wait_shown(self.keys(), |keys| {
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
            // What is no id of ours could not be a Secret's name either.
            let ours = id
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
            if id.is_empty() || !ours {
                return Err(RegistryError::UnknownKey);
            }
            let name = objects::key_name(&id);
            let there = self.secrets.get(&name).await?.ok_or(RegistryError::UnknownKey)?;
            let Ok(Some(Content::Key(stored))) = objects::read(&there) else {
                return Err(self.secrets.failed(format!("the Secret {name} is damaged: delete it")));
            };
            let plain = DeleteParams::default();
            let deleted = self.secrets.ask(self.secrets.api.delete(&name, &plain)).await?;
            deleted.ok_or(RegistryError::UnknownKey)?;
            Self::wait_shown(self.keys(), |keys| keys.list().iter().all(|info| info.id != id)).await;
            Ok(stored.info)
        }
        .boxed()
    }
}
