//! The reserved origin of platform messages.

/// Process and origin of the messages that Tributary adds to an app's log.
pub const TRIBUTARY: &str = "tributary";
