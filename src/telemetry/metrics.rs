//! The metrics, in a registry of their own: made once by `app`, handed down as `Arc`, rendered for `/metrics`.
//!
//! Looking a child up by its labels costs more than answering a warm manifest, so children of what every request
//! counts are kept by index, and those of an upstream in one [`UpstreamMetrics`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::Collector as _;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::hosted_metrics::HostedMetrics;
use super::preserve_metrics::PreserveMetrics;
use super::storage_metrics::StorageMetrics;
use super::upstream_metrics::{FillMetrics, PullsLeft, UpstreamMetrics, Upstreams};

/// Most values of the labels of a request whose children are kept by index.
const DOORS: usize = 4;
const OPERATIONS: usize = 16;
const OUTCOMES: usize = 8;
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Labels of a request, and the place of the outcome among them.
const LABELS: [&str; 4] = ["door", "operation", "outcome", "status"];
const OUTCOME: usize = 2;

/// Seconds to the first byte: from a warm manifest to an upstream's time-out.
const BUCKETS: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// A value of a label, and its place among the values of that label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its place, from 0.
    pub index: usize,
    /// The value.
    pub text: &'static str,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_children: Box<[OnceLock<IntCounter>]>,
    seconds: HistogramVec,
    seconds_children: [OnceLock<Histogram>; OPERATIONS],
    fills_running: IntGauge,
    offline: IntGauge,
    certificate_ends: IntGaugeVec,
    log_lines_lost: IntCounterVec,
    /// What happens to what is kept.
    pub storage: StorageMetrics,
    /// What is taken away from hosted repositories.
    pub hosted: HostedMetrics,
    /// What is done so that things are here tomorrow.
    pub preserve: PreserveMetrics,
    process_start: IntGauge,
    upstreams: Upstreams,
    by_prefix: RwLock<HashMap<Box<str>, Arc<UpstreamMetrics>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let family = Families { registry: &registry };
        let build = family.gauges(
            "wharfinger_build_info",
            "What is running; always 1.",
            &["version"],
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let process_start = family.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
        );
        let requests = family.counters(
            "wharfinger_requests_total",
            "Requests that have ended, by door, operation, what the cache did, and class of the status.",
            &LABELS,
        );
        let log_lines_lost = family.counters(
            "wharfinger_log_lines_lost_total",
            "Lines of the access log or the audit log that could not be written, or not fast enough.",
            &["log"],
        );
        let seconds = family.histograms(
            "wharfinger_request_seconds",
            "Seconds until the first byte of the response.",
            &["operation"],
        );
        let fills_running = family.gauge(
            "wharfinger_fills_running",
            "Downloads from upstreams in progress.",
        );
        let offline = family.gauge(
            "wharfinger_offline",
            "Whether nothing is asked of any upstream: 1 or 0.",
        );
        let certificate_ends = family.gauges(
            "wharfinger_tls_certificate_expiry_timestamp_seconds",
            "When the certificate that clients are shown ends, or the first of its chain, in seconds since 1970.",
            &["names"],
        );
        let storage = StorageMetrics::new(&family);
        let hosted = HostedMetrics::new(&family);
        let preserve = PreserveMetrics::new(&family);
        let upstreams = Upstreams {
            response_bytes: family.counters(
                "wharfinger_response_bytes_total",
                "Bytes of bodies sent to clients, by upstream and what the cache did.",
                &["upstream", "outcome"],
            ),
            bytes_in: family.counters(
                "wharfinger_upstream_bytes_total",
                "Bytes of content received from upstreams.",
                &["upstream"],
            ),
            fills: family.counters(
                "wharfinger_fills_total",
                "Downloads of blobs that have ended, by result.",
                &["upstream", "result"],
            ),
            requests: family.counters(
                "wharfinger_upstream_requests_total",
                "Requests to upstreams, redirects and retries each counted, by kind and status (or why there was none).",
                &["upstream", "kind", "status"],
            ),
            limit: family.gauges(
                "wharfinger_upstream_ratelimit_limit",
                "Pulls in a window, as the upstream told last, by the credential that they are spent with.",
                &["upstream", "credential"],
            ),
            remaining: family.gauges(
                "wharfinger_upstream_ratelimit_remaining",
                "Pulls that are left, as the upstream told last, less what was spent since.",
                &["upstream", "credential"],
            ),
            reset: family.gauges(
                "wharfinger_upstream_ratelimit_reset_timestamp_seconds",
                "When all pulls are back at the latest, or the first ones when none are left, in seconds since 1970.",
                &["upstream", "credential"],
            ),
            empty: family.gauges(
                "wharfinger_upstream_ratelimit_empty_seconds",
                "In how many seconds no pulls are left at the present rate; absent while they last.",
                &["upstream", "credential"],
            ),
            saved: family.counters(
                "wharfinger_upstream_pulls_saved_total",
                "Manifests that clients pulled without costing a pull, over all runs of the daemon.",
                &["upstream"],
            ),
            held: family.counters(
                "wharfinger_upstream_pulls_held_total",
                "Requests that were not made because they would have cost a pull, by what they were for.",
                &["upstream", "purpose"],
            ),
            slowdown: family.gauges(
                "wharfinger_upstream_slowdown_milliseconds",
                "The time between two requests to a host that refused too many; 0 when it is asked as usual.",
                &["upstream", "host"],
            ),
            open: family.gauges(
                "wharfinger_upstream_endpoint_open",
                "1 while the breaker of an endpoint is open or half-open: it failed too often and is left alone.",
                &["upstream", "host"],
            ),
            hedges: family.counters(
                "wharfinger_upstream_hedges_total",
                "Requests that were raced on a second endpoint because the first was late, by whether the second won.",
                &["upstream", "result"],
            ),
            moved_on: family.counters(
                "wharfinger_upstream_moved_on_total",
                "Downloads that came more slowly than min_rate and went on over another connection.",
                &["upstream"],
            ),
            bandwidth: family.gauges(
                "wharfinger_upstream_bandwidth_limit_bytes",
                "The bandwidth cap that holds now, in bytes per second; 0 where there is none at this time.",
                &["upstream"],
            ),
            waited: family.seconds(
                "wharfinger_upstream_waited_seconds_total",
                "Seconds that we held requests and downloads back, for a turn at the host or for the bandwidth cap.",
                &["upstream", "for"],
            ),
            set_aside: family.gauges(
                "wharfinger_upstream_credential_set_aside",
                "Whether a credential is set aside, because it was refused or cannot be had: 1, or 0.",
                &["upstream", "credential"],
            ),
        };
        let children = DOORS * OPERATIONS * OUTCOMES * CLASSES.len();
        Self {
            requests,
            request_children: std::iter::repeat_with(OnceLock::new).take(children).collect(),
            seconds,
            seconds_children: [const { OnceLock::new() }; OPERATIONS],
            fills_running,
            offline,
            certificate_ends,
            log_lines_lost,
            storage,
            hosted,
            preserve,
            process_start,
            upstreams,
            by_prefix: RwLock::default(),
            registry,
        }
    }

    /// Tells when the process started, in seconds since 1970.
    pub fn started_at(&self, unix_seconds: u64) {
        self.process_start
            .set(i64::try_from(unix_seconds).unwrap_or(i64::MAX));
    }

    /// Whether nothing is asked of any upstream.
    pub fn offline(&self, on: bool) {
        self.offline.set(i64::from(on));
    }

    /// The certificate that clients are shown from now on, and when it ends.
    pub fn certificate(&self, names: &str, ends: i64) {
        self.certificate_ends.reset();
        self.certificate_ends.with_label_values(&[names]).set(ends);
    }

    /// One request has ended.
    pub fn request(&self, door: Word, operation: Word, outcome: Word, status: u16, first_byte: Duration) {
        let class = match usize::from(status / 100) {
            class if class < CLASSES.len() => class,
            _ => 0,
        };
        let labels = [door.text, operation.text, outcome.text, CLASSES[class]];
        let fits = door.index < DOORS && operation.index < OPERATIONS && outcome.index < OUTCOMES;
        let place =
            ((door.index * OPERATIONS + operation.index) * OUTCOMES + outcome.index) * CLASSES.len() + class;
        match self.request_children.get(place) {
            Some(child) if fits => child
                .get_or_init(|| self.requests.with_label_values(&labels))
                .inc(),
            _ => self.requests.with_label_values(&labels).inc(),
        }
        let seconds = first_byte.as_secs_f64();
        match self.seconds_children.get(operation.index) {
            Some(child) => child
                .get_or_init(|| self.seconds.with_label_values(&[operation.text]))
                .observe(seconds),
            None => self.seconds.with_label_values(&[operation.text]).observe(seconds),
        }
    }

    /// The metrics of the upstream with this prefix. The prefix must come from the configuration, never from a
    /// client: each one is kept.
    pub fn upstream(&self, prefix: &str) -> Arc<UpstreamMetrics> {
        let known = self
            .by_prefix
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(prefix)
            .cloned();
        known.unwrap_or_else(|| {
            let mut all = self.by_prefix.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(UpstreamMetrics::new(prefix, &self.upstreams));
            all.entry(prefix.into()).or_insert_with(new).clone()
        })
    }

    /// A fill has begun; it runs until the returned value says how it ended.
    pub fn fill_started(&self, prefix: &str) -> FillMetrics {
        FillMetrics::new(self.fills_running.clone(), self.upstream(prefix))
    }

    /// So many bytes of content came from an upstream.
    pub fn bytes_in(&self, prefix: &str, bytes: u64) {
        self.upstream(prefix).bytes_in(bytes);
    }

    /// One HTTP request to an upstream has ended: with this status, or the word of why there was none.
    pub fn upstream_request(&self, prefix: &str, kind: &str, status: &str) {
        self.upstreams
            .requests
            .with_label_values(&[prefix, kind, status])
            .inc();
        self.upstream(prefix).request_ended(status);
    }

    /// The breaker of an endpoint opened or closed.
    pub fn endpoint_open(&self, prefix: &str, host: &str, open: bool) {
        let gauge = self.upstreams.open.with_label_values(&[prefix, host]);
        gauge.set(i64::from(open));
    }

    /// A request was raced on a second endpoint.
    pub fn hedge(&self, prefix: &str, won: bool) {
        let result = if won { "won" } else { "lost" };
        self.upstreams.hedges.with_label_values(&[prefix, result]).inc();
    }

    /// A download went on over another connection because it came too slowly.
    pub fn moved_on(&self, prefix: &str) {
        self.upstreams.moved_on.with_label_values(&[prefix]).inc();
    }

    /// What is known of the pulls that a credential has left.
    pub fn pulls_left(&self, prefix: &str, credential: &str, told: PullsLeft) {
        let families = &self.upstreams;
        let labels = [prefix, credential];
        for (gauges, value) in [
            (&families.limit, told.limit),
            (&families.remaining, told.left),
            (&families.reset, told.back_at),
            (&families.empty, told.lasts),
        ] {
            match value {
                Some(value) => gauges
                    .with_label_values(&labels)
                    .set(i64::try_from(value).unwrap_or(i64::MAX)),
                // It was not there, at worst.
                None => drop(gauges.remove_label_values(&labels)),
            }
        }
    }

    /// The bandwidth cap that holds for an upstream, in bytes per second; `None` is no cap.
    pub fn bandwidth(&self, prefix: &str, limit: Option<u64>) {
        let limit = i64::try_from(limit.unwrap_or(0)).unwrap_or(i64::MAX);
        self.upstreams.bandwidth.with_label_values(&[prefix]).set(limit);
    }

    /// A request to an upstream, or a download, was held back for so long.
    pub fn waited(&self, prefix: &str, what: &str, time: Duration) {
        let waited = self.upstreams.waited.with_label_values(&[prefix, what]);
        waited.inc_by(time.as_secs_f64());
    }

    /// A credential of an upstream was set aside, or is used.
    pub fn credential_set_aside(&self, prefix: &str, name: &str, set_aside: bool) {
        self.upstreams
            .set_aside
            .with_label_values(&[prefix, name])
            .set(i64::from(set_aside));
    }

    /// So many more manifests were pulled without costing a pull.
    pub fn pulls_saved(&self, prefix: &str, more: u64) {
        self.upstreams.saved.with_label_values(&[prefix]).inc_by(more);
    }

    /// A request was not made because it would have cost a pull.
    pub fn pull_held(&self, prefix: &str, purpose: &str) {
        self.upstreams.held.with_label_values(&[prefix, purpose]).inc();
    }

    /// A host is asked at this interval at most; zero for as usual.
    pub fn slowed(&self, prefix: &str, host: &str, interval: Duration) {
        let gauge = self.upstreams.slowdown.with_label_values(&[prefix, host]);
        gauge.set(i64::try_from(interval.as_millis()).unwrap_or(i64::MAX));
    }

    /// Requests that have ended, by what the cache did for them.
    pub fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut outcomes = BTreeMap::new();
        for family in self.requests.collect() {
            for child in family.get_metric() {
                let label = |name| child.get_label().iter().find(|label| label.name() == name);
                let values = LABELS.map(|name| label(name).map_or("", |label| label.value()));
                let sum = outcomes.entry(values[OUTCOME].to_owned()).or_insert(0);
                *sum += self.requests.with_label_values(&values).get();
            }
        }
        outcomes
    }

    /// Lines of a log that were lost. It is told from now on, as zero at first.
    pub(super) fn log_lines_lost(&self, log: &str) -> IntCounter {
        self.log_lines_lost.with_label_values(&[log])
    }

    /// Everything in the text format of Prometheus, version 0.0.4.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| format!("# {error}\n"))
    }
}

/// Makes families and registers them.
pub(super) struct Families<'a> {
    registry: &'a Registry,
}

#[expect(
    clippy::expect_used,
    reason = "names and labels are constants, and a test makes every family"
)]
impl Families<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("a metric's name and labels are valid");
        self.registry
            .register(Box::new(family.clone()))
            .expect("a metric's name is used once");
        family
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> CounterVec {
        self.add(CounterVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    pub(super) fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.add(HistogramVec::new(
            HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()),
            labels,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(index: usize, text: &'static str) -> Word {
        Word { index, text }
    }

    #[test]
    fn requests_are_counted_with_and_without_a_kept_child() {
        let metrics = Metrics::new();
        let time = Duration::from_micros(80);
        for _ in 0..2 {
            metrics.request(word(0, "main"), word(1, "manifest"), word(0, "hit"), 200, time);
        }
        metrics.request(word(0, "main"), word(99, "new"), word(99, "odd"), 404, time);
        let text = metrics.render();
        for line in [
            r#"wharfinger_requests_total{door="main",operation="manifest",outcome="hit",status="2xx"} 2"#,
            r#"wharfinger_requests_total{door="main",operation="new",outcome="odd",status="4xx"} 1"#,
            r#"wharfinger_request_seconds_bucket{operation="manifest",le="0.0001"} 2"#,
            concat!(
                r#"wharfinger_build_info{version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""} 1"#
            ),
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let outcomes = metrics.outcomes();
        assert_eq!((outcomes["hit"], outcomes["odd"]), (2, 1));
    }

    #[test]
    fn health_is_the_last_that_was_heard() {
        let metrics = Metrics::new();
        let health = || metrics.upstream("quay").health();
        assert!(!health().is_failing() && health().answered.is_none());
        for (status, failing) in [
            ("200", false),
            ("429", true),
            ("404", false),
            ("503", true),
            ("401", false),
            ("timeout", true),
            ("307", false),
        ] {
            metrics.upstream_request("quay", "blob", status);
            assert_eq!(health().is_failing(), failing, "{status}");
        }
        assert_eq!(&*health().failed.unwrap().1, "timeout");
    }

    #[test]
    fn an_upstream_and_its_fills() {
        let metrics = Metrics::new();
        let first = metrics.fill_started("quay");
        let second = metrics.fill_started("quay");
        let third = metrics.fill_started("quay");
        assert!(metrics.render().contains("wharfinger_fills_running 3"));
        first.completed();
        second.failed();
        drop(third);
        metrics.bytes_in("quay", 5);
        metrics.upstream("quay").bytes_out(word(0, "hit"), 7);
        metrics.upstream("quay").bytes_out(word(50, "odd"), 8);
        metrics.upstream_request("quay", "blob", "200");
        metrics.bandwidth("quay", Some(1 << 20));
        metrics.bandwidth("github", None);
        metrics.waited("quay", "turn", Duration::from_millis(1500));
        let told = |left, lasts| PullsLeft {
            limit: Some(100),
            left: Some(left),
            back_at: Some(17),
            lasts,
        };
        metrics.pulls_left("quay", "ci", told(43, Some(3600)));
        assert!(metrics.render().contains("_empty_seconds{"));
        metrics.pulls_left("quay", "ci", told(42, None));
        metrics.pulls_saved("quay", 3);
        metrics.pull_held("quay", "refresh");
        metrics.slowed("quay", "quay.io", Duration::from_millis(500));
        metrics.started_at(17);
        let text = metrics.render();
        for line in [
            "wharfinger_fills_running 0",
            r#"wharfinger_fills_total{result="completed",upstream="quay"} 1"#,
            r#"wharfinger_fills_total{result="failed",upstream="quay"} 1"#,
            r#"wharfinger_fills_total{result="abandoned",upstream="quay"} 1"#,
            r#"wharfinger_upstream_bytes_total{upstream="quay"} 5"#,
            r#"wharfinger_response_bytes_total{outcome="hit",upstream="quay"} 7"#,
            r#"wharfinger_response_bytes_total{outcome="odd",upstream="quay"} 8"#,
            r#"wharfinger_upstream_requests_total{kind="blob",status="200",upstream="quay"} 1"#,
            r#"wharfinger_upstream_bandwidth_limit_bytes{upstream="quay"} 1048576"#,
            r#"wharfinger_upstream_bandwidth_limit_bytes{upstream="github"} 0"#,
            r#"wharfinger_upstream_waited_seconds_total{for="turn",upstream="quay"} 1.5"#,
            r#"wharfinger_upstream_ratelimit_limit{credential="ci",upstream="quay"} 100"#,
            r#"wharfinger_upstream_ratelimit_remaining{credential="ci",upstream="quay"} 42"#,
            r#"wharfinger_upstream_ratelimit_reset_timestamp_seconds{credential="ci",upstream="quay"} 17"#,
            r#"wharfinger_upstream_pulls_saved_total{upstream="quay"} 3"#,
            r#"wharfinger_upstream_pulls_held_total{purpose="refresh",upstream="quay"} 1"#,
            r#"wharfinger_upstream_slowdown_milliseconds{host="quay.io",upstream="quay"} 500"#,
            "process_start_time_seconds 17",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("_empty_seconds{"));
    }
}
