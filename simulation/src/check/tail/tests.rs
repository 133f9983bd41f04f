use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use jiff::Timestamp;

use super::*;
use crate::check::{BusLimits, printed::Output};

const STREAM: &str = "uid/web/c1/1-a";

/// Five lines of one container.
fn printed() -> Printed {
    let mut printed = Printed::default();
    let unit = Unit {
        instance: "c1".to_owned(),
        output: Output::Both,
    };
    for index in 0..5 {
        printed.add(
            &unit,
            "shop",
            "web",
            format!("line {index}"),
            (Timestamp::UNIX_EPOCH, Duration::from_secs(index + 1)),
        );
    }
    printed
}

fn line(stream: &str, seq: u64, index: usize) -> Received {
    Received::Line {
        stream: stream.to_owned(),
        seq,
        text: format!("line {index}"),
        late: false,
        at: Duration::ZERO,
        fields: Fields {
            process: "web".to_owned(),
            ..Fields::default()
        },
    }
}

fn gap(stream: &str, first: u64, count: Option<u64>) -> Received {
    Received::Notice(Notice {
        code: "L13".to_owned(),
        reason: "rotated".to_owned(),
        stream: Some(stream.to_owned()),
        first: Some(first),
        count,
        ..Notice::default()
    })
}

/// A notice for another reason.
fn notice(reason: &str, notice: Received) -> Received {
    match notice {
        Received::Notice(notice) => Received::Notice(Notice {
            reason: reason.to_owned(),
            ..notice
        }),
        other => other,
    }
}

fn rules(received: Vec<Received>) -> Vec<Rule> {
    rules_of(&printed(), received, BusLimits::default())
}

/// The same for a bus whose files are damaged.
fn rules_after_damage(received: Vec<Received>) -> Vec<Rule> {
    let bus = BusLimits {
        may_lose: true,
        ..BusLimits::default()
    };
    rules_of(&printed(), received, bus)
}

fn rules_for(printed: &Printed, received: Vec<Received>) -> Vec<Rule> {
    rules_of(printed, received, BusLimits::default())
}

fn rules_of(printed: &Printed, received: Vec<Received>, bus: BusLimits) -> Vec<Rule> {
    let log = TailLog {
        name: "tail".to_owned(),
        app: "shop".to_owned(),
        since: Duration::ZERO,
        is_complete: true,
        bus,
        received,
    };
    check(printed, &log)
        .into_iter()
        .map(|violation| violation.rule)
        .collect()
}

fn lines(indexes: impl IntoIterator<Item = usize>) -> Vec<Received> {
    indexes
        .into_iter()
        .map(|index| line(STREAM, index as u64, index))
        .collect()
}

#[test]
fn complete_output_breaks_no_promise() {
    assert_eq!(rules(lines(0..5)), []);
    let other = "uid/web/c1/2-b";
    let mut two = lines(0..3);
    two.extend([line(other, 0, 3), line(other, 1, 4)]);
    assert_eq!(rules(two), []);
}

#[test]
fn a_missing_line_needs_a_notice_with_its_count() {
    assert_eq!(rules(lines([0, 1, 4])), [Rule::SilentLoss]);
    assert_eq!(rules(lines([0, 1, 2, 3])), [Rule::SilentLoss]);
    assert_eq!(rules(lines([1, 2, 3, 4])), [Rule::SilentLoss]);
    let with = |notice| {
        let mut received = lines([0, 1]);
        received.extend([notice, line(STREAM, 4, 4)]);
        rules(received)
    };
    assert_eq!(with(gap(STREAM, 2, Some(2))), []);
    assert_eq!(with(gap(STREAM, 2, Some(1))), [Rule::WrongCount]);
    assert_eq!(with(gap(STREAM, 4, None)), []);
}

#[test]
fn a_gap_over_delivered_lines_is_false() {
    let mut received = lines(0..5);
    received.insert(2, gap(STREAM, 2, Some(1)));
    assert_eq!(rules(received), [Rule::FalseGap]);
    let mut received = lines(0..5);
    received.insert(2, gap(STREAM, 2, None));
    assert_eq!(rules(received), [Rule::FalseGap]);
    let other = "uid/web/c1/2-b";
    let mut received = lines(0..3);
    received.extend([gap(other, 0, None), line(other, 0, 3), line(other, 1, 4)]);
    assert_eq!(rules(received), [Rule::FalseGap]);
}

#[test]
fn a_suspected_gap_covers_missing_lines_and_may_cover_none() {
    for indexes in [vec![0, 1, 4], vec![0, 1, 2, 3, 4]] {
        let mut received = lines(indexes);
        received.insert(2, notice("suspected", gap(STREAM, 2, None)));
        assert_eq!(rules(received), []);
    }
}

#[test]
fn a_line_arrives_once_under_one_number_and_in_order() {
    let mut again = lines(0..5);
    again.push(line("uid/web/c1/2-b", 0, 4));
    assert_eq!(rules(again), [Rule::Repeat]);
    let mut reused = lines(0..4);
    reused.push(line(STREAM, 3, 4));
    assert!(rules(reused).contains(&Rule::NumberReused));
    assert_eq!(rules(lines([0, 2, 1, 3, 4])), [Rule::Order]);
}

#[test]
fn a_response_goes_on_behind_its_cursor() {
    let undelivered = || {
        let Received::Notice(gap) = gap(STREAM, 2, Some(1)) else {
            panic!("not a notice")
        };
        let reason = "undelivered".to_owned();
        Received::Notice(Notice { reason, ..gap })
    };
    let history_failed = || {
        Received::Notice(Notice {
            code: "L15".to_owned(),
            reason: "history_failed".to_owned(),
            ..Notice::default()
        })
    };
    let responses = |failure: Option<Received>, at_cursor: usize| {
        let mut received = vec![Received::Begin];
        received.extend(lines([0, 1]));
        received.push(Received::Begin);
        received.extend(failure);
        received.push(undelivered());
        received.extend(lines([3, 4]));
        received.insert(at_cursor, Received::Cursor);
        received.push(Received::Begin);
        received.extend(lines([2, 3, 4]));
        rules(received)
    };
    assert_eq!(responses(Some(history_failed()), 3), []);
    // No history was missing: nothing explains the gap.
    assert_eq!(responses(None, 3), [Rule::FalseGap]);
    // A cursor behind the notice: the client has been told of the gap.
    assert_eq!(responses(Some(history_failed()), 8), [Rule::Order, Rule::FalseGap]);
}

#[test]
fn what_a_client_has_may_arrive_again_in_another_response() {
    let mut received = lines(0..5);
    let late = |index: usize| match line(STREAM, index as u64, index) {
        Received::Line {
            stream,
            seq,
            text,
            at,
            fields,
            ..
        } => Received::Line {
            stream,
            seq,
            text,
            late: true,
            at,
            fields,
        },
        other => other,
    };
    received.extend([Received::Begin, late(1)]);
    assert_eq!(rules(received), []);
    let mut received = lines(0..4);
    received.extend([late(4)]);
    assert_eq!(rules(received)[0], Rule::WrongField);
}

#[test]
fn a_bus_can_lose_what_a_client_got_after_its_last_cursor() {
    let lost = || notice("undelivered", gap(STREAM, 1, Some(2)));
    let resumed = |cursor_at: usize| {
        let mut received = vec![Received::Begin];
        received.extend(lines(0..3));
        received.insert(cursor_at, Received::Cursor);
        received.extend([Received::Begin, lost(), line(STREAM, 3, 3), line(STREAM, 4, 4)]);
        received
    };
    assert_eq!(rules_after_damage(resumed(2)), []);
    assert_eq!(rules(resumed(2)), [Rule::FalseGap]);
    assert_eq!(rules_after_damage(resumed(3)), [Rule::FalseGap]);
}

#[test]
fn a_bus_can_lose_in_one_stream_what_arrives_in_another() {
    let (old, new) = ("uid/web/c1/1-0000000a", "uid/web/c1/2-0000000b");
    let with = |start: Option<Received>| {
        let mut received = vec![notice("undelivered", gap(old, 0, Some(3)))];
        received.extend(start);
        received.extend([line(new, 0, 0), line(new, 1, 1), line(new, 2, 2)]);
        received.extend([line(old, 3, 3), line(old, 4, 4)]);
        received
    };
    let start = || Some(notice("may_repeat", gap(new, 0, None)));
    assert_eq!(rules_after_damage(with(start())), []);
    assert_eq!(rules(with(start())), [Rule::FalseGap]);
    assert_eq!(rules_after_damage(with(None)), [Rule::FalseGap]);
}

#[test]
fn a_bus_can_lose_the_notice_that_lines_may_be_repeated() {
    let (old, new) = ("uid/web/c1/1000-0000000a", "uid/web/c1/60000-0000000b");
    let with = |from: i64, to: i64| {
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let mut received = vec![Received::Notice(Notice {
            reason: "interrupted".to_owned(),
            from: time(from),
            to: time(to),
            ..Notice::default()
        })];
        received.extend((0..5).map(|index| line(old, index as u64, index)));
        received.push(line(new, 0, 4));
        received
    };
    assert_eq!(rules_after_damage(with(55, 65)), []);
    assert_eq!(rules(with(55, 65)), [Rule::Repeat]);
    assert_eq!(rules_after_damage(with(20, 40)), [Rule::Repeat]);
}

#[test]
fn a_gap_of_a_stream_without_lines_precedes_newer_streams() {
    let (old, new) = ("uid/web/c1/1-0000000a", "uid/web/c1/2-0000000b");
    let mut received: Vec<_> = (2..5).map(|index| line(new, index as u64 - 2, index)).collect();
    received.insert(2, notice("suspected", gap(old, 2, None)));
    assert_eq!(rules(received), []);
}

#[test]
fn nothing_names_the_last_lines_of_a_pod_whose_checkpoint_is_lost() {
    let mut printed = printed();
    let unit = printed.units().next().map(|(_, lines)| lines.clone()).unwrap();
    assert_eq!(printed.collectable(&unit), 5);
    printed.delete_pod("web".to_owned(), Duration::from_secs(20));
    assert_eq!(printed.collectable(&unit), 5);
    // Lines were printed from 1 to 5 s.
    printed.lose_checkpoints(Duration::from_secs(7), Duration::from_secs(30));
    assert_eq!(printed.collectable(&unit), 3);
}

#[test]
fn an_instance_that_was_never_seen_is_reported_by_one_that_was() {
    let with = |stream: &str, first: u64, at: u64| {
        let mut printed = printed();
        let unseen = Unit {
            instance: "c2".to_owned(),
            output: Output::Both,
        };
        let time = (Timestamp::UNIX_EPOCH, Duration::from_secs(6));
        printed.add(&unseen, "shop", "web", "unseen".to_owned(), time);
        let mut received = lines(0..5);
        received.push(Received::Notice(Notice {
            code: "L13".to_owned(),
            reason: "suspected".to_owned(),
            stream: Some(stream.to_owned()),
            process: Some("web".to_owned()),
            first: Some(first),
            at: Duration::from_secs(at),
            ..Notice::default()
        }));
        rules_for(&printed, received)
    };
    assert_eq!(with(STREAM, 5, 7), []);
    assert_eq!(with("uid/web/c1/2-b", 0, 7), []);
    assert_eq!(with(STREAM, 5, 2), [Rule::SilentLoss], "before it printed");
    assert_eq!(with(STREAM, 3, 7), [Rule::SilentLoss], "within a stream");
}

#[test]
fn nothing_names_a_pod_that_came_and_went_unheard() {
    let mut printed = printed();
    let is_served = Arc::new(AtomicBool::new(false));
    printed.add_pod("web", Arc::clone(&is_served));
    assert_eq!(rules_for(&printed, Vec::new()), [Rule::SilentLoss], "it is still there");
    printed.remove_pod("web");
    assert_eq!(rules_for(&printed, Vec::new()), []);
    is_served.store(true, Ordering::Relaxed);
    assert_eq!(rules_for(&printed, Vec::new()), [Rule::SilentLoss], "it was served");
}
