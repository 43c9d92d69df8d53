//! Tries other orders of the query parameters. Some senders sign a URL as the operator wrote it, and then call it with its
//! parameters in another order.

use hookhold::log::escaped;
use hookhold::verify::Verifier;

use super::captured::CapturedDelivery;
use super::cause::Cause;
use super::search::ProofAttempt;

/// Returns the cause if the delivery verifies with another order of the query parameters. Returns an empty list if the
/// signature covers no query, or if no order verifies.
pub(super) fn causes(captured: &CapturedDelivery) -> Vec<Cause> {
    let target = &captured.delivery.target;
    let Some((path, query)) = target.split_once('?').filter(|_| captured.source.recipe.signs_query()) else { return Vec::new() };
    let parameters: Vec<&str> = query.split('&').collect();
    let verifier = Verifier::new(captured.source.clone());
    let mut delivery = captured.delivery.clone();
    let most = (MAX_BYTES / (delivery.body.len() + target.len()).max(1)).clamp(MIN_ORDERS, MAX_ORDERS);
    for order in orders(&parameters).take(most) {
        delivery.target = format!("{path}?{}", order.join("&"));
        if delivery.target != *target && ProofAttempt::of(&verifier, &delivery).is_proved() {
            return vec![cause(&order)];
        }
    }
    Vec::new()
}

fn cause(order: &[&str]) -> Cause {
    let names: Vec<String> = order.iter().map(|pair| escaped(pair.split('=').next().unwrap_or_default())).collect();
    let what = format!(
        "the sender signed the query parameters in the order {}, but called the URL with another order",
        names.join(", ")
    );
    let advice = "sort the query parameters by name in the URL that you enter at the sender, or find the proxy that sorts them";
    Cause::certain("query_order", what, advice)
}

/// Yields orders of the parameters, starting with the likeliest: sorted by name, in descending order of the name, sorted by name
/// and value, and reversed. Then yields every other order.
fn orders<'q>(parameters: &[&'q str]) -> impl Iterator<Item = Vec<&'q str>> + use<'q> {
    let name = |pair: &&'q str| pair.split('=').next().unwrap_or_default();
    let mut by_name = parameters.to_vec();
    by_name.sort_by_key(name);
    let mut descending = by_name.clone();
    descending.reverse();
    let mut by_value = parameters.to_vec();
    by_value.sort_unstable();
    let mut reversed = parameters.to_vec();
    reversed.reverse();
    [by_name, descending, by_value, reversed].into_iter().chain(Permutations::of(parameters.to_vec()))
}

/// Every order of a list, by Heap's algorithm.
struct Permutations<T> {
    items: Vec<T>,
    counters: Vec<usize>,
    at: usize,
}

impl<T> Permutations<T> {
    fn of(items: Vec<T>) -> Permutations<T> {
        Permutations { counters: vec![0; items.len()], items, at: 0 }
    }
}

impl<T: Clone> Iterator for Permutations<T> {
    type Item = Vec<T>;

    /// Returns the next order. The first order is the one after the original.
    fn next(&mut self) -> Option<Vec<T>> {
        while self.at < self.items.len() {
            if self.counters[self.at] < self.at {
                let other = if self.at.is_multiple_of(2) { 0 } else { self.counters[self.at] };
                self.items.swap(other, self.at);
                self.counters[self.at] += 1;
                self.at = 0;
                return Some(self.items.clone());
            }
            self.counters[self.at] = 0;
            self.at += 1;
        }
        None
    }
}

/// Maximum number of orders to try: every order of up to seven parameters. For more parameters, the search tries only some.
const MAX_ORDERS: usize = 5_044;
/// Number of orders to try even if the body is large.
const MIN_ORDERS: usize = 24;
/// Maximum number of bytes to hash for all orders together, unless this allows fewer than [`MIN_ORDERS`].
const MAX_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_order_of_seven_parameters_is_tried() {
        let parameters = ["a=1", "b=2", "c", "d=", "e=5", "a=6", "g=7"];
        let all: BTreeSet<String> = orders(&parameters).take(MAX_ORDERS).map(|order| order.join("&")).collect();
        assert_eq!(all.len(), 5_039, "all except the one that arrived");
        assert_eq!(orders(&["b", "a"]).next(), Some(vec!["a", "b"]));
        assert_eq!(orders(&["a"; 40]).take(MAX_ORDERS).count(), MAX_ORDERS);
    }
}
