//! Where a drain joins streams, and in which order it sends those of one container.

mod support;

use std::time::Duration;

use bus::reassembly::{GapTimeouts, Reassembly};
use support::*;

/// A drain whose subscription nothing has read before.
fn drain() -> Reassembly {
    drain_of(true)
}

/// A drain that continues where another reader ended.
fn continued_drain() -> Reassembly {
    drain_of(false)
}

fn drain_of(is_new: bool) -> Reassembly {
    let ack_deadline = Duration::from_secs(60);
    Reassembly::new(GapTimeouts::Drain { ack_deadline, is_new }, START, HISTORY)
}

#[test]
fn a_drain_joins_a_stream_at_its_lowest_line_and_declares_nothing_before_it() {
    // A new drain has no earlier reader whose lines could be redelivered.
    for (mut r, wait) in [(drain(), 1_000), (continued_drain(), 130_000)] {
        let web = new_stream("web");
        r.push(delivery(lines(&web, 20, 30), 0), at(0));
        r.push(delivery(lines(&web, 10, 20), 0), at(0));
        r.declare_due(at(wait - 1));
        assert_eq!(described_events(&mut r), "", "{wait}");
        r.declare_due(at(wait));
        assert_eq!(described_events(&mut r), "web:L10-20 web:L20-30", "{wait}");
        let worker = new_stream("worker");
        r.push(delivery(lines(&worker, 0, 5), 200_000), at(200_000));
        assert_eq!(
            described_events(&mut r),
            "worker:L0-5",
            "nothing precedes the first line"
        );
    }
}

#[test]
fn a_drain_sends_the_streams_of_a_container_one_after_the_other() {
    let (mut r, old, new) = (continued_drain(), stream("web", -3600), stream("web", -10));
    r.push(delivery(lines(&old, 10, 20), 0), at(0));
    r.push(delivery(lines(&new, 0, 5), 1), at(1));
    r.declare_due(at(129_999));
    assert_eq!(described_events(&mut r), "");
    r.declare_due(at(130_000));
    assert_eq!(described_events(&mut r), "web:L10-20");
    r.push(delivery(end(&old, 20), 130_000), at(130_000));
    assert_eq!(described_events(&mut r), "web:end20 web:L0-5");
    // A stream that never ends holds the next one back for the length of a wait.
    let next = stream("web", 60);
    r.push(delivery(lines(&next, 0, 5), 200_000), at(200_000));
    assert_eq!(described_events(&mut r), "");
    r.declare_due(at(330_000));
    assert_eq!(described_events(&mut r), "web:L0-5");
}
