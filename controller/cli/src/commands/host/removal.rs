//! What went with a host that was removed by force.

use crate::failure::Failure;
use crate::output::{self, Format};
use controller_api::recovery::RemovedHost;
use std::io::Write;

pub(crate) fn show(out: &mut impl Write, removed: &RemovedHost, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(out, removed),
        Format::Yaml => output::yaml(out, removed),
        Format::Name => {
            let restored = removed.restored.iter().map(|restored| &restored.instance);
            let all = removed.recovering.iter().chain(restored).chain(&removed.afresh);
            for instance in all {
                writeln!(out, "{instance}")?;
            }
            Ok(())
        }
        Format::Table | Format::Wide => table(out, removed),
    }
}

fn table(out: &mut impl Write, removed: &RemovedHost) -> Result<(), Failure> {
    let row = |what: &str, goes_on: String| vec![what.to_owned(), goes_on];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for instance in &removed.recovering {
        rows.push(row(&instance.to_string(), "elsewhere, when its lease has surely run out".to_owned()));
    }
    for restored in &removed.restored {
        let from = format!("elsewhere, from checkpoint {}", restored.checkpoint);
        rows.push(row(&restored.instance.to_string(), from));
    }
    for instance in &removed.afresh {
        rows.push(row(&instance.to_string(), "elsewhere, afresh".to_owned()));
    }
    if rows.is_empty() {
        writeln!(out, "no instance was on it")?;
    } else {
        output::table(out, &["INSTANCE", "GOES ON"], &rows)?;
    }
    for volume in &removed.lost_volumes {
        writeln!(out, "lost: volume {volume}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_goes_on_from_where_and_what_is_lost() {
        let removed: RemovedHost = serde_json::from_value(serde_json::json!({
            "recovering": ["office/gateway"], "afresh": ["lab/probe"],
            "restored": [{"instance": "office/workspace", "checkpoint": "nightly"}],
            "lost_volumes": ["lab/probe/data"],
        }))
        .unwrap();
        let mut text = Vec::new();
        show(&mut text, &removed, Format::Table).unwrap();
        let text = String::from_utf8(text).unwrap();
        for part in
            ["office/gateway", "lease", "from checkpoint nightly", "afresh", "lost: volume lab/probe/data"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let mut text = Vec::new();
        show(&mut text, &RemovedHost::default(), Format::Table).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "no instance was on it\n");
    }
}
