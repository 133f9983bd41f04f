//! Batches of log lines, and the bus that carries them from collectors to streamers and sinks.
//!
//! Reading order is data order: a [`Batch`] of a stream's lines is [published](Bus::publish), an
//! engine ([`Embedded`] on one machine, [`PubSub`] on a cluster) stores it, a [`Reader`] delivers
//! it, and [reassembly](reassembly::Reassembly) turns deliveries into every line once, in order,
//! with every gap reported.
//!
//! The crate depends on neither HTTP nor Kubernetes. Another engine is a folder beside
//! `embedded/` and `pubsub/`, and a variant of [`BusAddress`].

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        reason = "tests use the operating system directly"
    )
)]

mod ack;
mod app;
mod batch;
mod bus;
mod bus_address;
mod bus_clock;
pub mod cursor;
mod embedded;
mod encoding;
mod error;
mod level;
pub mod notice;
mod progress;
#[cfg(feature = "pubsub")]
mod pubsub;
mod ranges;
pub mod reassembly;
pub mod rendezvous;
mod stream_id;
mod time;
mod wire;

pub use ack::{Ack, AckOutcome};
pub use app::{AppName, InvalidAppName};
pub use batch::{
    Batch, Content, Delivery, Fd, Gap, GapReason, MAX_BATCH_BYTES, MAX_LINE_BYTES, Part, PlatformMessage,
    StreamMetadata, VERSION,
};
pub use bus::{Bus, BusOperation, Reader, ReaderItem, Start};
pub use bus_address::{BusAddress, BusSettings, InvalidBusAddress};
pub use bus_clock::BusClock;
pub use embedded::{Embedded, EmbeddedSettings};
pub use error::BusError;
pub use level::Level;
pub use progress::StreamProgress;
#[cfg(feature = "pubsub")]
#[doc(hidden)]
pub use pubsub::service as pubsub_service;
#[cfg(feature = "pubsub")]
pub use pubsub::{EMULATOR_VARIABLE, PubSub, PubSubSettings};
pub use ranges::Ranges;
pub use stream_id::{Epoch, InvalidStreamId, StreamId};
pub use time::{PublishTime, Timestamp};
pub use wire::Unreadable;
