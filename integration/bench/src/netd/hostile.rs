//! Deployments with equal addresses, whose guests try everything to reach each other.

use super::document::{MTU, UNDERLAY, address, address6, mac, offices};
use super::guest::open_tap;
use super::machine::Machine;
use crate::figures::Figures;
use crate::network::Namespace;
use crate::say;
use anyhow::Context as _;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use playground::namespace;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::path::Path;

const DEPLOYMENTS: u16 = 50;
const PORTS: u32 = 4;
/// Frames sent before all ends are listened at.
const BATCH: u32 = 256;
/// Before each frame of a tap, see `virtio_net_hdr`.
const VNET_BYTES: usize = 10;
/// In every frame: who sent it, and whether its own deployment may see it.
const MARK: &[u8; 8] = b"\xc0hostile";

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// None: the path works.
    Honest,
    SourceMac,
    SourceAddress,
    SourceAddress6,
    ClaimsAddress,
    ClaimsNeighbour,
    Tagged,
    DoubleTagged,
    ClosedService,
    Tunnelled,
    GroupAddress,
    LinkLocalGroup,
    RogueLease,
    RogueRouter,
    OtherType,
    Cut,
    Jumbo,
    Extended,
    UnknownTarget,
    Noise,
}

const TRICKS: [Trick; 20] = [
    Trick::Honest,
    Trick::SourceMac,
    Trick::SourceAddress,
    Trick::SourceAddress6,
    Trick::ClaimsAddress,
    Trick::ClaimsNeighbour,
    Trick::Tagged,
    Trick::DoubleTagged,
    Trick::ClosedService,
    Trick::Tunnelled,
    Trick::GroupAddress,
    Trick::LinkLocalGroup,
    Trick::RogueLease,
    Trick::RogueRouter,
    Trick::OtherType,
    Trick::Cut,
    Trick::Jumbo,
    Trick::Extended,
    Trick::UnknownTarget,
    Trick::Noise,
];

impl Trick {
    /// Its own deployment may see it, and the tunnel to that deployment's other hosts.
    fn may_pass_inside(self) -> bool {
        matches!(
            self,
            Self::Honest
                | Self::ClosedService
                | Self::Tunnelled
                | Self::GroupAddress
                | Self::Cut
                | Self::Jumbo
                | Self::Extended
                | Self::UnknownTarget
        )
    }

    /// Only the tunnel may: its far end has rules of its own. No neighbour here.
    fn may_reach_neighbours(self) -> bool {
        matches!(self, Self::Honest | Self::Cut | Self::Jumbo)
    }
}

fn mark(deployment: u16, trick: Trick) -> Vec<u8> {
    let mut bytes = MARK.to_vec();
    bytes.extend(deployment.to_be_bytes());
    bytes.push(u8::from(trick.may_pass_inside()) | (u8::from(trick.may_reach_neighbours()) << 1));
    bytes
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = to.to_vec();
    frame.extend(from);
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn ipv6(from: [u8; 16], to: [u8; 16], next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = from.to_be_bytes().to_vec();
    datagram.extend(to.to_be_bytes());
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An opening TCP segment.
fn syn(to: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = 40_000_u16.to_be_bytes().to_vec();
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// A guest that makes one frame.
struct Speaker<'a> {
    random: &'a mut StdRng,
    mark: Vec<u8>,
    from: u32,
    to: u32,
}

impl Speaker<'_> {
    fn macs(&self) -> ([u8; 6], [u8; 6]) {
        (mac(self.from).0, mac(self.to).0)
    }

    fn ip4(&self) -> ([u8; 4], [u8; 4]) {
        (address(self.from).octets(), address(self.to).octets())
    }

    fn ip6(&self) -> ([u8; 16], [u8; 16]) {
        (address6(self.from).octets(), address6(self.to).octets())
    }

    /// To the neighbour, under the guest's own address.
    fn frame(&self, kind: u16, payload: &[u8]) -> Vec<u8> {
        let (from, to) = self.macs();
        ethernet(to, from, kind, payload)
    }

    /// What the neighbour accepts.
    fn service(&self) -> Vec<u8> {
        let (from, to) = self.ip4();
        ipv4(from, to, 6, &syn(80, &self.mark))
    }

    fn say(&mut self, trick: Trick) -> Vec<u8> {
        match trick {
            Trick::Honest => self.frame(0x0800, &self.service()),
            Trick::SourceMac | Trick::SourceAddress | Trick::SourceAddress6 => self.stolen(trick),
            Trick::ClaimsAddress | Trick::ClaimsNeighbour => self.claim(trick),
            Trick::Tagged | Trick::DoubleTagged | Trick::Tunnelled => self.wrapped(trick),
            Trick::RogueLease | Trick::RogueRouter => self.rogue(trick),
            Trick::GroupAddress | Trick::LinkLocalGroup | Trick::UnknownTarget | Trick::ClosedService => {
                self.astray(trick)
            }
            Trick::OtherType | Trick::Cut | Trick::Jumbo | Trick::Extended | Trick::Noise => self.odd(trick),
        }
    }

    /// Under somebody else's address.
    fn stolen(&mut self, trick: Trick) -> Vec<u8> {
        let ((_, mac_to), (_, ip_to), (_, ip6_to)) = (self.macs(), self.ip4(), self.ip6());
        match trick {
            Trick::SourceMac => {
                let stolen = if self.random.random() { mac_to } else { self.random.random() };
                let to = if self.random.random() { mac_to } else { [0xff; 6] };
                ethernet(to, stolen, 0x0800, &self.service())
            }
            Trick::SourceAddress => {
                let stolen = if self.random.random() { ip_to } else { self.random.random() };
                self.frame(0x0800, &ipv4(stolen, ip_to, 6, &syn(80, &self.mark)))
            }
            _ => {
                let stolen = if self.random.random() { ip6_to } else { self.random.random() };
                self.frame(0x86dd, &ipv6(stolen, ip6_to, 17, 64, &udp(9, 7, &self.mark)))
            }
        }
    }

    /// That somebody else's address is the guest's.
    fn claim(&mut self, trick: Trick) -> Vec<u8> {
        let ((mac_from, mac_to), (ip_from, ip_to), (ip6_from, ip6_to)) =
            (self.macs(), self.ip4(), self.ip6());
        if trick == Trick::ClaimsAddress {
            let operation = self.random.random_range(1..=2);
            let mut arp = vec![0, 1, 8, 0, 6, 4, 0, operation];
            arp.extend(if self.random.random() { mac_from } else { mac_to });
            arp.extend(ip_to);
            arp.extend([0xff; 6]);
            arp.extend(ip_from);
            arp.extend(&self.mark);
            return ethernet([0xff; 6], mac_from, 0x0806, &arp);
        }
        let mut advert = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
        advert.extend(ip6_to);
        advert.extend([2, 1]);
        advert.extend(mac_from);
        advert.extend(&self.mark);
        self.frame(0x86dd, &ipv6(ip6_from, ip6_to, 58, 255, &advert))
    }

    /// In tags or in a tunnel of the guest's own.
    fn wrapped(&mut self, trick: Trick) -> Vec<u8> {
        let service = self.service();
        match trick {
            Trick::Tagged => {
                let mut inner = self.random.random_range(0..4096_u16).to_be_bytes().to_vec();
                inner.extend([0x08, 0x00]);
                inner.extend(&service);
                self.frame(0x8100, &inner)
            }
            Trick::DoubleTagged => {
                let mut inner = vec![0, 100, 0x81, 0x00, 0, 200, 0x08, 0x00];
                inner.extend(&service);
                self.frame(0x88a8, &inner)
            }
            _ => {
                let vni = 1000 + u32::from(self.random.random_range(0..DEPLOYMENTS));
                let mut inner = vec![8, 0, 0, 0];
                inner.extend((vni << 8).to_be_bytes());
                inner.extend(self.frame(0x0800, &service));
                self.frame(0x0800, &ipv4(self.ip4().0, [192, 0, 2, 1], 17, &udp(4789, 4789, &inner)))
            }
        }
    }

    /// As if it configured the network.
    fn rogue(&mut self, trick: Trick) -> Vec<u8> {
        let mac_from = self.macs().0;
        if trick == Trick::RogueLease {
            let offer = udp(67, 68, &self.mark);
            return ethernet([0xff; 6], mac_from, 0x0800, &ipv4(self.ip4().0, [255; 4], 17, &offer));
        }
        let mut advert = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        advert.extend(&self.mark);
        let all = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        ethernet([0x33, 0x33, 0, 0, 0, 1], mac_from, 0x86dd, &ipv6(self.ip6().0, all, 58, 255, &advert))
    }

    /// Where it should not go.
    fn astray(&mut self, trick: Trick) -> Vec<u8> {
        let ((mac_from, _), (ip_from, ip_to)) = (self.macs(), self.ip4());
        match trick {
            Trick::GroupAddress => {
                let group = [224, 0, 0, self.random.random_range(1..255)];
                let datagram = ipv4(ip_from, group, 17, &udp(9, 9999, &self.mark));
                ethernet([1, 0, 0x5e, 0, 0, group[3]], mac_from, 0x0800, &datagram)
            }
            Trick::LinkLocalGroup => {
                let to = [1, 0x80, 0xc2, 0, 0, self.random.random_range(0..16)];
                ethernet(to, mac_from, 0x88cc, &self.mark)
            }
            Trick::UnknownTarget => {
                let mut to: [u8; 6] = self.random.random();
                to[0] &= 0xfe;
                ethernet(to, mac_from, 0x0800, &self.service())
            }
            _ => {
                let closed = self.random.random_range(1000..5000);
                self.frame(0x0800, &ipv4(ip_from, ip_to, 6, &syn(closed, &self.mark)))
            }
        }
    }

    /// Of an odd kind or size.
    fn odd(&mut self, trick: Trick) -> Vec<u8> {
        let ((mac_from, mac_to), (ip_from, ip_to), (ip6_from, ip6_to)) =
            (self.macs(), self.ip4(), self.ip6());
        match trick {
            Trick::OtherType => {
                let kind = [0x8847, 0x8863, 0x88e5, 0x22f0, 0x0842, 0x0101][self.random.random_range(0..6)];
                let to = if self.random.random() { mac_to } else { [0xff; 6] };
                ethernet(to, mac_from, kind, &self.mark)
            }
            Trick::Cut => {
                let mut whole = self.frame(0x0800, &self.service());
                whole.truncate(self.random.random_range(14..whole.len()));
                whole
            }
            Trick::Jumbo => {
                let mut payload = self.mark.clone();
                payload.resize(self.random.random_range(usize::from(MTU)..9000), 0);
                self.frame(0x0800, &ipv4(ip_from, ip_to, 6, &syn(80, &payload)))
            }
            Trick::Extended => {
                // A hop-by-hop header before the service.
                let mut inner = vec![6, 0, 1, 4, 0, 0, 0, 0];
                inner.extend(syn(22, &self.mark));
                self.frame(0x86dd, &ipv6(ip6_from, ip6_to, 0, 64, &inner))
            }
            _ => {
                let length = self.random.random_range(14..200);
                let mut bytes: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
                bytes.extend(&self.mark);
                bytes
            }
        }
    }
}

/// A frame of port `from` of a deployment.
fn frame(random: &mut StdRng, deployment: u16, from: u32, trick: Trick) -> Vec<u8> {
    let to = (from + random.random_range(1..PORTS)) % PORTS;
    Speaker { random, mark: mark(deployment, trick), from, to }.say(trick)
}

/// Who sent what was found: the deployment, and the mark's flags.
fn sender(frame: &[u8]) -> Option<(u16, u8)> {
    let at = frame.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    Some((u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]), *frame.get(at + 2)?))
}

/// What was heard.
#[derive(Debug, Default)]
struct Heard {
    honest: u64,
    tunnelled: u64,
    leaks: u64,
}

/// `frames_leaked`.
pub(super) async fn run(netd: &Path, frames: u32, seed: u64, figures: &mut Figures) -> anyhow::Result<()> {
    let machine = Machine::start(netd).await?;
    let far = Namespace::new()?;
    machine.namespace.batch(
        "ip",
        format!(
            "link add dev under0 type veth peer name under0 netns {}\naddress add {UNDERLAY}/24 dev under0\n\
             link set dev under0 up\n",
            far.path().display()
        ),
    )?;
    far.batch("ip", "address add 192.0.2.2/24 dev under0\nlink set dev under0 up\n".to_owned())?;
    let open = || UdpSocket::bind("192.0.2.2:4789");
    let tunnel = namespace::run(&far.path(), open).and_then(|inner| inner).context("the far host")?;
    tunnel.set_nonblocking(true)?;
    let status = machine.client.put_desired(&offices(1, u32::from(DEPLOYMENTS), PORTS)).await?;
    anyhow::ensure!(status.converged, "netd did not converge: {:?}", status.failures);
    let mut taps = Vec::new();
    for deployment in 0..DEPLOYMENTS {
        for port in 0..PORTS {
            let tap = open_tap(&machine.namespace, super::document::tap(u32::from(deployment), port))?;
            fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            taps.push((deployment, tap));
        }
    }
    let heard = tokio::task::spawn_blocking(move || attack(&mut taps, &tunnel, frames, seed)).await??;
    drop(machine);
    // A stand on which nothing passes would show no leak either.
    anyhow::ensure!(heard.honest > u64::from(frames) / 100, "honest frames did not pass: {heard:?}");
    anyhow::ensure!(heard.tunnelled > 0, "nothing was heard on the underlay: {heard:?}");
    #[expect(clippy::cast_precision_loss, reason = "a count of few")]
    let leaks = heard.leaks as f64;
    figures.add(
        "frames_leaked",
        leaks,
        &[leaks],
        &format!(
            "{frames} frames of {} kinds of trick by {} guests of {DEPLOYMENTS} deployments with equal addresses (seed {seed}), each \
             marked; heard at a tap of another deployment, under another deployment's VNI on the underlay, or anywhere though \
             forged; control: {} honest frames arrived, {} frames were heard on the underlay under their own VNI",
            TRICKS.len() - 1,
            u32::from(DEPLOYMENTS) * PORTS,
            heard.honest,
            heard.tunnelled
        ),
    );
    Ok(())
}

fn attack(taps: &mut [(u16, File)], tunnel: &UdpSocket, frames: u32, seed: u64) -> anyhow::Result<Heard> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut heard = Heard::default();
    for sent in 0..frames {
        let index = random.random_range(0..taps.len());
        let (deployment, tap) = &mut taps[index];
        let port = u32::try_from(index)? % PORTS;
        let trick = TRICKS[random.random_range(0..TRICKS.len())];
        let mut bytes = vec![0; VNET_BYTES];
        bytes.extend(frame(&mut random, *deployment, port, trick));
        match tap.write(&bytes) {
            Ok(_) => {}
            // The kernel takes no frame shorter than its header.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Err(error) => return Err(error).context("a guest cannot send"),
        }
        if sent % BATCH == BATCH - 1 || sent + 1 == frames {
            listen(taps, tunnel, &mut heard)?;
        }
        if sent % 250_000 == 249_999 {
            say(&format!("{} frames sent: {heard:?}", sent + 1));
        }
    }
    Ok(heard)
}

fn listen(taps: &mut [(u16, File)], tunnel: &UdpSocket, heard: &mut Heard) -> anyhow::Result<()> {
    let mut bytes = vec![0_u8; 65_550];
    for (deployment, tap) in taps {
        loop {
            match tap.read(&mut bytes) {
                Ok(length) => match sender(&bytes[VNET_BYTES..length]) {
                    Some((from, flags)) if from == *deployment && flags & 2 != 0 => heard.honest += 1,
                    Some((from, flags)) => {
                        heard.leaks += 1;
                        say(&format!(
                            "LEAK: deployment {from} to {deployment}, flags {flags}: {:02x?}",
                            &bytes[VNET_BYTES..length.min(80)]
                        ));
                    }
                    // A frame cut before its mark; its neighbours may have it.
                    None => {}
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("a guest cannot listen"),
            }
        }
    }
    loop {
        match tunnel.recv(&mut bytes) {
            Ok(length) if length > 8 => {
                let vni = u32::from_be_bytes([0, bytes[4], bytes[5], bytes[6]]);
                match sender(&bytes[8..length]) {
                    Some((from, flags)) if vni == 1000 + u32::from(from) && flags & 1 != 0 => {
                        heard.tunnelled += 1
                    }
                    Some((from, flags)) => {
                        heard.leaks += 1;
                        say(&format!("LEAK: deployment {from} under VNI {vni}, flags {flags}"));
                    }
                    None => {}
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("the far host cannot listen"),
        }
    }
}
