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

on_each_engine! {
    lines:
        lines_arrive_once_and_in_order_despite_reordering_and_repeats
        gaps_and_ends_are_reported_once_at_their_position
        lines_that_arrive_after_their_gap_was_reported_are_late;
    history:
        a_reader_gets_the_history_then_caught_up_then_live_batches
        a_reader_can_start_at_a_time
        a_reader_that_starts_now_gets_no_older_batches
        the_history_of_an_app_without_lines_ends_at_once
        accepted_batches_survive_a_restart;
    subscriptions:
        a_new_subscription_starts_with_new_batches_and_redelivers_unacknowledged_ones
        a_nacked_batch_is_redelivered
        a_subscription_has_one_reader_at_a_time
        a_deleted_and_recreated_subscription_starts_with_new_batches;
    topics:
        apps_are_listed_by_name
        an_app_without_a_topic_is_unknown
        a_removed_and_recreated_app_holds_only_new_batches
        a_batch_that_is_too_large_is_rejected_permanently
        each_of_several_readers_gets_every_line;
    load:
        the_largest_batches_are_delivered_unchanged
        a_hundred_thousand_small_batches_are_delivered;
}
