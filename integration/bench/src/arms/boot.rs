//! Real guests: streamed with a profile, without, with a wrong one; and from a complete local disk.

use crate::figures::{Figures, median, ratios};
use crate::guest::{Backing, Guest};
use crate::lab::{Lab, Origin, float, median_s, present, seconds};
use crate::network::{Host, Rate, shape_note};
use crate::profile::{self, Touches};
use crate::{replay, say};
use anyhow::Context as _;
use std::path::Path;
use std::time::{Duration, Instant};
use streamer_api::{ImageStatus, Prefetch, Profile};

/// Boots the profile is made of.
const RECORDING_BOOTS: usize = 2;
/// Of images up to 32 GiB.
const PIECE_BYTES: u64 = 256 * 1024;
const FAST: Rate = Rate::mbit(1000);
pub(crate) const SLOW: Rate = Rate::mbit(100);

/// What a streamed boot was like.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) took: Duration,
    status: ImageStatus,
    touches: Option<Touches>,
}

/// An origin, a host, and a profile that was recorded there.
pub(crate) struct Scene {
    pub(crate) origin: Origin,
    host: Host,
    /// Merged from recorded runs.
    pub(crate) profile: Profile,
    /// Where the profile comes from.
    pub(crate) provenance: &'static str,
    /// Pieces that are not zero.
    present: Vec<u32>,
}

impl Scene {
    /// Publishes, and records boots without a profile.
    pub(crate) async fn new(lab: &Lab, origin: Origin) -> anyhow::Result<Self> {
        let host = lab.switch.plug()?;
        let mut scene =
            Self { origin, host, profile: Profile::default(), provenance: "", present: Vec::new() };
        let mut runs = Vec::new();
        for number in 1..=RECORDING_BOOTS {
            let boot = scene.boot(lab, FAST, &[]).await?;
            say(&format!("recording boot {number}: {:.2} s", boot.took.as_secs_f64()));
            scene.present = present(&boot.status);
            runs.extend(boot.touches);
        }
        scene.provenance = "of two earlier boots, recorded by the streamer";
        if runs.is_empty() {
            scene.provenance = "of four recorded local boots: the streamer kept no runs";
            let touched = |trace: &replay::Trace| {
                let touched = trace.touched(PIECE_BYTES);
                touched
                    .into_iter()
                    .map(|(piece, at)| (piece, u32::try_from(at.as_millis()).unwrap_or(u32::MAX)))
                    .collect()
            };
            runs = replay::recorded()?.iter().map(touched).collect();
            for run in &mut runs {
                run.retain(|(piece, _)| scene.present.binary_search(piece).is_ok());
            }
        }
        scene.profile = profile::merge("boot", &runs);
        say(&format!("the profile has {} pieces {}", scene.profile.entries.len(), scene.provenance));
        Ok(scene)
    }

    /// Bytes of the profile's pieces.
    fn touched_bytes(&self) -> u64 {
        PIECE_BYTES * u64::try_from(self.profile.entries.len()).unwrap_or(u64::MAX)
    }

    /// One boot on a host that has nothing of the image. The clock starts when the image is named.
    pub(crate) async fn boot(&self, lab: &Lab, rate: Rate, profiles: &[Profile]) -> anyhow::Result<Boot> {
        lab.switch.shape(&self.host, rate)?;
        lab.switch.shape(&self.origin.host, rate)?;
        let streamer = lab.streamer(&self.host, "host").await?;
        let published = &self.origin.published;
        let guest = Guest::prepare(lab.memory.path(), published.size_bytes)?;
        let source = self.origin.source(Prefetch::Off, profiles);
        let backing = Backing::Nbd { socket: streamer.nbd(), export: published.digest.hex() };
        let since = Instant::now();
        streamer.put(published, &source).await?;
        let took = guest.boot(&backing, since).await?;
        let status = streamer.status(published).await?;
        // Daemons that record no runs answer with an error.
        let runs = streamer.client.runs(published.digest).await.unwrap_or_default();
        let touches = runs.iter().map(profile::touches_of).max_by_key(Vec::len).filter(|run| !run.is_empty());
        Ok(Boot { took, status, touches })
    }
}

/// One boot from a complete file, through the same kind of overlay.
pub(crate) async fn boot_local(lab: &Lab, image: &Path) -> anyhow::Result<Duration> {
    let guest = Guest::prepare(lab.memory.path(), std::fs::metadata(image)?.len())?;
    guest.boot(&Backing::File(image.to_owned()), Instant::now()).await
}

fn tell(round: usize, arm: &str, boot: &Boot) {
    let bytes = &boot.status.bytes;
    say(&format!(
        "round {}: {arm}: {:.2} s, {} stalls of {} ms in all, {:.1} MB fetched",
        round + 1,
        boot.took.as_secs_f64(),
        boot.status.stalls.count,
        boot.status.stalls.total_ms,
        float(bytes.origin + bytes.peer + bytes.web_seed) / 1e6,
    ));
}

/// `boot_vs_local_100m` and `boot_vs_local_1g`.
pub(crate) async fn against_local(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = lab.workspace()?;
    let scene = Scene::new(lab, lab.origin(&image, lab.memory.path()).await?).await?;
    let profiles = [scene.profile.clone()];
    let (mut local, mut slow, mut fast, mut without) = (vec![], vec![], vec![], vec![]);
    for round in 0..lab.rounds {
        local.push(boot_local(lab, &image).await.context("the local boot")?);
        say(&format!("round {}: local: {:.2} s", round + 1, local[round].as_secs_f64()));
        for (rate, arm, profiles, times) in [
            (SLOW, "100 Mbit/s, profile", &profiles[..], &mut slow),
            (FAST, "1 Gbit/s, profile", &profiles[..], &mut fast),
            (SLOW, "100 Mbit/s, no profile", &[], &mut without),
        ] {
            let boot = scene.boot(lab, rate, profiles).await.context(arm)?;
            tell(round, arm, &boot);
            times.push(boot.took);
        }
    }
    let (local, without) = (seconds(&local), seconds(&without));
    for (name, rate, times) in
        [("boot_vs_local_100m", SLOW, seconds(&slow)), ("boot_vs_local_1g", FAST, seconds(&fast))]
    {
        let link = rate.seconds(scene.touched_bytes());
        let bounds: Vec<f64> = local.iter().map(|local| local.max(link)).collect();
        let note = format!(
            "streamed boot with a profile {}, profile {}; ÷ the longer of local boot {} and link bound {link:.2} s ({} pieces \
             of 256 KiB); real guests (QEMU TCG, workspace appliance, until it says ready); clock from naming the image on \
             a host without a byte; local: the complete raw file in the page cache below the same kind of overlay; {}; \
             without a profile at 100 Mbit/s: {}",
            median_s(&times),
            scene.provenance,
            median_s(&local),
            scene.profile.entries.len(),
            shape_note(rate),
            median_s(&without),
        );
        figures.add(name, median(&times) / median(&bounds), &ratios(&times, &bounds), &note);
    }
    Ok(())
}

/// `wrong_profile_vs_none`.
pub(crate) async fn wrong_profile(lab: &Lab, figures: &mut Figures) -> anyhow::Result<()> {
    let image = lab.workspace()?;
    let scene = Scene::new(lab, lab.origin(&image, lab.memory.path()).await?).await?;
    let wrong = [profile::wrong(&scene.profile, &scene.present)];
    let (mut misled, mut without) = (vec![], vec![]);
    for round in 0..lab.rounds {
        let mut arms = [("wrong profile", &wrong[..], &mut misled), ("no profile", &[], &mut without)];
        // Neither is always the first of a round.
        if round % 2 == 1 {
            arms.reverse();
        }
        for (arm, profiles, times) in arms {
            let boot = scene.boot(lab, SLOW, profiles).await.context(arm)?;
            tell(round, arm, &boot);
            times.push(boot.took);
        }
    }
    let (misled, without) = (seconds(&misled), seconds(&without));
    let note = format!(
        "streamed boot with a profile of {} pieces that the boot never reads {} ÷ without any {}; real guests (QEMU TCG, \
         workspace appliance); {}",
        wrong[0].entries.len(),
        median_s(&misled),
        median_s(&without),
        shape_note(SLOW),
    );
    figures.add(
        "wrong_profile_vs_none",
        median(&misled) / median(&without),
        &ratios(&misled, &without),
        &note,
    );
    Ok(())
}
