//! Results on standard output: tables for people, JSON and YAML for programs, names for scripts.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, Write};

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Only names, one a line
    Name,
}

/// A thing that can stand in a table.
pub(crate) trait Row: Serialize {
    /// Columns of `table`.
    const COLUMNS: &'static [&'static str];
    /// Further columns of `wide`.
    const WIDE: &'static [&'static str];
    /// What other commands call it.
    fn name(&self) -> String;
    /// As many as there are columns.
    fn cells(&self, now_ms: u64) -> Vec<String>;
    /// As many as there are further columns.
    fn wide_cells(&self, now_ms: u64) -> Vec<String>;
}

/// Writes a list.
pub(crate) fn list<R: Row>(
    out: &mut impl Write,
    rows: &[R],
    format: Format,
    now_ms: u64,
) -> Result<(), Failure> {
    match format {
        Format::Json => json(out, &rows),
        Format::Yaml => yaml(out, &rows),
        Format::Name => {
            rows.iter().try_for_each(|row| writeln!(out, "{}", row.name()))?;
            Ok(())
        }
        Format::Table | Format::Wide => {
            let wide = format == Format::Wide;
            let headers: Vec<_> = R::COLUMNS.iter().chain(R::WIDE.iter().filter(|_| wide)).copied().collect();
            let cells: Vec<_> = rows
                .iter()
                .map(|row| {
                    let mut cells = row.cells(now_ms);
                    if wide {
                        cells.extend(row.wide_cells(now_ms));
                    }
                    cells
                })
                .collect();
            Ok(table(out, &headers, &cells)?)
        }
    }
}

/// Writes one thing.
pub(crate) fn one<R: Row>(out: &mut impl Write, row: &R, format: Format, now_ms: u64) -> Result<(), Failure> {
    match format {
        Format::Json => json(out, row),
        Format::Yaml => yaml(out, row),
        _ => list(out, std::slice::from_ref(row), format, now_ms),
    }
}

/// Indented JSON and a new line.
pub(crate) fn json<T: Serialize + ?Sized>(out: &mut impl Write, value: &T) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// JSON on one line.
pub(crate) fn json_line<T: Serialize + ?Sized>(out: &mut impl Write, value: &T) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// YAML.
pub(crate) fn yaml<T: Serialize>(out: &mut impl Write, value: &T) -> Result<(), Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(write!(out, "{text}")?)
}

/// Columns as wide as their widest cell, two spaces apart; the last is not padded.
pub(crate) fn table(out: &mut impl Write, headers: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<_> = headers.iter().map(|header| header.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(printable(cell).chars().count());
        }
    }
    let headers: Vec<_> = headers.iter().map(|header| (*header).to_owned()).collect();
    std::iter::once(&headers).chain(rows).try_for_each(|row| writeln!(out, "{}", line(row, &widths)))
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<_> =
        cells.iter().zip(widths).map(|(cell, width)| format!("{:width$}", printable(cell))).collect();
    padded.join("  ").trim_end().to_owned()
}

/// An empty cell is visible; control characters of strangers do not reach the terminal.
pub(crate) fn printable(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Words for an optional value.
pub(crate) fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// Colours may be used on standard output.
pub(crate) fn colours() -> bool {
    use std::io::IsTerminal as _;
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !unwanted && !dumb
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(rows: &[Vec<String>]) -> String {
        let mut out = Vec::new();
        table(&mut out, &["NAME", "STATE"], rows).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let rows = [vec!["office/gateway".into(), "ready".into()], vec!["ö".into(), String::new()]];
        assert_eq!(render(&rows), "NAME            STATE\noffice/gateway  ready\nö               -\n");
    }

    #[test]
    fn a_strangers_escape_sequence_does_not_reach_the_terminal() {
        assert!(!render(&[vec!["\u{1b}[2J".into(), "\r\n".into()]]).contains('\u{1b}'));
    }
}
