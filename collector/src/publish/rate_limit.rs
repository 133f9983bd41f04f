//! Rate limits: one token bucket per app and node, in bytes per second, shared by the app's
//! streams.
//!
//! Lines are numbered before the limit applies. Dropped lines become a gap, and a platform message
//! in the app's log states the limit.

use std::time::Duration;

use bus::{AppName, notice};
use parking_lot::Mutex;
use system::{
    clock::{Instant, since, steady},
    collections::HashMap,
};

use super::notices::Notices;

/// An exhausted bucket opens again when it holds the tokens of this many seconds, so that lines
/// pass in runs and gaps are few.
const REOPEN_SECONDS: f64 = 1.0;

/// Minimum time between two messages to an app.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);

/// The rate limits of all apps.
pub struct RateLimits {
    rate: f64,
    burst: f64,
    buckets: Mutex<HashMap<AppName, Bucket>>,
    notices: Notices,
    notice: notice::Notice,
}

struct Bucket {
    tokens: f64,
    at: Instant,
    is_exhausted: bool,
    last_notice: Option<Instant>,
}

impl RateLimits {
    /// Creates the limits, in bytes per second and bytes.
    pub fn new(rate: u64, burst: u64, notices: Notices) -> Self {
        Self {
            rate: rate as f64,
            burst: burst as f64,
            buckets: Mutex::default(),
            notices,
            notice: notice::rate_limited(rate, burst),
        }
    }

    /// Returns how many of these bytes, in whole lines, may pass now.
    pub fn admit(&self, app: &AppName, data: &[u8]) -> usize {
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry(app.clone()).or_insert_with(|| Bucket {
            tokens: self.burst,
            at: steady(),
            is_exhausted: false,
            last_notice: None,
        });
        bucket.refill(self.rate, self.burst);
        let reopen = (self.rate * REOPEN_SECONDS).min(self.burst);
        if bucket.is_exhausted && bucket.tokens < reopen {
            return 0;
        }
        let admitted = whole_lines(data, bucket.tokens, bucket.tokens >= self.burst);
        bucket.tokens -= admitted as f64;
        bucket.is_exhausted = admitted < data.len();
        if bucket.is_exhausted
            && bucket
                .last_notice
                .is_none_or(|last_notice| since(last_notice) >= NOTICE_INTERVAL)
        {
            bucket.last_notice = Some(steady());
            // If the queue is full, the message is sent after the interval.
            self.notices.send(app, self.notice.clone());
        }
        admitted
    }
}

impl Bucket {
    fn refill(&mut self, rate: f64, burst: f64) {
        let now = steady();
        self.tokens = (self.tokens + rate * (now - self.at).as_secs_f64()).min(burst);
        self.at = now;
    }
}

/// Returns the length of the whole lines that the tokens cover. A line larger than the bucket
/// passes if the bucket is full; otherwise it never would.
fn whole_lines(data: &[u8], tokens: f64, is_full: bool) -> usize {
    if data.len() as f64 <= tokens {
        return data.len();
    }
    let max = tokens.max(0.0) as usize;
    let first = || memchr::memchr(b'\n', data).map_or(data.len(), |newline| newline + 1);
    match memchr::memrchr(b'\n', &data[..max.min(data.len())]) {
        Some(newline) => newline + 1,
        None if is_full => first(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rate: u64, burst: u64) -> RateLimits {
        RateLimits::new(rate, burst, Notices::unread())
    }

    #[tokio::test(start_paused = true)]
    async fn burst_and_rate_apply_per_app() {
        let (loud, quiet): (AppName, AppName) = ("loud".parse().unwrap(), "quiet".parse().unwrap());
        let limits = limits(100, 250);
        let line = [b"x".repeat(49), b"\n".to_vec()].concat();
        assert_eq!(limits.admit(&loud, &line.repeat(8)), 250);
        assert_eq!(limits.admit(&loud, &line), 0);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(
            limits.admit(&loud, &line),
            0,
            "closed until it holds one second of tokens"
        );
        assert_eq!(
            limits.admit(&quiet, &line.repeat(2)),
            100,
            "the bucket of another app is full"
        );
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(limits.admit(&loud, &line.repeat(8)), 100);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(limits.admit(&loud, &line.repeat(8)), 250, "at most the burst");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_larger_than_the_burst_passes_only_a_full_bucket() {
        let app: AppName = "app".parse().unwrap();
        let limits = limits(100, 100);
        let long = [b"x".repeat(499), b"\n".to_vec()].concat();
        assert_eq!(limits.admit(&app, &long.repeat(2)), 500);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(limits.admit(&app, &long), 0);
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limits.admit(&app, &long), 500);
    }
}
