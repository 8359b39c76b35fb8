//! What policies have planned.

use crate::app::App;
use crate::planned;
use axum::Json;
use axum::extract::State;
use controller_api::planned::ScheduleView;

/// What the checkpoint policies of all deployments have planned.
#[utoipa::path(get, path = "/v1/schedules", tag = "policies", responses((status = 200, body = Vec<ScheduleView>)))]
pub(crate) async fn schedules(State(app): State<App>) -> Json<Vec<ScheduleView>> {
    Json(planned::schedules(&app.ledger.cluster()))
}
