//! Rule by rule: what is shown when, and in which order.

use std::{collections::HashMap, sync::Arc};

use bus::{
    Gap, GapReason, StreamMetadata,
    reassembly::{Event, EventKind},
};
use proptest::prelude::*;

use super::*;
use crate::{
    frame::Shown,
    testing::{at, event, metadata},
};

/// Plays arrivals: what came when, what was shown when.
struct Play {
    merge: Merge,
    shown: Vec<String>,
}

fn moment(millis: i64) -> Now {
    Now {
        elapsed: Duration::from_millis(u64::try_from(millis).unwrap()),
        bus: at(millis),
    }
}

impl Play {
    fn new() -> Self {
        Self {
            merge: Merge::new("shop".parse().unwrap()),
            shown: Vec::new(),
        }
    }

    /// A line of this stream, printed at `printed`, arrives at `now`.
    fn line(&mut self, now: i64, metadata: &Arc<StreamMetadata>, seq: u64, printed: i64) {
        self.event(now, event(metadata, seq, &[printed], now));
    }

    fn event(&mut self, now: i64, event: Event) {
        self.merge.push(event, moment(now));
    }

    /// What is shown by this time, as `process:seq`, a gap as `process!seq`, a late line as `process~seq`.
    fn shown(&mut self, now: i64) -> String {
        let frames = self.merge.take(moment(now).elapsed);
        names(&frames).join(" ")
    }

    fn hold(&self) -> Duration {
        self.merge.disorder.hold()
    }
}

fn names(frames: &[Frame]) -> Vec<String> {
    let runs = frames.iter().flat_map(Frame::runs);
    let named = runs.flat_map(|run| match run {
        Shown::Lines(lines) => {
            let mark = if lines.late { '~' } else { ':' };
            let lines = lines.iter();
            lines
                .map(|line| format!("{}{mark}{}", line.metadata.process, line.seq))
                .collect()
        }
        Shown::Told(told) => {
            let gap = told.gap.as_ref().unwrap();
            vec![format!("{}!{}", gap.metadata.process, gap.seqs.start)]
        }
    });
    named.collect()
}

#[test]
fn what_arrives_in_order_is_shown_at_once() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    for n in 0..100 {
        let now = 10 * i64::try_from(n).unwrap();
        play.line(now, &web, n, now - 3);
        assert_eq!(play.shown(now), format!("web:{n}"));
        play.line(now, &job, n, now - 2);
        assert_eq!(play.shown(now), format!("job:{n}"));
    }
    assert_eq!((play.hold(), play.merge.deadline()), (Duration::ZERO, None));
}

#[test]
fn what_a_stream_that_was_held_begins_with_is_no_disorder() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    for n in 0..5 {
        play.event(1000 + n, event(&web, n as u64, &[200 * n], 200 * n));
    }
    play.shown(1005);
    // Both were waited for for a second, one a little longer.
    for n in 0..5 {
        play.event(1010 + n, event(&job, n as u64, &[200 * n + 1], 200 * n + 1));
    }
    assert_eq!(play.shown(1015), "job:0 job:1 job:2 job:3 job:4");
    for n in 5..20 {
        let printed = 200 * n;
        play.line(printed + 10, &web, n as u64, printed);
        play.line(printed + 11, &job, n as u64, printed + 1);
        assert_eq!(play.shown(printed + 11), format!("web:{n} job:{n}"), "at once");
    }
}

#[test]
fn the_hold_is_as_long_as_the_disorder_lately_seen_and_no_longer() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    // Lines of `job` are on their way 50 ms longer.
    for n in 0..40u64 {
        let printed = 10 * i64::try_from(n).unwrap();
        play.line(printed, &web, n, printed);
        let came = printed - 50;
        if came >= 0 {
            play.line(printed, &job, n - 5, came);
        }
        let shown = play.shown(printed);
        play.shown.extend(shown.split_terminator(' ').map(str::to_owned));
    }
    assert_eq!(play.hold(), Duration::from_millis(52));
    // What was shown before the disorder was known is; from then on the two are in order.
    let from = play.shown.iter().position(|name| name == "web:5").unwrap();
    let expected: Vec<String> = (5..25).flat_map(|n| [format!("web:{n}"), format!("job:{n}")]).collect();
    assert_eq!(play.shown[from..from + 36], expected[..36]);
    // It is shown no later than the hold asks, and once order has lasted, at once again.
    let due = play.merge.deadline().unwrap();
    assert!(due <= Duration::from_millis(390 + 52), "{due:?}");
    play.shown(1000);
    for (n, now) in (100..).zip((1_000..13_000).step_by(1000)) {
        play.line(now, &web, n, now);
        play.shown(now + 60);
    }
    assert_eq!(play.hold(), Duration::ZERO);
}

#[test]
fn a_clock_that_is_ahead_makes_nobody_late_and_no_hold_longer() {
    let (mut play, web, wrong) = (Play::new(), metadata("web"), metadata("wrong"));
    for n in 0..50 {
        let now = 10 * i64::try_from(n).unwrap();
        play.line(now, &wrong, n, now + 30_000);
        assert_eq!(play.shown(now), format!("wrong:{n}"), "it merges at arrival");
        play.line(now, &web, n, now);
        assert_eq!(play.shown(now), format!("web:{n}"), "at once");
    }
    assert_eq!(play.hold(), Duration::ZERO);
}

#[test]
fn a_clock_that_is_behind_or_a_backlog_merges_at_arrival() {
    let (mut play, web, wrong) = (Play::new(), metadata("web"), metadata("wrong"));
    for n in 0..50 {
        let now = 10 * i64::try_from(n).unwrap();
        play.line(now, &web, n, now);
        play.line(now, &wrong, n, now - 30_000);
        assert_eq!(play.shown(now), format!("web:{n} wrong:{n}"));
    }
    assert_eq!(play.hold(), Duration::ZERO);
    // A batch that reaches from long ago until now.
    play.event(1000, event(&wrong, 50, &[-5000, 400, 995], 1000));
    play.line(1000, &web, 50, 998);
    assert_eq!(play.shown(1000), "wrong:50 wrong:51 wrong:52 web:50");
}

#[test]
fn disorder_below_a_second_is_put_right_also_where_a_clock_is_the_cause() {
    let (mut play, web, ahead) = (Play::new(), metadata("web"), metadata("ahead"));
    for n in 0..30u64 {
        let now = 100 * i64::try_from(n).unwrap();
        play.line(now, &ahead, n, now + 900);
        play.line(now, &web, n, now);
        let shown = play.shown(now);
        play.shown.push(shown);
    }
    assert_eq!(play.hold(), Duration::from_millis(902));
    assert_eq!(play.shown[25], "ahead:15 web:24", "each under its own time");
}

#[test]
fn a_streams_own_order_holds_though_its_time_steps_back() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    play.event(100, event(&web, 0, &[90, 40, 95, 20], 100));
    play.line(100, &job, 0, 60);
    play.line(100, &web, 4, 10);
    let mut shown = play.shown(100);
    shown += " ";
    shown += &play.shown(1200);
    let webs: Vec<&str> = shown.split(' ').filter(|name| name.starts_with("web")).collect();
    assert_eq!(webs, ["web:0", "web:1", "web:2", "web:3", "web:4"]);
}

#[test]
fn what_comes_after_its_gap_was_told_is_passed_on_at_once_and_marked() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    // Disorder, so that there is a hold.
    play.line(0, &web, 0, 0);
    play.line(0, &job, 0, -400);
    play.shown(500);
    play.line(600, &web, 9, 600);
    let mut late = event(&web, 3, &[200, 201], 600);
    if let EventKind::Lines { late, .. } = &mut late.kind {
        *late = true;
    }
    play.event(600, late);
    assert_eq!(play.shown(600), "web~3 web~4");
    assert_eq!(play.shown(1100), "web:9");
}

#[test]
fn a_gap_stands_behind_the_line_before_it_and_before_the_line_behind_it() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
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
    play.line(0, &job, 0, 0);
    play.event(0, gap(&web, 0, 5));
    play.line(0, &web, 5, 0);
    play.event(0, gap(&web, 6, 2));
    play.line(100, &job, 1, 100);
    play.line(100, &web, 8, 60);
    let mut shown = play.shown(100);
    shown += " ";
    shown += &play.shown(300);
    assert_eq!(shown, "job:0 web!0 web:5 web!6 web:8 job:1");
    // What comes late though its gap is still held comes behind it.
    play.line(400, &web, 9, 400);
    play.event(400, gap(&web, 10, 3));
    let mut late = event(&web, 11, &[400], 400);
    if let EventKind::Lines { late, .. } = &mut late.kind {
        *late = true;
    }
    play.event(400, late);
    assert_eq!(play.shown(600), "web:9 web!10 web~11");
}

#[test]
fn too_much_held_is_shown_before_its_time() {
    let (mut play, web, job) = (Play::new(), metadata("web"), metadata("job"));
    play.line(0, &web, 0, 0);
    play.line(0, &job, 0, -900);
    play.shown(1000);
    let text = format!("2026-11-23T07:00:01.000000000Z {}\n", "x".repeat(1 << 20));
    for seq in 1..=17 {
        let mut big = event(&web, seq, &[1000], 1000);
        if let EventKind::Lines { data, .. } = &mut big.kind {
            *data = text.clone().into();
        }
        play.event(1000, big);
    }
    assert_eq!(names(&play.merge.take(Duration::from_secs(1))).len(), 17);
    assert_eq!(play.merge.bytes, 0);
}

proptest! {
    #[test]
    fn every_line_is_shown_once_in_its_streams_order_within_a_second(
        lines in proptest::collection::vec((0usize..4, 0i64..30, -2000i64..2000), 1..80),
    ) {
        let origins = ["a", "b", "c", "d"].map(metadata);
        let (mut play, mut now) = (Play::new(), 0);
        let mut next: HashMap<usize, u64> = HashMap::new();
        let mut arrived = Vec::new();
        let mut shown: Vec<(i64, String)> = Vec::new();
        for (stream, wait, skew) in lines {
            // Whoever waits is looked at when it is due.
            now += wait;
            let seq = next.entry(stream).or_default();
            play.line(now, &origins[stream], *seq, now + skew);
            arrived.push((now, format!("{}:{seq}", origins[stream].process)));
            *seq += 1;
            let names = play.shown(now);
            shown.extend(names.split_terminator(' ').map(|name| (now, name.to_owned())));
        }
        while let Some(due) = play.merge.deadline() {
            now = now.max(i64::try_from(due.as_millis()).unwrap() + 1);
            let names = play.shown(now);
            shown.extend(names.split_terminator(' ').map(|name| (now, name.to_owned())));
        }
        prop_assert_eq!(shown.len(), arrived.len());
        for (came, name) in &arrived {
            let times: Vec<i64> = shown.iter().filter(|(_, other)| other == name).map(|(when, _)| *when).collect();
            prop_assert_eq!(times.len(), 1);
            // When it is due it is shown; here somebody looks at each arrival, at most 30 ms apart.
            prop_assert!(times[0] - came <= 1000 + 31, "{} ms", times[0] - came);
        }
        for metadata in &origins {
            let seqs: Vec<u64> = shown.iter().filter_map(|(_, name)| name.strip_prefix(&format!("{}:", metadata.process))?.parse().ok()).collect();
            prop_assert!(seqs.is_sorted());
        }
        prop_assert_eq!(play.merge.bytes, 0);
        prop_assert!(play.merge.held.iter().all(Option::is_none));
    }
}
