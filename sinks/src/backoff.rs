//! The pauses between attempts to reach a receiver.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use system::random::random;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The maximum of the first pause; it doubles with every attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// Exponential backoff with jitter, so that drains that failed together do not retry together.
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Backoff {
    /// Pauses of up to [`FIRST_PAUSE`], doubled each time, up to `max`. The lower half of a pause
    /// is fixed, the upper half random.
    pub(crate) fn new(max: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE.min(max) / 2)
            .with_max_delay(max / 2)
            .with_jitter()
            .without_max_times();
        Self {
            builder,
            pauses: builder.with_jitter_seed(random()).build(),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.with_jitter_seed(random()).build();
    }

    /// Waits for the next pause, at least for the time that the receiver requests, or until
    /// shutdown is requested.
    pub(crate) async fn pause(&mut self, requested: Option<Duration>, stop: &CancellationToken) {
        let pause = self.pauses.next().unwrap_or_default();
        tokio::select! {
            () = sleep(pause.max(requested.unwrap_or_default())) => {}
            () = stop.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(60));
        for max_millis in [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            let max = Duration::from_millis(max_millis);
            let pause = backoff.pauses.next().unwrap();
            assert!((max / 2..=max).contains(&pause), "{pause:?} of at most {max:?}");
        }
        backoff.reset();
        assert!(backoff.pauses.next().unwrap() <= FIRST_PAUSE);
    }
}
