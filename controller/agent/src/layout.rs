//! Where things are in the state and run folders.

use std::path::{Path, PathBuf};
use types::{Digest, InstanceId, VolumeName};
use uuid::Uuid;

/// The folders.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    state: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// Makes the folders.
    pub(crate) fn make(state: &Path, run: &Path) -> std::io::Result<Self> {
        let layout = Self { state: state.to_owned(), run: run.join("health") };
        for folder in [
            layout.instances(),
            layout.volumes(),
            layout.layers(),
            layout.images(),
            layout.components(),
            layout.run.clone(),
        ] {
            std::fs::create_dir_all(folder)?;
        }
        Ok(layout)
    }

    pub(crate) fn state(&self) -> &Path {
        &self.state
    }
    pub(crate) fn desired(&self) -> PathBuf {
        self.state.join("desired.json")
    }
    pub(crate) fn accelerator(&self) -> PathBuf {
        self.state.join("accelerator.json")
    }
    pub(crate) fn limits(&self) -> PathBuf {
        self.state.join("limits.json")
    }
    pub(crate) fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }
    pub(crate) fn instance(&self, incarnation: Uuid) -> PathBuf {
        self.instances().join(incarnation.to_string())
    }
    pub(crate) fn record(&self, incarnation: Uuid) -> PathBuf {
        self.instance(incarnation).join("record.json")
    }
    pub(crate) fn overlay(&self, incarnation: Uuid) -> PathBuf {
        self.instance(incarnation).join("system.qcow2")
    }
    pub(crate) fn config_disk(&self, incarnation: Uuid) -> PathBuf {
        self.instance(incarnation).join("config.img")
    }
    pub(crate) fn console_log(&self, incarnation: Uuid) -> PathBuf {
        self.instance(incarnation).join("console.log")
    }
    pub(crate) fn health_socket(&self, incarnation: Uuid) -> PathBuf {
        self.run.join(format!("{incarnation}.sock"))
    }
    /// Bytes of a disk, while a policy looks at them.
    pub(crate) fn look(&self, incarnation: Uuid) -> PathBuf {
        self.run.join(format!("{incarnation}.look"))
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }
    pub(crate) fn volume(&self, instance: &InstanceId, name: &VolumeName) -> PathBuf {
        self.volumes()
            .join(instance.deployment.as_str())
            .join(instance.member.as_str())
            .join(format!("{name}.raw"))
    }
    /// What policies are compiled to; belongs to their runtime.
    pub(crate) fn compiled(&self) -> PathBuf {
        self.state.join("compiled")
    }
    /// Components of policies.
    pub(crate) fn components(&self) -> PathBuf {
        self.state.join("policies")
    }
    pub(crate) fn component(&self, digest: Digest) -> PathBuf {
        self.components().join(format!("{}.wasm", digest.hex()))
    }
    pub(crate) fn images(&self) -> PathBuf {
        self.state.join("images")
    }
    pub(crate) fn image(&self, digest: Digest) -> PathBuf {
        self.images().join(format!("{}.json", digest.hex()))
    }
}
