//! Derives the container instances of a pod from its object.

use bus::{AppName, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};

use crate::{
    config::AppFrom,
    instance::{ContainerState, Instance, InstanceKey},
};

/// Pods with this annotation set to `true` are not collected.
const EXCLUDE: &str = "tributary.dev/exclude";

/// Returns whether a pod is excluded from collection.
pub fn is_excluded(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(EXCLUDE))
        .is_some_and(|value| value == "true")
}

/// Returns the app of a pod, or `None` if its name is missing or invalid.
pub fn app_of(pod: &Pod, app_from: &AppFrom) -> Option<AppName> {
    let name = match app_from {
        AppFrom::Namespace => pod.metadata.namespace.as_ref(),
        AppFrom::Label(key) => pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)),
    };
    name?.parse().ok()
}

/// Returns the instances of a pod that have a log: the newest started instance of each container,
/// and the previous one while its log is served.
///
/// *Source*: `status.initContainerStatuses`, `containerStatuses`, `ephemeralContainerStatuses`.
/// When an instance terminates, the kubelet deletes the previous one at once, so that only the
/// newest is left.
pub fn instances(pod: &Pod, app_from: &AppFrom) -> Vec<Instance> {
    let (Some(app), Some(status)) = (app_of(pod, app_from), pod.status.as_ref()) else {
        return Vec::new();
    };
    let several = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len) > 1);
    let main = [&status.init_container_statuses, &status.container_statuses];
    let main = main.into_iter().flatten().flatten().map(|status| (status, several));
    // An ephemeral container is added to a running pod, whose other processes keep their names.
    let ephemeral = status
        .ephemeral_container_statuses
        .iter()
        .flatten()
        .map(|status| (status, true));
    let mut found = Vec::new();
    for (status, is_named) in main.chain(ephemeral) {
        for (container_id, container_state) in started_instances(status) {
            let instance = instance(pod, &app, status, is_named, &container_id, container_state);
            found.extend(instance);
        }
    }
    let excluded = is_excluded(pod);
    found.iter_mut().for_each(|instance| instance.state.excluded = excluded);
    found
}

/// Returns whether the status names an instance of a container. A kubelet that restarts can report
/// a pod without its containers for a while.
pub fn names_instance(pod: &Pod, container: &str) -> bool {
    let Some(status) = pod.status.as_ref() else {
        return false;
    };
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let mut named = lists.into_iter().flatten().flatten();
    named.any(|status| status.name == container && !started_instances(status).is_empty())
}

/// Returns the instances of a pod that run and are collected.
pub fn running_instances(pod: &Pod, app_from: &AppFrom) -> Vec<Instance> {
    if is_excluded(pod) {
        return Vec::new();
    }
    let mut running = instances(pod, app_from);
    running.retain(|instance| !instance.state.terminated && !instance.state.previous);
    running
}

/// Returns the state of one instance according to the pod, or `None` if the pod does not list it.
pub fn container_state(pod: &Pod, key: &InstanceKey) -> Option<ContainerState> {
    let status = pod
        .status
        .as_ref()
        .filter(|_| pod.metadata.uid.as_ref() == Some(&key.pod_uid))?;
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    let is_named = lists
        .into_iter()
        .flatten()
        .flatten()
        .filter(|status| status.name == key.container);
    let mut started_instances = is_named.flat_map(started_instances);
    started_instances
        .find(|(id, _)| strip_scheme(id) == key.container_id)
        .map(|(_, container_state)| container_state)
}

fn instance(
    pod: &Pod,
    app: &AppName,
    status: &ContainerStatus,
    is_named: bool,
    container_id: &str,
    container_state: ContainerState,
) -> Option<Instance> {
    let name = pod.metadata.name.clone()?;
    let started_at = started_at(status, container_id);
    let container_id = Some(strip_scheme(container_id)).filter(|id| !id.is_empty())?;
    Some(Instance {
        key: InstanceKey {
            pod_uid: pod.metadata.uid.clone()?,
            container: status.name.clone(),
            container_id: container_id.to_owned(),
        },
        namespace: pod.metadata.namespace.clone()?,
        node_uid: node_uid(pod)?,
        app: app.clone(),
        process: if is_named {
            format!("{name}/{}", status.name)
        } else {
            name.clone()
        },
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        pod: name,
        started_at,
        state: container_state,
    })
}

/// Returns the uid that the kubelet uses in directory names. A static pod's is in an annotation of
/// its mirror pod, to which the API assigns another uid.
fn node_uid(pod: &Pod) -> Option<String> {
    let annotations = pod.metadata.annotations.as_ref();
    let mirrored = annotations.and_then(|annotations| annotations.get(MIRROR_ANNOTATION));
    mirrored.or(pod.metadata.uid.as_ref()).cloned()
}

/// *Source*: the kubelet's `ConfigMirrorAnnotationKey`; its value is the uid of the static pod.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Removes the `containerd://` prefix.
fn strip_scheme(container_id: &str) -> &str {
    container_id.rsplit("//").next().unwrap_or_default()
}

/// Returns the started instances of a container, newest first.
fn started_instances(status: &ContainerStatus) -> Vec<(String, ContainerState)> {
    let restarts = u32::try_from(status.restart_count).unwrap_or_default();
    let container_state = |terminated, previous| ContainerState {
        terminated,
        previous,
        present: true,
        excluded: false,
        restarts: restarts.saturating_sub(u32::from(previous)),
    };
    let last = status
        .last_state
        .as_ref()
        .and_then(|last| last.terminated.as_ref())
        .and_then(id_of);
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        let newest = status.container_id.clone();
        let mut found: Vec<_> = newest
            .map(|id| (id, container_state(false, false)))
            .into_iter()
            .collect();
        found.extend(last.map(|id| (id, container_state(true, true))));
        return found;
    }
    if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
        let newest = id_of(terminated).or_else(|| status.container_id.clone());
        return newest
            .map(|id| (id, container_state(true, false)))
            .into_iter()
            .collect();
    }
    // The container waits for its first start or for a restart; in the latter case the last
    // instance is the newest.
    last.map(|id| (id, container_state(true, false))).into_iter().collect()
}

/// Returns when an instance started.
fn started_at(status: &ContainerStatus, container_id: &str) -> Option<Timestamp> {
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    let mut ended = states
        .into_iter()
        .flatten()
        .filter_map(|state| state.terminated.as_ref());
    let ended = ended.find(|ended| ended.container_id.as_deref() == Some(container_id));
    let running = status.state.as_ref().and_then(|state| state.running.as_ref());
    let running = running.filter(|_| status.container_id.as_deref() == Some(container_id));
    let started = ended
        .and_then(|ended| ended.started_at.as_ref())
        .or_else(|| running?.started_at.as_ref())?;
    // A container that could not start has the time 0.
    let seconds = Some(started.0.as_second()).filter(|seconds| *seconds > 0)?;
    Some(Timestamp(seconds.saturating_mul(1_000_000_000)))
}

fn id_of(terminated: &ContainerStateTerminated) -> Option<String> {
    terminated.container_id.clone().filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the instances of a recorded pod: container, start of the id, process, terminated,
    /// previous.
    fn found(pod: &str) -> Vec<(String, String, String, bool, bool)> {
        let pod: Pod = serde_json::from_str(pod).unwrap();
        let instances = instances(&pod, &AppFrom::Namespace);
        let each = instances.into_iter().map(|instance| {
            assert_eq!((instance.app.as_str(), instance.node.as_str()), ("default", "node-1"));
            assert_eq!(instance.key.container_id.len(), 64, "without scheme");
            let id = instance.key.container_id[..4].to_owned();
            let ContainerState {
                terminated,
                previous,
                present,
                ..
            } = instance.state;
            assert!(present);
            (instance.key.container, id, instance.process, terminated, previous)
        });
        each.collect()
    }

    fn expected(list: &[(&str, &str, &str, bool, bool)]) -> Vec<(String, String, String, bool, bool)> {
        let each = list
            .iter()
            .map(|(a, b, c, d, e)| (a.to_string(), b.to_string(), c.to_string(), *d, *e));
        each.collect()
    }

    const CRASH: &str = include_str!("../../tests/recordings/crash-pod.json");

    #[test]
    fn init_sidecar_and_ephemeral_containers_are_listed() {
        let multi = found(include_str!("../../tests/recordings/multi-pod.json"));
        let all = [
            ("init1", "e30a", "multi/init1", true, false),
            ("side", "6002", "multi/side", false, false),
            ("a", "7a57", "multi/a", false, false),
            ("b", "6361", "multi/b", false, false),
            ("dbg", "af45", "multi/dbg", true, false),
        ];
        assert_eq!(multi, expected(&all));
    }

    #[test]
    fn only_the_newest_of_two_terminated_instances_is_listed() {
        assert_eq!(found(CRASH), expected(&[("c", "426a", "crash", true, false)]));
    }

    #[test]
    fn the_instance_before_a_running_one_is_listed_as_previous() {
        let running = r#""state": {"running": {"startedAt": "2026-11-23T08:32:08Z"}}"#;
        let mut pod: serde_json::Value = serde_json::from_str(CRASH).unwrap();
        let state: serde_json::Value = serde_json::from_str(&format!("{{{running}}}")).unwrap();
        pod["status"]["containerStatuses"][0]["state"] = state["state"].clone();
        let both = [("c", "426a", "crash", false, false), ("c", "f063", "crash", true, true)];
        assert_eq!(found(&pod.to_string()), expected(&both));
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let restarts: Vec<_> = instances(&pod, &AppFrom::Namespace)
            .iter()
            .map(|instance| instance.state.restarts)
            .collect();
        assert_eq!(restarts[0], restarts[1] + 1);
        let started: Vec<_> = instances(&pod, &AppFrom::Namespace)
            .iter()
            .map(|instance| instance.started_at)
            .collect();
        let expected = ["2026-11-23T08:32:08Z", "2026-11-23T08:31:41Z"];
        assert_eq!(started, expected.map(Timestamp::parse));
    }

    #[test]
    fn the_state_of_one_instance_equals_its_listing() {
        let mut pod: Pod = serde_json::from_str(include_str!("../../tests/recordings/multi-pod.json")).unwrap();
        let all = instances(&pod, &AppFrom::Namespace);
        for instance in &all {
            assert_eq!(container_state(&pod, &instance.key), Some(instance.state));
        }
        pod.metadata.uid = Some("another".to_owned());
        assert_eq!(container_state(&pod, &all[0].key), None);
    }

    #[test]
    fn the_last_instance_is_the_newest_while_the_container_waits() {
        let badcmd = found(include_str!("../../tests/recordings/badcmd-pod.json"));
        assert_eq!(badcmd, expected(&[("c", "265f", "badcmd", true, false)]));
        assert_eq!(found(include_str!("../../tests/recordings/badimg-pod.json")), []);
    }

    #[test]
    fn the_directories_of_a_static_pod_have_the_uid_of_its_node() {
        let mut pod: Pod = serde_json::from_str(CRASH).unwrap();
        let node_uid = instances(&pod, &AppFrom::Namespace)[0].node_uid.clone();
        assert_eq!(Some(node_uid), pod.metadata.uid);
        pod.metadata.annotations = Some([(MIRROR_ANNOTATION.to_owned(), "17af".to_owned())].into());
        assert_eq!(instances(&pod, &AppFrom::Namespace)[0].node_uid, "17af");
    }

    #[test]
    fn a_label_names_the_app_and_a_pod_without_it_has_none() {
        let mut pod: Pod = serde_json::from_str(CRASH).unwrap();
        let from = AppFrom::Label("team".to_owned());
        assert_eq!(instances(&pod, &from), []);
        pod.metadata.labels = Some([("team".to_owned(), "blue".to_owned())].into());
        assert_eq!(instances(&pod, &from)[0].app.as_str(), "blue");
    }
}
