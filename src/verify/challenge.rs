//! Endpoint checks of providers: recognised and answered as the recipe says.

use crate::source::recipe::{Challenge, Part, Recipe, Reply};
use crate::verify::request_view::RequestView;

/// The reply to the challenge that a delivery is, if it is one of those that are signed, or of those that are not.
pub fn reply(recipe: &Recipe, authenticated: bool, site: &RequestView<'_>) -> Option<Reply> {
    let mut candidates = recipe.challenges.iter().filter(|challenge| challenge.authenticated == authenticated);
    candidates.find_map(|challenge| answer(challenge, site))
}

/// True when the recipe knows challenges without a signature.
pub fn any_unsigned(recipe: &Recipe) -> bool {
    recipe.challenges.iter().any(|challenge| !challenge.authenticated)
}

fn answer(challenge: &Challenge, site: &RequestView<'_>) -> Option<Reply> {
    let Challenge { when, status, content_type, body, .. } = challenge;
    let fits = when.iter().all(|(at, wanted)| {
        let found = site.text(at);
        found.is_some() && (wanted.is_none() || found == wanted.as_deref())
    });
    let part = |part: &Part| match part {
        Part::Literal(text) => Some(text.clone()),
        Part::Echo(at) => site.text(at).map(str::to_owned),
    };
    if !fits {
        return None;
    }
    let body: String = body.iter().map(part).collect::<Option<_>>()?;
    Some(Reply { status: *status, content_type: content_type.clone(), body: body.into() })
}
