//! The files on an instance's configuration disk.
//!
//! `instance.env` is for guests that are a shell script, `instance.json` for those that are not, the other three are the
//! NoCloud convention for guests that know it.

use crate::record::{Instance, Port};
use crate::wire;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use types::InstanceId;

/// `"value"` for a POSIX shell: nothing in it is expanded.
fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A port's name as part of a shell variable's.
fn variable(port: &Port) -> String {
    port.name.as_str().replace('-', "_")
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

fn leases(gateway: &wire::Gateway) -> String {
    joined(gateway.leases.iter().map(|lease| format!("{}={}={}", lease.mac, lease.address, lease.name)))
}

fn env(id: &InstanceId, instance: &Instance, member: &wire::Member) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key}={}", quote(value));
    };
    line("INSTANCE", &id.to_string());
    line("DEPLOYMENT", id.deployment.as_str());
    line("MEMBER", id.member.as_str());
    line("INCARNATION", &instance.incarnation);
    line("PORTS", &joined(instance.ports.iter().map(|port| &port.name)));
    for port in &instance.ports {
        let prefix = format!("PORT_{}", variable(port));
        let part = member.ports.get(&port.name);
        line(&format!("{prefix}_MAC"), &port.mac.to_string());
        // A second one only where there is one: shells of guests that know of none read what they always did.
        for (suffix, address) in ["", "6"].into_iter().zip(&port.addresses) {
            let router = part.and_then(|part| part.router(address.addr()));
            line(&format!("{prefix}_ADDRESS{suffix}"), &address.to_string());
            line(
                &format!("{prefix}_ROUTER{suffix}"),
                &router.map(|router| router.to_string()).unwrap_or_default(),
            );
        }
        line(&format!("{prefix}_MTU"), &port.mtu.to_string());
        if let Some(names) = part.and_then(|part| part.names.as_ref()) {
            line(&format!("{prefix}_DNS"), &joined(&names.servers));
            line(&format!("{prefix}_DOMAIN"), &names.domain);
        }
        if let Some(watched) = port.watched() {
            line(&format!("{prefix}_WATCHES"), &watched);
        }
    }
    if let Some(gateway) = &member.gateway {
        line("GATEWAY_FROM", gateway.from.as_str());
        line("GATEWAY_TO", gateway.to.as_str());
        line("LEASES", &leases(gateway));
        line("FORWARDS", &joined(&gateway.forwards));
        line("OUTBOUND", &joined(&gateway.outbound));
    }
    if let Some(interposed) = &member.interposed {
        line("INTERPOSED", &interposed.at);
        line("INTERPOSED_OUTER", interposed.outer.as_str());
        line("INTERPOSED_INNER", interposed.inner.as_str());
        line("INTERPOSED_MAC", &interposed.port.mac.to_string());
        line("INTERPOSED_ADDRESSES", &joined(&interposed.port.addresses));
        if let Some((other, secret)) = &interposed.pair {
            line("INTERPOSED_PAIR_ADDRESSES", &joined(&other.addresses));
            line("INTERPOSED_PAIR_SECRET", secret);
        }
    }
    text
}

fn network_config(instance: &Instance, member: &wire::Member) -> String {
    let mut text = "version: 2\nethernets:\n".to_owned();
    for port in &instance.ports {
        let name = &port.name;
        let _ = write!(
            text,
            "  {name}:\n    match: {{macaddress: \"{}\"}}\n    set-name: {name}\n    mtu: {}\n",
            port.mac, port.mtu
        );
        if port.addresses.is_empty() {
            // It has nothing to ask anybody.
            text.push_str("    optional: true\n    link-local: []\n    accept-ra: false\n");
            continue;
        }
        let addresses: Vec<_> = port.addresses.iter().map(|address| format!("\"{address}\"")).collect();
        let _ = writeln!(text, "    addresses: [{}]", addresses.join(", "));
        let Some(part) = member.ports.get(name) else { continue };
        let route = |router: &std::net::IpAddr| format!("{{to: default, via: \"{router}\"}}");
        let routes: Vec<_> = part.routers.iter().map(route).collect();
        if !routes.is_empty() {
            let _ = writeln!(text, "    routes: [{}]", routes.join(", "));
        }
        if let Some(names) = &part.names {
            let servers: Vec<_> = names.servers.iter().map(|server| format!("\"{server}\"")).collect();
            let _ = writeln!(
                text,
                "    nameservers: {{addresses: [{}], search: [\"{}\"]}}",
                servers.join(", "),
                names.domain
            );
        }
    }
    text
}

fn instance_json(id: &InstanceId, instance: &Instance, member: &wire::Member) -> String {
    let ports: Vec<_> = instance
        .ports
        .iter()
        .map(|port| {
            let part = member.ports.get(&port.name);
            let first = port.addresses.first();
            let mut content = json!({
                "name": port.name, "network": port.network, "mac": port.mac, "mtu": port.mtu,
                "address": first.map(ToString::to_string),
                "router": first.and_then(|address| part?.router(address.addr())),
            });
            if let Some(second) = port.addresses.get(1) {
                content["address6"] = json!(second);
                content["router6"] = json!(part.and_then(|part| part.router(second.addr())));
            }
            if let Some(names) = part.and_then(|part| part.names.as_ref()) {
                content["dns"] = json!({"servers": names.servers, "domain": names.domain});
            }
            if let Some(watched) = port.watched() {
                content["watches"] = json!(watched);
            }
            content
        })
        .collect();
    let gateway = member.gateway.as_ref().map(|gateway| {
        json!({
            "from": gateway.from, "to": gateway.to, "leases": leases(gateway).split(' ').collect::<Vec<_>>(),
            "forwards": gateway.forwards, "outbound": gateway.outbound,
        })
    });
    let interposed = member.interposed.as_ref().map(|interposed| {
        json!({
            "outer": interposed.outer, "inner": interposed.inner, "at": interposed.at,
            "mac": interposed.port.mac, "addresses": interposed.port.addresses,
            "pair": interposed.pair.as_ref().map(|(other, secret)| {
                json!({"addresses": other.addresses, "secret": secret})
            }),
        })
    });
    let mut content = json!({
        "instance": id, "incarnation": instance.incarnation, "appliance": instance.appliance,
        "version": instance.version, "ports": ports, "volumes": instance.volumes, "gateway": gateway,
    });
    // A member of a bundle sees no trace of what it cannot be.
    if let Some(interposed) = interposed {
        content["interposed"] = interposed;
    }
    format!("{content:#}\n")
}

/// All files by name.
#[must_use]
pub fn files(id: &InstanceId, instance: &Instance, member: &wire::Member) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("instance.env".into(), env(id, instance, member)),
        ("instance.json".into(), instance_json(id, instance, member)),
        (
            "meta-data".into(),
            // Not the incarnation: a guest that goes on from a checkpoint is no new one. One with a fresh overlay has no
            // memory of this name, and does everything anew.
            format!("instance-id: {}.{}\nlocal-hostname: {}\n", id.deployment, id.member, id.member),
        ),
        (
            "user-data".into(),
            instance.user_data.clone().unwrap_or_else(|| format!("#cloud-config\nhostname: {}\n", id.member)),
        ),
        ("network-config".into(), network_config(instance, member)),
    ])
}

#[cfg(test)]
mod tests {
    use super::quote;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_shell_reads_back_what_was_quoted(value in "[ -~]{0,40}") {
            let script = format!("printf %s {}", quote(&value));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
