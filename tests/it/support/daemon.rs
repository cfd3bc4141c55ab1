//! The daemon under test: the real binary, with a data folder of its own, on free ports. Its log is kept,
//! and printed when a test fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use toml::{Table, Value};

mod log;

use self::log::{Lines, TAIL, parse_listening};
use super::client;
use super::soon;
use super::upstream::Upstream;
use super::zoo::{Internet, Personality};

/// The prefixes that every daemon knows; those that a test does not set up are switched off, so that no test
/// ever asks the world.
const BUILT_IN: [&str; 5] = ["docker-hub", "quay", "github", "ecr-public", "kubernetes"];

/// How to start a daemon.
pub struct Builder {
    config: Table,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    binary: PathBuf,
}

impl Builder {
    /// Sends what has this prefix to a scripted upstream, and nothing but `docker-hub` by default.
    pub fn upstream(self, prefix: &str, upstream: &Upstream) -> Self {
        let key = |name: &str| format!("upstream.{prefix}.{name}");
        let mut builder = self
            .setting(&key("url"), &format!("{:?}", upstream.url()))
            .setting(&key("allow_private"), "true");
        if !BUILT_IN.contains(&prefix) {
            builder = builder.setting(&key("hosts"), &format!("[\"{prefix}.test\"]"));
        }
        builder
    }

    /// Sends what has its prefix to a personality of the zoo, by the way of an outbound proxy.
    pub fn through<P: Personality>(self, internet: &Internet) -> Self {
        let key = |name: &str| format!("upstream.{}.{name}", P::PREFIX);
        let builder = self
            .setting(&key("url"), &format!("\"http://{}\"", P::HOST))
            .setting(&key("proxy"), &format!("{:?}", internet.proxy()));
        P::settings().into_iter().fold(builder, |builder, (name, value)| {
            builder.setting(&key(name), &value)
        })
    }

    /// Sets a key of the configuration to a TOML value: `.setting("cache.tag_ttl", "\"1s\"")`.
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        let parsed: Table = format!("value = {value}").parse().expect("a TOML value");
        let mut path: Vec<&str> = key.split('.').collect();
        let last = path.pop().expect("a key");
        let mut table = &mut self.config;
        for part in path {
            let entry = table.entry(part).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().expect("a table");
        }
        table.insert(last.to_owned(), parsed["value"].clone());
        self
    }

    /// Opens the mirror door.
    pub fn mirror_door(self) -> Self {
        self.setting("server.mirror_listen", "\"127.0.0.1:0\"")
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs another program in its place.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = path.into();
        self
    }

    /// Gives `serve` one more argument.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it, and waits until it listens.
    pub async fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.run().await;
        daemon
    }

    /// Starts what is expected not to come up: gives its exit status, and its log.
    pub async fn fail(self) -> (ExitStatus, Vec<String>) {
        let mut daemon = self.prepare();
        daemon.spawn();
        let status = daemon.exited().await;
        (status, daemon.logs())
    }

    fn prepare(mut self) -> Daemon {
        for prefix in BUILT_IN {
            let given = self
                .config
                .get("upstream")
                .is_some_and(|upstreams| upstreams.get(prefix).is_some());
            if !given {
                self = self.setting(&format!("upstream.{prefix}.enabled"), "false");
                if prefix == "docker-hub"
                    && self.config.get("cache").is_none_or(|c| c.get("mirror").is_none())
                {
                    self = self.setting("cache.mirror", "\"\"");
                }
            }
        }
        let folder = tempfile::Builder::new()
            .prefix("wharfinger-test-")
            .tempdir()
            .expect("a folder");
        let data = folder.path().join("data");
        let mut daemon = Daemon {
            mirror_door: self.config["server"].get("mirror_listen").is_some(),
            folder,
            binary: self.binary,
            environment: self.environment,
            arguments: self.arguments,
            child: None,
            readers: Vec::new(),
            lines: Lines::default(),
            main: None,
            mirror: None,
        };
        self.config
            .entry("storage")
            .or_insert_with(|| Value::Table(Table::new()));
        let storage = self.config["storage"].as_table_mut().expect("a table");
        let data = data.to_str().expect("a plain path").to_owned();
        storage.entry("data_dir").or_insert(Value::String(data));
        daemon.write_config(&self.config);
        daemon
    }
}

/// A daemon with its data folder. Dropped, it is killed, and when the test is failing its log is printed.
pub struct Daemon {
    folder: TempDir,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    /// Arguments of `serve`, beside its configuration.
    arguments: Vec<String>,
    mirror_door: bool,
    child: Option<Child>,
    readers: Vec<JoinHandle<()>>,
    lines: Lines,
    main: Option<SocketAddr>,
    mirror: Option<SocketAddr>,
}

impl Daemon {
    /// A daemon on a free port of 127.0.0.1, without any upstream.
    pub fn builder() -> Builder {
        let builder = Builder {
            config: Table::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            binary: env!("CARGO_BIN_EXE_wharfinger").into(),
        };
        builder.setting("server.listen", "\"127.0.0.1:0\"")
    }

    /// What most tests want: this upstream as Docker Hub, and all defaults.
    pub fn over(upstream: &Upstream) -> Builder {
        Self::builder().upstream("docker-hub", upstream)
    }

    /// The main door: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.main.expect("a daemon that listens"))
    }

    /// The main door's address.
    pub fn address(&self) -> SocketAddr {
        self.main.expect("a daemon that listens")
    }

    /// The mirror door.
    pub fn mirror_url(&self) -> String {
        format!("http://{}", self.mirror.expect("a daemon with a mirror door"))
    }

    /// The URL of a blob on the main door; `name` has the prefix (`docker-hub/library/app`).
    pub fn blob_url(&self, name: &str, digest: &str) -> String {
        format!("{}/v2/{name}/blobs/{digest}", self.url())
    }

    /// The URL of a manifest on the main door.
    pub fn manifest_url(&self, name: &str, reference: &str) -> String {
        format!("{}/v2/{name}/manifests/{reference}", self.url())
    }

    /// The folder that holds all its data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("wharfinger.toml")
    }

    /// The process id, for what /proc says about it.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("a running daemon")
    }

    /// The text of /metrics.
    pub async fn metrics(&self) -> String {
        client::get(format!("{}/metrics", self.url())).await.text()
    }

    /// All lines that it printed, over all its runs.
    pub fn logs(&self) -> Vec<String> {
        self.lines.all()
    }

    /// Waits for a log line with this text, and gives it.
    pub async fn wait_for_log(&self, text: &str) -> String {
        let found = |line: &String| line.contains(text);
        self.lines
            .wait_for(text, |lines| lines.iter().find(|line| found(line)).cloned())
            .await
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.exited().await
    }

    /// Sends it SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end, and does not wait: what is running may finish.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills it (SIGKILL), and waits until it is gone.
    pub async fn kill(&mut self) -> ExitStatus {
        self.signal(Signal::KILL);
        self.exited().await
    }

    /// Starts it again on the same data folder and configuration, after stopping it if it runs. Its ports change.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            self.stop().await;
        }
        self.run().await;
    }

    /// Starts it again after it has ended.
    pub async fn run_again(&mut self) {
        self.run().await;
    }

    /// Starts it again, with more arguments of `serve` from here on.
    pub async fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self.restart().await;
    }

    /// Sets an environment variable for the next start, or takes it away.
    pub fn set_env(&mut self, name: &str, value: Option<&str>) {
        self.environment.retain(|(known, _)| known != name);
        self.environment
            .extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// Starts it again where it is expected not to come up: gives its exit status.
    pub async fn fail_again(&mut self) -> ExitStatus {
        self.spawn();
        self.exited().await
    }

    /// Waits until it ends by itself; its log is whole then.
    pub async fn exited(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("a running daemon");
        let status = soon("the daemon to end", child.wait())
            .await
            .expect("an exit status");
        self.child = None;
        for reader in self.readers.drain(..) {
            let _ = soon("the end of the log", reader).await;
        }
        status
    }

    fn signal(&self, signal: Signal) {
        let id = self.pid();
        let pid = i32::try_from(id)
            .ok()
            .and_then(Pid::from_raw)
            .expect("a process id");
        kill_process(pid, signal).expect("a running daemon");
    }

    fn write_config(&mut self, config: &Table) {
        std::fs::write(self.config_path(), config.to_string()).expect("a writable folder");
    }

    fn spawn(&mut self) {
        let mut command = Command::new(&self.binary);
        command.args([Path::new("serve"), Path::new("--config"), &self.config_path()]);
        command.args(&self.arguments);
        // Nothing of the machine's own settings may reach the daemon.
        for (name, _) in std::env::vars().filter(|(name, _)| is_foreign(name)) {
            command.env_remove(name);
        }
        command
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("a daemon to start");
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        self.readers
            .extend(stdout.map(|stream| tokio::spawn(self.lines.clone().collect(stream))));
        self.readers
            .extend(stderr.map(|stream| tokio::spawn(self.lines.clone().collect(stream))));
        self.child = Some(child);
    }

    /// Starts the process, and waits until it says where it listens.
    async fn run(&mut self) {
        let before = self.logs().len();
        self.spawn();
        let mut child = self.child.take().expect("a daemon that was just started");
        let mirror_wanted = self.mirror_door;
        let listening = self.lines.wait_for("listening", |lines| {
            let doors: Vec<_> = lines[before..]
                .iter()
                .filter_map(|line| parse_listening(line))
                .collect();
            let door = |name| {
                doors
                    .iter()
                    .find(|(door, _)| *door == name)
                    .map(|(_, address)| *address)
            };
            let (main, mirror) = (door("main")?, door("mirror"));
            (mirror.is_some() || !mirror_wanted).then_some((main, mirror))
        });
        tokio::select! {
            (main, mirror) = listening => {
                (self.main, self.mirror) = (Some(main), mirror);
                self.child = Some(child);
                return;
            }
            _ = child.wait() => {}
        }
        self.child = Some(child);
        let status = self.exited().await;
        panic!("the daemon ended at start: {status}\n{}", self.lines.tail());
    }
}

fn is_foreign(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    upper.starts_with("WHARFINGER")
        || upper.starts_with("AWS_")
        || upper.ends_with("_PROXY")
        || upper == "RUST_LOG"
}

impl Drop for Daemon {
    #[expect(
        clippy::print_stderr,
        reason = "the log belongs to the report of a failed test"
    )]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.start_kill();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- the daemon's log, its last {TAIL} lines ---\n{}---",
                self.lines.tail()
            );
        }
    }
}
