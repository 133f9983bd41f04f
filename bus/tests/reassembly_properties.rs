//! Whatever the way does to batches, each line comes once, in order, and what is missing is told once.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

mod support;

use std::collections::BTreeMap;

use bus::{
    Content,
    reassembly::{Patience, Reassembly, What},
};
use proptest::prelude::*;
use support::*;

/// What happens to one batch of a stream's lines on its way.
#[derive(Clone, Debug)]
struct Fate {
    stream: usize,
    lines: u64,
    delay: u64,
    /// Milliseconds of further deliveries of the same.
    repeats: Vec<u64>,
    lost: bool,
    /// A loss message about it is sent, too.
    owned_up: bool,
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
        .prop_map(|(stream, lines, delay, repeats, lost, owned_up)| Fate {
            stream,
            lines,
            delay,
            repeats,
            lost,
            owned_up,
        });
    prop::collection::vec(fate, 1..60)
}

/// What was told, which seqs were lost, and how many there were, by stream.
type Played = (
    BTreeMap<usize, Vec<What>>,
    BTreeMap<usize, Vec<u64>>,
    BTreeMap<usize, u64>,
);

/// Plays the fates, a batch a stream each ten milliseconds; returns what was told, per stream, and which seqs were lost.
fn play(fates: &[Fate], recut: bool) -> Played {
    let origins = [young("a"), young("b"), young("c")];
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
            if fate.owned_up {
                for again in fate.repeats.iter().chain([&fate.delay]) {
                    schedule.push((sent + again, sent, loss(metadata, from, to)));
                }
            }
            continue;
        }
        schedule.push((sent + fate.delay, sent, lines(metadata, from, to)));
        for again in &fate.repeats {
            // A repeat that was cut anew: its borders lie elsewhere, within what was sent and not lost.
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
    let mut r = Reassembly::new(Patience::Tail { hold: HOLD }, START, HISTORY);
    r.caught_up(at(0));
    let mut seen: BTreeMap<usize, Vec<What>> = BTreeMap::new();
    let mut collect = |r: &mut Reassembly| {
        while let Some(event) = r.next_event() {
            describe(&event);
            let stream = origins.iter().position(|metadata| *metadata == event.metadata).unwrap();
            let what = match event.what {
                What::Lines { lines, late, part, .. } => What::Lines {
                    data: event.seq.to_string().into(),
                    lines,
                    late,
                    part,
                },
                What::Gap { lines, loss } => {
                    let loss = loss.map(|loss| bus::Gap {
                        lines: event.seq,
                        ..loss
                    });
                    What::Gap { lines, loss }
                }
                What::End => What::End,
            };
            seen.entry(stream).or_default().push(what);
        }
    };
    for (arrives, sent, batch) in schedule {
        if matches!(&batch.content, Content::Lines { lines: 0, .. }) {
            continue;
        }
        while let Some(due) = r.deadline().filter(|due| *due < at(arrives).elapsed) {
            r.declare_due(moment(due));
            collect(&mut r);
        }
        r.push(delivery(batch, sent), at(arrives));
        collect(&mut r);
    }
    r.declare_all();
    collect(&mut r);
    (seen, lost, totals)
}

fn delivered(told: &[What]) -> Vec<u64> {
    let seqs = told.iter().filter_map(|what| match what {
        What::Lines { data, lines, .. } => {
            let from: u64 = std::str::from_utf8(data).unwrap().parse().unwrap();
            Some(from..from + lines)
        }
        _ => None,
    });
    seqs.flatten().collect()
}

fn missing(told: &[What]) -> u64 {
    told.iter()
        .map(|what| if let What::Gap { lines, .. } = what { *lines } else { 0 })
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn within_the_hold_each_line_comes_once_in_order_and_each_loss_is_told_once(fates in fates(990), recut in any::<bool>()) {
        let (seen, lost, totals) = play(&fates, recut);
        for (stream, total) in totals {
            let lost = lost.get(&stream).cloned().unwrap_or_default();
            let expected: Vec<u64> = (0..total).filter(|seq| !lost.contains(seq)).collect();
            prop_assert_eq!(delivered(&seen[&stream]), expected);
            prop_assert_eq!(missing(&seen[&stream]), lost.len() as u64);
            prop_assert_eq!(seen[&stream].last(), Some(&What::End));
            let any_late = seen[&stream].iter().any(|what| matches!(what, What::Lines { late: true, .. }));
            prop_assert!(!any_late);
        }
    }

    #[test]
    fn beyond_the_hold_each_line_still_comes_once_and_only_late_ones_out_of_order(fates in fates(5000)) {
        let (seen, lost, totals) = play(&fates, false);
        for (stream, total) in totals {
            let lost = lost.get(&stream).cloned().unwrap_or_default();
            let mut all = delivered(&seen[&stream]);
            all.sort_unstable();
            let expected: Vec<u64> = (0..total).filter(|seq| !lost.contains(seq)).collect();
            prop_assert_eq!(all, expected, "each line once");
            let on_time: Vec<What> = seen[&stream].iter().filter(|what| !matches!(what, What::Lines { late: true, .. })).cloned().collect();
            prop_assert!(delivered(&on_time).is_sorted());
            let late = delivered(&seen[&stream]).len() - delivered(&on_time).len();
            prop_assert_eq!(missing(&seen[&stream]), (lost.len() + late) as u64, "every seq was told missing once, or came on time");
        }
    }
}
