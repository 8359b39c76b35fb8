//! What a site could start without the rest of the world.

use super::Named;
use crate::app::App;
use crate::problem::{Answer, Refused};
use axum::Json;
use axum::extract::State;
use controller_api::recovery::SiteReadiness;
use controller_api::rest::Problem;
use controller_model::readiness;
use types::SiteName;

/// Whether a site could start its deployments if it were cut off now, and what is missing.
#[utoipa::path(get, path = "/v1/sites/{name}/readiness", tag = "sites", params(("name" = String, Path)),
    responses((status = 200, body = SiteReadiness), (status = 404, body = Problem)))]
pub(crate) async fn site(
    State(app): State<App>,
    Named(name): Named<SiteName>,
) -> Answer<Json<SiteReadiness>> {
    let (statuses, online) = (app.live.statuses(), app.live.online());
    let view = readiness::site(&app.ledger.cluster(), &statuses, &online, &name);
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no site {name}, and no host at it")))
}
