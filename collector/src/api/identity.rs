//! Verifies that a log belongs to an instance.
//!
//! Logs are requested by container name, which does not identify an instance, and the pod's status
//! lags behind the kubelet. The kubelet itself knows which instance is the newest: it serves the one
//! before under `previous=true`.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use system::clock::{since, steady};
use tokio::time::timeout;

use super::{
    follow::Follower,
    request::{LogBody, LogRequest, LogResponse, is_kubelet_error},
};
use crate::{
    anchor::{Anchor, ResumePoint},
    instance::{ContainerState, InstanceKey},
    pods::instances,
    stream::{
        lines::Lines,
        log_end::{End, LogEnd},
        resume_search::{ResumeSearch, SearchResult},
    },
};

/// Time limit for listing a pod.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for a frame of the previous instance's log.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// A pod's status that still lists the instance after this long is taken as proof.
const STATUS_SETTLES: Duration = Duration::from_secs(35);

/// The same for the previous instance, whose log is removed when the newest one ends.
const PREVIOUS_SETTLES: Duration = Duration::from_secs(6);

/// The instance of a container before another one.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// Its key.
    pub key: InstanceKey,
    /// The last line that the bus may have.
    pub sent: Option<ResumePoint>,
    /// How its log ends. Its task may have read lines that the bus does not accept yet.
    pub log_end: LogEnd,
}

/// Whose log a response contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The instance's.
    Instance,
    /// That of a newer instance: the log of this one is the previous one.
    Newer,
    /// Unknown until the pod's status changes.
    Unknown,
}

/// What the log of the previous instance contains.
enum Previous {
    /// There is none.
    None,
    /// A line that was read of this instance.
    OfInstance,
    /// A line that was read of its predecessor.
    OfPredecessor,
    /// It cannot be read, and is not this instance's.
    Removed,
    /// Nothing.
    Empty,
    /// Other lines.
    Other,
    /// The request failed.
    Failed,
}

impl Follower {
    /// Returns whose log a response contains that has started and does not prove it by a line that
    /// was read before.
    pub(crate) async fn log_owner(&mut self, requested: ContainerState) -> Owner {
        if !self.is_listed(requested).await {
            return Owner::Unknown;
        }
        let is_first_read = !self.stream.must_resume();
        if requested.previous {
            // While the status lags, the log can be that of a later instance.
            return if is_first_read {
                Owner::Instance
            } else {
                self.settled_owner(true, PREVIOUS_SETTLES)
            };
        }
        let end = self.end_of_predecessor();
        let previous = self.read_previous(end).await;
        let is_newest = match previous {
            Previous::OfInstance => return Owner::Newer,
            Previous::Failed => return Owner::Unknown,
            Previous::None | Previous::OfPredecessor | Previous::Removed => true,
            // It is the predecessor's, unless that ended with a line, or this instance has ended.
            Previous::Empty => {
                let is_expected = self.is_previous_empty || !matches!(end, End::Line(_));
                requested.restarts > 0 && is_first_read && is_expected && !self.may_have_ended
            }
            // Nothing was read of the predecessor.
            Previous::Other => requested.restarts > 0 && is_first_read && self.predecessor.is_none(),
        };
        if is_newest {
            self.in_doubt = None;
            return Owner::Instance;
        }
        let owner = self.settled_owner(false, STATUS_SETTLES);
        if owner == Owner::Instance {
            self.may_have_ended = false;
            self.is_previous_empty = matches!(previous, Previous::Empty);
        }
        owner
    }

    /// Returns the owner of a log that proves nothing: this instance, once the pod's status has
    /// listed it for long enough.
    fn settled_owner(&mut self, previous: bool, settles: Duration) -> Owner {
        let in_doubt = self.in_doubt.filter(|(was_previous, _)| *was_previous == previous);
        let (_, doubted_at) = *self.in_doubt.insert(in_doubt.unwrap_or_else(|| (previous, steady())));
        if since(doubted_at) < settles {
            return Owner::Unknown;
        }
        self.in_doubt = None;
        Owner::Instance
    }

    /// Returns whether the pod still lists the instance as it was requested. If the pod cannot be
    /// listed, returns false.
    pub(crate) async fn is_listed(&mut self, requested: ContainerState) -> bool {
        let pods = kube::Api::<Pod>::namespaced(self.client.clone(), &self.instance.namespace);
        // The collector has the permissions `list` and `watch` on pods, but not `get`.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.instance.pod));
        let listed = timeout(LIST_TIMEOUT, self.stream.publish_while(pods.list(&one)));
        let Some(Ok(Ok(listed))) = self.shutdown.run_until_cancelled(listed).await else {
            return false;
        };
        let now = listed
            .items
            .iter()
            .find_map(|pod| instances::container_state(pod, &self.instance.key));
        now.is_some_and(|now| now.previous == requested.previous)
    }

    /// Returns how the log of the predecessor ends, as far as it was read.
    fn end_of_predecessor(&mut self) -> End {
        let Some(predecessor) = &mut self.predecessor else {
            return End::Unread;
        };
        let end = predecessor.log_end.get();
        if end != End::Unread {
            return end;
        }
        if let Some(checkpoint) = self.checkpoints.get(&predecessor.key) {
            predecessor.sent = checkpoint.last_sent().or(predecessor.sent);
        }
        predecessor.sent.map_or(End::Unread, |sent| End::Line(sent.anchor))
    }

    /// Reads the log of the previous instance. `end`: how that of the predecessor ends.
    async fn read_previous(&mut self, end: End) -> Previous {
        let request = LogRequest {
            previous: true,
            ..LogRequest::default()
        };
        let own = self.stream.confirmed();
        let predecessor = match end {
            End::Line(last) => Some(last),
            End::Unread | End::Empty => None,
        };
        let id = self.instance.key.container_id.clone();
        let (client, instance) = (self.client.clone(), self.instance.clone());
        let read = async move {
            match request.send(&client, &instance).await {
                LogResponse::NoPrevious => Previous::None,
                LogResponse::LogBody(log) => search_previous(log, own, predecessor, &id).await,
                _ => Previous::Failed,
            }
        };
        let read = self.stream.publish_while(read);
        self.shutdown
            .run_until_cancelled(read)
            .await
            .unwrap_or(Previous::Failed)
    }
}

/// Looks for a line of the instance and for one of its predecessor.
async fn search_previous(
    mut log: LogBody,
    own: Option<ResumePoint>,
    predecessor: Option<Anchor>,
    id: &str,
) -> Previous {
    let mut lines = Lines::default();
    lines.start_response(ResumeSearch::locating(own, predecessor));
    let mut result = None;
    while result.is_none() {
        match timeout(FRAME_TIMEOUT, log.next()).await {
            Ok(Some(Ok(frame))) => result = lines.push(&frame),
            Ok(None) => break,
            Ok(Some(Err(_))) | Err(_) => return Previous::Failed,
        }
    }
    match result {
        Some(SearchResult::Located { lines: Some(_), .. }) => Previous::OfInstance,
        Some(SearchResult::Located { lines: None, .. }) => Previous::OfPredecessor,
        _ if is_kubelet_error(lines.rest()) => {
            let names_instance = memchr::memmem::find(lines.rest(), id.as_bytes()).is_some();
            if names_instance {
                Previous::Other
            } else {
                Previous::Removed
            }
        }
        _ if lines.last_read().is_none() => Previous::Empty,
        _ => Previous::Other,
    }
}
