//! Recognises endpoint challenges and builds the replies that the recipe defines.

use http::Method;

use crate::event::Delivery;
use crate::source::recipe::{Challenge, Recipe, Reply, ReplyPart, TextMatch};
use crate::verify::request_view::RequestView;

/// Returns the reply to an endpoint challenge, or `None` if the request is not a challenge. Considers only the recipe's signed
/// challenges if `authenticated` is true, and only its unsigned challenges otherwise.
pub(super) fn reply(recipe: &Recipe, authenticated: bool, delivery: &Delivery, view: &RequestView<'_>) -> Option<Reply> {
    let is_candidate =
        |challenge: &&Challenge| challenge.authenticated == authenticated && challenge.methods.contains(&delivery.method);
    recipe.challenges.iter().filter(is_candidate).find_map(|challenge| answer(challenge, view))
}

/// Returns true if the recipe has at least one unsigned endpoint challenge with this method.
pub(super) fn any_unsigned(recipe: &Recipe, method: &Method) -> bool {
    recipe.challenges.iter().any(|challenge| !challenge.authenticated && challenge.methods.contains(method))
}

fn answer<'a>(challenge: &'a Challenge, view: &RequestView<'a>) -> Option<Reply> {
    let Challenge { when, status, content_type, body, .. } = challenge;
    let matches = when.iter().all(|(locator, wanted)| match (view.text(locator), wanted) {
        (found, TextMatch::Any) => found.is_some(),
        (found, TextMatch::Exactly(text)) => found == Some(text),
    });
    let part = |part: &ReplyPart| match part {
        ReplyPart::Literal(text) => Some(text.clone()),
        ReplyPart::Echo(locator) => view.text(locator).map(str::to_owned),
    };
    if !matches {
        return None;
    }
    let body: String = body.iter().map(part).collect::<Option<_>>()?;
    Some(Reply { status: *status, content_type: content_type.clone(), body: body.into() })
}

/// Maximum size of the body of an unsigned challenge, in bytes. The sender of such a request is unknown, and hookhold must parse the body.
pub(super) const MAX_UNSIGNED_BODY: usize = 16 << 10;
