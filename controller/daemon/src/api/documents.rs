//! Applying and deleting documents.

use super::Asked;
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::moves;
use crate::problem::{Answer, Refused};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use bytes::Bytes;
use controller_api::rest::{ApplyResult, Problem};
use controller_model::Cluster;
use controller_model::apply::{self, Applied, Refusal};
use controller_model::document::{self, Written};
use serde::Deserialize;
use utoipa::IntoParams;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct DryRun {
    /// Say what would be done and do nothing.
    #[serde(default)]
    dry_run: bool,
}

fn read(body: Result<Bytes, BytesRejection>) -> Answer<Vec<Written>> {
    let body = body?;
    let text = std::str::from_utf8(&body).map_err(|error| {
        Refused::bad_request(format!("the body is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    document::parse(text).map_err(|issues| Refusal::Invalid(issues).into())
}

fn objects(documents: &[Written]) -> String {
    let names: Vec<_> =
        documents.iter().map(|d| format!("{}/{}", d.kind().to_lowercase(), d.name())).collect();
    names.join(" ")
}

async fn carry_out(
    app: &App,
    caller: &Caller,
    action: &'static str,
    dry_run: bool,
    documents: Vec<Written>,
    make: impl FnOnce(&Cluster, &[Written]) -> Result<Applied, Refusal> + Send,
) -> Answer<Json<ApplyResult>> {
    if dry_run {
        let before = app.ledger.cluster();
        let applied = make(&before, &documents)?;
        let placements = moves::placements(app, &before, applied.draft.cluster).await?;
        return Ok(Json(ApplyResult {
            revision: app.ledger.revision(),
            changes: applied.changes,
            placements,
        }));
    }
    let act = Act { who: &caller.who, action, object: objects(&documents) };
    let (revision, changes) = app
        .ledger
        .change(&act, |cluster| {
            let applied = make(cluster, &documents)?;
            Ok((Writes::of(applied.draft), applied.changes))
        })
        .await?;
    app.wake();
    Ok(Json(ApplyResult { revision, changes, placements: Vec::new() }))
}

/// Applies documents: all of them or none.
#[utoipa::path(post, path = "/v1/apply", tag = "documents", params(DryRun),
    request_body(content = String, content_type = "application/yaml", description = "YAML documents, at most 1 MiB"),
    responses((status = 200, body = ApplyResult), (status = 422, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn apply(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<DryRun>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<ApplyResult>> {
    let documents = read(body)?;
    let mut fresh = || uuid::Uuid::new_v4().to_string();
    carry_out(&app, &caller, "apply", query.dry_run, documents, move |cluster, documents| {
        apply::apply(cluster, documents, &mut fresh)
    })
    .await
}

/// Deletes what documents name: all of it or nothing.
#[utoipa::path(post, path = "/v1/delete", tag = "documents", params(DryRun),
    request_body(content = String, content_type = "application/yaml", description = "YAML documents, at most 1 MiB"),
    responses((status = 200, body = ApplyResult), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<DryRun>,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<ApplyResult>> {
    let documents = read(body)?;
    carry_out(&app, &caller, "delete", query.dry_run, documents, apply::delete).await
}
