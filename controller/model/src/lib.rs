//! The controller's decisions as pure functions: documents to records, records to what each host shall hold.
//!
//! There is no clock, file, socket or randomness in here: what a function needs is handed to it, what it decides it
//! returns. Start at [`apply::apply`] (a request), [`placement::question`] (where), [`desired::desired`] (what each
//! host is told). [`Cluster`] is the picture of the store they all read; [`Draft`] is a change to it in the making.
//!
//! Invariants:
//! - A request is taken wholly or refused with every issue, each at its line and field.
//! - The same cluster gives the same names, addresses and documents; applying again changes nothing.
//! - Default deny: a port's permissions come from access rules and gateways only.
//! - A guest is made anew exactly if something it can see has changed.

mod access;
mod address;
pub mod apply;
pub mod checkpoint;
pub mod cluster;
pub mod config_disk;
pub mod desired;
pub mod diff;
pub mod document;
mod draft;
pub mod expand;
pub mod host;
pub mod interpose;
pub mod lease;
pub mod moving;
pub mod name;
mod network;
pub mod placement;
pub mod policy;
pub mod profiles;
pub mod reach;
pub mod readiness;
pub mod record;
pub mod recovery;
pub mod standing;
pub mod streams;
pub mod update;
pub mod validate;
pub mod wire;
mod yaml;

pub use cluster::Cluster;
pub use draft::Draft;
pub use yaml::{DEPTH_MAX, DOCUMENTS_MAX, NODES_MAX, TEXT_LEN_MAX};
