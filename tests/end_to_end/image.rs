//! The image: reproducible, small, and sufficient to run the services as the manifests run them, in
//! an empty root without files of this machine.

#![allow(clippy::unwrap_used, reason = "a panic in a helper fails the test")]

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
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
    check::TRIES,
    demo::has_kubectl,
    drains::succeeds,
    emulator::Emulator,
    kubernetes_api::Api,
    manifests::{container, pod, rendered, started},
    name_server::name_server,
    support::*,
    up::first_tail,
};

/// Path of a static binary; `deploy/image/build-binary` builds one.
const BINARY: &str = "TRIBUTARY_TEST_STATIC_BINARY";

/// If set, a missing binary fails the tests instead of skipping them.
const REQUIRED: &str = "TRIBUTARY_REQUIRE_IMAGE";

/// Largest size of the image's archive.
const MAX_BYTES: u64 = 60_000_000;

/// Port of every name server: `/etc/resolv.conf` has no field for it.
const DNS_PORT: u16 = 53;

/// Directory of the service account in a container.
const ACCOUNT_DIR: &str = "var/run/secrets/kubernetes.io/serviceaccount";

/// The image, unpacked.
struct Image {
    dir: TempDir,
    /// `config` of the image configuration.
    config: Value,
}

impl Image {
    /// Builds and unpacks the image. Prints a line and returns `None` without a static binary or the
    /// permission to create mount namespaces.
    async fn make() -> Option<Self> {
        let missing = match std::env::var(BINARY) {
            Err(_) => Some(format!("{BINARY} is not set")),
            Ok(_) if !can_isolate().await => Some("unshare and capsh need root".to_owned()),
            Ok(_) => None,
        };
        if let Some(missing) = missing {
            assert!(std::env::var_os(REQUIRED).is_none(), "{missing}, but {REQUIRED} is set");
            eprintln!("skipped: {missing}");
            return None;
        }
        let dir = TempDir::new().unwrap();
        let build = async |name: &str| {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image/build-oci");
            let archive = dir.path().join(name);
            let binary = fs::canonicalize(std::env::var(BINARY).unwrap()).unwrap();
            output_of(Command::new(script).arg(&archive).env("TRIBUTARY_BINARY", binary)).await;
            fs::read(archive).unwrap()
        };
        let archive = build("image.tar").await;
        assert!(archive == build("again.tar").await, "two builds of the image differ");
        assert!((archive.len() as u64) < MAX_BYTES, "{} bytes", archive.len());
        let layout = dir.path().join("layout");
        fs::create_dir(&layout).unwrap();
        output_of(
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
        output_of(
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

    /// Paths of all files, sorted.
    async fn files(&self) -> Vec<String> {
        let found = output_of(Command::new("find").args([".", "-type", "f"]).current_dir(self.root())).await;
        let mut files: Vec<String> = found.lines().map(str::to_owned).collect();
        files.sort();
        files
    }

    /// Adds what the kubelet and the container runtime provide: name resolution and mount points.
    fn mount(&self, name_server: [u8; 4], hosts: &str) {
        let root = self.root();
        let resolv_conf = format!(
            "nameserver {}\nsearch tributary.svc.cluster.local svc.cluster.local\noptions ndots:5\n",
            Ipv4Addr::from(name_server)
        );
        fs::write(root.join("etc/resolv.conf"), resolv_conf).unwrap();
        fs::write(root.join("etc/hosts"), hosts).unwrap();
        fs::create_dir_all(root.join("var/lib/tributary")).unwrap();
        fs::create_dir_all(root.join(ACCOUNT_DIR)).unwrap();
        fs::create_dir(self.dir.path().join("node")).unwrap();
    }

    /// Contents of [`ACCOUNT_DIR`] for a service account.
    fn account(&self, name: &str, authority: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [("token", name), ("ca.crt", authority), ("namespace", "tributary")] {
            fs::write(dir.join(file), text).unwrap();
        }
        dir
    }

    /// A container of a manifest, with the service account and the address of the API server.
    fn container(&self, objects: &[Value], name: &str, api: &Api, change: impl Fn(&str, String) -> String) -> Command {
        let (args, env) = started(container(objects, name));
        let user = user(objects, name).unwrap_or_else(|| self.default_user());
        let account = self.account(name, &api.authority);
        let mut command = self.isolated(&account, user, args.into_iter().map(|arg| change("", arg)));
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1");
        command.env("KUBERNETES_SERVICE_PORT", api.port.to_string());
        command.envs(env.into_iter().map(|(name, value)| {
            let value = change(&name, value);
            (name, value)
        }));
        command
    }

    /// The entrypoint with the image as its read-only root, without capabilities and environment.
    fn isolated(&self, account: &Path, user: u64, args: impl Iterator<Item = String>) -> Command {
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
        command.arg(account).arg(user.to_string());
        command.arg(self.config["Entrypoint"][0].as_str().unwrap()).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// User ID in the image configuration.
    fn default_user(&self) -> u64 {
        let user = self.config["User"].as_str().unwrap();
        user.split(':').next().unwrap().parse().unwrap()
    }
}

/// User ID that a manifest sets, if any.
fn user(objects: &[Value], account: &str) -> Option<u64> {
    let pod = pod(objects, account);
    let contexts = [
        &pod["containers"][0]["securityContext"]["runAsUser"],
        &pod["securityContext"]["runAsUser"],
    ];
    contexts.iter().find_map(|user| user.as_u64())
}

/// Standard output of a command that must succeed.
async fn output_of(command: &mut Command) -> String {
    let output = bounded("a command", command.output()).await.unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn can_isolate() -> bool {
    let tried = Command::new("unshare")
        .args(["--mount", "capsh", "--has-p=cap_sys_admin"])
        .output()
        .await;
    tried.is_ok_and(|tried| tried.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_streams_lines_resolves_drains_and_passes_its_check_when_run_as_in_the_manifests() {
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
    let dns = [127, 0, 0, 53];
    name_server((dns, DNS_PORT).into(), &[[127, 0, 0, 1]])
        .await
        .expect("127.0.0.53:53 is free");
    image.mount(dns, "127.0.0.1 localhost\n");
    let objects = rendered("emulator").await;
    let api = Api::start(&objects).await;
    api.apply(&objects.iter().collect::<Vec<_>>()).await;
    let bus_port = emulator.host().rsplit(':').next().unwrap();
    // Unchanged manifests, except for loopback addresses and free ports.
    let change = |name: &str, value: String| match name {
        "" if value.starts_with("0.0.0.0:") => "127.0.0.1:0".to_owned(),
        "PUBSUB_EMULATOR_HOST" => value.replace("pubsub-emulator:8085", &format!("pubsub-emulator:{bus_port}")),
        _ => value,
    };
    let start = |name: &str| {
        let mut command = image.container(&objects, name, &api, change);
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
    let (connection, _) = bounded("the connection of the drain", receiver.accept()).await.unwrap();
    let mut received = BufReader::new(connection).lines();
    let line = bounded("a line", received.next_line()).await.unwrap().unwrap();
    assert!(line.contains(" load tributary - - - test message of drain"), "{line}");
    let change_for_check = |name: &str, value: String| match name {
        "TRIBUTARY_SERVER" => format!("{value}:{}", streamer.addr.port()),
        _ => change(name, value),
    };
    let mut report = String::new();
    let is_good = |report: &str| report.lines().count() == 8 && report.lines().all(|line| line.starts_with("OK "));
    for _ in 0..TRIES {
        let checked = bounded(
            "a check",
            image.container(&objects, "check", &api, change_for_check).output(),
        )
        .await;
        report = String::from_utf8(checked.unwrap().stdout).unwrap();
        if is_good(&report) {
            break;
        }
    }
    assert!(is_good(&report), "{report}");
    for service in [collector, streamer, sinks] {
        service.terminate().await;
    }
    // The root is read-only: state is in the node's directory.
    assert!(image.dir.path().join("node/checkpoints").exists());
    api.cluster.shutdown().await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_resolves_names_from_the_hosts_file_and_from_dns() {
    let Some(image) = Image::make().await else { return };
    let dns = [127, 0, 0, 55];
    name_server((dns, DNS_PORT).into(), &[[127, 0, 0, 1]])
        .await
        .expect("127.0.0.55:53 is free");
    // The name server has another address for this name: only the hosts file leads to the listener.
    image.mount(dns, "127.0.0.1 localhost\n127.0.0.2 in-hosts.example\n");
    let account = image.account("reader", "");
    for (name, addr) in [("in-hosts.example", [127, 0, 0, 2]), ("in-dns.example", [127, 0, 0, 1])] {
        let server = TcpListener::bind(SocketAddr::from((addr, 0))).await.unwrap();
        let url = format!("http://{name}:{}", server.local_addr().unwrap().port());
        let args = ["logs", "shop", "--server", &url].map(str::to_owned);
        let mut command = image.isolated(&account, image.default_user(), args.into_iter());
        let mut reader = tokio::spawn(async move { command.output().await.unwrap() });
        let accepted = bounded(name, async {
            tokio::select! {
                accepted = server.accept() => Ok(accepted.unwrap()),
                ended = &mut reader => Err(ended.unwrap()),
            }
        });
        let (connection, _) = accepted.await.unwrap_or_else(|ended| panic!("{name}: {ended:?}"));
        let mut head = BufReader::new(connection).lines();
        let mut is_named = false;
        while let Some(line) = bounded("a request", head.next_line()).await.unwrap() {
            is_named |= line.to_lowercase().starts_with(&format!("host: {name}:"));
            if line.is_empty() {
                break;
            }
        }
        assert!(is_named, "{name}: the request has another host");
        reader.abort();
    }
}
