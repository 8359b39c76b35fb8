//! A guest moves to another host while somebody downloads from it.

use super::{LEDGER, Ledger};
use crate::observe::host;
use crate::stage::Stage;
use crate::stream::Stream;
use anyhow::Context as _;
use controller_api::moving::MoveProgress;
use std::time::{Duration, Instant};

/// Bytes that prove that the download flows.
const FLOW: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

impl Stage {
    pub(super) async fn moving(&mut self, ledger: &mut Ledger) {
        self.claims.step("collective move, during a download");
        let found = self.move_under_load(ledger).await;
        self.conclude("a running guest moves during a download, which completes", found);
    }

    async fn move_under_load(&mut self, ledger: &mut Ledger) -> anyhow::Result<(bool, String)> {
        self.look_again(ledger).await?;
        let (from, to) = (host(&ledger.desk).to_owned(), self.other_host(&ledger.desk)?);
        let (incarnation, started) = (ledger.desk.incarnation.clone(), ledger.desk.starts);
        let counted = self.one_more(ledger, "desk").await?;
        let stream = Stream::open(&self.playground.switch()?, ledger.pages("desk")?).await?;
        stream.flows(FLOW, PATIENCE).await?;
        let begun = Instant::now();
        self.cli.show(&["move", &format!("{LEDGER}/desk"), "--to", &to]).await?;
        let took = begun.elapsed();
        stream.flows(FLOW, PATIENCE).await?;
        let pause = stream.longest_pause(begun, Instant::now());
        let (bytes, last) = stream.finish(PATIENCE).await?;
        let moves: Vec<MoveProgress> = self.api.get("/v1/moves").await?;
        let moved = moves.into_iter().find(|seen| seen.instance.to_string() == format!("{LEDGER}/desk"));
        let moved = moved.context("nobody knows of the move")?;
        self.look_again(ledger).await?;
        let now = self.one_more(ledger, "desk").await?;
        let memory = ledger.desk.memory.0;
        let overlay = moved.total_bytes.saturating_sub(memory);
        let share = moved.sent_bytes as f64 / (memory + overlay).max(1) as f64;
        self.figures.add(
            "move_silence_ms",
            &[pause.as_secs_f64() * 1e3],
            "ms",
            "longest silence of a download during a live move",
        );
        self.figures.add(
            "move_total_s",
            &[took.as_secs_f64()],
            "s",
            "`collective move` of a 96 MiB guest during a download",
        );
        self.figures.add(
            "move_bytes_vs_memory_and_disks",
            &[share],
            "x",
            "bytes sent / (memory + overlay and volumes as libvirt counts them)",
        );
        Ok((
            host(&ledger.desk) == to
                && ledger.desk.incarnation == incarnation
                && ledger.desk.starts == started
                && now == counted + 1
                && share <= 1.1,
            format!(
                "{from} to {to} in {:.1} s, silent for {} ms; {bytes} bytes up to {last} arrived whole; {} MiB sent, {share:.2} of memory and disks; the same run, the volume's number goes on",
                took.as_secs_f64(),
                pause.as_millis(),
                moved.sent_bytes >> 20
            ),
        ))
    }
}
