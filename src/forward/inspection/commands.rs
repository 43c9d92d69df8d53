//! Builds the commands that remove a problem in Kafka. An operator can paste them into a shell in which Kafka's tools are on the
//! path. A cluster with a login also needs a file `client.properties` with an administrator's credentials.

use std::fmt::Display;

use serde_json::json;

use super::super::Settings;
use super::super::settings::SERVERS;
use super::facts::{ClusterBroker, PartitionFacts};

/// Builds commands for one cluster.
pub(super) struct Commands {
    /// Options that every command needs: the address of a broker, and the file with the credentials.
    connection: String,
    /// Principal as which the cluster knows hookhold, quoted for a shell.
    principal: String,
    /// Node ids of the brokers, in ascending order.
    brokers: Vec<i32>,
}

impl Commands {
    /// Derives the commands' options from the settings of the Kafka client. Contains no secret.
    pub(super) fn new(settings: &Settings, brokers: &[ClusterBroker]) -> Commands {
        let given = |name: &str| settings.librdkafka.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
        let protocol = given("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        let principal = match given("sasl.username").filter(|_| protocol.starts_with("sasl")) {
            Some(user) => quoted(&format!("User:{user}")),
            None if protocol == "plaintext" => "User:ANONYMOUS".to_owned(),
            // The principal is the subject of the client certificate, or a claim of the token.
            None => "User:NAME".to_owned(),
        };
        let first = servers(settings).split(',').next().unwrap_or_default().trim();
        let address = first.split_once("://").map_or(first, |(_, address)| address);
        let login = if protocol == "plaintext" { "" } else { " --command-config client.properties" };
        let mut brokers: Vec<i32> = brokers.iter().map(|broker| broker.id).collect();
        brokers.sort_unstable();
        Commands { connection: format!("--bootstrap-server {}{login}", quoted(address)), principal, brokers }
    }

    /// Returns the command that creates a topic with as many replicas as the cluster can hold, up to three.
    pub(super) fn create(&self, topic: &str) -> String {
        let replicas = self.brokers.len().clamp(1, REPLICAS);
        let in_sync = if replicas == REPLICAS { " --config min.insync.replicas=2" } else { "" };
        let connection = &self.connection;
        format!("kafka-topics.sh {connection} --create --topic {topic} --partitions 3 --replication-factor {replicas}{in_sync}")
    }

    /// Returns the command that permits `operation` on a topic.
    pub(super) fn allow(&self, operation: &str, topic: &str) -> String {
        let (connection, principal) = (&self.connection, &self.principal);
        format!("kafka-acls.sh {connection} --add --allow-principal {principal} --operation {operation} --topic {topic}")
    }

    /// Returns the command that lists all permissions.
    pub(super) fn permissions(&self) -> String {
        format!("kafka-acls.sh {} --list", self.connection)
    }

    /// Returns the command that sets a property of a topic.
    pub(super) fn set(&self, topic: &str, property: &str, value: impl Display) -> String {
        let change = format!("--add-config {property}={value}");
        format!("kafka-configs.sh {} --alter --entity-type topics --entity-name {topic} {change}", self.connection)
    }

    /// Returns the commands that add replicas to each partition, up to three; `None` if the cluster has only one broker.
    pub(super) fn replicate(&self, topic: &str, partitions: &[PartitionFacts]) -> Option<String> {
        if self.brokers.len() < 2 {
            return None;
        }
        let assigned = |partition: &PartitionFacts| {
            // The first replica stays first, because Kafka prefers it as the leader. The others start at another broker for each
            // partition, which spreads the load.
            let others = self.brokers.iter().cycle().skip(partition.id as usize).take(self.brokers.len());
            let mut replicas = partition.replicas.clone();
            for broker in others {
                if replicas.len() < REPLICAS && !replicas.contains(broker) {
                    replicas.push(*broker);
                }
            }
            json!({ "topic": topic, "partition": partition.id, "replicas": replicas })
        };
        let plan = json!({ "version": 1, "partitions": partitions.iter().map(assigned).collect::<Vec<_>>() });
        let change = format!("kafka-reassign-partitions.sh {} --reassignment-json-file {PLAN} --execute", self.connection);
        Some(format!("echo '{plan}' > {PLAN} && {change}"))
    }
}

/// Returns the list of brokers that the operator has configured.
pub(super) fn servers(settings: &Settings) -> &str {
    let found = settings.librdkafka.iter().find(|(name, _)| SERVERS.contains(&name.as_str()));
    found.map_or("", |(_, servers)| servers)
}

/// Quotes a word for a POSIX shell if the word contains a character with a meaning for the shell.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-:@/".contains(letter);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// File that holds the plan of a reassignment.
const PLAN: &str = "replicas.json";
/// Number of replicas of a durable topic: it survives the loss of a broker while another one restarts.
const REPLICAS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(properties: &[(&str, &str)]) -> Commands {
        let librdkafka = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Commands::new(&Settings { librdkafka, ..Settings::default() }, &[])
    }

    #[test]
    fn the_principal_and_the_credentials_of_the_commands_fit_the_login() {
        let plain = commands(&[("metadata.broker.list", "kafka-1:9092, kafka-2:9092")]).allow("Write", "t");
        let expected =
            "kafka-acls.sh --bootstrap-server kafka-1:9092 --add --allow-principal User:ANONYMOUS --operation Write --topic t";
        assert_eq!(plain, expected);
        let server = ("bootstrap.servers", "SASL_SSL://[::1]:9093");
        let login = [("sasl.username", "o'neill $1"), ("sasl.password", "sesame")];
        let scram = commands(&[server, ("security.protocol", "SASL_SSL"), login[0], login[1]]).allow("Write", "t");
        assert!(
            scram.starts_with("kafka-acls.sh --bootstrap-server '[::1]:9093' --command-config client.properties "),
            "{scram}"
        );
        assert!(scram.contains(r"--allow-principal 'User:o'\''neill $1' ") && !scram.contains("sesame"), "{scram}");
        let tls = commands(&[server, ("security.protocol", "ssl")]).allow("Write", "t");
        assert!(tls.contains("--allow-principal User:NAME ") && tls.contains("client.properties"), "{tls}");
    }
}
