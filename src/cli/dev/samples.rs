//! Signs samples of a provider and sends them to the gateway's own listener over HTTP, one after the other, as the provider
//! would. The gateway's answer reaches the stream like that to any other delivery.

use std::sync::Arc;
use std::time::Duration;

use hookhold::clock::{Clock, SystemClock};
use hookhold::verify::sign::{Sample, SampleOptions, SampleSeries, Tamper, sign};
use tokio::sync::mpsc::{Receiver, Sender};

use super::setup::DevProvider;
use super::update::DevUpdate;
use crate::cli::causes;

/// Kind of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleKind {
    /// A delivery as the provider would send it.
    Genuine,
    /// The last genuine sample again.
    Duplicate,
    /// A sample that is changed after signing, or signed with another secret if the proof does not cover the body.
    Tampered,
    /// A sample with a genuine signature and a timestamp that is too old.
    Stale,
}

/// The index of a provider, and the kind of its next sample.
pub(super) type SampleRequest = (usize, SampleKind);

/// Sends the requested samples.
pub(super) struct SampleSender {
    client: reqwest::Client,
    local_url: String,
    /// The last genuine sample of each provider.
    last: Vec<Option<Sample>>,
    /// The number of genuine samples of each provider, which selects the type of the next one.
    sent: Vec<usize>,
    /// Random number of all ids, and the number of the next sample.
    run: u64,
    number: u64,
    updates: Sender<DevUpdate>,
}

impl SampleSender {
    /// Creates a sender for `providers` providers whose gateway listens at `local_url`.
    pub(super) fn new(local_url: &str, providers: usize, updates: Sender<DevUpdate>) -> reqwest::Result<SampleSender> {
        let client = reqwest::Client::builder().http1_only().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.timeout(RESPONSE_TIMEOUT).build()?;
        let (local_url, last, sent) = (local_url.to_owned(), vec![None; providers], vec![0; providers]);
        Ok(SampleSender { client, local_url, last, sent, run: fastrand::u64(..), number: 0, updates })
    }

    /// Sends samples until no request can follow.
    pub(super) async fn run(mut self, providers: Arc<[DevProvider]>, mut requests: Receiver<SampleRequest>) {
        while let Some((index, kind)) = requests.recv().await {
            let Some(provider) = providers.get(index) else { continue };
            if let Err(problem) = self.serve(index, provider, kind).await {
                let _ = self.updates.send(DevUpdate::Note(format!("{}: {problem}", provider.source.name))).await;
            }
        }
    }

    async fn serve(&mut self, index: usize, provider: &DevProvider, kind: SampleKind) -> Result<(), String> {
        let applicable = |tamper: &Tamper| tamper.applies_to(&provider.recipe);
        let sample = match kind {
            SampleKind::Genuine => self.genuine(index, provider)?,
            SampleKind::Duplicate => match self.last.get(index).cloned().flatten() {
                Some(earlier) => earlier,
                None => {
                    let first = self.genuine(index, provider)?;
                    self.send(&first).await?;
                    first
                }
            },
            SampleKind::Tampered => match [Tamper::Body, Tamper::Secret].into_iter().find(applicable) {
                Some(tamper) => self.signed(provider, None, Some(tamper))?,
                None => return Err("its recipe requires no proof, so no sample is tampered".to_owned()),
            },
            SampleKind::Stale if applicable(&Tamper::Stale) => self.signed(provider, None, Some(Tamper::Stale))?,
            SampleKind::Stale => return Err("its signatures contain no time, so no delivery is stale".to_owned()),
        };
        self.send(&sample).await
    }

    /// Signs a genuine sample. The types of a provider's samples take turns, the default type first.
    fn genuine(&mut self, index: usize, provider: &DevProvider) -> Result<Sample, String> {
        let types = provider.source.recipe.sample_types();
        let turn = self.sent.get(index).copied().unwrap_or_default();
        let event_type = types[turn % types.len()].to_owned();
        let sample = self.signed(provider, Some(event_type), None)?;
        if let (Some(last), Some(sent)) = (self.last.get_mut(index), self.sent.get_mut(index)) {
            *last = Some(sample.clone());
            *sent += 1;
        }
        Ok(sample)
    }

    fn signed(&mut self, provider: &DevProvider, event_type: Option<String>, tamper: Option<Tamper>) -> Result<Sample, String> {
        let id = SampleSeries::new(&provider.source, event_type.as_deref(), self.run).id(self.number);
        self.number += 1;
        let options = SampleOptions { id, event_type, key: None, now: SystemClock.now(), tamper };
        let signed = sign(&provider.source, None, &options);
        signed.ok_or_else(|| format!("only {} has the private key; send a delivery from its dashboard", provider.title))
    }

    async fn send(&self, sample: &Sample) -> Result<(), String> {
        let url = format!("{}{}", self.local_url, sample.target);
        let request = self.client.request(sample.method.clone(), url).headers(sample.headers.clone());
        let response = request.body(sample.body.clone()).send().await;
        let response = response.map_err(|error| format!("the sample got no response: {}", causes(&error)))?;
        // The connection can carry the next sample once the response is complete.
        response.bytes().await.map(drop).map_err(|error| format!("the sample got no complete response: {}", causes(&error)))
    }
}

/// Maximum time to wait for a response, longer than every default deadline of the gateway.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
