//! The messages of a hand-over. Each message is one line: a word, and values separated by spaces.

/// Message between the two processes of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HandoverMessage {
    /// The successor asks for the hand-over.
    Hello {
        /// Version of the messages.
        protocol: u32,
        /// Process id of the successor.
        pid: u32,
        /// Version of hookhold.
        version: String,
    },
    /// The predecessor offers its sockets: first the one for deliveries, then the one of the admin listener.
    Offer {
        /// Process id of the predecessor.
        pid: u32,
        /// Version of hookhold.
        version: String,
    },
    /// The predecessor rejects the hand-over for this reason.
    Rejected(String),
    /// The successor is able to accept.
    Ready(DeliverySocket),
    /// The predecessor has stopped accepting.
    Switch,
    /// The predecessor has closed the journal.
    Released,
}

/// Socket on which the successor accepts deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeliverySocket {
    /// The socket of the predecessor.
    Shared,
    /// A socket of its own, because the configuration names another address.
    Own,
}

impl HandoverMessage {
    /// Returns the message as a line.
    pub(super) fn to_line(&self) -> String {
        match self {
            HandoverMessage::Hello { protocol, pid, version } => format!("hello {protocol} {pid} {version}\n"),
            HandoverMessage::Offer { pid, version } => format!("offer {pid} {version}\n"),
            HandoverMessage::Rejected(reason) => format!("rejected {}\n", reason.replace('\n', " ")),
            HandoverMessage::Ready(DeliverySocket::Shared) => "ready shared\n".to_owned(),
            HandoverMessage::Ready(DeliverySocket::Own) => "ready own\n".to_owned(),
            HandoverMessage::Switch => "switch\n".to_owned(),
            HandoverMessage::Released => "released\n".to_owned(),
        }
    }

    /// Parses a line without its end. Returns `None` for an unknown message. Ignores further values, which a later version may add.
    pub(super) fn parse(line: &str) -> Option<HandoverMessage> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut values = rest.split(' ');
        let message = match word {
            "hello" => HandoverMessage::Hello {
                protocol: values.next()?.parse().ok()?,
                pid: values.next()?.parse().ok()?,
                version: values.next().unwrap_or_default().to_owned(),
            },
            "offer" => HandoverMessage::Offer {
                pid: values.next()?.parse().ok()?,
                version: values.next().unwrap_or_default().to_owned(),
            },
            "rejected" => HandoverMessage::Rejected(rest.to_owned()),
            "ready" => HandoverMessage::Ready(match values.next()? {
                "shared" => DeliverySocket::Shared,
                "own" => DeliverySocket::Own,
                _ => return None,
            }),
            "switch" => HandoverMessage::Switch,
            "released" => HandoverMessage::Released,
            _ => return None,
        };
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_its_line() {
        let version = || "0.1.0+abc".to_owned();
        for message in [
            HandoverMessage::Hello { protocol: 1, pid: 7, version: version() },
            HandoverMessage::Offer { pid: 8, version: version() },
            HandoverMessage::Rejected("another hand-over is under way".into()),
            HandoverMessage::Ready(DeliverySocket::Shared),
            HandoverMessage::Ready(DeliverySocket::Own),
            HandoverMessage::Switch,
            HandoverMessage::Released,
        ] {
            let line = message.to_line();
            assert_eq!(HandoverMessage::parse(line.strip_suffix('\n').expect("a line")), Some(message), "{line}");
        }
        for unknown in ["", "hello", "hello x y z", "ready", "ready later", "bye"] {
            assert_eq!(HandoverMessage::parse(unknown), None, "{unknown}");
        }
    }
}
