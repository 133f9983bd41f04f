//! Requests that the service rejects.
//!
//! *Source*: Pub/Sub, quotas and limits: resource limits; resource names.

use std::{ops::RangeInclusive, time::Duration};

use bus::pubsub_service::{OutgoingMessage, ServiceError};

use super::subscription::Settings;

const DAY: u64 = 86_400;

const MAX_MESSAGE_BYTES: usize = 10_000_000;

const MAX_ATTRIBUTES: usize = 100;
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 1024;

/// Checks a message. It must have data or an attribute.
pub(super) fn check_message(message: &OutgoingMessage) -> Result<(), ServiceError> {
    let OutgoingMessage { attributes, data } = message;
    check(data.len() <= MAX_MESSAGE_BYTES, "the message is too large")?;
    check(!data.is_empty() || !attributes.is_empty(), "the message is empty")?;
    check(
        attributes.len() <= MAX_ATTRIBUTES,
        "the message has too many attributes",
    )?;
    for (name, value) in attributes {
        let is_valid = !name.is_empty() && name.len() <= MAX_NAME_BYTES && value.len() <= MAX_VALUE_BYTES;
        check(is_valid, "an attribute is too long")?;
    }
    Ok(())
}

/// Checks a name: `projects/P/KIND/N`.
pub(super) fn check_name(name: &str, kind: &str) -> Result<(), ServiceError> {
    let parts: Vec<&str> = name.split('/').collect();
    let ["projects", project, found, last] = parts[..] else {
        return check(false, "the name is incomplete");
    };
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-._~+%".contains(c);
    check(found == kind && !project.is_empty(), "the name is of another kind")?;
    check((3..=255).contains(&last.len()), "the name is too short or too long")?;
    check(
        last.starts_with(|c: char| c.is_ascii_alphabetic()),
        "the name must start with a letter",
    )?;
    check(!last.starts_with("goog"), "the name is reserved")?;
    check(last.chars().all(is_known), "the name has an invalid character")
}

/// Checks the retention of a topic or subscription.
pub(super) fn check_retention(retention: Duration) -> Result<(), ServiceError> {
    check_seconds(retention, 600..=31 * DAY, "invalid retention")
}

/// Checks the settings of a subscription.
pub(super) fn check_subscription(settings: &Settings) -> Result<(), ServiceError> {
    check_retention(settings.retention)?;
    check_seconds(settings.ack_deadline, 10..=600, "invalid ack deadline")?;
    if let Some(expiration) = settings.expiration {
        check_seconds(expiration, DAY..=365 * DAY, "invalid expiration")?;
        check(
            expiration >= settings.retention,
            "the expiration is shorter than the retention",
        )?;
    }
    if let Some(delays) = settings.retry_delays {
        check_seconds(delays.min, 0..=600, "invalid minimum backoff")?;
        check_seconds(delays.max, 0..=600, "invalid maximum backoff")?;
    }
    Ok(())
}

fn check_seconds(duration: Duration, valid: RangeInclusive<u64>, text: &str) -> Result<(), ServiceError> {
    check(valid.contains(&duration.as_secs()), text)
}

fn check(is_valid: bool, text: &str) -> Result<(), ServiceError> {
    if is_valid {
        Ok(())
    } else {
        Err(ServiceError::Invalid(text.to_owned()))
    }
}
