//! Dashboards ask only for metrics that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Names of metrics in an expression of PromQL.
fn metrics(expression: &str) -> impl Iterator<Item = &str> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("wharfinger_"))
}

#[test]
fn every_query_names_metrics_that_the_daemon_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/telemetry/metrics.rs")).expect("the metrics' source");
    let known: BTreeSet<_> = metrics(&source).collect();
    let mut asked = 0;
    let mut shows = BTreeSet::new();
    for entry in fs::read_dir(root.join("dashboards")).expect("a folder of dashboards") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a dashboard");
        let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let panels = dashboard["panels"].as_array().expect("panels");
        for target in panels
            .iter()
            .filter_map(|panel| panel["targets"].as_array())
            .flatten()
        {
            for metric in metrics(target["expr"].as_str().expect("an expression")) {
                let family = metric.strip_suffix("_bucket").unwrap_or(metric);
                assert!(known.contains(family), "{} asks for {metric}", path.display());
                asked += 1;
                shows.insert(family.to_owned());
            }
        }
    }
    assert!(asked > 5, "the dashboards ask for something");
    // What tells that an upstream, or what may be asked of it, is not as it should be.
    for shown in [
        "ratelimit_remaining",
        "ratelimit_empty_seconds",
        "pulls_saved_total",
        "pulls_held_total",
        "slowdown_milliseconds",
        "endpoint_open",
        "hedges_total",
        "moved_on_total",
        "credential_set_aside",
        "waited_seconds_total",
    ] {
        let name = format!("wharfinger_upstream_{shown}");
        assert!(shows.contains(&name), "no panel shows {name}");
    }
}
