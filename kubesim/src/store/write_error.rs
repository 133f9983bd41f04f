//! Why a change of what is stored was refused.

/// Why a change was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is one of this name.
    Exists,
    /// There is none.
    Missing,
    /// It is not the one that was meant any more.
    Conflict,
}
