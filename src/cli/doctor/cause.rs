//! A cause of a rejection, with its certainty and its remedy.

use serde_json::json;

/// A cause of a rejection, with an explanation for operators and an identifier for scripts.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// Identifier of the cause for scripts, such as `secret_whitespace`.
    pub(super) word: &'static str,
    pub(super) certainty: Certainty,
    /// Explanation of the cause for operators.
    pub(super) what: String,
    /// Remedy for the cause, as text for operators.
    pub(super) advice: String,
}

/// Certainty of a cause. The derived order puts the most certain cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Certainty {
    /// A proved cause: the delivery verifies if doctor undoes the cause, or the request itself shows the cause.
    Certain,
    /// A cause for which the request or the configuration contains evidence.
    Likely,
    /// A cause that no evidence contradicts.
    Possible,
}

impl Certainty {
    /// Returns the name of the certainty in the output: `certain`, `likely` or `possible`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::Possible => "possible",
        }
    }
}

impl Cause {
    /// Creates a cause with the certainty `Certain`: the delivery verifies if doctor undoes the cause, or the request itself
    /// shows the cause.
    pub(super) fn certain(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { word, certainty: Certainty::Certain, what: what.into(), advice: advice.into() }
    }

    /// Creates a cause with the certainty `Likely`: the request or the configuration contains evidence for the cause.
    pub(super) fn likely(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Likely, ..Cause::certain(word, what, advice) }
    }

    /// Creates a cause with the certainty `Possible`: no evidence contradicts the cause.
    pub(super) fn possible(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Possible, ..Cause::certain(word, what, advice) }
    }

    /// Returns true if the certainty of the cause is `Certain`.
    pub(super) fn is_certain(&self) -> bool {
        self.certainty == Certainty::Certain
    }

    /// Returns the cause as a JSON object for `--format json`.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "cause": self.word, "certainty": self.certainty.word(), "what": self.what, "do": self.advice })
    }
}
