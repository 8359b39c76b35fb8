//! Newline-delimited JSON, as it arrives.

use crate::ClientError;
use reqwest::Response;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Longest line in bytes.
const LINE_LEN_MAX: usize = 4 << 20;

/// A stream of JSON values, one a line.
#[derive(Debug)]
pub struct Lines<T> {
    response: Response,
    url: String,
    buffer: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(response: Response) -> Self {
        let url = response.url().path().to_owned();
        Self { response, url, buffer: Vec::new(), of: PhantomData }
    }

    /// The next value; none at the end. Cancel safe.
    ///
    /// # Errors
    /// The connection broke, or the line is no such value.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| self.wrong(error.to_string()));
            }
            if self.buffer.len() > LINE_LEN_MAX {
                return Err(self.wrong(format!("a line is longer than {LINE_LEN_MAX} bytes")));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => return Err(ClientError::unreachable(&self.url, error)),
            }
        }
    }

    fn wrong(&self, detail: String) -> ClientError {
        ClientError::Answer { url: self.url.clone(), detail }
    }
}
