//! Where bytes come from: a folder or a web server, with limits that hold before anything is believed.

use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tough::{Transport, TransportError, TransportErrorKind, TransportStream, async_trait};

/// Largest metadata file in bytes.
pub(crate) const METADATA_LEN_MAX: u64 = 4 << 20;
/// Largest target in bytes: the manifest of the largest image.
pub(crate) const TARGET_LEN_MAX: u64 = 48 << 20;
/// Files fetched and bytes taken in one go: a repository that has more is no appliance publisher's.
const FILES_MAX: u64 = 4_096;
const BYTES_MAX: u64 = 512 << 20;
/// Longest silence, and longest time a file may take.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const FILE_TIME_MAX: Duration = Duration::from_secs(120);
const REDIRECTS_MAX: usize = 5;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// On a web server.
    Web {
        /// Of the folder that holds `metadata` and `targets`: `https://...`.
        url: String,
        /// Certificates (PEM) of the authority of its certificate; absent: those this machine trusts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
    /// On this machine.
    Folder {
        /// Absolute.
        path: PathBuf,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Web { url, .. } => f.write_str(url),
            Self::Folder { path } => path.display().fmt(f),
        }
    }
}

impl Source {
    /// Checks that it can be one, without asking it.
    ///
    /// # Errors
    /// One sentence: what, and what to write instead.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Folder { path } if !path.is_absolute() => {
                Err(format!("{} is not an absolute path on the controller", path.display()))
            }
            Self::Folder { .. } => Ok(()),
            Self::Web { .. } => self.web().map(drop),
        }
    }

    /// The base's address and a client for it; none for a folder.
    pub(crate) fn web(&self) -> Result<Option<(Url, reqwest::Client)>, String> {
        let Self::Web { url, ca } = self else { return Ok(None) };
        let with_slash = if url.ends_with('/') { url.clone() } else { format!("{url}/") };
        let base = Url::parse(&with_slash).map_err(|error| format!("{url:?} is no URL: {error}"))?;
        if base.scheme() != "https" || base.query().is_some() || base.fragment().is_some() {
            return Err(format!(
                "{url:?} is not the address of a folder: it starts with https://, without ? and #"
            ));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(
                "the URL holds a password: a repository is public, its signatures protect it".to_owned()
            );
        }
        let client = client(&base, ca.as_deref())?;
        Ok(Some((base, client)))
    }
}

fn client(base: &Url, ca: Option<&str>) -> Result<reqwest::Client, String> {
    let tls = match ca {
        Some(pem) => {
            let authorities: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| format!("the authority's certificate cannot be read: {error}"))?;
            if authorities.is_empty() {
                return Err("the authority's file holds no certificate (PEM)".to_owned());
            }
            chassis::tls::anonymous_client_config(&authorities).map_err(|error| error.to_string())?
        }
        None => {
            use rustls_platform_verifier::BuilderVerifierExt as _;
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_platform_verifier())
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
        }
    };
    let redirects = reqwest::redirect::Policy::custom(|attempt| {
        if attempt.previous().len() > REDIRECTS_MAX {
            attempt.error("it redirects in circles")
        } else if attempt.url().scheme() == "https" {
            attempt.follow()
        } else {
            attempt.error("it redirects to an address without TLS")
        }
    });
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(redirects)
        .referer(false)
        .connect_timeout(SILENCE_MAX)
        .read_timeout(SILENCE_MAX)
        .timeout(FILE_TIME_MAX)
        .user_agent(concat!("collective/", env!("CARGO_PKG_VERSION")));
    if matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| error.to_string())
}

/// What is left of the limits of one load.
#[derive(Debug)]
struct Budget {
    files: AtomicU64,
    bytes: AtomicU64,
}

/// A source as `tough` reads it. For a folder the addresses begin at the folder, not at the file system's root.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    source: Arc<From>,
    budget: Arc<Budget>,
}

#[derive(Debug)]
enum From {
    Folder(PathBuf),
    Web(Url, reqwest::Client),
}

impl Fetch {
    pub(crate) fn new(source: &Source) -> Result<Self, String> {
        let from = match (source, source.web()?) {
            (Source::Folder { path }, _) => From::Folder(path.clone()),
            (_, Some((url, client))) => From::Web(url, client),
            (_, None) => return Err("it is neither a folder nor a URL".to_owned()),
        };
        let budget = Budget { files: AtomicU64::new(FILES_MAX), bytes: AtomicU64::new(BYTES_MAX) };
        Ok(Self { source: Arc::new(from), budget: Arc::new(budget) })
    }

    /// The address of a folder of it.
    pub(crate) fn base(&self, folder: &str) -> Result<Url, String> {
        let base = match &*self.source {
            From::Folder(_) => Url::parse("file:///").map_err(|error| error.to_string())?,
            From::Web(url, _) => url.clone(),
        };
        base.join(&format!("{folder}/")).map_err(|error| error.to_string())
    }

    async fn bytes(&self, url: &Url) -> Result<Vec<u8>, (TransportErrorKind, String)> {
        let other = |what: String| (TransportErrorKind::Other, what);
        let is_metadata = !url.path().contains("/targets/");
        let most = if is_metadata { METADATA_LEN_MAX } else { TARGET_LEN_MAX };
        let left = self.budget.bytes.load(Ordering::Relaxed);
        let files =
            self.budget.files.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        if files.is_err() || left == 0 {
            return Err(other(format!(
                "the repository has more than {FILES_MAX} files or 512 MiB: too much"
            )));
        }
        let bytes = match &*self.source {
            From::Folder(folder) => {
                let path = folder.join(url.path().trim_start_matches('/'));
                tokio::task::spawn_blocking(move || read_file(&path, most))
                    .await
                    .map_err(|error| other(error.to_string()))??
            }
            From::Web(_, client) => read_web(client, url, most).await?,
        };
        let length = bytes.len() as u64;
        let spent = self
            .budget
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(length));
        spent.map(|_| bytes).map_err(|_| other("the repository sends more than 512 MiB: too much".to_owned()))
    }
}

type Failed = (TransportErrorKind, String);

fn too_long(most: u64) -> Failed {
    (TransportErrorKind::Other, format!("it is longer than {most} bytes"))
}

fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Failed> {
    let failed = |error: std::io::Error| {
        let absent = error.kind() == std::io::ErrorKind::NotFound;
        let kind = if absent { TransportErrorKind::FileNotFound } else { TransportErrorKind::Other };
        (kind, error.to_string())
    };
    // A pipe would be waited for.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err((TransportErrorKind::Other, "it is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > most { Err(too_long(most)) } else { Ok(bytes) }
}

async fn read_web(client: &reqwest::Client, url: &Url, most: u64) -> Result<Vec<u8>, Failed> {
    let failed =
        |error: reqwest::Error| (TransportErrorKind::Other, crate::error::chain(&error.without_url()));
    let mut response = client.get(url.clone()).send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        // Object stores answer 403 for what is not there.
        let absent = matches!(status.as_u16(), 403 | 404 | 410);
        let kind = if absent { TransportErrorKind::FileNotFound } else { TransportErrorKind::Other };
        return Err((kind, format!("the server answers {status}")));
    }
    if response.content_length().is_some_and(|length| length > most) {
        return Err(too_long(most));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if (bytes.len() + chunk.len()) as u64 > most {
            return Err(too_long(most));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[async_trait]
impl Transport for Fetch {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        match self.bytes(&url).await {
            Ok(bytes) => Ok(Box::pin(futures::stream::once(std::future::ready(Ok(bytes.into()))))),
            Err((kind, what)) => Err(TransportError::new_with_cause(kind, url, what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web(url: &str) -> Result<(), String> {
        Source::Web { url: url.into(), ca: None }.check()
    }

    #[test]
    fn only_folders_and_tls_without_a_password_are_sources() {
        web("https://acme.example/repo").unwrap();
        for url in ["http://acme.example", "https://u:p@acme.example/", "ftp://x", "acme", "https://a/?x=1"] {
            assert!(web(url).is_err(), "{url}");
        }
        assert!(Source::Folder { path: "repo".into() }.check().unwrap_err().contains("absolute"));
        let no_certificate = Source::Web { url: "https://a".into(), ca: Some("hello".into()) };
        assert!(no_certificate.check().unwrap_err().contains("no certificate"));
    }

    #[tokio::test]
    async fn a_folder_gives_nothing_from_outside_and_waits_for_no_pipe() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("repo with space");
        std::fs::create_dir_all(folder.join("metadata")).unwrap();
        std::fs::write(outer.path().join("secret.json"), b"s").unwrap();
        std::fs::write(folder.join("metadata/1.root.json"), b"r").unwrap();
        let fetch = Fetch::new(&Source::Folder { path: folder }).unwrap();
        let base = fetch.base("metadata").unwrap();
        assert_eq!(fetch.bytes(&base.join("1.root.json").unwrap()).await.unwrap(), b"r");
        for outside in ["../../secret.json", "..%2F..%2Fsecret.json", "%2e%2e/%2e%2e/secret.json"] {
            let (kind, _) = fetch.bytes(&base.join(outside).unwrap()).await.unwrap_err();
            assert_eq!(kind, TransportErrorKind::FileNotFound, "{outside}");
        }
        assert!(fetch.bytes(&base).await.unwrap_err().1.contains("no file"));
    }

    #[test]
    fn a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"1234").unwrap();
        assert_eq!(read_file(&path, 4).unwrap(), b"1234");
        assert!(read_file(&path, 3).unwrap_err().1.contains("longer than 3 bytes"));
    }
}
