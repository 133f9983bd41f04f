//! Recent disorder, from which the reorder window follows.

use std::time::Duration;

/// Longest reorder window. Larger disorder comes from wrong clocks or old lines, for which no
/// window is long enough.
pub(super) const MAX_WINDOW: Duration = Duration::from_secs(1);

/// The window is twice the recent disorder, but at most this much above it. Without disorder there
/// is no window.
const MARGIN: Duration = Duration::from_millis(2);

/// Disorder counts as recent for this long, up to twice this long.
const PERIOD: Duration = Duration::from_secs(5);

/// The largest disorder of the current and the previous period; two values make expiry cheap.
#[derive(Default)]
pub(super) struct Disorder {
    current: Duration,
    previous: Duration,
    /// Start of the current period.
    start: Duration,
}

impl Disorder {
    /// Records how far a line arrived behind the newest one.
    pub(super) fn record(&mut self, disorder: Duration, elapsed: Duration) {
        self.expire(elapsed);
        self.current = self.current.max(disorder);
    }

    /// Drops disorder that is no longer recent.
    pub(super) fn expire(&mut self, elapsed: Duration) {
        if elapsed >= self.start + PERIOD {
            let skipped = elapsed >= self.start + PERIOD * 2;
            self.previous = if skipped { Duration::ZERO } else { self.current };
            self.current = Duration::ZERO;
            self.start = elapsed;
        }
    }

    /// Returns the reorder window.
    pub(super) fn window(&self) -> Duration {
        let recent = self.current.max(self.previous);
        (recent + recent.min(MARGIN)).min(MAX_WINDOW)
    }
}
