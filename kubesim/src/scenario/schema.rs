//! The keys of a scenario file as TOML, before validation.

use std::collections::BTreeMap;
use std::time::Duration;

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
}

impl RawFaultKind {
    /// Returns the name in scenario files, and whether the fault has a duration.
    pub(super) fn describe(self) -> (&'static str, bool) {
        match self {
            Self::DeletePod => ("delete-pod", false),
            Self::EndStreams => ("end-streams", false),
            Self::BreakStreams => ("break-streams", false),
            Self::ApiDown => ("api-down", true),
            Self::KubeletDown => ("kubelet-down", true),
            Self::RuntimeDown => ("runtime-down", true),
            Self::Rotate => ("rotate", false),
            Self::StallFollows => ("stall-follows", true),
            Self::StrandFollows => ("strand-follows", false),
            Self::MuteWatches => ("mute-watches", true),
            Self::SlowLogs => ("slow-logs", true),
            Self::ApiBusy => ("api-busy", true),
            Self::LogsForbidden => ("logs-forbidden", true),
            Self::ExpireWatches => ("expire-watches", false),
        }
    }
}

/// A duration in a scenario file: `"2s"`, `"1m30s"`, `"250ms"`, or a number of seconds.
#[derive(Default, Clone, Copy)]
pub(super) struct RawDuration(pub(super) Duration);

impl<'de> Deserialize<'de> for RawDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Seconds(f64),
            Text(String),
        }
        let invalid = |value: &str| {
            let advice = "write a string such as \"2s\", \"1m30s\" or \"250ms\", or a number of seconds";
            serde::de::Error::custom(format!("{value} is not a duration; {advice}"))
        };
        match Raw::deserialize(deserializer).map_err(|_| invalid("the value"))? {
            Raw::Seconds(seconds) => Duration::try_from_secs_f64(seconds)
                .map(RawDuration)
                .map_err(|_| invalid(&seconds.to_string())),
            Raw::Text(text) => {
                let duration = text.parse::<jiff::SignedDuration>().ok();
                duration
                    .and_then(|signed| Duration::try_from(signed).ok())
                    .map(RawDuration)
                    .ok_or_else(|| invalid(&format!("{text:?}")))
            }
        }
    }
}
