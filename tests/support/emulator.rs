//! Google's Pub/Sub emulator on a free port. It ends with the test process.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, ChildStdin, Command},
};

/// If set, a missing emulator fails the tests instead of skipping them.
const REQUIRED: &str = "TRIBUTARY_REQUIRE_EMULATOR";

/// Path of the emulator in the Cloud SDK.
const WITHIN_SDK: &str = "platform/pubsub-emulator/bin/cloud-pubsub-emulator";

/// Paths of the Cloud SDK in distributions.
const SDK_ROOTS: [&str; 4] = [
    "/usr/lib/google-cloud-sdk",
    "/opt/google-cloud-sdk",
    "/usr/share/google-cloud-sdk",
    "/snap/google-cloud-cli/current",
];

/// A Java process starts slowly on a busy test machine.
const START_WAIT: Duration = Duration::from_secs(90);

/// A running emulator.
pub struct Emulator {
    host: String,
    pid: String,
    shell: Child,
    /// The shell kills the emulator when this is closed.
    _alive: ChildStdin,
}

impl Emulator {
    /// Starts an emulator; `None`, with a line on stderr, if it is not installed.
    pub async fn start() -> Option<Self> {
        let Some(program) = find() else {
            assert!(
                std::env::var_os(REQUIRED).is_none(),
                "the Pub/Sub emulator is missing, and {REQUIRED} is set"
            );
            eprintln!("skipped: the Pub/Sub emulator is not installed (it comes with the Google Cloud SDK)");
            return None;
        };
        for _ in 0..3 {
            if let Some(emulator) = Self::try_start(&program).await {
                return Some(emulator);
            }
        }
        panic!("the emulator does not start");
    }

    /// Starts on a port that was free; `None` if another process took it.
    async fn try_start(program: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = r#""$0" --host=127.0.0.1 --port="$1" >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -KILL $!"#;
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(program)
            .arg(port.to_string())
            .env("JAVA_OPTS", "-Xmx2g")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let alive = shell.stdin.take().unwrap();
        let pid = BufReader::new(shell.stdout.take().unwrap())
            .lines()
            .next_line()
            .await
            .unwrap()
            .unwrap();
        let emulator = Self {
            host: format!("127.0.0.1:{port}"),
            pid,
            shell,
            _alive: alive,
        };
        let answers = async {
            while !emulator.answers().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(START_WAIT, answers).await.ok().map(|()| emulator)
    }

    /// Returns `HOST:PORT` for `PUBSUB_EMULATOR_HOST`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Pauses the process: it keeps its state and answers nothing.
    pub async fn pause(&self) {
        self.signal("STOP").await;
    }

    /// Resumes the process.
    pub async fn resume(&self) {
        self.signal("CONT").await;
    }

    /// Kills the process; its state is lost.
    pub async fn stop(mut self) {
        drop(self._alive);
        self.shell.wait().await.unwrap();
    }

    async fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([&format!("-{name}"), &self.pid])
            .status()
            .await;
        assert!(kill.unwrap().success());
    }

    async fn answers(&self) -> bool {
        let request = async {
            let mut connection = TcpStream::connect(&self.host).await?;
            connection
                .write_all(b"GET / HTTP/1.1\r\nhost: emulator\r\n\r\n")
                .await?;
            let mut answer = [0; 12];
            connection.read_exact(&mut answer).await?;
            std::io::Result::Ok(answer == *b"HTTP/1.1 200")
        };
        let answer = tokio::time::timeout(Duration::from_secs(2), request).await;
        matches!(answer, Ok(Ok(true)))
    }
}

fn find() -> Option<PathBuf> {
    let named = std::env::var_os("CLOUDSDK_ROOT_DIR").map(PathBuf::from);
    let roots = named.into_iter().chain(SDK_ROOTS.map(PathBuf::from));
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("google-cloud-sdk"));
    let within = roots
        .chain(home)
        .map(|root| root.join(WITHIN_SDK))
        .find(|path| path.exists());
    within.or_else(|| {
        let path = std::env::var_os("PATH")?;
        let mut paths = std::env::split_paths(&path).map(|dir| dir.join("cloud-pubsub-emulator"));
        paths.find(|path| path.exists())
    })
}
