//! Chains at the links themselves: copies for watchers, diversions to shapers, and the closed door of links that are on
//! no bridge. All in one table of the `netdev` family.
//!
//! The chain of a link is named after it and its side, since a listing does not tell where a chain is. What a chain does
//! is written and read back as text and JSON of `nft`, as the rules were; it is small, and there is none on a host
//! without watchers and limits.

use crate::apply::{link_at, mark};
use crate::nft::program::{NFT_TIMEOUT, load, refused, run};
use crate::{Kernel, NftError, StepError};
use netd_api::Counter;
use netd_plan::{
    Action, Chains, LinkKind, MirrorStep, OUTGOING_PREFIX, Observed, ObservedMirrors, Place, Side, VXLAN_PORT,
};
use rtnetlink::{LinkMessageBuilder, LinkVxlan};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::{fs, io};

const TABLE: &str = "netdev collective";
/// Of what comes in, the kernel counts from the network header on.
const ETHERNET_HEADER_BYTES: u64 = 14;
/// Before anybody else's chains at the same link.
const PRIORITY: i32 = -200;

impl Kernel {
    pub(crate) async fn mirror(&self, step: &MirrorStep) -> Result<(), StepError> {
        match step {
            MirrorStep::CreateTunnel { link, vni, local, mtu } => {
                let vxlan =
                    LinkMessageBuilder::<LinkVxlan>::new(link).mtu(*mtu).append_extra_attribute(mark());
                let vxlan = vxlan.id(*vni).port(VXLAN_PORT).learning(false);
                let message = match local {
                    IpAddr::V4(v4) => vxlan.local(*v4).build(),
                    IpAddr::V6(v6) => vxlan.local6(*v6).build(),
                };
                self.add(link, message)
            }
            MirrorStep::Replace { chains, counters } => {
                let mut text = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
                let missing = self.render(&mut text, chains, counters);
                load(&text).await.map_err(StepError::Rules)?;
                complain(missing)
            }
            MirrorStep::Amend { remove, put, forget } => {
                let mut text = String::new();
                for place in remove {
                    render_removal(&mut text, place);
                }
                let missing = self.render(&mut text, put, &BTreeMap::new());
                for counter in forget {
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "delete counter {TABLE} {counter}");
                }
                load(&text).await.map_err(StepError::Rules)?;
                complain(missing)
            }
            MirrorStep::Remove => {
                load(&format!("add table {TABLE}\ndelete table {TABLE}\n")).await.map_err(StepError::Rules)
            }
            MirrorStep::Open { link } => self.open_closed(link).await,
        }
    }

    /// Chains at links, and to links, that are there; the names of those that are not.
    fn render(
        &self,
        text: &mut String,
        chains: &Chains,
        counters: &BTreeMap<String, Counter>,
    ) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        let mut there = |link: &str| {
            let found = self.find(link).is_ok();
            if !found {
                missing.insert(link.to_owned());
            }
            found
        };
        for counter in chains.values().flatten().filter_map(Action::counter).collect::<BTreeSet<_>>() {
            let Counter { frames, bytes } = counters.get(counter).copied().unwrap_or_default();
            let bytes = bytes.saturating_sub(uncounted_bytes(counter, frames));
            let _ = writeln!(text, "add counter {TABLE} {counter} {{ packets {frames} bytes {bytes} }}");
        }
        for (place, actions) in chains {
            if !there(&place.link) {
                continue;
            }
            let chain = chain_name(place);
            let hook = match place.side {
                Side::Incoming => "ingress",
                Side::Outgoing => "egress",
            };
            let _ = writeln!(
                text,
                "add chain {TABLE} {chain} {{ type filter hook {hook} device \"{}\" priority {PRIORITY}; policy accept; }}\n\
                 flush chain {TABLE} {chain}",
                place.link
            );
            for action in actions.iter().filter(|action| action.needs().is_none_or(&mut there)) {
                let _ = writeln!(text, "add rule {TABLE} {chain} {}", render_action(action));
            }
        }
        missing
    }

    /// Looks again whether the chain is there: behind none, the guest would speak to the host's own stack. Should it
    /// be taken away later, the host still takes nothing for its own that comes from nowhere it knows.
    async fn open_closed(&self, link: &str) -> Result<(), StepError> {
        let chains = observe().await.map_err(StepError::Rules)?.chains;
        let place = Place { link: link.to_owned(), side: Side::Incoming };
        let closed = chains.get(&place).and_then(|actions| actions.last());
        if !matches!(closed, Some(Action::Drop { .. })) {
            return Err(StepError::Kernel(format!(
                "{link} stays down: nothing keeps its frames from the host"
            )));
        }
        let index = self.ours(link)?;
        seclude(link).map_err(StepError::Sysctl)?;
        self.change(link_at(index).up().build())
    }
}

/// Addresses the host did not route to this link are no senders on it, and it answers no ARP there.
fn seclude(link: &str) -> io::Result<()> {
    fs::write(format!("/proc/sys/net/ipv4/conf/{link}/rp_filter"), "1")?;
    fs::write(format!("/proc/sys/net/ipv4/conf/{link}/arp_ignore"), "8")
}

fn complain(missing: BTreeSet<String>) -> Result<(), StepError> {
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.into_iter().collect();
    Err(StepError::Kernel(format!("{} is not there; the rest was done", names.join(", "))))
}

fn uncounted_bytes(counter: &str, frames: u64) -> u64 {
    if counter.starts_with(OUTGOING_PREFIX) { 0 } else { frames.saturating_mul(ETHERNET_HEADER_BYTES) }
}

fn chain_name(place: &Place) -> String {
    match place.side {
        Side::Incoming => format!("in_{}", place.link),
        Side::Outgoing => format!("out_{}", place.link),
    }
}

fn read_chain_name(name: &str) -> Option<Place> {
    let (side, link) = match name.split_once('_')? {
        ("in", link) => (Side::Incoming, link),
        ("out", link) => (Side::Outgoing, link),
        _ => return None,
    };
    Some(Place { link: link.to_owned(), side })
}

/// The chain may have gone with its link.
fn render_removal(text: &mut String, place: &Place) {
    let chain = chain_name(place);
    let _ = writeln!(
        text,
        "add chain {TABLE} {chain}\nflush chain {TABLE} {chain}\ndelete chain {TABLE} {chain}"
    );
}

fn render_action(action: &Action) -> String {
    match action {
        Action::Copy { counter, to } => format!("counter name \"{counter}\" dup to \"{to}\""),
        Action::Divert { to } => format!("fwd to \"{to}\""),
        Action::Drop { counter } => format!("counter name \"{counter}\" drop"),
    }
}

/// Whether a link of ours can have to do with chains: there is none without one that is on no bridge.
pub(crate) fn concerned(observed: &Observed) -> bool {
    observed.ours().any(|(_, link)| {
        link.master.is_none() && matches!(link.kind, LinkKind::Ifb | LinkKind::Tap | LinkKind::Vxlan { .. })
    })
}

pub(crate) async fn observe() -> Result<ObservedMirrors, NftError> {
    let output = run(&["-j", "list", "table", "netdev", "collective"], "", NFT_TIMEOUT).await?;
    if output.status.success() {
        let table = serde_json::from_slice(&output.stdout);
        return table.map(|table| read(&table)).map_err(|_| NftError::Unreadable("list the mirrors"));
    }
    if String::from_utf8_lossy(&output.stderr).contains("No such file or directory") {
        return Ok(ObservedMirrors::default());
    }
    Err(refused(&output))
}

fn read(table: &Value) -> ObservedMirrors {
    let mut found = ObservedMirrors { found: true, ..ObservedMirrors::default() };
    for object in table["nftables"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let Some((kind, body)) = object.as_object().and_then(|o| o.iter().next()) else { continue };
        let known = match kind.as_str() {
            "metainfo" | "table" => Some(()),
            "counter" => read_counter(&mut found, body),
            "chain" => read_chain(&mut found, body),
            "rule" => read_rule(&mut found, body),
            _ => None,
        };
        found.altered |= known.is_none();
    }
    found
}

fn read_counter(found: &mut ObservedMirrors, body: &Value) -> Option<()> {
    let frames = body["packets"].as_u64()?;
    let name = body["name"].as_str()?;
    let bytes = body["bytes"].as_u64()?.saturating_add(uncounted_bytes(name, frames));
    found.counters.insert(name.to_owned(), Counter { frames, bytes });
    Some(())
}

fn read_chain(found: &mut ObservedMirrors, body: &Value) -> Option<()> {
    let place = read_chain_name(body["name"].as_str()?)?;
    let hook = match place.side {
        Side::Incoming => "ingress",
        Side::Outgoing => "egress",
    };
    let same = body["hook"] == hook && body["prio"] == PRIORITY && body["policy"] == "accept";
    // Told by newer versions of nft only.
    let device = body["dev"].as_str().is_none_or(|device| device == place.link);
    found.chains.entry(place).or_default();
    (same && device).then_some(())
}

fn read_rule(found: &mut ObservedMirrors, body: &Value) -> Option<()> {
    let place = read_chain_name(body["chain"].as_str()?)?;
    let words = body["expr"].as_array()?;
    let counter = || words.first()?["counter"].as_str().map(str::to_owned);
    let action = match words.len() {
        1 => Action::Divert { to: words[0]["fwd"]["dev"].as_str()?.to_owned() },
        2 if words[1].get("drop").is_some() => Action::Drop { counter: counter()? },
        2 => Action::Copy { counter: counter()?, to: words[1]["dup"]["addr"].as_str()?.to_owned() },
        _ => return None,
    };
    found.chains.entry(place).or_default().push(action);
    Some(())
}
