//! How many logins a streamer stands: each a request with a key on a connection of its own.
//!
//! `cargo bench -p streamer --bench logins [-- LOGINS CLIENTS]`, by default 20,000 by 32 clients, among 1,000 keys. Clients and server share the process and the machine; the
//! CPU is that of both.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run should say so")]

mod support;

use std::{sync::Arc, time::Duration, time::Instant};

use bus::{Bus, Embedded, EmbeddedSettings};
use registry::{FileRegistry, Grant, NewKey, Registry, Role};
use streamer::Access;
use support::{Served, at, cpu_seconds};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const KEYS: usize = 1_000;

#[tokio::main]
async fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let [logins, clients] = [(0, 20_000), (1, 32)].map(|(at, default)| numbers.get(at).copied().unwrap_or(default));
    let dir = tempfile::tempdir().unwrap();
    let registry = Arc::new(FileRegistry::open(dir.path().join("registry.json")).await.unwrap());
    let keys = keys(&registry).await;
    let bus = Arc::new(Embedded::open(&dir.path().join("bus"), EmbeddedSettings::default()).unwrap()) as Arc<dyn Bus>;
    let served = Served::asking(bus, Access::keys(Arc::clone(&registry) as Arc<dyn Registry>)).await;
    let (began, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (addr, keys) = (served.addr.clone(), Arc::clone(&keys));
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for n in (client..logins).step_by(clients) {
                    let asked = Instant::now();
                    login(&addr, &keys[n * 7919 % keys.len()]).await;
                    waits.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let (took, used) = (began.elapsed().as_secs_f64(), cpu_seconds(std::process::id()) - cpu);
    waits.sort_by(f64::total_cmp);
    println!(
        "{logins} logins among {KEYS} keys: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.0} us CPU each, client included",
        logins as f64 / took,
        at(&waits, 0.5),
        at(&waits, 0.99),
        used / logins as f64 * 1e6
    );
    served.stop().await;
}

/// As an operator makes them, one after the other.
async fn keys(registry: &FileRegistry) -> Arc<Vec<NewKey>> {
    let grants = |n: usize| {
        vec![Grant {
            app: format!("app-{n}"),
            role: Role::Owner,
        }]
    };
    let made = (0..KEYS).map(|n| registry.add_key("me@example.com", grants(n), Duration::from_secs(3600)));
    let mut keys = Vec::new();
    for key in made {
        keys.push(key.await.unwrap());
    }
    Arc::new(keys)
}

async fn login(addr: &str, key: &NewKey) {
    let mut connection = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET /api/users HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        key.key
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
