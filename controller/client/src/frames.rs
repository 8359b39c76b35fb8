//! Bytes as they arrive.

use crate::ClientError;
use reqwest::Response;

/// An answer that is still coming. Dropping it hangs up.
#[derive(Debug)]
pub struct Frames {
    response: Response,
    url: String,
}

impl Frames {
    pub(crate) fn new(response: Response) -> Self {
        let url = response.url().path().to_owned();
        Self { response, url }
    }

    /// The next bytes; none at the end. Cancel safe.
    ///
    /// # Errors
    /// The connection broke: what came is not whole.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let chunk = self.response.chunk().await;
        chunk
            .map(|chunk| chunk.map(|bytes| bytes.to_vec()))
            .map_err(|error| ClientError::unreachable(&self.url, error))
    }
}
