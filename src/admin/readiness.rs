//! Body of `/readyz`, with the health of each component. `/readyz` returns 503 only if a load balancer should send
//! deliveries to another process.

use serde::Serialize;

/// State of the process, for load balancers and operators.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// True if a shutdown has begun.
    pub draining: bool,
    /// Health of the journal: [`HealthState::Failed`] if the journal cannot store deliveries.
    pub journal: ComponentHealth,
    /// Health of forwarding to Kafka. Does not affect readiness, because the journal stores events even if forwarding fails.
    pub kafka: ComponentHealth,
}

/// Health of one component of the process: its state, and the problems that explain the state.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentHealth {
    /// State of the component in one word.
    pub state: HealthState,
    /// Problems that explain the state, one line per problem.
    pub details: Vec<String>,
}

/// State of a component in one word. The body of `/readyz` contains the name of the variant in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// The component works.
    Ok,
    /// The component is degraded, or is down and can recover without a restart.
    Degraded,
    /// The component does not work: the journal cannot store deliveries, or the forwarder has panicked.
    Failed,
    /// The component is not configured.
    Off,
}

impl ComponentHealth {
    /// Returns the health of a component that has no problems.
    pub fn ok() -> ComponentHealth {
        ComponentHealth { state: HealthState::Ok, details: Vec::new() }
    }

    /// Returns the health of a component that is not configured.
    pub fn off() -> ComponentHealth {
        ComponentHealth { state: HealthState::Off, details: Vec::new() }
    }

    /// Returns the health of a component with the problems `details`. The state of the component is [`HealthState::Ok`] if
    /// `details` is empty, otherwise `state`.
    pub fn or(state: HealthState, details: Vec<String>) -> ComponentHealth {
        if details.is_empty() { ComponentHealth::ok() } else { ComponentHealth { state, details } }
    }
}

impl Readiness {
    /// Returns true if no shutdown has begun and the journal can store deliveries.
    pub fn is_ready(&self) -> bool {
        !self.draining && self.journal.state != HealthState::Failed
    }

    /// Renders the field `ready` and the fields of this struct as one JSON object.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Page<'a> {
            ready: bool,
            #[serde(flatten)]
            components: &'a Readiness,
        }
        let page = Page { ready: self.is_ready(), components: self };
        serde_json::to_string(&page).expect("strings and flags can always be written as JSON") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drain_or_failed_journal_is_unready() {
        let unwell = |state| ComponentHealth::or(state, vec!["why".into()]);
        let ready = Readiness { draining: false, journal: ComponentHealth::ok(), kafka: ComponentHealth::off() };
        assert!(ready.is_ready());
        assert!(Readiness { kafka: unwell(HealthState::Failed), ..ready.clone() }.is_ready());
        assert!(Readiness { journal: unwell(HealthState::Degraded), ..ready.clone() }.is_ready());
        assert!(!Readiness { journal: unwell(HealthState::Failed), ..ready.clone() }.is_ready());
        assert!(!Readiness { draining: true, ..ready }.is_ready());
    }

    #[test]
    fn the_page_names_the_problems_of_each_component() {
        let kafka = ComponentHealth::or(HealthState::Degraded, vec!["no broker answers".into()]);
        let page = Readiness { draining: true, journal: ComponentHealth::ok(), kafka }.to_json();
        let expected = r#"{"ready":false,"draining":true,"journal":{"state":"ok","details":[]},"#.to_owned()
            + r#""kafka":{"state":"degraded","details":["no broker answers"]}}"#;
        assert_eq!(page.trim_end(), expected);
    }
}
