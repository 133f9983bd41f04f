//! Pages of a pod list at a resource version.

use std::sync::Arc;

use super::continue_token::ContinueToken;
use super::query::Query;
use super::selector::Selector;
use super::status::Status;
use crate::store::pod::Pod;
use crate::store::pods::{PodList, PodStore};

/// One page of a pod list.
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
    /// Continue token and number of remaining pods, if there are any.
    pub(crate) more: Option<(String, usize)>,
}

/// Returns the page that a request asks for.
///
/// *Errors*: 400 for invalid parameters, 410 for a version that is too old, 504 for one in the
/// future.
pub(crate) fn list_page(store: &PodStore, query: &Query, selector: &Selector) -> Result<Page, Status> {
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let token = query.non_empty("continue").map(|token| {
        ContinueToken::decode(token).ok_or_else(|| Status::bad_request("continue key is not valid: invalid token"))
    });
    let token = token.transpose()?;
    let after = token
        .as_ref()
        .and_then(ContinueToken::last)
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let listing = match token {
        Some(token) => list_for_token(store, token)?,
        None => list_for_version(store, query, limit.is_some())?,
    };
    let mut pods: Vec<_> = listing.pods.into_iter().filter(|pod| selector.matches(pod)).collect();
    if let Some(after) = after {
        pods.retain(|pod| pod.key() > after);
    }
    let mut more = None;
    if let Some(limit) = limit
        && pods.len() > limit
    {
        let remaining = pods.len() - limit;
        pods.truncate(limit);
        let version = i64::try_from(listing.version).unwrap_or(-1);
        more = pods.last().map(|last| {
            (
                ContinueToken::after(version, &last.namespace, &last.name).encode(),
                remaining,
            )
        });
    }
    Ok(Page {
        version: listing.version,
        pods,
        more,
    })
}

fn list_for_token(store: &PodStore, token: ContinueToken) -> Result<PodList, Status> {
    match u64::try_from(token.rv) {
        Err(_) => Ok(store.list()),
        Ok(version) => store
            .list_at(version)
            .map_err(|_| Status::expired(TOKEN_EXPIRED, Some(token.inconsistent().encode()))),
    }
}

fn list_for_version(store: &PodStore, query: &Query, limited: bool) -> Result<PodList, Status> {
    let rule = query.non_empty("resourceVersionMatch");
    let requested = match query.non_empty("resourceVersion") {
        Some(version) => {
            parse_version(version).map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?
        }
        None if rule.is_some() => {
            return Err(Status::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        None => 0,
    };
    let current = store.list();
    if requested > current.version {
        return Err(Status::version_too_large(requested, current.version));
    }
    let exact = rule == Some("Exact") || rule.is_none() && limited;
    if requested == 0 || !exact {
        return Ok(current);
    }
    store
        .list_at(requested)
        .map_err(|_| Status::expired("The resourceVersion for the provided list is too old.", None))
}

/// Parses a resource version; the error has the wording of Go.
pub(crate) fn parse_version(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax");
    text.parse().map_err(|_| wrong())
}

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
