//! The simulated node: a kubelet that runs the pods of the store.
//!
//! It changes pods in `store` and writes container logs; it has no HTTP. [`kubelet`] creates and
//! deletes pods, [`pod_lifecycle`] runs a pod, [`container_lifecycle`] a container over its
//! restarts, [`log_files`] manages log files on disk, and [`status_reports`] reports late.

pub(crate) mod container_lifecycle;
pub(crate) mod kubelet;
pub(crate) mod log_files;
pub(crate) mod pod_lifecycle;
pub(crate) mod status_reports;
