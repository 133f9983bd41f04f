//! Roles: what the holder of a key may do with an app.

use serde::{Deserialize, Serialize};

/// An operation on an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Read its log.
    Read,
    /// List, add, test and remove its drains.
    ManageDrains,
}

/// A key's role for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads the log and manages the drains.
    Owner,
    /// Reads the log.
    Collaborator,
}

impl Role {
    /// The name in flags and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Collaborator => "collaborator",
        }
    }

    /// Whether the role includes an action.
    pub(crate) fn allows(self, action: Action) -> bool {
        self == Self::Owner || action == Action::Read
    }
}

/// Access to one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The app.
    pub app: String,
    /// The role for this app.
    pub role: Role,
}
