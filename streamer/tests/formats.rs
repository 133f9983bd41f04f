//! The four output formats: content, compression, heartbeats and end.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests use the operating system directly"
)]

mod support;

use std::{io::Read, process::Stdio, time::Duration};

use bus::{Batch, Content, StreamMetadata, Timestamp, notice};
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use streamer::Config;
use support::*;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_tungstenite::tungstenite::Message;

const HOUR: Duration = Duration::from_secs(3600);

/// Returns a configuration with a short heartbeat.
fn short_heartbeat() -> Config {
    Config {
        heartbeat: Duration::from_millis(20),
        ..Config::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_has_one_object_per_line_with_every_field() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    let bytes = Batch {
        content: Content::Lines {
            data: b"2026-11-23T07:00:00.000000001Z \xff\"\x01\n"[..].into(),
            lines: 1,
            part: Some(bus::Part::More),
        },
        ..texts(&web, 0, &["x"])
    };
    stack.publish([bytes, gap(&web, 1, 4), texts(&web, 4, &["b"])]).await;
    let json = [("accept", "application/x-ndjson")];
    let mut reading = stack.get_with("/api/apps/shop/logs?follow=False", &json).await;
    assert_eq!(reading.response.headers()["content-type"], "application/x-ndjson");
    let id = web.stream.as_str();
    assert_eq!(
        reading.json().await,
        serde_json::json!({
            "time": "2026-11-23T07:00:00.000000001Z", "app": "shop", "process": "web", "origin": "app",
            "stream": id, "seq": 0, "text": "\u{fffd}\"\u{1}", "part": "more",
        })
    );
    let notice = reading.json().await;
    assert_eq!(
        (&notice["origin"], &notice["seq"]),
        (&"tributary".into(), &serde_json::Value::Null)
    );
    assert!(
        notice["text"]
            .as_str()
            .unwrap()
            .starts_with("Error L12: 3 lines of web dropped (seq 1 to 3)")
    );
    assert_eq!(
        notice["notice"],
        serde_json::json!({"code": "L12", "reason": "spool", "stream": id, "first": 1, "count": 3})
    );
    assert_eq!(reading.json().await["text"], "b");
    assert_eq!(reading.line().await, None);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_platform_message_has_its_code_and_reason_in_json_formats() {
    let stack = Stack::start(Config::default()).await;
    let stream = stream("tributary", HOUR).stream.clone();
    let message = |seq| Batch {
        metadata: StreamMetadata::tributary("shop".parse().unwrap(), stream.clone(), "node-1").into(),
        seq,
        content: notice::rate_limited(1000, 4000).into_content(Timestamp(0)),
    };
    let text = notice::rate_limited(1000, 4000).text;
    let expected = |seq: u64| {
        serde_json::json!({
            "time": "1970-01-01T00:00:00.000000000Z", "app": "shop", "process": "tributary", "origin": "tributary",
            "stream": stream.as_str(), "seq": seq, "text": text,
            "notice": {"code": "L12", "reason": "limit", "count": null},
        })
    };
    stack.publish([message(0)]).await;
    let (json, sse) = ([("accept", "application/x-ndjson")], [("accept", "text/event-stream")]);
    let mut objects = stack.get_with("/api/apps/shop/logs", &json).await;
    let mut events = stack.get_with("/api/apps/shop/logs", &sse).await;
    let url = format!("ws://{}/api/apps/shop/logs?num_lines=1", stack.addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let first = tokio::time::timeout(TIMEOUT, socket.next()).await.unwrap();
    let first = first.unwrap().unwrap().into_text().unwrap();
    let first: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(first["lines"], serde_json::json!([expected(0)]));
    let mut plain = stack.get("/api/apps/shop/logs").await;
    for seq in 0..2 {
        if seq == 1 {
            stack.publish([message(1)]).await;
        }
        assert_eq!(objects.json().await, expected(seq));
        let event = loop {
            if let Some(object) = events.event().await.unwrap().data {
                break object;
            }
        };
        assert_eq!(event, expected(seq));
        assert_eq!(
            plain.line().await.unwrap(),
            format!("1970-01-01T00:00:00.000000+00:00 shop[tributary]: {text}")
        );
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_delivered_after_its_gap_notice_is_marked_late() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", Duration::ZERO);
    stack.publish([lines(&web, 0, 1)]).await;
    let json = [("accept", "application/x-ndjson")];
    let mut tail = stack.get_with("/api/apps/shop/logs", &json).await;
    assert_eq!(tail.json().await["seq"], 0);
    stack.publish([lines(&web, 2, 3)]).await;
    assert_eq!(tail.json().await["notice"]["first"], 1);
    let line = tail.json().await;
    assert_eq!((&line["seq"], &line["late"]), (&2.into(), &serde_json::Value::Null));
    stack.publish([lines(&web, 1, 2)]).await;
    let line = tail.json().await;
    assert_eq!((&line["seq"], &line["late"]), (&1.into(), &true.into()));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_sends_cursors_and_heartbeats() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 5)]).await;
    let sse = [("accept", "text/event-stream")];
    let mut tail = stack.get_with("/api/apps/shop/logs?num_lines=2", &sse).await;
    assert_eq!(tail.response.headers()["content-type"], "text/event-stream");
    assert_eq!(tail.event().await.unwrap().data.unwrap()["text"], "3");
    assert_eq!(tail.event().await.unwrap().data.unwrap()["text"], "4");
    let event = tail.event().await.unwrap();
    assert!(
        event.id.is_some() && event.data.is_none(),
        "a cursor after history, before any live line"
    );
    assert_eq!(tail.line().await.unwrap(), ":", "a comment");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_receives_messages_pings_and_a_close_frame() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 5)]).await;
    let url = format!("ws://{}/api/apps/shop/logs?num_lines=2", stack.addr);
    let (mut socket, response) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut texts = Vec::new();
    let mut pinged = false;
    let mut cursor = None;
    while texts.len() < 3 || !pinged || cursor.is_none() {
        match tokio::time::timeout(TIMEOUT, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
        {
            Message::Text(text) => {
                let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                cursor = message["cursor"].as_str().map(str::to_owned);
                let received = message["lines"].as_array().unwrap();
                texts.extend(received.iter().map(|line| line["text"].as_str().unwrap().to_owned()));
                if texts.len() == 2 && cursor.is_some() {
                    stack.publish([lines(&web, 5, 6)]).await;
                }
            }
            Message::Ping(_) => pinged = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(texts, ["3", "4", "5"]);
    stack.shutdown.cancel();
    loop {
        match tokio::time::timeout(TIMEOUT, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(Some(close)))) => break assert_eq!(u16::from(close.code), 1001),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_shutdown_every_format_ends_with_a_cursor() {
    let stack = Stack::start(Config::default()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 3)]).await;
    let sse = [("accept", "text/event-stream")];
    let json = [("accept", "application/x-ndjson")];
    let mut events = stack.get_with("/api/apps/shop/logs", &sse).await;
    let mut objects = stack.get_with("/api/apps/shop/logs", &json).await;
    events.seqs(3).await;
    for seq in 0..3 {
        assert_eq!(objects.json().await["seq"], seq);
    }
    stack.shutdown.cancel();
    let closing = events.event().await.unwrap();
    assert_eq!(
        (closing.name.as_deref(), events.event().await.is_none()),
        (Some("closing"), true)
    );
    let cursor = closing.id.unwrap();
    let last = objects.json().await;
    assert_eq!((&last["closing"], objects.line().await), (&true.into(), None));
    // Both cursors are valid, also on another replica.
    stack.publish([lines(&web, 3, 4)]).await;
    let replica = stack.replica(Config::default()).await;
    for cursor in [cursor.as_str(), last["cursor"].as_str().unwrap()] {
        let mut tail = replica.get(&format!("/api/apps/shop/logs?cursor={cursor}")).await;
        assert_eq!(text_of(&tail.line().await.unwrap()), "3");
    }
    stack.stop().await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gzip_body_is_one_complete_member() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 2000)]).await;
    let gzip = [("accept-encoding", "gzip, deflate")];
    let reading = stack
        .get_with("/api/apps/shop/logs?follow=False&num_lines=1500", &gzip)
        .await;
    assert_eq!(reading.response.headers()["content-encoding"], "gzip");
    let body = reading.response.into_body().collect().await.unwrap().to_bytes();
    let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
    let mut text = String::new();
    decoder.read_to_string(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty(), "nothing follows the member");
    let (_, plain) = stack.get_all("/api/apps/shop/logs?follow=False&num_lines=1500").await;
    assert_eq!(text, plain);
    assert!(body.len() * 4 < plain.len(), "{} of {}", body.len(), plain.len());
    // A live tail with history, live lines and heartbeats, ended by the server.
    let tail = stack.get_with("/api/apps/shop/logs?num_lines=3", &gzip).await;
    stack.publish([lines(&web, 2000, 2002)]).await;
    let mut follower = stack.get("/api/apps/shop/logs?num_lines=1").await;
    while text_of(&follower.line().await.unwrap()) != "2001" {}
    stack.shutdown.cancel();
    let body = tail.response.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    let mut decoder = flate2::bufread::GzDecoder::new(&body[..]);
    decoder.read_to_string(&mut text).unwrap();
    assert!(decoder.into_inner().is_empty());
    assert_eq!(
        text.lines().map(text_of).collect::<Vec<_>>(),
        ["1997", "1998", "1999", "2000", "2001"]
    );
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_receives_compressed_lines_immediately() {
    let stack = Stack::start(short_heartbeat()).await;
    let web = stream("web", HOUR);
    stack.publish([lines(&web, 0, 3)]).await;
    let url = format!("http://{}/api/apps/shop/logs", stack.addr);
    let started = tokio::process::Command::new("curl")
        .args(["-sSN", "--compressed", &url])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut curl = match started {
        Ok(curl) => curl,
        // Optional on developers' machines, required in CI.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            assert!(
                std::env::var_os("TRIBUTARY_REQUIRE_CURL").is_none(),
                "curl is not installed"
            );
            return stack.stop().await;
        }
        Err(error) => panic!("{error}"),
    };
    let mut output = BufReader::new(curl.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(TIMEOUT, output.next_line()).await;
        line.expect("a line in time").unwrap()
    };
    for seq in 0..3 {
        assert_eq!(text_of(&next().await.unwrap()), seq.to_string());
    }
    for seq in 3..20 {
        stack.publish([lines(&web, seq, seq + 1)]).await;
        assert_eq!(text_of(&next().await.unwrap()), seq.to_string(), "immediately");
    }
    stack.shutdown.cancel();
    assert_eq!(next().await, None);
    assert!(curl.wait().await.unwrap().success(), "the checksum is valid");
    stack.stop().await;
}
