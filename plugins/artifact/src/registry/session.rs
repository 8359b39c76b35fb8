//! One conversation with a registry: the OCI distribution API, bounded in time and size.
//!
//! Secrets go to the registry's own origin and to the token server it names, never along with a redirect or to an
//! upload address elsewhere, and never unencrypted beyond this machine.

use super::challenge::{self, Challenge};
use super::manifest::{MANIFEST_BYTES_MAX, MANIFEST_TYPE};
use super::reference::is_loopback;
use super::{Credentials, Patience, Reference, RegistryError};
use crate::digest;
use crate::statement::shortened;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::Deserialize;
use std::sync::Arc;
use types::Digest;

const REDIRECTS_MAX: usize = 5;
/// Largest answer of a token server, in bytes. Tokens have some KiB.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Of an error's body so much is read.
const ERROR_BYTES_MAX: usize = 4 << 10;

/// What somebody wants to do in a repository: the words of a token's scope.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// How requests are authorised, once a registry asked for it.
#[derive(Debug)]
enum Authority {
    None,
    Basic(Credentials),
    Bearer(String),
}

pub(crate) struct Session {
    http: Client,
    origin: Url,
    repository: String,
    access: Access,
    credentials: Option<Credentials>,
    authority: Authority,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    /// The same by its OAuth 2 name.
    #[serde(default)]
    access_token: String,
}

#[derive(Deserialize)]
struct Problems {
    errors: Vec<ProblemEntry>,
}

#[derive(Deserialize)]
struct ProblemEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Session {
    pub(crate) fn open(
        reference: &Reference,
        access: Access,
        credentials: Option<Credentials>,
        patience: Patience,
    ) -> Result<Self, RegistryError> {
        let setup = |detail: String| RegistryError::Setup { detail };
        let origin = Url::parse(&reference.origin()).map_err(|error| setup(error.to_string()))?;
        let local = is_local(&origin);
        let tls =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .and_then(|builder| builder.with_platform_verifier())
                .map_err(|error| setup(error.to_string()))?
                .with_no_client_auth();
        let redirects = redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                attempt.error("it redirects in circles")
            } else if is_safe(attempt.url(), local) {
                attempt.follow()
            } else {
                attempt.error("it redirects to an address without TLS")
            }
        });
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(redirects)
            .referer(false)
            .connect_timeout(patience.idle)
            .read_timeout(patience.idle)
            .timeout(patience.total)
            .user_agent(concat!("collective/", env!("CARGO_PKG_VERSION")));
        if local {
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder.build().map_err(|error| setup(error.to_string()))?,
            origin,
            repository: reference.repository().to_owned(),
            access,
            credentials,
            authority: Authority::None,
        })
    }

    /// The manifest of that name (a tag or a digest).
    pub(crate) async fn manifest(&mut self, name: &str) -> Result<Vec<u8>, RegistryError> {
        let what = format!("manifest {name}");
        let url = self.url(&format!("manifests/{name}"))?;
        let response =
            self.send(&what, &url, |http, url| http.get(url).header(ACCEPT, MANIFEST_TYPE)).await?;
        body(&what, self.expect(&what, response, &[StatusCode::OK]).await?, MANIFEST_BYTES_MAX).await
    }

    /// The blob of that digest, verified, of at most `size` bytes.
    pub(crate) async fn blob(&mut self, wanted: Digest, size: usize) -> Result<Vec<u8>, RegistryError> {
        let what = format!("blob {}", wanted.short());
        let url = self.url(&format!("blobs/{wanted}"))?;
        let response = self.send(&what, &url, |http, url| http.get(url)).await?;
        let bytes = body(&what, self.expect(&what, response, &[StatusCode::OK]).await?, size).await?;
        let found = digest(&bytes);
        if found == wanted { Ok(bytes) } else { Err(RegistryError::OtherBytes { what, wanted, found }) }
    }

    /// Puts a blob there unless it is there.
    pub(crate) async fn put_blob(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        let digest = digest(bytes);
        let what = format!("upload of blob {}", digest.short());
        let known = self.url(&format!("blobs/{digest}"))?;
        let response = self.send(&what, &known, |http, url| http.head(url)).await?;
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        let uploads = self.url("blobs/uploads/")?;
        let begin = |http: &Client, url| http.post(url).header(CONTENT_LENGTH, 0);
        let response = self.send(&what, &uploads, begin).await?;
        let response = self.expect(&what, response, &[StatusCode::ACCEPTED]).await?;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let malformed = |problem: &str| RegistryError::Answer { what: what.clone(), problem: problem.into() };
        let location = location.ok_or_else(|| malformed("it does not say where to put the bytes"))?;
        let mut target =
            response.url().join(location).map_err(|_| malformed("it gives no address to put the bytes"))?;
        if !is_safe(&target, is_local(&self.origin)) {
            return Err(malformed("it wants the bytes at an address without TLS"));
        }
        target.query_pairs_mut().append_pair("digest", &digest.to_string());
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        let put = |http: &Client, url| {
            http.put(url).header(CONTENT_TYPE, "application/octet-stream").body(bytes.clone())
        };
        let response = self.send(&what, &target, put).await?;
        self.expect(&what, response, &[StatusCode::CREATED]).await.map(drop)
    }

    /// Lets a tag stand for a manifest whose blobs are there.
    pub(crate) async fn put_manifest(&mut self, tag: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let what = format!("manifest {tag}");
        let url = self.url(&format!("manifests/{tag}"))?;
        let put = |http: &Client, url| http.put(url).header(CONTENT_TYPE, MANIFEST_TYPE).body(bytes.to_vec());
        let response = self.send(&what, &url, put).await?;
        self.expect(&what, response, &[StatusCode::CREATED]).await.map(drop)
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let path = format!("/v2/{}/{path}", self.repository);
        self.origin.join(&path).map_err(|error| RegistryError::Setup { detail: error.to_string() })
    }

    /// Sends a request; when the registry asks who we are, answers and sends it once more.
    async fn send(
        &mut self,
        what: &str,
        url: &Url,
        request: impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let response = self.attempt(what, url, &request).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !matches!(self.authority, Authority::None) {
            return Ok(response);
        }
        let header = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let Some(header) = header else { return Ok(response) };
        let challenge = challenge::parse(header)
            .map_err(|problem| RegistryError::Answer { what: what.to_owned(), problem })?;
        self.authority = match (challenge, self.credentials.clone()) {
            (Challenge::Basic, None) => return Ok(response),
            (Challenge::Basic, Some(credentials)) => Authority::Basic(credentials),
            (Challenge::Bearer { realm, service }, credentials) => {
                Authority::Bearer(self.token(&realm, service.as_deref(), credentials).await?)
            }
        };
        self.attempt(what, url, &request).await
    }

    async fn attempt(
        &self,
        what: &str,
        url: &Url,
        request: &impl Fn(&Client, Url) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let request = request(&self.http, url.clone());
        let ours = url.origin() == self.origin.origin();
        let request = match &self.authority {
            Authority::Basic(who) if ours => request.basic_auth(&who.user, Some(&who.password)),
            Authority::Bearer(token) if ours => request.bearer_auth(token),
            _ => request,
        };
        request.send().await.map_err(|error| self.unreachable(what, error))
    }

    /// Fetches a token for our repository and our access: what the challenge names as scope is not asked.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        credentials: Option<Credentials>,
    ) -> Result<String, RegistryError> {
        let what = "token".to_owned();
        let malformed = |problem: &str| RegistryError::Answer { what: what.clone(), problem: problem.into() };
        let mut url = Url::parse(realm).map_err(|_| malformed("its token server has no address"))?;
        if !is_safe(&url, is_local(&self.origin)) {
            return Err(malformed("its token server is at an address without TLS"));
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.http.request(Method::GET, url);
        if let Some(Credentials { user, password }) = credentials {
            request = request.basic_auth(user, Some(password));
        }
        let response = request.send().await.map_err(|error| self.unreachable(&what, error))?;
        let response = self.expect(&what, response, &[StatusCode::OK]).await?;
        let answer: Token = serde_json::from_slice(&body(&what, response, TOKEN_BYTES_MAX).await?)
            .map_err(|_| malformed("its token server's answer holds no token"))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        // A token with a line break would be a header of its own; reqwest refuses it, without saying why.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(malformed("its token server's answer holds no token"));
        }
        Ok(token)
    }

    fn unreachable(&self, what: &str, error: reqwest::Error) -> RegistryError {
        let registry = self.origin.as_str().to_owned();
        RegistryError::Unreachable { registry, what: what.to_owned(), source: error.without_url() }
    }

    async fn expect(
        &self,
        what: &str,
        mut response: Response,
        wanted: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if wanted.contains(&status) {
            return Ok(response);
        }
        let mut bytes = Vec::new();
        while bytes.len() < ERROR_BYTES_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            bytes.extend_from_slice(&chunk[..chunk.len().min(ERROR_BYTES_MAX - bytes.len())]);
        }
        let what = what.to_owned();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let registry = self.origin.as_str().to_owned();
            return Err(RegistryError::Denied { registry, what, logged_in: self.credentials.is_some() });
        }
        if status == StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound { what, repository: self.repository.clone() });
        }
        let said = match serde_json::from_slice::<Problems>(&bytes) {
            Ok(Problems { errors }) => errors
                .iter()
                .take(3)
                .map(|entry| format!("{} {}", shortened(&entry.code), shortened(&entry.message)))
                .collect::<Vec<_>>()
                .join("; "),
            Err(_) => shortened(&String::from_utf8_lossy(&bytes)),
        };
        Err(RegistryError::Refused { what, status: status.as_u16(), said })
    }
}

fn is_local(origin: &Url) -> bool {
    origin.host_str().is_some_and(is_loopback)
}

/// With TLS, or within this machine if the registry is as well.
fn is_safe(url: &Url, local: bool) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => local && is_local(url),
        _ => false,
    }
}

/// The body, of at most `bytes_max`.
async fn body(what: &str, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|source| RegistryError::Interrupted {
            what: what.to_owned(),
            source: source.without_url(),
        })?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        if bytes.len() + chunk.len() > bytes_max {
            return Err(RegistryError::TooLarge { what: what.to_owned(), bytes_max });
        }
        bytes.extend_from_slice(&chunk);
    }
}
