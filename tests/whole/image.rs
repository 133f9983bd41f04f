//! The image: the same bytes each time, small, and all that the services need: run as the manifests run it, with nothing of this machine's to lean on.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::Command,
};

use crate::{
    api::Api,
    check::TRIES,
    demo::has_kubectl,
    drains::succeeds,
    emulator::Emulator,
    manifests::{container, pod, rendered, started},
    name_server::name_server,
    support::*,
    up::first_tail,
};

/// Names a static binary: `cargo build --target x86_64-unknown-linux-musl` makes one.
const BINARY: &str = "TRIBUTARY_STATIC_BINARY";

/// Set where a missing one is a failure, rather than tests left out.
const REQUIRED: &str = "TRIBUTARY_REQUIRE_IMAGE";

/// What an image may weigh.
const MAX_BYTES: u64 = 60_000_000;

/// The name server of the pods. A resolver's file names no port, so it is the one that all have.
const NAME_SERVER: ([u8; 4], u16) = ([127, 0, 0, 53], 53);

/// What a pod finds there, as its kubelet has it.
const RESOLV_CONF: &str =
    "nameserver 127.0.0.53\nsearch tributary.svc.cluster.local svc.cluster.local\noptions ndots:5\n";

/// Where a pod's account is.
const ACCOUNT_DIR: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// An image's archive, unpacked.
struct Image {
    dir: TempDir,
    /// What stands in its configuration.
    config: Value,
}

impl Image {
    /// Makes it. `None`, and a line on stderr, where there is no static binary, or nobody who may make a pod of it.
    async fn make() -> Option<Self> {
        let missing = match std::env::var(BINARY) {
            Err(_) => Some(format!("{BINARY} names no static binary")),
            Ok(_) if !may_isolate().await => Some("only root can run what a pod runs (unshare, capsh)".to_owned()),
            Ok(_) => None,
        };
        if let Some(missing) = missing {
            assert!(std::env::var_os(REQUIRED).is_none(), "{missing}, and {REQUIRED} is set");
            eprintln!("skipped: {missing}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let build = async |name: &str| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image/build-oci");
            let archive = dir.path().join(name);
            let binary = fs::canonicalize(std::env::var(BINARY).unwrap()).unwrap();
            done(Command::new(script).arg(&archive).env("TRIBUTARY_BINARY", binary)).await;
            fs::read(archive).unwrap()
        };
        let archive = build("image.tar").await;
        assert!(
            archive == build("again.tar").await,
            "the same sources make the same bytes"
        );
        assert!((archive.len() as u64) < MAX_BYTES, "{} bytes", archive.len());
        let layout = dir.path().join("layout");
        fs::create_dir(&layout).unwrap();
        done(
            Command::new("tar")
                .arg("-xf")
                .arg(dir.path().join("image.tar"))
                .arg("-C")
                .arg(&layout),
        )
        .await;
        let blob = |object: &Value| {
            let digest = object["digest"]
                .as_str()
                .unwrap()
                .strip_prefix("sha256:")
                .unwrap()
                .to_owned();
            layout.join("blobs/sha256").join(digest)
        };
        let json = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let index = json(layout.join("index.json"));
        let manifest = json(blob(&index["manifests"][0]));
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(layers.len(), 1);
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        done(
            Command::new("tar")
                .arg("-xzf")
                .arg(blob(&layers[0]))
                .arg("-C")
                .arg(&root),
        )
        .await;
        Some(Self {
            config: json(blob(&manifest["config"]))["config"].clone(),
            dir,
        })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// All that is in it.
    async fn files(&self) -> Vec<String> {
        let found = done(Command::new("find").args([".", "-type", "f"]).current_dir(self.root())).await;
        let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// What a kubelet adds: names, and places for volumes.
    fn mount(&self) {
        let root = self.root();
        fs::write(root.join("etc/resolv.conf"), RESOLV_CONF).unwrap();
        fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::create_dir_all(root.join("var/lib/tributary")).unwrap();
        fs::create_dir_all(root.join(ACCOUNT_DIR)).unwrap();
        fs::create_dir(self.dir.path().join("node")).unwrap();
    }

    /// What a pod of this account finds at [`ACCOUNT_DIR`].
    fn account(&self, name: &str, authority: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [("token", name), ("ca.crt", authority), ("namespace", "tributary")] {
            fs::write(dir.join(file), text).unwrap();
        }
        dir
    }

    /// A pod's container: the image as its root, read-only; the user, and no capability; its account's files and the API server's place.
    fn run(&self, objects: &[Value], name: &str, api: &Api, change: impl Fn(&str, String) -> String) -> Command {
        let (args, env) = started(container(objects, name));
        let user = user(objects, name).unwrap_or_else(|| {
            let user = self.config["User"].as_str().unwrap().split(':').next().unwrap();
            user.parse().unwrap()
        });
        let script = r#"set -e
            root=$1 node=$2 account=$3 user=$4 entrypoint=$5; shift 5
            mount --bind "$root" "$root"
            mount --bind "$node" "$root/var/lib/tributary"
            mount --bind "$account" "$root/var/run/secrets/kubernetes.io/serviceaccount"
            mount -o remount,ro,bind "$root"
            [ "$user" = 0 ] || as="--gid=$user --groups=$user --uid=$user"
            exec capsh --chroot="$root" --no-new-privs --drop=all $as --shell="$entrypoint" -- "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.arg(self.root()).arg(self.dir.path().join("node"));
        command.arg(self.account(name, &api.authority)).arg(user.to_string());
        command.arg(self.config["Entrypoint"][0].as_str().unwrap());
        command.args(args.into_iter().map(|arg| change("", arg)));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        command.env("KUBERNETES_SERVICE_PORT", api.port.to_string());
        command.envs(env.into_iter().map(|(name, value)| {
            let value = change(&name, value);
            (name, value)
        }));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// Whom a manifest lets a container run as, where it says so.
fn user(objects: &[Value], account: &str) -> Option<u64> {
    let pod = pod(objects, account);
    let told = [
        &pod["containers"][0]["securityContext"]["runAsUser"],
        &pod["securityContext"]["runAsUser"],
    ];
    told.iter().find_map(|user| user.as_u64())
}

/// What a command prints; it has to succeed.
async fn done(command: &mut Command) -> String {
    let output = bounded("a command", command.output()).await.unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn may_isolate() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "capsh", "--has-p=cap_sys_admin"])
        .output()
        .await;
    tried.is_ok_and(|tried| tried.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_run_as_the_manifests_run_it_carries_a_line_to_a_reader_finds_a_drain_by_name_and_checks_itself() {
    if !has_kubectl().await {
        return;
    }
    let Some(image) = Image::make().await else { return };
    assert_eq!(
        image.files().await,
        ["./etc/ssl/certs/ca-certificates.crt", "./usr/bin/tributary"]
    );
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    name_server(NAME_SERVER.into(), &[[127, 0, 0, 1]])
        .await
        .expect("127.0.0.53:53 is free");
    image.mount();
    let objects = rendered("emulator").await;
    let api = Api::start(&objects).await;
    api.apply(&objects.iter().collect::<Vec<_>>()).await;
    let bus_port = emulator.host().rsplit(':').next().unwrap();
    // Everything as it stands there, but that ports are free ones and on loopback.
    let change = |name: &str, value: String| match name {
        "" if value.starts_with("0.0.0.0:") => "127.0.0.1:0".to_owned(),
        "PUBSUB_EMULATOR_HOST" => value.replace("pubsub-emulator:8085", &format!("pubsub-emulator:{bus_port}")),
        _ => value,
    };
    let start = |name: &str| {
        let mut command = image.run(&objects, name, &api, change);
        command.env("TRIBUTARY_ALLOW_ADDRESS", "127.0.0.0/8");
        Tributary::of(command)
    };
    let (collector, streamer, sinks) = (start("collector").await, start("streamer").await, start("sinks").await);
    let mut tail = first_tail(&streamer).await;
    assert!(tail.line().await.unwrap().contains("]: line "));
    drop(tail);
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let drain = format!(
        "syslog+tcp://logs.example.com:{}",
        receiver.local_addr().unwrap().port()
    );
    succeeds(&streamer, &["add", "load", &drain]).await;
    let listed = succeeds(&streamer, &["list", "load"]).await;
    let tried = succeeds(&streamer, &["test", "load", listed.split_whitespace().next().unwrap()]).await;
    assert!(tried.contains("resolve\tok"), "{tried}");
    let (connection, _) = bounded("the drain's connection", receiver.accept()).await.unwrap();
    let mut received = BufReader::new(connection).lines();
    let line = bounded("a line", received.next_line()).await.unwrap().unwrap();
    assert!(line.contains(" load tributary - - - test message of drain"), "{line}");
    let of_check = |name: &str, value: String| match name {
        "TRIBUTARY_SERVER" => format!("{value}:{}", streamer.addr.port()),
        _ => change(name, value),
    };
    let mut said = String::new();
    let is_good = |said: &str| said.lines().count() == 8 && said.lines().all(|line| line.starts_with("ok "));
    for _ in 0..TRIES {
        let checked = bounded("a check", image.run(&objects, "check", &api, of_check).output()).await;
        said = String::from_utf8(checked.unwrap().stdout).unwrap();
        if is_good(&said) {
            break;
        }
    }
    assert!(is_good(&said), "{said}");
    for service in [collector, streamer, sinks] {
        service.terminate().await;
    }
    // What was to last lies in the node's directory; nothing else was written.
    assert!(image.dir.path().join("node/checkpoints").exists());
    api.cluster.shutdown().await;
    emulator.stop().await;
}
