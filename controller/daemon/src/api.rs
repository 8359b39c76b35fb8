//! The REST API: handlers translate, nothing more.

mod catalogue;
mod changes;
mod checkpoints;
mod console;
mod decisions;
mod documents;
mod hosts;
mod interpositions;
mod membership;
mod moves;
mod networks;
mod objects;
mod planned;
mod policies;
mod recovery;
mod rollouts;
mod streams;
mod subscriptions;
mod tokens;

use crate::app::App;
use crate::problem::{Answer, Refused};
use crate::{agents, auth, dashboard, http};
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, Query, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, middleware, routing::get};
use chassis::clock::unix_ms;
use serde::de::DeserializeOwned;
use std::sync::PoisonError;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest body in bytes where no route says otherwise: documents.
const BODY_LEN_MAX: usize = 1 << 20;
/// Largest body of a publish: the hashes of a very large image in base64.
pub(crate) const PUBLISH_LEN_MAX: usize = 64 << 20;
/// Largest body with a component: 32 MiB in base64, its signature and settings.
const COMPONENT_LEN_MAX: usize = 44 << 20;

/// Path parameters, refused in our words.
pub(crate) struct Named<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Path(value) = Path::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// Query parameters, refused in our words.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Answer<Self> {
        let Query(value) = Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// A JSON body, refused in our words.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> axum::extract::FromRequest<S> for Body<T> {
    type Rejection = Refused;
    async fn from_request(request: axum::extract::Request, state: &S) -> Answer<Self> {
        let axum::Json(value) = axum::Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}

fn described() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(documents::apply))
        .routes(routes!(documents::delete))
        .routes(routes!(objects::bundles))
        .routes(routes!(objects::bundle, objects::delete_bundle))
        .routes(routes!(objects::deployments))
        .routes(routes!(objects::deployment, objects::delete_deployment))
        .routes(routes!(objects::instances))
        .routes(routes!(objects::instance, objects::delete_instance))
        .routes(routes!(objects::hosts))
        .routes(routes!(objects::host, membership::delete_host))
        .routes(routes!(hosts::put_service))
        .routes(routes!(hosts::change_labels))
        .routes(routes!(hosts::attest, hosts::revoke_attestation))
        .routes(routes!(hosts::evacuation))
        .routes(routes!(hosts::rebalance))
        .routes(routes!(objects::sites))
        .routes(routes!(objects::volumes))
        .routes(routes!(objects::delete_volume))
        .routes(routes!(decisions::list))
        .routes(routes!(decisions::one))
        .routes(routes!(decisions::input))
        .routes(routes!(objects::version))
        .routes(routes!(catalogue::appliances))
        .routes(routes!(catalogue::appliance))
        .routes(routes!(catalogue::put_publisher))
        .routes(routes!(subscriptions::list))
        .routes(routes!(subscriptions::one, subscriptions::put, subscriptions::delete))
        .routes(routes!(subscriptions::refresh))
        .routes(routes!(policies::list))
        .routes(routes!(policies::delete_candidate))
        .routes(routes!(policies::promote))
        .routes(routes!(policies::roll_back))
        .routes(routes!(policies::put_settings))
        .routes(routes!(policies::put_on_failure))
        .routes(routes!(policies::component))
        .routes(routes!(policies::shadow))
        .routes(routes!(policies::trust))
        .routes(routes!(policies::put_trust, policies::delete_trust))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(tokens::join))
        .routes(routes!(changes::events))
        .routes(routes!(changes::audit))
        .routes(routes!(changes::watch))
        .routes(routes!(console::log))
        .routes(routes!(console::boot))
        .routes(routes!(console::console))
        .routes(routes!(streams::stream))
        .routes(routes!(streams::profiles))
        .routes(routes!(streams::holds))
        .routes(routes!(streams::put_hold, streams::delete_hold))
        .routes(routes!(streams::limits, streams::put_limits))
        .routes(routes!(interpositions::put, interpositions::delete))
        .routes(routes!(networks::topology))
        .routes(routes!(networks::list))
        .routes(routes!(networks::one))
        .routes(routes!(networks::explain))
        .routes(routes!(networks::flows))
        .routes(routes!(networks::capture))
        .merge(lives())
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(catalogue::publish))
                .layer(DefaultBodyLimit::max(PUBLISH_LEN_MAX)),
        )
        .merge(
            OpenApiRouter::new()
                .routes(routes!(policies::one, policies::put, policies::delete))
                .routes(routes!(policies::put_candidate))
                .layer(DefaultBodyLimit::max(COMPONENT_LEN_MAX)),
        )
}

/// What happens to instances that run: updates, checkpoints, moves, lost hosts.
fn lives() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(moves::list))
        .routes(routes!(moves::instance, moves::cancel))
        .routes(routes!(moves::deployment))
        .routes(routes!(rollouts::list))
        .routes(routes!(rollouts::halt_all))
        .routes(routes!(rollouts::one))
        .routes(routes!(rollouts::pause))
        .routes(routes!(rollouts::resume))
        .routes(routes!(rollouts::retry))
        .routes(routes!(rollouts::refusals))
        .routes(routes!(planned::schedules))
        .routes(routes!(recovery::site))
        .routes(routes!(checkpoints::list, checkpoints::create))
        .routes(routes!(checkpoints::one, checkpoints::delete))
        .routes(routes!(checkpoints::pin))
        .routes(routes!(checkpoints::diff))
        .routes(routes!(checkpoints::restore))
        .routes(routes!(checkpoints::suspend))
        .routes(routes!(checkpoints::resume))
}

fn joining() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(membership::join)).layer(DefaultBodyLimit::max(BODY_LEN_MAX))
}

/// The contract of everything under `/v1` and `/join`.
#[must_use]
pub fn openapi() -> OpenApi {
    let (_, mut contract) = described().merge(joining()).split_for_parts();
    contract.info.title = "Collective".into();
    contract.info.version = "v1".into();
    contract.info.description =
        Some("What people ask the controller. All paths below /v1 want a bearer token.".into());
    contract.info.license = None;
    contract.info.contact = None;
    contract
}

/// Everything the controller serves.
pub(crate) fn router(app: App) -> Router {
    let (people, _) = described().split_for_parts();
    let people = people
        .layer(middleware::from_fn_with_state(app.clone(), auth::require_token))
        .method_not_allowed_fallback(wrong_method);
    let (joining, _) = joining().split_for_parts();
    let contract = serde_json::to_string_pretty(&openapi()).unwrap_or_default();
    Router::new()
        .merge(people)
        .merge(joining)
        .merge(agents::router())
        .route("/announce", get(announce))
        .route("/healthz", get(healthz))
        .route(
            "/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], contract) }),
        )
        .merge(chassis::metrics::router())
        .fallback(unknown)
        .layer(middleware::from_fn(http::observe))
        .with_state(app)
}

async fn healthz(State(app): State<App>) -> Answer<&'static str> {
    app.ledger.store().get("audit-head")?;
    Ok("ok\n")
}

async fn wrong_method() -> Refused {
    Refused::bad_request("this path does not take this method")
}

/// Unknown paths of the API are refused, all others are pages of the dashboard.
async fn unknown(uri: Uri) -> Response {
    let path = uri.path();
    if ["/v1/", "/agent/", "/join/"].iter().any(|prefix| path.starts_with(prefix)) {
        return Refused::not_found(format!("there is nothing at {path}")).into_response();
    }
    dashboard::serve(uri).await
}

async fn announce(State(app): State<App>, member: auth::Member, RawQuery(query): RawQuery) -> Response {
    let answer = match crate::tracker::parse(&query.unwrap_or_default()) {
        Err(problem) => crate::tracker::failure(&problem),
        Ok(announce) => {
            let hash = hex::encode(announce.info_hash);
            let known = app.ledger.cluster().images.values().any(|image| image.info_hash == hash);
            if known || member.role == "origin" {
                let mut tracker = app.tracker.lock().unwrap_or_else(PoisonError::into_inner);
                tracker.announce(&announce, member.address.ip(), unix_ms())
            } else {
                crate::tracker::failure("no published image has this info hash")
            }
        }
    };
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"))];
    (StatusCode::OK, headers, answer).into_response()
}
