//! Publishers' repositories that are followed: looked at in turn, each by its own task, apart from the loop that places
//! and expands, for a web server far away may take its time.
//!
//! What a look finds is judged by `controller-publisher` (TUF), then by the same checks as a direct publish, and goes into
//! the catalogue in one transaction or not at all. Whatever goes wrong, what is in the catalogue stays and runs on.

mod bytes;
mod take;

pub(crate) use bytes::bytes;

use crate::app::App;
use crate::ledger::Writes;
use crate::problem::{Answer, Refused};
use chassis::clock::unix_ms;
use controller_api::subscription::{RepositorySource, SubscriptionState, SubscriptionView};
use controller_model::{Cluster, record};
use controller_publisher::{Images, LoadError, Source};
use rand::Rng as _;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use types::{Digest, PublisherName};

/// First look after a start, at the latest.
const FIRST_MS_MAX: u64 = 30_000;
/// Longest pause after a look that failed.
const RETRY_MS_MAX: u64 = 300_000;
/// Scheme of an image that a subscription's repository carries.
const SCHEME: &str = "publisher://";

/// Whose turn is when. Not stored: after a start everybody's is soon.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    due: Mutex<BTreeMap<PublisherName, u64>>,
    /// One look at a repository at a time.
    looks: Mutex<BTreeMap<PublisherName, Arc<tokio::sync::Mutex<()>>>>,
    changed: Notify,
}

impl Turns {
    pub(crate) fn look(&self, name: &PublisherName) -> Arc<tokio::sync::Mutex<()>> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(looks.entry(name.clone()).or_default())
    }

    fn set(&self, name: &PublisherName, at_ms: u64) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), at_ms);
        self.changed.notify_one();
    }

    /// Those whose turn it is, and how long until the next one's.
    fn due(&self, cluster: &Cluster, now_ms: u64) -> (Vec<PublisherName>, Option<Duration>) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.retain(|name, _| cluster.subscriptions.contains_key(name));
        for (name, held) in &cluster.subscriptions {
            let first = || now_ms + rand::rng().random_range(0..=FIRST_MS_MAX.min(held.interval_ms));
            due.entry(name.clone()).or_insert_with(first);
        }
        let now = due.iter().filter(|(_, at_ms)| **at_ms <= now_ms).map(|(name, _)| name.clone()).collect();
        let next = due.values().filter(|at_ms| **at_ms > now_ms).min();
        (now, next.map(|at_ms| Duration::from_millis(at_ms - now_ms)))
    }
}

/// Looks whenever somebody's turn has come, until the shutdown.
pub(crate) async fn run(app: App) {
    let mut revisions = app.ledger.follow();
    loop {
        let cluster = app.ledger.cluster();
        let (names, next) = app.turns.due(&cluster, unix_ms());
        for name in names {
            let Some(held) = cluster.subscriptions.get(&name) else { continue };
            // It sets it anew when it is done.
            app.turns.set(&name, unix_ms() + held.interval_ms);
            let (ours, shutdown) = (app.clone(), app.shutdown.clone());
            app.sessions.spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    looked = refresh(&ours, &name) => {
                        if let Err(refused) = looked {
                            tracing::warn!(publisher = %name, problem = refused.0.message, "subscription not looked at");
                        }
                    }
                }
            });
        }
        let known = cluster.subscriptions.len();
        let pause = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        // A subscription more or less: that is what changes whose turn it is.
        let other = async {
            while app.ledger.cluster().subscriptions.len() == known {
                if revisions.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = pause => {}
            () = other => {}
            () = app.turns.changed.notified() => {}
        }
    }
}

/// Where what was seen of a repository is remembered.
pub(crate) fn memory(app: &App, name: &PublisherName) -> PathBuf {
    app.state_dir.join("subscriptions").join(format!("{name}.json"))
}

pub(crate) fn source(source: &RepositorySource) -> Source {
    match source {
        RepositorySource::Web { url, ca } => Source::Web { url: url.clone(), ca: ca.clone() },
        RepositorySource::Folder { path } => Source::Folder { path: path.into() },
    }
}

/// Looks at one, and writes down what came of it.
///
/// # Errors
/// There is no such subscription, or the store fails. A repository that fails is no error: it is its state.
pub(crate) async fn refresh(app: &App, name: &PublisherName) -> Answer<()> {
    let look = app.turns.look(name);
    let _turn = look.lock().await;
    let held = app.ledger.cluster().subscriptions.get(name).map(|held| held.value.clone());
    let held = held.ok_or_else(|| Refused::not_found(format!("there is no subscription to {name}")))?;
    let (state, problem, more) = match take::take_in(app, name, &held).await {
        Ok(more) => (SubscriptionState::Current, None, more),
        Err(LoadError::Expired(role)) => {
            (SubscriptionState::Frozen, Some(LoadError::Expired(role).to_string()), false)
        }
        Err(error) => (SubscriptionState::Failing, Some(error.to_string()), false),
    };
    let pause_ms = match state {
        _ if more => 0,
        SubscriptionState::Current => held.interval_ms,
        SubscriptionState::Failing | SubscriptionState::Frozen => held.interval_ms.min(RETRY_MS_MAX),
    };
    // A tenth more or less, so that all controllers do not come at once.
    let jittered = pause_ms - pause_ms / 10 + rand::rng().random_range(0..=pause_ms / 5);
    app.turns.set(name, unix_ms() + jittered);
    if state == SubscriptionState::Current { Ok(()) } else { fail(app, name, state, problem).await }
}

async fn fail(
    app: &App,
    name: &PublisherName,
    state: SubscriptionState,
    problem: Option<String>,
) -> Answer<()> {
    app.ledger
        .record(|cluster| {
            let mut writes = Writes::default();
            let Some(held) = cluster.subscriptions.get(name) else { return Ok(writes) };
            let mut now = held.value.clone();
            if now.state != state {
                (now.state, now.since_ms) = (state, unix_ms());
                let reason = if state == SubscriptionState::Frozen {
                    "subscription-frozen"
                } else {
                    "subscription-failing"
                };
                writes.event(format!("subscription/{name}"), reason, problem.clone().unwrap_or_default());
            }
            now.problem = problem;
            if now != held.value {
                writes.put(format!("subscriptions/{name}"), &now);
            }
            Ok(writes)
        })
        .await
        .map(drop)
}

/// As it stands now: metadata that has expired since the last look is so without another one.
pub(crate) fn view(cluster: &Cluster, name: &PublisherName, now_ms: u64) -> Option<SubscriptionView> {
    let held = &cluster.subscriptions.get(name)?.value;
    let expired = held.state == SubscriptionState::Current && held.expires_ms <= now_ms;
    let (state, since_ms) =
        if expired { (SubscriptionState::Frozen, held.expires_ms) } else { (held.state, held.since_ms) };
    Some(SubscriptionView {
        publisher: name.clone(),
        source: held.source.clone(),
        state,
        since_ms,
        problem: held.problem.clone().or_else(|| {
            expired.then(|| "the metadata has expired and was not renewed since the last look".to_owned())
        }),
        refreshed_ms: held.refreshed_ms,
        expires_ms: held.expires_ms,
        root_version: held.root_version,
        interval_s: held.interval_ms / 1_000,
        versions: cluster.versions.keys().filter(|(appliance, _)| appliance.publisher == *name).count(),
    })
}

/// What stands in an image's record if a subscription's repository carries it.
pub(crate) fn carried_by(name: &PublisherName) -> String {
    format!("{SCHEME}{name}")
}

/// The web seed as hosts are told it: what repositories carry comes by the controller, whose certificate they trust.
pub(crate) fn web_seed(app: &App, image: &Digest, record: &record::Image) -> Option<String> {
    match &record.web_seed {
        Some(url) if url.starts_with(SCHEME) => {
            let carried = images(app, record).is_some();
            carried.then(|| format!("{}/agent/v1/images/{image}/bytes", app.public_url))
        }
        other => other.clone(),
    }
}

/// The repository that carries an image, while it is subscribed to.
pub(crate) fn images(app: &App, record: &record::Image) -> Option<Images> {
    let name: PublisherName = record.web_seed.as_deref()?.strip_prefix(SCHEME)?.parse().ok()?;
    let held = app.ledger.cluster().subscriptions.get(&name)?.value.clone();
    Images::new(&source(&held.source)).ok()
}
