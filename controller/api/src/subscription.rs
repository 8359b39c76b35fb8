//! Publishers' repositories that a controller follows.

use serde::{Deserialize, Serialize};
use types::{Base64, PublisherName};
use utoipa::ToSchema;

/// Shortest and longest pause between two looks, in seconds.
pub const INTERVAL_S: std::ops::RangeInclusive<u64> = 60..=86_400;
/// The pause if nothing is said, in seconds.
pub const INTERVAL_S_DEFAULT: u64 = 3_600;

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum RepositorySource {
    /// On a web server.
    Web {
        /// Of the folder that holds `metadata` and `targets`, `https://...`.
        url: String,
        /// Certificates (PEM) of the authority of its certificate; absent: those the controller's machine trusts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
    /// In a folder of the controller's machine: a stick, a share.
    Folder {
        /// Absolute.
        path: String,
    },
}

/// Follow a publisher's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// Where it is.
    pub source: RepositorySource,
    /// A `root.json` of it, got by another way than the repository: all trust begins here.
    pub root: Base64,
    /// Seconds between two looks, [`INTERVAL_S`]; [`INTERVAL_S_DEFAULT`] if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_s: Option<u64>,
}

/// How a subscription stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// What it offers is in the catalogue.
    #[default]
    Current,
    /// It cannot be reached or is not believed. Nothing of it is taken; what is here stays.
    Failing,
    /// Its metadata has expired: either it was not renewed, or somebody hides what is newer. Nothing of it is taken.
    Frozen,
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionView {
    /// Whose repository.
    pub publisher: PublisherName,
    /// Where it is.
    pub source: RepositorySource,
    /// How it stands.
    pub state: SubscriptionState,
    /// Since when, milliseconds since 1970 UTC.
    pub since_ms: u64,
    /// Why it is not current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was last believed, milliseconds since 1970 UTC.
    pub refreshed_ms: u64,
    /// When its metadata expires unless the publisher renews it, milliseconds since 1970 UTC.
    pub expires_ms: u64,
    /// Version of the root that is trusted by now.
    pub root_version: u64,
    /// Seconds between two looks.
    pub interval_s: u64,
    /// Versions of it in the catalogue.
    pub versions: usize,
}
