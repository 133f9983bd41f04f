//! Finds the place at which to continue in a log, from the cheapest request to the one that proves
//! most: the end of the log, the whole file, and then how to continue without the last line read.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    follow::{Follower, LastFollow},
    identity::Owner,
    outcome::Outcome,
    request::{LogRequest, LogResponse, is_follow_limit, is_kubelet_error},
};
use crate::{
    instance::{ContainerState, Instance},
    stream::{
        resume::AfterUnmatched,
        resume_search::{Extent, Unmatched},
    },
};

/// Lines of a log's end in which the last line read is looked for: a container that writes 20,000
/// lines per second writes as many in 50 ms.
pub const TAIL_LINES: u32 = 1000;

/// Time limit for the end of the follow of a terminated container; the kubelet ends it within about
/// a second.
const FOLLOW_END_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a frame of an empty log.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(30);

/// What the next request must find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// Nothing: the last line read is near the end of the log.
    None,
    /// Whether it is.
    Tail,
    /// Whether the last line read is in the current file. A response that ends early does not
    /// contain it either: it must be missing twice.
    File { was_missing: bool },
    /// Whether it is the line of this number.
    Counted(u64),
    /// Where the file ends: it is skipped.
    Skipped,
}

impl Scan {
    /// Returns the part of the log to request.
    pub fn extent(self) -> Extent {
        match self {
            Self::None | Self::Tail => Extent::Tail(TAIL_LINES.into()),
            Self::File { .. } => Extent::File,
            Self::Counted(lines) => Extent::Counted(lines),
            Self::Skipped => Extent::Skipped,
        }
    }
}

impl Follower {
    /// Handles the result of a search that the response has decided. Returns `None` to continue
    /// reading it.
    pub(crate) fn search_decided(&mut self) -> Option<Outcome> {
        self.stream.take_unmatched()?;
        let was_counted = matches!(self.scan, Scan::Counted(_));
        // Only a complete file proves that a line is not in it.
        self.scan = Scan::File { was_missing: false };
        Some(if was_counted {
            Outcome::Broken("rotated while it was searched".to_owned())
        } else {
            Outcome::Unresumed
        })
    }

    /// Interprets a clean end, which carries no reason.
    pub(crate) async fn response_ended(&mut self, state: ContainerState) -> Outcome {
        if let Some(text) = self.stream.untimestamped_rest() {
            if is_follow_limit(text) {
                return Outcome::NoFollow;
            }
            return if is_kubelet_error(text) {
                Outcome::Unreadable
            } else {
                Outcome::Broken("truncated within a timestamp".to_owned())
            };
        }
        if self.stream.is_searching() {
            let is_empty = self.stream.holds_nothing();
            self.stream.end_resume_search();
            let unmatched = self.stream.take_unmatched().unwrap_or_default();
            if let Some(outcome) = self.not_found(state, unmatched, is_empty).await {
                return outcome;
            }
        }
        if let Scan::File { .. } | Scan::Counted(_) = self.scan {
            self.stream.set_read_file();
        }
        self.scan = Scan::None;
        if self.is_unread && !state.terminated && self.stream.suspects_empty_log() {
            self.stream.record_suspected_start();
        }
        let (new_lines, tail) = self.stream.response_ended();
        Outcome::Ended { new_lines, tail }
    }

    /// Decides how to continue after a complete response without the last line read. Returns `None`
    /// if everything was read.
    async fn not_found(&mut self, state: ContainerState, unmatched: Unmatched, is_empty: bool) -> Option<Outcome> {
        let scan = match (self.scan, unmatched) {
            (Scan::Skipped, Unmatched { last, .. }) => {
                self.stream.skip_to(last, self.skips_unread);
                (self.skips_unread, self.is_paused) = (false, false);
                return None;
            }
            (
                Scan::File { .. },
                Unmatched {
                    candidate: Some(line), ..
                },
            ) => Scan::Counted(line),
            (Scan::File { was_missing: true }, _) => return self.is_absent(state, unmatched, is_empty).await,
            (Scan::File { .. }, _) => Scan::File { was_missing: true },
            (Scan::Counted(_), _) => {
                self.scan = Scan::File { was_missing: false };
                return Some(Outcome::Broken("rotated while it was searched".to_owned()));
            }
            (Scan::None | Scan::Tail, _) => Scan::File { was_missing: false },
        };
        self.scan = scan;
        Some(Outcome::Unresumed)
    }

    /// Handles a file that does not contain the last line read. It may belong to a newer instance
    /// that the watch has not reported; a gap is recorded only if it does not.
    async fn is_absent(&mut self, state: ContainerState, unmatched: Unmatched, is_empty: bool) -> Option<Outcome> {
        let is_empty_file = is_empty && unmatched.file.is_none();
        if state.terminated && is_empty_file && self.has_read_rotated_log(state).await {
            self.stream.share_empty_file();
            self.suspects_end = true;
            return None;
        }
        match self.log_owner(state).await {
            Owner::Unknown => Some(Outcome::Broken("the log may belong to another instance".to_owned())),
            Owner::Newer => {
                tracing::debug!(stream = %self.stream.id(), "container restarted, reading the previous log");
                (self.is_replaced, self.scan) = (true, Scan::File { was_missing: false });
                Some(Outcome::Unresumed)
            }
            Owner::Instance => {
                if is_empty_file && !state.previous {
                    self.stream.share_empty_file();
                }
                self.scan = match self.stream.restart_at_file(unmatched) {
                    AfterUnmatched::ReadFile => Scan::None,
                    AfterUnmatched::SkipFile => {
                        self.skips_unread = true;
                        Scan::Skipped
                    }
                };
                Some(Outcome::Unresumed)
            }
        }
    }

    /// Returns whether a terminated container's log was rotated after its last line, which was read.
    /// A follow that the kubelet left at a rotated file would look the same: lines may be missing.
    ///
    /// *Evidence*: the follow that delivered that line was open when the container terminated, and
    /// ended without another line; right after its end the kubelet, which therefore did not end it
    /// by a restart, serves an empty file.
    async fn has_read_rotated_log(&mut self, state: ContainerState) -> bool {
        match self.last_follow.take() {
            None => return false,
            Some(LastFollow::Ended) => {}
            Some(LastFollow::Open(mut log)) => {
                let end = timeout(FOLLOW_END_TIMEOUT, self.stream.publish_while(log.next()));
                if !matches!(self.shutdown.run_until_cancelled(end).await, Some(Ok(None))) {
                    return false;
                }
            }
        }
        // The container may have restarted meanwhile: the log is then read again as the previous
        // instance's.
        self.last_follow = Some(LastFollow::Ended);
        let request = LogRequest {
            previous: state.previous,
            limit_bytes: Some(1),
            ..LogRequest::default()
        };
        let is_empty = is_empty(request, &self.client, &self.instance);
        self.stream.publish_while(is_empty).await && self.is_listed(state).await
    }
}

/// Returns whether the log is empty. Failures count as no.
async fn is_empty(request: LogRequest, client: &kube::Client, instance: &Instance) -> bool {
    let LogResponse::LogBody(mut log) = request.send(client, instance).await else {
        return false;
    };
    matches!(timeout(EMPTY_TIMEOUT, log.next()).await, Ok(None))
}
