//! Parses the option `--rate` of `send` and of `replay`.

/// Parses a number of deliveries per second, such as `500` or `500/s`.
pub(super) fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>().ok();
    let number = number.filter(|rate| (0.001..=1e9).contains(rate));
    number.ok_or_else(|| format!("expected a number of deliveries per second from 0.001 to 1e9, such as 500/s, found {text:?}"))
}
