//! What rules cost the frames that pass.
//!
//! Ports are taps, and iperf3 needs a namespace's own link at each end. So netd makes the networks and their rules and
//! is then ended, and two taps are replaced by ends of veth pairs of the same names on the same bridge: the rules know a
//! port by its name. (A netd that runs would make them taps again.)

use super::document::{MTU, address, mac, offices, tap};
use super::machine::Machine;
use crate::figures::{Figures, median, ratios};
use crate::network::Namespace;
use crate::say;
use anyhow::Context as _;
use playground::namespace;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

/// Length of one iperf3 run.
const STREAM_SECONDS: &str = "3";
/// Round trips in one measurement.
const TRIPS: u32 = 20_000;

/// Two machines' ends on a bridge.
struct Stand {
    near: Namespace,
    far: Namespace,
    /// Where the bridge is.
    _bridge: Place,
}

enum Place {
    Plain(Namespace),
    Ruled(Machine),
}

impl Place {
    fn namespace(&self) -> &Namespace {
        match self {
            Self::Plain(namespace) => namespace,
            Self::Ruled(machine) => &machine.namespace,
        }
    }
}

impl Stand {
    /// A bridge without rules.
    fn plain() -> anyhow::Result<Self> {
        let namespace = Namespace::new()?;
        namespace.batch(
            "ip",
            format!(
                "link add dev cb0 mtu {MTU} type bridge stp_state 0 mcast_snooping 0\nlink set dev cb0 up\n"
            ),
        )?;
        Self::on(Place::Plain(namespace))
    }

    /// The first network among so many ports.
    async fn ruled(netd: &Path, ports: u32) -> anyhow::Result<Self> {
        let mut machine = Machine::start(netd).await?;
        let status = machine.client.put_desired(&offices(1, ports / 10, 10)).await?;
        anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
        machine.stop();
        for number in 0..2 {
            machine.namespace.batch("ip", format!("link delete dev {}\n", tap(0, number)))?;
        }
        Self::on(Place::Ruled(machine))
    }

    fn on(place: Place) -> anyhow::Result<Self> {
        let [near, far] = [Namespace::new()?, Namespace::new()?];
        for (number, end) in [(0, &near), (1, &far)] {
            let (link, mac) = (tap(0, number), mac(number));
            place.namespace().batch(
                "ip",
                format!(
                    "link add dev {link} group {} mtu {MTU} type veth peer name eth0 address {mac} mtu {MTU} netns {}\n\
                     link set dev {link} master cb0 up\n",
                    netd_plan::GROUP,
                    end.path().display()
                ),
            )?;
            end.batch(
                "ip",
                format!(
                    "link set dev lo up\nlink set dev eth0 up\naddress add {}/16 dev eth0\n",
                    address(number)
                ),
            )?;
        }
        Ok(Self { near, far, _bridge: place })
    }

    fn socket(end: &Namespace, at: SocketAddr, to: SocketAddr) -> anyhow::Result<UdpSocket> {
        let open = move || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(at)?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(socket)
        };
        namespace::run(&end.path(), open).and_then(|inner| inner).context("a socket in a namespace")
    }

    /// Nanoseconds of a round trip. One thread has both ends, so no processor is woken: this is the path alone.
    fn round_trip(&self) -> anyhow::Result<f64> {
        let at: [SocketAddr; 2] = [(address(0), 40_000).into(), (address(1), 7).into()];
        let near = Self::socket(&self.near, at[0], at[1])?;
        let far = Self::socket(&self.far, at[1], at[0])?;
        let mut buffer = [0_u8; 64];
        let mut trip = || -> io::Result<()> {
            near.send(&[7; 32])?;
            far.recv(&mut buffer)?;
            far.send(&[8; 32])?;
            near.recv(&mut buffer)?;
            Ok(())
        };
        // The first finds its neighbour, and the links may not carry yet.
        if trip().is_err() {
            trip().context("no datagram passes")?;
        }
        for _ in 0..100 {
            trip().context("a datagram did not pass")?;
        }
        let began = Instant::now();
        for _ in 0..TRIPS {
            trip().context("a datagram did not pass")?;
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS))
    }

    /// Bits/s of one TCP stream.
    async fn stream(&self) -> anyhow::Result<f64> {
        let (far, near) = (self.far.path(), self.near.path());
        let server = tokio::task::spawn_blocking(move || {
            output_in(&far, "iperf3", &["--server", "--one-off", "--json", "--bind", &address(1).to_string()])
        });
        let listens = {
            let far = self.far.path();
            move || listens(&far)
        };
        crate::lab::until("iperf3", Duration::from_secs(5), || {
            let found = listens();
            async move { Ok(found?.then_some(())) }
        })
        .await?;
        let client = tokio::task::spawn_blocking(move || {
            output_in(
                &near,
                "iperf3",
                &["--client", &address(1).to_string(), "--json", "--time", STREAM_SECONDS],
            )
        });
        let text = client.await??;
        server.await??;
        let report: serde_json::Value = serde_json::from_str(&text).context("iperf3's report")?;
        report["end"]["sum_received"]["bits_per_second"]
            .as_f64()
            .with_context(|| format!("iperf3 says {text}"))
    }
}

fn listens(network: &Path) -> anyhow::Result<bool> {
    let table = namespace::run(network, || std::fs::read_to_string("/proc/thread-self/net/tcp"));
    let table = table.and_then(|inner| inner)?;
    // 5201, iperf3's own port, in state LISTEN.
    Ok(table.lines().any(|line| line.contains(":1451 ") && line.contains(" 0A ")))
}

fn output_in(network: &Path, program: &'static str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = std::process::Command::new(program);
    command.args(arguments);
    let output = namespace::run(network, move || command.output()).and_then(|inner| inner);
    let output = output.with_context(|| format!("run {program}: install the package of that name"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "{program} failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// `throughput_vs_bridge`.
pub(super) async fn throughput(netd: &Path, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let (plain, ruled) = (Stand::plain()?, Stand::ruled(netd, 5000).await?);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        without.push(plain.stream().await?);
        with.push(ruled.stream().await?);
        say(&format!(
            "round {round}: plain bridge {:.2} Gbit/s, with rules {:.2} Gbit/s",
            without[round - 1] / 1e9,
            with[round - 1] / 1e9
        ));
    }
    figures.add(
        "throughput_vs_bridge",
        median(&with) / median(&without),
        &ratios(&with, &without),
        &format!(
            "iperf3, one TCP stream of {STREAM_SECONDS} s between two namespaces over a bridge: between two ports with rules, among \
             5,000 ports' rules, {:.2} Gbit/s ÷ plain bridge {:.2} Gbit/s; veth ends under the taps' names, netd ended",
            median(&with) / 1e9,
            median(&without) / 1e9
        ),
    );
    Ok(())
}

/// `latency_5000_vs_10_ports`.
pub(super) async fn latency(netd: &Path, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let plain = Stand::plain()?;
    let (few, many) = (Stand::ruled(netd, 10).await?, Stand::ruled(netd, 5000).await?);
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..rounds * 3 {
        for (stand, times) in [&plain, &few, &many].into_iter().zip(&mut times) {
            times.push(stand.round_trip()?);
        }
    }
    let [bare, ten, five_thousand] = &times;
    let added =
        |with: &[f64]| -> Vec<f64> { with.iter().zip(bare).map(|(with, bare)| with - bare).collect() };
    let (ten_added, many_added) = (added(ten), added(five_thousand));
    figures.add(
        "latency_5000_vs_10_ports",
        median(&many_added) / median(&ten_added),
        &ratios(&many_added, &ten_added),
        &format!(
            "added to a UDP round trip by the rules: among 5,000 ports {:.0} ns ÷ among 10 ports {:.0} ns; the whole trip plain \
             {:.0} ns, 10 ports {:.0} ns, 5,000 ports {:.0} ns; {TRIPS} trips a measurement, both ends in one thread",
            median(&many_added),
            median(&ten_added),
            median(bare),
            median(ten),
            median(five_thousand)
        ),
    );
    Ok(())
}
