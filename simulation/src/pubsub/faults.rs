//! What goes wrong, and how often.

use std::time::Duration;

/// Faults of the service. Probabilities are from 0 to 1; durations are maxima, drawn anew each time.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Latency of requests, and of deliveries.
    pub latency: Duration,
    /// Delay of each delivery in addition: messages overtake each other.
    pub disorder: Duration,
    /// Probability that a message is delivered again although it may be acknowledged.
    pub duplicate: f64,
    /// When it is delivered again.
    pub duplicate_delay: Duration,
    /// Probability that an acknowledgement is lost: the message is redelivered after the ack
    /// deadline.
    pub lost_ack: f64,
    /// Probability that a stream ends without nacks: its messages are redelivered after the ack
    /// deadline.
    pub lost_nack: f64,
    /// Probability that a lease is not extended: the message is redelivered after the ack deadline
    /// although the stream still holds it.
    pub lost_lease: f64,
    /// Probability that a request fails because the service is unavailable.
    pub unavailable: f64,
    /// Probability that a request fails because of a rate quota.
    pub quota: f64,
    /// Probability that a request fails for want of a permission.
    pub denied: f64,
    /// Probability that a request is executed but its answer lost.
    pub lost_answer: f64,
    /// Probability that a request hangs and then fails.
    pub hang: f64,
    /// Probability that a request hangs and is then executed, even if its caller has given up.
    pub late: f64,
    /// How long a request hangs.
    pub hang_time: Duration,
    /// Probability that a publish is stored twice, by a retry of the client library.
    pub publish_twice: f64,
    /// Probability that a message is delivered without its publish time.
    pub untimed: f64,
    /// After this time a stream ends with an error, or is reopened by the client library. `None`:
    /// never.
    pub stream_lifetime: Option<Duration>,
    /// How long the client library takes to reopen a stream, which delivers nothing meanwhile.
    pub stream_stall: Duration,
    /// How long a seek takes to become effective: older messages still arrive, and history does not
    /// yet.
    pub seek_lag: Duration,
    /// How long a new topic or subscription may be reported as missing, and a deleted one as
    /// existing.
    pub admin_lag: Duration,
    /// Maximum topics of a project, and maximum subscriptions.
    pub max_resources: usize,
    /// Entries per page of a list.
    pub page_size: usize,
}

impl Default for Faults {
    /// No faults, and a latency of a few milliseconds.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            disorder: Duration::ZERO,
            duplicate: 0.0,
            duplicate_delay: Duration::from_secs(1),
            lost_ack: 0.0,
            lost_nack: 0.0,
            lost_lease: 0.0,
            unavailable: 0.0,
            quota: 0.0,
            denied: 0.0,
            lost_answer: 0.0,
            hang: 0.0,
            late: 0.0,
            hang_time: Duration::from_secs(20),
            publish_twice: 0.0,
            untimed: 0.0,
            stream_lifetime: None,
            stream_stall: Duration::from_secs(2),
            seek_lag: Duration::ZERO,
            admin_lag: Duration::ZERO,
            max_resources: 10_000,
            page_size: 1000,
        }
    }
}

impl Faults {
    /// Faults of message delivery only: no request fails, and nothing takes effect late.
    pub fn delivery() -> Self {
        Self {
            latency: Duration::from_millis(50),
            disorder: Duration::from_millis(500),
            duplicate: 0.05,
            lost_ack: 0.02,
            lost_nack: 0.3,
            lost_lease: 0.02,
            publish_twice: 0.02,
            stream_lifetime: Some(Duration::from_secs(10)),
            ..Self::default()
        }
    }

    /// Faults of delivery, and requests that fail, hang, are executed late or lose their answer.
    pub fn requests() -> Self {
        Self {
            unavailable: 0.03,
            quota: 0.01,
            lost_answer: 0.02,
            hang: 0.005,
            late: 0.005,
            page_size: 2,
            ..Self::delivery()
        }
    }
}
