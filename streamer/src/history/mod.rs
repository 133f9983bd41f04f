//! History: the lines that a tail receives before live ones, and the selection of lines for one
//! tail.
//!
//! Depends on hubs and query parameters; does not depend on tails and HTTP.

mod load;
mod read;
mod select;
mod sort;

pub(crate) use self::{
    load::{History, load, load_for_tail},
    select::Selector,
};
