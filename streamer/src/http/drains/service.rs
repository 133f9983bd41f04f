//! The drains of the registry: which ones may be added, and their tests.

use std::sync::Arc;

use registry::{AddressPolicy, Drain, ProbeReport, Prober, Registry};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Default limit of drains per app.
pub const MAX_DRAINS: usize = 5;

/// Limit of concurrent drain tests, and the `Retry-After` of refused ones.
const MAX_PROBES: usize = 16;
const PROBE_RETRY_SECONDS: u64 = 5;

/// Manages and tests drains.
pub struct DrainService {
    registry: Option<Arc<dyn Registry>>,
    addresses: AddressPolicy,
    max_drains: usize,
    prober: Option<Arc<dyn Prober>>,
    probes: Semaphore,
}

impl DrainService {
    /// Creates the service of a registry. Without one there are no drains.
    pub fn new(registry: Option<Arc<dyn Registry>>) -> Self {
        Self {
            registry,
            addresses: AddressPolicy::default(),
            max_drains: MAX_DRAINS,
            prober: None,
            probes: Semaphore::new(MAX_PROBES),
        }
    }

    /// Sets the addresses that drains may have, and the limit of drains per app.
    #[must_use]
    pub fn with_limits(mut self, addresses: AddressPolicy, max_drains: usize) -> Self {
        (self.addresses, self.max_drains) = (addresses, max_drains);
        self
    }

    /// Sets the prober that tests drains.
    #[must_use]
    pub fn with_prober(mut self, prober: Arc<dyn Prober>) -> Self {
        self.prober = Some(prober);
        self
    }

    /// Tests a drain.
    ///
    /// # Errors
    /// [`ApiError::DrainTestsDisabled`] without a prober, [`ApiError::TooMany`] at the limit of
    /// concurrent tests.
    pub(crate) async fn probe(&self, drain: &Drain) -> Result<ProbeReport, ApiError> {
        let prober = self.prober.as_ref().ok_or(ApiError::DrainTestsDisabled)?;
        let _permit = self.probes.try_acquire().map_err(|_| ApiError::TooMany {
            reason: format!(
                "too many drain tests: {MAX_PROBES} of {MAX_PROBES} running; retry in {PROBE_RETRY_SECONDS} s"
            ),
            retry_after: PROBE_RETRY_SECONDS,
        })?;
        Ok(prober.probe(drain).await)
    }

    /// Returns the registry of drains.
    ///
    /// # Errors
    /// [`ApiError::DrainsDisabled`] without a registry.
    pub(crate) fn registry(&self) -> Result<&dyn Registry, ApiError> {
        self.registry.as_deref().ok_or(ApiError::DrainsDisabled)
    }

    /// Returns the addresses that drains may have.
    pub(crate) fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }

    /// Returns the limit of drains per app.
    pub(crate) fn max_drains(&self) -> usize {
        self.max_drains
    }
}
