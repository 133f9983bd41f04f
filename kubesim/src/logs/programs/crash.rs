//! A process that fails to start: a dozen lines, a stack trace, exit code 1.

use rand::RngExt;
use rand::rngs::StdRng;

use super::event::ProgramEvent;

/// Prints the next start-up line, then the stack trace, then exits.
pub(super) fn next_event(random: &mut StdRng, number: u64) -> ProgramEvent {
    let index = usize::try_from(number).unwrap_or(usize::MAX);
    if let Some(line) = START.get(index) {
        let millis = random.random_range(1..90);
        return ProgramEvent::Print(vec![format!("{line} ({millis}ms)")]);
    }
    if index == START.len() {
        return ProgramEvent::Print(TRACE.iter().map(|line| (*line).to_owned()).collect());
    }
    ProgramEvent::Exit(1)
}

const START: &[&str] = &[
    "reports: starting, version 1.14.2",
    "reports: reading configuration from environment",
    "reports: REPORTS_BUCKET=mailer-reports",
    "reports: time zone Europe/Helsinki",
    "reports: migrations up to date, schema 20261104",
    "reports: loading 14 report definitions",
    "reports: warmed template cache",
    "reports: connecting to database db.internal:5432",
    "reports: connection refused, trying again in 100 ms",
    "reports: connection refused, trying again in 200 ms",
    "reports: connection refused, trying again in 400 ms",
    "reports: giving up on the database after 3 attempts",
];
const TRACE: &[&str] = &[
    "Traceback (most recent call last):",
    "  File \"/app/reports/__main__.py\", line 41, in <module>",
    "    main()",
    "  File \"/app/reports/__main__.py\", line 33, in main",
    "    pool = connect(settings.database_url, attempts=3)",
    "  File \"/app/reports/db.py\", line 77, in connect",
    "    raise DatabaseUnavailable(url) from error",
    "reports.db.DatabaseUnavailable: cannot connect to db.internal:5432",
];
