//! Routers: namespaces, what is in them, and the servers that run there.
//!
//! A namespace is entered by a thread that does one thing there and ends: the network namespace is a thread's property,
//! and the threads of the runtime must never leave theirs. What is kept of a router is in a folder of its own in netd's
//! state folder:
//!
//! | file | what |
//! |---|---|
//! | `rules.nft` | the rules last loaded; with what the kernel lists they make the seal in the table |
//! | `DIGEST.conf` | the configuration of the servers that run |
//! | `pid`, `leases` | the servers' own |
//!
//! # Whose a namespace is
//!
//! Its loopback carries netd's group and, as its alias, the state folder of the netd that made it: from before it had a
//! name until its end. Two netds on one machine never touch each other's.
//!
//! # Why a dnsmasq a router
//!
//! It serves leases, names and advertisements of both versions of IP, and knows the corners of thirty years of clients.
//! It puts itself into the background and outlives netd, which knows it again by its command line and its namespace.

mod firewall;
mod inside;
mod namespace;
mod server;

use crate::{Kernel, RouteError};
use netd_plan::{ObservedNamespace, ObservedRouter, RouterStep, namespace_name, router_of_namespace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::{fs, io};

/// Where routers are kept.
#[derive(Debug, Clone)]
pub struct RouterFolders {
    /// Of the namespaces' names: `/run/netns` for `ip netns`.
    pub namespaces: PathBuf,
    /// Of netd's own state; it is also the mark of whose a namespace is.
    pub state: PathBuf,
}

/// Why something about a router could not be done or read.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// There is no place for routers.
    #[error("netd was not told where namespaces are kept; set namespace_dir in its configuration")]
    NoFolders,
    /// A file or folder.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A namespace cannot be made or entered.
    #[error("cannot {what} namespace {}", path.display())]
    Namespace {
        /// Make, enter or remove.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not this netd's.
    #[error("namespace {} carries no mark of this netd", .0.display())]
    NotOurs(PathBuf),
    /// It has no rules yet.
    #[error("the rules inside of namespace {} are not in force, so it gets no links", .0.display())]
    Unruled(PathBuf),
    /// The kernel refused something inside.
    #[error("cannot {what} inside")]
    Inside {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: RouteError,
    },
    /// A link is not there.
    #[error("there is no link {0} inside")]
    NoLink(&'static str),
    /// A program cannot be run.
    #[error("cannot run {program}; install the package {package}")]
    Run {
        /// Which.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program does not end.
    #[error("{0} did not end in time")]
    Timeout(&'static str),
    /// A program refused.
    #[error("{program} refused: {words}")]
    Refused {
        /// Which.
        program: &'static str,
        /// Its words.
        words: String,
    },
}

impl RouterFolders {
    fn namespace(&self, router: &str) -> PathBuf {
        self.namespaces.join(namespace_name(router))
    }

    fn all(&self) -> PathBuf {
        self.state.join("routers")
    }

    fn files(&self, router: &str) -> PathBuf {
        self.all().join(router)
    }

    /// Routers of which there is anything.
    fn names(&self) -> Result<BTreeSet<String>, RouterError> {
        let namespaces = entries(&self.namespaces)?;
        let mut names: BTreeSet<String> =
            namespaces.iter().filter_map(|name| router_of_namespace(name)).map(str::to_owned).collect();
        names.extend(entries(&self.all())?);
        Ok(names)
    }
}

fn entries(folder: &Path) -> Result<Vec<String>, RouterError> {
    let fail = |source| RouterError::File { path: folder.to_owned(), source };
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let names: Result<Vec<_>, _> = list.map(|entry| entry.map(|e| e.file_name())).collect();
    Ok(names.map_err(fail)?.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> RouterError {
    move |source| RouterError::File { path: path.to_owned(), source }
}

impl Kernel {
    /// Keeps routers in these folders. Without, there are none.
    #[must_use]
    pub fn with_routers(mut self, folders: RouterFolders) -> Self {
        // Servers are known again by the words they were started with, whatever folder netd is started in.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let RouterFolders { namespaces, state } = folders;
        let folders = RouterFolders { namespaces: absolute(namespaces), state: absolute(state) };
        self.routers = Some(folders.into());
        self
    }

    /// Waits until a server dies that was last seen running. Cancel-safe.
    pub async fn server_died(&self) {
        loop {
            tokio::time::sleep(server::LOOK_INTERVAL).await;
            let mut seen = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.len();
            seen.retain(|files, pid| server::is_running(*pid, files));
            if seen.len() < before {
                return;
            }
        }
    }

    /// Reads all routers; names of links of this host are those last observed.
    ///
    /// # Errors
    /// [`RouterError`]; a half observation is never returned.
    pub async fn observe_routers(&self) -> Result<BTreeMap<String, ObservedRouter>, RouterError> {
        let Some(folders) = self.routers.clone() else { return Ok(BTreeMap::new()) };
        let names = folders.names()?;
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let links = self.host().names.clone();
        let (routers, servers) = namespace::on_thread(move |runtime| {
            let (mut routers, mut servers) = (BTreeMap::new(), BTreeMap::new());
            for name in names {
                let router = observe_one(&folders, &name, &links, runtime)?;
                let files = folders.files(&name);
                if let Some(pid) = router.server.as_ref().and_then(|_| server::pid(&files)) {
                    servers.insert(files, pid);
                }
                routers.insert(name, router);
            }
            Ok((routers, servers))
        })
        .await?;
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
        Ok(routers)
    }

    /// Carries out one step of a router.
    ///
    /// # Errors
    /// [`RouterError`]; what was begun is finished or undone by the next pass.
    pub(crate) async fn apply_router(&self, step: &RouterStep) -> Result<(), RouterError> {
        let folders = self.routers.clone().ok_or(RouterError::NoFolders)?;
        match step {
            RouterStep::CreateNamespace { router } => {
                // Of a namespace that lost its name.
                server::stop(&folders.files(router)).await?;
                let (path, mark) = (folders.namespace(router), namespace::mark(&folders.state));
                namespace::on_thread(move |_| namespace::create(&path, &mark)).await
            }
            RouterStep::Delete { router } => {
                let files = folders.files(router);
                server::stop(&files).await?;
                let (path, mark) = (folders.namespace(router), namespace::mark(&folders.state));
                namespace::on_thread(move |_| namespace::remove(&path, &mark)).await?;
                match fs::remove_dir_all(&files) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(&files)(error)),
                    _ => Ok(()),
                }
            }
            RouterStep::Silence { router } => server::stop(&folders.files(router)).await,
            RouterStep::Serve { router, config } => {
                let (files, config) = (folders.files(router), config.clone());
                server::stop(&files).await?;
                self.inside(router, move |runtime| server::start(&files, &config, runtime)).await
            }
            RouterStep::Join { router, link, end, mac, mtu } => {
                let path = folders.namespace(router);
                let (mark, files) = (namespace::mark(&folders.state), folders.files(router));
                // Its rules may have failed before; what forwards without any has no links.
                let ruled = move |runtime: &tokio::runtime::Handle| {
                    let entered = namespace::Entered::open(&path, &mark)?;
                    entered.enter()?;
                    match firewall::in_force(&files, runtime)? {
                        Some(_) => Ok(entered),
                        None => Err(RouterError::Unruled(path)),
                    }
                };
                let entered = namespace::on_thread(ruled).await?;
                self.make_pair(link, end.name(), *mac, *mtu, &entered)
            }
            RouterStep::ReplaceRules { router, rules } => {
                let (files, rules) = (folders.files(router), rules.clone());
                self.inside(router, move |runtime| firewall::replace(&files, &rules, runtime)).await
            }
            RouterStep::Settle { router } => self.inside(router, |_| inside::settle()).await,
            RouterStep::Address { router, end, remove, add } => {
                let (end, remove, add) = (end.name(), remove.clone(), add.clone());
                self.inside(router, move |_| inside::address(end, &remove, &add)).await
            }
            RouterStep::Up { router, end } => {
                let end = end.name();
                self.inside(router, move |_| inside::up(end)).await
            }
            RouterStep::Route { router, remove, add } => {
                let (remove, add) = (remove.clone(), add.clone());
                self.inside(router, move |_| inside::route(&remove, &add)).await
            }
        }
    }

    /// Does something in a router's namespace.
    async fn inside<T: Send + 'static>(
        &self,
        router: &str,
        job: impl FnOnce(&tokio::runtime::Handle) -> Result<T, RouterError> + Send + 'static,
    ) -> Result<T, RouterError> {
        let folders = self.routers.clone().ok_or(RouterError::NoFolders)?;
        let (path, mark) = (folders.namespace(router), namespace::mark(&folders.state));
        namespace::on_thread(move |runtime| {
            namespace::Entered::open(&path, &mark)?.enter()?;
            job(runtime)
        })
        .await
    }
}

/// On a thread that may enter namespaces.
fn observe_one(
    folders: &RouterFolders,
    router: &str,
    links: &std::collections::HashMap<u32, String>,
    runtime: &tokio::runtime::Handle,
) -> Result<ObservedRouter, RouterError> {
    let path = folders.namespace(router);
    let entered = match namespace::find(&path, &namespace::mark(&folders.state))? {
        namespace::Found::Absent => return Ok(ObservedRouter::default()),
        namespace::Found::Foreign => {
            return Ok(ObservedRouter { namespace: ObservedNamespace::Foreign, ..ObservedRouter::default() });
        }
        namespace::Found::Ours(entered) => entered,
    };
    entered.enter()?;
    let files = folders.files(router);
    let seen = inside::look(links)?;
    Ok(ObservedRouter {
        namespace: ObservedNamespace::Ours,
        settled: seen.loopback_up && inside::is_settled(),
        rules: firewall::in_force(&files, runtime)?,
        lan: seen.lan,
        wan: seen.wan,
        gateways: seen.gateways,
        server: server::running(&files, entered.identity()?),
        leases: server::leases(&files),
    })
}
