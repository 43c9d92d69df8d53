//! One possible cause of a rejection, and its certainty.

use serde_json::json;

/// A cause of a rejection, as text for operators and as a word for scripts.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    /// The word by which scripts recognise the cause.
    pub(super) word: &'static str,
    pub(super) certainty: Certainty,
    /// The explanation.
    pub(super) what: String,
    /// The remedy.
    pub(super) advice: String,
}

/// The certainty of a cause. The derived order puts the most certain cause first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Certainty {
    /// A proved cause: the delivery verifies once the cause is undone, or the request itself shows the cause.
    Certain,
    /// A cause for which the request or the configuration contains evidence.
    Likely,
    /// A cause that no evidence contradicts.
    Possible,
}

impl Certainty {
    /// Returns the word for the output.
    pub(super) fn word(self) -> &'static str {
        match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::Possible => "possible",
        }
    }
}

impl Cause {
    /// Creates a cause that is proved or visible in the request.
    pub(super) fn certain(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { word, certainty: Certainty::Certain, what: what.into(), advice: advice.into() }
    }

    /// Creates a cause that is supported by evidence.
    pub(super) fn likely(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Likely, ..Cause::certain(word, what, advice) }
    }

    /// Creates a cause that no evidence contradicts.
    pub(super) fn possible(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Possible, ..Cause::certain(word, what, advice) }
    }

    /// True if the cause is proved or visible in the request.
    pub(super) fn is_certain(&self) -> bool {
        self.certainty == Certainty::Certain
    }

    /// Returns the JSON object of the cause for `--format json`.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "cause": self.word, "certainty": self.certainty.word(), "what": self.what, "do": self.advice })
    }
}
