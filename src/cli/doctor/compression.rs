//! Undoes the compression of a body, for senders that sign a body before they compress it, and recognises a body that a proxy
//! has decompressed.

use hookhold::verify::decompressed;
use http::header::CONTENT_ENCODING;

use super::captured::CapturedDelivery;
use super::cause::Cause;

/// Returns the decompressed body, with the cause that a matching signature proves. Returns `None` if the body is not compressed.
pub(super) fn undone(captured: &CapturedDelivery) -> Option<(Vec<u8>, Cause)> {
    let bytes = decompressed(&captured.delivery, MAX_BODY)?;
    let what = "the body is compressed, but the sender signed it before the compression, or a proxy compressed it";
    let advice = "turn off compression at the sender or in the proxy; hookhold verifies the body as it arrives";
    Some((bytes, Cause::certain("body_compressed", what, advice)))
}

/// Returns a likely cause for a body that is not compressed although its header says so.
pub(super) fn removed(captured: &CapturedDelivery) -> Option<Cause> {
    let coding = coding(captured).filter(|_| undone(captured).is_none() && !captured.delivery.body.is_empty())?;
    let what = format!("the header content-encoding is {coding}, but the body is not compressed; a proxy has decompressed it");
    let advice = "turn off decompression in the proxy; the sender signs the compressed body";
    Some(Cause::likely("body_decompressed", what, advice))
}

/// Returns the compression in the header `Content-Encoding`.
fn coding(captured: &CapturedDelivery) -> Option<&'static str> {
    let text = captured.delivery.headers.get(CONTENT_ENCODING)?.to_str().ok()?.trim().to_ascii_lowercase();
    CODINGS.into_iter().find(|coding| *coding == text)
}

const CODINGS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "x-gzip"];
/// Maximum size of a decompressed body, in bytes.
const MAX_BODY: usize = 64 << 20;
