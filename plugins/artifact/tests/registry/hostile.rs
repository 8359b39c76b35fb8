//! Registries that lie, stall and flood.

use crate::{PATIENCE, about, signed};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use plugins_artifact::digest;
use plugins_artifact::registry::{Credentials, Patience, Pulled, Reference, RegistryError, pull, push};
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;
type Answer = Box<dyn Fn(&Request) -> Response + Send + Sync>;

/// A registry that answers as a test wants, and remembers what it was asked.
struct Stranger {
    address: String,
    seen: Seen,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Shared {
    answer: Answer,
    seen: Seen,
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
    shared.seen.lock().unwrap().push((format!("{} {}", request.method(), request.uri()), authorization));
    (shared.answer)(&request)
}

impl Stranger {
    async fn start(answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, answer)
    }

    fn serve(listener: TcpListener, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared { answer: Box::new(answer), seen: Arc::clone(&seen) });
        let app = Router::new().fallback(handle).with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, seen, serving }
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    async fn pull(&self) -> Result<Pulled, RegistryError> {
        let credentials = Credentials { user: "ana".into(), password: "secret".into() };
        pull(&self.reference("balanced:1"), Some(credentials), PATIENCE).await
    }
}

fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

fn manifest(layers: &serde_json::Value) -> Response {
    let text = json!({
        "schemaVersion": 2,
        "config": {"mediaType": "x", "digest": digest(b"").to_string(), "size": 0},
        "layers": layers,
    });
    text.to_string().into_response()
}

fn layer(bytes: &[u8], size: usize) -> serde_json::Value {
    json!([{"mediaType": "application/wasm", "digest": digest(bytes).to_string(), "size": size}])
}

/// Bytes without an end.
fn flood() -> Response {
    let chunk = Bytes::from(vec![b'x'; 64 << 10]);
    struct Endless(Bytes);
    impl futures::Stream for Endless {
        type Item = Result<Bytes, std::convert::Infallible>;
        fn poll_next(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(Some(Ok(self.0.clone())))
        }
    }
    Response::new(Body::from_stream(Endless(chunk)))
}

#[tokio::test]
async fn an_endless_manifest_is_cut_off() {
    let stranger = Stranger::start(|_| flood()).await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::TooLarge { .. })));
}

#[tokio::test]
async fn an_endless_error_is_cut_off() {
    let stranger = Stranger::start(|_| {
        let mut response = flood();
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
    .await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::Refused { status: 500, .. })));
}

#[tokio::test]
async fn a_blob_that_is_longer_than_said_is_cut_off() {
    let stranger = Stranger::start(|request| match request.uri().path() {
        path if path.contains("/manifests/1") => manifest(&layer(b"abc", 3)),
        path if path.contains("/blobs/") => flood(),
        _ => not_found(),
    })
    .await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::TooLarge { bytes_max: 3, .. })));
}

#[tokio::test]
async fn a_blob_with_other_bytes_is_refused() {
    let stranger = Stranger::start(|request| match request.uri().path() {
        path if path.contains("/manifests/1") => manifest(&layer(b"abc", 3)),
        path if path.contains("/blobs/") => "abd".into_response(),
        _ => not_found(),
    })
    .await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::OtherBytes { .. })));
}

#[tokio::test]
async fn a_manifest_that_is_not_the_pinned_one_is_refused() {
    let stranger = Stranger::start(|_| manifest(&layer(b"abc", 3))).await;
    let reference = stranger.reference("balanced:1").pinned(digest(b"another"));
    let error = pull(&reference, None, PATIENCE).await.unwrap_err();
    assert!(matches!(error, RegistryError::OtherBytes { .. }), "{error}");
}

#[tokio::test]
async fn manifests_of_other_things_are_refused_before_their_blobs_are_fetched() {
    let one = layer(b"abc", 3)[0].clone();
    let image = json!([{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(b"").to_string(), "size": 1}]);
    for layers in [json!([]), json!([one, one]), image, layer(b"abc", 1 << 40), json!("no list")] {
        let shown = layers.to_string();
        let stranger = Stranger::start(move |_| manifest(&layers)).await;
        let error = stranger.pull().await.unwrap_err();
        assert!(matches!(error, RegistryError::Answer { .. }), "{shown}: {error}");
        assert_eq!(stranger.seen.lock().unwrap().len(), 1, "{shown}");
    }
}

#[tokio::test]
async fn what_is_tagged_as_a_signature_and_is_none_is_refused() {
    let stranger = Stranger::start(|request| match request.uri().path() {
        path if path.contains("/manifests/1") => manifest(&layer(b"abc", 3)),
        path if path.contains(".sig") => manifest(
            &json!([{"mediaType": "application/vnd.dsse.envelope.v1+json", "digest": digest(b"abc").to_string(), "size": 3}]),
        ),
        _ => "abc".into_response(),
    })
    .await;
    let error = stranger.pull().await.unwrap_err();
    assert!(error.to_string().contains("signature"), "{error}");
}

#[tokio::test]
async fn a_registry_that_stands_still_is_given_up() {
    let stranger = Stranger::start(|_| {
        let never = std::future::pending::<Result<Bytes, std::convert::Infallible>>();
        struct Never<F>(F);
        impl<F: Unpin> futures::Stream for Never<F> {
            type Item = Result<Bytes, std::convert::Infallible>;
            fn poll_next(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                std::task::Poll::Pending
            }
        }
        Response::new(Body::from_stream(Never(never)))
    })
    .await;
    let patience = Patience { idle: Duration::from_millis(200), ..PATIENCE };
    let began = Instant::now();
    let error = pull(&stranger.reference("balanced:1"), None, patience).await.unwrap_err();
    assert!(matches!(error, RegistryError::Interrupted { .. }), "{error}");
    assert!(began.elapsed() < PATIENCE.total);
}

#[tokio::test]
async fn redirects_lead_neither_in_circles_nor_to_addresses_without_tls() {
    for location in ["/v2/again", "http://example.org/", "ftp://127.0.0.1/"] {
        let stranger =
            Stranger::start(move |_| (StatusCode::FOUND, [(header::LOCATION, location)]).into_response())
                .await;
        let error = stranger.pull().await.unwrap_err();
        assert!(matches!(error, RegistryError::Unreachable { .. }), "{location}: {error}");
        assert!(stranger.seen.lock().unwrap().len() <= 7, "{location}");
    }
}

#[tokio::test]
async fn a_password_goes_to_no_token_server_without_tls() {
    for realm in ["http://example.org/token", "ftp://127.0.0.1/token", "nonsense"] {
        let challenge = format!("Bearer realm=\"{realm}\"");
        let stranger = Stranger::start(move |_| {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge.clone())]).into_response()
        })
        .await;
        let error = stranger.pull().await.unwrap_err();
        assert!(matches!(error, RegistryError::Answer { .. }), "{realm}: {error}");
    }
}

/// A registry with a token server of its own.
async fn with_tokens(token: &'static str) -> Stranger {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    Stranger::serve(listener, move |request| {
        let authorized =
            request.headers().get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer let-me-in");
        match request.uri().path() {
            "/token" => json!({ "token": token }).to_string().into_response(),
            _ if !authorized => {
                // It wants a token for somebody else's repository.
                let challenge =
                    format!("Bearer realm=\"{realm}\",service=\"here\",scope=\"repository:others:delete\"");
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
            }
            path if path.contains("/manifests/1") => manifest(&layer(b"abc", 3)),
            path if path.contains("/blobs/") => "abc".into_response(),
            _ => not_found(),
        }
    })
}

#[tokio::test]
async fn a_token_is_fetched_for_our_repository_whatever_the_challenge_says() {
    let stranger = with_tokens("let-me-in").await;
    assert_eq!(stranger.pull().await.unwrap().component, b"abc");
    let seen = stranger.seen.lock().unwrap();
    let (asked, authorization) = seen.iter().find(|(asked, _)| asked.contains("/token")).unwrap();
    assert!(asked.contains("scope=repository%3Abalanced%3Apull&service=here"), "{asked}");
    assert!(authorization.as_ref().unwrap().starts_with("Basic "));
    let others = seen.iter().filter(|(asked, _)| !asked.contains("/token"));
    assert!(others.flat_map(|(_, authorization)| authorization).all(|value| value.starts_with("Bearer ")));
}

#[tokio::test]
async fn a_token_that_does_not_help_is_asked_for_once() {
    let stranger = with_tokens("wrong").await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::Denied { logged_in: true, .. })));
    assert_eq!(stranger.seen.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_token_with_a_line_break_is_no_token() {
    let stranger = with_tokens("a\r\nHost: elsewhere").await;
    assert!(matches!(stranger.pull().await, Err(RegistryError::Answer { .. })));
}

#[tokio::test]
async fn a_redirect_to_another_machine_does_not_carry_the_password_along() {
    let elsewhere = Stranger::start(|_| "abc".into_response()).await;
    let target = format!("http://{}/bytes", elsewhere.address);
    let stranger = Stranger::start(move |request| {
        let authorized = request.headers().contains_key(header::AUTHORIZATION);
        match request.uri().path() {
            _ if !authorized => {
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response()
            }
            path if path.contains("/manifests/1") => manifest(&layer(b"abc", 3)),
            path if path.contains("/blobs/") => {
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target.clone())]).into_response()
            }
            _ => not_found(),
        }
    })
    .await;
    assert_eq!(stranger.pull().await.unwrap().component, b"abc");
    assert_eq!(*elsewhere.seen.lock().unwrap(), [("GET /bytes".to_owned(), None)]);
}

#[tokio::test]
async fn an_upload_address_elsewhere_gets_the_bytes_and_not_the_password() {
    let elsewhere = Stranger::start(|_| StatusCode::CREATED.into_response()).await;
    let target = format!("http://{}/put?state=1", elsewhere.address);
    let stranger = Stranger::start(move |request| match request.method().as_str() {
        _ if !request.headers().contains_key(header::AUTHORIZATION) => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")]).into_response()
        }
        "HEAD" => not_found(),
        "POST" => (StatusCode::ACCEPTED, [(header::LOCATION, target.clone())]).into_response(),
        _ => StatusCode::CREATED.into_response(),
    })
    .await;
    let signed = signed();
    let credentials = Credentials { user: "ana".into(), password: "secret".into() };
    let reference = stranger.reference("balanced:1");
    push(&reference, &signed.component, &signed.statement, &about(), None, Some(credentials), PATIENCE)
        .await
        .unwrap();
    let seen = elsewhere.seen.lock().unwrap();
    assert!(seen.iter().all(|(asked, authorization)| {
        asked.starts_with("PUT /put?state=1&digest=sha256%3A") && authorization.is_none()
    }));
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn what_a_registry_says_moves_no_cursor() {
    let stranger = Stranger::start(|_| {
        let said = json!({"errors": [{"code": "NO\u{1b}[2J", "message": "go\r away"}]}).to_string();
        (StatusCode::BAD_REQUEST, said).into_response()
    })
    .await;
    let error = stranger.pull().await.unwrap_err().to_string();
    assert!(error.contains("go away") && !error.chars().any(char::is_control), "{error:?}");
}
