//! How a capture is taken. What may happen is on disk before it happens, and what happened is found out from libvirt and
//! the files after a crash at any point:
//!
//! ```text
//!   record Intended ─> libvirt freezes all disks at once (and memory) ─> links, chains ─> record Taken
//! ```
//!
//! libvirt's snapshot is one transaction, so a running guest's disks have all moved or none. A guest that has ended
//! meanwhile may have written to the new files, and an unwritten one reads as what it stands on: they are taken up
//! either way, and no byte is lost.

use crate::chain::{
    Capture, CaptureId, Chain, DiskError, DiskId, FileId, Freeze, LayerId, Stage, active_after,
};
use crate::disks::{freeze, qcow2_size, remove, settle_file};
use crate::restore::{create_overlay, disks_of};
use crate::work::{WorkError, Works};
use chassis::clock::unix_ms;
use chassis::telemetry::chain;
use controller_api::agent::DesiredInstance;
use controller_api::life::{CapturedDisk, Layer};
use controller_hypervisor::{DomainState, HypervisorError, NewFile, Snapshot, SnapshotTaken};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;
use types::Digest;
use uuid::Uuid;

/// A saved memory that is whole begins so; before, it says so.
const WHOLE_MEMORY: &[u8] = b"LibvirtQemudSave";

/// When a capture was taken, and how long the guest stood.
#[derive(Debug, Clone, Copy)]
struct Moment {
    taken_ms: u64,
    pause_us: u64,
}

impl Works {
    /// Takes a capture. What goes wrong is its durable failure; the guest goes on.
    pub(crate) async fn take_capture(
        &self,
        id: &CaptureId,
        desired: &DesiredInstance,
        with_memory: bool,
        running: bool,
    ) -> Result<(), WorkError> {
        let incarnation: Uuid = desired.incarnation.parse().map_err(|_| WorkError::Incarnation)?;
        if with_memory && !running {
            let reason = "its guest does not run, so it has no memory to save: take it without".to_owned();
            self.fail_capture(id, incarnation, reason);
            return Ok(());
        }
        let mut freezes = Vec::new();
        for name in disks_of(desired) {
            let Some(chain) = self.disks.chain(&DiskId::of(&name, &desired.id, incarnation)) else {
                let reason = format!("its disk {name} is not made yet: let it start once");
                self.fail_capture(id, incarnation, reason);
                return Ok(());
            };
            freezes.push(Freeze { to: active_after(&name, id.checkpoint), disk: name, chain });
        }
        let stage = Stage::Intended { freezes: freezes.clone(), running };
        let intent = Capture::new(incarnation, with_memory, stage);
        if let Err(error) = self.disks.keep_capture(id, intent.clone()) {
            self.fail_capture(id, incarnation, chain(&error).to_string());
            return Ok(());
        }
        if !running {
            return self.freeze_files(id, &intent, &freezes).await;
        }
        match self.snapshot(id, incarnation, &freezes, with_memory).await {
            Ok(taken) => {
                let taken_ms = taken.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                let moment = Moment {
                    taken_ms: u64::try_from(taken_ms).unwrap_or_else(|_| unix_ms()),
                    pause_us: u64::try_from(taken.pause.as_micros()).unwrap_or(u64::MAX),
                };
                self.finish_capture(id, &intent, &freezes, moment)?;
                self.note_captured(incarnation).await;
                Ok(())
            }
            // It may still happen: the next passes find out.
            Err(
                error @ WorkError::Hypervisor(HypervisorError::Timeout(_) | HypervisorError::Down { .. }),
            ) => Err(error),
            Err(error) => {
                let why = chain(&error).to_string();
                self.settle(id, &intent, &freezes, true, why).await
            }
        }
    }

    async fn snapshot(
        &self,
        id: &CaptureId,
        incarnation: Uuid,
        freezes: &[Freeze],
        with_memory: bool,
    ) -> Result<SnapshotTaken, WorkError> {
        let active = self.hypervisor.active_files(incarnation).await?.unwrap_or_default();
        let layout = self.disks.layout();
        let mut disks = Vec::new();
        for one in freezes {
            let disk = DiskId::of(&one.disk, &id.instance, incarnation);
            let path = layout.active(&disk, &one.chain);
            let Some((target, _)) = active.iter().find(|(_, file)| **file == path) else {
                return Err(WorkError::OtherFile { disk: one.disk.clone(), path });
            };
            disks.push(NewFile { target: target.clone(), active: layout.active_file(&disk, &one.to) });
        }
        let memory = with_memory.then(|| layout.memory(id));
        let name = id.checkpoint.to_string();
        Ok(self.hypervisor.snapshot(incarnation, &Snapshot { name, disks, memory }).await?)
    }

    /// Finds out what became of a capture that was under way when this daemon ended.
    pub(crate) async fn settle_capture(&self, id: &CaptureId) -> Result<(), WorkError> {
        let Some(capture) = self.disks.capture(id) else { return Ok(()) };
        let Stage::Intended { freezes, running } = capture.stage.clone() else { return Ok(()) };
        if !running {
            return self.freeze_files(id, &capture, &freezes).await;
        }
        let domains = self.hypervisor.list().await?;
        let alive = domains.iter().any(|domain| {
            let stopped = matches!(domain.state, DomainState::Stopped { .. });
            domain.mark.incarnation == capture.incarnation && !stopped
        });
        let why = "the agent or libvirt was restarted while it was taken".to_owned();
        self.settle(id, &capture, &freezes, alive, why).await
    }

    async fn settle(
        &self,
        id: &CaptureId,
        capture: &Capture,
        freezes: &[Freeze],
        alive: bool,
        why: String,
    ) -> Result<(), WorkError> {
        // It waits for a snapshot that is under way still.
        let active = self.hypervisor.active_files(capture.incarnation).await?.unwrap_or_default();
        let to = |one: &Freeze| {
            let disk = DiskId::of(&one.disk, &id.instance, capture.incarnation);
            self.disks.layout().active_file(&disk, &one.to)
        };
        let moved = |one: &&Freeze| active.values().any(|file| *file == to(one));
        let memory = self.disks.layout().memory(id);
        let whole = !capture.with_memory || starts_with(&memory, WHOLE_MEMORY);
        if freezes.iter().all(|one| moved(&one)) && whole {
            let moment = Moment { taken_ms: changed_ms(freezes.first().map(to)), pause_us: 0 };
            return self.finish_capture(id, capture, freezes, moment);
        }
        // Of a running guest libvirt knows; of another one, a new file that is whole may have been written.
        let taken_up = |one: &&Freeze| moved(one) || (!alive && qcow2_size(&to(one)).is_some());
        for one in freezes {
            if taken_up(&one) {
                self.freeze_disk(id, capture, one)?;
            } else {
                remove(&to(one))?;
            }
        }
        remove(&memory)?;
        self.fail_capture(id, capture.incarnation, why);
        Ok(())
    }

    /// Captures the disks of a guest that does not run. Any part of it that is done already is left as it is.
    async fn freeze_files(
        &self,
        id: &CaptureId,
        capture: &Capture,
        freezes: &[Freeze],
    ) -> Result<(), WorkError> {
        let made = self.make_successors(id, capture, freezes).await;
        if let Err(error) = made {
            // The links read as what they link to, and nothing stands on them.
            self.fail_capture(id, capture.incarnation, chain(&error).to_string());
            return Ok(());
        }
        let incarnation = capture.incarnation;
        self.finish_capture(id, capture, freezes, Moment { taken_ms: unix_ms(), pause_us: 0 })?;
        self.note_captured(incarnation).await;
        Ok(())
    }

    async fn make_successors(
        &self,
        id: &CaptureId,
        capture: &Capture,
        freezes: &[Freeze],
    ) -> Result<(), DiskError> {
        let layout = self.disks.layout();
        for one in freezes {
            let disk = DiskId::of(&one.disk, &id.instance, capture.incarnation);
            let to = layout.active_file(&disk, &one.to);
            if to.exists() {
                continue;
            }
            let layer = layout.layer(&layer_id(id, one), one.chain.format);
            freeze(&layout.active(&disk, &one.chain), &layer)?;
            let backing = (layer.to_string_lossy().into_owned(), one.chain.format);
            create_overlay(&to, backing, one.chain.disk_bytes).await?;
        }
        Ok(())
    }

    /// The disks have moved: their chains say so from now on, and then the capture.
    fn finish_capture(
        &self,
        id: &CaptureId,
        capture: &Capture,
        freezes: &[Freeze],
        moment: Moment,
    ) -> Result<(), WorkError> {
        let (mut disks, mut new_bytes) = (Vec::new(), 0);
        for one in freezes {
            let (chain, taken) = self.freeze_disk(id, capture, one)?;
            disks.push(CapturedDisk { disk: one.disk.clone(), layers: chain.layers });
            new_bytes += taken;
        }
        let memory = match capture.with_memory {
            true => Some(settle_file(&self.disks.layout().memory(id))?),
            false => None,
        };
        new_bytes += memory.map_or(0, |(_, taken)| taken);
        let Moment { taken_ms, pause_us } = moment;
        let memory_bytes = memory.map(|(bytes, _)| bytes);
        let stage = Stage::Taken;
        let taken = Capture { stage, taken_ms, pause_us, disks, memory_bytes, new_bytes, ..capture.clone() };
        self.disks.keep_capture(id, taken)?;
        tracing::info!(%id, pause_us, new_bytes, "captured");
        Ok(())
    }

    /// Makes a disk's former active file a layer of its chain; done already is fine. Tells the bytes that it takes.
    fn freeze_disk(
        &self,
        id: &CaptureId,
        capture: &Capture,
        one: &Freeze,
    ) -> Result<(Chain, u64), DiskError> {
        let layout = self.disks.layout();
        let disk = DiskId::of(&one.disk, &id.instance, capture.incarnation);
        let path = layout.layer(&layer_id(id, one), one.chain.format);
        let (file_bytes, taken) = freeze(&layout.active(&disk, &one.chain), &path)?;
        let layer = Layer {
            checkpoint: id.checkpoint.to_string(),
            instance: id.instance.clone(),
            disk: one.disk.clone(),
            format: one.chain.format,
            file_bytes,
            disk_bytes: one.chain.disk_bytes,
            image: None,
        };
        let chain = one.chain.frozen(layer, one.to.clone());
        if self.disks.chain(&disk).as_ref() != Some(&chain) {
            self.disks.keep_chain(&disk, chain.clone())?;
        }
        Ok((chain, taken))
    }

    /// Keeps that a capture counts for nothing, and why. What it may have frozen stays in the chains.
    pub(crate) fn give_up_capture(&self, id: &CaptureId, reason: String) {
        let incarnation = self.disks.capture(id).map_or(Uuid::nil(), |capture| capture.incarnation);
        self.fail_capture(id, incarnation, reason);
    }

    /// Keeps that a capture was not taken, and why.
    fn fail_capture(&self, id: &CaptureId, incarnation: Uuid, reason: String) {
        tracing::warn!(%id, reason, "not captured");
        self.disks.note_capture(id, Capture::new(incarnation, false, Stage::Failed { reason }));
    }

    /// Removes a frozen file that nothing stands on, and what the streamer has of it.
    pub(crate) async fn drop_file(&self, file: &FileId, image: Option<Digest>) -> Result<(), WorkError> {
        if let Some(image) = image {
            self.unpublish(image).await?;
        }
        self.disks.remove_file(file)?;
        tracing::debug!(?file, "a frozen file that nothing stands on is removed");
        Ok(())
    }
}

fn layer_id(id: &CaptureId, one: &Freeze) -> LayerId {
    LayerId { checkpoint: id.checkpoint, instance: id.instance.clone(), disk: one.disk.clone() }
}

fn starts_with(path: &PathBuf, magic: &[u8]) -> bool {
    use std::io::Read as _;
    let mut head = vec![0; magic.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == magic
}

/// When a file that is new came to be.
fn changed_ms(path: Option<PathBuf>) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let meta = path.and_then(|path| std::fs::metadata(path).ok());
    let created = meta.as_ref().and_then(|meta| meta.created().ok());
    let created = created.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    match (created, meta) {
        (Some(at), _) => u64::try_from(at.as_millis()).unwrap_or_else(|_| unix_ms()),
        (None, Some(meta)) => u64::try_from(meta.mtime()).unwrap_or(0) * 1_000,
        (None, None) => unix_ms(),
    }
}
