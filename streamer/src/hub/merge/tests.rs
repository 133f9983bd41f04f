//! Merge order and release time, rule by rule.

use std::{collections::HashMap, sync::Arc};

use bus::{
    Gap, GapReason, StreamMetadata,
    reassembly::{Event, EventKind},
};
use proptest::prelude::*;

use super::*;
use crate::{
    line::Run,
    testing::{at, event, metadata},
};

/// Feeds arrivals to a merge and collects what it releases.
struct Fixture {
    merge: Merge,
    released: Vec<String>,
}

fn moment(millis: i64) -> Now {
    Now {
        elapsed: Duration::from_millis(u64::try_from(millis).unwrap()),
        bus: at(millis),
    }
}

impl Fixture {
    fn new() -> Self {
        Self {
            merge: Merge::new("shop".parse().unwrap()),
            released: Vec::new(),
        }
    }

    /// Adds a line with the timestamp `printed` that arrives at `now`.
    fn line(&mut self, now: i64, metadata: &Arc<StreamMetadata>, seq: u64, printed: i64) {
        self.event(now, event(metadata, seq, &[printed], now));
    }

    fn event(&mut self, now: i64, event: Event) {
        self.merge.push(event, moment(now));
    }

    /// Returns what is released by `now`: lines as `process:seq`, gaps as `process!seq`, late lines
    /// as `process~seq`.
    fn release(&mut self, now: i64) -> String {
        let frames = self.merge.release(moment(now).elapsed);
        names(&frames).join(" ")
    }

    fn window(&self) -> Duration {
        self.merge.disorder.window()
    }
}

fn names(frames: &[Frame]) -> Vec<String> {
    let runs = frames.iter().flat_map(Frame::runs);
    let named = runs.flat_map(|run| match run {
        Run::Lines(lines) => {
            let mark = if lines.late { '~' } else { ':' };
            let lines = lines.iter();
            lines
                .map(|line| format!("{}{mark}{}", line.metadata.process, line.seq))
                .collect()
        }
        Run::Notice(notice) => {
            let gap = notice.gap.as_ref().unwrap();
            vec![format!("{}!{}", gap.metadata.process, gap.seqs.start)]
        }
    });
    named.collect()
}

#[test]
fn lines_in_order_are_released_immediately() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    for n in 0..100 {
        let now = 10 * i64::try_from(n).unwrap();
        fixture.line(now, &web, n, now - 3);
        assert_eq!(fixture.release(now), format!("web:{n}"));
        fixture.line(now, &job, n, now - 2);
        assert_eq!(fixture.release(now), format!("job:{n}"));
    }
    assert_eq!((fixture.window(), fixture.merge.deadline()), (Duration::ZERO, None));
}

#[test]
fn first_lines_held_by_reassembly_are_not_disorder() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    for n in 0..5 {
        fixture.event(1000 + n, event(&web, n as u64, &[200 * n], 200 * n));
    }
    fixture.release(1005);
    // Reassembly held both streams for a second, one slightly longer.
    for n in 0..5 {
        fixture.event(1010 + n, event(&job, n as u64, &[200 * n + 1], 200 * n + 1));
    }
    assert_eq!(fixture.release(1015), "job:0 job:1 job:2 job:3 job:4");
    for n in 5..20 {
        let printed = 200 * n;
        fixture.line(printed + 10, &web, n as u64, printed);
        fixture.line(printed + 11, &job, n as u64, printed + 1);
        assert_eq!(fixture.release(printed + 11), format!("web:{n} job:{n}"), "immediately");
    }
}

#[test]
fn the_window_is_as_long_as_recent_disorder() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    // Lines of `job` arrive 50 ms later.
    for n in 0..40u64 {
        let printed = 10 * i64::try_from(n).unwrap();
        fixture.line(printed, &web, n, printed);
        let arrival = printed - 50;
        if arrival >= 0 {
            fixture.line(printed, &job, n - 5, arrival);
        }
        let released = fixture.release(printed);
        fixture
            .released
            .extend(released.split_terminator(' ').map(str::to_owned));
    }
    assert_eq!(fixture.window(), Duration::from_millis(52));
    // Lines released before the disorder was detected are out of order; the rest is in order.
    let from = fixture.released.iter().position(|name| name == "web:5").unwrap();
    let expected: Vec<String> = (5..25).flat_map(|n| [format!("web:{n}"), format!("job:{n}")]).collect();
    assert_eq!(fixture.released[from..from + 36], expected[..36]);
    // Lines are released when the window ends, and immediately once disorder is no longer recent.
    let due = fixture.merge.deadline().unwrap();
    assert!(due <= Duration::from_millis(390 + 52), "{due:?}");
    fixture.release(1000);
    for (n, now) in (100..).zip((1_000..13_000).step_by(1000)) {
        fixture.line(now, &web, n, now);
        fixture.release(now + 60);
    }
    assert_eq!(fixture.window(), Duration::ZERO);
}

#[test]
fn a_clock_that_is_ahead_neither_delays_lines_nor_widens_the_window() {
    let (mut fixture, web, wrong) = (Fixture::new(), metadata("web"), metadata("wrong"));
    for n in 0..50 {
        let now = 10 * i64::try_from(n).unwrap();
        fixture.line(now, &wrong, n, now + 30_000);
        assert_eq!(fixture.release(now), format!("wrong:{n}"), "merged at arrival");
        fixture.line(now, &web, n, now);
        assert_eq!(fixture.release(now), format!("web:{n}"), "immediately");
    }
    assert_eq!(fixture.window(), Duration::ZERO);
}

#[test]
fn lines_more_than_a_second_old_merge_at_arrival() {
    let (mut fixture, web, wrong) = (Fixture::new(), metadata("web"), metadata("wrong"));
    for n in 0..50 {
        let now = 10 * i64::try_from(n).unwrap();
        fixture.line(now, &web, n, now);
        fixture.line(now, &wrong, n, now - 30_000);
        assert_eq!(fixture.release(now), format!("web:{n} wrong:{n}"));
    }
    assert_eq!(fixture.window(), Duration::ZERO);
    // A batch with old and current lines.
    fixture.event(1000, event(&wrong, 50, &[-5000, 400, 995], 1000));
    fixture.line(1000, &web, 50, 998);
    assert_eq!(fixture.release(1000), "wrong:50 wrong:51 wrong:52 web:50");
}

#[test]
fn disorder_below_a_second_is_sorted_even_if_a_wrong_clock_causes_it() {
    let (mut fixture, web, ahead) = (Fixture::new(), metadata("web"), metadata("ahead"));
    for n in 0..30u64 {
        let now = 100 * i64::try_from(n).unwrap();
        fixture.line(now, &ahead, n, now + 900);
        fixture.line(now, &web, n, now);
        let released = fixture.release(now);
        fixture.released.push(released);
    }
    assert_eq!(fixture.window(), Duration::from_millis(902));
    assert_eq!(fixture.released[25], "ahead:15 web:24", "sorted by timestamp");
}

#[test]
fn stream_order_is_kept_when_timestamps_step_back() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    fixture.event(100, event(&web, 0, &[90, 40, 95, 20], 100));
    fixture.line(100, &job, 0, 60);
    fixture.line(100, &web, 4, 10);
    let mut released = fixture.release(100);
    released += " ";
    released += &fixture.release(1200);
    let webs: Vec<&str> = released.split(' ').filter(|name| name.starts_with("web")).collect();
    assert_eq!(webs, ["web:0", "web:1", "web:2", "web:3", "web:4"]);
}

#[test]
fn late_lines_are_released_immediately_and_marked() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    // Disorder, so that there is a window.
    fixture.line(0, &web, 0, 0);
    fixture.line(0, &job, 0, -400);
    fixture.release(500);
    fixture.line(600, &web, 9, 600);
    let mut late = event(&web, 3, &[200, 201], 600);
    if let EventKind::Lines { late, .. } = &mut late.kind {
        *late = true;
    }
    fixture.event(600, late);
    assert_eq!(fixture.release(600), "web~3 web~4");
    assert_eq!(fixture.release(1100), "web:9");
}

#[test]
fn a_gap_is_released_between_its_neighbouring_lines() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    let gap = |metadata: &Arc<StreamMetadata>, seq, lines| Event {
        metadata: Arc::clone(metadata),
        seq,
        published: at(100),
        kind: EventKind::Gap {
            lines,
            gap: Some(Gap {
                lines,
                reason: GapReason::Spool,
                from: None,
                to: None,
            }),
        },
    };
    fixture.line(0, &job, 0, 0);
    fixture.event(0, gap(&web, 0, 5));
    fixture.line(0, &web, 5, 0);
    fixture.event(0, gap(&web, 6, 2));
    fixture.line(100, &job, 1, 100);
    fixture.line(100, &web, 8, 60);
    let mut released = fixture.release(100);
    released += " ";
    released += &fixture.release(300);
    assert_eq!(released, "job:0 web!0 web:5 web!6 web:8 job:1");
    // Late lines are released after their gap even if the gap is still buffered.
    fixture.line(400, &web, 9, 400);
    fixture.event(400, gap(&web, 10, 3));
    let mut late = event(&web, 11, &[400], 400);
    if let EventKind::Lines { late, .. } = &mut late.kind {
        *late = true;
    }
    fixture.event(400, late);
    assert_eq!(fixture.release(600), "web:9 web!10 web~11");
}

#[test]
fn lines_are_released_early_when_too_many_bytes_are_buffered() {
    let (mut fixture, web, job) = (Fixture::new(), metadata("web"), metadata("job"));
    fixture.line(0, &web, 0, 0);
    fixture.line(0, &job, 0, -900);
    fixture.release(1000);
    let text = format!("2026-11-23T07:00:01.000000000Z {}\n", "x".repeat(1 << 20));
    for seq in 1..=17 {
        let mut big = event(&web, seq, &[1000], 1000);
        if let EventKind::Lines { data, .. } = &mut big.kind {
            *data = text.clone().into();
        }
        fixture.event(1000, big);
    }
    assert_eq!(names(&fixture.merge.release(Duration::from_secs(1))).len(), 17);
    assert_eq!(fixture.merge.bytes, 0);
}

proptest! {
    #[test]
    fn every_line_is_released_once_in_stream_order_within_a_second(
        lines in proptest::collection::vec((0usize..4, 0i64..30, -2000i64..2000), 1..80),
    ) {
        let origins = ["a", "b", "c", "d"].map(metadata);
        let (mut fixture, mut now) = (Fixture::new(), 0);
        let mut next: HashMap<usize, u64> = HashMap::new();
        let mut arrived = Vec::new();
        let mut released: Vec<(i64, String)> = Vec::new();
        for (stream, wait, skew) in lines {
            now += wait;
            let seq = next.entry(stream).or_default();
            fixture.line(now, &origins[stream], *seq, now + skew);
            arrived.push((now, format!("{}:{seq}", origins[stream].process)));
            *seq += 1;
            let names = fixture.release(now);
            released.extend(names.split_terminator(' ').map(|name| (now, name.to_owned())));
        }
        while let Some(due) = fixture.merge.deadline() {
            now = now.max(i64::try_from(due.as_millis()).unwrap() + 1);
            let names = fixture.release(now);
            released.extend(names.split_terminator(' ').map(|name| (now, name.to_owned())));
        }
        prop_assert_eq!(released.len(), arrived.len());
        for (arrival, name) in &arrived {
            let times: Vec<i64> = released.iter().filter(|(_, other)| other == name).map(|(when, _)| *when).collect();
            prop_assert_eq!(times.len(), 1);
            // This test releases lines at arrivals only, which are at most 30 ms apart.
            prop_assert!(times[0] - arrival <= 1000 + 31, "{} ms", times[0] - arrival);
        }
        for metadata in &origins {
            let seqs: Vec<u64> = released.iter().filter_map(|(_, name)| name.strip_prefix(&format!("{}:", metadata.process))?.parse().ok()).collect();
            prop_assert!(seqs.is_sorted());
        }
        prop_assert_eq!(fixture.merge.bytes, 0);
        prop_assert!(fixture.merge.buffered.iter().all(Option::is_none));
    }
}
