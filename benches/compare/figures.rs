//! Measured values: collected by server and measure over the rounds, reduced to medians.

use std::collections::BTreeMap;

/// The repetitions of one measurement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<f64>);

impl Sample {
    /// The middle value, or the mean of the middle two; nothing for an empty sample.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            length if length % 2 == 1 => Some(sorted[middle]),
            _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        }
    }

    /// The smallest and the largest value.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        let smallest = self.0.iter().copied().min_by(f64::total_cmp)?;
        let largest = self.0.iter().copied().max_by(f64::total_cmp)?;
        Some((smallest, largest))
    }
}

impl FromIterator<f64> for Sample {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Samples by server and measure.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<(String, String), Sample>);

impl Figures {
    /// Adds one repetition.
    pub(crate) fn add(&mut self, server: &str, measure: &str, value: f64) {
        self.0
            .entry((server.to_owned(), measure.to_owned()))
            .or_default()
            .0
            .push(value);
    }

    /// The sample, empty when nothing was measured.
    pub(crate) fn of(&self, server: &str, measure: &str) -> Sample {
        self.0
            .get(&(server.to_owned(), measure.to_owned()))
            .cloned()
            .unwrap_or_default()
    }
}
