//! Files that a real containerd wrote, compared with what the log API returned for them.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::fs;

use kubesim::RestartPolicy;

use crate::{
    node_files::{dir, with_pod},
    support::Harness,
};

/// Returns the API's response, with a newline after the last line.
fn response_body(recording: &'static str) -> Vec<u8> {
    let (_, body) = recording.split_once("\r\n\r\n").unwrap();
    let mut body = body.as_bytes().to_vec();
    if body.last() != Some(&b'\n') {
        body.push(b'\n');
    }
    body
}

/// Creates a node on which a terminated container's file is a recorded one.
async fn node_with_recorded_file(file: &[u8]) -> Harness {
    let harness = with_pod(RestartPolicy::Never).await;
    fs::write(dir(&harness).join("0.log"), file).unwrap();
    harness.exit("p").await;
    harness
}

async fn assert_equals_response(file: &[u8], answer: Vec<u8>) {
    let harness = node_with_recorded_file(file).await;
    let collector = harness.collect().await;
    let raw = harness.wait_for_raw(answer.len(), 0).await;
    assert!(raw["out"] == answer, "{}", String::from_utf8_lossy(&raw["out"]));
    assert!(!raw.contains_key("err"));
    assert_eq!(collector.progress.unrecognized_lines(), 0);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_format_equals_the_api_response() {
    // Empty lines, tabs, colours, NUL, a line of 40,009 bytes in parts, and a last line without a
    // newline.
    let recorded = include_bytes!("../recordings/fmt-ondisk-0.log");
    let answer = include_bytes!("../recordings/fmt-timestamps.http");
    let body = memchr::memmem::find(answer, b"\r\n\r\n").unwrap() + 4;
    let mut answer = answer[body..].to_vec();
    answer.push(b'\n');
    assert_equals_response(recorded, answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_time_zones_are_kept() {
    let answer = response_body(include_str!("../recordings/tz-nonutc.http"));
    // The recording starts with the file of an earlier pod.
    let (_, tokyo) = include_str!("../recordings/tz-nonutc-ondisk.log")
        .split_once('\n')
        .unwrap();
    assert_equals_response(tokyo.as_bytes(), answer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_line_is_joined_where_the_api_mixes_another_line_into_it() {
    let recorded = include_str!("../recordings/partial-interleave-ondisk-0.log");
    let text = |at: usize| recorded.lines().nth(at).unwrap().splitn(4, ' ').nth(3).unwrap();
    let out = format!(
        "2026-11-23T08:10:18.461534428Z {}{}{}\n2026-11-23T08:10:21.865265203Z after\n",
        text(0),
        text(1),
        text(3)
    );
    let err = "2026-11-23T08:10:19.661357035Z err1\n";
    let harness = node_with_recorded_file(recorded.as_bytes()).await;
    let collector = harness.collect().await;
    let raw = harness.wait_for_raw(out.len(), err.len()).await;
    assert!(raw["out"] == out.as_bytes() && raw["err"] == err.as_bytes());
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_outputs_together_equal_the_api_response() {
    let answer = response_body(include_str!("../recordings/interleave-ts.http"));
    let recorded = include_bytes!("../recordings/interleave-ondisk-0.log");
    let err_lines = recorded
        .split(|byte| *byte == b'\n')
        .filter(|line| line.get(31..37) == Some(b"stderr"));
    assert!(err_lines.count() > 50);
    let harness = node_with_recorded_file(recorded).await;
    let collector = harness.collect().await;
    let all = async {
        loop {
            let raw = harness.raw().await;
            if raw.values().map(Vec::len).sum::<usize>() >= answer.len() {
                return raw;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let raw = crate::support::in_time(all).await;
    let mut ours: Vec<_> = raw
        .values()
        .flat_map(|data| data.split_inclusive(|byte| *byte == b'\n'))
        .collect();
    for data in raw.values() {
        assert!(
            data.split_inclusive(|byte| *byte == b'\n').is_sorted(),
            "each output is ordered"
        );
    }
    ours.sort();
    assert_eq!(ours.concat(), answer);
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_in_another_format_are_published_unchanged_and_counted() {
    let text =
        "2026-11-23T08:46:44.1Z stdout F a\n{\"log\":\"docker\\n\"}\n\n2026-11-23T08:46:44.2Z stderr F b\nno newline";
    let out = "2026-11-23T08:46:44.100000000Z a\n{\"log\":\"docker\\n\"}\n\nno newline\n";
    let harness = node_with_recorded_file(text.as_bytes()).await;
    let collector = harness.collect().await;
    let raw = harness.wait_for_raw(out.len(), 1).await;
    assert_eq!(String::from_utf8_lossy(&raw["out"]), out);
    assert_eq!(raw["err"], b"2026-11-23T08:46:44.200000000Z b\n");
    assert_eq!(collector.progress.unrecognized_lines(), 3);
    collector.stop().await;
}
