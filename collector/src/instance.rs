//! A pod object says which container instances have logs: a pure decision.

use bus::{AppName, Fd};
use serde::{Deserialize, Serialize};

/// Which container instance: unique for all time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// `metadata.uid`: a recreated pod has the same name and another uid.
    pub pod_uid: String,
    /// The container's name; behind it, where its outputs are streams of their own, `:out` or `:err`.
    pub container: String,
    /// What stands behind `containerd://`. It, not the restart count, tells instances apart.
    pub container_id: String,
}

/// What stands behind the container's name where an output is a stream of its own. No name holds a `:`.
const OUTPUTS: [(&str, Fd); 2] = [(":out", Fd::Out), (":err", Fd::Err)];

impl InstanceKey {
    /// Of one output of the instance.
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

    /// Which output it is of. `None`: of both, as the API mixes them.
    pub fn fd(&self) -> Option<Fd> {
        fd_of(&self.container)
    }

    /// The container's name alone.
    pub fn container_name(&self) -> &str {
        self.container.split(':').next().unwrap_or_default()
    }
}

/// The output that a container's name, as it stands in a stream's id, says.
pub fn fd_of(container: &str) -> Option<Fd> {
    let found = OUTPUTS.iter().find(|(suffix, _)| container.ends_with(suffix));
    found.map(|(_, fd)| *fd)
}

/// A container instance whose log the API may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Which one.
    pub key: InstanceKey,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid as its node knows it.
    pub node_uid: String,
    /// Whose it is.
    pub app: AppName,
    /// What stands in brackets: the pod's name, `pod/container` where the pod has several.
    pub process: String,
    /// The node it runs on, empty where that is not told.
    pub node: String,
    /// How it is now.
    pub state: ContainerState,
}

/// What the pod's status says about an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerState {
    /// Whether it runs or has terminated.
    pub terminated: bool,
    /// A newer instance exists: its log is served with `previous=true`, and not for long.
    pub previous: bool,
    /// The pod's status still shows it. Once it does not, its log is served no more.
    pub present: bool,
    /// How many instances of its container came before it.
    ///
    /// *Source*: `restartCount`, which is that of the newest instance.
    pub restarts: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_s_key_names_its_container_and_the_output() {
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
