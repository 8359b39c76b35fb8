//! Desired documents for netd: JSON, validation, plan, and the text that goes to `nft`, in which nothing of the document
//! may be more than a name, a number or an address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netd_api::{Desired, LINK_NAME_LEN_MAX};
use netd_plan::{Host, Link, LinkKind, Observed, Step, Target, networks_status, plan};
use std::sync::OnceLock;

fn host() -> Host {
    Host {
        underlay: Some("192.0.2.1".parse().expect("an address")),
        uplinks: [("main".parse().expect("a site"), "eth1".to_owned())].into(),
        trunks: [("core".to_owned(), "eth2".to_owned())].into(),
    }
}

/// A machine with a free link, as the planner's own tests have it.
fn machine() -> Observed {
    let ether = Link {
        group: 0,
        kind: LinkKind::Other("veth".to_owned()),
        mtu: 1500,
        master: None,
        up: true,
        carrier: true,
        alias: None,
        addressed: false,
        ipv6: true,
    };
    let addressed = Link { addressed: true, ..ether.clone() };
    Observed { links: [("eth0".into(), addressed), ("eth1".into(), ether)].into(), ..Observed::default() }
}

/// What follows the fixed chains: one line a set, `add element bridge collective SET { ELEMENT, ELEMENT }`.
fn check_text(text: &str) {
    static FIXED: OnceLock<String> = OnceLock::new();
    let fixed = FIXED.get_or_init(|| netd_kernel::render_rules(&netd_plan::Rules::default()));
    let rest = text.strip_prefix(fixed.as_str()).expect("the chains never change");
    for line in rest.lines() {
        let line = line.strip_prefix("add element bridge collective ").expect("elements are added, no more");
        let (set, elements) = line.split_once(" { ").expect("a set");
        assert!(set.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{set}");
        let elements = elements.strip_suffix(" }").expect("an end");
        elements.split(", ").for_each(check_element);
    }
}

/// `"LINK" . ADDRESS . 6 . 80`.
fn check_element(element: &str) {
    let mut parts = element.split(" . ");
    let link = parts.next().and_then(|link| link.strip_prefix('"')?.strip_suffix('"')).expect("a link");
    assert!(!link.is_empty() && link.len() <= LINK_NAME_LEN_MAX, "{link}");
    assert!(link.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')), "{link}");
    for part in parts {
        let plain = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '/' | 'x');
        assert!(!part.is_empty() && part.chars().all(plain), "{part}");
    }
}

fn check_step(step: &Step) {
    assert!(!step.to_string().chars().any(char::is_control), "{step}");
    if let Step::Name { alias, .. } = step {
        assert!(alias.len() < 256, "{alias}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(desired) = serde_json::from_slice::<Desired>(bytes) else { return };
    let json = serde_json::to_vec(&desired).expect("a document has a JSON");
    assert_eq!(serde_json::from_slice::<Desired>(&json).expect("read"), desired);
    let host = host();
    let target = match Target::new(&desired, &host) {
        Ok(target) => target,
        Err(invalid) => return assert!(!invalid.to_string().is_empty()),
    };
    let observed = machine();
    let plan = plan(&target, &observed);
    plan.steps.iter().for_each(check_step);
    let status = networks_status(&desired, &host, &observed);
    assert_eq!(status.len(), desired.networks.len());
    if let Some(rules) = &target.rules {
        check_text(&netd_kernel::render_rules(rules));
    }
});
