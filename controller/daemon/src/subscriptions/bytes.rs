//! Images that a repository carries, for hosts: a web seed behind our own certificate. Hosts check every piece.

use super::images;
use crate::app::App;
use crate::auth::Member;
use crate::problem::{Answer, Refused};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use controller_publisher::{IMAGE_READ_MAX, ImageError};
use types::Digest;

/// `bytes=FIRST-LAST` within an image, as first byte and length.
fn range(text: &str, size_bytes: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let last = last.min(size_bytes.checked_sub(1)?);
    let length = last.checked_sub(first)?.checked_add(1)?;
    (length <= IMAGE_READ_MAX).then_some((first, length))
}

/// A part of an image.
pub(crate) async fn bytes(
    State(app): State<App>,
    _member: Member,
    Path(image): Path<Digest>,
    headers: HeaderMap,
) -> Answer<Response> {
    let absent = || Refused::not_found(format!("no subscription's repository carries image {image}"));
    let record = app.ledger.cluster().images.get(&image.hex()).map(|record| record.value.clone());
    let record = record.ok_or_else(absent)?;
    let images = images(&app, &record).ok_or_else(absent)?;
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((start, length)) = asked.and_then(|text| range(text, record.size_bytes)) else {
        return Err(Refused::bad_request("ask for one range of at most 16 MiB: `Range: bytes=FIRST-LAST`"));
    };
    match images.read(&image, start, length).await {
        Ok(bytes) => {
            let said = format!("bytes {start}-{}/{}", start + length - 1, record.size_bytes);
            Ok((StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, said)], bytes).into_response())
        }
        Err(ImageError::Absent(_)) => Err(absent()),
        Err(ImageError::Unreachable(why)) => Err(Refused::unavailable(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_range_of_a_pieces_length_is_read() {
        assert_eq!(range("bytes=0-511", 1_024), Some((0, 512)));
        assert_eq!(range("bytes=512-9999", 1_024), Some((512, 512)));
        assert_eq!(range(&format!("bytes=0-{}", IMAGE_READ_MAX - 1), u64::MAX), Some((0, IMAGE_READ_MAX)));
        assert_eq!(range(&format!("bytes=0-{IMAGE_READ_MAX}"), u64::MAX), None);
        for text in [
            "",
            "bytes=",
            "bytes=5-4",
            "bytes=-5",
            "bytes=1024-1030",
            "bytes=0-1,3-4",
            "bytes=0-18446744073709551616",
        ] {
            assert_eq!(range(text, 1_024), None, "{text}");
        }
    }
}
