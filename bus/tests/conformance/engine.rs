//! The engine under test.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bus::{Bus, Embedded, EmbeddedSettings, PubSub, PubSubSettings};
use tempfile::TempDir;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::emulator::Emulator;

/// Timeout of every wait. Messages of a closed stream are redelivered after the ack deadline, and
/// the emulator may redeliver them to that stream a few times first.
pub const BOUND: Duration = Duration::from_secs(150);

/// A load case runs alone, so that it does not slow down the waits of other cases.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A test's share of the machine.
pub enum Turn {
    Shared(#[expect(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[expect(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

impl Turn {
    pub async fn shared() -> Self {
        Self::Shared(MACHINE.read().await)
    }

    pub async fn alone() -> Self {
        Self::Alone(MACHINE.write().await)
    }
}

/// An engine and what is needed to reopen it.
pub struct Engine {
    pub bus: Arc<dyn Bus>,
    kind: Kind,
    _turn: Turn,
}

#[allow(clippy::large_enum_variant, reason = "one per test")]
enum Kind {
    Embedded {
        dir: PathBuf,
        _temporary: TempDir,
    },
    PubSub {
        engine: Arc<PubSub>,
        settings: PubSubSettings,
        _emulator: Option<Emulator>,
    },
}

impl Engine {
    pub async fn embedded() -> Self {
        let _turn = Turn::shared().await;
        let temporary = TempDir::new().unwrap();
        let dir = temporary.path().to_owned();
        let bus = Arc::new(Embedded::open(&dir, EmbeddedSettings::default()).unwrap());
        Self {
            bus,
            kind: Kind::Embedded {
                dir,
                _temporary: temporary,
            },
            _turn,
        }
    }

    /// Opens Pub/Sub on the emulator, with two projects per case. `None` without an emulator.
    pub async fn pubsub(group: &str) -> Option<Self> {
        let alone = group == "load";
        let _turn = if alone {
            Turn::alone().await
        } else {
            Turn::shared().await
        };
        let own = if alone { Some(Emulator::start().await?) } else { None };
        let host = match &own {
            Some(emulator) => emulator.host().to_owned(),
            None => shared_emulator().await?,
        };
        let mut settings = settings(&host);
        settings.projects.push(format!("{}-b", settings.projects[0]));
        let engine = Arc::new(PubSub::open(settings.clone()).await.unwrap());
        Some(Self {
            bus: Arc::clone(&engine) as Arc<dyn Bus>,
            kind: Kind::PubSub {
                engine,
                settings,
                _emulator: own,
            },
            _turn,
        })
    }

    /// Closes and reopens the engine.
    pub async fn restart(self) -> Self {
        let Self { bus, kind, _turn } = self;
        match kind {
            Kind::Embedded { dir, _temporary } => {
                drop(bus);
                let bus = Arc::new(Embedded::open(&dir, EmbeddedSettings::default()).unwrap());
                Self {
                    bus,
                    kind: Kind::Embedded { dir, _temporary },
                    _turn,
                }
            }
            Kind::PubSub {
                engine,
                settings,
                _emulator,
            } => {
                engine.close().await;
                let engine = Arc::new(PubSub::open(settings.clone()).await.unwrap());
                Self {
                    bus: Arc::clone(&engine) as Arc<dyn Bus>,
                    kind: Kind::PubSub {
                        engine,
                        settings,
                        _emulator,
                    },
                    _turn,
                }
            }
        }
    }
}

/// Settings with a new project on this emulator.
pub fn settings(host: &str) -> PubSubSettings {
    static PROJECTS: AtomicU32 = AtomicU32::new(0);
    // Fails if another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let number = PROJECTS.fetch_add(1, Ordering::Relaxed);
    PubSubSettings {
        emulator: Some(host.to_owned()),
        check_interval: Duration::from_secs(1),
        ack_deadline: Duration::from_secs(10),
        ..PubSubSettings::new(format!("conformance-{number}"), "replica-1")
    }
}

/// The emulator that all but the load cases share.
pub async fn shared_emulator() -> Option<String> {
    static SHARED: OnceCell<Option<Emulator>> = OnceCell::const_new();
    let emulator = SHARED.get_or_init(Emulator::start).await;
    emulator.as_ref().map(|emulator| emulator.host().to_owned())
}
