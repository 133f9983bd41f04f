//! Shared test support: a cluster, an HTTP client that exposes chunks and broken endings, and
//! recordings.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures::{StreamExt, TryStreamExt};
use kubesim::{Cluster, Config, Scenario};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tower::ServiceExt;

/// Starts a cluster on a free port.
pub async fn cluster(scenario: Scenario) -> Cluster {
    kubesim::start(Config {
        listen: ([127, 0, 0, 1], 0).into(),
        scenario,
    })
    .await
    .unwrap()
}

/// Starts a cluster without a port.
pub fn in_process(scenario: Scenario) -> Cluster {
    kubesim::start_in_process(scenario).unwrap()
}

/// Sends a GET request to the service and returns the status and the body so far.
pub async fn request(cluster: &Cluster, target: &str) -> std::io::Result<(u16, BodyDataStream)> {
    let request = axum::http::Request::get(target).body(Body::empty()).unwrap();
    let response = cluster.service().oneshot(request).await?;
    Ok((response.status().as_u16(), response.into_body().into_data_stream()))
}

/// Sends a GET request to the service and returns the complete body.
pub async fn fetch(cluster: &Cluster, target: &str) -> String {
    let (_, body) = request(cluster, target).await.unwrap();
    let body: Vec<_> = with_timeout(body.try_collect()).await.unwrap();
    String::from_utf8(body.concat()).unwrap()
}

/// Returns the next piece of a body as text.
pub async fn next_text(body: &mut BodyDataStream) -> String {
    let piece = with_timeout(body.next()).await.unwrap().unwrap();
    String::from_utf8(piece.to_vec()).unwrap()
}

/// Awaits a future with a timeout.
pub async fn with_timeout<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("timed out after 30 s")
}

/// A response whose body is still being received.
pub struct Open {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

/// The next part of a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Chunk(Vec<u8>),
    End,
    Broken,
}

/// A complete response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub clean: bool,
}

/// Sends a request and reads the response's head.
pub async fn open(addr: SocketAddr, method: &str, target: &str) -> Open {
    let stream = TcpStream::connect(addr).await.unwrap();
    let mut reader = BufReader::new(stream);
    let head = format!("{method} {target} HTTP/1.1\r\nHost: {addr}\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n");
    reader.write_all(head.as_bytes()).await.unwrap();
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        with_timeout(reader.read_line(&mut line)).await.unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let split = |line: &String| {
        line.split_once(": ")
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
    };
    Open {
        status,
        headers: lines[1..].iter().filter_map(split).collect(),
        reader,
    }
}

impl Open {
    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Reads the next chunk of a chunked body.
    pub async fn chunk(&mut self) -> Piece {
        with_timeout(async {
            let mut size = String::new();
            if self.reader.read_line(&mut size).await.unwrap_or(0) == 0 {
                return Piece::Broken;
            }
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut data = vec![0; size + 2];
            if self.reader.read_exact(&mut data).await.is_err() {
                return Piece::Broken;
            }
            data.truncate(size);
            if size == 0 { Piece::End } else { Piece::Chunk(data) }
        })
        .await
    }

    /// Reads the next chunk as text.
    pub async fn text(&mut self) -> String {
        match self.chunk().await {
            Piece::Chunk(data) => String::from_utf8(data).unwrap(),
            other => panic!("expected a chunk, got {other:?}"),
        }
    }

    /// Reads the rest of the body.
    pub async fn finish(mut self) -> Reply {
        let mut body = Vec::new();
        let mut clean = true;
        if let Some(length) = self.header("content-length") {
            body.resize(length.parse().unwrap(), 0);
            with_timeout(self.reader.read_exact(&mut body)).await.unwrap();
        } else if self.header("transfer-encoding").is_some() {
            loop {
                match self.chunk().await {
                    Piece::Chunk(data) => body.extend(data),
                    Piece::End => break,
                    Piece::Broken => {
                        clean = false;
                        break;
                    }
                }
            }
        }
        Reply {
            status: self.status,
            headers: self.headers,
            body: String::from_utf8(body).unwrap(),
            clean,
        }
    }
}

impl Reply {
    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }
}

/// Sends a GET request and returns the complete response.
pub async fn get(addr: SocketAddr, target: &str) -> Reply {
    open(addr, "GET", target).await.finish().await
}

/// A request to a real API server and its response.
pub struct Recording {
    pub method: String,
    pub target: String,
    pub reply: Reply,
}

/// Loads a recording.
pub fn recording(name: &str) -> Recording {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/");
    let response = std::fs::read_to_string(format!("{dir}{name}.http"))
        .unwrap()
        .replace("\r\n", "\n");
    let request = std::fs::read_to_string(format!("{dir}{name}.req")).unwrap();
    let (head, body) = response.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let split = |line: &str| {
        line.split_once(": ")
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
    };
    let headers = lines.filter_map(split).collect();
    let method = ["-X POST", "-I"].into_iter().find(|flag| request.contains(flag));
    let method = method
        .map_or("GET", |flag| if flag == "-I" { "HEAD" } else { "POST" })
        .to_owned();
    let target = request.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
    Recording {
        method,
        target,
        reply: Reply {
            status,
            headers,
            body: body.to_owned(),
            clean: true,
        },
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(own, _)| own == name)
        .map(|(_, value)| value.as_str())
}
