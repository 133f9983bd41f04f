//! Validation and defaults of pods, containers, faults and log file settings.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use toml::Spanned;

use super::error::ScenarioError;
use super::plan::{ContainerPlan, Fault, FaultKind, LinePlan, LogFiles, Output, PodPlan, Program, RestartPolicy, Role};
use super::schema::{RawContainer, RawFault, RawFaultKind, RawLogFiles, RawPod, RawProfile, RawRole};

pub(super) fn pod_plan(text: &str, raw: Spanned<RawPod>) -> Result<PodPlan, ScenarioError> {
    let offset = raw.span().start;
    let pod = raw.into_inner();
    let error = |message: String| ScenarioError::at(text, offset, message);
    check_name("namespace", &pod.namespace).map_err(error)?;
    check_name("name", &pod.name).map_err(error)?;
    let mut containers = Vec::new();
    let mut names = BTreeSet::new();
    for container in pod.containers {
        let offset = container.span().start;
        let error = |message: String| ScenarioError::at(text, offset, message);
        let plan = container_plan(container.into_inner()).map_err(error)?;
        if !names.insert(plan.name.clone()) {
            let advice = "give every container of a pod its own `name`";
            return Err(error(format!("container `{}` is defined twice; {advice}", plan.name)));
        }
        containers.push(plan);
    }
    if !containers.iter().any(|container| container.role == Role::Main) {
        return Err(error(format!(
            "pod `{}` has no container with role `main`; add a `[[pods.containers]]` entry",
            pod.name
        )));
    }
    Ok(PodPlan {
        namespace: pod.namespace,
        name: pod.name,
        replicas: pod.replicas,
        start_after: pod.start_after.0,
        delete_after: pod.delete_after.map(|duration| duration.0),
        labels: pod.labels,
        annotations: pod.annotations,
        node: pod.node,
        containers,
    })
}

fn container_plan(raw: RawContainer) -> Result<ContainerPlan, String> {
    check_name("name", &raw.name)?;
    let role = role(&raw)?;
    let endless = raw.profile.is_some() || raw.lines.unwrap_or(0) == 0;
    if role == Role::Init && endless {
        return Err(format!(
            "container `{}`: an init container without `lines` never ends, so the pod never starts; set `lines`",
            raw.name
        ));
    }
    let output = output(&raw)?;
    let default_restart = match role {
        Role::Sidecar => RestartPolicy::Always,
        Role::Main if endless => RestartPolicy::Always,
        _ => RestartPolicy::Never,
    };
    Ok(ContainerPlan {
        name: raw.name,
        role,
        output,
        exit_code: raw.exit_code,
        restart: raw.restart.unwrap_or(default_restart),
        waiting: raw.waiting,
    })
}

fn output(raw: &RawContainer) -> Result<Output, String> {
    let error = |problem: String| Err(format!("container `{}`: {problem}", raw.name));
    if let Some(rate) = raw.rate.filter(|rate| !rate.is_finite() || *rate < 0.0) {
        return error(format!("`rate` = {rate} is invalid; write 0 or more lines per second"));
    }
    if let Some(size) = raw.size.filter(|size| *size > MAX_LINE_BYTES) {
        return error(format!("`size` = {size} is too large; write {MAX_LINE_BYTES} or less"));
    }
    if raw.stderr_every == Some(0) {
        return error("`stderr_every` = 0 is invalid; write 1 or more, or remove the key".to_owned());
    }
    let Some(profile) = raw.profile else {
        return Ok(Output::Lines(LinePlan {
            lines: raw.lines.unwrap_or(0),
            rate: raw.rate.unwrap_or(1.0),
            size: raw.size,
            text: raw.text.clone().unwrap_or_else(|| "line {seq}".to_owned()),
            stderr_every: raw.stderr_every,
        }));
    };
    let line_keys = [
        ("text", raw.text.is_some()),
        ("size", raw.size.is_some()),
        ("lines", raw.lines.is_some()),
        ("stderr_every", raw.stderr_every.is_some()),
    ];
    if let Some((key, _)) = line_keys.iter().find(|(_, is_set)| *is_set) {
        return error(format!("`{key}` cannot be combined with `profile`; remove one of them"));
    }
    let (program, default_rate) = match profile {
        RawProfile::Silent => return Ok(Output::Silent),
        RawProfile::Web => (Program::Web, 3.0),
        RawProfile::Worker => (Program::Worker, 2.0),
        RawProfile::Crash => (Program::Crash, 10.0),
    };
    let rate = raw.rate.unwrap_or(default_rate);
    if rate == 0.0 {
        return error("`rate` = 0 is invalid with a `profile`; write a number above 0".to_owned());
    }
    Ok(Output::Program(program, rate))
}

fn role(raw: &RawContainer) -> Result<Role, String> {
    let fixed = match raw.role {
        RawRole::Main | RawRole::Init => None,
        RawRole::Sidecar => Some(("sidecar", RestartPolicy::Always)),
        RawRole::Ephemeral => Some(("ephemeral", RestartPolicy::Never)),
    };
    if let (Some((role, fixed)), Some(restart)) = (fixed, raw.restart)
        && fixed != restart
    {
        return Err(format!(
            "container `{}`: `restart` = \"{}\" is invalid for role `{role}`, whose policy is \"{}\"; remove `restart`",
            raw.name,
            restart.as_str(),
            fixed.as_str()
        ));
    }
    if raw.role != RawRole::Ephemeral && raw.after.is_some() {
        return Err(format!(
            "container `{}`: `after` is valid for role `ephemeral` only; remove it or change `role`",
            raw.name
        ));
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

pub(super) fn log_files(raw: RawLogFiles) -> Result<LogFiles, String> {
    let default = LogFiles::default();
    let files = LogFiles {
        dir: None,
        max_size: raw.max_size.unwrap_or(default.max_size),
        max_files: raw.max_files.unwrap_or(default.max_files),
        check: raw.check.map_or(default.check, |duration| duration.0),
        utc_offset: raw.utc_offset.map(|offset| offset.0),
    };
    if let Some(offset) = files.utc_offset {
        check_offset("utc_offset", offset)?;
    }
    if files.max_size == 0 {
        return Err("`max_size` = 0 is invalid; write a number of bytes above 0".to_owned());
    }
    if files.check.is_zero() {
        return Err("`check` = 0 is invalid; write a duration above 0".to_owned());
    }
    // The kubelet's own lower bound.
    if files.max_files < 2 {
        return Err(format!(
            "`max_files` = {} is too small; write 2 or more",
            files.max_files
        ));
    }
    Ok(files)
}

pub(super) fn fault(raw: RawFault) -> Result<Fault, String> {
    let (name, needed) = raw.kind.describe();
    let keys = [
        ("namespace", raw.namespace.is_some()),
        ("pod", raw.pod.is_some()),
        ("for", raw.r#for.is_some()),
        ("delay", raw.delay.is_some()),
        ("by", raw.by.is_some()),
        ("offset", raw.offset.is_some()),
    ];
    for (key, is_set) in keys {
        match (is_set, needed.contains(&key)) {
            (true, false) => return Err(format!("fault `{name}` has no key `{key}`; remove it")),
            (false, true) => return Err(format!("fault `{name}` needs the key `{key}`; add it")),
            _ => {}
        }
    }
    if let Some(offset) = raw.offset {
        check_offset("offset", offset.0)?;
    }
    Ok(Fault {
        at: raw.at.0,
        kind: fault_kind(raw),
    })
}

/// Converts a fault whose keys are complete.
fn fault_kind(raw: RawFault) -> FaultKind {
    let duration: Duration = raw.r#for.unwrap_or_default().0;
    let delay: Duration = raw.delay.unwrap_or_default().0;
    let (namespace, pod) = (raw.namespace.unwrap_or_default(), raw.pod.unwrap_or_default());
    match raw.kind {
        RawFaultKind::DeletePod => FaultKind::DeletePod { namespace, pod },
        RawFaultKind::EndStreams => FaultKind::EndStreams,
        RawFaultKind::BreakStreams => FaultKind::BreakStreams,
        RawFaultKind::ApiDown => FaultKind::ApiDown { duration },
        RawFaultKind::KubeletDown => FaultKind::KubeletDown { duration },
        RawFaultKind::RuntimeDown => FaultKind::RuntimeDown { duration },
        RawFaultKind::Rotate => FaultKind::Rotate,
        RawFaultKind::StallFollows => FaultKind::StallFollows { duration },
        RawFaultKind::StrandFollows => FaultKind::StrandFollows,
        RawFaultKind::MuteWatches => FaultKind::MuteWatches { duration },
        RawFaultKind::SlowLogs => FaultKind::SlowLogs { duration, delay },
        RawFaultKind::ApiBusy => FaultKind::ApiBusy { duration },
        RawFaultKind::LogsForbidden => FaultKind::LogsForbidden { duration },
        RawFaultKind::ExpireWatches => FaultKind::ExpireWatches,
        RawFaultKind::StallRequests => FaultKind::StallRequests { duration },
        RawFaultKind::StrandOnRotation => FaultKind::StrandOnRotation { duration },
        RawFaultKind::StatusLag => FaultKind::StatusLag { duration, delay },
        RawFaultKind::StepClock => FaultKind::StepClock {
            by: raw.by.unwrap_or_default().0,
        },
        RawFaultKind::FreezeClock => FaultKind::FreezeClock { duration },
        RawFaultKind::DelayWrites => FaultKind::DelayWrites { duration, delay },
        RawFaultKind::SetUtcOffset => FaultKind::SetUtcOffset {
            offset: raw.offset.unwrap_or_default().0,
        },
        RawFaultKind::RemoveLogFiles => FaultKind::RemoveLogFiles { namespace, pod },
        RawFaultKind::TruncateLogFiles => FaultKind::TruncateLogFiles { namespace, pod },
    }
}

/// Checks a difference to UTC.
fn check_offset(key: &str, offset: SignedDuration) -> Result<(), String> {
    if offset.abs() <= MAX_UTC_OFFSET {
        return Ok(());
    }
    Err(format!(
        "`{key}` = {} s is too large; write {} h or less",
        offset.as_secs(),
        MAX_UTC_OFFSET.as_hours()
    ))
}

/// Checks the format of Kubernetes names (RFC 1123 labels).
fn check_name(key: &str, name: &str) -> Result<(), String> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = name.bytes().all(|byte| alphanumeric(byte) || byte == b'-');
    let ends = name.bytes().next().is_some_and(alphanumeric) && name.bytes().last().is_some_and(alphanumeric);
    if inner && ends && name.len() <= 63 {
        return Ok(());
    }
    Err(format!(
        "`{key}` = \"{name}\" is not a Kubernetes name; use up to 63 lowercase letters, digits and `-`, \
         with a letter or digit at both ends"
    ))
}

/// Larger than that of any time zone.
const MAX_UTC_OFFSET: SignedDuration = SignedDuration::from_hours(24);

/// A longer line could not fit a log file before it rotates.
const MAX_LINE_BYTES: usize = 1 << 20;
