//! How many bytes per second we take from an upstream: `bandwidth`, `background_bandwidth`, and other caps at times
//! (`[[upstream.<prefix>.bandwidth_window]]`). Which one holds is a pure function of weekday and minute; who keeps to it
//! is `upstream`.

use super::fault::Fault;
use super::keys;
use super::reader::Reader;
use super::source::{Entry, Origin, Section};

/// Less than this is a slip: a download's first piece alone would take longer than clients wait.
const LEAST: u64 = 16 * 1024;

/// The days as they are written, from Monday on.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// The caps of one upstream, in bytes per second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BandwidthConfig {
    /// What holds where no window says otherwise; `None` is no cap.
    pub always: Option<u64>,
    /// For work that nobody waits for, beside the one for all.
    pub background: Option<u64>,
    /// Other caps at times. The first that is about a time holds.
    pub windows: Vec<BandwidthWindow>,
}

/// A cap at times of the week, in local time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BandwidthWindow {
    /// On which days it begins, from Monday on.
    pub days: [bool; 7],
    /// When it begins, in minutes since midnight.
    pub from: u16,
    /// When it ends; before `from` it is on the day after.
    pub to: u16,
    /// The cap; `None` is no cap.
    pub bandwidth: Option<u64>,
}

impl BandwidthWindow {
    /// Whether it is about this minute of the day. `weekday` counts from Monday, 0.
    fn is_about(&self, weekday: usize, minute: u16) -> bool {
        let begins = |day: usize| self.days[day % 7];
        if self.from < self.to {
            begins(weekday) && (self.from..self.to).contains(&minute)
        } else {
            begins(weekday) && minute >= self.from || begins(weekday + 6) && minute < self.to
        }
    }
}

impl BandwidthConfig {
    /// Whether there is any cap at any time.
    pub fn is_capped(&self) -> bool {
        *self != Self::default()
    }

    /// The cap at a time of the week: `weekday` from Monday, 0; `minute` of the day.
    pub fn at(&self, weekday: usize, minute: u16) -> Option<u64> {
        let window = self
            .windows
            .iter()
            .find(|window| window.is_about(weekday, minute));
        window.map_or(self.always, |window| window.bandwidth)
    }

    /// The keys of an upstream's table.
    pub(super) fn read(reader: &mut Reader<'_>, prefix: &str) -> Draft {
        let form = format!("[[upstream.{prefix}.bandwidth_window]]");
        Draft {
            always: reader.take("bandwidth", cap),
            background: reader.take("background_bandwidth", cap),
            windows: reader.take_entry("bandwidth_window", |entry| entry.tables(&form)),
        }
    }
}

/// What an upstream's table said, its windows not read yet.
pub(super) struct Draft {
    always: Option<u64>,
    background: Option<u64>,
    windows: Option<(Vec<toml::Table>, Origin)>,
}

impl Draft {
    /// Reads the windows.
    pub(super) fn finish(self, prefix: &str, faults: &mut Vec<Fault>) -> BandwidthConfig {
        let (tables, origin) = self.windows.unwrap_or((Vec::new(), Origin::Default));
        let windows = tables.into_iter().enumerate().filter_map(|(index, table)| {
            // People count from one.
            let name = format!("upstream.{prefix}.bandwidth_window[{}]", index + 1);
            read_window(&name, table, &origin, faults)
        });
        BandwidthConfig {
            windows: windows.collect(),
            always: self.always,
            background: self.background,
        }
    }
}

fn read_window(
    name: &str,
    table: toml::Table,
    origin: &Origin,
    faults: &mut Vec<Fault>,
) -> Option<BandwidthWindow> {
    let section = Section::of(name, table, origin);
    let mut reader = Reader::new(section, keys::BANDWIDTH_WINDOW, faults);
    let days = reader.take("days", |entry| entry.list(day));
    let from = reader.take("from", |entry| minute(entry.text()?, DAY - 1));
    let to = reader.take("to", |entry| minute(entry.text()?, DAY));
    let bandwidth = reader.take("bandwidth", |entry| match entry.text() {
        Ok("unlimited") => Ok(None),
        _ => cap(entry).map(Some),
    });
    let mut sound = true;
    for (key, example) in [("from", "08:00"), ("to", "18:00"), ("bandwidth", "10MiB")] {
        let there = match key {
            "from" => from.is_some(),
            "to" => to.is_some(),
            _ => bandwidth.is_some(),
        };
        if !there {
            sound = false;
            if !reader.failed(key) {
                reader.fault(origin, key, format!("is required, like \"{example}\""));
            }
        }
    }
    if from.is_some() && from == to {
        reader.fault(
            origin,
            "to",
            "the window is empty: write from = \"00:00\" and to = \"24:00\" for the whole day",
        );
        sound = false;
    }
    if days.as_ref().is_some_and(Vec::is_empty) {
        reader.fault(origin, "days", "names no day: leave it out for every day");
        sound = false;
    }
    sound &= !reader.failed("days");
    reader.finish();
    let days = days.unwrap_or_else(|| (0..7).collect());
    let window = BandwidthWindow {
        days: std::array::from_fn(|day| days.contains(&day)),
        from: from?,
        to: to?,
        bandwidth: bandwidth?,
    };
    sound.then_some(window)
}

/// Bytes per second.
fn cap(entry: &Entry) -> Result<u64, String> {
    match entry.bytes()? {
        bytes if bytes < LEAST => Err("must be at least \"16KiB\" per second".to_owned()),
        bytes => Ok(bytes),
    }
}

fn day(text: &str) -> Result<usize, String> {
    let known = DAYS.iter().position(|day| text.eq_ignore_ascii_case(day));
    known.ok_or_else(|| format!("`{text}` is no day: write {}", DAYS.join(", ")))
}

/// `HH:MM` in minutes since midnight.
fn minute(text: &str, most: u16) -> Result<u16, String> {
    let is_digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = text
        .split_once(':')
        .filter(|(hour, minute)| is_digits(hour) && is_digits(minute));
    let read = parts.and_then(|(hour, minute)| {
        let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
        Some(hour * 60 + minute).filter(|all| minute < 60 && *all <= most)
    });
    read.ok_or_else(|| format!("`{text}` is no time of the day like \"08:00\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MON: usize = 0;
    const FRI: usize = 4;
    const SAT: usize = 5;
    const SUN: usize = 6;

    fn window(days: &[usize], from: &str, to: &str, bandwidth: Option<u64>) -> BandwidthWindow {
        BandwidthWindow {
            days: std::array::from_fn(|day| days.contains(&day)),
            from: minute(from, DAY - 1).unwrap(),
            to: minute(to, DAY).unwrap(),
            bandwidth,
        }
    }

    #[test]
    fn the_first_window_about_a_time_holds() {
        let config = BandwidthConfig {
            always: Some(50),
            background: None,
            windows: vec![
                window(&[FRI], "22:00", "06:00", None),
                window(&[0, 1, 2, 3, 4], "08:00", "18:00", Some(10)),
                window(&[0, 1, 2, 3, 4, 5, 6], "17:00", "24:00", Some(20)),
            ],
        };
        let table = [
            (MON, "07:59", Some(50)),
            (MON, "08:00", Some(10)),
            // Two windows: the first.
            (MON, "17:30", Some(10)),
            (MON, "18:00", Some(20)),
            (MON, "23:59", Some(20)),
            (SAT, "12:00", Some(50)),
            (SUN, "17:00", Some(20)),
            // Over midnight: it belongs to the day on which it begins.
            (FRI, "21:59", Some(20)),
            (FRI, "22:00", None),
            (SAT, "00:00", None),
            (SAT, "05:59", None),
            (SAT, "06:00", Some(50)),
            (SAT, "22:00", Some(20)),
            (SUN, "03:00", Some(50)),
        ];
        for (day, time, expected) in table {
            let at = config.at(day, minute(time, DAY).unwrap());
            assert_eq!(at, expected, "{} {time}", DAYS[day]);
        }
    }

    #[test]
    fn a_window_over_the_end_of_the_week() {
        let config = BandwidthConfig {
            windows: vec![window(&[SUN], "23:00", "01:00", Some(1))],
            ..BandwidthConfig::default()
        };
        for (day, time, expected) in [
            (SUN, "22:59", None),
            (SUN, "23:00", Some(1)),
            (MON, "00:59", Some(1)),
            (MON, "01:00", None),
            (SUN, "00:30", None),
        ] {
            assert_eq!(config.at(day, minute(time, DAY).unwrap()), expected, "{time}");
        }
    }

    #[test]
    fn times_of_the_day() {
        assert_eq!(minute("08:05", DAY), Ok(485));
        assert_eq!(minute("24:00", DAY), Ok(DAY));
        for text in [
            "8:00",
            "08:60",
            "24:01",
            "25:00",
            "",
            "08",
            "0800",
            "-1:00",
            "08:0a",
            "٠٨:٠٠",
        ] {
            assert!(minute(text, DAY).is_err(), "{text}");
        }
        assert!(minute("24:00", DAY - 1).is_err());
    }
}
