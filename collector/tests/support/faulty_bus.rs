//! A bus with injected faults.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus::{AppName, Batch, Bus, BusError, Embedded, Reader, Start};
use futures::{FutureExt, future::BoxFuture};

/// A bus with injected faults.
pub struct FaultyBus {
    inner: Embedded,
    /// Publishing fails with a transient error.
    pub unavailable: AtomicBool,
    /// The next publish panics.
    pub panic_once: AtomicBool,
    /// The topic is missing until it is created again.
    pub topic_missing: AtomicBool,
    /// Batches are accepted without a response.
    pub no_response: AtomicBool,
    /// Batches with this text are rejected permanently.
    pub refuse_with: Mutex<Option<String>>,
    /// Number of publish attempts, retries included.
    pub publish_attempts: AtomicUsize,
    /// Publishes in flight by stream.
    in_flight: Mutex<BTreeMap<String, usize>>,
    /// A stream had two publishes in flight.
    pub overlapped: AtomicBool,
    /// Publishing takes 50 ms.
    pub is_slow: AtomicBool,
    /// Highest number of publishes in flight over all streams.
    pub max_in_flight: AtomicUsize,
}

impl FaultyBus {
    pub fn new(inner: Embedded) -> Self {
        Self {
            inner,
            unavailable: AtomicBool::new(false),
            panic_once: AtomicBool::new(false),
            topic_missing: AtomicBool::new(false),
            no_response: AtomicBool::new(false),
            refuse_with: Mutex::default(),
            publish_attempts: AtomicUsize::new(0),
            in_flight: Mutex::default(),
            overlapped: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            max_in_flight: AtomicUsize::new(0),
        }
    }
}

impl Bus for FaultyBus {
    fn check(&self) -> BoxFuture<'_, Result<(), BusError>> {
        self.inner.check()
    }

    fn create<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.topic_missing.store(false, Ordering::SeqCst);
        self.inner.create(app)
    }

    fn publish(&self, batch: Batch) -> BoxFuture<'_, Result<(), BusError>> {
        async move {
            assert!(!self.panic_once.swap(false, Ordering::SeqCst), "injected panic");
            self.publish_attempts.fetch_add(1, Ordering::SeqCst);
            let stream = batch.metadata.stream.to_string();
            let others = {
                let mut in_flight = self.in_flight.lock().unwrap();
                let count = in_flight.entry(stream.clone()).or_default();
                *count += 1;
                let others = *count - 1;
                let all = in_flight.values().sum();
                self.max_in_flight.fetch_max(all, Ordering::SeqCst);
                others
            };
            if self.is_slow.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let refused = self.refuse_with.lock().unwrap().clone();
            let refused = refused.is_some_and(|text| String::from_utf8_lossy(batch.data()).contains(&text));
            if others > 0 {
                self.overlapped.store(true, Ordering::SeqCst);
            }
            let result = if self.unavailable.load(Ordering::SeqCst) {
                Err(BusError::Closed)
            } else if self.topic_missing.load(Ordering::SeqCst) {
                Err(BusError::UnknownApp(batch.metadata.app.clone()))
            } else if refused {
                Err(BusError::TooLarge { bytes: 0 })
            } else {
                self.inner.publish(batch).await
            };
            if self.no_response.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            *self.in_flight.lock().unwrap().entry(stream).or_default() -= 1;
            result
        }
        .boxed()
    }

    fn follow<'a>(&'a self, app: &'a AppName, start: Start) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.inner.follow(app, start)
    }

    fn subscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<Reader, BusError>> {
        self.inner.subscribe(app, name)
    }

    fn ensure_subscription<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.ensure_subscription(app, name)
    }

    fn unsubscribe<'a>(&'a self, app: &'a AppName, name: &'a str) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.unsubscribe(app, name)
    }

    fn apps(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        self.inner.apps()
    }

    fn apps_with_subscriptions(&self) -> BoxFuture<'_, Result<Vec<AppName>, BusError>> {
        self.inner.apps_with_subscriptions()
    }

    fn remove<'a>(&'a self, app: &'a AppName) -> BoxFuture<'a, Result<(), BusError>> {
        self.inner.remove(app)
    }
}
