//! Timestamps in API objects.

use jiff::Timestamp;

/// Formats a time like `metav1.Time`: RFC 3339 in UTC, whole seconds.
pub(crate) fn rfc3339_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
