//! Container instances and their states.

use bus::{AppName, Fd, Timestamp};
use serde::{Deserialize, Serialize};

/// Identifies a container instance globally.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// `metadata.uid`: a recreated pod has the same name and another uid.
    pub pod_uid: String,
    /// The container's name, followed by `:out` or `:err` if its outputs are separate streams.
    pub container: String,
    /// The id without `containerd://`. It distinguishes instances; restart counts do not.
    pub container_id: String,
}

/// Suffixes of the container name for separate outputs. Container names contain no `:`.
const OUTPUTS: [(&str, Fd); 2] = [(":out", Fd::Out), (":err", Fd::Err)];

impl InstanceKey {
    /// Returns the key of one output of the instance.
    pub fn with_fd(&self, fd: Fd) -> Self {
        let suffix = OUTPUTS
            .iter()
            .find(|(_, with_fd)| *with_fd == fd)
            .map_or("", |(suffix, _)| suffix);
        Self {
            container: format!("{}{suffix}", self.container_name()),
            ..self.clone()
        }
    }

    /// Returns the output, or `None` for both, mixed by the API.
    pub fn fd(&self) -> Option<Fd> {
        fd_of(&self.container)
    }

    /// Returns the container's name without suffix.
    pub fn container_name(&self) -> &str {
        self.container.split(':').next().unwrap_or_default()
    }
}

/// Returns the output that the container part of a stream id names.
pub fn fd_of(container: &str) -> Option<Fd> {
    let found = OUTPUTS.iter().find(|(suffix, _)| container.ends_with(suffix));
    found.map(|(_, fd)| *fd)
}

/// A container instance whose log can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The instance's identity.
    pub key: InstanceKey,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid on its node.
    pub node_uid: String,
    /// The app.
    pub app: AppName,
    /// The process: the pod's name, or `pod/container` for a pod with several containers.
    pub process: String,
    /// The node, empty if unknown.
    pub node: String,
    /// When it started, in whole seconds of the node's clock.
    pub started_at: Option<Timestamp>,
    /// The current state.
    pub state: ContainerState,
}

/// The state of an instance according to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// The instance has terminated.
    pub terminated: bool,
    /// A newer instance exists: the log needs `previous=true` and is served for a limited time.
    pub previous: bool,
    /// The pod lists the instance. Otherwise its log is not served.
    pub present: bool,
    /// The pod is excluded: what it prints is not collected.
    pub excluded: bool,
    /// The number of earlier instances of the container.
    ///
    /// *Source*: `restartCount`, which is that of the newest instance.
    pub restarts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_output_names_container_and_output() {
        let key = InstanceKey {
            pod_uid: "uid".to_owned(),
            container: "c".to_owned(),
            container_id: "id".to_owned(),
        };
        assert_eq!((key.fd(), key.container_name()), (None, "c"));
        let err = key.with_fd(Fd::Out).with_fd(Fd::Err);
        assert_eq!(
            (err.container.as_str(), err.fd(), err.container_name()),
            ("c:err", Some(Fd::Err), "c")
        );
    }
}
