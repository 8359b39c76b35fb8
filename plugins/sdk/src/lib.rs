//! What a policy author writes against.
//!
//! A policy is a type that implements [`Plugin`] and the trait of its kind ([`PlacementPolicy`], [`UpdatePolicy`],
//! [`CheckpointPolicy`], [`IntrospectionPolicy`]): plain functions over plain values, tested natively with stand-ins
//! made of rows ([`Hosts`], [`Fleet`], [`History`]) and parts ([`Still`]). [`export_placement!`], [`export_update!`],
//! [`export_checkpoint!`] and [`export_introspection!`] turn it into the exports of its world in `collective:policy`
//! when the crate is compiled for wasm32; on any other target they are empty. Start with [`placement`], and with the
//! policy `balanced` as an example.
//!
//! Invariants: nothing in here reads a clock or draws a random number; what a policy does not ask a [`Cluster`],
//! [`Instances`] or [`Checkpoints`] for is never copied into the guest nor imported by it.

pub mod calendar;
pub mod checkpoint;
mod context;
mod export;
pub mod instances;
pub mod introspection;
pub mod placement;
mod still;
pub mod update;

#[cfg(target_arch = "wasm32")]
pub mod guest;

pub use checkpoint::{CheckpointPolicy, Checkpoints, History};
pub use context::{Context, Level, Reason};
pub use instances::{Fleet, Instance, Instances};
pub use introspection::{Guest, IntrospectionPolicy};
pub use placement::{
    Choice, Cluster, Host, Hosts, Placed, PlacementPolicy, Rejection, Request, Row, Verdict,
};
pub use still::Still;
pub use update::UpdatePolicy;

use serde::de::DeserializeOwned;
use std::fmt;

/// What policies of every kind have in common. The functions are pure.
pub trait Plugin {
    /// What the operator may set. `{}` should parse.
    type Settings: DeserializeOwned;

    /// What the policy says about itself.
    fn manifest() -> Manifest;

    /// Judges settings that parsed. Empty: accepted.
    fn check_settings(settings: &Self::Settings) -> Vec<SettingsIssue>;
}

/// What a policy says about itself. The limits are those of `plugin.manifest` in the WIT package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// `[a-z0-9-]`, starting with a letter, at most 63 bytes.
    pub name: &'static str,
    /// Semantic version; usually `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// SPDX expression.
    pub license: &'static str,
    /// JSON Schema 2020-12 of the settings.
    pub settings_schema: &'static str,
    /// Settings used where the operator gives none.
    pub default_settings: &'static str,
}

/// One thing wrong with a settings document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsIssue {
    /// JSON Pointer, empty for the whole document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why a policy has no decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyError {
    /// The request asks for something this policy does not do.
    Unsupported(String),
    /// What was given breaks an assumption of the policy.
    InvalidInput(String),
    /// The settings passed validation but cannot be used now.
    BadSettings(String),
    /// Anything else.
    Internal(String),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(text) => write!(f, "unsupported: {text}"),
            Self::InvalidInput(text) => write!(f, "invalid input: {text}"),
            Self::BadSettings(text) => write!(f, "bad settings: {text}"),
            Self::Internal(text) => write!(f, "internal: {text}"),
        }
    }
}

impl std::error::Error for PolicyError {}

/// Parses a settings document; the error is the one issue that `validate-settings` reports.
///
/// # Errors
/// The text is no JSON, or does not fit `S`.
pub fn parse_settings<S: DeserializeOwned>(text: &str) -> Result<S, SettingsIssue> {
    serde_json::from_str(text)
        .map_err(|error| SettingsIssue { path: String::new(), message: error.to_string() })
}

/// An issue for a ratio that is not in 0.0 ..= `most`, or nothing. `path` is the setting's JSON Pointer.
#[must_use]
pub fn check_number(path: &str, value: f64, most: f64) -> Option<SettingsIssue> {
    // NaN is in no range.
    (!(0.0..=most).contains(&value)).then(|| SettingsIssue {
        path: path.to_owned(),
        message: format!("{value} is out of range: give a number from 0 to {most}"),
    })
}

/// Parses and judges a settings document: what `plugin.validate-settings` answers.
///
/// # Errors
/// The issues, at least one.
pub fn validate_settings<P: Plugin>(text: &str) -> Result<(), Vec<SettingsIssue>> {
    let issues = match parse_settings::<P::Settings>(text) {
        Ok(settings) => P::check_settings(&settings),
        Err(issue) => vec![issue],
    };
    if issues.is_empty() { Ok(()) } else { Err(issues) }
}
