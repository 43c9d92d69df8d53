//! Files on which the Kafka client depends: certificates, keys and CA files that librdkafka reads, and the files to which the values
//! in `[kafka]` refer. hookhold compares them by content, because a renewal does not always change the time of a file.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};

use super::KafkaConfig;
use crate::diagnostic::Location;
use crate::reference;

impl KafkaConfig {
    /// Reads the files again, and returns the configuration with their present contents. Its fingerprint shows whether they have
    /// changed. The error names the property and the file.
    pub fn read_again(&self) -> Result<KafkaConfig, String> {
        let mut next = self.clone();
        for (name, value) in &mut next.librdkafka {
            if let Some(path) = self.references.get(name) {
                let bytes = reference::read_file(path, "value").map_err(|error| format!("kafka.{name}: {error}"))?;
                *value = String::from_utf8(bytes)
                    .map_err(|_| format!("kafka.{name}: expected a value in UTF-8, found invalid UTF-8 in {}", path.display()))?;
            }
        }
        next.fingerprint = next.fingerprint_of_files();
        Ok(next)
    }

    /// Returns a hash of the contents of all these files. A file that cannot be read counts like an absent one.
    pub(super) fn fingerprint_of_files(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, value) in &self.librdkafka {
            if self.references.contains_key(name) {
                value.hash(&mut hasher);
            } else if LOCATIONS.contains(&name.as_str()) {
                contents(value).ok().hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// Returns the value of a property. A relative path of a file or directory becomes relative to the directory of the configuration
/// file.
pub(super) fn resolved(name: &str, value: String, location: &Location) -> String {
    let is_path = LOCATIONS.contains(&name) && value != SYSTEM_CAS;
    let resolved = is_path.then(|| location.resolve(&value).into_os_string().into_string().ok()).flatten();
    resolved.unwrap_or(value)
}

fn contents(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names of the librdkafka properties whose value is the path of a file that librdkafka reads when it creates a client.
const LOCATIONS: [&str; 8] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.crl.location",
    "https.ca.location",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
];
/// Value of `ssl.ca.location` with which librdkafka looks for the CAs of the operating system.
const SYSTEM_CAS: &str = "probe";
/// Number of bytes of a file that hookhold compares. A CA file with all public CAs has about 220 KiB.
const MAX_FILE: u64 = 4 << 20;
