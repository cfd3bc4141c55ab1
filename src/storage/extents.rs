//! Which bytes of a partial file are there: spans in order that neither overlap nor touch. Called by the growing file
//! and its fill.

use serde::{Deserialize, Serialize};

/// A set of bytes, as `start..end` spans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Extents(Vec<(u64, u64)>);

impl Extents {
    /// The first `end` bytes.
    pub fn from_start(end: u64) -> Self {
        let mut extents = Self::default();
        extents.insert(0, end);
        extents
    }

    /// Adds `start..end`.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        // All spans that touch the new one become one with it.
        let first = self.0.partition_point(|(_, other)| *other < start);
        let last = self.0.partition_point(|(other, _)| *other <= end);
        match self.0.get(first..last) {
            Some([(head, _), .., (_, tail)]) => {
                let merged = (start.min(*head), end.max(*tail));
                self.0.splice(first..last, [merged]);
            }
            Some([(head, tail)]) => {
                let merged = (start.min(*head), end.max(*tail));
                self.0[first] = merged;
            }
            _ => self.0.insert(first, (start, end)),
        }
    }

    /// Up to where bytes are there without a hole from `position` on; `position` itself when it is in a hole.
    pub fn end_from(&self, position: u64) -> u64 {
        let next = self.0.partition_point(|(_, end)| *end <= position);
        match self.0.get(next) {
            Some((start, end)) if *start <= position => *end,
            _ => position,
        }
    }

    /// Where the first span after `position` begins.
    pub fn next_start(&self, position: u64) -> Option<u64> {
        let next = self.0.partition_point(|(start, _)| *start <= position);
        self.0.get(next).map(|(start, _)| *start)
    }

    /// The number of bytes.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether these are spans in order, apart, and inside `size`: true of all that [`Extents::insert`] made, not of
    /// what a file says.
    pub fn is_sound(&self, size: Option<u64>) -> bool {
        self.0.iter().all(|(start, end)| start < end)
            && self.0.windows(2).all(|pair| pair[0].1 < pair[1].0)
            && self
                .0
                .last()
                .is_none_or(|(_, end)| size.is_none_or(|size| *end <= size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_vector_of_bytes(spans in prop::collection::vec((0u64..64, 0u64..16), 0..24)) {
            let mut extents = Extents::default();
            let mut bytes = [false; 80];
            for (start, length) in spans {
                extents.insert(start, start + length);
                bytes[start as usize..(start + length) as usize].fill(true);
                prop_assert!(extents.is_sound(Some(80)));
                prop_assert_eq!(extents.total(), bytes.iter().filter(|there| **there).count() as u64);
                for position in 0..80 {
                    let end = (position..80).find(|at| !bytes[*at]).unwrap_or(80);
                    prop_assert_eq!(extents.end_from(position as u64), end as u64);
                    let next = (position + 1..80).find(|at| bytes[*at] && !bytes[*at - 1]);
                    prop_assert_eq!(extents.next_start(position as u64), next.map(|at| at as u64));
                }
            }
            let text = serde_json::to_string(&extents).unwrap();
            prop_assert_eq!(serde_json::from_str::<Extents>(&text).unwrap(), extents);
        }
    }

    #[test]
    fn what_a_file_says_is_judged() {
        let judge = |text: &str| serde_json::from_str::<Extents>(text).unwrap().is_sound(Some(10));
        assert!(judge("[]") && judge("[[0,3],[5,10]]"));
        for bad in ["[[3,3]]", "[[0,5],[5,6]]", "[[5,6],[0,2]]", "[[0,11]]"] {
            assert!(!judge(bad), "{bad}");
        }
    }
}
