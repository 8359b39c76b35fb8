//! A proxy spliced into a running port, under a TCP stream.

use super::document::{self, MTU, address, mac, tap};
use super::guest::{Cable, Guest, open_tap};
use super::machine::Machine;
use crate::figures::{Figures, median};
use crate::say;
use anyhow::Context as _;
use netd_api::{Desired, Network, Port, Uplink};
use playground::namespace;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use types::Generation;

/// How often the stream says something: the resolution of an outage.
const BEAT: Duration = Duration::from_millis(1);
/// Before and after each change.
const CALM: Duration = Duration::from_millis(700);

/// Where the proxy stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxy {
    /// Started, in no path.
    Prepared,
    InPath,
}

const OUTER: u32 = 8;
const INNER: u32 = 9;

/// An office of a client (port 0) and a server (port 1), whose port the proxy is spliced into.
fn office(generation: u64, proxy: Proxy) -> Desired {
    let mut inside = Network { uplink: Uplink::None, ..document::network(0, 2) };
    let outer = |port: Port| Port { id: "office0/proxy/outer".to_owned(), tap: tap(0, OUTER), ..port };
    let inner = Port::closed("office0/proxy/inner".to_owned(), tap(0, INNER), mac(INNER));
    let mut wire = Network {
        id: "office0/wire".to_owned(),
        bridge: "cbw0".to_owned(),
        mtu: MTU,
        wire: true,
        ports: vec![inner],
        ..Network::default()
    };
    match proxy {
        Proxy::Prepared => inside.ports.push(Port { held: true, ..outer(document::port(0, OUTER)) }),
        Proxy::InPath => {
            let server = inside.ports.remove(1);
            inside.ports.push(outer(server.clone()));
            wire.ports.push(server);
        }
    }
    Desired { generation: Generation(generation), networks: vec![inside, wire], ..Desired::default() }
}

/// A TCP stream that says a byte at every beat, and hears when none came.
struct Stream {
    stop: Arc<AtomicBool>,
    /// Arrivals, as seconds since the beginning.
    arrivals: Arc<Mutex<Vec<f64>>>,
    sent: Arc<AtomicU64>,
    began: Instant,
    threads: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Stream {
    fn open(client: &Guest, server: &Guest) -> anyhow::Result<Self> {
        let at: SocketAddr = (address(1), 80).into();
        let listener = namespace::run(&server.namespace.path(), move || TcpListener::bind(at))??;
        let connect = move || TcpStream::connect_timeout(&at, Duration::from_secs(5));
        let mut sender = namespace::run(&client.namespace.path(), connect)?.context("the stream")?;
        let (mut receiver, _) = listener.accept()?;
        sender.set_nodelay(true)?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicU64::new(0));
        let began = Instant::now();
        let send = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    sender.write_all(&[1])?;
                    sent.fetch_add(1, Ordering::Relaxed);
                    pace();
                }
                Ok(())
            }
        };
        let hear = {
            let (stop, arrivals) = (Arc::clone(&stop), Arc::clone(&arrivals));
            move || {
                let mut bytes = [0; 4096];
                while !stop.load(Ordering::Relaxed) {
                    match receiver.read(&mut bytes) {
                        // The sender ends first, now and then.
                        Ok(0) if stop.load(Ordering::Relaxed) => return Ok(()),
                        Ok(0) => return Err(std::io::ErrorKind::ConnectionReset.into()),
                        Ok(_) => {
                            if let Ok(mut arrivals) = arrivals.lock() {
                                arrivals.push(began.elapsed().as_secs_f64());
                            }
                        }
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(())
            }
        };
        Ok(Self {
            stop,
            arrivals,
            sent,
            began,
            threads: vec![std::thread::spawn(send), std::thread::spawn(hear)],
        })
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Longest time in milliseconds without an arrival since then.
    fn longest_gap_ms(&self, since: f64) -> anyhow::Result<f64> {
        let arrivals =
            self.arrivals.lock().map_err(|_| anyhow::anyhow!("a thread of the stream panicked"))?;
        let mut last = since;
        let mut longest = 0.0_f64;
        for at in arrivals.iter().copied().filter(|at| *at >= since).chain([self.now()]) {
            longest = longest.max(at - last);
            last = at;
        }
        Ok(longest * 1000.0)
    }

    fn end(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread of the stream panicked"))?
                .context("the stream broke")?;
        }
        Ok(self.sent.load(Ordering::Relaxed))
    }
}

#[expect(clippy::disallowed_methods, reason = "the pace of a stream, not a wait")]
fn pace() {
    std::thread::sleep(BEAT);
}

/// `splice_outage_ms`.
pub(super) async fn run(netd: &Path, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let machine = Machine::start(netd).await?;
    let mut generation = 1;
    put(&machine, &office(generation, Proxy::Prepared)).await?;
    let guest = |number: u32| {
        let at: Ipv4Addr = address(number);
        Guest::new(&machine.namespace, tap(0, number), mac(number), at, MTU)
    };
    let (client, server) = (guest(0)?, guest(1)?);
    let ends = [OUTER, INNER].map(|number| open_tap(&machine.namespace, tap(0, number)));
    let [outer, inner] = ends;
    let proxy = Cable::between(outer?, inner?)?;
    let stream = Stream::open(&client, &server)?;
    let (mut calm, mut spliced, mut removed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let began = stream.now();
        tokio::time::sleep(CALM).await;
        calm.push(stream.longest_gap_ms(began)?);
        for (proxy, outages) in [(Proxy::InPath, &mut spliced), (Proxy::Prepared, &mut removed)] {
            generation += 1;
            let began = stream.now();
            put(&machine, &office(generation, proxy)).await?;
            tokio::time::sleep(CALM).await;
            outages.push(stream.longest_gap_ms(began)?);
        }
        say(&format!(
            "round {round}: longest silence: calm {:.1} ms, spliced in {:.1} ms, taken out {:.1} ms",
            calm[round - 1],
            spliced[round - 1],
            removed[round - 1]
        ));
    }
    // Fail closed: with the proxy dead nothing gets through.
    generation += 1;
    put(&machine, &office(generation, Proxy::InPath)).await?;
    drop(proxy);
    let began = stream.now();
    tokio::time::sleep(CALM).await;
    let silence = stream.longest_gap_ms(began + 0.1)?;
    anyhow::ensure!(silence > 500.0, "frames pass a dead proxy");
    generation += 1;
    put(&machine, &office(generation, Proxy::Prepared)).await?;
    tokio::time::sleep(CALM * 2).await;
    let sent = stream.end()?;
    figures.add(
        "splice_outage_ms",
        median(&spliced),
        &spliced,
        &format!(
            "longest silence of a TCP stream that says a byte every ms ({sent} in all, one connection), while a user-space proxy is \
             spliced into its server's port by one document change; taken out again {:.1} ms; without any change {:.1} ms; \
             guests are namespaces behind taps",
            median(&removed),
            median(&calm)
        ),
    );
    Ok(())
}

async fn put(machine: &Machine, desired: &Desired) -> anyhow::Result<()> {
    let status = machine.client.put_desired(desired).await?;
    anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
    Ok(())
}
