//! One possible cause of a rejection, and its certainty.

use serde_json::json;

/// A cause, as text for people and as a word for scripts.
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

/// The certainty of a cause; the derived order puts the most certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Certainty {
    /// The delivery verifies if the cause is undone, or the request itself shows the cause.
    Certain,
    /// The request or the configuration contains evidence for the cause.
    Likely,
    /// No evidence contradicts the cause.
    Possible,
}

impl Certainty {
    /// Returns the printed word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::Possible => "possible",
        }
    }
}

impl Cause {
    /// Creates a cause that is proved or plainly visible.
    pub(super) fn certain(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { word, certainty: Certainty::Certain, what: what.into(), advice: advice.into() }
    }

    /// Creates a cause with evidence for it.
    pub(super) fn likely(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Likely, ..Cause::certain(word, what, advice) }
    }

    /// Creates a cause without evidence against it.
    pub(super) fn possible(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Possible, ..Cause::certain(word, what, advice) }
    }

    /// True if the cause is proved or plainly visible.
    pub(super) fn is_certain(&self) -> bool {
        self.certainty == Certainty::Certain
    }

    /// Returns the cause for `--format json`.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "cause": self.word, "certainty": self.certainty.word(), "what": self.what, "do": self.advice })
    }
}
