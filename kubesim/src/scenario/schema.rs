//! The keys of a scenario file as TOML, before validation.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::plan::RestartPolicy;
use crate::access::User;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    #[serde(default)]
    pub(super) seed: u64,
    pub(super) rotate_bytes: Option<Spanned<usize>>,
    pub(super) restart_backoff: Option<RawDuration>,
    #[serde(default)]
    pub(super) pods: Vec<Spanned<RawPod>>,
    #[serde(default)]
    pub(super) faults: Vec<Spanned<RawFault>>,
    pub(super) log_files: Option<Spanned<RawLogFiles>>,
    #[serde(default)]
    pub(super) users: Vec<User>,
    #[serde(default)]
    pub(super) authorize: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLogFiles {
    pub(super) max_size: Option<u64>,
    pub(super) max_files: Option<usize>,
    pub(super) check: Option<RawDuration>,
    pub(super) utc_offset: Option<RawSignedDuration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) replicas: Option<u32>,
    #[serde(default)]
    pub(super) start_after: RawDuration,
    pub(super) delete_after: Option<RawDuration>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) node: Option<String>,
    pub(super) containers: Vec<Spanned<RawContainer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawContainer {
    pub(super) name: String,
    pub(super) lines: Option<u64>,
    pub(super) rate: Option<f64>,
    pub(super) size: Option<usize>,
    pub(super) text: Option<String>,
    pub(super) stderr_every: Option<u64>,
    #[serde(default)]
    pub(super) exit_code: i32,
    pub(super) restart: Option<RestartPolicy>,
    pub(super) profile: Option<RawProfile>,
    pub(super) waiting: Option<String>,
    #[serde(default)]
    pub(super) role: RawRole,
    pub(super) after: Option<RawDuration>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawRole {
    #[default]
    Main,
    Init,
    Sidecar,
    Ephemeral,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawProfile {
    Web,
    Worker,
    Crash,
    Silent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFault {
    pub(super) at: RawDuration,
    pub(super) kind: RawFaultKind,
    pub(super) namespace: Option<String>,
    pub(super) pod: Option<String>,
    pub(super) r#for: Option<RawDuration>,
    pub(super) delay: Option<RawDuration>,
    pub(super) by: Option<RawSignedDuration>,
    pub(super) offset: Option<RawSignedDuration>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawFaultKind {
    DeletePod,
    EndStreams,
    BreakStreams,
    ApiDown,
    KubeletDown,
    RuntimeDown,
    Rotate,
    StallFollows,
    StrandFollows,
    MuteWatches,
    SlowLogs,
    ApiBusy,
    LogsForbidden,
    ExpireWatches,
    StallRequests,
    StrandOnRotation,
    StatusLag,
    StepClock,
    FreezeClock,
    DelayWrites,
    SetUtcOffset,
    RemoveLogFiles,
    TruncateLogFiles,
}

impl RawFaultKind {
    /// Returns the name in scenario files, and the keys that the fault needs.
    pub(super) fn describe(self) -> (&'static str, &'static [&'static str]) {
        const POD: &[&str] = &["namespace", "pod"];
        const FOR: &[&str] = &["for"];
        const FOR_DELAY: &[&str] = &["for", "delay"];
        match self {
            Self::DeletePod => ("delete-pod", POD),
            Self::EndStreams => ("end-streams", &[]),
            Self::BreakStreams => ("break-streams", &[]),
            Self::ApiDown => ("api-down", FOR),
            Self::KubeletDown => ("kubelet-down", FOR),
            Self::RuntimeDown => ("runtime-down", FOR),
            Self::Rotate => ("rotate", &[]),
            Self::StallFollows => ("stall-follows", FOR),
            Self::StrandFollows => ("strand-follows", &[]),
            Self::MuteWatches => ("mute-watches", FOR),
            Self::SlowLogs => ("slow-logs", FOR_DELAY),
            Self::ApiBusy => ("api-busy", FOR),
            Self::LogsForbidden => ("logs-forbidden", FOR),
            Self::ExpireWatches => ("expire-watches", &[]),
            Self::StallRequests => ("stall-requests", FOR),
            Self::StrandOnRotation => ("strand-on-rotation", FOR),
            Self::StatusLag => ("status-lag", FOR_DELAY),
            Self::StepClock => ("step-clock", &["by"]),
            Self::FreezeClock => ("freeze-clock", FOR),
            Self::DelayWrites => ("delay-writes", FOR_DELAY),
            Self::SetUtcOffset => ("set-utc-offset", &["offset"]),
            Self::RemoveLogFiles => ("remove-log-files", POD),
            Self::TruncateLogFiles => ("truncate-log-files", POD),
        }
    }
}

/// A duration in a scenario file: `"2s"`, `"1m30s"`, `"250ms"`, or a number of seconds.
#[derive(Default, Clone, Copy)]
pub(super) struct RawDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (duration, value) = parse_duration(deserializer)?;
        let unsigned = Duration::try_from(duration).map(Self);
        unsigned.map_err(|_| not_a_duration(&value))
    }
}

/// A duration that may be negative: `"-30s"`.
#[derive(Default, Clone, Copy)]
pub(super) struct RawSignedDuration(pub(super) SignedDuration);

impl<'de> Deserialize<'de> for RawSignedDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(deserializer).map(|(duration, _)| Self(duration))
    }
}

/// Returns the duration and the value as text.
fn parse_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(SignedDuration, String), D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Raw {
        Seconds(f64),
        Text(String),
    }
    let (duration, value) = match Raw::deserialize(deserializer).map_err(|_| not_a_duration("the value"))? {
        Raw::Seconds(seconds) => (SignedDuration::try_from_secs_f64(seconds).ok(), seconds.to_string()),
        Raw::Text(text) => (text.parse().ok(), format!("{text:?}")),
    };
    match duration {
        Some(duration) => Ok((duration, value)),
        None => Err(not_a_duration(&value)),
    }
}

fn not_a_duration<E: serde::de::Error>(value: &str) -> E {
    let advice = "write a string such as \"2s\", \"1m30s\" or \"250ms\", or a number of seconds";
    E::custom(format!("{value} is not a duration; {advice}"))
}
