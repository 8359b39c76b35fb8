//! Elements of the table of rules: which set each is in, as bytes of the kernel, and as words for people.

use super::ladder;
use super::message::{Messages, attribute, attributes, text, u64_of};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netd_api::Counter;
use netd_plan::{Element, L4, Ladder, Set};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::MacAddress;

const ELEMENT_KEY: u16 = 1;
const ELEMENT_FLAGS: u16 = 3;
const ELEMENT_EXPRESSION: u16 = 7;
const DATA_VALUE: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;
/// The kernel counts from the network header on.
const ETHERNET_HEADER_BYTES: u64 = 14;
const LINK_BYTES: usize = 16;
/// The kernel takes no longer key.
const KEY_BYTES_MAX: usize = 64;
/// Of every field in a key.
const ALIGNMENT: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    Four,
    Six,
}

/// What a set's keys are made of, after the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    Link,
    Pair,
    Mac,
    Own(Version),
    Target,
    Permission(Version, Remotes, Service),
    Gate(Ladder, Service),
}

/// Which remotes a set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Remotes {
    All,
    One,
    /// Prefixes of this length.
    Rung(u8),
}

/// Whether keys name a protocol and a port number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Service {
    Any,
    Named,
}

/// One set of the skeleton.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) name: String,
    pub(super) set: Set,
    shape: Shape,
}

impl Layout {
    /// The rungs behind a gate come after it.
    pub(super) fn is_gate(&self) -> bool {
        matches!(self.shape, Shape::Gate(..))
    }

    pub(super) fn is_rung(&self) -> bool {
        matches!(self.shape, Shape::Permission(_, Remotes::Rung(_), _))
    }
}

/// All sets of the skeleton whose elements are computed.
#[derive(Debug)]
pub(super) struct Layouts {
    all: Vec<Layout>,
    index: HashMap<(Set, Shape), usize>,
}

impl Layouts {
    pub(super) fn new() -> Self {
        let plain = [
            ("ports", Set::Ports, Shape::Link),
            ("uplinks", Set::Uplinks, Shape::Link),
            ("wire_ends", Set::WireEnds, Shape::Link),
            ("wires", Set::Wires, Shape::Pair),
            ("routers", Set::Routers, Shape::Link),
            ("macs", Set::Macs, Shape::Mac),
            ("own4", Set::Own4, Shape::Own(Version::Four)),
            ("own6", Set::Own6, Shape::Own(Version::Six)),
            ("target6", Set::Target6, Shape::Target),
            ("passed_from", Set::PassedFrom, Shape::Link),
            ("passed_to", Set::PassedTo, Shape::Link),
            ("spoofed", Set::Spoofed, Shape::Link),
            ("dropped_from", Set::DroppedFrom, Shape::Link),
            ("dropped_to", Set::DroppedTo, Shape::Link),
        ];
        let mut all: Vec<Layout> = plain
            .into_iter()
            .map(|(name, set, shape)| Layout { name: name.to_owned(), set, shape })
            .collect();
        let permissions = [
            ("any", "from", Set::AnyFrom, Service::Any),
            ("any", "to", Set::AnyTo, Service::Any),
            ("echo", "from", Set::EchoFrom, Service::Any),
            ("echo", "to", Set::EchoTo, Service::Any),
            ("open", "from", Set::OpenFrom, Service::Named),
            ("open", "to", Set::OpenTo, Service::Named),
        ];
        for (word, direction, set, service) in permissions {
            for version in [Version::Four, Version::Six] {
                let name = format!("{word}{}_{direction}", if version == Version::Four { 4 } else { 6 });
                let mut push = |suffix: &str, shape| {
                    all.push(Layout { name: format!("{name}{suffix}"), set, shape });
                };
                push("_all", Shape::Permission(version, Remotes::All, service));
                push("_one", Shape::Permission(version, Remotes::One, service));
                for ladder in Ladder::ALL.into_iter().filter(|l| l.is_ipv4() == (version == Version::Four)) {
                    push(ladder::gate_suffix(ladder), Shape::Gate(ladder, service));
                    for rung in ladder.rungs() {
                        push(&format!("_{rung}"), Shape::Permission(version, Remotes::Rung(*rung), service));
                    }
                }
            }
        }
        let index = all.iter().enumerate().map(|(at, layout)| ((layout.set, layout.shape), at)).collect();
        Self { all, index }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Layout> {
        self.all.iter()
    }

    /// Elements by their sets, in the order of [`Self::iter`].
    pub(super) fn sort<'a>(
        &'a self,
        elements: impl IntoIterator<Item = &'a (Set, Element)>,
    ) -> Vec<(&'a Layout, Vec<&'a (Set, Element)>)> {
        let mut sorted: Vec<_> = self.all.iter().map(|layout| (layout, Vec::new())).collect();
        for entry in elements {
            // An element of a shape that its set has not is nowhere, and then nothing is passed because of it.
            let place = self.index.get(&(entry.0, shape_of(&entry.1)));
            if let Some((_, members)) = place.and_then(|at| sorted.get_mut(*at)) {
                members.push(entry);
            }
        }
        sorted.retain(|(_, members)| !members.is_empty());
        sorted
    }
}

fn shape_of(element: &Element) -> Shape {
    match element {
        Element::Link(_) => Shape::Link,
        Element::Pair(..) => Shape::Pair,
        Element::Mac(..) => Shape::Mac,
        Element::MacIp(_, _, address) => Shape::Own(version_of(*address)),
        Element::Target(..) => Shape::Target,
        Element::Remote(_, net) => Shape::Permission(version_of(net.addr()), remotes_of(net), Service::Any),
        Element::Service(_, net, ..) => {
            Shape::Permission(version_of(net.addr()), remotes_of(net), Service::Named)
        }
        Element::Gate(_, ladder, None) => Shape::Gate(*ladder, Service::Any),
        Element::Gate(_, ladder, Some(_)) => Shape::Gate(*ladder, Service::Named),
    }
}

fn version_of(address: IpAddr) -> Version {
    if address.is_ipv4() { Version::Four } else { Version::Six }
}

fn remotes_of(net: &IpNet) -> Remotes {
    match net.prefix_len() {
        0 => Remotes::All,
        length if length == net.max_prefix_len() => Remotes::One,
        length => Remotes::Rung(length),
    }
}

/// An element without its counter, as `nft` reads it.
pub(super) fn words(element: &Element) -> String {
    let remote = |net: &IpNet| match remotes_of(net) {
        Remotes::All => String::new(),
        Remotes::One | Remotes::Rung(_) => format!(" . {}", net.addr()),
    };
    match element {
        Element::Link(link) => format!("\"{link}\""),
        Element::Pair(from, to) => format!("\"{from}\" . \"{to}\""),
        Element::Mac(link, mac) => format!("\"{link}\" . {mac}"),
        Element::MacIp(link, mac, address) => format!("\"{link}\" . {mac} . {address}"),
        Element::Target(link, address) => format!("\"{link}\" . 0x{:032x}", u128::from(*address)),
        Element::Remote(link, net) => format!("\"{link}\"{}", remote(net)),
        Element::Service(link, net, l4, number) => {
            format!("\"{link}\"{} . {} . {number}", remote(net), l4_number(*l4))
        }
        Element::Gate(link, _, None) => format!("\"{link}\""),
        Element::Gate(link, _, Some((l4, number))) => format!("\"{link}\" . {} . {number}", l4_number(*l4)),
    }
}

/// Writes one element, with a counter to start with.
pub(super) fn write(message: &mut Messages, element: &Element, counter: Option<Counter>) {
    write_key(message, element);
    let Some(Counter { frames, bytes }) = counter else { return };
    let bytes = bytes.saturating_sub(frames.saturating_mul(ETHERNET_HEADER_BYTES));
    let expression = message.nest(ELEMENT_EXPRESSION);
    message.text(EXPRESSION_NAME, "counter");
    let data = message.nest(EXPRESSION_DATA);
    message.attribute(COUNTER_BYTES, &bytes.to_be_bytes());
    message.attribute(COUNTER_PACKETS, &frames.to_be_bytes());
    message.end_nest(&data);
    message.end_nest(&expression);
}

fn write_key(message: &mut Messages, element: &Element) {
    let mut key = Key::new();
    match element {
        Element::Link(link) => key.link(link),
        Element::Pair(from, to) => {
            key.link(from);
            key.link(to);
        }
        Element::Mac(link, mac) => {
            key.link(link);
            key.field(&mac.0);
        }
        Element::MacIp(link, mac, address) => {
            key.link(link);
            key.field(&mac.0);
            key.address(*address);
        }
        Element::Target(link, address) => {
            key.link(link);
            key.field(&address.octets());
        }
        Element::Remote(link, net) => {
            key.link(link);
            key.remote(net);
        }
        Element::Service(link, net, l4, number) => {
            key.link(link);
            key.remote(net);
            key.service(*l4, *number);
        }
        Element::Gate(link, _, service) => {
            key.link(link);
            if let Some((l4, number)) = service {
                key.service(*l4, *number);
            }
        }
    }
    let nest = message.nest(ELEMENT_KEY);
    message.attribute(DATA_VALUE, key.bytes());
    message.end_nest(&nest);
}

/// Fields of a key, each padded to [`ALIGNMENT`].
struct Key {
    bytes: [u8; KEY_BYTES_MAX],
    length: usize,
}

impl Key {
    fn new() -> Self {
        Self { bytes: [0; KEY_BYTES_MAX], length: 0 }
    }

    fn field(&mut self, value: &[u8]) {
        let end = self.length + value.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(value);
        }
        self.length = end.next_multiple_of(ALIGNMENT);
    }

    /// Checked names are shorter than the field.
    fn link(&mut self, name: &str) {
        let mut padded = [0; LINK_BYTES];
        for (room, byte) in padded.iter_mut().zip(name.bytes()) {
            *room = byte;
        }
        self.field(&padded);
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.field(&v4.octets()),
            IpAddr::V6(v6) => self.field(&v6.octets()),
        }
    }

    fn remote(&mut self, net: &IpNet) {
        match remotes_of(net) {
            Remotes::All => {}
            Remotes::One | Remotes::Rung(_) => self.address(net.addr()),
        }
    }

    fn service(&mut self, l4: L4, number: u16) {
        self.field(&[l4_number(l4)]);
        self.field(&number.to_be_bytes());
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

fn l4_number(l4: L4) -> u8 {
    match l4 {
        L4::Tcp => 6,
        L4::Udp => 17,
    }
}

/// Reads one element, with a number that orders links as their names do; none if netd does not write such ones.
pub(super) fn read(layout: &Layout, attributes: &[u8]) -> Option<(u128, Element)> {
    if attribute(attributes, ELEMENT_FLAGS).is_some() {
        return None;
    }
    let mut key = Fields(value_of(attributes, ELEMENT_KEY)?);
    let order = u128::from_be_bytes(*key.0.first_chunk()?);
    let link = key.link()?;
    let element = match layout.shape {
        Shape::Link => Element::Link(link),
        Shape::Pair => Element::Pair(link, key.link()?),
        Shape::Mac => Element::Mac(link, key.mac()?),
        Shape::Own(version) => Element::MacIp(link, key.mac()?, key.address(version)?),
        Shape::Target => Element::Target(link, key.v6()?),
        Shape::Permission(version, remotes, service) => {
            let net = match remotes {
                Remotes::All => everything(version),
                Remotes::One => IpNet::from(key.address(version)?),
                Remotes::Rung(length) => {
                    let net = IpNet::new(key.address(version)?, length).ok()?;
                    // Bits after its length would never be found.
                    (net.addr() == net.network()).then_some(net)?
                }
            };
            match service {
                Service::Any => Element::Remote(link, net),
                Service::Named => Element::Service(link, net, key.l4()?, key.number()?),
            }
        }
        Shape::Gate(ladder, Service::Any) => Element::Gate(link, ladder, None),
        Shape::Gate(ladder, Service::Named) => Element::Gate(link, ladder, Some((key.l4()?, key.number()?))),
    };
    key.0.is_empty().then_some((order, element))
}

fn value_of(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    attribute(attribute(attributes, kind)?, DATA_VALUE)
}

/// The counter of an element.
pub(super) fn read_counter(element: &[u8]) -> Option<Counter> {
    let (_, expression) = attributes(element).find(|(kind, value)| {
        *kind == ELEMENT_EXPRESSION
            && attribute(value, EXPRESSION_NAME).is_some_and(|name| text(name) == "counter")
    })?;
    let data = attribute(expression, EXPRESSION_DATA)?;
    let number = |kind| attribute(data, kind).and_then(u64_of).unwrap_or_default();
    let frames = number(COUNTER_PACKETS);
    let bytes = number(COUNTER_BYTES).saturating_add(frames.saturating_mul(ETHERNET_HEADER_BYTES));
    Some(Counter { frames, bytes })
}

fn everything(version: Version) -> IpNet {
    match version {
        Version::Four => Ipv4Net::default().into(),
        Version::Six => Ipv6Net::default().into(),
    }
}

/// Fields that are left of a key.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let field = self.0.first_chunk::<N>()?;
        self.0 = self.0.get(N.next_multiple_of(ALIGNMENT)..)?;
        Some(field)
    }

    pub(super) fn link(&mut self) -> Option<String> {
        let name = text(self.take::<LINK_BYTES>()?);
        (!name.is_empty()).then(|| name.to_owned())
    }

    pub(super) fn v4(&mut self) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(*self.take::<4>()?))
    }

    pub(super) fn v6(&mut self) -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(*self.take::<16>()?))
    }

    pub(super) fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(*self.take::<2>()?))
    }

    fn address(&mut self, version: Version) -> Option<IpAddr> {
        Some(match version {
            Version::Four => self.v4()?.into(),
            Version::Six => self.v6()?.into(),
        })
    }

    fn mac(&mut self) -> Option<MacAddress> {
        Some(MacAddress(*self.take::<6>()?))
    }

    fn l4(&mut self) -> Option<L4> {
        match self.take::<1>()? {
            [6] => Some(L4::Tcp),
            [17] => Some(L4::Udp),
            _ => None,
        }
    }
}
