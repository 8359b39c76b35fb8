//! `collectived` decides what should exist, and is the only one people talk to.
//!
//! It is wiring: documents become records by `controller-model`, records are kept by `controller-store`, where an
//! instance goes is said by a policy in `plugins-runtime`. It knows no libvirt and no bridge, and needs no privilege.
//! Start at [`Server::bind`]; then `ledger` (the one door to the store), `reconcile` (the loop), `agents` (the hosts),
//! `api` (the people).
//!
//! Invariants:
//! - Every change is one transaction with its audit entry; what was answered is on disk.
//! - The picture in memory follows the store; requests read the picture and never wait for the disk.
//! - Nothing from a member is taken without the certificate it was given, nothing from people without a token.

mod agents;
mod api;
mod app;
mod auth;
mod checkpoints;
pub mod config;
mod dashboard;
mod decide;
mod hardware;
mod health;
mod http;
mod identity;
mod install;
mod ledger;
mod library;
mod live;
mod metainfo;
mod moves;
mod moving;
mod networks;
mod planned;
mod policies;
mod problem;
mod questions;
mod reconcile;
mod recovery;
mod server;
mod settings;
mod shadow;
mod subscriptions;
mod tracker;
mod updates;
mod views;

pub use api::openapi;
pub use server::{Server, StartError};
