//! The items of a batch as the pass over a body finds them: the bytes of each item, and the values that a recipe reads from it.

use std::borrow::Cow;
use std::ops::Range;

/// The values that a recipe reads from a body or an item, one entry for each location. Empty if the body has not been parsed.
pub(super) type Values<'a> = Vec<Option<Cow<'a, str>>>;

/// The items of the array that a recipe names as its batch.
#[derive(Debug, Default)]
pub(super) struct Items<'a> {
    /// The items, in the order of the body, at most the number that the recipe allows.
    pub(super) list: Vec<BatchItem<'a>>,
    pub(super) shape: BatchShape,
    /// True if the array contains more items than the recipe allows.
    pub(super) is_over_limit: bool,
    /// True if each byte range is a range of the body as received, and only white space and control characters follow the value
    /// with the array.
    pub(super) is_divisible: bool,
    /// True if an object or array follows the value with the array, as in NDJSON. It may contain further items.
    pub(super) is_followed: bool,
    /// True if an earlier object member has the same name as the array or as an object around it.
    pub(super) is_repeated: bool,
}

/// One item of a batch.
#[derive(Debug)]
pub(super) struct BatchItem<'a> {
    /// The bytes of the item in the body.
    pub(super) range: Range<usize>,
    /// The values at the recipe's locations inside the item.
    pub(super) values: Values<'a>,
}

/// The kind of value at the location of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum BatchShape {
    /// The recipe names no batch, or the body has no value at its location.
    #[default]
    Absent,
    /// An array.
    Array,
    /// Another value, which is the only item of the list.
    Single,
}

impl Items<'_> {
    /// Returns the items with copies of all values. The items are ranges of another text than the body.
    pub(super) fn into_owned<'b>(self) -> Items<'b> {
        let Items { list, shape, is_over_limit, is_followed, is_repeated, .. } = self;
        let list = list.into_iter().map(|item| BatchItem { range: item.range, values: owned(item.values) }).collect();
        Items { list, shape, is_over_limit, is_divisible: false, is_followed, is_repeated }
    }
}

/// Copies all values.
pub(super) fn owned<'b>(values: Values<'_>) -> Values<'b> {
    values.into_iter().map(|value| value.map(|text| Cow::Owned(text.into_owned()))).collect()
}
