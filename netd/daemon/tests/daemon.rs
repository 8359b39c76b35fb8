//! The real daemon, in a network namespace of its own, over its socket.
#![allow(clippy::unwrap_used, reason = "in a test's helpers too, a panic is the failure")]

#[path = "daemon/changes.rs"]
mod changes;
#[path = "daemon/machine.rs"]
mod machine;
#[path = "daemon/scale.rs"]
mod scale;

use chassis::unix_http::CallError;
use machine::{Machine, Netd, pause};
use netd_api::{Accept, Desired, Direction, Network, Port, Protocol, Status, Uplink};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use types::{Generation, MacAddress};

fn desired(generation: u64) -> Desired {
    let port = Port {
        addresses: vec!["10.20.0.1".parse().unwrap()],
        routes: true,
        accept: vec![Accept { direction: Direction::ToGuest, remote: None, protocol: Protocol::Any }],
        ..Port::closed("office/gateway/lan".to_owned(), "ct1".to_owned(), MacAddress([2, 0, 0, 0, 0, 1]))
    };
    let uplink = Uplink::Vxlan { vni: 7, link: "cx1".to_owned(), peers: vec!["192.0.2.2".parse().unwrap()] };
    let network = Network {
        id: "office/inside".to_owned(),
        bridge: "cb1".to_owned(),
        mtu: 1450,
        uplink,
        ports: vec![port],
        ..Network::default()
    };
    Desired { generation: Generation(generation), networks: vec![network], ..Desired::default() }
}

#[test]
fn a_document_is_applied_when_it_is_answered() {
    let machine = Machine::new();
    let _netd = machine.start();
    let status = machine.put(&desired(3)).unwrap();
    assert!(status.converged && status.networks[0].up && status.networks[0].ports[0].ready, "{status:?}");
    assert!(status.steps > 5 && status.took_ms > 0 && status.failures.is_empty(), "{status:?}");
    assert_eq!(status.generation, Generation(3));
    let again = machine.put(&desired(3)).unwrap();
    assert_eq!((again.steps, again.took_ms), (status.steps, status.took_ms), "the same document is no work");
    let text = String::from_utf8(machine.netd(&["status", "--json"]).stdout).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap().generation, Generation(3));
    let text = String::from_utf8(machine.netd(&["status"]).stdout).unwrap();
    assert!(text.starts_with("generation 3: as desired") && text.contains("office/gateway/lan"), "{text}");
}

#[test]
fn a_killed_netd_comes_back_to_the_same_and_taps_stay() {
    let machine = Machine::new();
    let netd = machine.start();
    machine.put(&desired(1)).unwrap();
    let before = machine.ours();
    drop(netd);
    assert_eq!(machine.ours(), before, "nothing of it needs a running netd");
    machine.shell("ip link del cx1; nft flush ruleset");
    let netd = machine.start();
    machine.until("it does not converge by itself", |s| s.converged && s.networks.len() == 1);
    let tap = |text: &str| text.lines().find(|l| l.contains("ct1")).map(str::to_owned);
    assert_eq!(tap(&machine.ours()), tap(&before));
    drop(netd);
}

#[test]
fn killed_at_any_moment_it_converges_at_the_next_start() {
    let machine = Machine::new();
    let netd = machine.start();
    machine.put(&desired(1)).unwrap();
    drop(netd);
    for delay_ms in (0..60).step_by(6) {
        machine.shell("ip link del ct1; ip link del cx1; ip link del cb1; nft flush ruleset");
        let mut command = machine.command(&[]);
        let netd = Netd(machine.run(move || command.spawn().unwrap()));
        // Not a wait for a condition: the moment of the kill is what varies.
        pause(Duration::from_millis(delay_ms));
        drop(netd);
    }
    let _netd = machine.start();
    machine.until("it does not converge", |s| s.converged && s.networks.len() == 1);
}

#[test]
fn a_terminated_netd_leaves_everything_in_place() {
    let machine = Machine::new();
    let mut netd = machine.start();
    machine.put(&desired(1)).unwrap();
    let before = machine.ours();
    kill(Pid::from_raw(i32::try_from(netd.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    let begin = Instant::now();
    assert!(netd.0.wait().unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(machine.ours(), before);
}

#[test]
fn damage_by_others_is_repaired_without_being_asked() {
    let machine = Machine::new();
    let _netd = machine.start();
    machine.put(&desired(1)).unwrap();
    let before = machine.ours();
    let kept = [
        "nft flush ruleset",
        "nft delete table bridge collective",
        "ip link set ct1 down",
        "ip link set cx1 nomaster",
        "ip link set ct1 mtu 1300",
        "ip link set cb1 type bridge stp_state 1",
    ];
    for damage in kept {
        machine.shell(damage);
        // Far sooner than the timer.
        machine.until(damage, |s| s.converged);
        assert_eq!(machine.ours(), before, "{damage}");
    }
    for damage in ["ip link del cb1", "ip link del ct1", "ip link set ct1 name mine"] {
        machine.shell(damage);
        machine.until(damage, |s| s.converged && s.networks[0].up && s.networks[0].ports[0].ready);
        machine.shell("ip link del mine");
        machine.until(damage, |s| s.converged && s.conflicts.is_empty());
    }
}

#[test]
fn a_bad_document_gets_one_clear_error_and_changes_nothing() {
    let machine = Machine::new();
    let _netd = machine.start();
    machine.put(&desired(5)).unwrap();
    let before = machine.ours();
    let refused = |document: &Desired, wanted_status: u16, wanted_code: &str, part: &str| {
        let error = machine.put(document).unwrap_err();
        let CallError::Refused { status, code, message } = &error else { panic!("{error:?}") };
        assert_eq!((*status, code.as_str()), (wanted_status, wanted_code));
        assert!(message.contains(part), "{message}");
    };
    refused(&desired(4), 409, "stale-generation", "generation 4 is older than 5");
    let mut changed = desired(5);
    changed.networks[0].mtu = 1400;
    refused(&changed, 409, "stale-generation", "held with other content");
    let mut bad = desired(6);
    bad.networks[0].mtu = 5;
    refused(&bad, 422, "invalid-document", "network office/inside: mtu 5 is out of range");
    let mut site = desired(6);
    site.networks[0].uplink = Uplink::Site { site: types::SiteName::new("lab").unwrap() };
    refused(&site, 422, "invalid-document", "no link is granted for site lab");
    let raw = chassis::unix_http::Client::new(machine.folder.path().join("netd.sock"));
    for (body, part) in [
        (serde_json::json!({"generation": 6}), "missing field `networks`"),
        (serde_json::json!({"generation": 6, "networks": [], "x": 1}), "unknown field `x`"),
        (serde_json::json!({"generation": 6, "networks": [{"id": 7}]}), "networks[0].id"),
    ] {
        let call = raw.call::<_, Status>("PUT".parse().unwrap(), "/v1/desired", &body);
        let error = machine.runtime.block_on(call).unwrap_err();
        assert!(
            matches!(&error, CallError::Refused { status: 422, message, .. } if message.contains(part)),
            "{error}"
        );
    }
    assert_eq!(machine.ours(), before);
    assert_eq!(machine.runtime.block_on(machine.client.status()).unwrap().generation, Generation(5));
}

#[test]
fn a_plan_changes_nothing_and_reads_in_order() {
    let machine = Machine::new();
    let _netd = machine.start();
    let file = machine.folder.path().join("desired.json");
    std::fs::write(&file, serde_json::to_vec(&desired(1)).unwrap()).unwrap();
    let output = machine.netd(&["plan", "--desired", file.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    let place = |step: &str| text.find(step).unwrap_or_else(|| panic!("no {step}: {text}"));
    assert!(place("create tap ct1") < place("replace rules"), "{text}");
    assert!(place("replace rules") < place("attach ct1"), "{text}");
    assert!(text.ends_with("bring ct1 up\n"), "{text}");
    assert_eq!(machine.ours(), "");
    machine.put(&desired(1)).unwrap();
    assert_eq!(machine.netd(&["plan", "--desired", file.to_str().unwrap()]).stdout, b"");
}

#[test]
fn purge_leaves_nothing_with_and_without_a_running_netd() {
    for running in [true, false] {
        let machine = Machine::new();
        let netd = machine.start();
        machine.put(&desired(1)).unwrap();
        if running {
            let unsure = machine.netd(&["purge"]);
            assert!(String::from_utf8_lossy(&unsure.stderr).contains("1 networks with 1 ports would go"));
            assert!(!unsure.status.success() && machine.ours() != "");
            assert!(machine.netd(&["purge", "--yes"]).status.success());
            drop(netd);
        } else {
            drop(netd);
            assert!(machine.netd(&["purge", "--yes"]).status.success());
        }
        assert_eq!(machine.ours(), "");
        assert!(!machine.folder.path().join("state/desired.json").exists());
        let _netd = machine.start();
        assert_eq!(machine.until("no status", |_| true).generation, Generation(0));
        // The sender may begin again from one.
        assert!(machine.put(&desired(1)).unwrap().converged);
    }
}

#[test]
fn a_second_netd_is_refused() {
    let machine = Machine::new();
    let _netd = machine.start();
    let output = machine.netd(&["run"]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("in use by another netd"), "{error}");
}

#[test]
fn a_wrong_configuration_is_named_with_its_line() {
    let machine = Machine::new();
    assert!(machine.netd(&["--check-config"]).status.success());
    std::fs::write(machine.config(), "[uplinks]\nlab = \"eth1\"\nyard = \"eth1\"\n").unwrap();
    let error = String::from_utf8_lossy(&machine.netd(&["--check-config"]).stderr).into_owned();
    assert!(error.contains("[uplinks] lab and [uplinks] yard share link eth1"), "{error}");
    std::fs::write(machine.config(), "underlay = \"192.0.2.1\"\n").unwrap();
    let error = String::from_utf8_lossy(&machine.netd(&["--check-config"]).stderr).into_owned();
    assert!(error.contains("netd.toml:1:1: unknown field `underlay`"), "{error}");
}

#[test]
fn metrics_are_served() {
    let machine = Machine::new();
    let _netd = machine.start();
    machine.put(&desired(1)).unwrap();
    let path = machine.folder.path().join("netd.sock");
    let text = machine.shell(&format!("curl -s --unix-socket {} http://x/metrics", path.display()));
    assert!(text.contains("netd_steps_total"), "{text}");
}
