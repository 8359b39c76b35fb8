//! Networks and their tools: what is there, why something passes, who speaks with whom, frames on demand.

use super::{Asked, Named};
use crate::app::App;
use crate::auth::Caller;
use crate::ledger::{Act, Writes};
use crate::live::ConsoleEvent;
use crate::problem::{Answer, Refused};
use crate::{networks, views};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use chassis::clock::unix_ms;
use controller_api::network::{
    CaptureQuery, ExplainQuery, ExplainedPart, ExplanationView, FlowView, FlowsView, NetworkView,
    TopologyView,
};
use controller_api::rest::Problem;
use controller_model::{Cluster, reach};
use futures::future::join_all;
use netd_api::{Capture, Explanation, Flow, Service, Stage, Verdict};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use types::{DeploymentName, HostName, InstanceId, NetworkName};
use utoipa::IntoParams;

/// Longest time a host may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where it sends frames of its own.
const PROOF_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time until a capture's first bytes, which come before any frame.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a capture of netd's takes where nobody says otherwise.
const CAPTURE: (u32, u32, u64) = (60, 65_535, 64 << 20);

/// All networks, and the wires of what is interposed.
#[utoipa::path(get, path = "/v1/networks", tag = "networks", responses((status = 200, body = Vec<NetworkView>)))]
pub(crate) async fn list(State(app): State<App>) -> Json<Vec<NetworkView>> {
    Json(networks::networks(&app, &app.ledger.cluster(), |_| true))
}

/// One network.
#[utoipa::path(get, path = "/v1/networks/{deployment}/{name}", tag = "networks",
    params(("deployment" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = NetworkView), (status = 404, body = Problem)))]
pub(crate) async fn one(
    State(app): State<App>,
    Named((deployment, name)): Named<(DeploymentName, NetworkName)>,
) -> Answer<Json<NetworkView>> {
    let mut views = networks::networks(&app, &app.ledger.cluster(), |wanted| *wanted == deployment);
    let at = views.iter().position(|view| view.name == name);
    let at = at.ok_or_else(|| Refused::not_found(format!("there is no network {deployment}/{name}")))?;
    Ok(Json(views.swap_remove(at)))
}

/// A deployment as one picture.
#[utoipa::path(get, path = "/v1/deployments/{name}/topology", tag = "networks",
    params(("name" = String, Path)),
    responses((status = 200, body = TopologyView), (status = 404, body = Problem)))]
pub(crate) async fn topology(
    State(app): State<App>,
    Named(name): Named<DeploymentName>,
) -> Answer<Json<TopologyView>> {
    let view = networks::topology(&app, &app.ledger.cluster(), &name, unix_ms());
    view.map(Json).ok_or_else(|| Refused::not_found(format!("there is no deployment {name}")))
}

fn service(query: &ExplainQuery) -> Answer<Service> {
    let port = |port: u16| match port {
        0 => Err(Refused::invalid("0 is no port: write 1 to 65535")),
        port => Ok(port),
    };
    match (query.tcp, query.udp, query.echo) {
        (None, None, false) => Ok(Service::Resolve),
        (None, None, true) => Ok(Service::Echo),
        (Some(tcp), None, false) => Ok(Service::Tcp { listen_port: port(tcp)? }),
        (None, Some(udp), false) => Ok(Service::Udp { listen_port: port(udp)? }),
        _ => Err(Refused::invalid("ask about one of tcp, udp and echo at a time")),
    }
}

/// Whether a connection would be let through, and why: the hosts of both ends are asked.
#[utoipa::path(get, path = "/v1/explain", tag = "networks", params(ExplainQuery),
    responses((status = 200, body = ExplanationView), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn explain(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<ExplainQuery>,
) -> Answer<Json<ExplanationView>> {
    if query.prove {
        // It makes the hosts work.
        caller.must_be_admin()?;
    }
    let service = service(&query)?;
    let cluster = app.ledger.cluster();
    let way = reach::way(&cluster, &query.from, &query.to, service, query.prove)?;
    let timeout = if query.prove { PROOF_TIMEOUT } else { ANSWER_TIMEOUT };
    let asked = join_all(way.legs.into_iter().map(|leg| async {
        let waiting = app.live.explain(&leg.host, leg.question);
        let said = answer(&leg.host, timeout, waiting).await?;
        Ok::<_, Refused>(part(leg.host, leg.about, said))
    }));
    let asked = asked.await.into_iter().collect::<Answer<Vec<_>>>()?;
    let mut parts: Vec<ExplainedPart> = interposed(&app, &cluster, &way.out).collect();
    parts.extend(asked);
    let into: Vec<ExplainedPart> = interposed(&app, &cluster, &way.into).collect();
    parts.extend(into.into_iter().rev());
    Ok(Json(joined(parts)))
}

async fn answer<T>(
    host: &HostName,
    timeout: Duration,
    waiting: Result<oneshot::Receiver<Result<T, String>>, String>,
) -> Answer<T> {
    match tokio::time::timeout(timeout, waiting.map_err(Refused::unavailable)?).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(problem))) => Err(Refused::unavailable(format!("host {host}: {problem}"))),
        _ => Err(Refused::unavailable(format!("host {host} did not answer"))),
    }
}

fn part(host: HostName, about: String, said: Explanation) -> ExplainedPart {
    ExplainedPart { host, about, verdict: said.verdict, stages: said.stages, proven: said.proven }
}

/// What is spliced into a port decides for itself what it lets through; without it nothing passes.
fn interposed<'a>(
    app: &'a App,
    cluster: &'a Cluster,
    between: &'a reach::Between,
) -> impl Iterator<Item = ExplainedPart> + 'a {
    between.vias.iter().filter_map(move |id| {
        let view = views::instance(app, cluster, id, cluster.instances.get(id)?);
        let ready = crate::app::is_ready(view.state);
        let verdict = if ready { Verdict::Pass } else { Verdict::Drop };
        let why = match (ready, view.reason) {
            (true, _) => format!("{} is ready; what it lets through is its own affair", view.appliance),
            (false, Some(reason)) => format!("{} is not ready: {reason}", view.appliance),
            (false, None) => format!("{} is not ready", view.appliance),
        };
        Some(ExplainedPart {
            host: view.host?,
            about: format!("{id} stands before {}", between.at),
            verdict,
            stages: vec![Stage { place: id.to_string(), verdict, why, counter: None }],
            proven: None,
        })
    })
}

fn joined(parts: Vec<ExplainedPart>) -> ExplanationView {
    let all =
        |mut verdicts: Box<dyn Iterator<Item = Verdict> + '_>| match verdicts.all(|v| v == Verdict::Pass) {
            true => Verdict::Pass,
            false => Verdict::Drop,
        };
    let proven = parts.iter().any(|part| part.proven.is_some());
    ExplanationView {
        verdict: all(Box::new(parts.iter().map(|part| part.verdict))),
        proven: proven.then(|| all(Box::new(parts.iter().filter_map(|part| part.proven)))),
        parts,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    /// `deployment` or `deployment/network`.
    of: String,
}

/// Who speaks with whom, as the hosts count it.
#[utoipa::path(get, path = "/v1/flows", tag = "networks", params(Whose),
    responses((status = 200, body = FlowsView), (status = 404, body = Problem)))]
pub(crate) async fn flows(
    State(app): State<App>,
    Asked(Whose { of }): Asked<Whose>,
) -> Answer<Json<FlowsView>> {
    let (deployment, network) = match of.split_once('/') {
        Some((deployment, network)) => (deployment, Some(network)),
        None => (of.as_str(), None),
    };
    let unknown = || Refused::not_found(format!("there is no network {of}"));
    let deployment: DeploymentName = deployment.parse().map_err(|_| unknown())?;
    let views = networks::networks(&app, &app.ledger.cluster(), |name| *name == deployment);
    let views: Vec<&NetworkView> =
        views.iter().filter(|view| network.is_none_or(|name| view.name.as_str() == name)).collect();
    if views.is_empty() {
        return Err(unknown());
    }
    let hosts: BTreeSet<&HostName> =
        views.iter().flat_map(|view| &view.hosts).map(|host| &host.host).collect();
    let ports: BTreeSet<&str> = views
        .iter()
        .flat_map(|view| view.hosts.iter().flat_map(|host| &host.ports))
        .map(|port| port.id.as_str())
        .collect();
    let asked = join_all(
        hosts
            .into_iter()
            .map(|host| async { (host.clone(), answer(host, ANSWER_TIMEOUT, app.live.flows(host)).await) }),
    );
    let mut view = FlowsView { uncounted: uncounted(&app, &views), ..FlowsView::default() };
    for (host, answer) in asked.await {
        match answer {
            Ok(flows) => view.flows.extend(own(&host, flows, &ports)),
            Err(refused) => view.silent.push(refused.0.message),
        }
    }
    view.flows.sort_by_key(|view| std::cmp::Reverse(view.flow.counter.bytes));
    Ok(Json(view))
}

fn own(host: &HostName, flows: Vec<Flow>, ports: &BTreeSet<&str>) -> Vec<FlowView> {
    let own = flows.into_iter().filter(|flow| ports.contains(flow.port.as_str()));
    own.map(|flow| FlowView { host: host.clone(), flow }).collect()
}

fn uncounted(app: &App, views: &[&NetworkView]) -> Vec<NetworkName> {
    let cluster = app.ledger.cluster();
    let counts = |view: &NetworkView| {
        let id = format!("{}/{}", view.deployment, view.name);
        let told = cluster.desired.values().flat_map(|document| &document.networks);
        told.filter(|network| network.id == id).any(|network| network.flows)
    };
    views.iter().filter(|view| !view.wire && !counts(view)).map(|view| view.name.clone()).collect()
}

/// Which ports a capture is of, on which host.
fn captured(cluster: &Cluster, of: &str) -> Answer<(HostName, Vec<String>)> {
    if of.matches('/').count() == 1 {
        let instance: InstanceId =
            of.parse().map_err(|error: types::NameError| Refused::invalid(error.to_string()))?;
        let missing = || Refused::not_found(format!("there is no instance {instance}"));
        let record = cluster.instances.get(&instance).ok_or_else(missing)?;
        let ports = record.ports.iter().filter(|port| port.watches.is_none());
        let ports: Vec<String> = ports.map(|port| format!("{instance}/{}", port.name)).collect();
        let placement = cluster.placements.get(&instance);
        let host = placement.map(|placement| placement.host.clone());
        let host =
            host.ok_or_else(|| Refused::unavailable(format!("instance {instance} has no host yet")))?;
        return Ok((host, ports));
    }
    let place = reach::place(cluster, of)?;
    if let Some(watched) = place.port.watched() {
        let port = place.id();
        let message =
            format!("{port} is on no network and gets copies only: capture what it watches, {watched}");
        return Err(Refused::invalid(message));
    }
    Ok((place.host(cluster)?, vec![place.id()]))
}

/// Frames of a member's ports, as they come: a pcapng file. What is interposed at a port is a port by itself.
#[utoipa::path(get, path = "/v1/capture", tag = "networks", params(CaptureQuery),
    responses((status = 200, content_type = "application/x-pcapng"), (status = 403, body = Problem),
        (status = 404, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn capture(
    State(app): State<App>,
    caller: Caller,
    Asked(query): Asked<CaptureQuery>,
) -> Answer<Response> {
    // Whoever has the frames has what the guests say.
    caller.must_be_admin()?;
    let (host, of) = captured(&app.ledger.cluster(), &query.of)?;
    let object = format!("capture/{}", query.of);
    let capture = Capture {
        of,
        snap_bytes: query.snap_bytes.unwrap_or(CAPTURE.1),
        seconds: query.seconds.unwrap_or(CAPTURE.0),
        bytes: query.bytes.unwrap_or(CAPTURE.2),
    };
    check(&capture)?;
    let seconds = capture.seconds;
    let (stream, mut events) = app.live.capture_open(&host, capture).map_err(Refused::unavailable)?;
    let open = Open { app: app.clone(), host: host.clone(), stream };
    let first = match tokio::time::timeout(CAPTURE_TIMEOUT, events.recv()).await {
        Ok(Some(ConsoleEvent::Bytes(bytes))) => bytes,
        Ok(Some(ConsoleEvent::Closed(reason))) => {
            return Err(Refused::unavailable(format!("host {host}: {reason}")));
        }
        _ => return Err(Refused::unavailable(format!("host {host} did not answer"))),
    };
    let act = Act { who: &caller.who, action: "capture", object: object.clone() };
    app.ledger
        .change(&act, |_| {
            let mut writes = Writes::default();
            writes.event(object, "capture-started", format!("by {} for {seconds} s at most", caller.who));
            Ok((writes, ()))
        })
        .await?;
    let headers = [(header::CONTENT_TYPE, "application/x-pcapng")];
    Ok((headers, Body::from_stream(frames(first, events, open))).into_response())
}

fn check(capture: &Capture) -> Answer<()> {
    let wrong = [
        (!(1..=3_600).contains(&capture.seconds), "seconds: write 1 to 3600"),
        (!(14..=65_535).contains(&capture.snap_bytes), "snap_bytes: write 14 to 65535"),
        (!(1 << 10..=1 << 30).contains(&capture.bytes), "bytes: write 1024 to 1073741824"),
        (capture.of.is_empty(), "of: it has no port that could be captured"),
    ];
    match wrong.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, message)) => Err(Refused::invalid(message)),
        None => Ok(()),
    }
}

/// A capture that goes on at a host; told to end when nobody reads it any more.
struct Open {
    app: App,
    host: HostName,
    stream: u32,
}

impl Drop for Open {
    fn drop(&mut self) {
        // It may have ended by itself, or the host is gone.
        let _ = self.app.live.console_send(&self.host, self.stream, None);
    }
}

fn frames(
    first: Vec<u8>,
    events: mpsc::Receiver<ConsoleEvent>,
    open: Open,
) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    let state = (Some(first), events, open, false);
    futures::stream::unfold(state, |(first, mut events, open, ended)| async move {
        if ended {
            return None;
        }
        let event = match first {
            Some(bytes) => Some(ConsoleEvent::Bytes(bytes)),
            None => tokio::select! {
                () = open.app.shutdown.cancelled() => Some(ConsoleEvent::Closed(String::new())),
                event = events.recv() => event,
            },
        };
        match event {
            Some(ConsoleEvent::Bytes(bytes)) => Some((Ok(bytes.into()), (None, events, open, false))),
            Some(ConsoleEvent::Closed(_)) => None,
            // The file is cut off: whoever reads it must not take it for whole.
            None => {
                let lost = std::io::Error::other("the host's connection was lost, or this end was too slow");
                Some((Err(lost), (None, events, open, true)))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(verdict: Verdict, proven: Option<Verdict>) -> ExplainedPart {
        let said = Explanation { verdict, stages: Vec::new(), proven };
        part("h1".parse().unwrap(), String::new(), said)
    }

    #[test]
    fn a_connection_passes_only_if_every_part_of_its_way_lets_it() {
        let (pass, drop) = (Verdict::Pass, Verdict::Drop);
        assert_eq!(joined(vec![said(pass, None), said(pass, None)]).verdict, pass);
        let view = joined(vec![said(pass, Some(pass)), said(drop, Some(drop)), said(pass, None)]);
        assert_eq!((view.verdict, view.proven), (drop, Some(drop)));
        assert_eq!(joined(vec![said(pass, None)]).proven, None);
    }
}
