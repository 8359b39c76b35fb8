//! The table: rendering, the child process, reading back.

use ipnet::IpNet;
use netd_api::Counter;
use netd_plan::{Counters, Element, GROUP, L4, ObservedRules, Rules, Set};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const SKELETON: &str = include_str!("skeleton.nft");
const TABLE: &str = "bridge collective";
const SEAL_PREFIX: &str = "sealed_";
/// Longest run of `nft`; thousands of ports take a third of a second.
const NFT_TIMEOUT: Duration = Duration::from_secs(20);
/// The kernel counts from the network header on.
const ETHERNET_HEADER_BYTES: u64 = 14;

/// Why `nft` failed. Nothing was changed: a transaction is whole or absent.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// It cannot be run.
    #[error("cannot run nft; install the package nftables")]
    Run(#[source] io::Error),
    /// It does not end.
    #[error("nft did not end within {} s", NFT_TIMEOUT.as_secs())]
    Timeout,
    /// It refused.
    #[error("nft refused: {0}")]
    Refused(String),
    /// Its listing is no JSON.
    #[error("nft lists its table in an unknown way")]
    Listing(#[source] serde_json::Error),
}

/// What is in the table.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) rules: ObservedRules,
    pub(crate) counters: BTreeMap<String, Counters>,
}

pub(crate) async fn observe() -> Result<Listing, NftError> {
    match list().await? {
        Some(table) => Ok(read(&table)),
        None => Ok(Listing::default()),
    }
}

pub(crate) async fn replace(rules: &Rules, counters: &BTreeMap<String, Counters>) -> Result<(), NftError> {
    load(&render_replace(rules, counters)).await?;
    let Some(table) = list().await? else {
        return Err(NftError::Refused("the table vanished right after it was made".to_owned()));
    };
    load(&format!("add chain {TABLE} {}\n", seal(&table))).await
}

pub(crate) async fn amend(
    remove: &BTreeSet<(Set, Element)>,
    add: &BTreeSet<(Set, Element)>,
) -> Result<(), NftError> {
    let mut text = String::new();
    render_elements(&mut text, "delete", remove, &BTreeMap::new());
    render_elements(&mut text, "add", add, &BTreeMap::new());
    load(&text).await
}

pub(crate) async fn remove() -> Result<(), NftError> {
    load(&format!("add table {TABLE}\ndelete table {TABLE}\n")).await
}

async fn list() -> Result<Option<Value>, NftError> {
    let output = run(&["-j", "list", "table", "bridge", "collective"], None).await?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map(Some).map_err(NftError::Listing);
    }
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("No such file or directory") {
        return Ok(None);
    }
    Err(NftError::Refused(error.trim().to_owned()))
}

async fn load(text: &str) -> Result<(), NftError> {
    let output = run(&["-f", "-"], Some(text)).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(NftError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

async fn run(arguments: &[&str], input: Option<&str>) -> Result<Output, NftError> {
    let mut child = Command::new("nft")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(NftError::Run)?;
    let work = async {
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            // A refusal may close the pipe early; the exit status tells.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    tokio::time::timeout(NFT_TIMEOUT, work).await.map_err(|_| NftError::Timeout)?.map_err(NftError::Run)
}

/// The whole table as it is handed to `nft -f -`, for those who look at what a document can make of it.
#[must_use]
pub fn render(rules: &Rules) -> String {
    render_replace(rules, &BTreeMap::new())
}

fn render_replace(rules: &Rules, counters: &BTreeMap<String, Counters>) -> String {
    let mut text = format!("add table {TABLE}\ndelete table {TABLE}\n");
    text.push_str(&SKELETON.replace("GROUP", &format!("{GROUP:#010x}")));
    render_elements(&mut text, "add", &rules.elements, counters);
    text
}

fn render_elements(
    text: &mut String,
    verb: &str,
    elements: &BTreeSet<(Set, Element)>,
    counters: &BTreeMap<String, Counters>,
) {
    let mut by_set: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (set, element) in elements {
        let mut words = render_element(element);
        if let (true, Element::Link(link)) = (Set::COUNTING.contains(set), element)
            && let Some(counters) = counters.get(link)
        {
            let Counter { frames, bytes } = counters.of(*set);
            let bytes = bytes.saturating_sub(frames * ETHERNET_HEADER_BYTES);
            words = format!("{words} counter packets {frames} bytes {bytes}");
        }
        by_set.entry(set_name(*set, element)).or_default().push(words);
    }
    for (set, elements) in by_set {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{verb} element {TABLE} {set} {{ {} }}", elements.join(", "));
    }
}

fn render_element(element: &Element) -> String {
    match element {
        Element::Link(link) => format!("\"{link}\""),
        Element::Pair(from, to) => format!("\"{from}\" . \"{to}\""),
        Element::Mac(link, mac) => format!("\"{link}\" . {mac}"),
        Element::MacIp(link, mac, address) => format!("\"{link}\" . {mac} . {address}"),
        Element::Target(link, address) => format!("\"{link}\" . 0x{:032x}", u128::from(*address)),
        Element::Remote(link, net) => format!("\"{link}\" . {net}"),
        Element::Service(link, net, l4, number) => {
            format!("\"{link}\" . {net} . {} . {number}", l4_number(*l4))
        }
    }
}

fn l4_number(l4: L4) -> u8 {
    match l4 {
        L4::Tcp => 6,
        L4::Udp => 17,
    }
}

const SETS: [(&str, Set); 26] = [
    ("ports", Set::Ports),
    ("uplinks", Set::Uplinks),
    ("wire_ends", Set::WireEnds),
    ("wires", Set::Wires),
    ("routers", Set::Routers),
    ("macs", Set::Macs),
    ("own4", Set::Own4),
    ("own6", Set::Own6),
    ("target6", Set::Target6),
    ("any4_from", Set::AnyFrom),
    ("any6_from", Set::AnyFrom),
    ("any4_to", Set::AnyTo),
    ("any6_to", Set::AnyTo),
    ("echo4_from", Set::EchoFrom),
    ("echo6_from", Set::EchoFrom),
    ("echo4_to", Set::EchoTo),
    ("echo6_to", Set::EchoTo),
    ("open4_from", Set::OpenFrom),
    ("open6_from", Set::OpenFrom),
    ("open4_to", Set::OpenTo),
    ("open6_to", Set::OpenTo),
    ("passed_from", Set::PassedFrom),
    ("passed_to", Set::PassedTo),
    ("spoofed", Set::Spoofed),
    ("dropped_from", Set::DroppedFrom),
    ("dropped_to", Set::DroppedTo),
];

/// Sets of remotes come in pairs, one a version of IP.
fn set_name(set: Set, element: &Element) -> &'static str {
    let six = matches!(element, Element::Remote(_, IpNet::V6(_)) | Element::Service(_, IpNet::V6(_), ..));
    let mut names = SETS.iter().filter(|(_, s)| *s == set).map(|(name, _)| *name);
    let first = names.next().unwrap_or_default();
    if six { names.next().unwrap_or(first) } else { first }
}

/// The name of the chain that says: this is the skeleton of this netd, as this nft shows it.
fn seal(table: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(SKELETON);
    for object in objects(table) {
        let mut object = object.clone();
        let Some((kind, body)) = object.as_object_mut().and_then(|o| o.iter_mut().next()) else { continue };
        let is_seal = body["name"].as_str().is_some_and(|name| name.starts_with(SEAL_PREFIX));
        if kind == "metainfo" || (kind == "chain" && is_seal) {
            continue;
        }
        if let Some(fields) = body.as_object_mut() {
            fields.remove("handle");
            fields.remove("elem");
        }
        hash.update(object.to_string());
    }
    format!("{SEAL_PREFIX}{}", hex::encode(&hash.finalize()[..16]))
}

fn objects(table: &Value) -> &[Value] {
    table["nftables"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn read(table: &Value) -> Listing {
    let mut rules = Rules::default();
    let mut counters: BTreeMap<String, Counters> = BTreeMap::new();
    let mut intact = true;
    for body in objects(table).iter().filter_map(|object| object.get("set")) {
        let name = body["name"].as_str().unwrap_or_default();
        let Some((_, set)) = SETS.iter().find(|(known, _)| *known == name) else { continue };
        for element in body["elem"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let value = element.get("elem").map_or(element, |inner| &inner["val"]);
            let Some(parsed) = read_element(*set, value) else {
                intact = false;
                continue;
            };
            if let (true, Element::Link(link)) = (Set::COUNTING.contains(set), &parsed) {
                counters
                    .entry(link.clone())
                    .or_default()
                    .set(*set, read_counter(&element["elem"]["counter"]));
            }
            rules.elements.insert((*set, parsed));
        }
    }
    let wanted = seal(table);
    let seals: Vec<&str> = objects(table)
        .iter()
        .filter_map(|object| object["chain"]["name"].as_str())
        .filter(|name| name.starts_with(SEAL_PREFIX))
        .collect();
    let rules =
        if intact && seals == [wanted] { ObservedRules::Intact(rules) } else { ObservedRules::Altered };
    Listing { rules, counters }
}

fn read_counter(value: &Value) -> Counter {
    let number = |field: &str| value[field].as_u64().unwrap_or_default();
    let frames = number("packets");
    Counter { frames, bytes: number("bytes") + frames * ETHERNET_HEADER_BYTES }
}

fn read_element(set: Set, value: &Value) -> Option<Element> {
    if let Some(link) = value.as_str() {
        return Some(Element::Link(link.to_owned()));
    }
    let parts = value.get("concat")?.as_array()?;
    let link = parts.first()?.as_str()?.to_owned();
    let text = |i: usize| parts.get(i).and_then(Value::as_str);
    let element = match (set, parts.len()) {
        (Set::Wires, 2) => Element::Pair(link, text(1)?.to_owned()),
        (Set::Macs, 2) => Element::Mac(link, text(1)?.parse().ok()?),
        (Set::Own4 | Set::Own6, 3) => Element::MacIp(link, text(1)?.parse().ok()?, text(2)?.parse().ok()?),
        (Set::Target6, 2) => Element::Target(link, read_integer(parts.get(1)?)?.into()),
        (_, 2) => Element::Remote(link, read_net(parts.get(1)?)?),
        (_, 4) => {
            let number = u16::try_from(parts.get(3)?.as_u64()?).ok()?;
            Element::Service(link, read_net(parts.get(1)?)?, read_l4(parts.get(2)?)?, number)
        }
        _ => return None,
    };
    Some(element)
}

fn read_integer(value: &Value) -> Option<u128> {
    match value.as_str() {
        Some(text) => match text.strip_prefix("0x") {
            Some(hex) => u128::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        },
        None => value.as_u64().map(u128::from),
    }
}

fn read_net(value: &Value) -> Option<IpNet> {
    if let Some(text) = value.as_str() {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    }
    let prefix = value.get("prefix")?;
    let address: IpAddr = prefix["addr"].as_str()?.parse().ok()?;
    IpNet::new(address, u8::try_from(prefix["len"].as_u64()?).ok()?).ok()
}

fn read_l4(value: &Value) -> Option<L4> {
    match (value.as_str(), value.as_u64()) {
        (Some("tcp"), _) | (_, Some(6)) => Some(L4::Tcp),
        (Some("udp"), _) | (_, Some(17)) => Some(L4::Udp),
        _ => None,
    }
}
