//! What happened when: the world's events and the product's log events, in virtual time.

use std::{
    cell::RefCell,
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::check::short_stream;
use system::clock::Instant;
use tracing::field::{Field, Visit};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

/// Memory for one trace. Of a longer one the oldest half goes.
const MAX_ENTRIES: usize = 200_000;

/// An event.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Virtual time since the start.
    pub at: Duration,
    /// The process, or `world`.
    pub part: String,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.4} {:<10} {}", self.at.as_secs_f64(), self.part, self.text)
    }
}

#[derive(Default)]
struct Trace {
    start: Option<Instant>,
    entries: Vec<Entry>,
    hasher: DefaultHasher,
    /// Whether entries are printed as they come, for a run that does not end.
    is_live: bool,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::default();
}

/// Begins the trace of this thread.
pub fn begin(start: Instant) {
    TRACE.set(Trace {
        start: Some(start),
        is_live: std::env::var_os("SIMULATION_LIVE").is_some(),
        ..Trace::default()
    });
}

/// Ends the trace of this thread. Returns its entries and a hash of all that ever were in it.
pub fn end() -> (Vec<Entry>, u64) {
    let trace = TRACE.take();
    (trace.entries, trace.hasher.finish())
}

/// Returns the virtual time since the start.
pub fn elapsed() -> Duration {
    TRACE.with_borrow(|trace| trace.start.map(system::clock::since).unwrap_or_default())
}

/// Adds an event of the world.
pub fn world(text: impl Into<String>) {
    record("world", text.into());
}

/// Adds an event of a part.
pub fn record(part: &str, text: String) {
    let at = elapsed();
    TRACE.with_borrow_mut(|trace| {
        if trace.start.is_none() {
            return;
        }
        (at, part, &text).hash(&mut trace.hasher);
        if trace.entries.len() >= MAX_ENTRIES {
            trace.entries.drain(..MAX_ENTRIES / 2);
        }
        let entry = Entry {
            at,
            part: part.to_owned(),
            text,
        };
        if trace.is_live {
            println!("{entry}");
        }
        trace.entries.push(entry);
    });
}

/// Puts the product's log events into the trace.
pub struct TraceLayer;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for TraceLayer {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(machine) = system::simulation::current() else {
            return;
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        record(machine.name(), format!("{level} {}{}", fields.message, fields.rest));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "stream" => write!(
                self.rest,
                " stream={}",
                short_stream(format!("{value:?}").trim_matches('"'))
            ),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}
