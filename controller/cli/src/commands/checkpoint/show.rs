//! Checkpoints on a terminal.

use crate::commands::Session;
use crate::failure::Failure;
use crate::output::{self, Format, Row, or_dash};
use crate::time;
use chassis::clock::unix_ms;
use controller_api::checkpoint::{
    CheckpointDiff, CheckpointOrigin, CheckpointPhase, CheckpointView, MemberDiff, PartView,
};
use std::io::Write as _;
use std::process::ExitCode;

/// A row of a list.
#[derive(serde::Serialize)]
#[serde(transparent)]
pub(super) struct Line(pub(super) CheckpointView);

impl Row for Line {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "STATE", "AGE", "MEMBERS", "MEMORY", "WRITTEN", "CAUSE", "PINNED"];
    const WIDE: &'static [&'static str] = &["HELD", "PROVEN", "REASON"];

    fn name(&self) -> String {
        self.0.name.clone()
    }

    fn cells(&self, now_ms: u64) -> Vec<String> {
        let view = &self.0;
        let at_ms = if view.taken_ms == 0 { view.requested_ms } else { view.taken_ms };
        vec![
            view.name.clone(),
            state(view).into(),
            time::age(at_ms, now_ms),
            view.parts.len().to_string(),
            yes(view.with_memory),
            time::bytes(view.size_bytes),
            cause(view.cause).into(),
            yes(view.pinned),
        ]
    }

    fn wide_cells(&self, _: u64) -> Vec<String> {
        let view = &self.0;
        let reason = view.damage.as_ref().or(view.reason.as_ref());
        vec![format!("{} ms", view.hold_ms), yes(view.verified), or_dash(reason)]
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.into()
}

fn state(view: &CheckpointView) -> &'static str {
    match view.phase {
        _ if view.damage.is_some() => "damaged",
        CheckpointPhase::Requested => "requested",
        CheckpointPhase::Holding => "holding",
        CheckpointPhase::Taking => "taking",
        CheckpointPhase::Keeping => "taken",
        CheckpointPhase::Complete => "complete",
        CheckpointPhase::Failed => "failed",
        CheckpointPhase::Dropped => "dropped",
    }
}

fn cause(cause: CheckpointOrigin) -> &'static str {
    match cause {
        CheckpointOrigin::Policy => "policy",
        CheckpointOrigin::Person => "person",
        CheckpointOrigin::Update => "update",
        CheckpointOrigin::Restore => "restore",
    }
}

/// One row.
pub(super) fn line(session: &Session, view: CheckpointView) -> Result<ExitCode, Failure> {
    output::one(&mut std::io::stdout(), &Line(view), session.format, unix_ms())?;
    Ok(ExitCode::SUCCESS)
}

/// Everything about one.
pub(super) fn one(session: &Session, view: CheckpointView) -> Result<ExitCode, Failure> {
    if !matches!(session.format, Format::Table | Format::Wide) {
        return line(session, view);
    }
    let mut out = std::io::stdout();
    writeln!(out, "Checkpoint {} of {}: {}", view.name, view.deployment, state(&view))?;
    if view.taken_ms > 0 {
        writeln!(out, "  taken {}, ports held for {} ms", time::utc(view.taken_ms), view.hold_ms)?;
    }
    if let Some(reason) = view.damage.as_ref().or(view.reason.as_ref()) {
        writeln!(out, "  {}", output::printable(reason))?;
    }
    let rows: Vec<Vec<String>> = view.parts.iter().flat_map(part).collect();
    let headers =
        ["MEMBER", "HOST", "VERSION", "STATE", "FILE", "LAYERS", "BYTES", "WRITTEN", "PAUSE", "REPLICAS"];
    output::table(&mut out, &headers, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn part(part: &PartView) -> Vec<Vec<String>> {
    let replicas = part.replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let head = |file: String, layers: String, bytes: u64, written: u64| {
        vec![
            part.member.to_string(),
            part.host.to_string(),
            part.version.to_string(),
            part.state.clone(),
            file,
            layers,
            time::bytes(bytes),
            time::bytes(written),
            format!("{:.1} ms", part.pause_us as f64 / 1_000.0),
            replicas.clone(),
        ]
    };
    let disks = part
        .disks
        .iter()
        .map(|disk| head(disk.disk.to_string(), disk.layers.to_string(), disk.bytes, disk.new_bytes));
    let memory = (part.memory_bytes > 0)
        .then(|| head("memory".into(), String::new(), part.memory_bytes, part.memory_bytes));
    let mut rows: Vec<Vec<String>> = disks.chain(memory).collect();
    if rows.is_empty() {
        rows.push(head(String::new(), String::new(), 0, 0));
    }
    rows
}

/// What differs between two.
pub(super) fn diff(session: &Session, diff: &CheckpointDiff) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    match session.format {
        Format::Json => output::json(&mut out, diff)?,
        Format::Yaml => output::yaml(&mut out, diff)?,
        Format::Name => {
            diff.members.iter().try_for_each(|member| writeln!(out, "{}", member.member))?;
        }
        Format::Table | Format::Wide => {
            let rows: Vec<Vec<String>> = diff.members.iter().flat_map(member).collect();
            output::table(&mut out, &["MEMBER", "VERSION", "DISK", "WRITTEN", "LAYERS"], &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn member(member: &MemberDiff) -> Vec<Vec<String>> {
    let version = match (&member.version_from, &member.version_to) {
        (Some(from), Some(to)) if from == to && member.remade => format!("{to} (made anew)"),
        (Some(from), Some(to)) if from == to => to.to_string(),
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (Some(from), None) => format!("{from} -> gone"),
        (None, Some(to)) => format!("new: {to}"),
        (None, None) => String::new(),
    };
    let disks = member.disks.iter().map(|disk| {
        vec![
            member.member.to_string(),
            version.clone(),
            disk.disk.to_string(),
            time::bytes(disk.written_bytes),
            format!("+{} -{}", disk.layers_added, disk.layers_gone),
        ]
    });
    disks.collect()
}
