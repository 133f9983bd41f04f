//! Whether the streamer answers, and is one.

use std::time::SystemTime;

use http::Method;
use http_body_util::BodyExt;

use super::{clock::Clocks, report::Report};
use crate::{
    api_client::{Server, ServerArgs},
    deadline::answered,
};

/// Asks the streamer for its description.
pub(super) async fn look(report: &mut Report, clocks: &mut Clocks, args: &ServerArgs) -> Option<Server> {
    let server = match Server::new(args) {
        Ok(server) => server,
        Err(error) => {
            report.fault("streamer", format!("{error:#}"));
            return None;
        }
    };
    match asked(&server, clocks).await {
        Ok(()) => {
            report.ok("streamer", format!("{} answers", args.server));
            Some(server)
        }
        Err(why) => {
            report.fault("streamer", format!("{}: {why}", args.server));
            None
        }
    }
}

async fn asked(server: &Server, clocks: &mut Clocks) -> Result<(), String> {
    let asked = SystemTime::now();
    let answer = answered(server.send(server.request(Method::GET, "/openapi.json"), String::new())).await;
    let answer = answer.map_err(|why| format!("{why}: is it overloaded, or stopped?"))?;
    let answer = answer.map_err(|why| format!("it cannot be reached: {why} (is a streamer running there, and its Service's selector right? --server names another place)"))?;
    clocks.heard_date("the streamer", answer.headers(), (asked, SystemTime::now()));
    let status = answer.status();
    let body = answered(answer.into_body().collect()).await;
    let body = body
        .ok()
        .and_then(Result::ok)
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let described: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    match described {
        Some(described) if described["paths"]["/api/apps/{app}/logs"].is_object() => Ok(()),
        _ => Err(format!(
            "it answers {status}, but is no streamer (--server names another place)"
        )),
    }
}
