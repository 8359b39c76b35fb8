//! A status for people: a line a network and a line a port, then what is wrong.

use netd_api::{Counter, NetworkStatus, PortStatus, Status};

const HEADINGS: [&str; 6] = ["", "STATE", "LINK", "FROM GUEST", "TO GUEST", "DROPPED"];

/// The lines.
pub(crate) fn of(status: &Status) -> Vec<String> {
    let state = if status.converged { "as desired" } else { "not as desired" };
    let mut lines = vec![format!(
        "generation {}: {state}; the last pass that changed something took {} steps and {} ms",
        status.generation, status.steps, status.took_ms
    )];
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    for network in &status.networks {
        rows.push(network_row(network));
        rows.extend(network.ports.iter().map(port_row));
    }
    for watcher in &status.watchers {
        let state = word(watcher.ready, watcher.carrier);
        let dropped = frames(&[watcher.dropped_from_guest]);
        let name = format!("watcher {}", watcher.id);
        rows.push([name, state, watcher.tap.clone(), String::new(), String::new(), dropped]);
    }
    for mirror in &status.mirrors {
        let state = if mirror.ready { "ready" } else { "not ready" }.to_owned();
        let copied = format!("{} copied", frames(&[mirror.copied]));
        let name = format!("mirror {}", mirror.id);
        rows.push([name, state, String::new(), String::new(), copied, String::new()]);
    }
    if rows.len() > 1 {
        lines.extend(aligned(&rows));
    }
    lines.extend(status.failures.iter().map(|failure| format!("failed: {failure}")));
    lines.extend(status.conflicts.iter().map(|conflict| format!("conflict: {conflict}")));
    lines
}

fn network_row(network: &NetworkStatus) -> [String; 6] {
    let router = match &network.router {
        Some(router) if router.ready => format!("router in {}", router.namespace),
        Some(router) => format!("router in {} not ready", router.namespace),
        None => String::new(),
    };
    let state = if network.up { "up" } else { "down" }.to_owned();
    [network.id.clone(), state, router, String::new(), String::new(), String::new()]
}

fn port_row(port: &PortStatus) -> [String; 6] {
    [
        format!("  {}", port.id),
        word(port.ready, port.carrier),
        port.tap.clone(),
        frames(&[port.from_guest]),
        frames(&[port.to_guest]),
        frames(&[port.dropped_spoofed, port.dropped_from_guest, port.dropped_to_guest]),
    ]
}

fn word(ready: bool, carrier: bool) -> String {
    match (ready, carrier) {
        (true, true) => "in use",
        (true, false) => "ready",
        (false, _) => "not ready",
    }
    .to_owned()
}

fn frames(counters: &[Counter]) -> String {
    counters.iter().map(|counter| counter.frames).sum::<u64>().to_string()
}

fn aligned(rows: &[[String; 6]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Generation;

    #[test]
    fn a_person_sees_what_is_not_as_desired() {
        let counter = |frames| Counter { frames, bytes: 100 * frames };
        let port = PortStatus {
            id: "office/a/eth0".into(),
            tap: "ct1".into(),
            ready: true,
            from_guest: counter(7),
            dropped_spoofed: counter(1),
            dropped_to_guest: counter(2),
            ..PortStatus::default()
        };
        let waiting = PortStatus { id: "office/bb/eth0".into(), tap: "ct2".into(), ..PortStatus::default() };
        let network =
            NetworkStatus { id: "office/lan".into(), up: true, ports: vec![port, waiting], router: None };
        let status = Status {
            generation: Generation(4),
            networks: vec![network],
            failures: vec!["create tap ct2: busy".into()],
            ..Status::default()
        };
        let text = of(&status).join("\n");
        let wanted = "\
generation 4: not as desired; the last pass that changed something took 0 steps and 0 ms
                  STATE      LINK  FROM GUEST  TO GUEST  DROPPED
office/lan        up
  office/a/eth0   ready      ct1   7           0         3
  office/bb/eth0  not ready  ct2   0           0         0
failed: create tap ct2: busy";
        assert_eq!(text, wanted);
    }
}
