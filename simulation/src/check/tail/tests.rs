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

fn rules(received: Vec<Received>) -> Vec<Rule> {
    rules_for(&printed(), received)
}

fn rules_for(printed: &Printed, received: Vec<Received>) -> Vec<Rule> {
    let log = TailLog {
        name: "tail".to_owned(),
        app: "shop".to_owned(),
        since: Duration::ZERO,
        is_complete: true,
        bus: BusLimits::default(),
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
        let Received::Notice(gap) = gap(STREAM, 2, None) else {
            return;
        };
        let reason = "suspected".to_owned();
        received.insert(2, Received::Notice(Notice { reason, ..gap }));
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
