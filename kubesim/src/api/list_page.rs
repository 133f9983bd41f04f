//! Lists: at which resource version, and which page.

use std::sync::Arc;

use super::continue_token::PageToken;
use super::query::Query;
use super::selector::Selector;
use super::status::Status;
use crate::store::pod::Pod;
use crate::store::pods::{Listing, Store};

/// One page of a list.
pub(crate) struct Page {
    pub(crate) version: u64,
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The continue token and how many pods remain, if any do.
    pub(crate) more: Option<(String, usize)>,
}

/// Takes the page that a request asks for.
pub(crate) fn take_page(store: &Store, query: &Query, selector: &Selector) -> Result<Page, Status> {
    let limit = query
        .number("limit")?
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| *limit > 0);
    let token = query.filled("continue").map(|token| {
        PageToken::decode(token).ok_or_else(|| Status::bad_request("continue key is not valid: invalid token"))
    });
    let token = token.transpose()?;
    let after = token
        .as_ref()
        .and_then(PageToken::last)
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
                PageToken::after(version, &last.namespace, &last.name).encode(),
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

fn list_for_token(store: &Store, token: PageToken) -> Result<Listing, Status> {
    match u64::try_from(token.rv) {
        Err(_) => Ok(store.list()),
        Ok(version) => store
            .list_at(version)
            .map_err(|_| Status::expired(TOKEN_EXPIRED, Some(token.inconsistent().encode()))),
    }
}

fn list_for_version(store: &Store, query: &Query, limited: bool) -> Result<Listing, Status> {
    let rule = query.filled("resourceVersionMatch");
    let wanted = match query.filled("resourceVersion") {
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
    if wanted > current.version {
        return Err(Status::version_too_large(wanted, current.version));
    }
    let exact = rule == Some("Exact") || rule.is_none() && limited;
    if wanted == 0 || !exact {
        return Ok(current);
    }
    store
        .list_at(wanted)
        .map_err(|_| Status::expired("The resourceVersion for the provided list is too old.", None))
}

/// Reads a resource version; the error has Go's words.
pub(crate) fn parse_version(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax");
    text.parse().map_err(|_| wrong())
}

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the \
    remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were \
    created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
