//! The error of a scenario file.

/// An error in a scenario file. `Display` is one line: `line 4, column 1: unknown field ...`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ScenarioError {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// The invalid key, its value and what to write instead.
    pub message: String,
}

impl ScenarioError {
    /// Creates the error for a byte offset in the text of a file.
    pub(super) fn at(text: &str, offset: usize, message: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
        Self {
            line: before.matches('\n').count() + 1,
            column,
            message,
        }
    }
}
