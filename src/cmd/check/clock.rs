//! Compares the clocks of the deployment: lines are merged by their nodes' timestamps, and leases
//! and keys expire by time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};

use super::report::Report;

/// Largest accepted difference. A `Date` header has a resolution of one second, and a response
/// takes time.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Readings of other clocks, relative to this machine's.
#[derive(Default)]
pub(super) struct Clocks(Vec<Clock>);

struct Clock {
    name: String,
    /// Milliseconds ahead of this machine's clock; negative if behind.
    ahead: i64,
}

impl Clocks {
    /// Records a reading that was taken between `sent` and `received` of this machine's clock, with
    /// a given resolution.
    pub(super) fn record(
        &mut self,
        name: impl Into<String>,
        reading: SystemTime,
        (sent, received): (SystemTime, SystemTime),
        resolution: Duration,
    ) {
        let (reading, sent, received) = (unix_millis(reading), unix_millis(sent), unix_millis(received));
        let resolution = i64::try_from(resolution.as_millis()).unwrap_or_default();
        // A reading within the span counts as exact.
        let ahead = match reading {
            reading if reading + resolution < sent => reading + resolution - sent,
            reading if reading > received => reading - received,
            _ => 0,
        };
        self.0.push(Clock {
            name: name.into(),
            ahead,
        });
    }

    /// Records the `Date` header of a response; without one there is no reading.
    ///
    /// *Source*: RFC 9110, section 6.6.1.
    pub(super) fn record_date(&mut self, name: &str, headers: &HeaderMap, span: (SystemTime, SystemTime)) {
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.record(name, date, span, Duration::from_secs(1));
        }
    }

    /// Reports the clocks that differ.
    pub(super) fn report(self, report: &mut Report) {
        let tolerance = i64::try_from(TOLERANCE.as_millis()).unwrap_or_default();
        let (good, off): (Vec<&Clock>, Vec<&Clock>) = self.0.iter().partition(|clock| clock.ahead.abs() <= tolerance);
        let names = |clocks: &[&Clock]| clocks.iter().map(|clock| &*clock.name).collect::<Vec<_>>().join(", ");
        if good.is_empty() && off.len() > 1 {
            let seconds = off[0].ahead as f64 / 1000.0;
            let direction = if seconds > 0.0 { "behind" } else { "ahead of" };
            report.fail(
                "clock",
                format!(
                    "this machine's clock is {:.1} s {direction} all others ({}); synchronize it with NTP",
                    seconds.abs(),
                    names(&off)
                ),
            );
            return;
        }
        for clock in off {
            let seconds = clock.ahead as f64 / 1000.0;
            let direction = if seconds > 0.0 { "ahead of" } else { "behind" };
            report.fail(
                "clock",
                format!(
                    "the clock of {} is {:.1} s {direction} this machine's; lines are merged by time, so synchronize it with NTP",
                    clock.name,
                    seconds.abs()
                ),
            );
        }
        if !good.is_empty() {
            report.ok("clock", format!("this machine and {} agree", names(&good)));
        }
    }
}

fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
