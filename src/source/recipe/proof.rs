//! The kinds of proof that a recipe can name. A proof describes where a delivery carries its signature or token, and which
//! bytes the signature covers. The verifier checks the proof with the keys of the source.

use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::{Algorithm, Coverage, Encoding, KeyFetch, KeyFormat, Locator, SignatureFormat, SignatureLocator, Term, Timestamp};

/// One way in which a sender proves that a delivery is genuine. A recipe lists at least one proof, and a delivery is genuine if
/// any of them holds.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A message authentication code (HMAC) over parts of the request.
    Mac(MacProof),
    /// A plain hash over parts of the request and the secret itself.
    Digest(DigestProof),
    /// A public-key signature over parts of the request.
    PublicKey(PublicKeyProof),
    /// A JSON Web Token (RFC 7519), with or without a claim that contains a hash of the body.
    Jwt(JwtProof),
    /// A secret text that the request carries as it is.
    Token(TokenProof),
    /// User name and password in the header `Authorization` (RFC 7617).
    Basic,
    /// No proof: the source accepts every delivery from the addresses in `allow_from`.
    None,
}

/// A signature with a message authentication code (MAC).
#[derive(Clone, Debug)]
pub struct MacProof {
    /// The hash function of the HMAC.
    pub algorithm: Algorithm,
    /// The steps that decode a configured secret into the bytes of the key.
    pub key_format: KeyFormat,
    /// The signature and the signed content.
    pub signed: SignedContent,
}

/// A plain hash. The content contains the term [`Term::Secret`].
#[derive(Clone, Debug)]
pub struct DigestProof {
    /// The hash function.
    pub algorithm: Algorithm,
    /// The steps that decode a configured secret into the bytes that the content contains.
    pub key_format: KeyFormat,
    /// The signature and the signed content.
    pub signed: SignedContent,
}

/// A public-key signature.
#[derive(Clone, Debug)]
pub struct PublicKeyProof {
    /// The signature algorithm.
    pub algorithm: PublicKeyAlgorithm,
    /// The text format of a configured public key.
    pub key_format: PublicKeyFormat,
    /// The place where the sender publishes its keys, or `None` if a delivery does not name its key.
    pub fetch: Option<KeyFetch>,
    /// The signature and the signed content.
    pub signed: SignedContent,
}

/// A JSON Web Token.
#[derive(Clone, Debug)]
pub struct JwtProof {
    /// The locators of the token. The verifier uses the first text that is present.
    pub from: Vec<Locator>,
    /// The prefix of the token, such as `Bearer `. Upper and lower case are equivalent.
    pub prefix: String,
    /// The accepted algorithms, at least one, all with the same kind of key.
    pub algorithms: Vec<JwtAlgorithm>,
    /// The text format of a configured public key. Unused for HMAC algorithms.
    pub public_key_format: PublicKeyFormat,
    /// The place where the sender publishes its keys, or `None` if a delivery does not name its key.
    pub fetch: Option<KeyFetch>,
    /// The steps that decode a configured secret. Unused for algorithms with public keys.
    pub key_format: KeyFormat,
    /// The claims that the token must contain, with their values.
    pub claims: Vec<(String, String)>,
    /// The claim that contains the hash of the body, or `None` if the token does not cover the body.
    pub body_claim: Option<HashClaim>,
    /// The claim that contains the hash of the URL, or `None` if the token does not cover the URL.
    pub url_claim: Option<HashClaim>,
    /// The maximum age of the token by its claim `iat`, or `None` if only `exp` and `nbf` limit its use.
    pub max_age: Option<Duration>,
    /// The parts of an event that the token covers.
    pub coverage: Coverage,
}

/// A token claim that contains a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashClaim {
    /// The name of the claim.
    pub name: String,
    /// The hash function.
    pub algorithm: Algorithm,
    /// The encoding of the hash.
    pub encoding: Encoding,
}

/// A secret text that the request carries as it is.
#[derive(Clone, Debug)]
pub struct TokenProof {
    /// The locators of the token. The verifier accepts the token at any of them.
    pub from: Vec<Locator>,
    /// The prefix of the token, such as `Bearer `, or an empty string.
    pub prefix: String,
    /// The steps that decode a configured secret into the bytes of the token.
    pub key_format: KeyFormat,
}

/// The signature of a delivery and the bytes that it covers.
#[derive(Clone, Debug)]
pub struct SignedContent {
    /// The encoding of the signatures.
    pub encoding: Encoding,
    /// The length of a signature in bytes, or `None` if the length depends on the key.
    pub code_size: Option<usize>,
    /// The location of the signatures, and their syntax.
    pub signature: SignatureFormat,
    /// The alternatives of the signed content, at least one. Each alternative is an ordered list of terms. The sender may sign
    /// any of the alternatives.
    pub contents: Vec<Vec<Term>>,
    /// The location and tolerance of the signed timestamp, or `None` if the sender signs no timestamp.
    pub timestamp: Option<Timestamp>,
    /// True if the signature covers the decoded fields of a form instead of the body's bytes.
    pub signs_form: bool,
    /// True if the signed content, the timestamp or an event locator reads a tag of the signature header. In that case, the
    /// verifier checks each group of signatures separately.
    pub reads_tags: bool,
    /// True if the signature, the timestamp or the content contains a value from inside the body, so that the verifier must
    /// parse the body before it can check the proof.
    pub reads_body: bool,
    /// True if signature `i` is valid only with key `i`, in the order of the locators and of the configured keys.
    pub in_slots: bool,
    /// True if every item of the batch carries its own signature, and all of them must hold. The locators of the signature, the
    /// content and the timestamp then refer to an item.
    pub by_item: bool,
    /// The query parameter that contains the hash of the body in a signed URL, or `None` if the sender signs the body itself.
    pub body_hash: Option<super::BodyHash>,
    /// The parts of an event that the signature covers. hookhold computes the coverage from the other parameters. A recipe
    /// cannot declare its own coverage.
    pub coverage: Coverage,
}

/// A public-key signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyAlgorithm {
    /// Ed25519 (RFC 8032), 64 bytes.
    Ed25519,
    /// ECDSA over P-256 with SHA-256, as an ASN.1 DER sequence.
    EcdsaP256Der,
    /// ECDSA over P-256 with SHA-256, as two integers of 32 bytes.
    EcdsaP256Fixed,
    /// RSA PKCS#1 v1.5 with SHA-1, for keys of 1,024 to 8,192 bits. Only for senders that offer nothing better.
    RsaPkcs1Sha1,
    /// RSA PKCS#1 v1.5 with SHA-256, for keys of 2,048 to 8,192 bits.
    RsaPkcs1Sha256,
    /// RSA PKCS#1 v1.5 with SHA-512, for keys of 2,048 to 8,192 bits.
    RsaPkcs1Sha512,
    /// RSA-PSS with SHA-256, for keys of 2,048 to 8,192 bits.
    RsaPssSha256,
    /// RSA-PSS with SHA-512, for keys of 2,048 to 8,192 bits.
    RsaPssSha512,
}

impl PublicKeyAlgorithm {
    /// Every algorithm with its name in the recipe language.
    pub const WORDS: &[(&str, PublicKeyAlgorithm)] = &[
        ("ed25519", PublicKeyAlgorithm::Ed25519),
        ("ecdsa-p256-sha256-der", PublicKeyAlgorithm::EcdsaP256Der),
        ("ecdsa-p256-sha256-fixed", PublicKeyAlgorithm::EcdsaP256Fixed),
        ("rsa-pkcs1-sha1", PublicKeyAlgorithm::RsaPkcs1Sha1),
        ("rsa-pkcs1-sha256", PublicKeyAlgorithm::RsaPkcs1Sha256),
        ("rsa-pkcs1-sha512", PublicKeyAlgorithm::RsaPkcs1Sha512),
        ("rsa-pss-sha256", PublicKeyAlgorithm::RsaPssSha256),
        ("rsa-pss-sha512", PublicKeyAlgorithm::RsaPssSha512),
    ];

    /// Returns the length of a signature in bytes, or `None` if the length depends on the key or on the signature.
    pub fn size(self) -> Option<usize> {
        matches!(self, PublicKeyAlgorithm::Ed25519 | PublicKeyAlgorithm::EcdsaP256Fixed).then_some(64)
    }

    /// Returns the algorithm's name in the recipe language and in the record header `hookhold-auth`.
    pub fn word(self) -> &'static str {
        PublicKeyAlgorithm::WORDS.iter().find(|(_, one)| *one == self).map_or("", |(word, _)| word)
    }
}

/// A signature algorithm of a JSON Web Token (RFC 7518, section 3.1). The algorithm `none` does not exist here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// The kind of key that a JWT algorithm needs. All algorithms of one recipe need the same kind, so that a sender cannot make
/// hookhold use a public key as an HMAC secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtKeyKind {
    /// A shared secret.
    Secret,
    /// An RSA public key.
    Rsa,
    /// An elliptic-curve public key.
    Ec,
    /// An Ed25519 public key.
    Ed,
}

impl JwtAlgorithm {
    /// Every algorithm with its name in the recipe language, which is also its name in the header of a token.
    pub const WORDS: &[(&str, JwtAlgorithm)] = &[
        ("HS256", JwtAlgorithm::Hs256),
        ("HS384", JwtAlgorithm::Hs384),
        ("HS512", JwtAlgorithm::Hs512),
        ("RS256", JwtAlgorithm::Rs256),
        ("RS512", JwtAlgorithm::Rs512),
        ("PS256", JwtAlgorithm::Ps256),
        ("ES256", JwtAlgorithm::Es256),
        ("EdDSA", JwtAlgorithm::EdDsa),
    ];

    /// Returns the kind of key that the algorithm needs.
    pub fn key_kind(self) -> JwtKeyKind {
        match self {
            JwtAlgorithm::Hs256 | JwtAlgorithm::Hs384 | JwtAlgorithm::Hs512 => JwtKeyKind::Secret,
            JwtAlgorithm::Rs256 | JwtAlgorithm::Rs512 | JwtAlgorithm::Ps256 => JwtKeyKind::Rsa,
            JwtAlgorithm::Es256 => JwtKeyKind::Ec,
            JwtAlgorithm::EdDsa => JwtKeyKind::Ed,
        }
    }
}

/// The text format of a configured public key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicKeyFormat {
    /// A PEM document: `BEGIN PUBLIC KEY`, `BEGIN RSA PUBLIC KEY` or `BEGIN CERTIFICATE`.
    #[default]
    Pem,
    /// The bytes of the key in hexadecimal.
    RawHex,
    /// The bytes of the key in Base64.
    RawBase64,
    /// A DER SubjectPublicKeyInfo in Base64, which is a PEM document without its first and last line.
    SpkiBase64,
    /// A JSON Web Key (RFC 7517).
    Jwk,
}

impl PublicKeyFormat {
    /// Every format with its name in the recipe language.
    pub const WORDS: &[(&str, PublicKeyFormat)] = &[
        ("pem", PublicKeyFormat::Pem),
        ("raw-hex", PublicKeyFormat::RawHex),
        ("raw-base64", PublicKeyFormat::RawBase64),
        ("spki-base64", PublicKeyFormat::SpkiBase64),
        ("jwk", PublicKeyFormat::Jwk),
    ];
}

impl Proof {
    /// Returns the part that the proofs with signed content share, or `None` for the other kinds.
    pub fn signed(&self) -> Option<&SignedContent> {
        match self {
            Proof::Mac(proof) => Some(&proof.signed),
            Proof::Digest(proof) => Some(&proof.signed),
            Proof::PublicKey(proof) => Some(&proof.signed),
            Proof::Jwt(_) | Proof::Token(_) | Proof::Basic | Proof::None => None,
        }
    }

    /// Returns the signed timestamp, or `None` if the proof has none.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.signed()?.timestamp.as_ref()
    }

    /// Returns the place where the sender publishes its public keys, or `None` if a delivery does not name its key.
    pub fn fetch(&self) -> Option<&KeyFetch> {
        match self {
            Proof::PublicKey(proof) => proof.fetch.as_ref(),
            Proof::Jwt(proof) => proof.fetch.as_ref(),
            _ => None,
        }
    }

    /// Returns true if the proof covers the URL, so that the source needs its public URL.
    pub fn signs_url(&self) -> bool {
        match self {
            Proof::Jwt(proof) => proof.url_claim.is_some(),
            _ => self.signed().is_some_and(SignedContent::signs_url),
        }
    }

    /// Returns true if the proof covers the whole query of the URL.
    pub fn signs_query(&self) -> bool {
        match self {
            Proof::Jwt(proof) => proof.url_claim.is_some(),
            _ => self.signed().is_some_and(|signed| signed.contents.iter().flatten().any(Term::is_of_query)),
        }
    }

    /// Returns the parts of an event that the proof covers.
    pub fn coverage(&self) -> Coverage {
        match (self, self.signed()) {
            (_, Some(signed)) => signed.coverage,
            (Proof::Jwt(proof), _) => proof.coverage,
            _ => Coverage::NOTHING,
        }
    }

    /// Returns the headers that contain the signatures or the token of the proof.
    pub fn headers(&self) -> Vec<HeaderName> {
        let of_token = |from: &[Locator]| {
            from.iter()
                .filter_map(|locator| if let Locator::Header(name) = locator { Some(name.clone()) } else { None })
                .collect()
        };
        let of_signature = |from: &SignatureLocator| match from {
            SignatureLocator::Header(name) => Some(name.clone()),
            SignatureLocator::NumberedHeaders(prefix) => format!("{prefix}1").parse().ok(),
            SignatureLocator::Other(_) => None,
        };
        match self {
            Proof::Jwt(_) | Proof::Token(_) => of_token(self.tokens()),
            Proof::Basic => vec![AUTHORIZATION],
            Proof::None => Vec::new(),
            _ => self.signed().into_iter().flat_map(|signed| signed.signature.from.iter().filter_map(of_signature)).collect(),
        }
    }

    /// Returns the locators of the secret text that the request carries as it is: a token or a JSON Web Token. A JSON Web Token
    /// counts as a secret because a copy of it may be accepted elsewhere until it expires.
    pub fn tokens(&self) -> &[Locator] {
        match self {
            Proof::Jwt(proof) => &proof.from,
            Proof::Token(proof) => &proof.from,
            _ => &[],
        }
    }

    /// Returns true if the verifier must parse the body before it can check the proof.
    pub fn reads_body(&self) -> bool {
        let is_inside = |locator: &Locator| matches!(locator, Locator::Body(_));
        let in_proof = match self {
            Proof::Jwt(_) | Proof::Token(_) => self.tokens().iter().any(is_inside),
            _ => self.signed().is_some_and(|signed| signed.reads_body),
        };
        in_proof || self.fetch().is_some_and(KeyFetch::reads_body)
    }

    /// Returns true if the first locator of the signature or token refers to the body.
    pub fn reads_evidence_in_body(&self) -> bool {
        let is_inside = |from: &[Locator]| from.first().is_some_and(Locator::is_in_body);
        match self {
            Proof::Jwt(proof) => is_inside(&proof.from),
            Proof::Token(proof) => is_inside(&proof.from),
            _ => {
                let from = self.signed().and_then(|signed| signed.signature.from.first());
                matches!(from, Some(SignatureLocator::Other(locator)) if locator.is_in_body())
            }
        }
    }

    /// Returns true if the proof covers the body or values from inside the body.
    pub fn covers_a_part_of_the_body(&self) -> bool {
        match self {
            Proof::Jwt(proof) => proof.body_claim.is_some(),
            _ => self.signed().is_some_and(|signed| signed.contents.iter().flatten().any(Term::is_of_body)),
        }
    }

    /// Returns true if the proof needs a key, which is every kind except [`Proof::None`].
    pub fn needs_key(&self) -> bool {
        !matches!(self, Proof::None)
    }

    /// Returns true if the proof needs public keys instead of secrets.
    pub fn uses_public_keys(&self) -> bool {
        match self {
            Proof::PublicKey(_) => true,
            Proof::Jwt(proof) => proof.key_kind() != JwtKeyKind::Secret,
            _ => false,
        }
    }

    /// Returns the scheme's name, such as `mac-sha256`. In the record header `hookhold-auth`, this name precedes the name of
    /// the key.
    pub fn scheme(&self) -> String {
        match self {
            Proof::Mac(proof) => format!("mac-{}", proof.algorithm.word()),
            Proof::Digest(proof) => format!("digest-{}", proof.algorithm.word()),
            Proof::PublicKey(proof) => proof.algorithm.word().to_owned(),
            Proof::Jwt(_) => "jwt".to_owned(),
            Proof::Token(_) => "token".to_owned(),
            Proof::Basic => "basic".to_owned(),
            Proof::None => "none".to_owned(),
        }
    }
}

impl JwtProof {
    /// Returns the kind of key that the proof needs.
    pub fn key_kind(&self) -> JwtKeyKind {
        self.algorithms.first().map_or(JwtKeyKind::Secret, |algorithm| algorithm.key_kind())
    }
}

impl SignedContent {
    /// Returns true if the signed content contains the URL.
    pub fn signs_url(&self) -> bool {
        self.contents.iter().flatten().any(Term::needs_public_url)
    }

    /// Returns true if the signed content contains the text of the event id. The name of the header that contains the id does
    /// not matter.
    pub fn signs_id(&self) -> bool {
        self.contents.iter().any(|content| content.contains(&Term::Id))
    }
}
