//! The process's limit of open files, and how its parts share it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for the store, the bus, drains and the admin listener: an eighth of the limit,
/// and at least this many.
const MIN_RESERVE: usize = 64;

/// Raises the soft limit to the hard one. Shells and systemd set 1,024 as the soft limit, for
/// programs that use `select`.
pub(crate) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(?current, ?maximum, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, ?current, ?maximum, "cannot raise the limit of open files"),
    }
}

/// Returns how many descriptors a part of the process may hold: `share` in `of` of those that are
/// not reserved.
pub(crate) fn share(share: usize, of: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserve = (limit / 8).max(MIN_RESERVE);
    (limit.saturating_sub(reserve) / of * share).max(1)
}
