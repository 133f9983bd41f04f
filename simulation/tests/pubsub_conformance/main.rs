//! Conformance of the Pub/Sub engine on the model of the service, without faults and with faults.
//!
//! The cases are those of `bus/tests/conformance`; here they run on paused time. With faults run
//! the cases that allow repeated deliveries, and history that arrives after the reader has caught
//! up: if history arrives slowly, markers overtake it unnoticed.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

#[macro_use]
#[path = "../../../bus/tests/conformance/cases.rs"]
mod cases;
mod determinism;
mod engine;
#[path = "../../../bus/tests/conformance/history.rs"]
mod history;
#[path = "../../../bus/tests/conformance/lines.rs"]
mod lines;
mod losses;
#[path = "../../../bus/tests/conformance/reading.rs"]
mod reading;
#[path = "../../../bus/tests/conformance/shuffle.rs"]
mod shuffle;
#[path = "../../../bus/tests/conformance/subscriptions.rs"]
mod subscriptions;
#[path = "../../../bus/tests/support/mod.rs"]
mod support;
#[path = "../../../bus/tests/conformance/topics.rs"]
mod topics;

use engine::{Engine, delivery_faults, run};

macro_rules! cases {
    ($($module:ident: $($case:ident)*;)*) => {
        mod without_faults {
            $($(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    super::run(1, async {
                        super::$module::$case(super::Engine::new(1, Default::default())).await;
                    })
                    .await;
                }
            )*)*
        }
    };
}

macro_rules! cases_with_faults {
    ($($module:ident: $($case:ident)*;)*) => {
        mod with_faults {
            $($(
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    for seed in 0..20 {
                        super::run(seed, async {
                            super::$module::$case(super::Engine::new(seed, super::delivery_faults())).await;
                        })
                        .await;
                    }
                }
            )*)*
        }
    };
}

conformance_cases!(cases);

cases_with_faults! {
    lines:
        lines_arrive_once_and_in_order_despite_reordering_and_repeats
        gaps_and_ends_are_reported_once_at_their_position
        lines_that_arrive_after_their_gap_was_reported_are_late;
    history:
        the_history_of_an_app_without_lines_ends_at_once;
    subscriptions:
        a_new_subscription_starts_with_new_batches_and_redelivers_unacknowledged_ones
        a_nacked_batch_is_redelivered
        a_subscription_has_one_reader_at_a_time
        a_deleted_and_recreated_subscription_starts_with_new_batches;
    topics:
        apps_are_listed_by_name
        each_of_several_readers_gets_every_line;
}
