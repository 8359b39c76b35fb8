#![expect(clippy::unwrap_used, reason = "a failed step of a test is a failed test")]
//! Claims about joining, over real TLS.

use axum::routing::post;
use axum::{Json, Router};
use chassis::tls::{ClientCertificate, Identity, serve, server_config};
use controller_agent::join::{Join, JoinError, join};
use controller_api::agent::{JoinAnswer, JoinRequest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

struct Controller {
    url: String,
    token: String,
    asked: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn token_for(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("cj1.{hex}.secret")
}

async fn controller(names: &str, shows_authority: bool) -> Controller {
    let issuer = Arc::new(authority());
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![names.to_owned()]).unwrap().signed_by(&key, &*issuer).unwrap();
    let mut chain = vec![leaf.der().clone()];
    if shows_authority {
        chain.push(issuer.der().clone());
    }
    let identity = Identity {
        chain,
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        authorities: vec![issuer.der().clone()],
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let token = token_for(issuer.der());
    let (count, good) = (Arc::clone(&asked), token.clone());
    let answer = move |Json(request): Json<JoinRequest>| {
        let (count, issuer, good) = (Arc::clone(&count), Arc::clone(&issuer), good.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            if request.token != good {
                let problem =
                    serde_json::json!({"code": "unauthenticated", "message": "the token is used up"});
                return Err((axum::http::StatusCode::UNAUTHORIZED, Json(problem)));
            }
            let certificate =
                CertificateSigningRequestParams::from_pem(&request.csr).unwrap().signed_by(&*issuer).unwrap();
            Ok(Json(JoinAnswer { certificate: certificate.pem(), ca: issuer.pem(), role: "host".to_owned() }))
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let tls = server_config(identity, ClientCertificate::Optional).unwrap();
    tokio::spawn(serve(listener, tls, Router::new().route("/join/v1", post(answer)), stop.clone()));
    Controller { url, token, asked, stop }
}

fn request(controller: &Controller, state: &std::path::Path) -> Join {
    Join {
        server: controller.url.clone(),
        token: controller.token.clone(),
        state: state.join("identity"),
        host: "h1".parse().unwrap(),
        site: "main".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_joined_host_has_an_identity_that_works_and_only_it_can_read() {
    let controller = controller("127.0.0.1", true).await;
    let folder = tempfile::tempdir().unwrap();
    let joined = join(&request(&controller, folder.path())).await.unwrap();
    assert_eq!(joined.role, "host");
    let at = |name: &str| joined.state.join(name);
    let identity = Identity::load(&at("ca.pem"), &at("host.pem"), &at("host.key")).unwrap();
    chassis::tls::client_config(identity).unwrap();
    assert_eq!(std::fs::metadata(at("host.key")).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_impostor_never_sees_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let real = controller("127.0.0.1", true).await;
    // Another authority; the right one but a certificate for another name; one that does not show its authority.
    let impostor = controller("127.0.0.1", true).await;
    let lured = Join { server: impostor.url.clone(), ..request(&real, folder.path()) };
    assert!(matches!(join(&lured).await, Err(JoinError::Impostor { .. })));
    assert_eq!(impostor.asked.load(Ordering::SeqCst), 0);
    for (names, shows) in [("10.9.9.9", true), ("127.0.0.1", false)] {
        let bad = controller(names, shows).await;
        let error = join(&request(&bad, folder.path())).await.unwrap_err();
        assert!(matches!(error, JoinError::Impostor { .. }), "{error}");
        assert_eq!(bad.asked.load(Ordering::SeqCst), 0);
    }
    assert!(!folder.path().join("identity").exists());
}

#[tokio::test]
async fn a_refusal_and_a_bad_token_say_what_to_do_and_write_nothing() {
    let controller = controller("127.0.0.1", true).await;
    let folder = tempfile::tempdir().unwrap();
    let mut used = request(&controller, folder.path());
    used.token.push('x');
    assert_eq!(join(&used).await.unwrap_err().to_string(), "the controller refused: the token is used up");
    for token in ["", "cj1.ab.secret", "cj2.x.y", &controller.token[..60]] {
        let bad = Join { token: token.to_owned(), ..used.clone() };
        assert!(matches!(join(&bad).await, Err(JoinError::Token)), "{token}");
    }
    assert!(!folder.path().join("identity").exists());
}
