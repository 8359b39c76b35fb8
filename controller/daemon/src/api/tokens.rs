//! API tokens and join tokens.

use super::{Body, Named};
use crate::app::App;
use crate::auth::{self, Caller, Role};
use crate::ledger::{Act, Writes};
use crate::problem::{Answer, Refused};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chassis::clock::unix_ms;
use controller_api::rest::{JoinToken, JoinTokenRequest, NewToken, Problem, TokenRequest, TokenView};
use controller_model::record;

/// Seconds a join token may be valid.
const JOIN_VALID_S: std::ops::RangeInclusive<u64> = 10..=86_400;
const JOIN_VALID_DEFAULT_S: u64 = 3_600;
/// Longest name of a token in bytes.
const NAME_LEN_MAX: usize = 64;
/// Most API tokens.
const TOKENS_MAX: usize = 10_000;

/// API tokens, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens",
    responses((status = 200, body = Vec<TokenView>), (status = 403, body = Problem)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Answer<Json<Vec<TokenView>>> {
    caller.must_be_admin()?;
    let cluster = app.ledger.cluster();
    let view = |(id, token): (&String, &record::Token)| TokenView {
        id: id.clone(),
        name: token.name.clone(),
        role: token.role.clone(),
        expires_ms: token.expires_ms,
    };
    Ok(Json(cluster.tokens.iter().map(|(id, stored)| view((id, &stored.value))).collect()))
}

/// A new API token; its secret is shown once.
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 200, body = NewToken), (status = 422, body = Problem)))]
pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<TokenRequest>,
) -> Answer<Json<NewToken>> {
    if Role::parse(&request.role).is_none() {
        return Err(Refused::invalid(format!("role {:?} is not known: write admin or read", request.role)));
    }
    if request.name.is_empty()
        || request.name.len() > NAME_LEN_MAX
        || request.name.chars().any(char::is_control)
    {
        return Err(Refused::invalid(format!("name: 1 to {NAME_LEN_MAX} bytes, no control characters")));
    }
    let id = format!("{:012x}", rand::random::<u64>() >> 16);
    let (token, secret) = auth::api_token(&id);
    let expires_ms = request.valid_s.map(|valid_s| unix_ms().saturating_add(valid_s.saturating_mul(1_000)));
    let held = record::Token { secret, name: request.name, role: request.role, expires_ms };
    let act = Act { who: &caller.who, action: "token-create", object: format!("token/{id}") };
    app.ledger
        .change(&act, |cluster| {
            if cluster.tokens.len() >= TOKENS_MAX {
                return Err(Refused::conflict(format!("there are {TOKENS_MAX} tokens: revoke some")));
            }
            let mut writes = Writes::default();
            writes.put(format!("tokens/{id}"), &held);
            Ok((writes, ()))
        })
        .await?;
    Ok(Json(NewToken { id, token }))
}

/// Revokes an API token.
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "tokens", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Named(id): Named<String>,
) -> Answer<StatusCode> {
    let act = Act { who: &caller.who, action: "token-revoke", object: format!("token/{id}") };
    app.ledger
        .change(&act, |cluster| {
            if !cluster.tokens.contains_key(&id) {
                return Err(Refused::not_found(format!("there is no token {id}")));
            }
            let mut writes = Writes::default();
            writes.delete(format!("tokens/{id}"));
            Ok((writes, ()))
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A one-time join token.
#[utoipa::path(post, path = "/v1/tokens/join", tag = "tokens", request_body = JoinTokenRequest,
    responses((status = 200, body = JoinToken), (status = 422, body = Problem)))]
pub(crate) async fn join(
    State(app): State<App>,
    caller: Caller,
    Body(request): Body<JoinTokenRequest>,
) -> Answer<Json<JoinToken>> {
    let role = request.role.unwrap_or_else(|| "host".into());
    if role != "host" && role != "origin" {
        return Err(Refused::invalid(format!("role {role:?} is not known: write host or origin")));
    }
    let valid_s = request.valid_s.unwrap_or(JOIN_VALID_DEFAULT_S);
    if !JOIN_VALID_S.contains(&valid_s) {
        return Err(Refused::invalid(format!("valid_s {valid_s} is not 10 to 86400")));
    }
    let (token, id, secret) = auth::join_token(&app.authority.digest);
    let (now_ms, expires_ms) = (unix_ms(), unix_ms() + valid_s * 1_000);
    let act = Act { who: &caller.who, action: "join-token-create", object: format!("join/{id}") };
    app.ledger
        .change(&act, |cluster| {
            let mut writes = Writes::default();
            writes.put(format!("joins/{id}"), &record::Join { secret, role: role.clone(), expires_ms });
            for (old, _) in cluster.joins.iter().filter(|(_, join)| join.expires_ms <= now_ms) {
                writes.delete(format!("joins/{old}"));
            }
            Ok((writes, ()))
        })
        .await?;
    Ok(Json(JoinToken { token, expires_ms }))
}
