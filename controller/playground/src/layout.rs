//! Who gets which address, folder, link and program. Pure: values in, values out.

use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Most hosts of one playground: addresses .1 to .64 of the underlay.
pub const HOSTS_MAX: u8 = 64;
/// The only site.
pub const SITE: &str = "main";
/// The controller on the underlay.
pub const CONTROLLER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);
/// The controller's TCP port, on the underlay.
pub const CONTROLLER_PORT: u16 = 8443;
/// Where streamers listen for peers.
pub const SWARM_PORT: u16 = 4240;
/// The site LAN's router, and the person in the office who asks for things.
pub const PERSON_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// Memory that guests of one host may use: the hosts share one machine's.
pub const HOST_MEMORY: &str = "2GiB";
/// Longest path of a unix socket, without the terminating zero.
const SOCKET_PATH_LEN_MAX: usize = 107;
/// The deepest socket a playground makes below its folder.
const DEEPEST_SOCKET: &str = "switch/run/streamer-nbd.sock.new";

/// Underlay address of host `number` (from 1).
#[must_use]
pub fn underlay_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, number)
}

/// Name of host `number` (from 1).
#[must_use]
pub fn host_name(number: u8) -> String {
    format!("h{number}")
}

/// Checks what a person chose.
///
/// # Errors
/// One sentence: what, and what to choose instead.
pub fn check(name: &str, hosts: u8, state_dir: &Path) -> Result<(), String> {
    types::HostName::new(name).map_err(|error| error.to_string().replace("host name", "playground name"))?;
    if hosts == 0 || hosts > HOSTS_MAX {
        return Err(format!("{hosts} hosts cannot be: choose 1 to {HOSTS_MAX}"));
    }
    if !state_dir.is_absolute() {
        return Err(format!("the state folder {} is not absolute", state_dir.display()));
    }
    for hidden in ["/run", "/proc", "/sys", "/var/run", "/var/lib/libvirt"] {
        if state_dir.starts_with(hidden) {
            return Err(format!(
                "the state folder {} is below {hidden}, which hosts do not share: choose another with --state",
                state_dir.display()
            ));
        }
    }
    let deepest = state_dir.join(DEEPEST_SOCKET);
    if deepest.as_os_str().len() > SOCKET_PATH_LEN_MAX {
        return Err(format!(
            "the state folder {} is too long: unix sockets below it would exceed {SOCKET_PATH_LEN_MAX} bytes; \
             choose a shorter one with --state",
            state_dir.display()
        ));
    }
    Ok(())
}

/// Folders and files of one box (a host, or `switch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// All of it.
    pub root: PathBuf,
}

impl Folders {
    /// Of the box `name`.
    #[must_use]
    pub fn new(state_dir: &Path, name: &str) -> Self {
        Self { root: state_dir.join(name) }
    }

    /// Configuration of its daemons.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// Sockets; `/run/collective` inside.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// One log per daemon.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Log of one daemon.
    #[must_use]
    pub fn log_of(&self, daemon: &str) -> PathBuf {
        self.log().join(format!("{daemon}.log"))
    }

    /// What one daemon keeps.
    #[must_use]
    pub fn state_of(&self, daemon: &str) -> PathBuf {
        self.root.join("state").join(daemon)
    }

    /// The certificate and key a join gave.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.state_of("agent")
    }

    /// libvirt's four folders, bound over the machine's.
    #[must_use]
    pub fn libvirt(&self, which: &str) -> PathBuf {
        self.root.join("libvirt").join(which)
    }

    /// What its process 1 says of its daemons.
    #[must_use]
    pub fn init_status(&self) -> PathBuf {
        self.root.join("init.json")
    }

    /// What its process 1 is told.
    #[must_use]
    pub fn init_spec(&self) -> PathBuf {
        self.root.join("init-spec.json")
    }

    /// The machine's network namespace, as the switch's relay finds it.
    #[must_use]
    pub fn outer_network(&self) -> PathBuf {
        self.root.join("outer-network")
    }
}

/// What a box's process 1 does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitSpec {
    /// Host name in the box.
    pub hostname: String,
    /// Where it says what runs.
    pub status: PathBuf,
    /// Bind the network namespace it was started in here, for the relay.
    pub outer_network: Option<PathBuf>,
    /// Bind mounts, source and target. Below `/run` the target is made; elsewhere it must be there.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// In order of starting.
    pub daemons: Vec<DaemonSpec>,
    /// End when its standard input ends: the box is some test's, and dies with it.
    pub leashed: bool,
}

/// One daemon of a box.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonSpec {
    /// `agent`, `netd`, `streamer`, `libvirtd`, `controller`, `relay`.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Started with the box, or when told.
    pub at_once: bool,
}

fn daemon(folders: &Folders, name: &str, argv: Vec<String>, at_once: bool) -> DaemonSpec {
    DaemonSpec { name: name.to_owned(), argv, log: folders.log_of(name), at_once }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn ours(binaries: &Path, program: &str, folders: &Folders, config: &str) -> Vec<String> {
    vec![text(&binaries.join(program)), "--config".to_owned(), text(&folders.etc().join(config))]
}

/// What host `name`'s process 1 does. `first` probes QEMU for all of them, so its libvirtd starts with the box.
#[must_use]
pub fn host_init(
    folders: &Folders,
    name: &str,
    binaries: &Path,
    libvirtd: &Path,
    first: bool,
    leashed: bool,
) -> InitSpec {
    let libvirtd_argv = vec![text(libvirtd), "-p".to_owned(), "/run/libvirt/libvirtd.pid".to_owned()];
    InitSpec {
        hostname: name.to_owned(),
        status: folders.init_status(),
        outer_network: None,
        binds: vec![
            (folders.run(), PathBuf::from("/run/collective")),
            (folders.libvirt("run"), PathBuf::from("/run/libvirt")),
            (folders.libvirt("lib"), PathBuf::from("/var/lib/libvirt")),
            (folders.libvirt("cache"), PathBuf::from("/var/cache/libvirt")),
            (folders.libvirt("log"), PathBuf::from("/var/log/libvirt")),
            (folders.libvirt("etc"), PathBuf::from("/etc/libvirt")),
            (folders.etc().join("hosts"), PathBuf::from("/etc/hosts")),
        ],
        daemons: vec![
            daemon(folders, "libvirtd", libvirtd_argv, first),
            daemon(folders, "netd", ours(binaries, "collective-netd", folders, "netd.toml"), true),
            daemon(
                folders,
                "streamer",
                ours(binaries, "collective-streamer", folders, "streamer.toml"),
                false,
            ),
            daemon(folders, "agent", ours(binaries, "collective-agent", folders, "agent.toml"), false),
        ],
        leashed,
    }
}

/// What the switch's process 1 does.
#[must_use]
pub fn switch_init(folders: &Folders, binaries: &Path, port: u16, leashed: bool) -> InitSpec {
    let relay = vec![
        text(&binaries.join("collective")),
        "playground".to_owned(),
        "relay".to_owned(),
        "--outer".to_owned(),
        text(&folders.outer_network()),
        "--listen".to_owned(),
        format!("127.0.0.1:{port}"),
        "--to".to_owned(),
        format!("{CONTROLLER_ADDRESS}:{CONTROLLER_PORT}"),
    ];
    InitSpec {
        hostname: "switch".to_owned(),
        status: folders.init_status(),
        outer_network: Some(folders.outer_network()),
        binds: vec![
            (folders.run(), PathBuf::from("/run/collective")),
            (folders.etc().join("hosts"), PathBuf::from("/etc/hosts")),
        ],
        daemons: vec![
            daemon(folders, "controller", ours(binaries, "collectived", folders, "collectived.toml"), true),
            daemon(folders, "relay", relay, true),
            daemon(
                folders,
                "streamer",
                ours(binaries, "collective-streamer", folders, "streamer.toml"),
                false,
            ),
        ],
        leashed,
    }
}

/// `ip -batch` lines that make the switch's bridges, run in its network namespace.
#[must_use]
pub fn switch_links() -> String {
    let mut lines = String::from("link set lo up\n");
    for (bridge, address) in [("sw", CONTROLLER_ADDRESS), ("site", PERSON_ADDRESS)] {
        lines += &format!(
            "link add {bridge} type bridge forward_delay 0 mcast_snooping 0\n\
             link set {bridge} addrgenmode none\n\
             addr add {address}/24 dev {bridge}\n\
             link set {bridge} up\n"
        );
    }
    lines
}

/// `ip -batch` lines that cable host `number` to the switch, run in the host's network namespace. The site's cable
/// gets no address of any kind: netd takes no link that has one.
#[must_use]
pub fn host_links(number: u8, switch_pid: i32) -> String {
    let address = underlay_address(number);
    format!(
        "link set lo up\n\
         link add eth0 type veth peer name u{number} netns {switch_pid}\n\
         link add eth1 type veth peer name s{number} netns {switch_pid}\n\
         link set eth0 addrgenmode none\n\
         link set eth1 addrgenmode none\n\
         addr add {address}/24 dev eth0\n\
         link set eth0 up\n\
         link set eth1 up\n"
    )
}

/// `ip -batch` lines that plug host `number`'s cables into the bridges, run in the switch's network namespace.
#[must_use]
pub fn plug_links(number: u8) -> String {
    let mut lines = String::new();
    for (link, bridge) in [(format!("u{number}"), "sw"), (format!("s{number}"), "site")] {
        lines += &format!(
            "link set {link} addrgenmode none\nlink set {link} master {bridge}\nlink set {link} up\n"
        );
    }
    lines
}

/// A TOML basic string.
fn quote(value: impl std::fmt::Display) -> String {
    let mut quoted = String::from("\"");
    for character in value.to_string().chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn path(path: &Path) -> String {
    quote(path.display())
}

fn identity_lines(folder: &Path) -> String {
    format!(
        "ca = {}\ncert = {}\nkey = {}\n",
        path(&folder.join("ca.pem")),
        path(&folder.join("host.pem")),
        path(&folder.join("host.key"))
    )
}

/// `netd.toml` of host `number`.
#[must_use]
pub fn netd_config(folders: &Folders, number: u8) -> String {
    format!(
        "socket = \"/run/collective/netd.sock\"\nstate_dir = {}\nunderlay_address = \"{}\"\n\n[uplinks]\n{SITE} = \"eth1\"\n",
        path(&folders.state_of("netd")),
        underlay_address(number)
    )
}

/// `streamer.toml` of a box whose underlay address is `address`; `role` is `host` or `origin`.
#[must_use]
pub fn streamer_config(folders: &Folders, address: Ipv4Addr, role: &str) -> String {
    format!(
        "socket = \"/run/collective/streamer.sock\"\nnbd_socket = \"/run/collective/streamer-nbd.sock\"\n\
         cache_dir = {}\nlisten = \"{address}:{SWARM_PORT}\"\nannounce_address = \"{address}\"\nrole = \"{role}\"\n\
         site = \"{SITE}\"\n\n\
         [tls]\n{}",
        path(&folders.state_of("streamer")),
        identity_lines(&folders.identity())
    )
}

/// `agent.toml` of host `number`.
#[must_use]
pub fn agent_config(folders: &Folders, number: u8) -> String {
    format!(
        "state_dir = {}\nrun_dir = \"/run/collective\"\ncontroller = \"{}\"\nlibvirt_uri = \"qemu:///system\"\n\
         netd_socket = \"/run/collective/netd.sock\"\nstreamer_socket = \"/run/collective/streamer.sock\"\n\
         nbd_socket = \"/run/collective/streamer-nbd.sock\"\nmemory_max = \"{HOST_MEMORY}\"\n\
         underlay_address = \"{}\"\n\n[identity]\n{}",
        path(&folders.state_of("agent")),
        controller_url(),
        underlay_address(number),
        identity_lines(&folders.identity())
    )
}

/// `collectived.toml`.
#[must_use]
pub fn controller_config(folders: &Folders, policies: &Path) -> String {
    format!(
        "state_dir = {}\nlisten = \"{CONTROLLER_ADDRESS}:{CONTROLLER_PORT}\"\n\
         public_names = [\"localhost\", \"127.0.0.1\", \"{CONTROLLER_ADDRESS}\"]\npolicies = {}\n\
         tracker_url = \"{}/announce\"\n",
        path(&folders.state_of("controller")),
        path(policies),
        controller_url()
    )
}

/// Where hosts reach the controller.
#[must_use]
pub fn controller_url() -> String {
    format!("https://{CONTROLLER_ADDRESS}:{CONTROLLER_PORT}")
}

/// The site document that is applied.
#[must_use]
pub fn site_document() -> String {
    format!(
        "apiVersion: collective/v1\nkind: Site\nmetadata: {{name: {SITE}}}\nspec:\n  lan:\n    subnet: 10.88.0.0/24\n    \
         first: 10.88.0.100\n    last: 10.88.0.199\n    router: {PERSON_ADDRESS}\n"
    )
}

/// `/etc/hosts` of a box: `getaddrinfo` of its own name must answer.
#[must_use]
pub fn hosts_file(name: &str, address: Ipv4Addr) -> String {
    format!("127.0.0.1 localhost\n{address} {name}\n")
}

/// `libvirtd.conf` of host `number`: a unix socket only, and a stable host UUID.
#[must_use]
pub fn libvirtd_config(number: u8) -> String {
    format!(
        "host_uuid = \"00000000-0000-4000-8000-{number:012x}\"\nunix_sock_rw_perms = \"0700\"\nauth_unix_rw = \"none\"\n\
         auth_unix_ro = \"none\"\nlog_outputs = \"3:stderr\"\n"
    )
}

/// `qemu.conf` of host `number`. No cgroups (names would clash between hosts), no second mount namespace, and consoles
/// logged by QEMU itself so that virtlogd is not needed.
#[must_use]
pub fn qemu_config(number: u8) -> String {
    let address = underlay_address(number);
    format!(
        "user = \"root\"\ngroup = \"root\"\nremember_owner = 0\ndynamic_ownership = 0\nsecurity_driver = \"none\"\n\
         namespaces = []\ncgroup_controllers = []\nstdio_handler = \"file\"\nswtpm_user = \"root\"\nswtpm_group = \"root\"\n\
         save_image_format = \"sparse\"\nsnapshot_image_format = \"raw\"\nmigration_address = \"{address}\"\n\
         migration_host = \"{address}\"\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders() -> Folders {
        Folders::new(Path::new("/var/lib/collective/playground/default"), "h2")
    }

    #[test]
    fn hosts_and_controller_share_no_address() {
        for number in 1..=HOSTS_MAX {
            assert_ne!(underlay_address(number), CONTROLLER_ADDRESS);
        }
        assert_eq!(underlay_address(2).to_string(), "10.99.0.2");
    }

    #[test]
    fn every_configuration_is_toml_and_survives_odd_paths() {
        let odd = Folders::new(Path::new("/tmp/a \"b\"\\c"), "h1");
        for folders in [folders(), odd] {
            for config in [
                netd_config(&folders, 2),
                streamer_config(&folders, underlay_address(2), "host"),
                agent_config(&folders, 2),
                controller_config(&folders, Path::new("/p/q")),
            ] {
                let table: toml::Table = toml::from_str(&config).unwrap();
                assert!(table.len() >= 4, "{config}");
            }
        }
        let table: toml::Table = toml::from_str(&netd_config(&folders(), 2)).unwrap();
        assert_eq!(table["uplinks"]["main"].as_str(), Some("eth1"));
        assert_eq!(table["underlay_address"].as_str(), Some("10.99.0.2"));
    }

    #[test]
    fn a_state_folder_whose_sockets_would_be_too_long_is_refused() {
        let long = PathBuf::from(format!("/{}", "x".repeat(80)));
        let problem = check("default", 2, &long).unwrap_err();
        assert!(problem.contains("exceed 107 bytes"), "{problem}");
        check("default", 2, Path::new("/var/lib/collective/playground/default")).unwrap();
    }

    #[test]
    fn impossible_choices_are_refused_with_what_to_do() {
        let good = Path::new("/tmp/p");
        assert_eq!(check("default", 0, good).unwrap_err(), "0 hosts cannot be: choose 1 to 64");
        assert!(check("A B", 2, good).unwrap_err().contains("is not a playground name"));
        assert!(check("default", 2, Path::new("p")).unwrap_err().contains("is not absolute"));
        assert!(
            check("default", 2, Path::new("/run/p")).unwrap_err().contains("choose another with --state")
        );
    }

    #[test]
    fn the_site_cable_gets_no_address() {
        let lines = host_links(1, 4711);
        assert!(!lines.contains("addr add 10.88"), "{lines}");
        assert!(lines.contains("link set eth1 addrgenmode none"), "{lines}");
        assert!(lines.lines().filter(|line| line.contains("netns 4711")).count() == 2, "{lines}");
    }
}
