//! Parts of images that a repository carries. Nothing here is verified: whoever asked checks the piece.

use crate::layout::IMAGES;
use crate::transport::Source;
use reqwest::{Url, header};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use types::Digest;

/// Most bytes read in one go: the largest piece.
pub const IMAGE_READ_MAX: u64 = 16 << 20;

/// Why no bytes came.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The repository does not carry the image.
    #[error("the repository does not carry image {0}")]
    Absent(String),
    /// It does not answer, or not with what was asked for.
    #[error("{0}")]
    Unreachable(String),
}

/// The images of one repository.
#[derive(Debug, Clone)]
pub struct Images(From);

#[derive(Debug, Clone)]
enum From {
    Folder(PathBuf),
    Web(Url, reqwest::Client),
}

impl Images {
    /// Of a source; connects to nothing yet.
    ///
    /// # Errors
    /// As [`Source::check`].
    pub fn new(source: &Source) -> Result<Self, String> {
        match (source, source.web()?) {
            (Source::Folder { path }, _) => Ok(Self(From::Folder(path.join(IMAGES)))),
            (_, Some((url, client))) => {
                let base = url.join(&format!("{IMAGES}/")).map_err(|error| error.to_string())?;
                Ok(Self(From::Web(base, client)))
            }
            (_, None) => Err("it is neither a folder nor a URL".to_owned()),
        }
    }

    /// Reads `length` bytes (at most [`IMAGE_READ_MAX`]) from `start`.
    ///
    /// # Errors
    /// [`ImageError`]; also if it has fewer.
    pub async fn read(&self, image: &Digest, start: u64, length: u64) -> Result<Vec<u8>, ImageError> {
        let length = length.min(IMAGE_READ_MAX);
        let name = format!("{}.raw", image.hex());
        match &self.0 {
            From::Folder(folder) => {
                let path = folder.join(name);
                let image = *image;
                tokio::task::spawn_blocking(move || {
                    // A pipe would be waited for.
                    if std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
                        return Err(ImageError::Unreachable(format!("{} is no file", path.display())));
                    }
                    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
                    let read =
                        std::fs::File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, start));
                    read.map(|()| bytes).map_err(|error| match error.kind() {
                        ErrorKind::NotFound => ImageError::Absent(image.hex()),
                        _ => ImageError::Unreachable(format!("cannot read {}: {error}", path.display())),
                    })
                })
                .await
                .map_err(|error| ImageError::Unreachable(error.to_string()))?
            }
            From::Web(base, client) => {
                let url = base.join(&name).map_err(|error| ImageError::Unreachable(error.to_string()))?;
                read_range(client, url, image, start, length).await
            }
        }
    }
}

async fn read_range(
    client: &reqwest::Client,
    url: Url,
    image: &Digest,
    start: u64,
    length: u64,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error: reqwest::Error| ImageError::Unreachable(crate::error::chain(&error));
    let range = format!("bytes={start}-{}", (start + length).saturating_sub(1));
    let mut response = client.get(url).header(header::RANGE, range).send().await.map_err(failed)?;
    match response.status().as_u16() {
        206 => {}
        403 | 404 | 410 => return Err(ImageError::Absent(image.hex())),
        status => {
            return Err(ImageError::Unreachable(format!("{status} is no answer to a request for a part")));
        }
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > length {
            return Err(ImageError::Unreachable("it sends more than was asked for".to_owned()));
        }
    }
    if (bytes.len() as u64) < length {
        return Err(ImageError::Unreachable("its answer was cut short".to_owned()));
    }
    Ok(bytes)
}
