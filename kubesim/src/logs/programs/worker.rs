//! A mail worker: jobs that succeed, are retried or fail.

use rand::RngExt;
use rand::rngs::StdRng;

use super::random::pick;

/// Returns the lines of one job.
pub(super) fn burst(random: &mut StdRng, number: u64) -> Vec<String> {
    if number == 0 {
        return boot();
    }
    let job = random.random_range(100_000..999_999);
    let kind = pick(random, KINDS);
    let start = format!("job={job} kind={kind} msg=\"started\" attempt=1");
    match random.random_range(0..100) {
        0..70 => {
            let millis = random.random_range(12..900);
            vec![
                start,
                format!("job={job} kind={kind} msg=\"done\" duration_ms={millis}"),
            ]
        }
        70..88 => vec![delivery(random, job)],
        88..97 => {
            let attempt = random.random_range(1..5);
            let wait = 2_u32.pow(attempt) * 15;
            let reason = pick(random, REASONS);
            let next = attempt + 1;
            vec![
                format!("job={job} kind={kind} msg=\"started\" attempt={attempt}"),
                format!(
                    "\u{1b}[33mWARN\u{1b}[0m job={job} kind={kind} msg=\"retry\" reason=\"{reason}\" next_attempt={next} in_s={wait}"
                ),
            ]
        }
        _ => vec![
            start,
            format!("\u{1b}[31mERROR\u{1b}[0m job={job} kind={kind} msg=\"given up\" attempts=5"),
        ],
    }
}

/// Returns the lines of the start-up.
fn boot() -> Vec<String> {
    let first = [
        "worker: starting, version 2.7.3",
        "worker: reading templates from /app/templates",
    ];
    let templates = TEMPLATES.iter().map(|name| format!("worker: template {name} compiled"));
    let last = [
        "worker: connected to smtp.internal:587",
        "worker: connected to queue mail.outbound, concurrency 8",
    ];
    let first = first.into_iter().map(str::to_owned);
    first
        .chain(templates)
        .chain(last.into_iter().map(str::to_owned))
        .collect()
}

fn delivery(random: &mut StdRng, job: u32) -> String {
    serde_json::json!({
        "level": "info",
        "job": job,
        "event": "delivered",
        "template": pick(random, KINDS),
        "relay": pick(random, &["mx1.example.net:25", "mx2.example.net:25", "smtp.example.org:587"]),
        "queue_ms": random.random_range(1..300),
        "smtp": "250 2.0.0 OK",
    })
    .to_string()
}

const KINDS: &[&str] = &[
    "welcome",
    "receipt",
    "password_reset",
    "weekly_digest",
    "shipping_notice",
];
const REASONS: &[&str] = &[
    "421 try again later",
    "connection timed out",
    "450 mailbox busy",
    "TLS handshake failed",
];

const TEMPLATES: &[&str] = &[
    "abandoned_cart",
    "account_closed",
    "address_changed",
    "back_in_stock",
    "birthday",
    "delivery_delayed",
    "delivery_today",
    "gift_card",
    "invoice",
    "login_code",
    "newsletter",
    "order_cancelled",
    "order_confirmed",
    "order_shipped",
    "password_reset",
    "payment_failed",
    "receipt",
    "refund",
    "return_label",
    "review_request",
    "survey",
    "weekly_digest",
    "welcome",
];
