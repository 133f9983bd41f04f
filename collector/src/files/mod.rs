//! Reads containers' logs from the node's files,
//! `/var/log/pods/<namespace>_<pod>_<uid>/<container>/<n>.log`, and feeds them to `stream`; depends
//! on nothing in `api` or `supervisor`.
//!
//! `path` names the files, `listing` finds those of an instance, and `order` puts them in the order in
//! which they were written. A `tail` reads them across
//! rotations (`log_file` is one of them), woken by a `watch`. `cri` parses their lines and
//! `assemble` turns them into what the log API would print. `follow` is the task that passes the
//! result to one stream per output; `reading` schedules its work, and the `checkpointer` decides
//! where reading resumes after a restart.

pub mod assemble;
mod checkpointer;
pub mod cri;
mod follow;
mod listing;
mod log_file;
mod order;
mod path;
mod read_files;
mod reading;
mod tail;
mod watch;

pub(crate) use follow::{FileFollower, Files, FollowerContext};
pub(crate) use listing::newest_number;
pub(crate) use path::{container_dir, find_container_dir};
pub(crate) use watch::DirWatcher;
