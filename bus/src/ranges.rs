//! Sets of sequence numbers as ranges.

use std::ops::Range;

/// A set of sequence numbers, stored as sorted ranges that neither touch nor overlap. Its size is
/// proportional to the number of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end < range.start);
        let after = self.0.partition_point(|r| r.start <= range.end);
        let merged = if first < after {
            range.start.min(self.0[first].start)..range.end.max(self.0[after - 1].end)
        } else {
            range
        };
        self.0.splice(first..after, [merged]);
    }

    /// Removes a range.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|r| r.end <= range.start);
        let after = self.0.partition_point(|r| r.start < range.end);
        if first >= after {
            return;
        }
        let left = self.0[first].start..range.start;
        let right = range.end..self.0[after - 1].end;
        let kept = [left, right].into_iter().filter(|r| !r.is_empty());
        self.0.splice(first..after, kept);
    }

    /// Returns the parts of `range` that are in the set, in order.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.0.partition_point(|r| r.end <= range.start);
        self.0[first..]
            .iter()
            .take_while({
                let end = range.end;
                move |r| r.start < end
            })
            .map(move |r| r.start.max(range.start)..r.end.min(range.end))
            .filter(|r| !r.is_empty())
    }

    /// Returns the parts of `range` that are not in the set, in order.
    pub fn missing_from(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        for present in self.within(range.clone()) {
            if at < present.start {
                missing.push(at..present.start);
            }
            at = present.end;
        }
        if at < range.end {
            missing.push(at..range.end);
        }
        missing
    }

    /// Returns whether the set contains all of `range`.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.within(range.clone()).next().is_some_and(|r| r == *range)
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set_of_numbers(changes in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..40), from in 0u64..60, len in 0u64..30) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (add, start, len) in changes {
                if add {
                    ranges.insert(start..start + len);
                    model.extend(start..start + len);
                } else {
                    ranges.remove(start..start + len);
                    model.retain(|seq| !(start..start + len).contains(seq));
                }
                prop_assert!(ranges.0.windows(2).all(|pair| pair[0].end < pair[1].start));
                prop_assert!(ranges.0.iter().all(|range| !range.is_empty()));
            }
            let window = from..from + len;
            let inside: Vec<u64> = ranges.within(window.clone()).flatten().collect();
            prop_assert_eq!(&inside, &model.range(window.clone()).copied().collect::<Vec<_>>());
            let outside: Vec<u64> = ranges.missing_from(window.clone()).into_iter().flatten().collect();
            prop_assert_eq!(outside.len() + inside.len(), len as usize);
            prop_assert_eq!(ranges.covers(&window), outside.is_empty());
        }
    }
}
