//! However deliveries are reordered, repeated and lost, each line arrives once and in order, and
//! each gap is reported once.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::collections::BTreeMap;

use bus::{
    Content,
    reassembly::{EventKind, GapTimeouts, REORDER_WINDOW, Reassembly},
};
use proptest::prelude::*;
use support::*;

/// What happens to one batch on the bus.
#[derive(Clone, Debug)]
struct Fate {
    stream: usize,
    lines: u64,
    delay: u64,
    /// Delays of redeliveries in milliseconds.
    repeats: Vec<u64>,
    lost: bool,
    /// The publisher records the gap.
    recorded: bool,
}

fn fates(longest_delay: u64) -> impl Strategy<Value = Vec<Fate>> {
    let fate = (
        0..3usize,
        1..6u64,
        0..longest_delay,
        prop::collection::vec(0..longest_delay, 0..3),
        prop::bool::weighted(0.15),
        any::<bool>(),
    )
        .prop_map(|(stream, lines, delay, repeats, lost, recorded)| Fate {
            stream,
            lines,
            delay,
            repeats,
            lost,
            recorded,
        });
    prop::collection::vec(fate, 1..60)
}

/// By stream: the events, the lost sequence numbers, and the number of lines.
type Outcome = (
    BTreeMap<usize, Vec<EventKind>>,
    BTreeMap<usize, Vec<u64>>,
    BTreeMap<usize, u64>,
);

/// Publishes a batch every ten milliseconds and delivers it according to its fate.
fn play(fates: &[Fate], recut: bool) -> Outcome {
    let origins = [new_stream("a"), new_stream("b"), new_stream("c")];
    let mut totals: BTreeMap<usize, u64> = BTreeMap::new();
    let mut lost: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    let mut schedule = Vec::new();
    for (i, fate) in fates.iter().enumerate() {
        let total = totals.entry(fate.stream).or_default();
        let (from, to) = (*total, *total + fate.lines);
        *total = to;
        let (metadata, sent) = (&origins[fate.stream], i as u64 * 10);
        if fate.lost {
            lost.entry(fate.stream).or_default().extend(from..to);
            if fate.recorded {
                for again in fate.repeats.iter().chain([&fate.delay]) {
                    schedule.push((sent + again, sent, recorded_gap(metadata, from, to)));
                }
            }
            continue;
        }
        schedule.push((sent + fate.delay, sent, lines(metadata, from, to)));
        for again in &fate.repeats {
            // A recut repeat has other bounds, within the lines that were published and not lost.
            let from = if recut && lost.get(&fate.stream).is_none_or(Vec::is_empty) {
                from.saturating_sub(3)
            } else {
                from
            };
            schedule.push((sent + again, sent, lines(metadata, from, to)));
        }
    }
    let last = fates.len() as u64 * 10;
    for (stream, total) in &totals {
        schedule.push((last, last, end(&origins[*stream], *total)));
    }
    schedule.sort_by_key(|(arrives, ..)| *arrives);
    let mut r = Reassembly::new(
        GapTimeouts::Tail {
            reorder_window: REORDER_WINDOW,
        },
        START,
        HISTORY,
    );
    r.caught_up(at(0));
    let mut seen: BTreeMap<usize, Vec<EventKind>> = BTreeMap::new();
    let mut collect = |r: &mut Reassembly| {
        while let Some(event) = r.next_event() {
            describe(&event);
            let stream = origins.iter().position(|metadata| *metadata == event.metadata).unwrap();
            let kind = match event.kind {
                EventKind::Lines {
                    lines,
                    late,
                    part,
                    message,
                    ..
                } => EventKind::Lines {
                    data: event.seq.to_string().into(),
                    lines,
                    late,
                    part,
                    message,
                },
                EventKind::Gap { lines, gap } => {
                    let gap = gap.map(|gap| bus::Gap {
                        lines: event.seq,
                        ..gap
                    });
                    EventKind::Gap { lines, gap }
                }
                EventKind::End => EventKind::End,
            };
            seen.entry(stream).or_default().push(kind);
        }
    };
    for (arrives, sent, batch) in schedule {
        if matches!(&batch.content, Content::Lines { lines: 0, .. }) {
            continue;
        }
        while let Some(due) = r.deadline().filter(|due| *due < at(arrives).elapsed) {
            r.declare_due(after(due));
            collect(&mut r);
        }
        r.push(delivery(batch, sent), at(arrives));
        collect(&mut r);
    }
    r.declare_all();
    collect(&mut r);
    (seen, lost, totals)
}

fn delivered(events: &[EventKind]) -> Vec<u64> {
    let seqs = events.iter().filter_map(|kind| match kind {
        EventKind::Lines { data, lines, .. } => {
            let from: u64 = std::str::from_utf8(data).unwrap().parse().unwrap();
            Some(from..from + lines)
        }
        _ => None,
    });
    seqs.flatten().collect()
}

fn missing(events: &[EventKind]) -> u64 {
    events
        .iter()
        .map(|kind| {
            if let EventKind::Gap { lines, .. } = kind {
                *lines
            } else {
                0
            }
        })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn within_the_reorder_window_lines_arrive_once_in_order_and_gaps_are_reported_once(fates in fates(990), recut in any::<bool>()) {
        let (seen, lost, totals) = play(&fates, recut);
        for (stream, total) in totals {
            let lost = lost.get(&stream).cloned().unwrap_or_default();
            let expected: Vec<u64> = (0..total).filter(|seq| !lost.contains(seq)).collect();
            prop_assert_eq!(delivered(&seen[&stream]), expected);
            prop_assert_eq!(missing(&seen[&stream]), lost.len() as u64);
            prop_assert_eq!(seen[&stream].last(), Some(&EventKind::End));
            let any_late = seen[&stream].iter().any(|kind| matches!(kind, EventKind::Lines { late: true, .. }));
            prop_assert!(!any_late);
        }
    }

    #[test]
    fn beyond_the_reorder_window_lines_arrive_once_and_only_late_ones_out_of_order(fates in fates(5000)) {
        let (seen, lost, totals) = play(&fates, false);
        for (stream, total) in totals {
            let lost = lost.get(&stream).cloned().unwrap_or_default();
            let mut all = delivered(&seen[&stream]);
            all.sort_unstable();
            let expected: Vec<u64> = (0..total).filter(|seq| !lost.contains(seq)).collect();
            prop_assert_eq!(all, expected, "each line arrives once");
            let on_time: Vec<EventKind> = seen[&stream].iter().filter(|kind| !matches!(kind, EventKind::Lines { late: true, .. })).cloned().collect();
            prop_assert!(delivered(&on_time).is_sorted());
            let late = delivered(&seen[&stream]).len() - delivered(&on_time).len();
            prop_assert_eq!(missing(&seen[&stream]), (lost.len() + late) as u64, "every line is in time or in one gap");
        }
    }
}
