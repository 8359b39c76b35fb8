//! What a trunk or an underlay must be like to carry what is asked of it.

use crate::observed::{LinkKind, Observed};
use crate::target::{Target, VlanTarget};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What a tunnel puts around a frame, in bytes: outer IP, UDP, VXLAN and inner Ethernet headers.
const fn tunnel_overhead(underlay: IpAddr) -> u32 {
    match underlay {
        IpAddr::V4(_) => 50,
        IpAddr::V6(_) => 70,
    }
}

/// VLANs by (trunk's link, identifier) that others have made.
pub(crate) type TakenVlans<'a> = BTreeMap<(&'a str, u16), &'a str>;

pub(crate) fn taken_vlans(observed: &Observed) -> TakenVlans<'_> {
    let foreign = observed.links.iter().filter(|(name, link)| !link.is_ours(name));
    foreign
        .filter_map(|(name, link)| match &link.kind {
            LinkKind::Vlan { vid, parent } => Some(((parent.as_str(), *vid), name.as_str())),
            _ => None,
        })
        .collect()
}

/// Why a VLAN cannot be, if so.
pub(crate) fn refuse_vlan(
    name: &str,
    vlan: &VlanTarget,
    observed: &Observed,
    taken: &TakenVlans<'_>,
) -> Option<String> {
    let VlanTarget { vid, parent, mtu, .. } = vlan;
    let Some(trunk) = observed.links.get(parent) else {
        return Some(format!("vlan {vid} ({name}): its trunk {parent} does not exist"));
    };
    if let Some(other) = taken.get(&(parent.as_str(), *vid)) {
        return Some(format!("vlan {vid} ({name}): {other} has it on {parent} already; remove that link"));
    }
    if let Some(master) = &trunk.master {
        return Some(format!("vlan {vid} ({name}): its trunk {parent} is attached to {master}; detach it"));
    }
    if trunk.mtu < *mtu {
        return Some(format!(
            "vlan {vid} ({name}): mtu {mtu} does not fit {parent}, which has {}; raise that or lower this",
            trunk.mtu
        ));
    }
    None
}

/// Why tunnels cannot carry their longest frames, if so. They still carry shorter ones, so they stay.
pub(crate) fn narrow_underlay(target: &Target, observed: &Observed) -> Option<String> {
    let mut narrow = target.vxlans.iter().filter_map(|(name, vxlan)| {
        let link = observed.addresses.get(&vxlan.local)?;
        let needs = vxlan.mtu + tunnel_overhead(vxlan.local);
        let has = observed.links.get(link)?.mtu;
        (needs > has).then_some((needs, name, vxlan, link, has))
    });
    let first = narrow.next()?;
    let others = narrow.clone().count();
    let (needs, name, vxlan, link, has) = std::iter::once(first).chain(narrow).max_by_key(|n| n.0)?;
    let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
    Some(format!(
        "tunnel {name}{more}: mtu {} needs {needs} bytes of {link}, which holds {} and has {has}; raise that or \
         lower this",
        vxlan.mtu, vxlan.local
    ))
}
