//! The node's files instead of the log API: `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<n>.log`, as the container runtime writes them.
//!
//! `path` names the files, `listing` finds those of an instance, a `tail` reads them across rotations (`log_file`: one of them), woken by a `watch`; `cri` takes
//! their lines apart and `join` makes of them what the log API would print; `follow` is the task that hands it to the streams, one for each output; its `reading` says
//! what to do when, and a `base` from where the files are read again.

pub mod assemble;
mod checkpointer;
pub mod cri;
mod follow;
mod listing;
mod log_file;
mod path;
mod reading;
mod tail;
mod watch;

pub(crate) use follow::{FileFollower, Files, FollowerContext};
pub(crate) use path::{container_dir, find_container_dir};
pub(crate) use watch::DirWatcher;
