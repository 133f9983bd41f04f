//! A streamer on the embedded bus, and a client that reads line by line.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

mod lossy_bus;
pub mod routes;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bus::{
    Batch, Bus, Content, Embedded, EmbeddedSettings, Epoch, Gap, GapReason, PublishTime, StreamId, StreamMetadata,
    Timestamp,
};
use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prometheus_client::registry::Registry;
use streamer::{Access, AllowedOrigins, Config, DrainService, Listener, Metrics, Tls};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use lossy_bus::LossyBus;

/// Limit of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Stack {
    pub bus: Arc<Embedded>,
    pub addr: SocketAddr,
    pub shutdown: CancellationToken,
    registry: Registry,
    served: JoinHandle<std::io::Result<()>>,
    _dir: Arc<TempDir>,
}

impl Stack {
    pub async fn start(config: Config) -> Self {
        Self::start_with(config, EmbeddedSettings::default()).await
    }

    pub async fn start_with(config: Config, limits: EmbeddedSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), limits).unwrap());
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        Self::serve(
            config,
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::new(dir),
            |listener| listener,
        )
        .await
    }

    /// Starts a streamer that trusts proxies on loopback addresses.
    pub async fn behind_proxies(config: Config) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        let proxies = vec!["127.0.0.0/8".parse().unwrap()];
        let configure = |listener: Listener| listener.with_proxies(proxies);
        Self::serve(
            config,
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::new(dir),
            configure,
        )
        .await
    }

    /// Starts a streamer with TLS.
    pub async fn with_tls(config: Config, tls: Tls) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        Self::serve(
            config,
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::new(dir),
            |listener| listener.with_tls(tls),
        )
        .await
    }

    /// Starts a streamer with allowed origins.
    pub async fn with_origins(origins: AllowedOrigins) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        let configure = |listener: Listener| listener.with_origins(origins);
        Self::serve(
            Config::default(),
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::new(dir),
            configure,
        )
        .await
    }

    /// Starts a streamer with this authorization, and with the drains of this registry.
    pub async fn with_access(access: Access, registry: Arc<dyn registry::Registry>) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        let drains = DrainService::new(Some(registry));
        Self::serve(
            Config::default(),
            access,
            drains,
            bus,
            read,
            Arc::new(dir),
            |listener| listener,
        )
        .await
    }

    /// Starts a streamer whose first `times` history reads lack the batch `seq`.
    pub async fn with_lossy_bus(seq: u64, times: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let bus = Arc::new(Embedded::open(dir.path(), EmbeddedSettings::default()).unwrap());
        let read = Arc::new(LossyBus {
            inner: Arc::clone(&bus),
            seq,
            times: times.into(),
        });
        Self::serve(
            Config::default(),
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::new(dir),
            |listener| listener,
        )
        .await
    }

    /// Starts another streamer on the same bus.
    pub async fn replica(&self, config: Config) -> Self {
        let bus = Arc::clone(&self.bus);
        let read = Arc::clone(&bus) as Arc<dyn Bus>;
        Self::serve(
            config,
            Access::unauthenticated(),
            DrainService::new(None),
            bus,
            read,
            Arc::clone(&self._dir),
            |listener| listener,
        )
        .await
    }

    async fn serve(
        config: Config,
        access: Access,
        drains: DrainService,
        bus: Arc<Embedded>,
        read: Arc<dyn Bus>,
        dir: Arc<TempDir>,
        configure: impl FnOnce(Listener) -> Listener,
    ) -> Self {
        let listener = streamer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let listener = configure(Listener::from(listener));
        let shutdown = CancellationToken::new();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let served = tokio::spawn(streamer::run(
            config,
            access,
            drains,
            listener,
            read,
            metrics,
            shutdown.clone(),
        ));
        Self {
            bus,
            addr,
            shutdown,
            registry,
            served,
            _dir: dir,
        }
    }

    /// Returns the current value of a metric.
    pub fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(name))
            .expect(name);
        line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub async fn publish(&self, batches: impl IntoIterator<Item = Batch>) {
        for batch in batches {
            self.bus.publish(batch).await.unwrap();
        }
    }

    pub async fn get(&self, path: &str) -> Reading {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reading {
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let mut request = http::Request::get(format!("http://{}{path}", self.addr));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = tokio::time::timeout(TIMEOUT, client.request(request.body(Empty::new()).unwrap()))
            .await
            .expect("a response in time")
            .unwrap();
        Reading {
            response,
            rest: BytesMut::new(),
        }
    }

    /// Returns the whole body of a finite response.
    pub async fn get_all(&self, path: &str) -> (StatusCode, String) {
        let mut reading = self.get(path).await;
        let status = reading.response.status();
        (status, reading.read_to_end().await)
    }

    /// Returns the whole body of a finite response that may lack the final newline.
    pub async fn get_all_unterminated(&self, path: &str) -> (u16, String) {
        let response = self.get(path).await.response;
        let status = response.status().as_u16();
        let body = tokio::time::timeout(TIMEOUT, response.into_body().collect())
            .await
            .expect("the end in time")
            .unwrap();
        (status, String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(TIMEOUT, self.served)
            .await
            .expect("shutdown in time")
            .unwrap()
            .unwrap();
    }
}

/// A response that is read line by line.
pub struct Reading {
    pub response: Response<hyper::body::Incoming>,
    rest: BytesMut,
}

impl Reading {
    /// Returns the next line without its newline. `None` at the end of a complete body.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(at + 1);
                return Some(String::from_utf8_lossy(&line[..at]).into_owned());
            }
            let frame = tokio::time::timeout(TIMEOUT, self.response.frame())
                .await
                .expect("a line in time");
            match frame {
                Some(frame) => self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap()),
                None => {
                    assert!(self.rest.is_empty(), "whole lines only");
                    return None;
                }
            }
        }
    }

    /// Returns the next line as JSON.
    pub async fn json(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.line().await.expect("more lines")).unwrap()
    }

    /// Returns the next event that is not a heartbeat. `None` at the end of a complete body.
    pub async fn event(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.line().await?;
            match line.split_once(": ") {
                Some(("id", id)) => event.id = Some(id.to_owned()),
                Some(("event", name)) => event.name = Some(name.to_owned()),
                Some(("data", data)) => event.data = Some(serde_json::from_str(data).unwrap()),
                None if line.is_empty() && (event.id.is_some() || event.data.is_some()) => {
                    // An event that carries nothing but the cursor.
                    event.data = event.data.filter(|_| event.name.as_deref() != Some("cursor"));
                    return Some(event);
                }
                None if line.is_empty() || line == ":" => {}
                _ => panic!("not an event stream field: {line:?}"),
            }
        }
    }

    /// Reads `count` lines, and further if no cursor has been sent yet. Returns the sequence
    /// numbers and the last cursor.
    pub async fn seqs(&mut self, count: usize) -> (Vec<u64>, String) {
        let (mut seqs, mut id) = (Vec::new(), None);
        while seqs.len() < count || id.is_none() {
            let event = self.event().await.expect("more events");
            id = event.id.or(id);
            seqs.extend(event.data.and_then(|data| data["seq"].as_u64()));
        }
        (seqs, id.unwrap())
    }

    pub async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            lines.push(self.line().await.expect("more lines"));
        }
        lines
    }

    pub async fn read_to_end(&mut self) -> String {
        let mut all = String::new();
        while let Some(line) = self.line().await {
            all.push_str(&line);
            all.push('\n');
        }
        all
    }
}

/// A server-sent event.
#[derive(Debug, Default)]
pub struct Event {
    pub id: Option<String>,
    pub name: Option<String>,
    pub data: Option<serde_json::Value>,
}

/// Returns a stream of the app `shop` with this age.
pub fn stream(process: &str, age: Duration) -> Arc<StreamMetadata> {
    let millis = PublishTime::now().earlier_by(age).0 / 1000;
    Arc::new(StreamMetadata {
        app: "shop".parse().unwrap(),
        process: process.to_owned(),
        stream: StreamId::new(&format!("uid-{process}"), "web", "c0ffee", Epoch { millis, random: 1 }).unwrap(),
        node: "node-1".to_owned(),
        origin: "app".to_owned(),
        fd: None,
        about: None,
    })
}

/// Returns the lines `from..to` of a stream. The text of line `n` is `n`, its timestamp `n`
/// milliseconds after the hour.
pub fn lines(metadata: &Arc<StreamMetadata>, from: u64, to: u64) -> Batch {
    spaced(metadata, from, to, 1)
}

/// Like [`lines`], but with `millis` between timestamps.
pub fn spaced(metadata: &Arc<StreamMetadata>, from: u64, to: u64, millis: i64) -> Batch {
    lines_with(metadata, from, to, millis, |seq| seq.to_string())
}

/// Like [`lines`], but with each text padded to `size` bytes with `x`.
pub fn padded(metadata: &Arc<StreamMetadata>, from: u64, to: u64, size: usize) -> Batch {
    lines_with(metadata, from, to, 1, |seq| format!("{seq:x<size$}"))
}

/// Like [`lines`], but with these texts.
pub fn texts(metadata: &Arc<StreamMetadata>, seq: u64, texts: &[&str]) -> Batch {
    texts_at(metadata, seq, seq, texts)
}

/// Like [`texts`], but the first timestamp is `millis` milliseconds after the hour.
pub fn texts_at(metadata: &Arc<StreamMetadata>, seq: u64, millis: u64, texts: &[&str]) -> Batch {
    let text = |at: u64| texts[usize::try_from(at - millis).unwrap()].to_owned();
    let batch = lines_with(metadata, millis, millis + texts.len() as u64, 1, text);
    Batch { seq, ..batch }
}

/// Like [`spaced`], but with the text that `text` returns for each sequence number.
pub fn lines_with(
    metadata: &Arc<StreamMetadata>,
    from: u64,
    to: u64,
    millis: i64,
    text: impl Fn(u64) -> String,
) -> Batch {
    let mut data = String::new();
    for seq in from..to {
        let time = Timestamp(1_795_417_200_000_000_000 + i64::try_from(seq).unwrap() * millis * 1_000_000);
        data.push_str(&format!("{time} {}\n", text(seq)));
    }
    let content = Content::Lines {
        data: data.into(),
        lines: to - from,
        part: None,
    };
    Batch {
        metadata: Arc::clone(metadata),
        seq: from,
        content,
    }
}

/// Returns a recorded gap of `from..to`.
pub fn gap(metadata: &Arc<StreamMetadata>, from: u64, to: u64) -> Batch {
    let gap = Gap {
        lines: to - from,
        reason: GapReason::Spool,
        from: None,
        to: None,
    };
    Batch {
        metadata: Arc::clone(metadata),
        seq: from,
        content: Content::Gap(gap),
    }
}

/// Returns the text of a line in the text layout.
pub fn text_of(line: &str) -> &str {
    line.split_once("]: ").expect("the text layout").1
}
