//! Scenario files: parsing of a whole file.

use super::error::ScenarioError;
use super::plan::Scenario;
use super::schema::RawScenario;
use super::validate::{fault, log_files, pod_plan};

impl Scenario {
    /// Parses a scenario file. `docs/simulator.md` describes all keys.
    ///
    /// ```
    /// let scenario = kubesim::Scenario::from_toml(r#"
    ///     seed = 7                     # of names and output; default 0
    ///     rotate_bytes = 1048576       # size at which a log rotates; default 10 MiB
    ///     restart_backoff = "10s"      # before the second restart; the default
    ///
    ///     [log_files]                  # files on disk, if the node has a directory for them
    ///     max_size = 10485760          # bytes; these are the defaults
    ///     max_files = 5
    ///     check = "10s"
    ///
    ///     [[pods]]
    ///     namespace = "shop"
    ///     name = "web"
    ///     replicas = 3                 # without: one pod named `name`
    ///     start_after = "2s"           # default 0
    ///     delete_after = "1m"          # default never
    ///     labels = { tier = "front" }
    ///     annotations = { note = "any text" }
    ///     node = "node-1"              # the default; "" = never scheduled
    ///
    ///     [[pods.containers]]
    ///     name = "web"
    ///     lines = 1000                 # then it exits; default 0 = endless
    ///     rate = 50                    # lines per second, default 1; 0 = as fast as possible
    ///     size = 100                   # bytes of content, padded or cut
    ///     text = "line {seq}"          # the default; also {pod}, {namespace}, {container}
    ///     stderr_every = 10            # every tenth line goes to standard error; default none
    ///     exit_code = 0
    ///     restart = "Never"            # Always (default if endless), OnFailure, Never
    ///
    ///     [[pods.containers]]
    ///     name = "sidecar"
    ///     profile = "worker"           # instead of lines, size and text: web, worker, ...
    ///
    ///     [[pods.containers]]
    ///     name = "stuck"
    ///     waiting = "ErrImagePull"     # never starts
    ///
    ///     [[pods.containers]]
    ///     name = "migrate"
    ///     role = "init"                # main (default), init, sidecar, ephemeral
    ///     lines = 10
    ///
    ///     [[pods.containers]]
    ///     name = "debugger"
    ///     role = "ephemeral"
    ///     after = "5s"                 # after the main containers; default 0
    ///     lines = 10
    ///
    ///     [[faults]]
    ///     at = "30s"
    ///     kind = "delete-pod"          # needs namespace and pod
    ///     namespace = "shop"
    ///     pod = "web"
    ///
    ///     [[faults]]
    ///     at = "40s"
    ///     kind = "api-down"            # the kebab-case names of FaultKind
    ///     for = "5s"
    /// "#)?;
    /// assert_eq!(scenario.pods[0].containers.len(), 5);
    /// # Ok::<_, kubesim::ScenarioError>(())
    /// ```
    ///
    /// *Errors*: the first error in the file, with its line and column: invalid TOML, an unknown
    /// key, a missing key or a value out of range.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        parse(text)
    }

    /// Returns the demo scenario: a web application and a mailer with three pods each, one of which
    /// crashes.
    #[must_use]
    pub fn demo() -> Self {
        Self::from_toml(DEMO).expect("the embedded scenario is valid: a test reads it")
    }
}

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let raw: RawScenario = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        ScenarioError::at(text, offset, error.message().replace('\n', " "))
    })?;
    let mut scenario = Scenario {
        seed: raw.seed,
        users: raw.users,
        authorize: raw.authorize,
        ..Scenario::default()
    };
    if let Some(raw) = raw.log_files {
        let offset = raw.span().start;
        scenario.log_files = log_files(raw.into_inner()).map_err(|message| ScenarioError::at(text, offset, message))?;
    }
    if let Some(backoff) = raw.restart_backoff {
        scenario.restart_backoff = backoff.0;
    }
    if let Some(bytes) = raw.rotate_bytes {
        let offset = bytes.span().start;
        let bytes = bytes.into_inner();
        if bytes < MIN_ROTATE_BYTES {
            let message = format!("`rotate_bytes` = {bytes} is too small; write {MIN_ROTATE_BYTES} or more");
            return Err(ScenarioError::at(text, offset, message));
        }
        scenario.rotate_bytes = bytes;
    }
    for pod in raw.pods {
        scenario.pods.push(pod_plan(text, pod)?);
    }
    for raw in raw.faults {
        let offset = raw.span().start;
        let fault = fault(raw.into_inner()).map_err(|message| ScenarioError::at(text, offset, message))?;
        scenario.faults.push(fault);
    }
    Ok(scenario)
}

/// Lower bound of `rotate_bytes`: keeps a file from rotating at every line.
const MIN_ROTATE_BYTES: usize = 4 << 10;

const DEMO: &str = include_str!("../../scenarios/demo.toml");
