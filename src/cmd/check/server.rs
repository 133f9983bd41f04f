//! Checks that a streamer answers at `--server`.

use std::time::SystemTime;

use http::Method;
use http_body_util::BodyExt;

use super::{clock::Clocks, dns, report::Report};
use crate::{api_client::Server, deadline::answered, flags::server::ServerArgs};

/// Requests the streamer's API description. Returns a client if it is a streamer.
pub(super) async fn check(report: &mut Report, clocks: &mut Clocks, args: &ServerArgs) -> Option<Server> {
    let server = match Server::new(args) {
        Ok(server) => server,
        Err(error) => {
            report.fail("streamer", format!("{error:#}"));
            return None;
        }
    };
    match request_description(&server, clocks).await {
        Ok(()) => {
            report.ok("streamer", format!("{} answers", args.printable_url()));
            Some(server)
        }
        Err(problem) => {
            report.fail("streamer", format!("{}: {problem}", args.printable_url()));
            None
        }
    }
}

async fn request_description(server: &Server, clocks: &mut Clocks) -> Result<(), String> {
    let sent = SystemTime::now();
    let response = answered(server.send(server.request(Method::GET, "/openapi.json"), String::new())).await;
    let response = response.map_err(|timeout| format!("{timeout}; check that the streamer is not overloaded"))?;
    let response = response.map_err(|cause| {
        let advice = "check that a streamer runs there and that its Service's selector matches, or set another URL with --server";
        format!("cannot be reached: {cause}; {}", dns::advice(&cause, advice))
    })?;
    clocks.record_date("the streamer", response.headers(), (sent, SystemTime::now()));
    let status = response.status();
    let body = answered(response.into_body().collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let description: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    match description {
        Some(description) if description["paths"]["/api/apps/{app}/logs"].is_object() => Ok(()),
        _ => Err(format!(
            "returned {status} and is not a streamer; set the streamer's URL with --server"
        )),
    }
}
