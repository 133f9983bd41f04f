//! The delivery rules of reassembly, each with a sequence of deliveries that violates it otherwise.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::{
    Ack, AckOutcome, Batch, PublishTime,
    reassembly::{EventKind, GapTimeouts, REORDER_WINDOW, Reassembly},
};
use support::*;

fn tail() -> Reassembly {
    let mut tail = Reassembly::new(
        GapTimeouts::Tail {
            reorder_window: REORDER_WINDOW,
        },
        START,
        HISTORY,
    );
    tail.caught_up(at(0));
    tail
}

/// A drain whose subscription nothing has read before.
fn drain() -> Reassembly {
    Reassembly::new(
        GapTimeouts::Drain {
            ack_deadline: Duration::from_secs(60),
            is_new: true,
        },
        START,
        HISTORY,
    )
}

/// An ack and its outcome.
fn ack() -> (Ack, Arc<Mutex<Option<AckOutcome>>>) {
    let seen = Arc::new(Mutex::new(None));
    let recorded = Arc::clone(&seen);
    (Ack::new(move |outcome| *recorded.lock().unwrap() = Some(outcome)), seen)
}

#[test]
fn early_batches_are_buffered_and_delivered_in_order() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 5, 10), 0), at(1));
    assert_eq!(described_events(&mut r), "");
    r.push(delivery(lines(&web, 0, 5), 0), at(2));
    assert_eq!(described_events(&mut r), "web:L0-5 web:L5-10 web:L10-20");
    assert_eq!((r.deadline(), r.buffered_bytes()), (None, 0));
}

#[test]
fn repeats_and_recut_batches_are_trimmed() {
    let (mut r, web) = (tail(), new_stream("web"));
    for (from, to) in [(0, 10), (0, 10), (5, 12), (3, 8), (14, 16), (11, 20)] {
        r.push(delivery(lines(&web, from, to), 0), at(0));
    }
    assert_eq!(described_events(&mut r), "web:L0-10 web:L10-12 web:L12-20");
}

#[test]
fn a_gap_is_reported_once_after_the_reorder_window_and_its_lines_are_late() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(lines(&web, 15, 20), 0), at(100));
    assert_eq!(described_events(&mut r), "web:L0-10");
    r.declare_due(at(1099));
    assert_eq!(described_events(&mut r), "");
    assert_eq!(r.deadline(), Some(at(1100).elapsed));
    r.declare_due(at(1100));
    assert_eq!(described_events(&mut r), "web:gap10-15 web:L15-20");
    r.push(delivery(lines(&web, 8, 13), 0), at(1200));
    r.push(delivery(lines(&web, 8, 13), 0), at(1200));
    assert_eq!(described_events(&mut r), "web:late10-13");
}

#[test]
fn each_gap_has_its_own_reorder_window() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 30, 40), 900), at(900));
    r.declare_due(at(1000));
    assert_eq!(described_events(&mut r), "web:gap0-10 web:L10-20");
    assert_eq!(r.deadline(), Some(at(1900).elapsed));
}

#[test]
fn the_reorder_window_grows_with_the_delay_of_the_bus() {
    let (mut r, web, other) = (tail(), new_stream("web"), new_stream("other"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    for n in 0..30 {
        let now = 500 + n;
        r.push(
            delivery(lines(&other, n, n + 1), if n % 2 == 0 { 0 } else { now }),
            at(now + 3000),
        );
        r.declare_due(at(now + 3000));
    }
    r.push(delivery(lines(&web, 0, 10), 0), at(3600));
    r.declare_due(at(3600));
    assert!(described_events(&mut r).ends_with("web:L0-10 web:L10-20"));
}

// Delivery rule 6.

#[test]
fn a_recorded_gap_is_reported_once_at_its_position_with_its_record() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(recorded_gap(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 20, 25), 0), at(0));
    r.push(delivery(lines(&web, 0, 10), 0), at(10));
    r.push(delivery(recorded_gap(&web, 10, 20), 0), at(20));
    r.declare_due(at(5000));
    assert_eq!(described_events(&mut r), "web:L0-10 web:recorded10-20 web:L20-25");
}

#[test]
fn a_recorded_gap_that_was_reported_as_undelivered_is_not_reported_again() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(lines(&web, 20, 25), 0), at(0));
    r.declare_due(at(1000));
    r.push(delivery(recorded_gap(&web, 10, 20), 0), at(2000));
    assert_eq!(described_events(&mut r), "web:L0-10 web:gap10-20 web:L20-25");
}

#[test]
fn a_recorded_gap_at_the_end_of_a_stream_is_reported() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(recorded_gap(&web, 10, 20), 0), at(0));
    assert_eq!(described_events(&mut r), "web:L0-10 web:recorded10-20");
}

#[test]
fn a_recorded_gap_excludes_lines_that_arrived() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 12), 0), at(0));
    r.push(delivery(lines(&web, 15, 17), 0), at(0));
    r.push(delivery(recorded_gap(&web, 10, 20), 0), at(0));
    assert_eq!(
        described_events(&mut r),
        "web:L0-12 web:recorded12-15 web:L15-17 web:recorded17-20"
    );
    r.push(delivery(lines(&web, 10, 15), 0), at(0));
    assert_eq!(
        described_events(&mut r),
        "web:late12-15",
        "lines of a gap that arrive are delivered"
    );
}

#[test]
fn a_gap_of_unknown_size_is_reported_once_at_its_position() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(unknown_gap(&web, 10), 0), at(0));
    r.push(delivery(lines(&web, 10, 12), 0), at(0));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(unknown_gap(&web, 10), 0), at(0));
    assert_eq!(described_events(&mut r), "web:L0-10 web:recorded10-? web:L10-12");
}

// Delivery rule 7.

#[test]
fn lines_missing_before_the_end_are_a_gap() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(end(&web, 12), 0), at(0));
    assert_eq!(described_events(&mut r), "web:L0-10");
    r.declare_due(at(1000));
    assert_eq!(described_events(&mut r), "web:gap10-12 web:end12");
}

#[test]
fn lines_behind_a_wrong_end_are_delivered_without_delay() {
    for timeouts in [
        GapTimeouts::Tail {
            reorder_window: REORDER_WINDOW,
        },
        GapTimeouts::InOrder,
    ] {
        let web = new_stream("web");
        let mut r = Reassembly::new(timeouts, START, HISTORY);
        r.caught_up(at(0));
        r.push(delivery(lines(&web, 0, 5), 0), at(0));
        r.push(delivery(end(&web, 5), 0), at(0));
        r.push(delivery(lines(&web, 10, 12), 0), at(0));
        r.declare_all();
        assert_eq!(described_events(&mut r), "web:L0-5 web:end5 web:gap5-10 web:L10-12");
        assert_eq!(r.deadline(), None);
    }
}

// Delivery rule 9.

#[test]
fn an_early_end_does_not_turn_a_redelivery_into_a_repeat() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 100), 0), at(0));
    r.push(delivery(lines(&web, 100, 150), 0), at(0));
    r.push(delivery(lines(&web, 200, 210), 0), at(0));
    r.push(delivery(end(&web, 210), 0), at(0));
    r.push(delivery(lines(&web, 150, 200), 0), at(10));
    r.push(delivery(lines(&web, 100, 150), 0), at(20));
    assert_eq!(
        described_events(&mut r),
        "web:L0-100 web:L100-150 web:L150-200 web:L200-210 web:end210"
    );
}

#[test]
fn a_stream_is_remembered_for_the_length_of_the_history() {
    let (mut r, web) = (tail(), old_stream("web"));
    r.push(delivery(lines(&web, 400, 490), 0), at(0));
    r.declare_due(at(1000));
    assert_eq!(described_events(&mut r), "web:L400-490");
    let idle = 59 * 60 * 1000;
    r.forget(at(idle).bus);
    r.push(delivery(lines(&web, 500, 510), idle), at(idle));
    r.declare_due(at(idle + 1000));
    assert_eq!(
        described_events(&mut r),
        "web:gap490-500 web:L500-510",
        "after 59 minutes without lines it is the same stream"
    );
    let forgotten = idle + 61 * 60 * 1000;
    r.forget(at(forgotten).bus);
    assert_eq!(r.streams(), 0);
}

// Delivery rule 10.

#[test]
fn a_new_stream_without_its_first_batch_starts_with_a_gap() {
    let (mut r, web) = (tail(), new_stream("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.declare_due(at(1000));
    assert_eq!(described_events(&mut r), "web:gap0-10 web:L10-20");
}

#[test]
fn an_older_stream_is_joined_at_the_lowest_seq_within_the_reorder_window() {
    let (mut r, web) = (tail(), old_stream("web"));
    r.push(delivery(lines(&web, 520, 530), 0), at(0));
    r.push(delivery(lines(&web, 500, 510), 0), at(500));
    r.declare_due(at(1000));
    assert_eq!(described_events(&mut r), "web:L500-510");
    r.push(delivery(lines(&web, 510, 520), 0), at(1100));
    assert_eq!(described_events(&mut r), "web:L510-520 web:L520-530");
}

#[test]
fn a_reader_in_order_joins_a_stream_at_its_first_batch_whatever_the_clock_of_its_node_says() {
    for web in [old_stream("web"), new_stream("web")] {
        let mut r = Reassembly::new(GapTimeouts::InOrder, START, HISTORY);
        r.push(delivery(lines(&web, 10, 20), 0), at(0));
        r.push(delivery(lines(&web, 25, 30), 0), at(0));
        assert_eq!(described_events(&mut r), "web:L10-20 web:gap20-25 web:L25-30");
    }
}

#[test]
fn what_was_skipped_is_a_gap_once_an_earlier_line_arrives() {
    let (mut r, web) = (tail(), old_stream("web"));
    r.push(delivery(lines(&web, 520, 530), 500), at(500));
    r.declare_due(at(1500));
    assert_eq!(described_events(&mut r), "web:L520-530");
    // It was published while the reader was reading, and so were the lines behind it.
    r.push(delivery(lines(&web, 500, 505), 100), at(1600));
    assert_eq!(described_events(&mut r), "web:gap500-520 web:late500-505");
    r.push(delivery(lines(&web, 510, 520), 300), at(1700));
    r.push(delivery(lines(&web, 500, 505), 100), at(1700));
    assert_eq!(described_events(&mut r), "web:late510-520");
    // Published again, after the line at which the reader joined: nothing follows from it.
    r.push(delivery(lines(&web, 490, 500), 900), at(1800));
    assert_eq!(described_events(&mut r), "web:late490-500");
}

#[test]
fn a_reader_of_the_whole_topic_reports_a_missing_beginning() {
    let web = old_stream("web");
    let mut r = Reassembly::new(GapTimeouts::InOrder, PublishTime(0), HISTORY);
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    assert_eq!(described_events(&mut r), "web:gap0-10 web:L10-20");
}

// Delivery rule 11.

#[test]
fn no_gap_is_reported_before_the_reader_has_caught_up() {
    let web = new_stream("web");
    let mut r = Reassembly::new(
        GapTimeouts::Tail {
            reorder_window: REORDER_WINDOW,
        },
        START,
        HISTORY,
    );
    r.push(delivery(lines(&web, 20, 30), 0), at(0));
    r.declare_due(at(60_000));
    r.push(delivery(lines(&web, 0, 10), 0), at(60_000));
    assert_eq!((described_events(&mut r).as_str(), r.deadline()), ("web:L0-10", None));
    r.caught_up(at(61_000));
    r.declare_due(at(61_999));
    assert_eq!(described_events(&mut r), "");
    r.declare_due(at(62_000));
    assert_eq!(described_events(&mut r), "web:gap10-20 web:L20-30");
}

#[test]
fn a_reader_that_stops_at_the_end_of_the_history_reports_all_gaps() {
    let (web, job) = (old_stream("web"), new_stream("job"));
    let mut r = Reassembly::new(
        GapTimeouts::Tail {
            reorder_window: REORDER_WINDOW,
        },
        START,
        HISTORY,
    );
    r.push(delivery(lines(&web, 70, 80), 0), at(0));
    r.push(delivery(lines(&web, 60, 65), 0), at(0));
    r.push(delivery(lines(&job, 3, 5), 0), at(0));
    r.declare_all();
    let mut all: Vec<String> = described_events(&mut r).split(' ').map(str::to_owned).collect();
    all.sort();
    assert_eq!(
        all,
        ["job:L3-5", "job:gap0-3", "web:L60-65", "web:L70-80", "web:gap65-70"]
    );
}

#[test]
fn a_drain_reports_no_gap_while_it_reads_an_unordered_backlog() {
    let (mut r, web) = (drain(), new_stream("web"));
    let hour = 3_600_000;
    // 10,000 messages of one hour ago, the first half after the second, within ten minutes.
    let order = (5_000..10_000u64).chain(0..5_000);
    for (i, n) in order.enumerate() {
        let now = at(hour + i as u64 * 60);
        r.push(delivery(lines(&web, n * 10, n * 10 + 10), n), now);
        r.declare_due(now);
    }
    let all = described_events(&mut r);
    assert!(!all.contains("gap"), "no gap is reported");
    assert!(all.ends_with("web:L99990-100000"));
}

#[test]
fn a_drain_waits_for_twice_the_ack_deadline_and_ten_seconds() {
    let (mut r, web) = (drain(), new_stream("web"));
    r.push(delivery(lines(&web, 0, 5), 0), at(0));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    assert_eq!(described_events(&mut r), "web:L0-5");
    r.declare_due(at(129_999));
    assert_eq!(described_events(&mut r), "");
    r.declare_due(at(130_000));
    assert_eq!(described_events(&mut r), "web:gap5-10 web:L10-20");
}

#[test]
fn the_last_batches_are_nacked_when_the_buffer_is_full() {
    let (mut r, web) = (drain(), new_stream("web"));
    let big = |n: u64| {
        let mut batch = lines(&web, n, n + 1);
        let text = format!("2026-11-23T07:00:00.123456789Z {}\n", "x".repeat(1 << 20));
        batch.content = bus::Content::Lines {
            data: text.into(),
            lines: 1,
            part: None,
        };
        batch
    };
    let mut outcomes = Vec::new();
    for n in 1..80 {
        let (ack, seen) = ack();
        r.push(delivery_with_ack(big(n), 0, ack), at(0));
        outcomes.push(seen);
    }
    assert!(r.buffered_bytes() <= bus::reassembly::MAX_BUFFERED_BYTES);
    let is_nacked = |seen: &Arc<Mutex<Option<AckOutcome>>>| *seen.lock().unwrap() == Some(AckOutcome::Nacked);
    assert!(!is_nacked(&outcomes[0]), "the first batch stays buffered");
    assert_eq!(outcomes.iter().filter(|seen| is_nacked(seen)).count(), 79 - 63);
    assert!(r.next_event().is_none(), "no gap is reported when the buffer is full");
}

// Delivery rule 12.

#[test]
fn a_redelivery_of_unacknowledged_lines_waits_for_their_acknowledgement() {
    let (mut r, web) = (drain(), new_stream("web"));
    let (first, first_seen) = ack();
    r.push(delivery_with_ack(lines(&web, 0, 10), 0, first), at(0));
    let event = r.next_event().unwrap();
    // The lease expired while the receiver stalled: the same batch is redelivered and trimmed
    // completely.
    let (again, again_seen) = ack();
    r.push(delivery_with_ack(lines(&web, 0, 10), 0, again), at(90_000));
    assert!(r.next_event().is_none());
    assert_eq!(
        (*first_seen.lock().unwrap(), *again_seen.lock().unwrap()),
        (None, None),
        "a redelivery acknowledges nothing"
    );
    r.acknowledge(&event.receipt());
    assert_eq!(
        (*first_seen.lock().unwrap(), *again_seen.lock().unwrap()),
        (Some(AckOutcome::Acked), Some(AckOutcome::Acked))
    );
    let (third, third_seen) = ack();
    r.push(delivery_with_ack(lines(&web, 2, 8), 0, third), at(91_000));
    assert_eq!(
        *third_seen.lock().unwrap(),
        Some(AckOutcome::Acked),
        "acknowledged lines are acknowledged at once"
    );
}

#[test]
fn a_recut_batch_is_acknowledged_with_its_last_line() {
    let (mut r, web) = (drain(), new_stream("web"));
    let (one, one_seen) = ack();
    let (two, two_seen) = ack();
    r.push(delivery_with_ack(lines(&web, 0, 10), 0, one), at(0));
    r.push(delivery_with_ack(lines(&web, 5, 15), 0, two), at(0));
    let (first, second) = (r.next_event().unwrap(), r.next_event().unwrap());
    r.acknowledge(&first.receipt());
    assert_eq!(
        (*one_seen.lock().unwrap(), *two_seen.lock().unwrap()),
        (Some(AckOutcome::Acked), None)
    );
    r.acknowledge(&second.receipt());
    assert_eq!(*two_seen.lock().unwrap(), Some(AckOutcome::Acked));
}

#[test]
fn a_recorded_gap_is_acknowledged_once_it_was_processed() {
    let (mut r, web) = (drain(), new_stream("web"));
    for batch in [recorded_gap(&web, 0, 5), unknown_gap(&web, 5)] {
        let (first, first_seen) = ack();
        r.push(delivery_with_ack(batch.clone(), 0, first), at(0));
        let event = r.next_event().unwrap();
        assert_eq!(*first_seen.lock().unwrap(), None);
        r.acknowledge(&event.receipt());
        assert_eq!(*first_seen.lock().unwrap(), Some(AckOutcome::Acked));
        let (again, again_seen) = ack();
        r.push(delivery_with_ack(batch, 0, again), at(0));
        assert_eq!(
            (r.next_event(), *again_seen.lock().unwrap()),
            (None, Some(AckOutcome::Acked))
        );
    }
}

#[test]
fn a_platform_message_is_a_line_with_its_facts() {
    let (mut r, notices) = (tail(), new_stream("tributary"));
    let notice = bus::notice::rate_limited(1000, 2000);
    let message = |seq| Batch {
        metadata: Arc::clone(&notices),
        seq,
        content: notice.clone().into_content(bus::Timestamp(0)),
    };
    r.push(delivery(message(1), 0), at(0));
    r.push(delivery(message(0), 0), at(0));
    r.push(delivery(message(1), 0), at(0));
    for seq in 0..2 {
        let event = r.next_event().unwrap();
        let EventKind::Lines {
            lines: 1,
            message: Some(message),
            ..
        } = &event.kind
        else {
            panic!("{event:?}")
        };
        assert_eq!((event.seq, &*message.code, &*message.reason), (seq, "L12", "limit"));
    }
    assert!(r.next_event().is_none(), "repeats are trimmed");
}
