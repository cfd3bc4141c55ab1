//! Jobs from end to end, with one of the test's own: started through the socket by what the subcommands use, told while
//! they run, stopped when nobody listens.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use wharfinger::api::{Api, Entrance, Logs, Options};
use wharfinger::app::open_access;
use wharfinger::cache::Cache;
use wharfinger::cli::{CallError, Told, job};
use wharfinger::clock::Timestamp;
use wharfinger::config::{Config, StorageConfig};
use wharfinger::job::{Job, Jobs, Progress, Unit};
use wharfinger::registry::{Hosted, Names, Ours, OwnAddresses, Registry, Templates};
use wharfinger::server::{Drain, Limits, Server, bind_local};
use wharfinger::storage::Storage;
use wharfinger::telemetry::{AccessLog, AuditLog, Metrics};

use crate::support::prelude::*;

/// Counts, one step for each permit, and says when it was stopped.
struct Count {
    permits: Arc<Semaphore>,
    stopped: Arc<Semaphore>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    to: u64,
}

impl Job for Count {
    const NAME: &'static str = "count";
    type Options = To;
    type Summary = Value;

    async fn run(&self, options: To, progress: Progress) -> Result<Value, String> {
        for at in 0..options.to {
            tokio::select! {
                permit = self.permits.acquire() => permit.map_err(|error| error.to_string())?.forget(),
                () = progress.stopped() => {
                    self.stopped.add_permits(1);
                    return Err("stopped".to_owned());
                }
            }
            progress.at(at + 1, Some(options.to), Unit::Items);
        }
        if options.to == 13 {
            return Err("no job counts to 13".to_owned());
        }
        Ok(json!({ "counted": options.to }))
    }
}

/// An admin door with that job.
struct Door {
    folder: tempfile::TempDir,
    config: Config,
    api: Api,
    drain: Drain,
    permits: Arc<Semaphore>,
    stopped: Arc<Semaphore>,
}

fn door() -> Door {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a plain path");
    let text = format!("[storage]\ndata_dir = {path:?}\n");
    let config = Config::from_toml_str(&text, "test.toml").expect("a configuration");
    let (permits, stopped) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let metrics = Arc::new(Metrics::new());
    let storage = Storage::open(&StorageConfig::in_folder(folder.path().to_owned())).expect("a data folder");
    let cache = Cache::new(storage, metrics.clone(), tokio::runtime::Handle::current());
    let hosted = Hosted::new(
        cache.repositories().clone(),
        cache.storage().index.clone(),
        cache.storage().blobs.clone(),
        cache.storage().uploads.clone(),
        std::time::Duration::from_hours(1),
        Timestamp::now(),
    );
    let ours = Ours {
        hosted,
        templates: Templates::default(),
        namespaces: Vec::new(),
    };
    let (access, _) = open_access(&config, false, &cache).expect("logins");
    let registry = Registry::new(cache, Names::new(&[], None), OwnAddresses::default(), ours);
    let count = Count {
        permits: permits.clone(),
        stopped: stopped.clone(),
    };
    let options = Options {
        admin_on_main: true,
        trusted_proxies: Vec::new(),
        allow_plain_http: false,
        no_logins: None,
        public_url: None,
        service: String::new(),
        answer_timeout: std::time::Duration::from_secs(25),
        body_timeout: std::time::Duration::from_mins(1),
        data_dir: String::new(),
        transfers: Arc::default(),
    };
    let api = Api::new(
        Arc::new(registry),
        access,
        metrics,
        Logs {
            access: AccessLog::off(),
            audit: AuditLog::off(),
        },
        Jobs::new().with(count),
        options,
    );
    let drain = Drain::new();
    let server = Server::new(Limits::default(), drain.clone());
    let bound = bind_local(&folder.path().join("admin.sock")).expect("a socket");
    let served = api.clone();
    tokio::spawn(async move {
        server
            .serve_local(bound, move |connection| {
                served.service(Entrance::Local, connection)
            })
            .await;
    });
    Door {
        folder,
        config,
        api,
        drain,
        permits,
        stopped,
    }
}

impl Door {
    async fn run(&self, options: &Value) -> Result<Told, CallError> {
        let words = |result: &Value| format!("counted to {}", result["counted"]);
        soon("the job", job::run(&self.config, "count", options, false, words)).await
    }

    /// Starts it and waits for its first step.
    async fn begin(&self, options: &Value) -> JoinHandle<Result<Told, CallError>> {
        let (config, options) = (self.config.clone(), options.clone());
        let client =
            tokio::spawn(async move { job::run(&config, "count", &options, false, |_| String::new()).await });
        self.permits.add_permits(1);
        let step = async {
            while self.permits.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
        };
        soon("its first step", step).await;
        client
    }
}

#[tokio::test]
async fn a_job_is_told_to_its_end() {
    let door = door();
    door.permits.add_permits(3);
    let told = door.run(&json!({ "to": 3 })).await.expect("an end");
    assert_eq!((told.text.as_str(), told.well), ("counted to 3", true));
    door.permits.add_permits(13);
    let told = door.run(&json!({ "to": 13 })).await.expect("an end");
    assert_eq!(
        (told.text.as_str(), told.well),
        ("count: no job counts to 13", false)
    );
    let faulty = door.run(&json!({ "two": 1 })).await.err().expect("a refusal");
    assert!(faulty.to_string().contains("two"), "{faulty}");
    assert!(door.folder.path().exists());
}

#[tokio::test]
async fn one_at_a_time_and_it_stops_with_its_client() {
    let door = door();
    let first = door.begin(&json!({ "to": 2 })).await;
    let refused = door.run(&json!({ "to": 1 })).await.err().expect("a refusal");
    assert_eq!(refused.to_string(), "count is running already");
    first.abort();
    let stopped = soon("the job to be stopped", door.stopped.acquire()).await;
    stopped.expect("open").forget();
}

#[tokio::test]
async fn the_daemons_end_stops_it() {
    let door = door();
    let client = door.begin(&json!({ "to": 2 })).await;
    door.drain.start();
    door.api.jobs().stop();
    soon("the jobs' end", door.api.jobs().ended()).await;
    let told = client.await.expect("no panic").expect("an end");
    assert_eq!((told.text.as_str(), told.well), ("count: stopped", false));
}
