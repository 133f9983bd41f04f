//! The simulated node: the pods as the API server stores them, and the kubelet that runs them.
//!
//! [`pod`] is one pod's state, [`store`] all of them with their history, [`kubelet`] what is asked of the node, [`life`] what happens to a pod and [`running`] to a container over time, [`rotation`] what happens to their log files.

pub(crate) mod container_lifecycle;
pub(crate) mod kubelet;
pub(crate) mod log_rotation;
pub(crate) mod pod_lifecycle;
