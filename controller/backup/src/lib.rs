//! Backups: checkpoints' files in repositories of restic's format, encrypted before they leave the host.
//!
//! It is: make and open a repository, back files up as one snapshot, list, restore, forget, verify. It is not the
//! format, which is [`rustic_core`]'s, and it knows no checkpoint: its files are names and bytes. The format was chosen
//! because a backup that only its maker's program can read is a hostage: Debian's `restic` reads ours and we read its.
//!
//! Start at [`Repository`]; everything blocks and belongs on a thread that may.
//!
//! Invariants:
//! - A snapshot has all files of its backup, read to their ends, or it is not written ([`backend`]).
//! - A repository is readable after a crash, a full storage or a cancelled work at any moment: files appear whole, and
//!   nothing is named before it is there.
//! - Nobody deletes while another one writes, restic included ([`lock`]).
//! - No secret is in an error, a log or a debug text.

mod backend;
mod control;
mod error;
mod location;
mod lock;
mod repository;
mod restore;
mod source;
mod storage;

pub use control::{Control, Progress};
pub use error::Error;
pub use location::{Credentials, Location, Secret};
pub use repository::{Backup, Part, Place, Repository, RestoredFile, Thoroughness};
pub use source::{Content, SourceFile};
