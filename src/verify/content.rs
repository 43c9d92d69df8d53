//! The bytes that a proof covers, as a list of slices. Most slices are parts of the request and are not copied.

use std::borrow::Cow;

use bytes::Bytes;

/// The covered bytes, in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Content<'a>(Vec<Part<'a>>);

/// One slice of the content.
#[derive(Clone, Debug)]
pub(super) enum Part<'a> {
    /// A part of the request, of the recipe or of the source.
    Slice(&'a [u8]),
    /// Bytes that the verifier has computed from the request.
    Computed(Bytes),
}

impl<'a> Content<'a> {
    /// Creates content without bytes, with room for `parts` slices.
    pub(super) fn with_capacity(parts: usize) -> Content<'a> {
        Content(Vec::with_capacity(parts))
    }

    /// Appends a slice.
    pub(super) fn push(&mut self, part: Part<'a>) {
        self.0.push(part);
    }

    /// Returns the slices in their order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(Part::bytes)
    }

    /// Returns the number of bytes.
    pub(super) fn size(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }

    /// Returns all bytes in one slice. Copies them unless the content is a single slice.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.0[..] {
            [part] => Cow::Borrowed(part.bytes()),
            _ => Cow::Owned(self.parts().collect::<Vec<_>>().concat()),
        }
    }
}

impl Part<'_> {
    /// Returns the bytes of the slice.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Part::Slice(bytes) => bytes,
            Part::Computed(bytes) => bytes,
        }
    }
}
