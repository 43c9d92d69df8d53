//! Kafka client of an inspection: connects to the cluster, and reads the metadata and the configuration of topics. Draws no
//! conclusions from them.

use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataBroker};
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

use super::super::client_end::end_in_background;
use super::super::client_error::{CauseCertainty, ClientError, FAILED_CONNECTION};
use super::super::settings::setup_failure;
use super::super::tokens::TokenSource;
use super::facts::{Cluster, ClusterBroker, MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS, TopicFacts};

/// Two librdkafka clients with the same settings: only an `AdminClient` can read configurations, and only a producer can write.
pub(super) struct ClusterClient {
    producer: BaseProducer<InspectionCallbacks>,
    admin: AdminClient<InspectionCallbacks>,
    timeout: Duration,
}

/// Collects the errors of the client and the delivery reports.
#[derive(Default)]
pub(super) struct InspectionCallbacks {
    /// Gets the tokens of the login; `None` if hookhold logs in without tokens.
    tokens: Option<TokenSource>,
    errors: Mutex<Vec<ClientError>>,
    reports: Mutex<Vec<(usize, Result<(), RDKafkaErrorCode>)>>,
}

impl ClusterClient {
    /// Creates the clients, which connect in the background. Each later wait for an answer lasts at most `timeout`. The error says
    /// why librdkafka cannot create a client.
    pub(super) fn start(config: &ClientConfig, tokens: Option<TokenSource>, timeout: Duration) -> Result<ClusterClient, String> {
        let callbacks = || InspectionCallbacks { tokens: tokens.clone(), ..InspectionCallbacks::default() };
        let producer = config.create_with_context(callbacks()).map_err(setup_failure)?;
        let admin = config.create_with_context(callbacks()).map_err(setup_failure)?;
        Ok(ClusterClient { producer, admin, timeout })
    }

    /// Returns the longest wait for an answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns the client that can write.
    pub(super) fn producer(&self) -> &BaseProducer<InspectionCallbacks> {
        &self.producer
    }

    /// Requests the metadata of the topics. Returns `None` if the cluster does not answer one of the requests in time.
    pub(super) fn describe(&self, topics: &[&str]) -> Option<Cluster> {
        let mut cluster = Cluster { brokers: Vec::new(), topics: Vec::new(), is_redpanda: false };
        for topic in topics {
            let metadata = self.metadata(topic)?;
            let broker =
                |found: &MetadataBroker| ClusterBroker { id: found.id(), address: format!("{}:{}", found.host(), found.port()) };
            cluster.brokers = metadata.brokers().iter().map(broker).collect();
            let found = metadata.topics().iter().find(|found| found.name() == *topic);
            cluster.topics.push(found.map_or_else(|| TopicFacts::missing(topic), TopicFacts::of));
        }
        let id = self.producer.client().fetch_cluster_id(self.timeout);
        cluster.is_redpanda = id.is_some_and(|id| id.starts_with(REDPANDA));
        Some(cluster)
    }

    /// Repeats the request until the deadline, because librdkafka may ask a broker that does not run while another one does. Polls
    /// the client meanwhile, because the client gets a token for its login only during a poll.
    fn metadata(&self, topic: &str) -> Option<Metadata> {
        let deadline = Instant::now() + self.timeout;
        loop {
            self.producer.poll(POLL_SLICE);
            let left = deadline.saturating_duration_since(Instant::now());
            match self.producer.client().fetch_metadata(Some(topic), left.min(REQUEST_SLICE)) {
                Ok(metadata) => return Some(metadata),
                Err(_) if left.is_zero() => return None,
                Err(_) => {}
            }
        }
    }

    /// Reads the configuration of each topic that exists. Returns the text of the error if the whole request fails. If the cluster
    /// does not permit to read the configuration of one topic, rdkafka returns an empty configuration for it.
    pub(super) fn read_configs(&self, topics: &mut [TopicFacts]) -> Result<(), String> {
        let names: Vec<String> = topics.iter().filter(|facts| facts.exists()).map(|facts| facts.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let resources: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| error.to_string())?;
        let answers = runtime.block_on(self.admin.describe_configs(&resources, &options)).map_err(|error| error.to_string())?;
        for resource in answers.into_iter().flatten() {
            let OwnedResourceSpecifier::Topic(name) = &resource.specifier else { continue };
            if let Some(facts) = topics.iter_mut().find(|facts| facts.name == *name) {
                facts.min_insync_replicas = value(&resource, MIN_INSYNC_REPLICAS);
                facts.max_message_bytes = value(&resource, MAX_MESSAGE_BYTES);
                facts.is_config_hidden = facts.min_insync_replicas.is_none() || facts.max_message_bytes.is_none();
            }
        }
        Ok(())
    }

    /// Returns the errors that librdkafka has reported so far, oldest first. Errors wait in a queue until the client is polled.
    pub(super) fn errors(&self) -> Vec<ClientError> {
        self.producer.poll(POLL_SLICE);
        lock(&self.producer.context().errors).clone()
    }

    /// Waits for `count` delivery reports, but not beyond `deadline`. Returns each report with the index of its record.
    pub(super) fn reports(&self, count: usize, deadline: Instant) -> Vec<(usize, Result<(), RDKafkaErrorCode>)> {
        let reports = || lock(&self.producer.context().reports);
        while reports().len() < count && Instant::now() < deadline {
            self.producer.poll(POLL_SLICE);
        }
        std::mem::take(&mut *reports())
    }

    /// Ends the clients.
    pub(super) fn end(self) {
        end_in_background(self);
    }
}

fn value<T: std::str::FromStr>(resource: &ConfigResource, name: &str) -> Option<T> {
    resource.get(name)?.value.as_ref()?.parse().ok()
}

/// Ignores poisoning of the mutex, because a panic never leaves a list half changed.
fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProducerContext for InspectionCallbacks {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivery: &DeliveryResult<'_>, record: usize) {
        let result = match delivery {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        lock(&self.reports).push((record, result));
    }
}

impl ClientContext for InspectionCallbacks {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Gets a token for the login.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.tokens.as_ref().ok_or("no token endpoint is configured")?.fetch()
    }

    /// Collects why a broker has closed a connection, which librdkafka says only in its log.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        let error = ClientError::new(RDKafkaErrorCode::BrokerTransportFailure, message);
        if facility == FAILED_CONNECTION && error.certainty > CauseCertainty::Unknown {
            self.collect(error);
        }
    }

    /// Collects an error of the client. rdkafka calls this function twice per error. `AllBrokersDown` follows the error of the last
    /// broker, and names no cause.
    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code().filter(|code| *code != RDKafkaErrorCode::AllBrokersDown) else { return };
        self.collect(ClientError::new(code, &reason.replace(char::is_control, " ")));
    }
}

impl InspectionCallbacks {
    fn collect(&self, error: ClientError) {
        let mut errors = lock(&self.errors);
        if errors.last() != Some(&error) && errors.len() < MAX_ERRORS {
            errors.push(error);
        }
    }
}

/// Beginning of the cluster id of every Redpanda cluster, by which a client recognises this implementation.
const REDPANDA: &str = "redpanda.";
/// Time for which one poll of the client waits for events.
const POLL_SLICE: Duration = Duration::from_millis(50);
/// Longest wait for one answer before the client is polled again.
const REQUEST_SLICE: Duration = Duration::from_secs(2);
/// Number of errors that an inspection stores.
const MAX_ERRORS: usize = 1_000;
