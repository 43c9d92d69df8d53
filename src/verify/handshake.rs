//! Endpoint checks of providers: recognised and answered as the recipe says.

use crate::source::recipe::{Handshake, Part, Recipe, Reply};
use crate::verify::site::Site;

/// The reply to the handshake that a delivery is, if it is one of those that are signed, or of those that are not.
pub fn reply(recipe: &Recipe, authenticated: bool, site: &Site<'_>) -> Option<Reply> {
    let mut candidates = recipe.handshakes.iter().filter(|handshake| handshake.authenticated == authenticated);
    candidates.find_map(|handshake| answer(handshake, site))
}

/// True when the recipe knows handshakes without a signature.
pub fn any_unsigned(recipe: &Recipe) -> bool {
    recipe.handshakes.iter().any(|handshake| !handshake.authenticated)
}

fn answer(handshake: &Handshake, site: &Site<'_>) -> Option<Reply> {
    let Handshake { when, status, content_type, body, .. } = handshake;
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
