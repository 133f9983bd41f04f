//! Scenario files: the TOML shapes, their defaults, and errors that say where in the file the mistake is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::plan::{
    ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role, Scenario,
};
use crate::access::User;

/// A mistake in a scenario file. Prints as one line: `line 4, column 1: unknown field ...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScenarioError {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong, naming the key.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default)]
    seed: u64,
    rotate_bytes: Option<usize>,
    restart_backoff: Option<Span>,
    #[serde(default)]
    pods: Vec<Spanned<RawPod>>,
    #[serde(default)]
    faults: Vec<Spanned<RawFault>>,
    log_files: Option<Spanned<RawLogFiles>>,
    #[serde(default)]
    users: Vec<User>,
    #[serde(default)]
    authorize: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLogFiles {
    max_size: Option<u64>,
    max_files: Option<usize>,
    check: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPod {
    namespace: String,
    name: String,
    replicas: Option<u32>,
    #[serde(default)]
    start_after: Span,
    delete_after: Option<Span>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    node: Option<String>,
    containers: Vec<Spanned<RawContainer>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawContainer {
    name: String,
    lines: Option<u64>,
    rate: Option<f64>,
    size: Option<usize>,
    text: Option<String>,
    stderr_every: Option<u64>,
    #[serde(default)]
    exit_code: i32,
    restart: Option<RestartPolicy>,
    profile: Option<RawProfile>,
    waiting: Option<String>,
    #[serde(default)]
    role: RawRole,
    after: Option<Span>,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RawRole {
    #[default]
    Main,
    Init,
    Sidecar,
    Ephemeral,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawProfile {
    Web,
    Worker,
    Crash,
    Silent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    at: Span,
    kind: RawKind,
    namespace: Option<String>,
    pod: Option<String>,
    r#for: Option<Span>,
    delay: Option<Span>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum RawKind {
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

impl RawKind {
    fn lasts(self) -> bool {
        match self {
            Self::DeletePod
            | Self::EndStreams
            | Self::BreakStreams
            | Self::Rotate
            | Self::StrandFollows
            | Self::ExpireWatches => false,
            Self::ApiDown
            | Self::KubeletDown
            | Self::RuntimeDown
            | Self::StallFollows
            | Self::MuteWatches
            | Self::SlowLogs
            | Self::ApiBusy
            | Self::LogsForbidden => true,
        }
    }
}

/// A time as scenario files write it: `"2s"`, `"1m30s"`, `"250ms"`, or a number of seconds.
#[derive(Default, Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Seconds(f64),
            Text(String),
        }
        let wanted = || serde::de::Error::custom("expected a time such as \"2s\", \"250ms\", or a number of seconds");
        match Raw::deserialize(deserializer).map_err(|_| wanted())? {
            Raw::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| wanted()),
            Raw::Text(text) => {
                let signed: jiff::SignedDuration = text.parse().map_err(|_| wanted())?;
                Duration::try_from(signed).map(Span).map_err(|_| wanted())
            }
        }
    }
}

/// Reads and checks a scenario file.
pub(super) fn read(text: &str) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        error_at(text, start, error.message().replace('\n', " "))
    })?;
    let mut scenario = Scenario {
        seed: raw.seed,
        users: raw.users,
        authorize: raw.authorize,
        ..Scenario::default()
    };
    if let Some(raw) = raw.log_files {
        let start = raw.span().start;
        scenario.log_files = plan_log_files(raw.into_inner()).map_err(|message| error_at(text, start, message))?;
    }
    if let Some(Span(backoff)) = raw.restart_backoff {
        scenario.restart_backoff = backoff;
    }
    if let Some(bytes) = raw.rotate_bytes {
        if bytes < MIN_ROTATE_BYTES {
            let message = format!("`rotate_bytes` must be at least {MIN_ROTATE_BYTES}");
            return Err(error_at(text, text.find("rotate_bytes").unwrap_or_default(), message));
        }
        scenario.rotate_bytes = bytes;
    }
    for pod in raw.pods {
        scenario.pods.push(plan_pod(text, pod)?);
    }
    for fault in raw.faults {
        let start = fault.span().start;
        scenario
            .faults
            .push(plan_fault(fault.into_inner()).map_err(|message| error_at(text, start, message))?);
    }
    Ok(scenario)
}

fn plan_pod(text: &str, raw: Spanned<RawPod>) -> Result<PodPlan, ScenarioError> {
    let start = raw.span().start;
    let pod = raw.into_inner();
    let here = |message: String| error_at(text, start, message);
    check_name("namespace", &pod.namespace).map_err(here)?;
    check_name("name", &pod.name).map_err(here)?;
    let mut containers = Vec::new();
    let mut names = BTreeSet::new();
    for container in pod.containers {
        let start = container.span().start;
        let plan = plan_container(container.into_inner()).map_err(|message| error_at(text, start, message))?;
        if !names.insert(plan.name.clone()) {
            return Err(error_at(
                text,
                start,
                format!("`name`: a second container is called `{}`", plan.name),
            ));
        }
        containers.push(plan);
    }
    if !containers.iter().any(|container| container.role == Role::Main) {
        return Err(here(format!(
            "pod `{}`: `containers` needs at least one entry of role `main`",
            pod.name
        )));
    }
    Ok(PodPlan {
        namespace: pod.namespace,
        name: pod.name,
        replicas: pod.replicas,
        start_after: pod.start_after.0,
        delete_after: pod.delete_after.map(|span| span.0),
        labels: pod.labels,
        annotations: pod.annotations,
        node: pod.node,
        containers,
    })
}

fn plan_container(raw: RawContainer) -> Result<ContainerPlan, String> {
    check_name("name", &raw.name)?;
    let rate = raw.rate;
    if rate.is_some_and(|rate| !rate.is_finite() || rate < 0.0) {
        return Err(format!("container `{}`: `rate` must be 0 or more", raw.name));
    }
    if raw.size.is_some_and(|size| size > MAX_LINE_BYTES) {
        return Err(format!(
            "container `{}`: `size` must be at most {MAX_LINE_BYTES}",
            raw.name
        ));
    }
    let plans_lines = raw.text.is_some() || raw.size.is_some() || raw.lines.is_some() || raw.stderr_every.is_some();
    if raw.profile.is_some() && plans_lines {
        return Err(format!(
            "container `{}`: `profile` excludes `text`, `size`, `lines` and `stderr_every`",
            raw.name
        ));
    }
    if raw.stderr_every == Some(0) {
        return Err(format!("container `{}`: `stderr_every` must be 1 or more", raw.name));
    }
    let role = plan_role(&raw)?;
    let endless = raw.profile.is_some() || raw.lines.unwrap_or(0) == 0;
    let output = match raw.profile {
        Some(RawProfile::Silent) => Output::Silent,
        Some(RawProfile::Web) => Output::Program(Program::Web, rate.unwrap_or(3.0)),
        Some(RawProfile::Worker) => Output::Program(Program::Worker, rate.unwrap_or(2.0)),
        Some(RawProfile::Crash) => Output::Program(Program::Crash, rate.unwrap_or(10.0)),
        None => Output::Lines(LinePlan {
            lines: raw.lines.unwrap_or(0),
            rate: rate.unwrap_or(1.0),
            size: raw.size,
            text: raw.text.unwrap_or_else(|| "line {seq}".to_owned()),
            stderr_every: raw.stderr_every,
        }),
    };
    if matches!(output, Output::Program(_, rate) if rate == 0.0) {
        return Err(format!("container `{}`: a `profile` needs a `rate` above 0", raw.name));
    }
    let default = match role {
        Role::Sidecar => RestartPolicy::Always,
        Role::Main if endless => RestartPolicy::Always,
        _ => RestartPolicy::Never,
    };
    if role == Role::Init && endless {
        return Err(format!(
            "container `{}`: an init container needs `lines`, or the pod never starts",
            raw.name
        ));
    }
    Ok(ContainerPlan {
        name: raw.name,
        role,
        output,
        exit_code: raw.exit_code,
        restart: raw.restart.unwrap_or(default),
        waiting: raw.waiting,
    })
}

fn plan_role(raw: &RawContainer) -> Result<Role, String> {
    let fixed = match raw.role {
        RawRole::Main | RawRole::Init => None,
        RawRole::Sidecar => Some(RestartPolicy::Always),
        RawRole::Ephemeral => Some(RestartPolicy::Never),
    };
    if let (Some(fixed), Some(wanted)) = (fixed, raw.restart)
        && fixed != wanted
    {
        return Err(format!(
            "container `{}`: one of this role is restarted `{}`",
            raw.name,
            fixed.as_str()
        ));
    }
    if raw.role != RawRole::Ephemeral && raw.after.is_some() {
        return Err(format!("container `{}`: `after` belongs to `ephemeral` only", raw.name));
    }
    Ok(match raw.role {
        RawRole::Main => Role::Main,
        RawRole::Init => Role::Init,
        RawRole::Sidecar => Role::Sidecar,
        RawRole::Ephemeral => Role::Ephemeral {
            after: raw.after.unwrap_or_default().0,
        },
    })
}

fn plan_log_files(raw: RawLogFiles) -> Result<LogFiles, String> {
    let default = LogFiles::default();
    let files = LogFiles {
        dir: None,
        max_size: raw.max_size.unwrap_or(default.max_size),
        max_files: raw.max_files.unwrap_or(default.max_files),
        check: raw.check.map_or(default.check, |span| span.0),
    };
    if files.max_size == 0 || files.check.is_zero() {
        return Err("`log_files`: `max_size` and `check` must be above 0".to_owned());
    }
    // The kubelet's own rule.
    if files.max_files < 2 {
        return Err("`log_files`: `max_files` must be 2 or more".to_owned());
    }
    Ok(files)
}

fn plan_fault(raw: RawFault) -> Result<Fault, String> {
    let deletes = raw.kind == RawKind::DeletePod;
    if !deletes && (raw.namespace.is_some() || raw.pod.is_some()) {
        return Err("`namespace` and `pod` belong to `delete-pod` only".to_owned());
    }
    if !raw.kind.lasts() && raw.r#for.is_some() {
        return Err("`for` belongs to faults that last only, such as `api-down`".to_owned());
    }
    if raw.kind != RawKind::SlowLogs && raw.delay.is_some() {
        return Err("`delay` belongs to `slow-logs` only".to_owned());
    }
    let (at, lasting) = (raw.at.0, raw.r#for);
    let duration = || {
        lasting
            .map(|span| span.0)
            .ok_or_else(|| "missing field `for`".to_owned())
    };
    let kind = fault_kind(raw, duration)?;
    Ok(Fault { at, kind })
}

fn fault_kind(raw: RawFault, duration: impl Fn() -> Result<Duration, String>) -> Result<FaultKind, String> {
    Ok(match raw.kind {
        RawKind::DeletePod => FaultKind::DeletePod {
            namespace: raw.namespace.ok_or("missing field `namespace`")?,
            pod: raw.pod.ok_or("missing field `pod`")?,
        },
        RawKind::EndStreams => FaultKind::EndStreams,
        RawKind::BreakStreams => FaultKind::BreakStreams,
        RawKind::ApiDown => FaultKind::ApiDown { duration: duration()? },
        RawKind::KubeletDown => FaultKind::KubeletDown { duration: duration()? },
        RawKind::RuntimeDown => FaultKind::RuntimeDown { duration: duration()? },
        RawKind::Rotate => FaultKind::Rotate,
        RawKind::StallFollows => FaultKind::StallFollows { duration: duration()? },
        RawKind::StrandFollows => FaultKind::StrandFollows,
        RawKind::MuteWatches => FaultKind::MuteWatches { duration: duration()? },
        RawKind::SlowLogs => FaultKind::SlowLogs {
            duration: duration()?,
            delay: raw.delay.ok_or("missing field `delay`")?.0,
        },
        RawKind::ApiBusy => FaultKind::ApiBusy { duration: duration()? },
        RawKind::LogsForbidden => FaultKind::LogsForbidden { duration: duration()? },
        RawKind::ExpireWatches => FaultKind::ExpireWatches,
    })
}

/// Kubernetes' rule for names (RFC 1123 labels).
fn check_name(key: &str, name: &str) -> Result<(), String> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = name.bytes().all(|byte| alphanumeric(byte) || byte == b'-');
    let ends = name.bytes().next().is_some_and(alphanumeric) && name.bytes().last().is_some_and(alphanumeric);
    if inner && ends && name.len() <= 63 {
        return Ok(());
    }
    Err(format!(
        "`{key}` = \"{name}\": lowercase letters, digits and `-`, at most 63"
    ))
}

fn error_at(text: &str, start: usize, message: String) -> ScenarioError {
    let before = text.get(..start).unwrap_or(text);
    let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
    ScenarioError {
        line: before.matches('\n').count() + 1,
        column,
        message,
    }
}

/// Below this a file would hold less than one write.
const MIN_ROTATE_BYTES: usize = 4 << 10;
/// A line longer than this would not fit a log file before it rotates.
const MAX_LINE_BYTES: usize = 1 << 20;
