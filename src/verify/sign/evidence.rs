//! The signature or token of a sample.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, header};

use super::draft::{EvidencePlace, FILLER, SampleDraft};
use super::{SampleOptions, Tamper};
use crate::clock::UnixMillis;
use crate::event::Delivery;
use crate::source::Source;
use crate::source::recipe::{DigestProof, HashClaim, JwtProof, Locator, MacProof, Proof, SignatureLocator, SignedContent};
use crate::verify::content::Content;
use crate::verify::hash::{Hash, hash};
use crate::verify::proof::jwt;
use crate::verify::proof::mac::MacKey;
use crate::verify::request_view::{RequestView, Tag, body_facts};
use crate::verify::signing_input::{SigningInput, encode};
use crate::verify::work::Work;

/// The secret that signs a sample.
pub(super) struct Signer {
    /// Bytes of the secret, or of another secret if the sample is invalid in this way.
    pub(super) secret: Vec<u8>,
    /// Index of the secret among the secrets of its proof.
    pub(super) slot: usize,
}

impl SampleDraft<'_> {
    /// Returns the signature or token of the sample, with its place in the request. Returns `None` if the recipe requires no
    /// proof, or if the signature is in a place that a sample cannot fill.
    pub(super) fn evidence(
        &self,
        source: &Source,
        proof: &Proof,
        signer: &Signer,
        body: &Bytes,
        options: &SampleOptions,
    ) -> Option<(EvidencePlace, Vec<u8>)> {
        match proof {
            Proof::Mac(MacProof { algorithm, signed, .. }) => {
                let place = signature_place(signed, signer)?;
                let code = |content: &Content<'_>| MacKey::new(*algorithm, &signer.secret).mac(content);
                Some((place, self.signature(source, signed, signer, body, code).into()))
            }
            Proof::Digest(DigestProof { algorithm, signed, .. }) => {
                let place = signature_place(signed, signer)?;
                let code = |content: &Content<'_>| hash(*algorithm, content.parts());
                Some((place, self.signature(source, signed, signer, body, code).into()))
            }
            Proof::Token(proof) => Some((token_place(&proof.from)?, [proof.prefix.as_bytes(), &signer.secret].concat())),
            Proof::Basic => {
                let credentials = format!("Basic {}", STANDARD.encode(&signer.secret));
                Some((EvidencePlace::Header(header::AUTHORIZATION), credentials.into()))
            }
            Proof::Jwt(proof) => {
                let token = self.token(source, proof, signer, body, options)?;
                Some((token_place(&proof.from)?, format!("{}{token}", proof.prefix).into()))
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
        let body = body_facts(&source.recipe.pointers, &delivery.body);
        let view = RequestView::new(&delivery, &body.values).with_tags(&tags, 0);
        let view = body.items.list.first().map_or(view, |item| view.with_item(item));
        let work = Work::default();
        let input = SigningInput::new(source, signed, &delivery, &work);
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

    /// Returns a token with the claims that the recipe requires or reads, and with the hashes of body and URL.
    fn token(&self, source: &Source, proof: &JwtProof, signer: &Signer, body: &[u8], options: &SampleOptions) -> Option<String> {
        let read = self.claims.iter().chain(&proof.claims);
        let mut claims: BTreeMap<&str, SampleClaim> =
            read.map(|(name, value)| (&**name, SampleClaim::Text(value.clone()))).collect();
        let now = options.now.0 / 1000;
        let begins = if options.tamper == Some(Tamper::Future) { now + HOUR_S } else { now };
        let ends = if options.tamper == Some(Tamper::Stale) { now.saturating_sub(HOUR_S) } else { now + HOUR_S };
        claims.extend([("iat", begins), ("nbf", begins), ("exp", ends)].map(|(name, time)| (name, SampleClaim::Seconds(time))));
        let hashed = |rule: &HashClaim, parts: &[&[u8]]| {
            let text = encode(rule.encoding, hash(rule.algorithm, parts.iter().copied()).bytes());
            (rule.name.clone(), text)
        };
        let public_url = source.public_url.as_ref().map(|url| url.as_written()).unwrap_or_default();
        let body_hash = proof.body_claim.as_ref().map(|rule| hashed(rule, &[body]));
        let url_hash = proof.url_claim.as_ref().map(|rule| hashed(rule, &[public_url.as_bytes(), self.target.as_bytes()]));
        for (name, text) in body_hash.iter().chain(&url_hash) {
            claims.insert(name, SampleClaim::Text(text.clone()));
        }
        let header = jsonwebtoken::Header::new(jwt::library(*proof.algorithms.first()?));
        jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_secret(&signer.secret).ok()?).ok()
    }
}

fn signature_place(signed: &SignedContent, signer: &Signer) -> Option<EvidencePlace> {
    let slot = if signed.in_slots { signer.slot } else { 0 };
    match signed.signature.from.get(slot)? {
        SignatureLocator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        SignatureLocator::NumberedHeaders(prefix) => format!("{prefix}1").parse().ok().map(EvidencePlace::Header),
        SignatureLocator::Other(locator) => place(locator),
    }
}

fn token_place(from: &[Locator]) -> Option<EvidencePlace> {
    place(from.first()?)
}

fn place(locator: &Locator) -> Option<EvidencePlace> {
    match locator {
        Locator::Header(name) => Some(EvidencePlace::Header(name.clone())),
        Locator::Query(name) => Some(EvidencePlace::Query(name.clone())),
        Locator::Body(slot) => Some(EvidencePlace::Body(*slot)),
        Locator::Item(slot) => Some(EvidencePlace::Item(*slot)),
        _ => None,
    }
}

/// A claim of a sample's token.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum SampleClaim {
    Text(String),
    Seconds(u64),
}

/// Lifetime of a sample token, in seconds.
const HOUR_S: u64 = 3600;
