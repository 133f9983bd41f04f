//! Conformance of every bus engine: the embedded bus, and Pub/Sub on Google's emulator.
//!
//! A case takes an [`Engine`](engine::Engine) and does not depend on its kind. A layer between
//! engine and reassembly shuffles, repeats and recuts deliveries, because the emulator reorders few
//! of them.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

#[macro_use]
mod cases;
#[path = "../../../tests/support/emulator.rs"]
mod emulator;
mod engine;
mod history;
mod lines;
mod load;
mod projects;
mod pubsub;
mod reading;
mod shuffle;
mod subscriptions;
#[path = "../support/mod.rs"]
mod support;
mod topics;

/// Runs each case on each engine. Each `load` case has its own emulator, which slows down with the
/// data it stores.
macro_rules! on_each_engine {
    ($($module:ident: $($case:ident)*;)*) => {
        mod on_embedded {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$module::$case(super::engine::Engine::embedded().await).await;
                }
            )*)*
        }
        mod on_pubsub {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(engine) = super::engine::Engine::pubsub(stringify!($module)).await {
                        super::$module::$case(engine).await;
                    }
                }
            )*)*
        }
    };
}

conformance_cases!(on_each_engine
    load:
        the_largest_batches_are_delivered_unchanged
        a_hundred_thousand_small_batches_are_delivered;
);
