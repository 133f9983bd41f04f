//! What a program does.

/// The next action of a program.
pub(crate) enum ProgramEvent {
    /// Prints these lines at once.
    Print(Vec<String>),
    /// Exits with this code.
    Exit(i32),
}
