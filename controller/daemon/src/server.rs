//! Start and end of a controller.

use crate::api;
use crate::app::{App, Parts};
use crate::auth;
use crate::config::Config;
use crate::identity::{Authority, IdentityError};
use crate::install::{self, Delivery, Place, Voucher};
use crate::ledger::{Act, Ledger, OpenError, Who, Writes};
use crate::library::Library;
use crate::live::Live;
use crate::policies::Policies;
use crate::problem::Answer;
use crate::reconcile::Reconcile;
use crate::recovery::Leases;
use crate::subscriptions::{self, Turns};
use crate::tracker::Tracker;
use controller_api::policy::PolicyOrigin;
use controller_model::record;
use controller_store::{BackendError, Redb, Store};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use types::PolicyName;

/// Policies that come with the controller.
const FIRST_PARTY: [&str; 6] = ["balanced", "gfs", "linux-integrity", "packed", "tripwire", "waves"];
const ADMIN: &str = "admin";
/// Longest time agents' and consoles' connections may take to end, once all answers are finished.
const SESSIONS_DRAIN: Duration = Duration::from_millis(500);

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder or file of the state cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The store's file.
    #[error(transparent)]
    Store(#[from] BackendError),
    /// The store's content.
    #[error("cannot read the state")]
    State(#[from] OpenError),
    /// The policies' runtime.
    #[error("cannot start the policies' runtime")]
    Policies(#[from] plugins_runtime::StartError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The first records cannot be written.
    #[error("cannot write the first records: {0}")]
    First(String),
}

/// A controller that is ready to serve.
#[derive(Debug)]
pub struct Server {
    app: App,
    tls: ServerConfig,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Opens or makes the state, listens, and installs the first policies.
    ///
    /// # Errors
    /// [`StartError`] says which part and what to do.
    pub async fn bind(config: &Config, shutdown: CancellationToken) -> Result<Self, StartError> {
        let state_dir = &config.state_dir;
        for folder in [
            state_dir.clone(),
            state_dir.join("images"),
            state_dir.join("policies"),
            state_dir.join("profiles"),
            state_dir.join("subscriptions"),
        ] {
            make_folder(&folder)?;
        }
        let authority = Authority::open(state_dir, &config.public_names)?;
        let tls = authority.server_config()?;
        let store = Redb::open(&state_dir.join("store.redb")).and_then(Store::new)?;
        let ledger = Ledger::open(store)?;
        let policies = Arc::new(Policies::open(state_dir)?);
        let failed = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App::new(Parts {
            ledger,
            live: Live::default(),
            leases: Leases::default(),
            authority,
            policies,
            tracker: Mutex::new(Tracker::default()),
            tracker_url: config.tracker(address.port()),
            moves_max: config.moves_max.max(1),
            public_url: config.public_url(address.port()),
            turns: Turns::default(),
            state_dir: state_dir.clone(),
            library: Library::new(state_dir),
            filing: tokio::sync::Mutex::default(),
            shutdown,
            sessions: TaskTracker::new(),
            hint: OnceLock::new(),
        });
        admin_token(&app).await?;
        first_policies(&app, &config.policies).await;
        Ok(Self { app, tls, listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the shutdown, then drains.
    pub async fn run(self) {
        let Self { app, tls, listener, .. } = self;
        let shutdown = app.shutdown.clone();
        let handle = chassis::reconcile::spawn(Reconcile { app: app.clone() }, shutdown.clone());
        // It is set once, here.
        let _ = app.hint.set(handle.hint());
        let sessions = app.sessions.clone();
        sessions.spawn(subscriptions::run(app.clone()));
        chassis::tls::serve(listener, tls, api::router(app), shutdown).await;
        let _ = handle.task.await;
        sessions.close();
        let _ = tokio::time::timeout(SESSIONS_DRAIN, sessions.wait()).await;
    }
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| StartError::File { path: path.to_owned(), source })
}

fn refused(refused: &crate::problem::Refused) -> StartError {
    StartError::First(refused.0.message.clone())
}

/// The first administrator's token stands in a file that only we can read. The file comes first: a crash between the
/// two is repaired by the next start.
async fn admin_token(app: &App) -> Result<(), StartError> {
    if app.ledger.cluster().tokens.contains_key(ADMIN) {
        return Ok(());
    }
    let path = app.state_dir.join("admin.token");
    let failed = |source| StartError::File { path: path.clone(), source };
    let secret = match std::fs::read_to_string(&path) {
        Ok(token) => auth::api_token_digest(token.trim()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let (token, secret) = auth::api_token(ADMIN);
            chassis::durable::write(&path, format!("{token}\n").as_bytes(), 0o600).map_err(failed)?;
            Some(secret)
        }
        Err(error) => return Err(failed(error)),
    };
    let secret =
        secret.ok_or_else(|| StartError::First(format!("{} holds no token: remove it", path.display())))?;
    let token =
        record::Token { secret, name: "first administrator".into(), role: "admin".into(), expires_ms: None };
    let act = Act { who: &Who::Controller, action: "token-create", object: format!("token/{ADMIN}") };
    let made: Answer<_> = app
        .ledger
        .change(&act, |_| {
            let mut writes = Writes::default();
            writes.put(format!("tokens/{ADMIN}"), &token);
            Ok((writes, ()))
        })
        .await;
    made.map(drop).map_err(|error| refused(&error))
}

/// The package's policies: installed if they are missing, upgraded if the package brings one that this policy never was.
/// One that is missing in the package or broken is said so and does not keep the controller from starting.
async fn first_policies(app: &App, folder: &Path) {
    app.policies.sweep(&app.ledger.cluster());
    for name in FIRST_PARTY {
        let Ok(name) = name.parse::<PolicyName>() else { continue };
        let held = app.ledger.cluster().policies.get(&name).map(|held| held.value.clone());
        // What somebody else vouches for was chosen by the operator.
        if held.as_ref().is_some_and(|held| matches!(held.active.origin, PolicyOrigin::Signed { .. })) {
            continue;
        }
        let path = folder.join(format!("{name}.wasm"));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if held.is_some() => {
                tracing::debug!(policy = %name, path = %path.display(), %error, "no newer first-party policy");
                continue;
            }
            Err(error) => {
                tracing::warn!(policy = %name, path = %path.display(), %error, "no first-party policy installed");
                continue;
            }
        };
        let digest = controller_model::name::digest(&bytes);
        let known = |held: &record::Policy| {
            held.left == Some(digest) || held.releases().any(|release| release.digest == digest)
        };
        if held.as_ref().is_some_and(known) {
            continue;
        }
        let act = Act { who: &Who::Controller, action: "policy-install", object: format!("policy/{name}") };
        let delivery =
            Delivery { bytes: bytes.into(), voucher: Voucher::BuiltIn, settings: None, place: Place::Active };
        match install::take_in(app, &act, &name, delivery).await {
            Ok(view) => {
                let release = view.active;
                tracing::info!(policy = %name, version = release.version, digest = %release.digest, "policy installed")
            }
            Err(error) => tracing::warn!(policy = %name, problem = error.0.message, "policy not installed"),
        }
    }
}
