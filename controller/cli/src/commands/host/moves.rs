//! Where instances would go, as a table.

use crate::failure::Failure;
use crate::output::{self, Format, or_dash, printable};
use controller_api::host::{MoveView, MovesView};
use std::io::Write;

pub(crate) fn show(out: &mut impl Write, view: &MovesView, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(out, view),
        Format::Yaml => output::yaml(out, view),
        Format::Name => {
            view.moves.iter().try_for_each(|planned| writeln!(out, "{}", planned.instance))?;
            Ok(())
        }
        Format::Table | Format::Wide => table(out, view, format == Format::Wide),
    }
}

/// Of a line's reasons the one that weighs most; all of them with `wide`.
fn table(out: &mut impl Write, view: &MovesView, wide: bool) -> Result<(), Failure> {
    let rows: Vec<_> = view.moves.iter().map(row).collect();
    output::table(out, &["INSTANCE", "FROM", "TO", "GAIN", "DECISION", "REASON"], &rows)?;
    if wide {
        for planned in &view.moves {
            writeln!(out, "\n{}:", planned.instance)?;
            planned.reasons.iter().try_for_each(|reason| writeln!(out, "  {}", printable(reason)))?;
        }
    }
    let nowhere = view.moves.iter().filter(|planned| planned.to.is_none()).count();
    let stay = if nowhere > 0 { format!(", {nowhere} of them cannot go") } else { String::new() };
    let done = if view.executed { "the others are on their way" } else { "nothing was moved" };
    writeln!(out, "\n{} of {} instances{stay}; {done}", view.moves.len(), view.considered)?;
    Ok(())
}

fn row(planned: &MoveView) -> Vec<String> {
    vec![
        planned.instance.to_string(),
        planned.from.to_string(),
        or_dash(planned.to.as_ref()),
        planned.gain.map_or_else(String::new, |gain| format!("{gain:+.1}")),
        or_dash(planned.decision.as_ref()),
        planned.reasons.first().cloned().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_would_move_and_that_nothing_did() {
        let view: MovesView =
            serde_json::from_value(serde_json::json!({"executed": false, "considered": 2, "moves": [
                {"instance": "office/gateway", "from": "h1", "to": "h2", "gain": 12.5, "decision": 7,
                 "reasons": ["capacity-left: 80 % of the host stays free (+48.000)"]},
                {"instance": "office/workspace", "from": "h1", "to": null, "gain": null, "decision": null,
                 "reasons": ["its volumes (home) lie on h1"]},
            ]}))
            .unwrap();
        let mut out = Vec::new();
        show(&mut out, &view, Format::Table).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("office/gateway    h1    h2  +12.5  7         capacity-left"), "{text}");
        assert!(text.contains("office/workspace  h1    -   -      -         its volumes"), "{text}");
        assert!(text.ends_with("\n2 of 2 instances, 1 of them cannot go; nothing was moved\n"), "{text}");
    }
}
