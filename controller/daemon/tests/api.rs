//! What the API refuses, over real TLS with a real store.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(unreachable_pub, dead_code, reason = "support is a module of several tests")]

mod support;

use controller_api::rest::{AuditEntry, JoinTokenRequest, ProblemCode, TokenRequest};
use controller_client::ClientError;
use controller_store::{Redb, Store, Transaction};
use sha2::{Digest as _, Sha256};
use std::fmt::Debug;
use std::time::Duration;
use support::{DEADLINE, OFFICE, Publisher, SITE, component, furnish, no_policies, start, trusted};
use types::{Digest, Revision};

fn refused<T: Debug>(result: Result<T, ClientError>, code: ProblemCode, message: &str) {
    let error = result.unwrap_err();
    let problem = error.problem().unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((problem.code, problem.message.as_str()), (code, message));
    assert_eq!(problem.request_id.len(), 16);
}

#[tokio::test]
async fn a_wrong_expired_or_read_only_token_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    refused(
        running.client(None).bundles().await,
        ProblemCode::Unauthenticated,
        "send `Authorization: Bearer TOKEN`",
    );
    let wrong = format!("{}0", &running.token[..running.token.len() - 1]);
    let wrong = if wrong == running.token { format!("{}1", &wrong[..wrong.len() - 1]) } else { wrong };
    let unknown = "this token is unknown or was revoked";
    refused(running.client(Some(&wrong)).bundles().await, ProblemCode::Unauthenticated, unknown);

    let ask = |role: &str, valid_s| TokenRequest { name: "test".into(), role: role.into(), valid_s };
    let read = running.admin.create_token(&ask("read", None)).await.unwrap();
    let reader = running.client(Some(&read.token));
    assert!(reader.bundles().await.unwrap().is_empty());
    let only_read = "this token may only read: use an admin token";
    refused(reader.apply(SITE, false).await, ProblemCode::Forbidden, only_read);
    refused(reader.tokens().await, ProblemCode::Forbidden, only_read);
    running.admin.delete_token(&read.id).await.unwrap();
    refused(reader.bundles().await, ProblemCode::Unauthenticated, unknown);

    let brief = running.admin.create_token(&ask("read", Some(0))).await.unwrap();
    let expired = "this token has expired: ask for a new one";
    refused(running.client(Some(&brief.token)).bundles().await, ProblemCode::Unauthenticated, expired);
    refused(
        running.admin.create_token(&ask("root", None)).await,
        ProblemCode::Invalid,
        "role \"root\" is not known: write admin or read",
    );
    running.stop().await;
}

#[tokio::test]
async fn a_join_token_is_good_for_one_host() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let request = JoinTokenRequest { role: None, valid_s: None };
    let token = running.admin.join_token(&request).await.unwrap().token;
    assert_eq!(token.split('.').count(), 3);
    running.join_with("h1", &token).await.unwrap();
    let used = "this join token is unknown or was used: ask for a new one";
    refused(running.join_with("h2", &token).await.map(drop), ProblemCode::Unauthenticated, used);
    let second = running.admin.join_token(&request).await.unwrap().token;
    refused(
        running.join_with("h1", &second).await.map(drop),
        ProblemCode::Conflict,
        "host h1 has joined already: remove it first, or take another name",
    );
    // A refused attempt uses nothing up.
    running.join_with("h2", &second).await.unwrap();
    let foreign = format!("cj1.{}.{}", "0".repeat(64), "0".repeat(64));
    refused(
        running.join_with("h3", &foreign).await.map(drop),
        ProblemCode::Unauthenticated,
        "this join token is for another cluster",
    );
    let bad = JoinTokenRequest { role: Some("boss".into()), valid_s: None };
    refused(
        running.admin.join_token(&bad).await.map(drop),
        ProblemCode::Invalid,
        "role \"boss\" is not known: write host or origin",
    );
    assert_eq!(running.admin.hosts().await.unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn an_expired_join_token_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let request = JoinTokenRequest { role: None, valid_s: Some(10) };
    let token = running.admin.join_token(&request).await.unwrap().token;
    running.stop().await;
    // Ten seconds pass in the store.
    let store = Store::new(Redb::open(&state.path().join("store.redb")).unwrap()).unwrap();
    let entry = store.list("joins/").unwrap().1.remove(0);
    let mut record: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    record["expires_ms"] = 1.into();
    let mut transaction = Transaction::default();
    transaction.put(entry.key, serde_json::to_vec(&record).unwrap());
    store.commit(&transaction).unwrap();
    drop(store);

    let running = start(state.path(), no_policies()).await;
    let expired = "this join token has expired: ask for a new one";
    let joined = running.join_with("h1", &token).await.map(drop);
    refused(joined, ProblemCode::Unauthenticated, expired);
    assert!(running.admin.hosts().await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn only_members_may_ask_the_tracker_and_a_removed_host_is_none() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let publisher = furnish(&running).await;
    let manifest: streamer_api::Manifest =
        serde_json::from_slice(&publisher.version("gateway", "1.0.0", 1).manifest.0).unwrap();
    let hash: String =
        hex::decode(manifest.info_hash).unwrap().iter().map(|byte| format!("%{byte:02x}")).collect();
    let query = |hash: &str, id: char, port: u16, left: u64| {
        let id = id.to_string().repeat(20);
        format!("/announce?info_hash={hash}&peer_id={id}&port={port}&left={left}&compact=1&ip=10.99.0.7")
    };
    let (origin, host) = (running.join("o1", "origin").await, running.join("h1", "host").await);
    let (status, _) = origin.get(&query(&hash, 'o', 7000, 0)).await;
    assert_eq!(status, 200);
    let (_, answer) = host.get(&query(&hash, 'h', 7001, 9)).await;
    let expected =
        [b"d8:completei1e10:incompletei1e8:intervali10e5:peers6:".as_slice(), &[10, 99, 0, 7, 27, 88], b"e"];
    assert_eq!(answer, expected.concat());
    let unknown = "%01".repeat(20);
    let (_, answer) = host.get(&query(&unknown, 'h', 7001, 9)).await;
    assert_eq!(answer, b"d14:failure reason37:no published image has this info hashe");
    let (_, answer) = origin.get(&query(&unknown, 'o', 7000, 0)).await;
    assert!(answer.starts_with(b"d8:complete"), "an origin seeds before the version is published");

    refused(
        running.client(Some(&running.token)).get::<()>(&query(&hash, 'x', 1, 0)).await,
        ProblemCode::Unauthenticated,
        "show the certificate you were given at join",
    );
    running.admin.delete_host(&"h1".parse().unwrap()).await.unwrap();
    assert_eq!(host.get(&query(&hash, 'h', 7001, 9)).await.0, 403);
    assert!(host.dial().await.is_err());
    running.stop().await;
}

#[tokio::test]
async fn a_version_that_is_not_what_its_publisher_signed_is_refused() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let publisher = Publisher::new();
    let good = publisher.version("gateway", "1.0.0", 1);
    let admin = &running.admin;
    let invalid = ProblemCode::Invalid;
    refused(admin.publish(&good).await, invalid, "publisher acme is not known: register its key first");
    admin.put_publisher(&"acme".parse().unwrap(), &publisher.public()).await.unwrap();
    refused(
        admin.put_publisher(&"acme".parse().unwrap(), &Publisher::new().public()).await,
        ProblemCode::Conflict,
        "another key of publisher acme is known: sign with that one",
    );
    let forged = "the signature is not by the known key of publisher acme";
    let mut tampered = good.clone();
    let text = String::from_utf8(tampered.signed.0.clone()).unwrap();
    tampered.signed.0 = text.replace("1.0.0", "1.0.1").into_bytes();
    refused(admin.publish(&tampered).await, invalid, forged);
    refused(admin.publish(&Publisher::new().version("gateway", "1.0.0", 1)).await, invalid, forged);

    let other = publisher.version("gateway", "1.0.0", 9);
    let mut mixed = good.clone();
    mixed.manifest = other.manifest.clone();
    let error = admin.publish(&mixed).await.unwrap_err();
    assert!(error.to_string().starts_with("the manifest's digest is sha256:"), "{error}");
    let mut mixed = good.clone();
    mixed.metainfo = other.metainfo.clone();
    let error = admin.publish(&mixed).await.unwrap_err();
    assert!(error.to_string().starts_with("the metainfo's info hash is "), "{error}");
    let mut cut = good.clone();
    cut.metainfo.0.truncate(40);
    refused(admin.publish(&cut).await, invalid, "the metainfo is no bencode");
    assert!(admin.appliances().await.unwrap().is_empty(), "nothing of it is left");

    admin.publish(&good).await.unwrap();
    admin.publish(&good).await.unwrap();
    refused(
        admin.publish(&other).await,
        ProblemCode::Conflict,
        "acme/gateway 1.0.0 is published with other content: give it a new version",
    );
    assert_eq!(admin.appliances().await.unwrap()[0].versions.len(), 1);
    let files = std::fs::read_dir(running.state.join("images")).unwrap().count();
    assert_eq!(files, 2, "metainfo and manifest of what was taken, nothing of what was refused");
    running.stop().await;
}

#[tokio::test]
async fn what_is_no_policy_is_not_installed() {
    let mine: types::PolicyName = "mine".parse().unwrap();
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let author = trusted(&running.admin).await;
    let before = running.admin.version().await.unwrap().revision;
    // Signed by somebody who is trusted, and still nothing that can run.
    let put = async |bytes: &[u8]| {
        let statement = plugins_artifact::Statement {
            component: plugins_artifact::digest(bytes),
            kind: plugins_artifact::Kind::Placement,
            name: "mine".into(),
            version: "1.0.0".into(),
        };
        running.admin.put_policy(&mine, &author.sign(bytes, &statement)).await
    };
    for (bytes, message) in [
        (&b""[..], "this is not WebAssembly: give the .wasm file of a component"),
        (b"\x7fELF", "this is not WebAssembly: give the .wasm file of a component"),
        (
            b"\0asm\x01\0\0\0",
            "this is a core WebAssembly module: make it a component, for example with `wasm-tools component new`",
        ),
        (
            b"\0asm\x0d\0\x01\0",
            "the component is no policy: it does not export collective:policy/plugin (it exports: nothing)",
        ),
    ] {
        refused(put(bytes).await, ProblemCode::Invalid, message);
    }
    let whole = component("balanced");
    let error = put(&whole[..whole.len() / 2]).await.unwrap_err();
    assert_eq!(error.code(), Some(ProblemCode::Invalid), "{error}");
    assert!(error.to_string().starts_with("the component is damaged or not supported: "), "{error}");
    assert!(running.admin.policies().await.unwrap().is_empty());
    assert_eq!(running.admin.version().await.unwrap().revision, before);
    assert_eq!(std::fs::read_dir(running.state.join("policies")).unwrap().count(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_dry_run_and_a_refused_request_change_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let office = OFFICE.replace("  policies: {placement: balanced}\n", "");
    let before = running.admin.version().await.unwrap().revision;
    let dry = running.admin.apply(office.as_str(), true).await.unwrap();
    assert_eq!(dry.changes.len(), 2);
    assert!(dry.changes[0].diff.iter().all(|line| line.starts_with('+')));
    let error = running.admin.apply(OFFICE, false).await.unwrap_err();
    let issue = &error.problem().unwrap().issues[0];
    assert_eq!((issue.line, issue.field.as_str()), (22, "spec.policies.placement"));
    assert_eq!(running.admin.version().await.unwrap().revision, before);
    assert!(running.admin.bundles().await.unwrap().is_empty());

    running.admin.apply(office.as_str(), false).await.unwrap();
    refused(
        running.admin.delete_bundle(&"office".parse().unwrap()).await,
        ProblemCode::Conflict,
        "bundle office is run by office: delete the deployment first",
    );
    running.admin.delete(office.as_str(), false).await.unwrap();
    refused(
        running.admin.bundle(&"office".parse().unwrap()).await,
        ProblemCode::NotFound,
        "there is no bundle office",
    );
    let unknown = running.admin.get::<()>("/v1/nothing").await;
    refused(unknown, ProblemCode::NotFound, "there is nothing at /v1/nothing");
    refused(
        running.admin.get::<()>("/v1/bundles/UPPER").await,
        ProblemCode::BadRequest,
        "Invalid URL: \"UPPER\" is not a bundle name: use lower-case letters, digits and '-'",
    );
    running.stop().await;
}

/// A change of the office in one place, and what is said about it: line, column, field, message.
type Mistake = (&'static str, &'static str, (u32, &'static str, &'static str));

const MISTAKES: [Mistake; 12] = [
    // Malformed and hostile YAML.
    ("metadata: {name: office}", "metadata: {name: office", (5, "", "this is no YAML: ")),
    ("metadata: {name: office}", "metadata: &a {name: *a}", (4, "", "anchors (&name) are not taken")),
    ("metadata: {name: office}", "metadata: !!python/object {name: x}", (4, "", "tags ")),
    // Unknown fields, and known ones twice.
    ("channel: stable", "chanel: stable", (12, "spec.members.gateway.chanel", "unknown field `chanel`")),
    ("channel: stable", "channel: stable\n      channel: beta", (13, "", "\"channel\" is there twice")),
    // A member naming no appliance, or one that there is not.
    ("appliance: acme/gateway ", "summary: hello ", (11, "spec.members.gateway.summary", "unknown field")),
    (
        "acme/gateway ",
        "acme/gatewax ",
        (11, "spec.members.gateway.appliance", "acme/gatewax is not in the cat"),
    ),
    ("acme/gateway ", "gateway ", (11, "spec.members.gateway.appliance", "\"gateway\" is not")),
    // Address conflicts.
    (
        "{eth0: inside}",
        "{eth0: {network: inside, address: 10.20.0.1}}",
        (
            18,
            "spec.members.workspace.ports.eth0.address",
            "10.20.0.1 is already the address of gateway's port lan",
        ),
    ),
    // A port in two networks.
    ("{eth0: inside}", "{eth0: inside, eth0: outside}", (18, "", "\"eth0\" is there twice: remove one")),
    (
        "{eth0: inside}",
        "{eth0: [inside, outside]}",
        (18, "spec.members.workspace.ports.eth0", "a port joins one network: write"),
    ),
    (
        "{wan: outside,",
        "{wan: inside,",
        (13, "spec.members.gateway.ports.wan", "ports lan and wan both join"),
    ),
];

const RING: &str = "apiVersion: collective/v1
kind: Bundle
metadata: {name: ring}
spec:
  networks:
    a: {subnet: 10.1.0.0/24}
    b: {subnet: 10.2.0.0/24}
  members:
    one: {appliance: acme/gateway, channel: stable, ports: {lan: a, wan: b}, gateway: {from: lan, to: wan}}
    two: {appliance: acme/gateway, channel: stable, ports: {lan: b, wan: a}, gateway: {from: lan, to: wan}}
";

#[tokio::test]
async fn each_bad_document_gets_one_error_with_its_place_and_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let office = OFFICE.replace("  policies: {placement: balanced}\n", "");
    let (revision, audit) =
        (running.admin.version().await.unwrap().revision, running.admin.audit(0).await.unwrap());
    let mut cases: Vec<_> = MISTAKES
        .iter()
        .map(|(from, to, said)| {
            assert!(office.contains(from), "{from:?} is not in the example");
            (office.replacen(from, to, 1), *said)
        })
        .collect();
    cases.push((RING.into(), (9, "spec.members.one.gateway", "gateways lead in a circle from a back to a")));
    for (text, (line, field, message)) in cases {
        // The documents before and after the bad one are good: none of them is taken.
        let text = format!("{SITE}---\n{text}");
        let shift = u32::try_from(SITE.lines().count()).unwrap() + 1;
        let error = running.admin.apply(text, false).await.unwrap_err();
        let problem = error.problem().unwrap();
        assert_eq!(problem.code, ProblemCode::Invalid, "{problem:?}");
        let [issue] = problem.issues.as_slice() else { panic!("{message}: {:?}", problem.issues) };
        assert_eq!((issue.line, issue.field.as_str()), (line + shift, field), "{issue:?}");
        assert!(issue.column > 0 && issue.message.starts_with(message), "{issue:?}");
    }
    let large = format!("# {}\n{office}", "x".repeat(1 << 20));
    assert_eq!(running.admin.apply(large, false).await.unwrap_err().code(), Some(ProblemCode::TooLarge));
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(running.admin.apply(deep, false).await.unwrap_err().code(), Some(ProblemCode::Invalid));
    let binary = running.admin.apply("a: \u{0}", false).await.unwrap_err();
    assert_eq!(binary.code(), Some(ProblemCode::Invalid), "{binary}");

    assert_eq!(running.admin.version().await.unwrap().revision, revision);
    assert_eq!(running.admin.audit(0).await.unwrap(), audit);
    assert!(running.admin.bundles().await.unwrap().is_empty());
    running.admin.apply(office, false).await.unwrap();
    running.stop().await;
}

/// A request that is given up may be carried out or not, but never by half: the picture and the chain follow the store.
#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_a_change_breaks_nothing() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    for number in 0..60_u64 {
        let client = running.client(Some(&running.token));
        let site = SITE.replace("name: main", &format!("name: s{number}"));
        assert_ne!(site, SITE);
        let change = async move { client.apply(site, false).await };
        // However long connecting takes: from before the request is read until after it is answered.
        let _ = tokio::time::timeout(Duration::from_micros(500 + number * 250), change).await;
    }
    running.admin.apply(SITE, false).await.unwrap();
    let end = tokio::time::Instant::now() + DEADLINE;
    let (sites, audit) = loop {
        let sites = running.admin.sites().await.unwrap().len();
        let audit = running.admin.audit(0).await.unwrap();
        if audit.len() == sites + 1 {
            break (sites, audit);
        }
        // The last that were given up may still be at work.
        assert!(tokio::time::Instant::now() < end, "{sites} sites, {} entries", audit.len());
    };
    let mut previous = Digest::from_bytes([0; 32]);
    for (index, entry) in audit.iter().enumerate() {
        assert_eq!((entry.number, entry.previous), (index as u64 + 1, previous));
        previous = Digest::from_bytes(Sha256::digest(serde_json::to_vec(entry).unwrap()).into());
    }
    running.stop().await;
    let running = start(state.path(), no_policies()).await;
    assert_eq!(running.admin.sites().await.unwrap().len(), sites);
    running.stop().await;
}

#[tokio::test]
async fn the_audit_log_is_a_chain_and_every_change_is_in_it() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    furnish(&running).await;
    let entries: Vec<AuditEntry> = running.admin.audit(0).await.unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["token-create", "publisher-register", "publish", "publish", "apply"]);
    assert_eq!((entries[0].who.as_str(), entries[4].who.as_str()), ("controller", "token:admin"));
    let mut previous = Digest::from_bytes([0; 32]);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!((entry.number, entry.previous), (index as u64 + 1, previous));
        previous = Digest::from_bytes(Sha256::digest(serde_json::to_vec(entry).unwrap()).into());
    }
    assert_eq!(running.admin.audit(3).await.unwrap().len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn changes_and_events_are_followed_as_they_happen() {
    let state = tempfile::tempdir().unwrap();
    let running = start(state.path(), no_policies()).await;
    let mut changes = running.admin.watch(Some(Revision(0))).await.unwrap();
    let mut events = running.admin.events(Revision(0), true).await.unwrap();
    furnish(&running).await;
    let deadline = Duration::from_secs(10);
    let change = tokio::time::timeout(deadline, changes.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((change.collection.as_str(), change.name.as_str()), ("appliances", "acme/gateway"));
    let event = tokio::time::timeout(deadline, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(
        (event.object.as_str(), event.reason.as_str()),
        ("appliance/acme/gateway", "version-published")
    );
    let past = running.admin.version().await.unwrap().revision;
    let mut replay = running.admin.watch(Some(Revision(0))).await.unwrap();
    let replayed = tokio::time::timeout(deadline, replay.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(replayed, change);
    let mut after = running.admin.events(past, false).await.unwrap();
    assert_eq!(after.next().await.unwrap(), None);
    running.stop().await;
}

#[test]
fn the_checked_in_contract_is_what_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../api/openapi.json");
    let held = std::fs::read_to_string(path).unwrap_or_default();
    let served = serde_json::to_string_pretty(&controller_daemon::openapi()).unwrap();
    assert!(
        held.trim_end() == served,
        "controller/api/openapi.json is out of date: cargo run -p controller-daemon --bin collectived -- openapi > controller/api/openapi.json"
    );
}
