//! What was decided, and from what.

use super::{Asked, Named};
use crate::app::App;
use crate::problem::{Answer, Refused};
use crate::views;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use controller_api::policy::{DecisionView, PolicyKind};
use controller_api::rest::Problem;
use controller_model::record;
use serde::Deserialize;
use types::{InstanceId, PolicyName};
use utoipa::IntoParams;

/// Decisions of one answer if the asker does not say.
const SHOWN_DEFAULT: usize = 200;
/// Most decisions of one answer.
const SHOWN_MAX: usize = 10_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichDecisions {
    /// Only about this instance, `deployment/member`.
    #[param(value_type = Option<String>)]
    instance: Option<InstanceId>,
    /// Only about this subject, such as `deployment/office`.
    subject: Option<String>,
    /// Only of this policy.
    #[param(value_type = Option<String>)]
    policy: Option<PolicyName>,
    /// Only of this kind.
    kind: Option<PolicyKind>,
    /// Only from this instant on, milliseconds since 1970 UTC.
    #[serde(default)]
    since_ms: u64,
    /// At most so many, 1 to 10,000; 200 if absent.
    limit: Option<usize>,
}

impl WhichDecisions {
    fn wants(&self, decision: &DecisionView) -> bool {
        decision.at_ms >= self.since_ms
            && self.instance.as_ref().is_none_or(|id| decision.instance.as_ref() == Some(id))
            && self.subject.as_ref().is_none_or(|subject| decision.subject == *subject)
            && self.policy.as_ref().is_none_or(|policy| decision.policy == *policy)
            && self.kind.is_none_or(|kind| decision.kind == kind)
    }
}

/// Decisions, newest first.
#[utoipa::path(get, path = "/v1/decisions", tag = "policies", params(WhichDecisions),
    responses((status = 200, body = Vec<DecisionView>)))]
pub(crate) async fn list(
    State(app): State<App>,
    Asked(query): Asked<WhichDecisions>,
) -> Json<Vec<DecisionView>> {
    let cluster = app.ledger.cluster();
    let limit = query.limit.unwrap_or(SHOWN_DEFAULT).clamp(1, SHOWN_MAX);
    let wanted = cluster.decisions.iter().rev().filter(|(_, decision)| query.wants(decision)).take(limit);
    Json(wanted.filter_map(|(number, _)| views::decision(&cluster, *number)).collect())
}

/// One decision.
#[utoipa::path(get, path = "/v1/decisions/{id}", tag = "policies", params(("id" = u64, Path)),
    responses((status = 200, body = DecisionView), (status = 404, body = Problem)))]
pub(crate) async fn one(State(app): State<App>, Named(id): Named<u64>) -> Answer<Json<DecisionView>> {
    views::decision(&app.ledger.cluster(), id).map(Json).ok_or_else(|| absent(id))
}

fn absent(id: u64) -> Refused {
    Refused::not_found(format!("there is no decision {id}: it was never made, or is older than what is kept"))
}

/// What a policy was asked, to the byte: `collective policy replay` asks it again.
#[utoipa::path(get, path = "/v1/decisions/{id}/input", tag = "policies", params(("id" = u64, Path)),
    responses((status = 200, body = serde_json::Value), (status = 404, body = Problem)))]
pub(crate) async fn input(State(app): State<App>, Named(id): Named<u64>) -> Answer<Response> {
    if !app.ledger.cluster().decisions.contains_key(&id) {
        return Err(absent(id));
    }
    let store = app.ledger.store().clone();
    let entry = crate::problem::blocking(move || Ok(store.get(&record::number_key("inputs", id))?)).await?;
    let entry = entry.ok_or_else(|| {
        Refused::not_found(format!(
            "the input of decision {id} is not kept any more: inputs are bounded in bytes"
        ))
    })?;
    Ok(([(header::CONTENT_TYPE, "application/json")], entry.value).into_response())
}
