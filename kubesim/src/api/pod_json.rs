//! Pods as JSON objects of the API.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::node::kubelet::DEFAULT_GRACE_SECONDS;
use crate::scenario::Role;
use crate::store::pod::{Container, Phase, Pod, State, Terminated};
use crate::time::rfc3339_seconds;

/// Returns a pod as JSON for a response; `typed` adds kind and apiVersion, which list items do not
/// have.
pub(crate) fn pod(pod: &Pod, typed: bool) -> Value {
    pod.mark_served();
    let mut object = json!({"metadata": metadata(pod), "spec": spec(pod), "status": status(pod)});
    if typed {
        object["kind"] = "Pod".into();
        object["apiVersion"] = "v1".into();
    }
    object
}

/// Returns a pod's metadata as JSON.
pub(crate) fn metadata(pod: &Pod) -> Value {
    let mut metadata = json!({
        "name": pod.name,
        "namespace": pod.namespace,
        "uid": pod.uid,
        "resourceVersion": pod.version.to_string(),
        "generation": pod.generation,
        "creationTimestamp": rfc3339_seconds(pod.created),
        "labels": pod.labels,
    });
    if !pod.annotations.is_empty() {
        metadata["annotations"] = json!(pod.annotations);
    }
    if let Some((name, uid)) = &pod.owner {
        metadata["generateName"] = format!("{name}-").into();
        metadata["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }]);
    }
    if let Some(deletion) = pod.deletion {
        metadata["deletionTimestamp"] = rfc3339_seconds(deletion.at).into();
        metadata["deletionGracePeriodSeconds"] = deletion.grace_seconds.into();
    }
    metadata
}

fn spec(pod: &Pod) -> Value {
    let mut spec = json!({
        "containers": container_specs(pod, pod.main()),
        "restartPolicy": pod.restart_policy().as_str(),
        "terminationGracePeriodSeconds": DEFAULT_GRACE_SECONDS,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
        "priority": 0,
        "enableServiceLinks": true,
        "preemptionPolicy": "PreemptLowerPriority",
    });
    if !pod.node.is_empty() {
        spec["nodeName"] = pod.node.clone().into();
    }
    if pod.init().next().is_some() {
        spec["initContainers"] = container_specs(pod, pod.init());
    }
    if pod.ephemeral().next().is_some() {
        spec["ephemeralContainers"] = container_specs(pod, pod.ephemeral());
    }
    spec
}

fn container_specs<'a>(pod: &Pod, containers: impl Iterator<Item = &'a Container>) -> Value {
    containers.map(|container| container_spec(pod, container)).collect()
}

fn container_spec(pod: &Pod, container: &Container) -> Value {
    let mut spec = json!({
        "name": container.name,
        "image": IMAGE,
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    });
    if container.role == Role::Sidecar || container.role == Role::Main && container.restart != pod.restart_policy() {
        spec["restartPolicy"] = container.restart.as_str().into();
    }
    spec
}

fn status(pod: &Pod) -> Value {
    let mut status = Map::new();
    status.insert("phase".into(), pod.phase.as_str().into());
    status.insert("conditions".into(), conditions(pod).into());
    status.insert("qosClass".into(), "BestEffort".into());
    if let Some(generation) = pod.observed_generation {
        status.insert("observedGeneration".into(), generation.into());
        status.insert("hostIP".into(), HOST_IP.into());
        status.insert("hostIPs".into(), json!([{"ip": HOST_IP}]));
        status.insert("containerStatuses".into(), pod.main().map(container_status).collect());
        if pod.init().next().is_some() {
            status.insert(
                "initContainerStatuses".into(),
                pod.init().map(container_status).collect(),
            );
        }
        if pod.ephemeral().next().is_some() {
            let statuses = pod.ephemeral().map(container_status).collect();
            status.insert("ephemeralContainerStatuses".into(), statuses);
        }
    }
    if let Some(started) = pod.started {
        status.insert("startTime".into(), rfc3339_seconds(started).into());
    }
    if let Some(ip) = &pod.ip {
        status.insert("podIP".into(), ip.clone().into());
        status.insert("podIPs".into(), json!([{"ip": ip}]));
    }
    status.into()
}

fn conditions(pod: &Pod) -> Vec<Value> {
    let condition = |kind: &str, holds: bool, at: Timestamp| {
        let mut condition = json!({
            "type": kind, "status": if holds { "True" } else { "False" },
            "lastProbeTime": null, "lastTransitionTime": rfc3339_seconds(at),
        });
        if let Some(generation) = pod.observed_generation {
            condition["observedGeneration"] = generation.into();
        }
        condition
    };
    let mut scheduled = condition("PodScheduled", !pod.node.is_empty(), pod.created);
    if pod.node.is_empty() {
        scheduled["reason"] = "Unschedulable".into();
    }
    let Some(started) = pod.started else {
        return vec![scheduled];
    };
    let mut initialized = condition("Initialized", pod.initialized(), started);
    if !pod.initialized() {
        initialized["reason"] = "ContainersNotInitialized".into();
    } else if pod.phase == Phase::Succeeded {
        initialized["reason"] = "PodCompleted".into();
    }
    let readiness = ["Ready", "ContainersReady"].map(|kind| {
        let mut ready = condition(kind, pod.ready(), pod.ready_changed);
        match pod.phase {
            Phase::Succeeded => ready["reason"] = "PodCompleted".into(),
            Phase::Failed => ready["reason"] = "PodFailed".into(),
            _ if !pod.ready() => {
                ready["reason"] = "ContainersNotReady".into();
                ready["message"] = format!("containers with unready status: [{}]", unready(pod)).into();
            }
            _ => {}
        }
        ready
    });
    let [ready, containers_ready] = readiness;
    let sandbox = condition("PodReadyToStartContainers", pod.sandbox_ready, started);
    vec![sandbox, initialized, ready, containers_ready, scheduled]
}

fn unready(pod: &Pod) -> String {
    let unready = pod.long_running().filter(|container| !container.is_running());
    unready
        .map(|container| container.name.as_str())
        .collect::<Vec<_>>()
        .join(" ")
}

fn container_status(container: &Container) -> Value {
    let running = container.is_running();
    let mut status = json!({
        "name": container.name,
        "state": state(&container.state),
        "lastState": container.last.as_ref().map_or_else(|| json!({}), terminated),
        "ready": if container.role == Role::Init { container.succeeded() } else { running },
        "started": running,
        "restartCount": container.restarts,
        "image": IMAGE,
        "imageID": "",
    });
    if let Some(id) = &container.id {
        status["containerID"] = id.clone().into();
        status["imageID"] = IMAGE_ID.into();
        status["resources"] = json!({});
    }
    status
}

fn state(state: &State) -> Value {
    match state {
        State::Waiting { reason, message: None } => json!({"waiting": {"reason": reason}}),
        State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
        State::Running { started } => json!({"running": {"startedAt": rfc3339_seconds(*started)}}),
        State::Terminated(end) => terminated(end),
    }
}

fn terminated(end: &Terminated) -> Value {
    json!({"terminated": {
        "exitCode": end.exit_code,
        "reason": if end.exit_code == 0 { "Completed" } else { "Error" },
        "startedAt": rfc3339_seconds(end.started),
        "finishedAt": rfc3339_seconds(end.finished),
        "containerID": end.id,
    }})
}

const IMAGE: &str = "registry.example.com/simulated:1";
const IMAGE_ID: &str = "sha256:ebd9bd7dc8a3c2dbb2b91189e0e1269306ce3c29a12e9f33b65761382f13285d";
const HOST_IP: &str = "192.0.2.2";
