//! Whether the clocks of those who take part agree: lines are merged by their nodes' stamps, and leases and keys are good for a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};

use super::report::Report;

/// Further apart than this is a fault. A `Date` header tells whole seconds, and an answer takes its time.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Others' clocks, beside this machine's.
#[derive(Default)]
pub(super) struct Clocks(Vec<Clock>);

struct Clock {
    whose: String,
    /// In milliseconds; above 0: ahead of this machine's.
    ahead: i64,
}

impl Clocks {
    /// Somebody said that it was so late, between these two times of this machine's. `grain` is how coarsely they say it.
    pub(super) fn heard(
        &mut self,
        whose: impl Into<String>,
        told: SystemTime,
        (asked, answered): (SystemTime, SystemTime),
        grain: Duration,
    ) {
        let (told, asked, answered) = (millis(told), millis(asked), millis(answered));
        let grain = i64::try_from(grain.as_millis()).unwrap_or_default();
        // Anything between is as good as exact.
        let ahead = match told {
            told if told + grain < asked => told + grain - asked,
            told if told > answered => told - answered,
            _ => 0,
        };
        self.0.push(Clock {
            whose: whose.into(),
            ahead,
        });
    }

    /// The same of an HTTP answer's `Date`, which tells whole seconds (RFC 9110, section 6.6.1). Without one nothing was said.
    pub(super) fn heard_date(&mut self, whose: &str, headers: &HeaderMap, times: (SystemTime, SystemTime)) {
        let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
        if let Some(told) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            self.heard(whose, told, times, Duration::from_secs(1));
        }
    }

    /// Tells which are off.
    pub(super) fn tell(self, report: &mut Report) {
        let tolerance = i64::try_from(TOLERANCE.as_millis()).unwrap_or_default();
        let (good, off): (Vec<&Clock>, Vec<&Clock>) = self.0.iter().partition(|clock| clock.ahead.abs() <= tolerance);
        let names = |clocks: &[&Clock]| clocks.iter().map(|clock| &*clock.whose).collect::<Vec<_>>().join(", ");
        if good.is_empty() && off.len() > 1 {
            let seconds = off[0].ahead as f64 / 1000.0;
            let way = if seconds > 0.0 { "behind" } else { "ahead of" };
            report.fault(
                "clock",
                format!(
                    "this machine's clock is {:.1} s {way} all others ({}): set it (NTP)",
                    seconds.abs(),
                    names(&off)
                ),
            );
            return;
        }
        for clock in off {
            let seconds = clock.ahead as f64 / 1000.0;
            let way = if seconds > 0.0 { "ahead of" } else { "behind" };
            report.fault(
                "clock",
                format!(
                    "the clock of {} is {:.1} s {way} this machine's: lines are merged by their times, so set it (NTP)",
                    clock.whose,
                    seconds.abs()
                ),
            );
        }
        if !good.is_empty() {
            report.ok("clock", format!("this machine's agrees with that of {}", names(&good)));
        }
    }
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
