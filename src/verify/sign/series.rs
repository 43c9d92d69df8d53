//! The ids and ordering keys of many samples of one run. Every id has the shape of the provider's ids, and the run recognises its
//! own ids without a list of them.

use super::draft::SampleDraft;
use super::shape::TextShape;
use crate::source::Source;
use crate::source::recipe::{Choice, JOINT, Recipe};

/// The ids and ordering keys of the samples of one run. The sample with the number 0 has the ordering key of the recipe's own
/// sample.
pub struct SampleSeries {
    /// Random number of the run.
    run: u64,
    /// The shape of the ids; `None` if the recipe's sample has no id, or if too few ids have its shape.
    ids: Option<TextShape>,
    /// The shape of the ordering keys; `None` if the recipe's sample has no ordering key.
    keys: Option<TextShape>,
}

impl SampleSeries {
    /// Creates a series of samples of the event type `event_type`, or of the recipe's sample type. `run` is a random number.
    pub fn new(source: &Source, event_type: Option<&str>, run: u64) -> SampleSeries {
        let recipe = &source.recipe;
        let ids = shape(recipe, &recipe.event.id, event_type, true).filter(|ids| ids.capacity() >= MIN_CAPACITY);
        SampleSeries { run, ids, keys: shape(recipe, &recipe.event.key, event_type, false) }
    }

    /// Returns the id of the sample `number`. The ids of a series are distinct, and ids of two runs are very probably distinct.
    pub fn id(&self, number: u64) -> String {
        match &self.ids {
            Some(ids) => ids.shifted((self.start(ids) + u128::from(number)) % ids.capacity()),
            None => format!("{}{number}", self.prefix()),
        }
    }

    /// Returns the ordering key of the sample `number`; `None` if the recipe's sample has no ordering key. A series has at most
    /// [`SampleSeries::KEYS`] different keys, so that a load uses the partitions of a topic evenly.
    pub fn key(&self, number: u64) -> Option<String> {
        self.keys.as_ref().map(|keys| keys.shifted(u128::from(number % SampleSeries::KEYS)))
    }

    /// Returns true if an event is one of the first `count` samples of the series. An event without an id contains the id in its
    /// body.
    pub fn contains(&self, id: Option<&str>, body: &[u8], count: u64) -> bool {
        match (id, &self.ids) {
            (Some(id), Some(ids)) => {
                let distance = ids.distance(id).map(|found| (found + ids.capacity() - self.start(ids)) % ids.capacity());
                distance.is_some_and(|distance| distance < u128::from(count))
            }
            (Some(id), None) => {
                let number = id.strip_prefix(&self.prefix()).and_then(|number| number.parse::<u64>().ok());
                number.is_some_and(|number| number < count)
            }
            (None, _) => memchr::memmem::find(body, self.prefix().as_bytes()).is_some(),
        }
    }

    /// Maximum number of different ordering keys.
    pub const KEYS: u64 = 100;

    /// Returns the distance of the first id from the id of the recipe's sample.
    fn start(&self, ids: &TextShape) -> u128 {
        u128::from(self.run).wrapping_mul(SPREAD) % ids.capacity()
    }

    fn prefix(&self) -> String {
        format!("evt_{:016x}_", self.run)
    }
}

/// Returns the shape of a fact, such as the id, in the recipe's sample. Only its first or its last field varies.
fn shape(recipe: &Recipe, choice: &Choice, event_type: Option<&str>, is_first: bool) -> Option<TextShape> {
    let own = recipe.sample(event_type)?;
    let fields = SampleDraft::new(recipe, Some(own), String::new()).located(choice)?;
    let text = fields.join(JOINT);
    let length = text.chars().count();
    let within = match (is_first, fields.first(), fields.last()) {
        (true, Some(first), _) => 0..first.chars().count(),
        (_, _, Some(last)) => length - last.chars().count()..length,
        _ => return None,
    };
    Some(TextShape::of(&text, within))
}

/// Minimum number of ids with one shape. The ids of two runs of a million samples then overlap with a probability of about one in a
/// million.
const MIN_CAPACITY: u128 = 1 << 40;
/// Odd factor that spreads the numbers of runs over all ids.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
