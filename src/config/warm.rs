//! `[[warm]]`: lists of images that are brought in, and kept up to date, before anybody asks. What is made of them is in
//! `preserve::warm`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::oci::WantedPlatform;

use super::fault::Fault;
use super::images::ImagePattern;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};
use super::upstream::Draft;

/// How often a list may run at the most.
const LEAST_EVERY: Duration = Duration::from_secs(1);

/// One list.
#[derive(Clone, Debug)]
pub struct WarmList {
    /// What is to be here; at least one.
    pub images: Vec<ImagePattern>,
    /// For which platforms; at least one.
    pub platforms: Vec<WantedPlatform>,
    /// When it runs.
    pub when: When,
    /// Whether what it names is never evicted.
    pub pin: bool,
}

/// When a list runs.
#[derive(Clone, Debug)]
pub enum When {
    /// So long after its last run.
    Every(Duration),
    /// At these times.
    Schedule(Schedule),
}

/// A cron expression of five fields, or of six with seconds before them, in local time.
#[derive(Clone)]
pub struct Schedule(pub Box<Cron>);

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build();
        let parsed = parser.parse(text.trim());
        parsed.map(|cron| Self(Box::new(cron))).map_err(|error| {
            format!("`{text}` is no cron expression ({error}): write \"0 3 * * *\" for each night at three")
        })
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}

/// Reads all lists. `mirror` is the prefix of the upstream that a name without prefix and host means.
pub(super) fn read(
    tables: Vec<toml::Table>,
    origin: &Origin,
    upstreams: &[Draft],
    mirror: Option<&str>,
    faults: &mut Vec<Fault>,
) -> Vec<WarmList> {
    let mut lists = Vec::with_capacity(tables.len());
    for (index, table) in tables.into_iter().enumerate() {
        // People count from one.
        let section = Section::of(&format!("warm[{}]", index + 1), table, origin);
        let mut reader = Reader::new(section, keys::WARM, faults);
        let images = reader.take("images", |entry| {
            let images = entry.list(|item| {
                let image: ImagePattern = item.parse()?;
                is_known(&image, upstreams, mirror).map(|()| image)
            })?;
            if images.is_empty() {
                return Err("is empty: name images, like \"docker-hub/library/alpine:3.*\"".to_owned());
            }
            Ok(images)
        });
        if images.is_none() && !reader.failed("images") {
            let reason =
                "is required, like [\"docker-hub/library/alpine:3.*\", \"ghcr.io/acme/base:latest\"]";
            reader.fault(origin, "images", reason);
        }
        let platforms = reader.take("platforms", |entry| {
            let platforms =
                entry.list(|item| item.parse::<WantedPlatform>().map_err(|error| error.to_string()))?;
            if platforms.is_empty() {
                return Err("is empty: leave it out for this machine's own platform".to_owned());
            }
            Ok(platforms)
        });
        let schedule = reader.take_entry("schedule", |entry| entry.filled()?.parse::<Schedule>());
        let every = reader.take("every", |entry| match entry.time_out()? {
            span if span < LEAST_EVERY => Err("must be at least \"1s\"".to_owned()),
            span => Ok(span),
        });
        let pin = reader.take("pin", Entry::boolean).unwrap_or(false);
        let faulty = reader.failed("schedule") || reader.failed("every");
        let when = match (schedule, every) {
            (Some((_, origin)), Some(_)) => {
                reader.fault(
                    &origin,
                    "schedule",
                    "and every are given: one of the two says when it runs",
                );
                None
            }
            (Some((schedule, _)), None) => Some(When::Schedule(schedule)),
            (None, Some(every)) => Some(When::Every(every)),
            (None, None) => {
                if !faulty {
                    let reason = "is required, like \"0 3 * * *\" (cron, local time); or every = \"6h\"";
                    reader.fault(origin, "schedule", reason);
                }
                None
            }
        };
        reader.finish();
        let (Some(images), Some(when)) = (images, when) else {
            continue;
        };
        lists.push(WarmList {
            images,
            platforms: platforms.unwrap_or_else(|| vec![WantedPlatform::host()]),
            when,
            pin,
        });
    }
    lists
}

/// Whether an image belongs to an upstream that there is.
fn is_known(image: &ImagePattern, upstreams: &[Draft], mirror: Option<&str>) -> Result<(), String> {
    let (head, followed) = image.head();
    let is_called = |draft: &&Draft| {
        draft.prefix == head || draft.hosts().iter().any(|host| host.eq_ignore_ascii_case(head))
    };
    match upstreams.iter().find(is_called) {
        Some(upstream) if !upstream.enabled => Err(format!(
            "`{image}`: the upstream `{}` is disabled",
            upstream.prefix
        )),
        Some(_) if !followed => Err(format!("`{image}` is an upstream: a repository has to follow")),
        None if head.contains(['.', ':']) || head == "localhost" => {
            Err(format!("`{image}`: no upstream is configured for {head}"))
        }
        None if mirror.is_none() => Err(format!(
            "`{image}` names no upstream, and cache.mirror is none: write its prefix before it"
        )),
        _ => Ok(()),
    }
}
