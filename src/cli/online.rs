//! `check-config --online`: asks every upstream that is enabled, all at once, and tells what is wrong in the form of the
//! configuration's own faults. Nothing of the data folder is touched; a daemon may run or not.

use std::process::ExitCode;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{complain, say};
use crate::config::{Config, Fault};
use crate::upstream::Upstream;

/// Prints what is wrong, a line each. Exit status 1 when there is anything.
pub(super) fn check(config: &Config) -> ExitCode {
    if config.cache.offline {
        say("The configuration is valid. cache.offline is on, so no upstream was asked");
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("wharfinger: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let faults = runtime.block_on(ask(config));
    // A name look-up may still be on its way.
    runtime.shutdown_background();
    if faults.is_empty() {
        let prefixes: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| upstream.prefix.as_str())
            .collect();
        say(&format!(
            "The configuration is valid, and its upstreams answer: {}",
            prefixes.join(", ")
        ));
        return ExitCode::SUCCESS;
    }
    for fault in faults {
        complain(&fault.to_string());
    }
    ExitCode::FAILURE
}

async fn ask(config: &Config) -> Vec<Fault> {
    let all = config.upstreams.iter().map(|upstream| async move {
        match Upstream::new(upstream.clone(), Arc::new(())) {
            Ok(made) => made.check().await,
            Err(error) => vec![upstream.written.fault(error.to_string())],
        }
    });
    join_all(all).await.into_iter().flatten().collect()
}
