//! Counting what happens, without asking what for.
//!
//! The surprising idea: a bucket for each power of two, so that counting is one instruction to find it and one
//! addition, and two cores' counts add up. Costs: 248 bytes a histogram.

/// How often each size of something has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; Self::BUCKETS],
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; Self::BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// Bucket `k` holds what is at most 2^k and more than half of that; the last one also whatever is more.
    pub const BUCKETS: usize = 30;

    /// One more of this size.
    pub const fn count(&mut self, size: u64) {
        let bits = 64 - size.saturating_sub(1).leading_zeros() as usize;
        self.counts[if bits < Self::BUCKETS { bits } else { Self::BUCKETS - 1 }] += 1;
        self.sum = self.sum.saturating_add(size);
    }

    /// Adds what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many there were in each bucket.
    #[must_use]
    pub const fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// How many there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All sizes together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_has_its_bucket() {
        for (size, bucket) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3), (9, 4), (1 << 20, 20), (u64::MAX, 29)]
        {
            let mut histogram = Histogram::default();
            histogram.count(size);
            let found = histogram.counts().iter().position(|count| *count == 1);
            assert_eq!((found, histogram.total(), histogram.sum()), (Some(bucket), 1, size), "{size}");
        }
    }

    #[test]
    fn counts_of_two_cores_add_up() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        [1, 5].into_iter().for_each(|size| one.count(size));
        [5, 100].into_iter().for_each(|size| two.count(size));
        one.add(&two);
        assert_eq!((one.total(), one.sum(), one.counts()[3]), (4, 111, 2));
    }
}
