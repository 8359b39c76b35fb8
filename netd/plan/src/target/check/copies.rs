//! Watchers and mirrors.

use super::{MTU_MAX, MTU_MIN, Seen, VNI_MAX, field, id, link_name, no_peer};
use crate::target::{Host, Invalid};
use crate::{TAP_PREFIX, VXLAN_PREFIX};
use netd_api::{Desired, MirrorFrom, MirrorTo, MirrorTunnel};
use std::collections::{BTreeSet, HashMap};

/// Checks what is not of one network, after all networks.
pub(crate) fn copies(desired: &Desired, host: &Host, seen: &mut Seen) -> Result<(), Invalid> {
    seen.begin("");
    let mut watchers = HashMap::new();
    for watcher in &desired.watchers {
        id("watcher", &watcher.id)?;
        let owner = format!("watcher {}", watcher.id);
        seen.once("port id", &watcher.id, &owner)?;
        link_name(&owner, "tap", &watcher.tap, TAP_PREFIX)?;
        seen.once("tap", &watcher.tap, &owner)?;
        if !(MTU_MIN..=MTU_MAX).contains(&watcher.mtu) {
            let problem = format!("is out of range; use {MTU_MIN} to {MTU_MAX}");
            return Err(field(&owner, "mtu", &watcher.mtu, problem));
        }
        watchers.insert(watcher.tap.as_str(), watcher.mtu);
    }
    if !desired.mirrors.is_empty() {
        mirrors(desired, &watchers, host, seen)?;
    }
    Ok(())
}

fn mirrors(
    desired: &Desired,
    watchers: &HashMap<&str, u16>,
    host: &Host,
    seen: &mut Seen,
) -> Result<(), Invalid> {
    let taps: HashMap<&str, u16> = desired
        .networks
        .iter()
        .flat_map(|network| network.ports.iter().map(|port| (port.tap.as_str(), network.mtu)))
        .collect();
    let networks: HashMap<&str, u16> = desired.networks.iter().map(|n| (n.id.as_str(), n.mtu)).collect();
    let (mut tunnels, mut once) = (HashMap::new(), BTreeSet::new());
    for mirror in &desired.mirrors {
        id("mirror", &mirror.id)?;
        let owner = format!("mirror {}", mirror.id);
        if !once.insert((&mirror.from, &mirror.to)) {
            return Err(field(&owner, "from", &place(&mirror.from), "is copied to the same end twice"));
        }
        let mtu = match &mirror.from {
            MirrorFrom::Port { tap } if watchers.contains_key(tap.as_str()) => {
                return Err(field(&owner, "from", tap, "is a watcher's, which sends nothing; name a port's"));
            }
            MirrorFrom::Port { tap } => Some(*taps.get(tap.as_str()).ok_or_else(|| {
                field(&owner, "from", tap, "is no port's tap in this document; name one that is")
            })?),
            MirrorFrom::Network { id } => Some(*networks.get(id.as_str()).ok_or_else(|| {
                field(&owner, "from", id, "is no network of this document; name one that is")
            })?),
            MirrorFrom::Tunnel(from) => {
                tunnel(from, &owner, host, seen, &mut tunnels)?;
                None
            }
        };
        match &mirror.to {
            MirrorTo::Watcher { tap } => {
                let Some(watcher) = watchers.get(tap.as_str()) else {
                    return Err(field(&owner, "to", tap, "is no watcher's tap in this document"));
                };
                if let Some(mtu) = mtu.filter(|mtu| watcher < mtu) {
                    let problem = format!("has mtu {watcher}, less than the {mtu} of what it watches");
                    return Err(field(&owner, "to", tap, problem));
                }
            }
            MirrorTo::Tunnel(_) if mtu.is_none() => {
                return Err(field(&owner, "to", &"tunnel", "is fed by a tunnel; copies travel once"));
            }
            MirrorTo::Tunnel(to) => tunnel(to, &owner, host, seen, &mut tunnels)?,
        }
    }
    Ok(())
}

fn place(from: &MirrorFrom) -> &str {
    match from {
        MirrorFrom::Port { tap } => tap,
        MirrorFrom::Network { id } => id,
        MirrorFrom::Tunnel(tunnel) => &tunnel.link,
    }
}

/// Mirrors may share a tunnel, but then all of it.
fn tunnel<'a>(
    tunnel: &'a MirrorTunnel,
    owner: &str,
    host: &Host,
    seen: &mut Seen,
    tunnels: &mut HashMap<&'a str, &'a MirrorTunnel>,
) -> Result<(), Invalid> {
    if let Some(first) = tunnels.insert(&tunnel.link, tunnel) {
        return if first == tunnel {
            Ok(())
        } else {
            Err(field(owner, "link", &tunnel.link, "is another tunnel's, too; each needs its own"))
        };
    }
    if tunnel.vni == 0 || tunnel.vni > VNI_MAX {
        return Err(field(owner, "vni", &tunnel.vni, format!("is out of range; use 1 to {VNI_MAX}")));
    }
    let local = host.underlay.ok_or_else(|| {
        field(owner, "link", &tunnel.link, "needs this host's underlay_address in netd's configuration")
    })?;
    if let Some(problem) = no_peer(tunnel.peer, local) {
        return Err(field(owner, "peer", &tunnel.peer, problem));
    }
    seen.once("vni", &tunnel.vni.to_string(), owner)?;
    link_name(owner, "link", &tunnel.link, VXLAN_PREFIX)?;
    seen.once("link", &tunnel.link, owner)
}
