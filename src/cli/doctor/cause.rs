//! One reason why a delivery is refused, and how sure it is.

use serde_json::json;

use super::Case;

/// One reason, for people and, by its word, for machines.
#[derive(Clone, Debug)]
pub struct Cause {
    /// What scripts know it by.
    pub word: &'static str,
    /// How sure it is.
    pub certainty: Certainty,
    /// What is the matter.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// How sure a cause is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// With it undone the delivery is proved, or the request itself shows it.
    Certain,
    /// Something in the request speaks for it.
    Likely,
    /// Nothing speaks against it.
    Possible,
}

impl Certainty {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Certainty::Certain => "certain",
            Certainty::Likely => "likely",
            Certainty::Possible => "possible",
        }
    }
}

impl Cause {
    /// Proved, or plain to see.
    pub fn certain(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { word, certainty: Certainty::Certain, what: what.into(), advice: advice.into() }
    }

    /// There is evidence.
    pub fn likely(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Likely, ..Cause::certain(word, what, advice) }
    }

    /// There is no evidence against it.
    pub fn possible(word: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Cause {
        Cause { certainty: Certainty::Possible, ..Cause::certain(word, what, advice) }
    }

    /// The same, but where the time of receipt is not known, what rests on it is only possible.
    pub fn at_its_time(self, case: &Case) -> Cause {
        if case.is_time_given { self } else { Cause { certainty: Certainty::Possible, ..self } }
    }

    /// True when it is proved or plain to see.
    pub fn is_certain(&self) -> bool {
        self.certainty == Certainty::Certain
    }

    /// For machines.
    pub fn json(&self) -> serde_json::Value {
        json!({ "cause": self.word, "certainty": self.certainty.word(), "what": self.what, "do": self.advice })
    }
}
