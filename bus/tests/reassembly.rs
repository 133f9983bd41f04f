//! The rules of reassembly, each with the trace that breaks without it.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bus::{
    Ack, Outcome, PublishTime,
    reassembly::{Patience, Reassembly},
};
use support::*;

fn tail() -> Reassembly {
    let mut tail = Reassembly::new(Patience::Tail { hold: HOLD }, START, HISTORY);
    tail.caught_up(at(0));
    tail
}

fn drain() -> Reassembly {
    Reassembly::new(
        Patience::Drain {
            ack_deadline: Duration::from_secs(60),
        },
        START,
        HISTORY,
    )
}

/// An ack, and what became of it.
fn ack() -> (Ack, Arc<Mutex<Option<Outcome>>>) {
    let seen = Arc::new(Mutex::new(None));
    let note = Arc::clone(&seen);
    (Ack::new(move |outcome| *note.lock().unwrap() = Some(outcome)), seen)
}

#[test]
fn early_batches_are_held_and_delivered_in_order() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 5, 10), 0), at(1));
    assert_eq!(told(&mut r), "");
    r.push(delivery(lines(&web, 0, 5), 0), at(2));
    assert_eq!(told(&mut r), "web:L0-5 web:L5-10 web:L10-20");
    assert_eq!((r.deadline(), r.held_bytes()), (None, 0));
}

#[test]
fn repeats_and_recut_batches_are_trimmed() {
    let (mut r, web) = (tail(), young("web"));
    for (from, to) in [(0, 10), (0, 10), (5, 12), (3, 8), (14, 16), (11, 20)] {
        r.push(delivery(lines(&web, from, to), 0), at(0));
    }
    assert_eq!(told(&mut r), "web:L0-10 web:L10-12 web:L12-20");
}

#[test]
fn what_does_not_come_within_the_hold_is_told_once_and_delivered_late_when_it_comes() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(lines(&web, 15, 20), 0), at(100));
    assert_eq!(told(&mut r), "web:L0-10");
    r.declare_due(at(1099));
    assert_eq!(told(&mut r), "");
    assert_eq!(r.deadline(), Some(at(1100).elapsed));
    r.declare_due(at(1100));
    assert_eq!(told(&mut r), "web:gap10-15 web:L15-20");
    r.push(delivery(lines(&web, 8, 13), 0), at(1200));
    r.push(delivery(lines(&web, 8, 13), 0), at(1200));
    assert_eq!(told(&mut r), "web:late10-13");
}

#[test]
fn each_gap_waits_its_own_hold() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 30, 40), 900), at(900));
    r.declare_due(at(1000));
    assert_eq!(told(&mut r), "web:gap0-10 web:L10-20");
    assert_eq!(r.deadline(), Some(at(1900).elapsed));
}

#[test]
fn a_tail_of_a_bus_that_is_behind_waits_as_long_as_it_is_behind() {
    let (mut r, web, other) = (tail(), young("web"), young("other"));
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
    assert!(told(&mut r).ends_with("web:L0-10 web:L10-20"));
}

// Rule 6.

#[test]
fn a_known_loss_is_told_once_in_place_and_not_as_the_readers_own_gap() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(loss(&web, 10, 20), 0), at(0));
    r.push(delivery(lines(&web, 20, 25), 0), at(0));
    r.push(delivery(lines(&web, 0, 10), 0), at(10));
    r.push(delivery(loss(&web, 10, 20), 0), at(20));
    r.declare_due(at(5000));
    assert_eq!(told(&mut r), "web:L0-10 web:lost10-20 web:L20-25");
}

#[test]
fn a_loss_that_comes_after_its_gap_was_declared_is_not_told_again() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(lines(&web, 20, 25), 0), at(0));
    r.declare_due(at(1000));
    r.push(delivery(loss(&web, 10, 20), 0), at(2000));
    assert_eq!(told(&mut r), "web:L0-10 web:gap10-20 web:L20-25");
}

#[test]
fn the_last_batches_lost_are_told_though_no_higher_seq_ever_comes() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(loss(&web, 10, 20), 0), at(0));
    assert_eq!(told(&mut r), "web:L0-10 web:lost10-20");
}

#[test]
fn of_a_loss_only_what_has_not_arrived_counts() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 12), 0), at(0));
    r.push(delivery(lines(&web, 15, 17), 0), at(0));
    r.push(delivery(loss(&web, 10, 20), 0), at(0));
    assert_eq!(told(&mut r), "web:L0-12 web:lost12-15 web:L15-17 web:lost17-20");
    r.push(delivery(lines(&web, 10, 15), 0), at(0));
    assert_eq!(told(&mut r), "web:late12-15", "what comes all the same is delivered");
}

#[test]
fn a_loss_of_unknown_count_is_told_once_in_its_place() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(unknown_loss(&web, 10), 0), at(0));
    r.push(delivery(lines(&web, 10, 12), 0), at(0));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(unknown_loss(&web, 10), 0), at(0));
    assert_eq!(told(&mut r), "web:L0-10 web:lost10-? web:L10-12");
}

// Rule 7.

#[test]
fn an_end_that_says_more_than_came_is_a_gap_then_the_end() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 10), 0), at(0));
    r.push(delivery(end(&web, 12), 0), at(0));
    assert_eq!(told(&mut r), "web:L0-10");
    r.declare_due(at(1000));
    assert_eq!(told(&mut r), "web:gap10-12 web:end12");
}

#[test]
fn lines_behind_a_wrong_end_are_delivered_and_hold_nobody_up() {
    for patience in [Patience::Tail { hold: HOLD }, Patience::InOrder] {
        let web = young("web");
        let mut r = Reassembly::new(patience, START, HISTORY);
        r.caught_up(at(0));
        r.push(delivery(lines(&web, 0, 5), 0), at(0));
        r.push(delivery(end(&web, 5), 0), at(0));
        r.push(delivery(lines(&web, 10, 12), 0), at(0));
        r.declare_all();
        assert_eq!(told(&mut r), "web:L0-5 web:end5 web:gap5-10 web:L10-12");
        assert_eq!(r.deadline(), None);
    }
}

// Rule 9.

#[test]
fn an_end_that_overtakes_does_not_make_a_redelivery_a_repeat() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 0, 100), 0), at(0));
    r.push(delivery(lines(&web, 100, 150), 0), at(0));
    r.push(delivery(lines(&web, 200, 210), 0), at(0));
    r.push(delivery(end(&web, 210), 0), at(0));
    r.push(delivery(lines(&web, 150, 200), 0), at(10));
    r.push(delivery(lines(&web, 100, 150), 0), at(20));
    assert_eq!(
        told(&mut r),
        "web:L0-100 web:L100-150 web:L150-200 web:L200-210 web:end210"
    );
}

#[test]
fn a_stream_is_remembered_as_long_as_history_reaches() {
    let (mut r, web) = (tail(), old("web"));
    r.push(delivery(lines(&web, 400, 490), 0), at(0));
    r.declare_due(at(1000));
    assert_eq!(told(&mut r), "web:L400-490");
    let silent = 59 * 60 * 1000;
    r.forget(at(silent).bus);
    r.push(delivery(lines(&web, 500, 510), silent), at(silent));
    r.declare_due(at(silent + 1000));
    assert_eq!(
        told(&mut r),
        "web:gap490-500 web:L500-510",
        "59 silent minutes do not make it a new stream"
    );
    let forgotten = silent + 61 * 60 * 1000;
    r.forget(at(forgotten).bus);
    assert_eq!(r.streams(), 0);
}

// Rule 10.

#[test]
fn a_young_stream_whose_first_batch_is_lost_begins_with_a_gap() {
    let (mut r, web) = (tail(), young("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.declare_due(at(1000));
    assert_eq!(told(&mut r), "web:gap0-10 web:L10-20");
}

#[test]
fn an_older_stream_is_joined_at_the_lowest_seq_within_the_hold() {
    let (mut r, web) = (tail(), old("web"));
    r.push(delivery(lines(&web, 520, 530), 0), at(0));
    r.push(delivery(lines(&web, 500, 510), 0), at(500));
    r.declare_due(at(1000));
    assert_eq!(told(&mut r), "web:L500-510");
    r.push(delivery(lines(&web, 510, 520), 0), at(1100));
    assert_eq!(told(&mut r), "web:L510-520 web:L520-530");
}

#[test]
fn a_reader_that_sees_the_topic_from_its_first_batch_misses_no_beginning() {
    let web = old("web");
    let mut r = Reassembly::new(Patience::InOrder, PublishTime(0), HISTORY);
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    assert_eq!(told(&mut r), "web:gap0-10 web:L10-20");
}

// Rule 11.

#[test]
fn nothing_is_declared_before_the_read_back_is_complete() {
    let web = young("web");
    let mut r = Reassembly::new(Patience::Tail { hold: HOLD }, START, HISTORY);
    r.push(delivery(lines(&web, 20, 30), 0), at(0));
    r.declare_due(at(60_000));
    r.push(delivery(lines(&web, 0, 10), 0), at(60_000));
    assert_eq!((told(&mut r).as_str(), r.deadline()), ("web:L0-10", None));
    r.caught_up(at(61_000));
    r.declare_due(at(61_999));
    assert_eq!(told(&mut r), "");
    r.declare_due(at(62_000));
    assert_eq!(told(&mut r), "web:gap10-20 web:L20-30");
}

#[test]
fn a_read_back_to_an_end_settles_everything() {
    let (web, job) = (old("web"), young("job"));
    let mut r = Reassembly::new(Patience::Tail { hold: HOLD }, START, HISTORY);
    r.push(delivery(lines(&web, 70, 80), 0), at(0));
    r.push(delivery(lines(&web, 60, 65), 0), at(0));
    r.push(delivery(lines(&job, 3, 5), 0), at(0));
    r.declare_all();
    let mut all: Vec<String> = told(&mut r).split(' ').map(str::to_owned).collect();
    all.sort();
    assert_eq!(
        all,
        ["job:L3-5", "job:gap0-3", "web:L60-65", "web:L70-80", "web:gap65-70"]
    );
}

#[test]
fn a_drain_that_returns_to_a_backlog_in_no_order_declares_no_gap() {
    let (mut r, web) = (drain(), young("web"));
    let hour = 3_600_000;
    // 10,000 messages an hour old, the first half after the second, over ten minutes.
    let order = (5_000..10_000u64).chain(0..5_000);
    for (i, n) in order.enumerate() {
        let now = at(hour + i as u64 * 60);
        r.push(delivery(lines(&web, n * 10, n * 10 + 10), n), now);
        r.declare_due(now);
    }
    let all = told(&mut r);
    assert!(!all.contains("gap"), "no false gap");
    assert!(all.ends_with("web:L99990-100000"));
}

#[test]
fn a_drain_waits_for_twice_the_ack_deadline_and_ten_seconds() {
    let (mut r, web) = (drain(), young("web"));
    r.push(delivery(lines(&web, 10, 20), 0), at(0));
    r.declare_due(at(129_999));
    assert_eq!(told(&mut r), "");
    r.declare_due(at(130_000));
    assert_eq!(told(&mut r), "web:gap0-10 web:L10-20");
}

#[test]
fn what_is_farthest_ahead_goes_back_when_too_much_is_held() {
    let (mut r, web) = (drain(), young("web"));
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
        r.push(acked(big(n), 0, ack), at(0));
        outcomes.push(seen);
    }
    assert!(r.held_bytes() <= bus::reassembly::MAX_HELD_BYTES);
    let given_back = |seen: &Arc<Mutex<Option<Outcome>>>| *seen.lock().unwrap() == Some(Outcome::GivenBack);
    assert!(!given_back(&outcomes[0]), "the nearest is kept");
    assert_eq!(outcomes.iter().filter(|seen| given_back(seen)).count(), 79 - 63);
    assert!(r.next_event().is_none(), "nothing is declared for want of room");
}

// Rule 12.

#[test]
fn a_repeat_of_what_is_delivered_but_not_acknowledged_joins_its_ack() {
    let (mut r, web) = (drain(), young("web"));
    let (first, first_seen) = ack();
    r.push(acked(lines(&web, 0, 10), 0, first), at(0));
    let event = r.next_event().unwrap();
    // The lease ran out while the receiver stalled: the same batch again, trimmed to nothing.
    let (again, again_seen) = ack();
    r.push(acked(lines(&web, 0, 10), 0, again), at(90_000));
    assert!(r.next_event().is_none());
    assert_eq!(
        (*first_seen.lock().unwrap(), *again_seen.lock().unwrap()),
        (None, None),
        "nothing is acknowledged by a repeat"
    );
    r.acknowledge(&event.receipt());
    assert_eq!(
        (*first_seen.lock().unwrap(), *again_seen.lock().unwrap()),
        (Some(Outcome::Accepted), Some(Outcome::Accepted))
    );
    let (third, third_seen) = ack();
    r.push(acked(lines(&web, 2, 8), 0, third), at(91_000));
    assert_eq!(
        *third_seen.lock().unwrap(),
        Some(Outcome::Accepted),
        "inside acknowledged ranges: at once"
    );
}

#[test]
fn a_recut_batch_is_accepted_when_all_its_lines_are() {
    let (mut r, web) = (drain(), young("web"));
    let (one, one_seen) = ack();
    let (two, two_seen) = ack();
    r.push(acked(lines(&web, 0, 10), 0, one), at(0));
    r.push(acked(lines(&web, 5, 15), 0, two), at(0));
    let (first, second) = (r.next_event().unwrap(), r.next_event().unwrap());
    r.acknowledge(&first.receipt());
    assert_eq!(
        (*one_seen.lock().unwrap(), *two_seen.lock().unwrap()),
        (Some(Outcome::Accepted), None)
    );
    r.acknowledge(&second.receipt());
    assert_eq!(*two_seen.lock().unwrap(), Some(Outcome::Accepted));
}

#[test]
fn a_loss_is_accepted_when_it_has_been_told() {
    let (mut r, web) = (drain(), young("web"));
    for batch in [loss(&web, 0, 5), unknown_loss(&web, 5)] {
        let (first, first_seen) = ack();
        r.push(acked(batch.clone(), 0, first), at(0));
        let event = r.next_event().unwrap();
        assert_eq!(*first_seen.lock().unwrap(), None);
        r.acknowledge(&event.receipt());
        assert_eq!(*first_seen.lock().unwrap(), Some(Outcome::Accepted));
        let (again, again_seen) = ack();
        r.push(acked(batch, 0, again), at(0));
        assert_eq!(
            (r.next_event(), *again_seen.lock().unwrap()),
            (None, Some(Outcome::Accepted))
        );
    }
}
