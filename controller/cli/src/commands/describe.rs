//! `describe`: everything about one thing, with reasons.

use super::{Session, get, instance_id, path_of};
use crate::failure::Failure;
use crate::kinds::{Kind, state_word};
use crate::output::{self, Format, Row, or_dash, printable};
use crate::time;
use controller_api::planned::RolloutView;
use controller_api::rest::{
    ApplianceView, BundleView, CatalogueVersion, DecisionView, DeploymentView, HostView, InstanceView,
    PolicyView, SiteView, VolumeView,
};
use controller_api::watch::WatchStatus;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::process::ExitCode;
use streamer_api::ImageStatus;

/// Events shown with a thing.
const EVENTS_MAX: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  collective describe instance office/workspace\n  collective describe host h1"
)]
pub(crate) struct Args {
    /// Kind of thing
    #[arg(value_name = "KIND")]
    kind: Kind,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) async fn run(session: &Session, args: &Args) -> Result<ExitCode, Failure> {
    let mut out = io::stdout();
    match args.kind {
        Kind::Instance => {
            let view: InstanceView = session.client.get(&path_of(Kind::Instance, &args.name)?).await?;
            let boot = session.client.boot(&instance_id(&args.name)?).await?;
            if machine_readable(session.format) {
                output::one(&mut out, &view, session.format, 0)?;
            } else {
                instance(&mut out, &view, boot.image.as_ref())?;
                events(&mut out, session, &format!("instance/{}", args.name)).await?;
            }
        }
        Kind::Appliance => {
            let view: ApplianceView = session.client.get(&path_of(Kind::Appliance, &args.name)?).await?;
            appliance(&mut out, &view, session.format)?;
        }
        Kind::Host => {
            let view: HostView = session.client.get(&path_of(Kind::Host, &args.name)?).await?;
            if machine_readable(session.format) {
                output::one(&mut out, &view, session.format, 0)?;
            } else {
                host(&mut out, &view)?;
                events(&mut out, session, &format!("host/{}", args.name)).await?;
            }
        }
        Kind::Bundle => plain::<BundleView>(session, args).await?,
        Kind::Deployment => {
            plain::<DeploymentView>(session, args).await?;
            if !machine_readable(session.format) {
                schedule(&mut out, session, &args.name).await?;
            }
        }
        Kind::Site => plain::<SiteView>(session, args).await?,
        Kind::Volume => plain::<VolumeView>(session, args).await?,
        Kind::Policy => plain::<PolicyView>(session, args).await?,
        Kind::Decision => plain::<DecisionView>(session, args).await?,
        Kind::Rollout => plain::<RolloutView>(session, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn machine_readable(format: Format) -> bool {
    !matches!(format, Format::Table | Format::Wide)
}

/// Kinds whose fields say it all.
async fn plain<V: Row + DeserializeOwned>(session: &Session, args: &Args) -> Result<(), Failure> {
    let mut out = io::stdout();
    let format = if machine_readable(session.format) { session.format } else { Format::Yaml };
    for view in get::fetch::<V>(session, args.kind, Some(&args.name)).await? {
        output::one(&mut out, &view, format, 0)?;
    }
    if !machine_readable(session.format) {
        events(&mut out, session, &format!("{}/{}", args.kind.singular(), args.name)).await?;
    }
    Ok(())
}

/// What the checkpoint policy of a deployment has planned.
async fn schedule(out: &mut impl Write, session: &Session, name: &str) -> Result<(), Failure> {
    let all = session.client.schedules().await?;
    let Some(view) = all.into_iter().find(|view| view.deployment.as_str() == name) else { return Ok(()) };
    writeln!(out, "Checkpoints:")?;
    writeln!(out, "  {} there, by policy {}", view.checkpoints, view.policy)?;
    if let Some(take) = &view.take {
        let memory = if take.with_memory { "with memory" } else { "disks only" };
        writeln!(out, "  to be taken since {} ({memory}): pending", time::utc(take.ordered_ms))?;
        take.reasons.iter().try_for_each(|reason| writeln!(out, "    {}", printable(reason)))?;
    }
    view.discards
        .iter()
        .try_for_each(|name| writeln!(out, "  to be dropped: {}: pending", printable(name)))?;
    if let Some(problem) = &view.problem {
        writeln!(out, "  problem: {}", printable(problem))?;
    }
    if view.next_call_ms > 0 {
        writeln!(out, "  asked again at {}", time::utc(view.next_call_ms))?;
    }
    Ok(())
}

async fn events(out: &mut impl Write, session: &Session, object: &str) -> Result<(), Failure> {
    let mut lines = session.client.events(types::Revision(0), false).await?;
    let mut found = Vec::new();
    while let Some(event) = lines.next().await? {
        if event.object == object {
            found.push(event);
        }
    }
    writeln!(out, "Events:")?;
    let last = &found[found.len().saturating_sub(EVENTS_MAX)..];
    if last.is_empty() {
        writeln!(out, "  none")?;
    }
    for event in last {
        let message = printable(&event.message);
        writeln!(out, "  {}  {:<20}  {message}", time::utc(event.at_ms), event.reason)?;
    }
    Ok(())
}

fn field(out: &mut impl Write, name: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "{:<14}{}", format!("{name}:"), printable(&value.to_string()))
}

fn instance(out: &mut impl Write, view: &InstanceView, image: Option<&ImageStatus>) -> Result<(), Failure> {
    field(out, "Name", &view.id)?;
    field(out, "Appliance", format_args!("{} {}", view.appliance, view.version))?;
    let reason = view.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    field(out, "State", format_args!("{}{reason}", state_word(view.state)))?;
    field(out, "Host", or_dash(view.host.as_ref()))?;
    field(out, "Hardware", format_args!("{} vCPU, {}", view.vcpus, view.memory))?;
    field(out, "Incarnation", format_args!("{} (started {} times)", view.incarnation, view.starts))?;
    if let Some(started) = view.started_ms {
        let boot = view.ready_ms.map_or_else(
            || "not ready yet".into(),
            |ready| format!("ready after {}", time::span(started, ready)),
        );
        field(out, "Started", format_args!("{}, {boot}", time::utc(started)))?;
    }
    writeln!(out, "Ports:")?;
    for port in &view.ports {
        let address = or_dash(port.address.as_ref());
        writeln!(out, "  {:<10}{:<12}{address:<18}{}  tap {}", port.name, port.network, port.mac, port.tap)?;
    }
    let volumes: Vec<_> = view.volumes.iter().map(ToString::to_string).collect();
    field(out, "Volumes", if volumes.is_empty() { "none".to_owned() } else { volumes.join(", ") })?;
    writeln!(out, "Image:        {}", view.image)?;
    if let Some(image) = image {
        image_lines(out, image)?;
    }
    placement(out, view.placement.as_ref())?;
    view.watches.iter().try_for_each(|status| watch(out, status))?;
    Ok(())
}

/// What one policy sees in it, newest findings first.
fn watch(out: &mut impl Write, status: &WatchStatus) -> io::Result<()> {
    let looked = status.looked_ms.map_or_else(
        || "has not looked yet".to_owned(),
        |looked| {
            format!("{} looks, the last {} in {} ms", status.looks, time::utc(looked), status.took_us / 1_000)
        },
    );
    writeln!(out, "Watched by:   {}, {looked}", status.policy)?;
    if let Some(problem) = &status.problem {
        writeln!(out, "  problem: {}", printable(problem))?;
    }
    status.reasons.iter().try_for_each(|reason| writeln!(out, "  {}", printable(reason)))?;
    for finding in &status.findings {
        let gone = if finding.open { "" } else { ", not seen any more" };
        let (first, title) = (time::utc(finding.first_ms), printable(&finding.title));
        writeln!(out, "  {:<9}{title} ({})", finding.severity, printable(&finding.rule))?;
        writeln!(out, "    first seen {first}, {} times{gone}", finding.times)?;
        for evidence in &finding.evidence {
            let place = evidence.address.as_deref().unwrap_or("-");
            writeln!(
                out,
                "    {} {}: {}",
                printable(&evidence.kind),
                printable(place),
                printable(&evidence.text)
            )?;
        }
        if !finding.proposals.is_empty() {
            writeln!(out, "    the policy proposes: {}", printable(&finding.proposals.join(", ")))?;
        }
    }
    if status.findings_dropped > 0 {
        writeln!(out, "  and {} findings more", status.findings_dropped)?;
    }
    Ok(())
}

/// What of an image is here and where it came from.
pub(crate) fn image_lines(out: &mut impl Write, image: &ImageStatus) -> io::Result<()> {
    let (bytes, size) = (&image.bytes, image.size_bytes);
    let fetched = bytes.origin + bytes.peer;
    writeln!(
        out,
        "  fetched {} of {} ({}%): {} from the origin, {} from hosts; {} zero, {} cached",
        time::bytes(fetched),
        time::bytes(size),
        fetched.saturating_mul(100).checked_div(size).unwrap_or(0),
        time::bytes(bytes.origin),
        time::bytes(bytes.peer),
        time::bytes(bytes.zero),
        time::bytes(bytes.cache)
    )?;
    let stalls = &image.stalls;
    writeln!(
        out,
        "  {} reads waited {} ms in all, the longest {} ms; {} peers; {} sent to others",
        stalls.count,
        stalls.total_ms,
        stalls.longest_ms,
        image.peers.len(),
        time::bytes(image.bytes_uploaded)
    )?;
    match &image.trouble {
        Some(trouble) => writeln!(out, "  trouble: {}", printable(trouble)),
        None => Ok(()),
    }
}

fn placement(out: &mut impl Write, decision: Option<&DecisionView>) -> io::Result<()> {
    let Some(decision) = decision else { return writeln!(out, "Placement:    not decided yet") };
    writeln!(
        out,
        "Placement:    {} -> {} by policy {} ({}), decision {}, {} us",
        decision.verdict,
        or_dash(decision.host.as_ref()),
        decision.policy,
        decision.component,
        decision.id,
        decision.took_us
    )?;
    for choice in &decision.choices {
        writeln!(out, "  {:<10}{:>8.3}", choice.host, choice.score)?;
        choice.reasons.iter().try_for_each(|reason| writeln!(out, "    {}", printable(reason)))?;
    }
    decision.notes.iter().try_for_each(|note| writeln!(out, "  note: {}", printable(note)))
}

fn host(out: &mut impl Write, view: &HostView) -> Result<(), Failure> {
    field(out, "Name", &view.name)?;
    field(out, "Site", format_args!("{} ({})", view.site, view.role))?;
    let seen = view.seen_ms.map_or_else(|| "never".to_owned(), time::utc);
    field(out, "Online", format_args!("{}, last heard {seen}", if view.online { "yes" } else { "no" }))?;
    if view.role == "host" {
        field(out, "Service", view.service.word())?;
        let labels: Vec<String> = view.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        field(out, "Labels", labels.join(" "))?;
        match &view.attestation {
            Some(word) => {
                field(
                    out,
                    "Attested",
                    format_args!("{} by {}: {}", time::utc(word.at_ms), word.who, word.note),
                )?;
            }
            None => field(out, "Attested", "no")?,
        }
    }
    if let Some(facts) = &view.facts {
        let reason =
            facts.accelerator_reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        field(out, "Accelerator", format_args!("{}{reason}", facts.accelerator))?;
        let versions = (&facts.agent_version, &facts.libvirt_version, &facts.qemu_version, &facts.kernel);
        let (agent, libvirt, qemu, kernel) = versions;
        field(
            out,
            "Versions",
            format_args!("agent {agent}, libvirt {libvirt}, QEMU {qemu}, kernel {kernel}"),
        )?;
        field(out, "Processors", f64::from(facts.cpu_total_milli) / 1000.0)?;
        field(out, "Underlay", or_dash(facts.underlay_address.as_ref()))?;
    }
    if let Some(status) = &view.status {
        let converged = if status.converged { "as desired" } else { "not as desired yet" };
        field(out, "Status", format_args!("{converged} (generation {})", status.generation))?;
        field(out, "Memory free", time::bytes(status.memory_free_bytes))?;
        field(out, "Disk free", time::bytes(status.disk_free_bytes))?;
        field(out, "Load", status.load)?;
        status.problems.iter().try_for_each(|problem| writeln!(out, "  problem: {}", printable(problem)))?;
        writeln!(out, "Instances:")?;
        for instance in &status.instances {
            writeln!(out, "  {:<32}{}", instance.id.to_string(), state_word(instance.state))?;
        }
    }
    Ok(())
}

pub(crate) fn appliance(out: &mut impl Write, view: &ApplianceView, format: Format) -> Result<(), Failure> {
    if machine_readable(format) {
        return output::one(out, view, format, 0);
    }
    field(out, "Name", &view.name)?;
    if let Some(newest) = view.versions.last() {
        field(out, "Summary", &newest.spec.summary)?;
    }
    for (channel, version) in &view.channels {
        field(out, "Channel", format_args!("{channel} -> {version}"))?;
    }
    let rows: Vec<_> = view
        .versions
        .iter()
        .rev()
        .map(|version| {
            let hardware = &version.spec.hardware;
            vec![
                version.version.to_string(),
                time::utc(version.published_ms),
                time::bytes(version.size_bytes),
                format!("{} vCPU, {}", hardware.vcpus, hardware.memory),
                version.image.to_string(),
                remark(version),
            ]
        })
        .collect();
    Ok(output::table(out, &["VERSION", "PUBLISHED", "SIZE", "HARDWARE", "IMAGE", "NOTE"], &rows)?)
}

fn remark(version: &CatalogueVersion) -> String {
    let yanked = version.yanked.as_ref().map(|reason| format!("yanked: {reason}"));
    let untested = version.untested.as_ref().map(|reason| format!("not booted before publishing: {reason}"));
    yanked.into_iter().chain(untested).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> InstanceView {
        serde_json::from_value(serde_json::json!({
            "id": "office/workspace", "incarnation": "u", "appliance": "acme/workspace", "version": "1.0.0",
            "image": format!("sha256:{}", "0".repeat(64)), "host": "h2", "state": "ready", "reason": null,
            "started_ms": 1000, "ready_ms": 3850, "starts": 1,
            "ports": [{"name": "eth0", "network": "inside", "address": "10.20.0.2", "mac": "02:00:00:00:00:01",
                       "tap": "ct0123456789"}],
            "volumes": ["home"], "vcpus": 1, "memory": "384MiB",
            "placement": {"id": 3, "at_ms": 0, "instance": "office/workspace", "policy": "balanced",
                "component": "balanced 0.1.0", "digest": format!("sha256:{}", "1".repeat(64)),
                "input": format!("sha256:{}", "2".repeat(64)), "verdict": "place", "host": "h2",
                "choices": [{"host": "h2", "score": 0.75, "reasons": ["memory: much is free (0.5)"]}],
                "notes": ["h3 is offline"], "took_us": 90}
        }))
        .unwrap()
    }

    #[test]
    fn an_instance_is_told_with_its_reasons() {
        let mut out = Vec::new();
        let image = ImageStatus {
            size_bytes: 100 << 20,
            bytes: streamer_api::BytesBySource {
                origin: 10 << 20,
                peer: 5 << 20,
                web_seed: 0,
                zero: 0,
                cache: 0,
            },
            ..ImageStatus::default()
        };
        instance(&mut out, &view(), Some(&image)).unwrap();
        let text = String::from_utf8(out).unwrap();
        for part in [
            "State:        ready\n",
            "1970-01-01T00:00:01Z, ready after 2.8 s",
            "  eth0      inside      10.20.0.2         02:00:00:00:00:01  tap ct0123456789",
            "fetched 15.0 MiB of 100.0 MiB (15%): 10.0 MiB from the origin, 5.0 MiB from hosts",
            "Placement:    place -> h2 by policy balanced (balanced 0.1.0), decision 3, 90 us",
            "  h2           0.750\n    memory: much is free (0.5)\n",
            "  note: h3 is offline",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
