//! The cases that every engine keeps, listed once for each place that runs them.

/// Passes the cases, by module, to a macro that makes tests of them, followed by further cases.
macro_rules! conformance_cases {
    ($each:ident $($further:tt)*) => {
        $each! {
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
            $($further)*
        }
    };
}
