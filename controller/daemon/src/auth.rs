//! Who asks: API tokens for people, certificates for members.

use crate::app::App;
use crate::ledger::Who;
use crate::problem::{Answer, Refused};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chassis::clock::unix_ms;
use chassis::tls::Peer;
use controller_model::{name, record};
use rand::RngCore as _;
use types::{Digest, HostName};

/// Prefix of API tokens: `ct1.<id>.<secret>`.
const API_PREFIX: &str = "ct1";
/// Prefix of join tokens: `cj1.<ca digest hex>.<secret>`.
const JOIN_PREFIX: &str = "cj1";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Read,
    Admin,
}

impl Role {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "read" => Some(Self::Read),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// Somebody with a valid token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) role: Role,
}

impl Caller {
    pub(crate) fn must_be_admin(&self) -> Answer<()> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Read => Err(Refused::forbidden("this token may only read: use an admin token")),
        }
    }
}

/// 32 random bytes as hexadecimal digits.
pub(crate) fn secret() -> String {
    let mut bytes = [0; 32];
    rand::rng().fill_bytes(&mut bytes);
    hex::encode(bytes)
}

/// A new API token and what is kept of it.
pub(crate) fn api_token(id: &str) -> (String, Digest) {
    let secret = secret();
    let digest = name::digest(secret.as_bytes());
    (format!("{API_PREFIX}.{id}.{secret}"), digest)
}

/// What is kept of an API token that is already known.
pub(crate) fn api_token_digest(token: &str) -> Option<Digest> {
    Some(name::digest(token.split('.').nth(2)?.as_bytes()))
}

/// A new join token, its id, and what is kept of it.
pub(crate) fn join_token(authority: &Digest) -> (String, String, Digest) {
    let secret = secret();
    let digest = name::digest(secret.as_bytes());
    (format!("{JOIN_PREFIX}.{}.{secret}", authority.hex()), digest.short(), digest)
}

/// The record of a join token, if it is valid now.
pub(crate) fn check_join(app: &App, token: &str) -> Answer<(String, record::Join)> {
    let wrong = || Refused::unauthenticated("this join token is unknown or was used: ask for a new one");
    let mut parts = token.split('.');
    let (prefix, authority, secret) = (parts.next(), parts.next(), parts.next());
    let (Some(JOIN_PREFIX), Some(authority), Some(secret), None) = (prefix, authority, secret, parts.next())
    else {
        return Err(wrong());
    };
    if authority != app.authority.digest.hex() {
        return Err(Refused::unauthenticated("this join token is for another cluster"));
    }
    let digest = name::digest(secret.as_bytes());
    let cluster = app.ledger.cluster();
    let held = cluster.joins.get(&digest.short()).ok_or_else(wrong)?;
    if verify_slices_are_equal(held.secret.as_bytes(), digest.as_bytes()).is_err() {
        return Err(wrong());
    }
    if held.expires_ms <= unix_ms() {
        return Err(Refused::unauthenticated("this join token has expired: ask for a new one"));
    }
    Ok((digest.short(), held.value.clone()))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Who a token belongs to.
pub(crate) fn check_token(app: &App, token: Option<&str>) -> Answer<Caller> {
    let token = token.ok_or_else(|| Refused::unauthenticated("send `Authorization: Bearer TOKEN`"))?;
    let unknown = || Refused::unauthenticated("this token is unknown or was revoked");
    let mut parts = token.split('.');
    let (prefix, id, secret) = (parts.next(), parts.next(), parts.next());
    let (Some(API_PREFIX), Some(id), Some(secret), None) = (prefix, id, secret, parts.next()) else {
        return Err(unknown());
    };
    let cluster = app.ledger.cluster();
    let held = cluster.tokens.get(id).ok_or_else(unknown)?;
    let digest = name::digest(secret.as_bytes());
    verify_slices_are_equal(held.secret.as_bytes(), digest.as_bytes()).map_err(|_| unknown())?;
    if held.expires_ms.is_some_and(|expires_ms| expires_ms <= unix_ms()) {
        return Err(Refused::unauthenticated("this token has expired: ask for a new one"));
    }
    let role = Role::parse(&held.role).ok_or_else(unknown)?;
    Ok(Caller { who: Who::Token(id.to_owned()), role })
}

/// The console's token may stand in the query: browsers cannot send headers with a WebSocket.
fn query_token(request: &Request) -> Option<String> {
    let path = request.uri().path();
    if !path.starts_with("/v1/instances/") || !path.ends_with("/console") {
        return None;
    }
    let query = request.uri().query()?;
    query.split('&').find_map(|part| part.strip_prefix("token=")).map(str::to_owned)
}

/// Lets only valid tokens through; those that may only read, only to `GET`.
pub(crate) async fn require_token(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let query = query_token(&request);
    let token = bearer(request.headers()).or(query.as_deref());
    let checked = check_token(&app, token).and_then(|caller| {
        if request.method() != Method::GET {
            caller.must_be_admin()?;
        }
        Ok(caller)
    });
    match checked {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        let caller = parts.extensions.get::<Self>();
        caller.cloned().ok_or_else(|| Refused::unauthenticated("send `Authorization: Bearer TOKEN`"))
    }
}

/// A member of the cluster, by the certificate of its connection.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: HostName,
    /// `host` or `origin`.
    pub(crate) role: String,
    pub(crate) address: std::net::SocketAddr,
}

impl Member {
    pub(crate) fn must_be_host(&self) -> Answer<()> {
        if self.role == "host" { Ok(()) } else { Err(Refused::forbidden("this is for hosts only")) }
    }
}

impl FromRequestParts<App> for Member {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Answer<Self> {
        let peer = parts.extensions.get::<Peer>();
        let certificate = peer.and_then(|peer| peer.certificate.as_ref().map(|der| (peer, der)));
        let (peer, der) = certificate
            .ok_or_else(|| Refused::unauthenticated("show the certificate you were given at join"))?;
        let digest = name::digest(der);
        let cluster = app.ledger.cluster();
        let member = cluster.hosts.iter().find(|(_, host)| host.certificate == digest);
        let (name, host) = member.ok_or_else(|| {
            Refused::forbidden("the owner of this certificate is no member (any more): join again")
        })?;
        Ok(Self { name: name.clone(), role: host.role.clone(), address: peer.address })
    }
}
