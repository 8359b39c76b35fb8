//! Making a playground: folders, switch, hosts, then everybody introduced to everybody.

use crate::access::{Part, Playground};
use crate::controller::Controller;
use crate::down::remove;
use crate::error::PlaygroundError;
use crate::layout::{self, Folders};
use crate::spawn::{self, Started};
use crate::state::{Claim, Record, SWITCH, create_folder};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Programs that must be beside each other.
const PROGRAMS: [&str; 5] =
    ["collective", "collectived", "collective-agent", "collective-netd", "collective-streamer"];
/// Where libvirtd may be.
const LIBVIRTD: [&str; 3] = ["/usr/sbin/libvirtd", "/usr/bin/libvirtd", "/usr/local/sbin/libvirtd"];
/// libvirt's own folders, hidden behind each host's.
const LIBVIRT_FOLDERS: [(&str, &str); 4] = [
    ("lib", "/var/lib/libvirt"),
    ("cache", "/var/cache/libvirt"),
    ("log", "/var/log/libvirt"),
    ("etc", "/etc/libvirt"),
];
/// Longest wait for any one part. Machines under load are slow; a part that died is noticed at once.
const PART_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// A daemon that was started so often and does not run will not come up by itself.
const STARTS_MAX: u32 = 4;

/// What to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Hosts, 1 to [`layout::HOSTS_MAX`].
    pub hosts: u8,
    /// Its folder; must not exist or be empty.
    pub state_dir: PathBuf,
    /// Folder of our programs.
    pub binaries: PathBuf,
    /// Folder of policies to install.
    pub policies: PathBuf,
    /// TCP port on 127.0.0.1; 0 for any free one.
    pub port: u16,
    /// It ends with this process, however that ends. For tests.
    pub leashed: bool,
}

impl Config {
    /// Two hosts, port 8443, the default folder.
    #[must_use]
    pub fn new(name: &str, binaries: &Path, policies: &Path) -> Self {
        Self {
            name: name.to_owned(),
            hosts: 2,
            state_dir: crate::default_state_dir(name),
            binaries: binaries.to_owned(),
            policies: policies.to_owned(),
            port: 8443,
            leashed: false,
        }
    }
}

/// A step was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Since the beginning.
    pub elapsed: Duration,
    /// What was done, for people.
    pub text: String,
}

impl Playground {
    /// Makes a playground and waits until every host is online.
    ///
    /// # Errors
    /// Nothing is left behind then, also when the future is dropped; the error carries the end of the log of what
    /// failed.
    pub async fn up(config: Config, progress: impl FnMut(Progress)) -> Result<Self, PlaygroundError> {
        let libvirtd = preflight(&config)?;
        let port = choose_port(config.port)?;
        create_folder(&config.name, &config.state_dir)?;
        let claim = Claim::take(&config.state_dir)?;
        let mut unfinished =
            Unfinished { state_dir: config.state_dir.clone(), claim: Some(claim), done: false };
        let record = Record::new(&config.name, config.hosts, port)?;
        record.store(&config.state_dir)?;
        let mut site = Site {
            playground: Self { state_dir: config.state_dir.clone(), record, leashes: Vec::new() },
            config,
            libvirtd,
            started: BTreeMap::new(),
            report: Report { begin: Instant::now(), progress },
        };
        site.build().await?;
        unfinished.done = true;
        Ok(site.finish())
    }
}

/// Removes what `up` made unless it came to its end.
struct Unfinished {
    state_dir: PathBuf,
    claim: Option<Claim>,
    done: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now stays recorded; `down` will try again.
            let _ = remove(&self.state_dir);
        }
        self.claim = None;
    }
}

fn preflight(config: &Config) -> Result<PathBuf, PlaygroundError> {
    layout::check(&config.name, config.hosts, &config.state_dir).map_err(PlaygroundError::Invalid)?;
    if !nix::unistd::geteuid().is_root() {
        return Err(PlaygroundError::NotRoot);
    }
    for program in PROGRAMS {
        if !config.binaries.join(program).is_file() {
            return Err(PlaygroundError::MissingBinary { program, folder: config.binaries.clone() });
        }
    }
    let missing = |what: String| Err(PlaygroundError::Invalid(what));
    if !config.policies.join("balanced.wasm").is_file() {
        return missing(format!(
            "there is no balanced.wasm in {}: build the policies (`cargo xtask policies`) or name their folder with \
             --policies",
            config.policies.display()
        ));
    }
    if let Some((_, folder)) = LIBVIRT_FOLDERS.iter().find(|(_, folder)| !Path::new(folder).is_dir()) {
        return missing(format!("{folder} is missing: install libvirt (libvirt-daemon-system)"));
    }
    match LIBVIRTD.iter().map(Path::new).find(|path| path.is_file()) {
        Some(path) => Ok(path.to_owned()),
        None => missing("libvirtd is missing: install libvirt (libvirt-daemon-system)".to_owned()),
    }
}

/// The relay will bind it; binding it here first turns a taken port into an error before anything was made.
fn choose_port(port: u16) -> Result<u16, PlaygroundError> {
    let taken = |source| PlaygroundError::PortTaken { port, source };
    let socket = std::net::TcpListener::bind(("127.0.0.1", port)).map_err(taken)?;
    Ok(socket.local_addr().map_err(taken)?.port())
}

struct Report<F> {
    begin: Instant,
    progress: F,
}

impl<F: FnMut(Progress)> Report<F> {
    fn say(&mut self, text: impl Into<String>) {
        (self.progress)(Progress { elapsed: self.begin.elapsed(), text: text.into() });
    }
}

/// A playground being made.
struct Site<F> {
    playground: Playground,
    config: Config,
    libvirtd: PathBuf,
    started: BTreeMap<String, Started>,
    report: Report<F>,
}

impl<F: FnMut(Progress)> Site<F> {
    async fn build(&mut self) -> Result<(), PlaygroundError> {
        self.start_switch()?;
        self.start_hosts()?;
        let controller = self.meet_controller().await?;
        self.join_all(&controller).await?;
        self.start_libvirt().await?;
        self.meet_hosts(&controller).await?;
        self.playground.record.complete = true;
        self.playground.record.store(&self.config.state_dir)
    }

    fn finish(mut self) -> Playground {
        if self.config.leashed {
            self.playground.leashes = self.started.into_values().map(Started::leash).collect();
        }
        self.playground
    }

    fn folders(&self, name: &str) -> Folders {
        Folders::new(&self.config.state_dir, name)
    }

    fn hosts(&self) -> impl Iterator<Item = (u8, String)> + use<F> {
        (1..=self.config.hosts).map(|number| (number, layout::host_name(number)))
    }

    fn start_switch(&mut self) -> Result<(), PlaygroundError> {
        let folders = self.folders(SWITCH);
        let address = layout::CONTROLLER_ADDRESS;
        make_folders(&folders, &["controller", "agent", "streamer"])?;
        write(&folders.etc().join("hosts"), &layout::hosts_file("switch", address))?;
        write(
            &folders.etc().join("collectived.toml"),
            &layout::controller_config(&folders, &self.config.policies),
        )?;
        write(&folders.etc().join("streamer.toml"), &layout::streamer_config(&folders, address, "origin"))?;
        let port = self.playground.record.port;
        let spec = layout::switch_init(&folders, &self.config.binaries, port, self.config.leashed);
        let pid = self.start_box(SWITCH, &folders, &spec)?;
        spawn::links(SWITCH, pid, layout::switch_links())?;
        self.tell(SWITCH, "go")?;
        self.report.say("switch: underlay 10.99.0.0/24, site LAN 10.88.0.0/24");
        Ok(())
    }

    fn start_hosts(&mut self) -> Result<(), PlaygroundError> {
        let switch_pid = self.playground.switch()?.process().pid;
        for (number, name) in self.hosts() {
            let folders = self.folders(&name);
            make_folders(&folders, &["agent", "netd", "streamer"])?;
            write_host_files(&folders, number, &name)?;
            let first = number == 1;
            let spec = layout::host_init(
                &folders,
                &name,
                &self.config.binaries,
                &self.libvirtd,
                first,
                self.config.leashed,
            );
            let pid = self.start_box(&name, &folders, &spec)?;
            spawn::links(&name, pid, layout::host_links(number, switch_pid))?;
            spawn::links(SWITCH, switch_pid, layout::plug_links(number))?;
            self.tell(&name, "go")?;
        }
        self.report.say(format!("{} hosts cabled to the switch", self.config.hosts));
        Ok(())
    }

    /// Starts a box and records it before it is told anything.
    fn start_box(
        &mut self,
        name: &str,
        folders: &Folders,
        spec: &layout::InitSpec,
    ) -> Result<i32, PlaygroundError> {
        let started = spawn::start(&self.config.binaries, folders, spec)?;
        let process = started.process;
        self.playground.record.boxes.insert(name.to_owned(), process);
        self.playground.record.store(&self.config.state_dir)?;
        self.started.insert(name.to_owned(), started);
        Ok(process.pid)
    }

    fn tell(&mut self, name: &str, command: &str) -> Result<(), PlaygroundError> {
        let Some(started) = self.started.get_mut(name) else { return Ok(()) };
        started.tell(command).map_err(|error| PlaygroundError::Part {
            what: format!("the box {name}"),
            problem: format!("ended: {error}"),
            log: Folders::new(&self.config.state_dir, name).log_of("init"),
            tail: spawn::tail(&Folders::new(&self.config.state_dir, name).log_of("init")),
        })
    }

    async fn meet_controller(&mut self) -> Result<Controller, PlaygroundError> {
        let switch = self.playground.switch()?;
        let wait = Wait { part: &switch, daemon: "controller", what: "the controller" };
        wait.until(|| self.playground.endpoint().is_ok()).await?;
        let controller = Controller::new(&self.playground.endpoint()?)?;
        wait.until_async(async || controller.answers().await).await?;
        controller.apply(&layout::site_document()).await?;
        self.report.say(format!("controller answers at https://127.0.0.1:{}", self.playground.record.port));
        Ok(controller)
    }

    async fn join_all(&mut self, controller: &Controller) -> Result<(), PlaygroundError> {
        let mut joins = tokio::task::JoinSet::new();
        let hosts = self.hosts().map(|(_, name)| (name.clone(), name, "host"));
        let origin = (SWITCH.to_owned(), "origin".to_owned(), "origin");
        for (part, host, role) in hosts.chain([origin]).collect::<Vec<_>>() {
            let token = controller.join_token(role).await?;
            let part = self.playground.part(&part)?;
            let program = self.config.binaries.join("collective-agent");
            joins.spawn_blocking(move || join(&part, &program, &host, &token));
        }
        while let Some(joined) = joins.join_next().await {
            joined.map_err(|error| PlaygroundError::Invalid(error.to_string()))??;
        }
        self.tell(SWITCH, "start streamer")?;
        for (_, name) in self.hosts() {
            self.tell(&name, "start streamer")?;
        }
        self.report.say(format!("{} hosts and the origin joined with one-time tokens", self.config.hosts));
        Ok(())
    }

    /// The first host's libvirtd probes QEMU, which takes a second of a processor; the others get what it found.
    async fn start_libvirt(&mut self) -> Result<(), PlaygroundError> {
        let first = self.playground.host(1)?;
        let socket = first.folders().libvirt("run").join("libvirt-sock");
        let wait = Wait { part: &first, daemon: "libvirtd", what: "libvirtd of h1" };
        wait.until(|| socket.exists()).await?;
        let probe = first.clone();
        let probed = tokio::task::spawn_blocking(move || {
            probe.exec(&["virsh", "-q", "-c", "qemu:///system", "capabilities"])
        });
        // Without virsh, or when the probe fails, each libvirtd probes for itself: slower, not wrong.
        let probed = probed.await.is_ok_and(|result| result.is_ok_and(|output| output.status.success()));
        let found = first.folders().libvirt("cache").join("qemu/capabilities");
        for (_, name) in self.hosts().skip(1) {
            let target = self.folders(&name).libvirt("cache").join("qemu/capabilities");
            if probed && let Err(error) = copy_folder(&found, &target) {
                return Err(PlaygroundError::io(format!("copy {}", found.display()))(error));
            }
            self.tell(&name, "start libvirtd")?;
        }
        for (_, name) in self.hosts() {
            let part = self.playground.part(&name)?;
            let socket = part.folders().libvirt("run").join("libvirt-sock");
            let what = format!("libvirtd of {name}");
            Wait { part: &part, daemon: "libvirtd", what: &what }.until(|| socket.exists()).await?;
            self.tell(&name, "start agent")?;
        }
        self.report.say("libvirtd runs on every host");
        Ok(())
    }

    async fn meet_hosts(&mut self, controller: &Controller) -> Result<(), PlaygroundError> {
        for (_, name) in self.hosts() {
            let part = self.playground.part(&name)?;
            let what = format!("the agent of {name}");
            Wait { part: &part, daemon: "agent", what: &what }
                .until_async(async || controller.online(&name).await)
                .await?;
        }
        for (name, daemon) in self.hosts().flat_map(|(_, name)| [(name.clone(), "netd"), (name, "streamer")])
        {
            let part = self.playground.part(&name)?;
            let socket = part.folders().run().join(format!("{daemon}.sock"));
            let what = format!("{daemon} of {name}");
            Wait { part: &part, daemon, what: &what }.until(|| socket.exists()).await?;
        }
        let switch = self.playground.switch()?;
        let socket = switch.folders().run().join("streamer.sock");
        Wait { part: &switch, daemon: "streamer", what: "the origin" }.until(|| socket.exists()).await?;
        self.report.say("every host is online");
        Ok(())
    }
}

/// Waiting for one daemon's effect. It gives up when the daemon keeps dying.
struct Wait<'a> {
    part: &'a Part,
    daemon: &'a str,
    what: &'a str,
}

impl Wait<'_> {
    async fn until(&self, condition: impl Fn() -> bool) -> Result<(), PlaygroundError> {
        self.until_async(async || condition()).await
    }

    async fn until_async(&self, condition: impl AsyncFn() -> bool) -> Result<(), PlaygroundError> {
        let deadline = Instant::now() + PART_PATIENCE;
        while !condition().await {
            if !self.part.process().alive() {
                return Err(self.failed("init", "is down: its box ended".to_owned()));
            }
            let runs = self.part.init_status().daemons.remove(self.daemon).unwrap_or_default();
            if runs.pid.is_none() && runs.starts >= STARTS_MAX {
                let how = runs.ended.unwrap_or_default();
                return Err(self.failed(self.daemon, format!("does not stay up ({how})")));
            }
            if Instant::now() >= deadline {
                let problem = format!("did not come up within {} s", PART_PATIENCE.as_secs());
                return Err(self.failed(self.daemon, problem));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn failed(&self, daemon: &str, problem: String) -> PlaygroundError {
        let log = self.part.log(daemon);
        PlaygroundError::Part { what: self.what.to_owned(), problem, tail: spawn::tail(&log), log }
    }
}

/// Runs the real join program in the box.
fn join(part: &Part, program: &Path, host: &str, token: &str) -> Result<(), PlaygroundError> {
    let state = part.folders().identity();
    let (program, state) = (program.to_string_lossy(), state.to_string_lossy());
    let server = layout::controller_url();
    let argv = [
        program.as_ref(),
        "join",
        "--server",
        &server,
        "--token",
        token,
        "--state",
        state.as_ref(),
        "--host",
        host,
        "--site",
        layout::SITE,
    ];
    let output = part.exec(&argv).map_err(PlaygroundError::io(format!("run nsenter for {host}")))?;
    let log = part.log("join");
    let _ = fs::write(&log, [output.stdout, output.stderr].concat());
    if output.status.success() {
        return Ok(());
    }
    let problem = format!("failed ({})", output.status);
    Err(PlaygroundError::Part { what: format!("the join of {host}"), problem, tail: spawn::tail(&log), log })
}

fn make_folders(folders: &Folders, daemons: &[&str]) -> Result<(), PlaygroundError> {
    let states = daemons.iter().map(|daemon| folders.state_of(daemon));
    for folder in [folders.etc(), folders.run(), folders.log()].into_iter().chain(states) {
        fs::create_dir_all(&folder).map_err(PlaygroundError::io(format!("make {}", folder.display())))?;
    }
    Ok(())
}

fn write_host_files(folders: &Folders, number: u8, name: &str) -> Result<(), PlaygroundError> {
    let address = layout::underlay_address(number);
    for which in ["run"].into_iter().chain(LIBVIRT_FOLDERS.map(|(which, _)| which)) {
        let folder = folders.libvirt(which);
        fs::create_dir_all(&folder).map_err(PlaygroundError::io(format!("make {}", folder.display())))?;
    }
    write(&folders.etc().join("hosts"), &layout::hosts_file(name, address))?;
    write(&folders.etc().join("netd.toml"), &layout::netd_config(folders, number))?;
    write(&folders.etc().join("streamer.toml"), &layout::streamer_config(folders, address, "host"))?;
    write(&folders.etc().join("agent.toml"), &layout::agent_config(folders, number))?;
    write(&folders.libvirt("etc").join("libvirtd.conf"), &layout::libvirtd_config(number))?;
    write(&folders.libvirt("etc").join("qemu.conf"), &layout::qemu_config(number))
}

fn write(path: &Path, text: &str) -> Result<(), PlaygroundError> {
    fs::write(path, text).map_err(PlaygroundError::io(format!("write {}", path.display())))
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
