//! Data types of a compiled recipe. hookhold compiles each recipe once, and the verifier interprets the compiled recipe. This
//! module does not read deliveries. `docs/recipes.md` explains the recipe language.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::answer::Answer;
use crate::credentials::Credentials;
use crate::event::Integrity;
use crate::source::SecretForm;
use crate::source::pointers::Pointers;

mod challenge;
mod content;
mod fetch;
mod proof;
mod sample;

pub use challenge::{Challenge, EffectRule, ReplyPart, ReplyTemplate, RequestText, TextMatch};
pub use content::{
    Algorithm, BodyHash, Choice, Encoding, EventArray, EventLocators, FormJoin, KeyFormat, Locator, SignatureFormat,
    SignatureLocator, Term, TimeUnit, Timestamp, UrlStyle,
};
pub(crate) use content::{JOINT, fits};
pub(crate) use fetch::https_host;
pub use fetch::{HostPattern, KeyFetch, KeyUrl};
pub use proof::{
    DigestProof, HashClaim, JwtAlgorithm, JwtKeyKind, JwtProof, MacProof, Proof, PublicKeyAlgorithm, PublicKeyFormat,
    PublicKeyProof, SignedContent, TokenProof,
};
pub use sample::RecipeSample;
pub(crate) use sample::{FieldText, NULL, SampleBody, SampleJson, SampleValues, SlotValue, quoted};

/// The compiled recipe of a provider. A recipe defines the signature scheme, the locations of an event's id, type, ordering key
/// and time, the endpoint challenges, the replies and the limits.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The provider's display name. Empty if an inline recipe sets no title.
    pub title: String,
    /// The proofs that the provider's deliveries may carry, at least one. A delivery is genuine if any of them holds.
    pub proofs: Vec<Proof>,
    /// The locators of an event's id, type, ordering key and time.
    pub event: EventLocators,
    /// All body locations that the recipe reads, merged so that one pass over a body finds all values.
    pub(crate) pointers: Pointers,
    /// The provider's endpoint challenges. If a delivery matches several challenges, hookhold uses the first one. hookhold
    /// replies to a challenge before deduplication and never stores the challenge.
    pub challenges: Vec<Challenge>,
    /// The parts of a request in which the provider's deliveries carry credentials.
    pub credentials: Credentials,
    /// The responses to accepted and rejected deliveries.
    pub replies: Replies,
    /// The limits and retry behaviour that the provider documents.
    pub limits: ProviderLimits,
    /// Instructions for the operator who connects the provider.
    pub setup: Setup,
    /// Sample deliveries of the provider's common event types, with distinct types.
    pub samples: Vec<RecipeSample>,
}

impl Recipe {
    /// Returns true if a source with this recipe accepts requests with this method: POST, and the methods of its challenges.
    pub fn accepts_method(&self, method: &Method) -> bool {
        *method == Method::POST || self.challenges.iter().any(|challenge| challenge.methods.contains(method))
    }

    /// Returns the methods that a source with this recipe accepts, POST first.
    pub fn methods(&self) -> Vec<&Method> {
        let mut methods = vec![&Method::POST];
        for method in self.challenges.iter().flat_map(|challenge| &challenge.methods) {
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        methods
    }

    /// Returns the headers that contain the signatures or tokens of the recipe's proofs. A token in a header that many senders
    /// use, such as `authorization`, does not identify a provider and is omitted.
    pub fn proof_headers(&self) -> Vec<HeaderName> {
        let mut names: Vec<HeaderName> = Vec::new();
        for name in self.proofs.iter().flat_map(Proof::headers) {
            if !names.contains(&name) && name != http::header::AUTHORIZATION {
                names.push(name);
            }
        }
        names
    }

    /// Returns true if a proof covers the URL.
    pub fn signs_url(&self) -> bool {
        self.proofs.iter().any(Proof::signs_url)
    }

    /// Returns true if a proof covers the whole query of the URL.
    pub fn signs_query(&self) -> bool {
        self.proofs.iter().any(Proof::signs_query)
    }

    /// Returns the first signed timestamp of the recipe's proofs, or `None` if no proof covers a timestamp.
    pub fn timestamp(&self) -> Option<&Timestamp> {
        self.proofs.iter().find_map(Proof::timestamp)
    }

    /// Returns true if the recipe accepts every delivery, so that only the sender's address protects the source.
    pub fn accepts_without_proof(&self) -> bool {
        self.proofs.iter().any(|proof| matches!(proof, Proof::None))
    }

    /// Returns true if every proof of the recipe covers a timestamp.
    pub fn always_signs_time(&self) -> bool {
        self.proofs.iter().all(|proof| proof.timestamp().is_some())
    }

    /// Returns the parts of an event that every proof of the recipe covers.
    pub fn coverage(&self) -> Coverage {
        let all = self.proofs.iter().map(Proof::coverage);
        all.reduce(Coverage::weaker).unwrap_or(Coverage::NOTHING)
    }
}

/// The parts of an event that a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The value of the record header `hookhold-integrity`.
    pub integrity: Integrity,
    /// True if the verifier reads every event id from signed bytes.
    pub id_signed: bool,
}

impl Coverage {
    /// The coverage of a proof that covers no part of an event, such as a token.
    pub const NOTHING: Coverage = Coverage { integrity: Integrity::None, id_signed: false };

    /// Returns the parts that both coverages contain.
    pub fn weaker(self, other: Coverage) -> Coverage {
        let integrity = self.integrity.max(other.integrity);
        Coverage { integrity, id_signed: self.id_signed && other.id_signed }
    }
}

/// The responses to accepted and rejected deliveries.
#[derive(Clone, Debug)]
pub struct Replies {
    /// The reply to an accepted delivery.
    pub accepted: Reply,
    /// The status of the response to a rejected delivery.
    pub rejected: StatusCode,
}

/// The limits and retry behaviour that a provider documents. A field is `None` if the provider does not document the value.
#[derive(Clone, Debug)]
pub struct ProviderLimits {
    /// The time for which the provider waits for a response.
    pub respond_within: Option<Duration>,
    /// The time over which the provider retries an event. Zero if the provider never retries automatically.
    pub gives_up_after: Option<Duration>,
    /// The success rate at or below which the provider disables an endpoint.
    pub switches_off_at: Option<SwitchOff>,
    /// The size of the largest body that the provider sends, in bytes.
    pub max_body: Option<u64>,
}

/// The response to an accepted delivery or an endpoint challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status of the response, 200 to 299.
    pub status: StatusCode,
    /// The media type of the response body. `None` for plain text, or if the body is empty.
    pub content_type: Option<Arc<str>>,
    /// Further header fields of the response.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// The response body, usually empty.
    pub body: Bytes,
}

impl Reply {
    /// Replaces the status, content type, header fields and body of `answer` with those of this reply. Does not change the other
    /// fields of `answer`.
    pub fn over(self, answer: Answer) -> Answer {
        let Reply { status, content_type, headers, body } = self;
        Answer { status, content_type, headers, body, ..answer }
    }
}

/// The success rate at or below which a provider disables an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwitchOff {
    /// The percentage of deliveries that receive a 2xx response, 0 to 99. The provider disables the endpoint at or below this
    /// percentage.
    pub percent: u8,
    /// The period over which the provider measures the percentage.
    pub within: Duration,
}

/// Instructions for the operator who connects a provider. If an inline recipe has no `setup`, `sample_type` is the type of its
/// first sample, or else `sample.created`, and all other fields are empty.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The page of the provider's dashboard where the operator enters the URL.
    pub url: String,
    /// The dashboard page or other place where the operator finds the secret.
    pub secret: String,
    /// The forms of the sender's secrets, at least one of which each secret has. Empty if a secret can be any text.
    pub secret_forms: Vec<SecretForm>,
    /// The command of the provider's own tool that sends events to a local URL. Contains the placeholder `{url}`, and `{secret}`
    /// if the tool takes the secret. Empty if there is no such tool.
    pub cli: String,
    /// The command that prints the secret with which this tool signs. Empty if the tool signs with the endpoint's secret.
    pub cli_secret: String,
    /// The event type of sample deliveries, one of the provider's own types.
    pub sample_type: String,
    /// The documentation pages and source files that the recipe is based on.
    pub facts: Vec<String>,
    /// The names of the texts that a source must set in `values`.
    pub values: Vec<String>,
    /// True if the recipe contains the provider's public keys, so that a source needs no key.
    pub has_public_keys: bool,
}
