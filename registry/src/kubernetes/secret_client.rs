//! The Secrets of the namespace: requests with a timeout, and changes that are retried on conflict.

use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};
use system::random::random;

use causes::kubernetes::describe;

use super::secret_layout;
use crate::error::RegistryError;

/// The timeout of a request.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Pauses between attempts of a change that conflicts with others: 20 attempts, 50 to 100 ms apart.
const CONFLICT_BACKOFF: ConstantBuilder = ConstantBuilder::new()
    .with_delay(Duration::from_millis(50))
    .with_jitter()
    .with_max_times(19);

/// HTTP statuses of the API.
const NOT_FOUND: u16 = 404;
const CONFLICT: u16 = 409;

/// The Secrets of one namespace.
pub(super) struct Secrets {
    pub(super) api: Api<Secret>,
    namespace: String,
}

/// What a change does with a Secret.
pub(super) enum Write<T> {
    /// Creates or replaces it.
    Put(T),
    /// Deletes it.
    Delete,
}

impl Secrets {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            api: Api::namespaced(client, &namespace),
            namespace,
        }
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Kubernetes {
            namespace: self.namespace.clone(),
            reason: reason.into(),
        }
    }

    /// The response to a request. `None` if the Secret does not exist or the request conflicts with
    /// another change.
    pub(super) async fn request<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<Option<T>, RegistryError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(Ok(response)) => Ok(Some(response)),
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, NOT_FOUND | CONFLICT) => Ok(None),
            Ok(Err(kube::Error::Api(status))) => Err(self.error(status.message.clone())),
            Ok(Err(error)) => Err(self.error(describe(&error))),
            Err(_) => Err(self.error("the Kubernetes API did not respond within 10 s")),
        }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Secret>, RegistryError> {
        Ok(self.request(self.api.get_opt(name)).await?.flatten())
    }

    /// Creates the HMAC secret of the keys unless it exists.
    pub(super) async fn ensure_key_secret(&self) -> Result<(), RegistryError> {
        if self.get(secret_layout::SECRET_NAME).await?.is_none() {
            let secret = secret_layout::secret(&random());
            // On a conflict, another process has created it.
            self.request(self.api.create(&PostParams::default(), &secret)).await?;
        }
        Ok(())
    }

    /// Reads, changes and writes a Secret, and retries if another process changed it meanwhile. The
    /// Secret is not written if `change` fails or returns no [`Write`].
    pub(super) async fn update<T, R>(
        &self,
        name: &str,
        read: impl Fn(&Secret) -> Result<T, &'static str>,
        write: impl Fn(&str, &T) -> Secret,
        change: impl Fn(Option<T>) -> Result<(R, Option<Write<T>>), RegistryError>,
    ) -> Result<R, RegistryError> {
        let mut pauses = CONFLICT_BACKOFF.with_jitter_seed(random()).build();
        loop {
            let before = self.get(name).await?;
            let content = before.as_ref().map(&read).transpose();
            let content = content
                .map_err(|reason| self.error(format!("the Secret {name} is corrupt: {reason}; repair or delete it")))?;
            let (result, next) = change(content)?;
            let version = before
                .as_ref()
                .and_then(|before| before.metadata.resource_version.clone());
            let is_written = match next {
                None => return Ok(result),
                Some(Write::Put(content)) => self.put(name, write(name, &content), version).await?,
                Some(Write::Delete) => {
                    let params = DeleteParams::default().preconditions(Preconditions {
                        resource_version: version,
                        uid: None,
                    });
                    self.request(self.api.delete(name, &params)).await?.is_some()
                }
            };
            if is_written {
                return Ok(result);
            }
            let Some(pause) = pauses.next() else {
                return Err(self.error(format!("the Secret {name} is changed too often by others; try again")));
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Replaces this version of a Secret, or creates the Secret if there is none. Returns `false`
    /// on a conflict.
    async fn put(&self, name: &str, mut secret: Secret, version: Option<String>) -> Result<bool, RegistryError> {
        let params = PostParams::default();
        let exists = version.is_some();
        secret.metadata.resource_version = version;
        let written = if exists {
            self.request(self.api.replace(name, &params, &secret)).await?
        } else {
            self.request(self.api.create(&params, &secret)).await?
        };
        Ok(written.is_some())
    }
}
