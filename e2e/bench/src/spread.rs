//! What many measurements say together.

use std::fmt;

/// Median, least and most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self {
            median: quantile(&values, 0.5),
            least: quantile(&values, 0.0),
            most: quantile(&values, 1.0),
        }
    }
}

/// Three digits and more.
pub(crate) fn brief(value: f64) -> String {
    format!("{value:.*}", digits(value))
}

/// How many digits after the point say enough.
fn digits(value: f64) -> usize {
    match value.abs() {
        far if far >= 100.0 => 0,
        mid if mid >= 10.0 => 1,
        _ => 2,
    }
}

/// The value below which this share of the sorted values lies; 0 of none.
pub(crate) fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is within it"
    )]
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = digits(self.median);
        let Self {
            median,
            least,
            most,
        } = self;
        write!(f, "{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        let spread = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(spread.to_string(), "2.00 (1.00 to 3.00)");
        assert_eq!(quantile(&[1, 2, 3, 4, 5], 0.99), 5);
        assert_eq!(quantile::<u64>(&[], 0.5), 0);
    }
}
