//! The signature or token of a sample.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderName, Method, header};

use super::SampleOptions;
use super::draft::{FILLER, SampleDraft};
use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::source::Source;
use crate::source::recipe::{DigestProof, JwtProof, Locator, MacProof, Proof, SignatureLocator, SignedContent};
use crate::verify::content::Content;
use crate::verify::hash::{Hash, hash};
use crate::verify::proof::jwt;
use crate::verify::proof::mac::MacKey;
use crate::verify::request_view::{RequestView, Tag, body_values};
use crate::verify::signing_input::{SigningInput, encode};

/// The place of a signature or token in a sample.
pub(super) enum EvidencePlace {
    Header(HeaderName),
    Query(String),
}

/// The secret that signs a sample.
pub(super) struct Signer {
    /// Bytes of the secret, or of another secret if the sample is invalid in this way.
    pub(super) secret: Vec<u8>,
}

impl SampleDraft {
    /// Returns the signature or token of the sample, with its place in the request. Returns `None` if the recipe requires no
    /// proof, or if the signature is in a place that a sample cannot fill.
    pub(super) fn evidence(
        &self,
        source: &Source,
        proof: &Proof,
        signer: &Signer,
        body: &Bytes,
        options: &SampleOptions,
    ) -> Option<(EvidencePlace, String)> {
        let text = || String::from_utf8_lossy(&signer.secret).into_owned();
        match proof {
            Proof::Mac(MacProof { algorithm, signed, .. }) => {
                let place = signature_place(signed)?;
                let code = |content: &Content<'_>| MacKey::new(*algorithm, &signer.secret).mac(content);
                Some((place, self.signature(source, signed, signer, body, code)))
            }
            Proof::Digest(DigestProof { algorithm, signed, .. }) => {
                let place = signature_place(signed)?;
                let code = |content: &Content<'_>| hash(*algorithm, content.parts());
                Some((place, self.signature(source, signed, signer, body, code)))
            }
            Proof::Token(proof) => Some((token_place(&proof.from)?, format!("{}{}", proof.prefix, text()))),
            Proof::Basic => {
                let credentials = format!("Basic {}", STANDARD.encode(&signer.secret));
                Some((EvidencePlace::Header(header::AUTHORIZATION), credentials))
            }
            Proof::Jwt(proof) => {
                Some((token_place(&proof.from)?, format!("{}{}", proof.prefix, token(proof, signer, body, options)?)))
            }
            Proof::PublicKey(_) | Proof::None => None,
        }
    }

    fn signature(
        &self,
        source: &Source,
        signed: &SignedContent,
        signer: &Signer,
        body: &Bytes,
        code: impl Fn(&Content<'_>) -> Hash,
    ) -> String {
        let tags: Vec<Tag<'_>> = self.tags.iter().map(|(name, value)| Tag { group: 0, name, value }).collect();
        let delivery = Delivery {
            method: Method::POST,
            target: self.target.clone(),
            headers: self.headers.clone(),
            body: body.clone(),
            remote: (Ipv4Addr::UNSPECIFIED, 0).into(),
            received_at: UnixMillis(0),
        };
        let values = body_values(&source.recipe.pointers, &delivery.body);
        let view = RequestView::new(&delivery, &values).with_tags(&tags, 0);
        let input = SigningInput::new(source, signed, &delivery);
        // Building the content fails if the form has more fields than the verifier accepts, or if the sample does not contain a
        // signed part.
        let Ok(content) = input.content(&signed.contents[0], &view, &signer.secret) else { return FILLER.to_owned() };
        self.with_tags(signed, &encode(signed.encoding, code(&content).bytes()))
    }

    fn with_tags(&self, signed: &SignedContent, code: &str) -> String {
        let format = &signed.signature;
        let code = format!("{}{code}", format.prefix);
        let Some(pair) = &format.pair else { return code };
        let tags = self.tags.iter().map(|(tag, value)| format!("{tag}{pair}{value}"));
        let items: Vec<String> = tags.chain([format!("{}{pair}{code}", format.take[0])]).collect();
        items.join(format.items.as_deref().unwrap_or_default())
    }
}

fn signature_place(signed: &SignedContent) -> Option<EvidencePlace> {
    signed.signature.from.iter().find_map(|locator| match locator {
        SignatureLocator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        SignatureLocator::NumberedHeaders(prefix) => format!("{prefix}1").parse().ok().map(EvidencePlace::Header),
        SignatureLocator::Other(Locator::Query(name)) => Some(EvidencePlace::Query(name.clone())),
        SignatureLocator::Other(_) => None,
    })
}

fn token_place(from: &[Locator]) -> Option<EvidencePlace> {
    from.iter().find_map(|locator| match locator {
        Locator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        Locator::Query(name) => Some(EvidencePlace::Query(name.clone())),
        _ => None,
    })
}

/// A claim of a sample's token.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum SampleClaim {
    Text(String),
    Seconds(u64),
}

/// Returns a token with the claims that the recipe requires and the hash of the body.
fn token(proof: &JwtProof, signer: &Signer, body: &[u8], options: &SampleOptions) -> Option<String> {
    let text = |text: &str| SampleClaim::Text(text.to_owned());
    let mut claims: BTreeMap<&str, SampleClaim> = proof.claims.iter().map(|(name, value)| (&**name, text(value))).collect();
    claims.insert("iat", SampleClaim::Seconds(options.now.0 / 1000));
    claims.insert("jti", text(&options.id));
    if let Some(rule) = &proof.body_claim {
        claims.insert(&rule.name, SampleClaim::Text(encode(rule.encoding, hash(rule.algorithm, [body].into_iter()).bytes())));
    }
    let header = jsonwebtoken::Header::new(jwt::library(*proof.algorithms.first()?));
    jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&signer.secret).ok()?).ok()
}
