//! Tries other signature schemes over the same content: another hash function, encoding or header. A sender may use an older
//! scheme than the recipe expects, such as GitHub's SHA-1 in `X-Hub-Signature`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_PAD_INDIFFERENT, URL_SAFE_PAD_INDIFFERENT};
use hookhold::source::Source;
use hookhold::source::key::Key;
use hookhold::source::recipe::{
    Algorithm, Encoding, MacProof, Proof, PublicKeyAlgorithm, Recipe, SignatureLocator, SignedContent,
};
use hookhold::verify::Verifier;
use http::HeaderName;

use super::captured::CapturedDelivery;
use super::cause::Cause;
use super::search::ProofAttempt;

/// A signature scheme that the sender may have used instead of the recipe's proof.
struct Scheme {
    proof: Proof,
    /// Name of the algorithm.
    algorithm: &'static str,
    encoding: Encoding,
    /// The header with the signature, or `None` for the place that the recipe names.
    header: Option<HeaderName>,
    /// The text before the signature, such as `sha1=`.
    prefix: String,
}

/// Returns the cause if the delivery verifies under another scheme. If it does not verify but has a signature header of an
/// older scheme, returns this cause as likely.
pub(super) fn causes(captured: &CapturedDelivery) -> Vec<Cause> {
    for own in &captured.source.recipe.proofs {
        let (algorithm, signed) = match own {
            Proof::Mac(mac) => (mac.algorithm.word(), &mac.signed),
            Proof::PublicKey(public) => (public.algorithm.word(), &public.signed),
            Proof::Digest(digest) => (digest.algorithm.word(), &digest.signed),
            Proof::Jwt(_) | Proof::Token(_) | Proof::Basic | Proof::None => continue,
        };
        let proved = schemes(captured, own).into_iter().find(|scheme| is_proved(captured, &scheme.proof));
        if let Some(scheme) = proved {
            return vec![cause(captured, algorithm, signed, &scheme)];
        }
    }
    older_header(captured).into_iter().collect()
}

fn is_proved(captured: &CapturedDelivery, proof: &Proof) -> bool {
    let source = &captured.source;
    let mut recipe = Recipe::clone(&source.recipe);
    recipe.proofs = vec![proof.clone()];
    let keys = source.keys.iter().filter_map(|key| Key::decode(key.configured(), key.is_public, &recipe.proofs).ok());
    let other = Source { keys: keys.collect(), recipe: Arc::new(recipe), ..Source::clone(source) };
    ProofAttempt::of(&Verifier::new(other), &captured.delivery).is_proved()
}

fn schemes(captured: &CapturedDelivery, own: &Proof) -> Vec<Scheme> {
    let mut all = Vec::new();
    for (_, encoding) in Encoding::WORDS {
        match own {
            Proof::Mac(mac) => {
                all.extend(Algorithm::WORDS.iter().map(|(word, algorithm)| {
                    let signed = with_code(&mac.signed, Some(algorithm.size()), *encoding);
                    let proof = Proof::Mac(MacProof { algorithm: *algorithm, signed, ..mac.clone() });
                    Scheme { proof, algorithm: word, encoding: *encoding, header: None, prefix: String::new() }
                }));
            }
            Proof::PublicKey(public) => {
                all.extend(PublicKeyAlgorithm::WORDS.iter().map(|(word, algorithm)| {
                    let mut other = public.clone();
                    (other.algorithm, other.signed) = (*algorithm, with_code(&public.signed, algorithm.size(), *encoding));
                    let proof = Proof::PublicKey(other);
                    Scheme { proof, algorithm: word, encoding: *encoding, header: None, prefix: String::new() }
                }));
            }
            _ => {}
        }
    }
    if let Proof::Mac(mac) = own.signed().filter(|signed| !signed.reads_tags).map_or(&Proof::None, |_| own) {
        all.extend(in_other_headers(captured, mac));
    }
    all
}

fn with_code(signed: &SignedContent, code_size: Option<usize>, encoding: Encoding) -> SignedContent {
    SignedContent { code_size, encoding, ..signed.clone() }
}

/// Returns a scheme for each header whose value looks like a hash.
fn in_other_headers(captured: &CapturedDelivery, mac: &MacProof) -> Vec<Scheme> {
    let scheme = |stated: StatedHash| {
        let mut signed = with_code(&mac.signed, Some(stated.algorithm.size()), stated.encoding);
        let format = &mut signed.signature;
        format.from = vec![SignatureLocator::Header(stated.header.clone())];
        (format.groups, format.items, format.pair, format.take) = (None, None, None, Vec::new());
        format.prefix.clone_from(&stated.prefix);
        let proof = Proof::Mac(MacProof { algorithm: stated.algorithm, signed, ..mac.clone() });
        let StatedHash { header, prefix, encoding, algorithm } = stated;
        Scheme { proof, algorithm: algorithm.word(), encoding, header: Some(header), prefix }
    };
    stated_hashes(captured).into_iter().map(scheme).collect()
}

/// A header value that looks like a hash.
struct StatedHash {
    header: HeaderName,
    prefix: String,
    encoding: Encoding,
    /// The hash function whose hashes have this length.
    algorithm: Algorithm,
}

/// Returns the values of the request's headers that look like a hash, at most [`MAX_HEADERS`].
fn stated_hashes(captured: &CapturedDelivery) -> Vec<StatedHash> {
    let mut found = Vec::new();
    for (header, value) in captured.delivery.headers.iter() {
        let Some(text) = value.to_str().ok().filter(|text| text.len() <= MAX_VALUE) else { continue };
        let labelled = text.split_once('=').filter(|(label, code)| label.len() <= MAX_LABEL && code.len() > label.len());
        let labelled = labelled.map(|(label, code)| (format!("{label}="), code));
        for (prefix, code) in [(String::new(), text)].into_iter().chain(labelled) {
            for (encoding, size) in decoded_sizes(code) {
                let algorithm = Algorithm::WORDS.iter().find(|(_, algorithm)| algorithm.size() == size);
                let header = header.clone();
                found.extend(algorithm.map(|(_, algorithm)| StatedHash {
                    header,
                    prefix: prefix.clone(),
                    encoding,
                    algorithm: *algorithm,
                }));
            }
        }
    }
    found.truncate(MAX_HEADERS);
    found
}

/// Returns the number of bytes that the text has in each encoding in which it is readable.
fn decoded_sizes(text: &str) -> impl Iterator<Item = (Encoding, usize)> {
    let hex = base16ct::mixed::decode_vec(text).ok().map(|bytes| (Encoding::Hex, bytes.len()));
    let base64 = STANDARD_PAD_INDIFFERENT.decode(text).ok().map(|bytes| (Encoding::Base64, bytes.len()));
    let url_safe = URL_SAFE_PAD_INDIFFERENT.decode(text).ok().map(|bytes| (Encoding::Base64Url, bytes.len()));
    [hex, base64, url_safe].into_iter().flatten()
}

fn cause(captured: &CapturedDelivery, expected: &str, signed: &SignedContent, scheme: &Scheme) -> Cause {
    let name = &captured.source.name;
    let at = scheme.header.as_ref().map(|header| format!(" in the header {header}")).unwrap_or_default();
    let own = signed.signature.from.iter().map(SignatureLocator::name).collect::<Vec<_>>().join(" or ");
    if scheme.algorithm != expected {
        let what = format!("the sender signs with {}{at}, but the source {name} expects {expected} in {own}", scheme.algorithm);
        let mut change = format!("algorithm = \"{}\"", scheme.algorithm);
        if let Some(header) = &scheme.header {
            change += &format!(" and signature = {{ from = \"header:{header}\", prefix = \"{}\" }}", scheme.prefix);
        }
        let advice = format!(
            "select {expected} at the sender, or find the proxy that removes its header; if the sender offers only {}, set {change} \
             in [sources.{name}]",
            scheme.algorithm
        );
        return Cause::certain("other_algorithm", what, advice);
    }
    let what = format!(
        "the signature is genuine, but it is written in {}{at} with the prefix \"{}\"; the source {name} expects {} in {own} with \
         the prefix \"{}\"",
        scheme.encoding.word(),
        if scheme.header.is_some() { &scheme.prefix } else { &signed.signature.prefix },
        signed.encoding.word(),
        signed.signature.prefix
    );
    let advice = "correct signature and encoding in the recipe, or find the proxy that rewrites the header";
    Cause::certain("signature_format", what, advice)
}

/// Returns a likely cause if the request lacks the recipe's signature header but has one of an older scheme: a header whose
/// name is the beginning of the recipe's, with a hash of another length.
fn older_header(captured: &CapturedDelivery) -> Option<Cause> {
    let own = captured.source.recipe.proof_headers();
    let is_absent = own.iter().all(|name| !captured.delivery.headers.contains_key(name));
    let is_older = |stated: &StatedHash| own.iter().any(|name| name.as_str().starts_with(stated.header.as_str()));
    let stated = stated_hashes(captured).into_iter().find(is_older).filter(|_| is_absent)?;
    let names: Vec<&str> = own.iter().map(HeaderName::as_str).collect();
    let what = format!(
        "the request has a signature with {} in the header {}, but not the header {}",
        stated.algorithm.word(),
        stated.header,
        names.join(" or ")
    );
    let advice = format!(
        "select the newer algorithm at the sender, or update the sender; if both are recent, find the proxy that removes {}",
        names.join(" or ")
    );
    Some(Cause::likely("other_algorithm", what, advice))
}

/// Maximum number of header values to try.
const MAX_HEADERS: usize = 32;
/// Maximum length of a header value that contains a hash, in bytes: SHA-512 in hexadecimal, with a label.
const MAX_VALUE: usize = 160;
/// Maximum length of a label such as `sha256`.
const MAX_LABEL: usize = 16;
