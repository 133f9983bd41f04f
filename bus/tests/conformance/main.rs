//! What every engine of the bus promises, held against each of them: the embedded one, and Pub/Sub on Google's own emulator.
//!
//! A case takes an [`Engine`](engine::Engine) and knows nothing of what is behind it. Between the engine and reassembly lies a layer that shuffles, repeats and
//! cuts anew: the emulator shows little disorder of its own.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

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

/// Runs each case on each engine. `load` cases have an emulator of their own: it slows down with all it was given.
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
        each_line_comes_once_and_in_order_whatever_the_way_did
        gaps_losses_and_ends_are_told_once_in_their_place
        what_comes_after_its_gap_was_told_is_late;
    history:
        history_comes_whole_then_its_end_is_told_then_live_joins
        a_reader_can_begin_at_a_time
        a_reader_that_begins_now_sees_nothing_older
        an_app_that_never_spoke_has_a_history_with_an_end
        what_was_accepted_is_there_after_a_restart;
    subscriptions:
        a_subscription_begins_with_what_comes_after_it_and_keeps_what_is_not_accepted
        what_is_given_back_comes_again
        a_subscription_has_one_reader_at_a_time
        a_subscription_that_was_removed_and_made_again_is_new;
    topics:
        apps_are_listed_by_name
        an_app_nobody_made_is_unknown
        an_app_removed_and_made_again_holds_only_what_is_new
        a_batch_that_is_too_large_is_refused_for_good
        several_readers_each_see_everything;
    load:
        the_largest_batches_come_back_to_the_byte
        a_hundred_thousand_small_batches_come_back;
}
