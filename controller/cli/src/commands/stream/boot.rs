//! An instance's disk arriving: piece map, bytes by source.

use crate::commands::{Session, describe, instance_id};
use crate::failure::Failure;
use crate::kinds::state_word;
use crate::output::{self, Format};
use crate::time;
use controller_api::rest::BootView;
use std::io::Write;
use std::process::ExitCode;

/// Cells of a row of the map.
const ROW_CELLS: usize = 72;
/// Rows of the map.
const ROWS_MAX: usize = 12;

pub(super) async fn run(session: &Session, instance: &str, once: bool) -> Result<ExitCode, Failure> {
    let id = instance_id(instance)?;
    super::live(session, once, async |out: &mut Vec<u8>| {
        let boot = session.client.boot(&id).await?;
        match session.format {
            Format::Json => output::json(out, &boot),
            Format::Yaml => output::yaml(out, &boot),
            _ => picture(out, instance, &boot),
        }
    })
    .await
}

fn picture(out: &mut impl Write, name: &str, boot: &BootView) -> Result<(), Failure> {
    let after = match (boot.started_ms, boot.ready_ms) {
        (Some(started), Some(ready)) => format!(", ready after {}", time::span(started, ready)),
        (Some(started), None) => format!(", started {} ago", time::age(started, chassis::clock::unix_ms())),
        _ => String::new(),
    };
    writeln!(out, "{name}: {}{after}", state_word(boot.state))?;
    let Some(image) = &boot.image else {
        writeln!(out, "its host has no image of it yet")?;
        return Ok(());
    };
    describe::image_lines(out, image)?;
    if let Some(map) = &image.piece_map {
        let pieces_per_cell = map.len().div_ceil(ROW_CELLS * ROWS_MAX).max(1);
        let cells = cells(map, pieces_per_cell);
        for row in cells.chunks(ROW_CELLS) {
            writeln!(out, "  {}", row.iter().collect::<String>())?;
        }
        let per_cell = u64::from(image.piece_bytes) * pieces_per_cell as u64;
        writeln!(out, "  a cell is {}; # here  + partly  > coming  . absent  0 zero", time::bytes(per_cell))?;
    }
    Ok(())
}

/// The map in fewer cells.
fn cells(map: &str, pieces_per_cell: usize) -> Vec<char> {
    map.as_bytes()
        .chunks(pieces_per_cell)
        .map(|pieces| {
            let count = |wanted: u8| pieces.iter().filter(|piece| **piece == wanted).count();
            let (zero, here, coming) = (count(b'z'), count(b'h'), count(b'f'));
            match (zero, here, coming) {
                (zero, ..) if zero == pieces.len() => '0',
                (_, _, 1..) => '>',
                (zero, here, _) if zero + here == pieces.len() => '#',
                (_, 1.., _) => '+',
                _ => '.',
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_the_truth_about_its_pieces() {
        let draw = |map, pieces| cells(map, pieces).iter().collect::<String>();
        assert_eq!(draw("zhf.", 1), "0#>.");
        assert_eq!(draw("zzzhhhh...zf", 2), "0##+.>");
        assert_eq!(draw("", 3), "");
    }

    #[test]
    fn the_picture_tells_bytes_by_source() {
        let image = streamer_api::ImageStatus {
            size_bytes: 4 << 20,
            piece_bytes: 1 << 20,
            pieces: 4,
            bytes: streamer_api::BytesBySource {
                origin: 1 << 20,
                peer: 1 << 20,
                web_seed: 0,
                zero: 1 << 20,
                cache: 0,
            },
            piece_map: Some("hhz.".into()),
            ..streamer_api::ImageStatus::default()
        };
        let boot =
            BootView { image: Some(image), started_ms: Some(0), ready_ms: Some(1500), ..BootView::default() };
        let mut out = Vec::new();
        picture(&mut out, "office/workspace", &boot).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("office/workspace: pending, ready after 1.5 s\n"), "{text}");
        assert!(text.contains("fetched 2.0 MiB of 4.0 MiB (50%)"), "{text}");
        assert!(text.contains("\n  ##0.\n"), "{text}");
    }
}
