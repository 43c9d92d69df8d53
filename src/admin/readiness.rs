//! What `/readyz` says: one word per part, and a 503 only when a balancer can do something about it.

use serde::Serialize;

/// The state of the process as a balancer and an operator want to know it.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// A stop has begun.
    pub draining: bool,
    /// Whether deliveries can be kept.
    pub journal: Health,
    /// Whether they are passed on. Never a reason to be unready: the journal holds them meanwhile.
    pub kafka: Health,
}

/// How one part does.
#[derive(Clone, Debug, Serialize)]
pub struct Health {
    /// In one word.
    pub state: State,
    /// Why, for the operator; one line for each thing that is wrong.
    pub details: Vec<String>,
}

/// One word for the state of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Works.
    Ok,
    /// Something is wrong that it can live with.
    Degraded,
    /// Does not work.
    Failed,
    /// Not configured.
    Off,
}

impl Health {
    /// All is well.
    pub fn ok() -> Health {
        Health { state: State::Ok, details: Vec::new() }
    }

    /// Not configured.
    pub fn off() -> Health {
        Health { state: State::Off, details: Vec::new() }
    }

    /// `Ok` without details, else `state` because of them.
    pub fn or(state: State, details: Vec<String>) -> Health {
        if details.is_empty() { Health::ok() } else { Health { state, details } }
    }
}

impl Readiness {
    /// False only when deliveries cannot be kept or a drain has begun.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.journal.state != State::Failed
    }

    /// One JSON object: `ready` and everything above.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Page<'a> {
            ready: bool,
            #[serde(flatten)]
            parts: &'a Readiness,
        }
        let page = Page { ready: self.is_ready(), parts: self };
        serde_json::to_string(&page).expect("strings and flags always have a JSON form") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drain_or_a_failed_journal_makes_it_unready() {
        let trouble = |state| Health::or(state, vec!["why".into()]);
        let well = Readiness { draining: false, journal: Health::ok(), kafka: Health::off() };
        assert!(well.is_ready());
        assert!(Readiness { kafka: trouble(State::Failed), ..well.clone() }.is_ready());
        assert!(Readiness { journal: trouble(State::Degraded), ..well.clone() }.is_ready());
        assert!(!Readiness { journal: trouble(State::Failed), ..well.clone() }.is_ready());
        assert!(!Readiness { draining: true, ..well }.is_ready());
    }

    #[test]
    fn the_page_names_what_is_wrong() {
        let kafka = Health::or(State::Degraded, vec!["no broker answers".into()]);
        let page = Readiness { draining: true, journal: Health::ok(), kafka }.to_json();
        let wanted = r#"{"ready":false,"draining":true,"journal":{"state":"ok","details":[]},"#.to_owned()
            + r#""kafka":{"state":"degraded","details":["no broker answers"]}}"#;
        assert_eq!(page.trim_end(), wanted);
    }
}
