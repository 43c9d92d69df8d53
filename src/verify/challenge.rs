//! Recognises endpoint challenges and builds the replies that the recipe defines.

use crate::source::recipe::{Challenge, Recipe, Reply, ReplyPart, TextMatch};
use crate::verify::request_view::RequestView;

/// Returns the reply to an endpoint challenge, or `None` if the request is not a challenge. Considers only the recipe's signed
/// challenges if `authenticated` is true, and only its unsigned challenges otherwise.
pub(super) fn reply(recipe: &Recipe, authenticated: bool, request: &RequestView<'_>) -> Option<Reply> {
    let mut candidates = recipe.challenges.iter().filter(|challenge| challenge.authenticated == authenticated);
    candidates.find_map(|challenge| answer(challenge, request))
}

/// Returns true if the recipe has at least one unsigned endpoint challenge.
pub(super) fn any_unsigned(recipe: &Recipe) -> bool {
    recipe.challenges.iter().any(|challenge| !challenge.authenticated)
}

fn answer(challenge: &Challenge, request: &RequestView<'_>) -> Option<Reply> {
    let Challenge { when, status, content_type, body, .. } = challenge;
    let matches = when.iter().all(|(locator, wanted)| match (request.text(locator), wanted) {
        (found, TextMatch::Any) => found.is_some(),
        (found, TextMatch::Exactly(text)) => found == Some(text),
    });
    let part = |part: &ReplyPart| match part {
        ReplyPart::Literal(text) => Some(text.clone()),
        ReplyPart::Echo(locator) => request.text(locator).map(str::to_owned),
    };
    if !matches {
        return None;
    }
    let body: String = body.iter().map(part).collect::<Option<_>>()?;
    Some(Reply { status: *status, content_type: content_type.clone(), body: body.into() })
}
