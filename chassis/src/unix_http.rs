//! HTTP/1.1 with JSON bodies over a unix socket: how the daemons of one host speak with each other.

use axum::Router;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, BodyStream, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Largest answer a client takes, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest wait for an answer to begin.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time the last answers may take after a shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// A bound socket, ready to serve.
#[derive(Debug)]
pub struct Listener(UnixListener);

/// Binds `path` with permission `mode` (such as `0o660`), replacing a socket that nobody answers on, and making its
/// folder.
///
/// # Errors
/// The path is taken by a live server (`AddrInUse`) or something that is no socket, or cannot be made.
pub fn bind(path: &Path, mode: u32) -> io::Result<Listener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("{} is served by another process", path.display()),
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(Listener(listener))
}

/// Serves until `shutdown`, then finishes the answers under way, 4 seconds at most.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    let drain = shutdown.clone();
    let server = axum::serve(listener.0, router).with_graceful_shutdown(drain.cancelled_owned());
    tokio::select! {
        result = std::future::IntoFuture::into_future(server) => {
            if let Err(error) = result {
                tracing::error!(%error, "the unix socket's server ended");
            }
        }
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await } => {}
    }
}

/// Why a call to a local daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens on the socket.
    #[error("cannot reach {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("{method} {path} on {} broke off", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// The request's method.
        method: Method,
        /// The request's path.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{method} {path} on {} was not answered within {} s", socket.display(), ANSWER_TIMEOUT.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// The request's method.
        method: Method,
        /// The request's path.
        path: String,
    },
    /// The daemon refused.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The daemon's code, kebab-case, or empty.
        code: String,
        /// The daemon's words.
        message: String,
    },
    /// The answer is no JSON of the expected shape.
    #[error("{method} {path} on {} answered something else than expected", socket.display())]
    Shape {
        /// The socket.
        socket: PathBuf,
        /// The request's method.
        method: Method,
        /// The request's path.
        path: String,
        /// What.
        #[source]
        source: serde_json::Error,
    },
}

/// Calls one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Nothing is connected yet: each call makes its own connection.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    /// The socket it calls.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls with a JSON body (none for `()`), and reads a JSON answer (`null` for an empty one).
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<A, CallError> {
        let answer = self.send(method.clone(), path, body).await?;
        let bytes = Limited::new(answer, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|source| self.broken(&method, path, source))?
            .to_bytes();
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|source| self.shape(&method, path, source))
    }

    /// Calls and hands each line of a newline-delimited JSON answer to `line`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_lines<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        mut line: impl FnMut(A) + Send,
    ) -> Result<(), CallError> {
        let answer = self.send(method.clone(), path, body).await?;
        let mut frames = BodyStream::new(answer);
        let mut rest = Vec::new();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|source| self.broken(&method, path, source))?;
            let Ok(data) = frame.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = rest.drain(..=end).collect();
                if !text.trim_ascii().is_empty() {
                    line(serde_json::from_slice(&text).map_err(|s| self.shape(&method, path, s))?);
                }
            }
        }
        if !rest.trim_ascii().is_empty() {
            line(serde_json::from_slice(&rest).map_err(|s| self.shape(&method, path, s))?);
        }
        Ok(())
    }

    /// Calls and hands out the answer's bytes as they come.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_streamed<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<Streamed, CallError> {
        let answer = self.send(method.clone(), path, body).await?;
        Ok(Streamed { client: self.clone(), method, path: path.to_owned(), frames: BodyStream::new(answer) })
    }

    async fn send<B: Serialize + Sync>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<Incoming, CallError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| CallError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(&method, path, source))?;
        tokio::spawn(connection);
        let json = serde_json::to_vec(body).map_err(|source| self.shape(&method, path, source))?;
        let json = if json == b"null" { Vec::new() } else { json };
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(json)))
            .map_err(|source| self.broken(&method, path, source))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_| CallError::Timeout {
                socket: self.socket.clone(),
                method: method.clone(),
                path: path.to_owned(),
            })?
            .map_err(|source| self.broken(&method, path, source))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        Err(refusal(status, answer.into_body()).await)
    }

    fn broken(
        &self,
        method: &Method,
        path: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CallError {
        CallError::Broken {
            socket: self.socket.clone(),
            method: method.clone(),
            path: path.to_owned(),
            source: source.into(),
        }
    }

    fn shape(&self, method: &Method, path: &str, source: serde_json::Error) -> CallError {
        CallError::Shape {
            socket: self.socket.clone(),
            method: method.clone(),
            path: path.to_owned(),
            source,
        }
    }
}

/// An answer that is still coming. Dropping it hangs up.
#[derive(Debug)]
pub struct Streamed {
    client: Client,
    method: Method,
    path: String,
    frames: BodyStream<Incoming>,
}

impl Streamed {
    /// The next bytes; none at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`CallError::Broken`]: the connection broke before the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, CallError> {
        while let Some(frame) = self.frames.next().await {
            let frame = frame.map_err(|source| self.client.broken(&self.method, &self.path, source))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A daemon's refusal is JSON with `code` and `message`; anything else is quoted.
async fn refusal(status: StatusCode, body: Incoming) -> CallError {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
        message: String,
    }
    let bytes = Limited::new(body, 64 << 10).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let (code, message) = match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => (problem.code, problem.message),
        Err(_) => (String::new(), format!("{status}: {}", String::from_utf8_lossy(&bytes).trim())),
    };
    CallError::Refused { status: status.as_u16(), code, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Json;
    use axum::routing::{get, post};

    async fn started() -> (tempfile::TempDir, Client, CancellationToken) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let router = Router::new()
            .route("/double", post(|Json(n): Json<u32>| async move { Json(n * 2) }))
            .route(
                "/refuse",
                get(|| async {
                    let body = serde_json::json!({"code": "stale", "message": "it is older"});
                    (StatusCode::CONFLICT, Json(body))
                }),
            )
            .route("/lines", get(|| async { "1\n2\n\n3" }));
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(bind(&path, 0o600).unwrap(), router, shutdown.clone()));
        (folder, Client::new(path), shutdown)
    }

    #[tokio::test]
    async fn calls_and_reads_answers_lines_and_refusals() {
        let (_folder, client, shutdown) = started().await;
        assert_eq!(client.call::<_, u32>(Method::POST, "/double", &21).await.unwrap(), 42);
        let mut lines = Vec::new();
        client.call_lines(Method::GET, "/lines", &(), |n: u32| lines.push(n)).await.unwrap();
        assert_eq!(lines, [1, 2, 3]);
        let error = client.call::<_, ()>(Method::GET, "/refuse", &()).await.unwrap_err();
        assert!(matches!(&error, CallError::Refused { status: 409, code, .. } if code == "stale"));
        assert_eq!(error.to_string(), "it is older");
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_streamed_answer_comes_in_parts_and_ends_when_the_caller_hangs_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let (parts, queue) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let queue = std::sync::Mutex::new(Some(queue));
        let answer = move || {
            let queue = queue.lock().unwrap().take().unwrap();
            let stream = futures::stream::unfold(queue, |mut queue| async move {
                queue.recv().await.map(|part| (Ok::<_, io::Error>(part), queue))
            });
            std::future::ready(axum::body::Body::from_stream(stream))
        };
        let answer = std::sync::Arc::new(answer);
        let router = Router::new().route("/parts", get(move || answer()));
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(bind(&path, 0o600).unwrap(), router, shutdown.clone()));
        let mut streamed = Client::new(path).call_streamed(Method::GET, "/parts", &()).await.unwrap();
        for part in ["one", "two"] {
            parts.send(part.into()).await.unwrap();
            assert_eq!(streamed.chunk().await.unwrap().unwrap(), part);
        }
        drop(streamed);
        tokio::time::timeout(ANSWER_TIMEOUT, parts.closed()).await.unwrap();
        shutdown.cancel();
    }

    #[tokio::test]
    async fn a_live_socket_is_not_taken_over_but_a_dead_one_is() {
        let (folder, client, shutdown) = started().await;
        assert_eq!(bind(client.socket(), 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        shutdown.cancel();
        let dead = folder.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
        bind(&dead, 0o600).unwrap();
    }

    #[tokio::test]
    async fn nobody_there_names_the_socket() {
        let error =
            Client::new("/nonexistent/x.sock").call::<_, ()>(Method::GET, "/", &()).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot reach /nonexistent/x.sock");
    }
}
