//! All clients: tails, reads of history, and the owner of the drain.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;

use super::{
    hosts::Hosts,
    receiver::Receiver,
    tail::{self, Tail},
};
use crate::{
    check::{BusLimits, received::Received},
    machine::process::Process,
    plan::{Plan, TailFormat},
    trace,
};

/// Pause between two attempts to add the drain.
const RETRY: Duration = Duration::from_secs(1);

/// The clients.
pub struct Clients {
    process: Arc<Process>,
    apps: Vec<String>,
    bus: BusLimits,
    server: SocketAddr,
    /// Tails with `follow`.
    pub tails: Vec<Arc<Tail>>,
    /// Reads of history.
    pub histories: Vec<Arc<Tail>>,
}

impl Clients {
    /// Creates the clients of a plan.
    pub fn new(plan: &Plan, hosts: &Hosts) -> Self {
        Self {
            process: hosts.process("client", &hosts.client),
            apps: plan.apps.clone(),
            bus: BusLimits::of(plan),
            server: hosts.server_address(),
            tails: Vec::new(),
            histories: Vec::new(),
        }
    }

    /// Opens a tail.
    pub fn open_tail(&mut self, app: usize, num_lines: u64, format: TailFormat) {
        let name = format!("tail-{}", self.tails.len());
        let tail = self.start(name, app, num_lines, format, true);
        self.tails.push(tail);
    }

    /// Reads an app's history once.
    pub fn read_history(&mut self, app: usize) -> Arc<Tail> {
        let name = format!("history-{}", self.histories.len());
        let tail = self.start(name, app, 1_000_000, TailFormat::Ndjson, false);
        self.histories.push(Arc::clone(&tail));
        tail
    }

    fn start(&self, name: String, app: usize, num_lines: u64, format: TailFormat, follow: bool) -> Arc<Tail> {
        let tail = Tail::new(name, self.apps[app].clone(), num_lines, format, follow, self.server).with_bus(self.bus);
        let tail = Arc::new(tail);
        self.process.spawn(Arc::clone(&tail).run(Arc::clone(&self.process)));
        tail
    }

    /// Breaks the connection of a tail.
    pub fn break_tail(&self, tail: usize) {
        match self.tails.get(tail) {
            Some(tail) => tail.break_off(),
            None => trace::world(format!("tail-{tail} does not exist: the step has no effect")),
        }
    }

    /// Lets the client of a tail read nothing for a time.
    pub fn stall_tail(&self, tail: usize, time: Duration) {
        match self.tails.get(tail) {
            Some(tail) => tail.stall(time),
            None => trace::world(format!("tail-{tail} does not exist: the step has no effect")),
        }
    }

    /// Lets all clients read again.
    pub fn resume_all(&self) {
        self.tails.iter().for_each(|tail| tail.resume());
    }

    /// Adds a drain of the first app to the receiver, over the API.
    pub fn add_drain(&self, receiver: &Receiver) {
        let (process, server, log) = (Arc::clone(&self.process), self.server, receiver.log());
        let app = self.apps[0].clone();
        self.process.spawn(async move {
            loop {
                let body = Bytes::from(r#"{"url":"syslog+tcp://logs.example:514"}"#);
                let request = Request::post(format!("/api/apps/{app}/drains"))
                    .header("host", "10.0.0.2")
                    .header("content-type", "application/json")
                    .body(Full::new(body));
                let Ok(request) = request else { return };
                match tail::send(&process, server, request).await {
                    Ok(response) if response.status() == StatusCode::CREATED => {
                        let mut log = log.lock();
                        (log.app, log.since) = (app, trace::elapsed());
                        trace::world("the drain is added");
                        return;
                    }
                    // An answer that got lost may have added it.
                    Ok(response) if response.status() == StatusCode::CONFLICT => {
                        let mut log = log.lock();
                        (log.app, log.since) = (app, trace::elapsed());
                        return;
                    }
                    Ok(response) => trace::world(format!("the drain is not added: status {}", response.status())),
                    Err(error) => trace::world(format!("the drain is not added: {error:#}")),
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    /// Asks whether the streamer is ready.
    pub async fn is_ready(&self) -> bool {
        let request = Request::get("/readyz").header("host", "10.0.0.2").body(Full::default());
        let Ok(request) = request else { return false };
        let answer = tail::send(&self.process, self.server, request).await;
        answer.is_ok_and(|response| response.status() == StatusCode::OK)
    }

    /// Returns the number of received lines and the notices.
    pub fn summary(&self) -> (usize, BTreeSet<String>) {
        let logs: Vec<_> = self
            .tails
            .iter()
            .chain(&self.histories)
            .flat_map(|tail| tail.logs())
            .collect();
        let received = logs.iter().flat_map(|log| &log.received);
        let lines = received
            .filter(|received| matches!(received, Received::Line { .. }))
            .count();
        (lines, tail::notices(&logs))
    }
}
