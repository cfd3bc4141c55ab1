//! An upstream's pulls in words: what is left with which credential, until when, what was saved, what was held back. Pure.

use crate::cache::report::{BudgetReport, SlowedReport, UpstreamReport, span};

use super::show::{count, number};

/// A row for each thing that there is to say, the upstream's prefix in the first of them. None where nothing was pulled.
pub(super) fn rows(upstream: &UpstreamReport) -> Vec<Vec<String>> {
    let mut lines: Vec<String> = upstream.budgets.iter().map(budget).collect();
    if let Some(percent) = upstream.ttl_percent {
        let (whole, tenth) = (percent / 100, percent % 100 / 10);
        lines.push(format!(
            "tags are fresh {whole}.{tenth} times as long as configured, since few pulls are left"
        ));
    }
    let held = &upstream.held;
    let held: Vec<String> = [
        (held.miss, "for waiting clients"),
        (held.refresh, "to refresh copies"),
        (held.background, "in the background"),
    ]
    .into_iter()
    .filter(|(times, _)| *times > 0)
    .map(|(times, what)| format!("{} {what}", number(times)))
    .collect();
    if !held.is_empty() {
        lines.push(format!("requests not made, to keep pulls: {}", held.join(", ")));
    }
    lines.extend(upstream.slowed.iter().map(slowed));
    if upstream.pulls_saved > 0 {
        lines.push(format!("{} saved so far", count(upstream.pulls_saved, "pull")));
    }
    let first = std::iter::once(upstream.prefix.clone()).chain(std::iter::repeat(String::new()));
    first
        .zip(lines)
        .map(|(prefix, line)| vec![prefix, line])
        .collect()
}

fn budget(budget: &BudgetReport) -> String {
    let mut text = match budget.credential.as_str() {
        "anonymous" => "without a login".to_owned(),
        name => format!("as {name}"),
    };
    if let Some(source) = &budget.source {
        text = format!("{text} ({source})");
    }
    let left = match (budget.remaining, budget.limit) {
        (Some(left), Some(limit)) => format!("{} of {} left", number(left), count(limit, "pull")),
        (Some(left), None) => format!("{} left", count(left, "pull")),
        (None, Some(limit)) => format!("a limit of {}", count(limit, "pull")),
        (None, None) => "an unknown number of pulls left".to_owned(),
    };
    text = format!("{text}: {left}");
    if let Some(back) = budget.back_seconds {
        let what = if budget.exhausted { "some" } else { "all" };
        text = format!("{text}, {what} back within {}", span(back));
    }
    if let Some(empty) = budget.empty_seconds {
        text = format!("{text}, none left in {} at the present rate", span(empty));
    }
    text
}

fn slowed(slowed: &SlowedReport) -> String {
    let host = &slowed.host;
    if slowed.pause_seconds > 0 {
        let pause = span(slowed.pause_seconds);
        return format!("{host} refuses too many requests: not asked for {pause}");
    }
    let seconds = slowed.interval_millis as f64 / 1000.0;
    format!("{host} refused too many requests: asked every {seconds:.1} s at most")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::report::{HeldReport, UpstreamState};

    fn upstream() -> UpstreamReport {
        UpstreamReport {
            prefix: "docker-hub".to_owned(),
            url: "https://registry-1.docker.io/".to_owned(),
            state: UpstreamState::Well,
            answered_seconds: None,
            failed_seconds: None,
            failure: None,
            endpoints: Vec::new(),
            limit: None,
            remaining: None,
            ttl_percent: None,
            budgets: Vec::new(),
            pulls_saved: 0,
            held: HeldReport::default(),
            slowed: Vec::new(),
            bandwidth: None,
            credentials: Vec::new(),
        }
    }

    #[test]
    fn nothing_to_say() {
        assert!(rows(&upstream()).is_empty());
    }

    #[test]
    fn everything_in_words() {
        let told = |credential: &str, remaining, back_seconds, empty_seconds| BudgetReport {
            credential: credential.to_owned(),
            source: (credential == "anonymous").then(|| "192.0.2.7".to_owned()),
            limit: Some(200),
            remaining: Some(remaining),
            back_seconds,
            empty_seconds,
            exhausted: remaining == 0,
        };
        let slowed = |pause_seconds| SlowedReport {
            host: "registry-1.docker.io".to_owned(),
            interval_millis: 500,
            pause_seconds,
        };
        let report = UpstreamReport {
            ttl_percent: Some(247),
            budgets: vec![
                told("ci", 76, Some(15_000), Some(21_600)),
                told("anonymous", 0, Some(60), None),
                told("new", 200, None, None),
            ],
            pulls_saved: 1204,
            held: HeldReport {
                background: 5,
                refresh: 0,
                miss: 1,
            },
            slowed: vec![slowed(0), slowed(7)],
            ..upstream()
        };
        let rows = rows(&report);
        let lines: Vec<_> = rows.iter().map(|row| row[1].as_str()).collect();
        let expected = [
            "as ci: 76 of 200 pulls left, all back within 4h 10m, none left in 6h at the present rate",
            "without a login (192.0.2.7): 0 of 200 pulls left, some back within 1m",
            "as new: 200 of 200 pulls left",
            "tags are fresh 2.4 times as long as configured, since few pulls are left",
            "requests not made, to keep pulls: 1 for waiting clients, 5 in the background",
            "registry-1.docker.io refused too many requests: asked every 0.5 s at most",
            "registry-1.docker.io refuses too many requests: not asked for 7s",
            "1,204 pulls saved so far",
        ];
        assert_eq!(lines, expected);
        assert_eq!((rows[0][0].as_str(), rows[1][0].as_str()), ("docker-hub", ""));
    }
}
