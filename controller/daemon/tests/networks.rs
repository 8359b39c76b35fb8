//! Claims about networks as people see them: appliances spliced into running ports, explanations, flows, captures.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::agent::{
    DesiredInstance, HostDesired, HostStatus, InstanceState, InstanceStatus, ToAgent, ToController,
};
use controller_api::interpose::{InterpositionPhase as Phase, InterpositionSpec, InterpositionView};
use controller_api::network::{CaptureQuery, ExplainQuery};
use controller_api::rest::{ProblemCode, TokenRequest};
use controller_client::{Client, ClientError};
use netd_api::{Counter, End, Explanation, Flow, Network, NetworkStatus, Port, PortStatus, Stage, Verdict};
use support::{Agent, DEADLINE, OFFICE, Running, furnish, real_policies, start, status};
use tokio_tungstenite::tungstenite::Message;

const VIA: &str = "office/via-workspace-eth0-1";

/// What a host says that has done all it was told, where these instances are ready.
fn says(document: &HostDesired, ready: &[&str]) -> HostStatus {
    let instance = |instance: &DesiredInstance| InstanceStatus {
        id: instance.id.clone(),
        incarnation: instance.incarnation.clone(),
        state: match ready.contains(&instance.id.to_string().as_str()) {
            true => InstanceState::Ready,
            false => InstanceState::Booting,
        },
        reason: None,
        started_ms: None,
        ready_ms: None,
        starts: 1,
        dirty_bytes: 0,
        health: None,
    };
    let port = |port: &Port| PortStatus {
        id: port.id.clone(),
        tap: port.tap.clone(),
        ready: true,
        carrier: true,
        from_guest: Counter { frames: 5, bytes: 500 },
        ..PortStatus::default()
    };
    let network = |network: &Network| NetworkStatus {
        id: network.id.clone(),
        up: true,
        ports: network.ports.iter().map(port).collect(),
        router: None,
    };
    HostStatus {
        watches: vec![],
        generation: document.generation,
        instances: document.instances.iter().map(instance).collect(),
        networks: Some(netd_api::Status {
            networks: document.networks.iter().map(network).collect(),
            ..netd_api::Status::default()
        }),
        ..status()
    }
}

async fn say(agent: &mut Agent, document: &HostDesired, ready: &[&str]) {
    agent.say(&ToController::Status(Box::new(says(document, ready)))).await;
}

fn ports(document: &HostDesired, id: &str) -> Vec<(String, bool)> {
    let networks = document.networks.iter().filter(|network| network.id == id);
    networks.flat_map(|network| &network.ports).map(|port| (port.id.clone(), port.held)).collect()
}

/// The first picture of what is interposed that fits.
async fn shown(admin: &Client, fits: impl Fn(&[InterpositionView]) -> bool) -> Vec<InterpositionView> {
    let looking = async {
        loop {
            let views = admin.deployment(&"office".parse().unwrap()).await.unwrap().interpositions;
            if fits(&views) {
                return views;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.unwrap()
}

/// The office on one host.
async fn office(state: &std::path::Path) -> (Running, Agent, HostDesired) {
    let running = start(state, real_policies()).await;
    furnish(&running).await;
    let mut agent = running.join("h1", "host").await.agent("10.99.0.1").await;
    running.admin.apply(OFFICE, false).await.unwrap();
    let document = agent.desired(|document| document.instances.len() == 2).await;
    (running, agent, document)
}

fn code<T>(result: Result<T, ClientError>) -> Option<ProblemCode> {
    result.err().and_then(|error| error.code())
}

#[tokio::test]
async fn a_proxy_comes_into_a_running_port_when_its_host_says_ready_and_goes_after_it_is_out() {
    let state = tempfile::tempdir().unwrap();
    let (running, mut agent, before) = office(state.path()).await;
    let (admin, office) = (&running.admin, "office".parse().unwrap());
    let entry = InterpositionSpec {
        port: "workspace/eth0".parse().unwrap(),
        with: "acme/gateway".parse().unwrap(),
        channel: None,
        version: None,
        pair: None,
    };
    let one_port = InterpositionSpec { with: "acme/workspace".parse().unwrap(), ..entry.clone() };
    assert_eq!(code(admin.interpose(&office, &one_port).await), Some(ProblemCode::Invalid));

    let view = admin.interpose(&office, &entry).await.unwrap();
    assert_eq!((view.interpositions[0].phase, view.interpositions[0].passes), (Phase::Prepared, true));
    let prepared = agent.desired(|document| document.instances.len() == 3).await;
    assert!(ports(&prepared, "office/inside").contains(&(format!("{VIA}/wan"), true)));
    assert!(ports(&prepared, "office/inside").contains(&("office/workspace/eth0".into(), false)));

    say(&mut agent, &prepared, &[VIA, "office/workspace"]).await;
    let spliced = agent.desired(|document| ports(document, VIA).len() == 2).await;
    assert!(ports(&spliced, "office/inside").contains(&(format!("{VIA}/wan"), false)));
    assert_eq!(
        spliced.instances, prepared.instances,
        "no guest is made anew, and none is told anything that it was not told before"
    );
    say(&mut agent, &spliced, &[VIA, "office/workspace"]).await;
    shown(admin, |views| views[0].phase == Phase::Spliced && views[0].passes).await;
    let topology = admin.topology(&office).await.unwrap();
    let link = topology.links.iter().find(|link| link.member.as_str() == "workspace").unwrap();
    assert_eq!((link.network.to_string(), link.from_guest.frames), ("via-workspace-eth0-1".into(), 5));
    assert!(topology.networks.iter().any(|network| network.kind == "wire" && network.ready));

    // It died: nothing passes, and that is said.
    say(&mut agent, &spliced, &["office/workspace"]).await;
    let dead = shown(admin, |views| !views[0].passes).await;
    assert!(dead[0].reason.as_ref().unwrap().contains("nothing passes until"), "{dead:?}");
    assert_eq!(dead[0].phase, Phase::Spliced);

    let port = "workspace/eth0".parse().unwrap();
    admin.end_interposition(&office, &port, None).await.unwrap();
    let leaving = agent.desired(|document| ports(document, VIA).len() == 1).await;
    assert_eq!(leaving.instances.len(), 3, "it goes only after the path without it is in force");
    say(&mut agent, &leaving, &[]).await;
    let after = agent.desired(|document| document.instances.len() == 2).await;
    assert_eq!(after.networks, before.networks);
    shown(admin, <[_]>::is_empty).await;
    assert_eq!(code(admin.end_interposition(&office, &port, None).await), Some(ProblemCode::NotFound));
    let audit = admin.audit(0).await.unwrap();
    let actions: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert!(actions.ends_with(&["interpose", "interpose-end"]), "{actions:?}");
    drop(agent);
    running.stop().await;
}

fn tcp_80(from: &str, to: &str) -> ExplainQuery {
    ExplainQuery { from: from.into(), to: to.into(), tcp: Some(80), udp: None, echo: false, prove: false }
}

async fn read_only(running: &Running) -> Client {
    let request = TokenRequest { name: "viewer".into(), role: "read".into(), valid_s: None };
    let token = running.admin.create_token(&request).await.unwrap().token;
    running.client(Some(&token))
}

#[tokio::test]
async fn questions_travel_to_the_ports_host_and_back() {
    let state = tempfile::tempdir().unwrap();
    let (running, mut agent, _) = office(state.path()).await;
    let explained = Explanation {
        verdict: Verdict::Drop,
        stages: vec![Stage {
            place: "first frame".into(),
            verdict: Verdict::Drop,
            why: "no rule accepts it".into(),
            counter: None,
        }],
        proven: None,
    };
    let answering = async {
        loop {
            if let ToAgent::Explain { request, question } = agent.message().await {
                let explanation = Some(Box::new(explained.clone()));
                agent.say(&ToController::Explanation { request, explanation, problem: None }).await;
                return question;
            }
        }
    };
    let query = tcp_80("office/gateway/lan", "office/workspace");
    let (view, question) = tokio::join!(running.admin.explain(&query), answering);
    let view = view.unwrap();
    assert_eq!((view.verdict, &view.parts[0].stages), (Verdict::Drop, &explained.stages));
    assert_eq!(question.from, End::Port { id: "office/gateway/lan".into(), address: None });
    assert_eq!(question.to, End::Port { id: "office/workspace/eth0".into(), address: None });

    let flow = |port: &str| Flow {
        port: port.into(),
        from: "10.20.0.1".parse().unwrap(),
        to: "10.20.0.2".parse().unwrap(),
        protocol: 6,
        from_port: 1,
        to_port: 80,
        counter: Counter { frames: 1, bytes: 60 },
        idle_seconds: 0,
    };
    let answering = async {
        loop {
            if let ToAgent::Flows { request } = agent.message().await {
                let flows = Some(vec![flow("office/workspace/eth0"), flow("other/workspace/eth0")]);
                return agent.say(&ToController::Flows { request, flows, problem: None }).await;
            }
        }
    };
    let (view, ()) = tokio::join!(running.admin.flows("office/inside"), answering);
    let view = view.unwrap();
    assert_eq!(view.flows.len(), 1, "others' flows are none of its business: {view:?}");
    assert_eq!(view.uncounted, ["inside".parse().unwrap()]);

    let reader = read_only(&running).await;
    let prove = ExplainQuery { prove: true, ..query };
    assert_eq!(code(reader.explain(&prove).await), Some(ProblemCode::Forbidden));
    let nowhere = tcp_80("office/nobody/eth0", "10.0.0.1");
    assert_eq!(code(reader.explain(&nowhere).await), Some(ProblemCode::NotFound));
    assert_eq!(code(reader.flows("nobody").await), Some(ProblemCode::NotFound));
    let networks = reader.networks().await.unwrap();
    assert_eq!(networks.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(), ["inside", "outside"]);
    drop(agent);
    running.stop().await;
}

/// A published port is of no use to who cannot find out where it is.
#[tokio::test]
async fn a_network_says_where_on_the_lan_its_published_ports_are_and_a_watcher_whom_to_capture() {
    const BUNDLE: &str = "
apiVersion: collective/v1
kind: Bundle
metadata: {name: shop}
spec:
  networks:
    yard: {subnet: 10.30.0.0/24, uplink: nat, publish: [{tcp: 8080, to: desk, port: 80}]}
    store: {subnet: 10.31.0.0/24}
  members:
    desk:
      appliance: acme/workspace
      ports: {eth0: yard}
      volumes: {home: {size: 256MiB}}
    guard:
      appliance: acme/gateway
      ports: {wan: store, lan: {mirror: yard}}
---
apiVersion: collective/v1
kind: Deployment
metadata: {name: shop}
spec: {bundle: shop}
";
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), real_policies()).await;
    furnish(&running).await;
    let mut agent = running.join("h1", "host").await.agent("10.99.0.1").await;
    running.admin.apply(BUNDLE, false).await.unwrap();
    let document = agent.desired(|document| document.instances.len() == 2).await;
    let told = document.networks.iter().find_map(|network| network.router.as_ref()?.outside.as_ref());
    let address = told.unwrap().addresses[0].addr().to_string();

    let shop = "shop".parse().unwrap();
    let outside =
        async |network: &str| running.admin.network(&shop, &network.parse().unwrap()).await.unwrap().outside;
    assert_eq!(outside("yard").await, [address]);
    assert!(outside("store").await.is_empty(), "a network that leads nowhere is nowhere on the LAN");

    // Its host would say that it has no such port.
    let query = CaptureQuery { of: "shop/guard/lan".into(), seconds: None, snap_bytes: None, bytes: None };
    let refused = running.admin.capture(&query).await.err().unwrap();
    assert_eq!(refused.code(), Some(ProblemCode::Invalid));
    assert!(refused.to_string().contains("capture what it watches, yard"), "{refused}");
    drop(agent);
    running.stop().await;
}

/// The next request for frames.
async fn asked_for_frames(agent: &mut Agent) -> (u32, netd_api::Capture) {
    loop {
        // An earlier one is closed by its reader, also if it ended by itself.
        if let Message::Text(text) = agent.frame().await.unwrap()
            && let ToAgent::CaptureOpen { stream, capture } = serde_json::from_str(&text).unwrap()
        {
            return (stream, capture);
        }
    }
}

fn frame(stream: u32, bytes: &[u8]) -> Vec<u8> {
    [stream.to_be_bytes().as_slice(), bytes].concat()
}

#[tokio::test]
async fn a_capture_is_for_administrators_is_audited_and_ends_when_its_reader_hangs_up() {
    let state = tempfile::tempdir().unwrap();
    let (running, mut agent, _) = office(state.path()).await;
    let query =
        CaptureQuery { of: "office/workspace".into(), seconds: Some(3), snap_bytes: None, bytes: None };
    let reader = read_only(&running).await;
    assert_eq!(code(reader.capture(&query).await), Some(ProblemCode::Forbidden));
    let endless = CaptureQuery { seconds: Some(0), ..query.clone() };
    assert_eq!(code(running.admin.capture(&endless).await), Some(ProblemCode::Invalid));

    let answering = async {
        let (stream, capture) = asked_for_frames(&mut agent).await;
        agent.say_bytes(frame(stream, b"header")).await;
        agent.say_bytes(frame(stream, b"frames")).await;
        let reason = "the capture has ended".into();
        agent.say(&ToController::ConsoleClosed { stream, reason }).await;
        capture
    };
    let (frames, capture) = tokio::join!(running.admin.capture(&query), answering);
    assert_eq!((capture.of, capture.seconds), (vec!["office/workspace/eth0".to_owned()], 3));
    let (mut frames, mut all) = (frames.unwrap(), Vec::new());
    while let Some(bytes) = frames.next().await.unwrap() {
        all.extend(bytes);
    }
    assert_eq!(all, b"headerframes");

    // netd refuses: the reason comes back instead of an empty file.
    let answering = async {
        let (stream, _) = asked_for_frames(&mut agent).await;
        let reason = "there are too many captures".into();
        agent.say(&ToController::ConsoleClosed { stream, reason }).await;
    };
    let (refused, ()) = tokio::join!(running.admin.capture(&query), answering);
    assert!(refused.unwrap_err().to_string().contains("too many captures"));

    // The reader hangs up: its host is told.
    let answering = async {
        let (stream, _) = asked_for_frames(&mut agent).await;
        agent.say_bytes(frame(stream, b"header")).await;
        stream
    };
    let (frames, stream) = tokio::join!(running.admin.capture(&query), answering);
    drop(frames.unwrap());
    loop {
        match agent.frame().await.unwrap() {
            Message::Binary(bytes) if bytes == frame(stream, b"") => break,
            _ => {}
        }
    }
    let audit = running.admin.audit(0).await.unwrap();
    assert_eq!(audit.iter().filter(|entry| entry.action == "capture").count(), 2);
    drop(agent);
    running.stop().await;
}
