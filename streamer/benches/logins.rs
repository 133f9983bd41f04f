//! Throughput of authenticated requests, each on a new connection.
//!
//! `cargo bench -p streamer --bench logins [-- LOGINS CLIENTS]`, by default 20,000 requests of 32
//! clients with 1,000 keys. Clients and server share one process; CPU time is that of both.

#![allow(clippy::unwrap_used, reason = "a panic reports why the benchmark cannot run")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "benchmarks use the operating system directly"
)]

mod support;

use std::{sync::Arc, time::Duration, time::Instant};

use bus::{Bus, Embedded, EmbeddedSettings};
use registry::{FileRegistry, Grant, NewKey, Registry, Role};
use streamer::Access;
use support::{TestServer, cpu_seconds, quantile};
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
    let served = TestServer::with_access(bus, Access::api_keys(Arc::clone(&registry) as Arc<dyn Registry>)).await;
    let (started, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (addr, keys) = (served.addr.clone(), Arc::clone(&keys));
            tokio::spawn(async move {
                let mut waits = Vec::new();
                for n in (client..logins).step_by(clients) {
                    let sent = Instant::now();
                    login(&addr, &keys[n * 7919 % keys.len()]).await;
                    waits.push(sent.elapsed().as_secs_f64() * 1e3);
                }
                waits
            })
        })
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.extend(task.await.unwrap());
    }
    let (seconds, used) = (started.elapsed().as_secs_f64(), cpu_seconds(std::process::id()) - cpu);
    waits.sort_by(f64::total_cmp);
    println!(
        "{logins} requests with {KEYS} keys: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.0} us CPU each including the client",
        logins as f64 / seconds,
        quantile(&waits, 0.5),
        quantile(&waits, 0.99),
        used / logins as f64 * 1e6
    );
    served.stop().await;
}

/// Creates the keys one after the other, as an operator does.
async fn keys(registry: &FileRegistry) -> Arc<Vec<NewKey>> {
    let grants = |n: usize| {
        vec![Grant {
            app: format!("app-{n}"),
            role: Role::Owner,
        }]
    };
    let keys_to_add = (0..KEYS).map(|n| registry.add_key("me@example.com", grants(n), Duration::from_secs(3600)));
    let mut keys = Vec::new();
    for key in keys_to_add {
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
    let mut response = Vec::new();
    connection.read_to_end(&mut response).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 200"));
}
