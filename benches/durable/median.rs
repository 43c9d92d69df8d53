//! Computes the median of a small sample, and a confidence interval that assumes nothing about the distribution.

/// Median of a sample, with a confidence interval between two order statistics.
pub struct Median {
    pub value: f64,
    /// Confidence interval of the median. `None` if the sample has fewer than six values. The interval from the smallest to the
    /// largest value of such a sample covers the true median with a probability below 95 %.
    pub interval: Option<Interval>,
}

/// Narrowest symmetric confidence interval between two order statistics. The interval covers the true median with a probability
/// of 95 % or more.
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// Ranks of `low` and `high` in the sorted sample, counted from 1.
    pub ranks: (usize, usize),
    /// Probability that the interval covers the true median. The probability depends only on the sample size.
    pub coverage: f64,
}

impl Median {
    /// Returns the median of a non-empty sample and the confidence interval of the median.
    pub fn of(sample: &[f64]) -> Median {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let value = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        let interval = rank(count).map(|(rank, coverage)| {
            let ranks = (rank, count + 1 - rank);
            Interval { low: sorted[ranks.0 - 1], high: sorted[ranks.1 - 1], ranks, coverage }
        });
        Median { value, interval }
    }
}

/// Returns the lower rank of the narrowest interval whose coverage is at least 95 %, and the coverage of this interval. The
/// coverage is the probability that the interval covers the true median. Returns `None` if a sample of `count` values is too
/// small for such an interval.
///
/// Computes the coverage from a binomial distribution: each value is below the median with probability ½, so the number of
/// values below the median has such a distribution. The interval between ranks `r` and `n + 1 - r` misses the median if fewer
/// than `r` values are on one side of the median. The probability of a miss is `2 · P(B(n, ½) < r)`.
fn rank(count: usize) -> Option<(usize, f64)> {
    let mut probability = 0.5_f64.powi(count as i32);
    let mut below = 0.0;
    let mut found = None;
    for rank in 1..=count / 2 {
        below += probability;
        if 1.0 - 2.0 * below < CONFIDENCE {
            break;
        }
        found = Some((rank, 1.0 - 2.0 * below));
        probability *= (count - rank + 1) as f64 / rank as f64;
    }
    found
}

const CONFIDENCE: f64 = 0.95;
