use crate::frames::{BROADCAST, Guest, arp, ethernet, ipv4, tagged, udp};
use crate::world::{World, mac, network, open, port};
use futures::StreamExt as _;
use netd_api::Uplink;
use netd_kernel::{CaptureError, CaptureLimits, Chunks};
use netd_plan::CapturePoint;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_statistics::InterfaceStatisticsOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(20);
const FROM_GUEST: u32 = 1;
const TO_GUEST: u32 = 2;

fn points(numbers: &[u8]) -> Vec<CapturePoint> {
    numbers
        .iter()
        .map(|n| CapturePoint { port: format!("office/m{n}/eth0"), tap: format!("ct{n}") })
        .collect()
}

fn limits() -> CaptureLimits {
    CaptureLimits { snap_bytes: 65_535, duration: DEADLINE, bytes: 1 << 20 }
}

struct Office {
    world: World,
    one: Guest,
    two: Guest,
}

impl Office {
    fn new() -> Self {
        let ports = vec![port(1, open()), port(2, open())];
        let world = World::with(vec![network("cb1", Uplink::None, ports)]);
        let (one, two) = (world.guest("ct1"), world.guest("ct2"));
        Self { world, one, two }
    }

    fn begin(&self, numbers: &[u8], limits: CaptureLimits) -> Result<Chunks, CaptureError> {
        let points = points(numbers);
        self.world.namespace.run(move |_, _| netd_kernel::capture(&points, limits))
    }

    /// Packet sockets in the namespace, the header of the list left out.
    fn sockets(&self) -> usize {
        self.world.namespace.shell("cat /proc/thread-self/net/packet").lines().count() - 1
    }
}

/// Reads until the stream ends, or holds so many frames.
fn read(chunks: &mut Chunks, frames: usize) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut bytes = Vec::new();
        while frames == usize::MAX || packets(&bytes).len() < frames {
            match tokio::time::timeout(DEADLINE, chunks.next()).await.expect("no frame came") {
                Some(chunk) => bytes.extend(chunk),
                None => break,
            }
        }
        bytes
    })
}

fn blocks(bytes: &[u8]) -> Vec<Block<'static>> {
    let mut blocks = Vec::new();
    if bytes.is_empty() {
        return blocks;
    }
    let mut reader = PcapNgReader::new(bytes).unwrap();
    while let Some(block) = reader.next_block() {
        blocks.push(block.unwrap().into_owned());
    }
    blocks
}

fn packets(bytes: &[u8]) -> Vec<EnhancedPacketBlock<'static>> {
    let packets = blocks(bytes).into_iter().filter_map(|block| match block {
        Block::EnhancedPacket(packet) => Some(packet),
        _ => None,
    });
    packets.collect()
}

fn way(packet: &EnhancedPacketBlock<'_>) -> u32 {
    let flags = packet.options.iter().find_map(|option| match option {
        EnhancedPacketOption::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap()
}

/// Received and dropped, of each interface.
fn statistics(bytes: &[u8]) -> Vec<(u64, u64)> {
    let statistics = blocks(bytes).into_iter().filter_map(|block| match block {
        Block::InterfaceStatistics(statistics) => Some(statistics),
        _ => None,
    });
    let number = |of: &[InterfaceStatisticsOption<'_>],
                  pick: fn(&InterfaceStatisticsOption<'_>) -> Option<u64>| {
        of.iter().find_map(pick).unwrap()
    };
    statistics
        .map(|block| {
            let received = number(&block.options, |option| match option {
                InterfaceStatisticsOption::IsbIfRecv(frames) => Some(*frames),
                _ => None,
            });
            let dropped = number(&block.options, |option| match option {
                InterfaceStatisticsOption::IsbIfDrop(frames) => Some(*frames),
                _ => None,
            });
            (received, dropped)
        })
        .collect()
}

fn datagram() -> Vec<u8> {
    ipv4(mac(2), mac(1), "10.0.0.1", "10.0.0.2", 17, &udp(1, 2))
}

#[test]
fn frames_are_seen_at_both_ports_with_their_way_and_also_those_that_rules_drop() {
    let office = Office::new();
    let mut chunks = office.begin(&[1, 2], limits()).unwrap();
    let spoofed = ipv4(mac(2), mac(9), "10.0.0.1", "10.0.0.2", 17, &udp(1, 2));
    office.one.send(&spoofed);
    office.one.send(&datagram());
    office.two.wait_for(&datagram());
    let bytes = read(&mut chunks, 3);
    let mut seen: Vec<_> =
        packets(&bytes).iter().map(|p| (p.interface_id, way(p), p.data.to_vec(), p.original_len)).collect();
    seen.sort_by_key(|(interface, ..)| *interface);
    assert_eq!(
        seen,
        [(0, FROM_GUEST, spoofed, 60), (0, FROM_GUEST, datagram(), 60), (1, TO_GUEST, datagram(), 60),]
    );
    let names: Vec<String> = blocks(&bytes)
        .iter()
        .filter_map(|block| match block {
            Block::InterfaceDescription(description) => Some(format!("{:?}", description.options)),
            _ => None,
        })
        .collect();
    assert!(names[0].contains("ct1") && names[0].contains("office/m1/eth0"), "{names:?}");
}

#[test]
fn a_vlan_tag_that_the_kernel_took_out_is_back_in_its_place() {
    let office = Office::new();
    let mut chunks = office.begin(&[1], limits()).unwrap();
    let frame = tagged(&datagram(), 0x6064);
    office.one.send(&frame);
    let packets = packets(&read(&mut chunks, 1));
    assert_eq!(packets[0].data, frame);
    assert_eq!(packets[0].original_len as usize, frame.len());
}

#[test]
fn tcpdump_reads_a_capture() {
    let office = Office::new();
    let mut chunks = office.begin(&[1, 2], limits()).unwrap();
    office.one.send(&arp(1, BROADCAST, (mac(1), "10.0.0.1"), ([0; 6], "10.0.0.2")));
    let bytes = read(&mut chunks, 2);
    let mut tcpdump = Command::new("tcpdump")
        .args(["-n", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("install tcpdump");
    tcpdump.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = tcpdump.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("ARP, Request who-has 10.0.0.2 tell 10.0.0.1").count(), 2, "{text}");
}

#[test]
fn a_hang_up_frees_the_sockets() {
    let office = Office::new();
    let chunks = office.begin(&[1, 2], limits()).unwrap();
    assert_eq!(office.sockets(), 2);
    drop(chunks);
    let deadline = Instant::now() + DEADLINE;
    while office.sockets() > 0 {
        assert!(Instant::now() < deadline, "the sockets stay open");
    }
}

#[test]
fn the_limit_of_bytes_is_kept_and_what_was_seen_is_told() {
    let office = Office::new();
    let limits = CaptureLimits { bytes: 4096, ..limits() };
    let mut chunks = office.begin(&[1], limits).unwrap();
    for _ in 0..200 {
        office.one.send(&datagram());
    }
    let bytes = read(&mut chunks, usize::MAX);
    assert!((3900..=4096).contains(&bytes.len()), "{} bytes", bytes.len());
    let (received, dropped) = statistics(&bytes)[0];
    assert!(received >= packets(&bytes).len() as u64 && dropped == 0, "{received} {dropped}");
    assert_eq!(office.sockets(), 0);
}

#[test]
fn the_limit_of_time_ends_it_also_when_nothing_comes() {
    let office = Office::new();
    let limits = CaptureLimits { duration: Duration::from_millis(50), ..limits() };
    let mut chunks = office.begin(&[1, 2], limits).unwrap();
    let bytes = read(&mut chunks, usize::MAX);
    assert_eq!(statistics(&bytes), [(0, 0), (0, 0)]);
}

#[test]
fn a_long_frame_is_cut_and_its_length_told() {
    let office = Office::new();
    let limits = CaptureLimits { snap_bytes: 14, ..limits() };
    let mut chunks = office.begin(&[1], limits).unwrap();
    office.one.send(&ethernet(mac(2), mac(1), 0x88b5, &[7; 1400]));
    let packets = packets(&read(&mut chunks, 1));
    assert_eq!((packets[0].data.len(), packets[0].original_len), (14, 1414));
}

/// Whoever captures and does not read costs frames of the capture, not of the guests.
#[test]
fn a_caller_who_does_not_read_slows_no_guest_and_is_told_what_was_dropped() {
    let office = Office::new();
    let limits = CaptureLimits { bytes: 1 << 30, duration: Duration::from_secs(5), ..limits() };
    let mut chunks = office.begin(&[1], limits).unwrap();
    let frame = ethernet(mac(2), mac(1), 0x88b5, &[7; 1400]);
    // More than the capture's buffers hold.
    for _ in 0..40_000 {
        office.one.send(&frame);
    }
    office.one.send(&datagram());
    office.two.wait_for(&datagram());
    let bytes = read(&mut chunks, usize::MAX);
    let (received, dropped) = statistics(&bytes)[0];
    let told = packets(&bytes).len() as u64;
    assert!(dropped > 0 && told + dropped <= received, "{told} told, {dropped} dropped, {received} received");
}

#[test]
fn a_capture_that_cannot_be_says_why() {
    let office = Office::new();
    let begin = |numbers: &[u8], limits| office.begin(numbers, limits).map(drop).unwrap_err();
    assert!(matches!(begin(&[], limits()), CaptureError::Ports(0)));
    assert!(matches!(begin(&[1; 65], limits()), CaptureError::Ports(65)));
    assert!(matches!(begin(&[1], CaptureLimits { bytes: 100, ..limits() }), CaptureError::Bytes { .. }));
    assert_eq!(begin(&[9], limits()).to_string(), "port office/m9/eth0: its link ct9 cannot be listened to");
}
