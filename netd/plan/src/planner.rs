//! From (target, observed) to ordered steps.

use crate::observed::{Link, LinkKind, Observed, ObservedRules};
use crate::step::Step;
use crate::target::{BridgeTarget, SiteTarget, TapTarget, Target, VlanTarget, read_site_alias};
use crate::{DOOMED, VXLAN_PORT, flows, mirror, router, shape, uplink};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What to do, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order; each may be the last one carried out.
    pub steps: Vec<Step>,
    /// Objects of others in our way or on our bridges. Never touched.
    pub conflicts: Vec<String>,
    /// What the target asks for and cannot be: a conflict of names, a site's link that is missing or in use.
    pub refusals: Vec<String>,
}

/// The steps from `observed` to `target`.
#[must_use]
pub fn plan(target: &Target, observed: &Observed) -> Plan {
    let mut planner = Planner {
        target,
        observed,
        plan: Plan::default(),
        blocked: BTreeSet::new(),
        arriving: BTreeSet::new(),
        closed: BTreeSet::new(),
        gone: BTreeSet::new(),
        raised: BTreeSet::new(),
    };
    planner.find_conflicts();
    // Whatever takes time comes before the first door closes or after the last one opens: a guest that moves between
    // bridges is cut off only while the rules change.
    planner.clear_the_way();
    planner.create();
    planner.create_routers();
    shape::prepare(&mut planner);
    mirror::prepare(&mut planner);
    planner.plan.steps.extend(flows::steps(target, observed));
    planner.close();
    planner.rules();
    planner.attach();
    planner.up();
    mirror::open(&mut planner);
    planner.announce();
    planner.serve();
    planner.delete();
    planner.plan
}

pub(crate) struct Planner<'a> {
    pub(crate) target: &'a Target,
    pub(crate) observed: &'a Observed,
    plan: Plan,
    /// Links of the target that must not be used in this plan.
    pub(crate) blocked: BTreeSet<String>,
    /// Links brought up with being attached.
    raised: BTreeSet<&'a str>,
    /// Links taken down in this plan.
    pub(crate) closed: BTreeSet<String>,
    /// Links deleted early in this plan.
    gone: BTreeSet<String>,
    /// Taps whose guests were there before they are attached in this plan.
    arriving: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    pub(crate) fn push(&mut self, step: Step) {
        self.plan.steps.push(step);
    }

    /// A link of ours that exists, is wanted, and is of the kind wanted: it can be kept.
    pub(crate) fn kept(&self, name: &str) -> Option<&'a Link> {
        let link = self.observed.links.get(name).filter(|l| l.is_ours(name) && l.group != DOOMED)?;
        let fits = match &link.kind {
            LinkKind::Bridge { .. } => self.target.bridges.contains_key(name),
            kind if self.target.mirrors.keeps(name, kind) => true,
            LinkKind::Tap => self.target.taps.contains_key(name),
            LinkKind::Vxlan { vni, local, port, .. } => self
                .target
                .vxlans
                .get(name)
                .is_some_and(|t| t.vni == *vni && Some(t.local) == *local && *port == VXLAN_PORT),
            LinkKind::Ifb => shape::is_shaper(self.target, name),
            LinkKind::Vlan { vid, parent } => {
                self.target.vlans.get(name).is_some_and(|t| t.vid == *vid && t.parent == *parent)
            }
            LinkKind::Veth => router::keeps(self.target, self.observed, name, link.mtu),
            LinkKind::Other(_) => false,
        };
        fits.then_some(link)
    }

    fn find_conflicts(&mut self) {
        let target = self.target;
        let wanted = target.bridges.keys().chain(target.vxlans.keys());
        let wanted = wanted.chain(target.vlans.keys()).chain(target.taps.keys());
        let wanted = wanted.chain(target.routers.keys()).chain(target.outside_links.keys());
        let wanted: BTreeSet<String> =
            wanted.chain(target.mirrors.links()).cloned().chain(shape::shapers(target).into_keys()).collect();
        for name in &wanted {
            if self.observed.links.get(name).is_some_and(|l| !l.is_ours(name)) {
                let text = format!("link {name} exists without netd's mark; remove or rename it");
                self.plan.conflicts.push(text.clone());
                self.plan.refusals.push(text);
                self.blocked.insert(name.clone());
            }
        }
        for (name, link) in &self.observed.links {
            let Some(bridge) = link.master.as_ref() else { continue };
            let on_ours = self.observed.links.get(bridge).is_some_and(|b| b.is_ours(bridge));
            if on_ours && !link.is_ours(name) && self.site_link_of(bridge) != Some(name.as_str()) {
                self.plan.conflicts.push(format!(
                    "link {name} was attached to {bridge} by somebody else; its frames are dropped, detach it"
                ));
            }
        }
        let sites: Vec<_> = target.bridges.iter().filter_map(|(n, b)| Some((n, b.site.as_ref()?))).collect();
        for (bridge, site) in sites {
            if let Some(reason) = self.refuse_site(bridge, site) {
                self.plan.refusals.push(reason);
                self.blocked.insert(site.link.clone());
            }
        }
        for (router, text) in router::conflicts(target, self.observed) {
            self.plan.conflicts.push(text.clone());
            self.plan.refusals.push(text);
            self.blocked.extend(router.links().map(|(link, _)| link.to_owned()));
        }
        self.refuse_uplinks();
    }

    fn refuse_uplinks(&mut self) {
        let (target, observed) = (self.target, self.observed);
        let taken = uplink::taken_vlans(observed);
        for (name, vlan) in
            target.vlans.iter().filter(|(name, _)| !self.blocked.contains(*name)).collect::<Vec<_>>()
        {
            if let Some(reason) = uplink::refuse_vlan(name, vlan, observed, &taken) {
                self.plan.refusals.push(reason);
                self.blocked.insert(name.clone());
            }
        }
        self.plan.refusals.extend(uplink::narrow_underlay(target, observed));
    }

    /// The physical link that a bridge of ours holds or is to hold.
    fn site_link_of(&self, bridge: &str) -> Option<&'a str> {
        let held = self.observed.links.get(bridge).and_then(|b| b.alias.as_deref()).and_then(read_site_alias);
        let wanted = self.target.bridges.get(bridge).and_then(|b| b.site.as_ref());
        held.map(|(link, _)| link).or(wanted.map(|s| s.link.as_str()))
    }

    fn refuse_site(&self, bridge: &str, site: &SiteTarget) -> Option<String> {
        let (name, site_name) = (&site.link, &site.site);
        let Some(link) = self.observed.links.get(name) else {
            return Some(format!("site {site_name}: its link {name} does not exist"));
        };
        if link.addressed {
            return Some(format!(
                "site {site_name}: its link {name} carries IP addresses; remove them first"
            ));
        }
        match link.master.as_deref() {
            Some(master) if master != bridge && !self.is_our_bridge(master) => {
                Some(format!("site {site_name}: its link {name} is attached to {master}; detach it first"))
            }
            _ => None,
        }
    }

    fn is_our_bridge(&self, name: &str) -> bool {
        self.observed.links.get(name).is_some_and(|l| l.is_ours(name))
    }

    fn bridge_wanted_for(&self, name: &str) -> Option<&'a str> {
        let target = self.target;
        let taps = target.taps.get(name).filter(|t| !t.held).map(|t| t.bridge.as_str());
        let tunnels = || target.vxlans.get(name).map(|v| v.bridge.as_str());
        let vlans = || target.vlans.get(name).map(|v| v.bridge.as_str());
        taps.or_else(tunnels).or_else(vlans).or_else(|| router::bridge_wanted_for(target, name))
    }

    /// Deletes what would keep links of the target from being made: their names, or the identifiers of tunnels and
    /// VLANs.
    fn clear_the_way(&mut self) {
        let doomed = self.observed.ours().filter(|(name, _)| self.kept(name).is_none());
        let in_the_way = doomed.filter(|(name, link)| {
            self.is_wanted(name) || matches!(link.kind, LinkKind::Vxlan { .. } | LinkKind::Vlan { .. })
        });
        for link in in_the_way.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.gone.insert(link.clone());
            self.push(Step::Delete { link });
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        let target = self.target;
        target.bridges.contains_key(name)
            || self.bridge_wanted_for(name).is_some()
            || target.taps.contains_key(name)
            || target.mirrors.links().any(|link| link == name)
            || shape::is_shaper(target, name)
    }

    /// Closes the doors of all that go or move. A link that is down passes nothing, whatever it is attached to; one
    /// that was only detached would speak to the host's own stack, and for a moment so would one that goes straight
    /// from one bridge to another.
    fn close(&mut self) {
        for (name, link) in self.observed.ours() {
            if self.gone.contains(name) {
                continue;
            }
            // Nothing comes through these two but from links that do come down.
            let is_door = !matches!(link.kind, LinkKind::Bridge { .. } | LinkKind::Ifb);
            let wanted = self.bridge_wanted_for(name);
            let doomed = self.kept(name).is_none();
            let moves = link.master.is_some() && link.master.as_deref() != wanted;
            let held = self.target.taps.get(name).is_some_and(|t| t.held);
            if link.up && is_door && (held || doomed || moves) {
                self.closed.insert(name.clone());
                self.push(Step::Down { link: name.clone() });
            }
            if moves && !doomed && wanted.is_none() {
                self.push(Step::Detach { link: name.clone() });
            }
        }
        self.release();
    }

    fn release(&mut self) {
        for (bridge, link) in self.observed.ours() {
            let Some((held, up)) = link.alias.as_deref().and_then(read_site_alias) else { continue };
            let wanted = self.target.bridges.get(bridge).and_then(|b| b.site.as_ref());
            let attached = self.observed.links.get(held).is_some_and(|l| l.master.as_ref() == Some(bridge));
            if attached && wanted.is_none_or(|s| s.link != held) {
                self.push(Step::Release { link: held.to_owned(), up });
            }
        }
    }

    fn rules(&mut self) {
        let Some(wanted) = &self.target.rules else { return };
        match &self.observed.rules {
            ObservedRules::Intact(found) if found == wanted => {}
            ObservedRules::Intact(found) => {
                let remove = found.elements.difference(&wanted.elements).cloned().collect();
                let add = wanted.elements.difference(&found.elements).cloned().collect();
                self.push(Step::AmendRules { remove, add });
            }
            ObservedRules::Absent | ObservedRules::Altered => {
                let mut counters = self.observed.counters.clone();
                counters.retain(|tap, _| self.target.taps.contains_key(tap));
                let mut used = self.observed.used.clone();
                used.retain(|entry, _| wanted.elements.contains(entry));
                self.push(Step::ReplaceRules { rules: wanted.clone(), counters, used });
            }
        }
    }

    fn delete(&mut self) {
        let is_bridge = |link: &Link| matches!(link.kind, LinkKind::Bridge { .. });
        let (mut ports, mut bridges) = (Vec::new(), Vec::new());
        let doomed = self.observed.ours().filter(|(name, _)| self.kept(name).is_none());
        for (name, link) in doomed.filter(|(name, _)| !self.gone.contains(*name)) {
            if is_bridge(link) { &mut bridges } else { &mut ports }.push(name.clone());
        }
        for link in ports.into_iter().chain(bridges) {
            self.push(Step::Delete { link });
        }
        self.plan.steps.extend(router::deletions(self.target, self.observed));
        if self.target.rules.is_none() && self.observed.rules != ObservedRules::Absent {
            self.push(Step::RemoveRules);
        }
    }

    fn create(&mut self) {
        let target = self.target;
        if self.observed.bridge_netfilter && !target.bridges.is_empty() {
            self.push(Step::BypassHostFirewall);
        }
        for (name, bridge) in &target.bridges {
            self.create_bridge(name, bridge);
        }
        for (name, vxlan) in &target.vxlans {
            let create =
                Step::CreateVxlan { link: name.clone(), vni: vxlan.vni, local: vxlan.local, mtu: vxlan.mtu };
            if !self.create_link(name, create, vxlan.mtu, &vxlan.alias) {
                continue;
            }
            self.set_peers(name, &vxlan.peers);
        }
        self.create_vlans();
        for (name, tap) in &target.taps {
            let create = Step::CreateTap { link: name.clone(), mtu: tap.mtu };
            let arriving = tap.held || self.is_arriving(name, tap);
            let alias = if arriving { &tap.arriving_alias } else { &tap.alias };
            self.create_link(name, create, tap.mtu, alias);
        }
    }

    pub(crate) fn set_peers(&mut self, name: &str, peers: &BTreeSet<IpAddr>) {
        let found = match self.kept(name).map(|l| &l.kind) {
            Some(LinkKind::Vxlan { flood, .. }) => flood.clone(),
            _ => BTreeSet::new(),
        };
        for peer in found.difference(peers) {
            self.push(Step::RemovePeer { link: name.to_owned(), peer: *peer });
        }
        for peer in peers.difference(&found) {
            self.push(Step::AddPeer { link: name.to_owned(), peer: *peer });
        }
    }

    /// A VLAN's link comes up only on a trunk that is up.
    fn create_vlans(&mut self) {
        let (target, observed) = (self.target, self.observed);
        let mut trunks = BTreeSet::new();
        for (name, vlan) in &target.vlans {
            let VlanTarget { vid, parent, mtu, alias, .. } = vlan;
            let create =
                Step::CreateVlan { link: name.clone(), vid: *vid, parent: parent.clone(), mtu: *mtu };
            let is_up = observed.links.get(parent).is_some_and(|l| l.up);
            if self.create_link(name, create, *mtu, alias) && !is_up {
                trunks.insert(parent);
            }
        }
        for link in trunks {
            self.push(Step::Up { link: link.clone() });
        }
    }

    fn create_routers(&mut self) {
        let (target, observed) = (self.target, self.observed);
        for (name, wanted) in
            target.routers.iter().filter(|(name, _)| !self.blocked.contains(*name)).collect::<Vec<_>>()
        {
            let kept: BTreeSet<&str> =
                wanted.links().map(|(link, _)| link).filter(|link| self.kept(link).is_some()).collect();
            let lan_kept = kept.contains(name.as_str());
            self.plan.steps.extend(router::preparations(wanted, observed, lan_kept));
            for (link, _) in wanted.links() {
                if let Some((join, mtu)) = router::join(wanted, link, observed) {
                    self.create_link(link, join, mtu, &wanted.alias);
                }
            }
            self.plan.steps.extend(router::completions(wanted, observed, &kept, &self.blocked));
        }
    }

    fn serve(&mut self) {
        let (target, observed) = (self.target, self.observed);
        for (name, wanted) in
            target.routers.iter().filter(|(name, _)| !self.blocked.contains(*name)).collect::<Vec<_>>()
        {
            let lan_kept = self.kept(name).is_some();
            self.plan.steps.extend(router::services(wanted, observed, lan_kept));
        }
    }

    /// Its network has not been told yet where it is.
    fn is_arriving(&self, name: &str, tap: &TapTarget) -> bool {
        self.kept(name).is_some_and(|l| l.alias.as_ref() == Some(&tap.arriving_alias))
    }

    fn create_bridge(&mut self, name: &str, bridge: &BridgeTarget) {
        let create = Step::CreateBridge { link: name.to_owned(), mtu: bridge.mtu };
        let alias = match &bridge.site {
            Some(site) => self.site_alias(name, site),
            None => bridge.alias.clone(),
        };
        if !self.create_link(name, create, bridge.mtu, &alias) {
            return;
        }
        let (wild, wired) = match self.kept(name).map(|l| &l.kind) {
            Some(LinkKind::Bridge { stp, snooping, wire }) => (*stp || *snooping, *wire),
            _ => (false, false),
        };
        if wild {
            self.push(Step::TameBridge { link: name.to_owned() });
        }
        if wired != bridge.wire {
            self.push(Step::Wire { link: name.to_owned(), on: bridge.wire });
        }
        // Empty: it joins nothing yet.
        if self.kept(name).is_none() {
            self.push(Step::Up { link: name.to_owned() });
        }
    }

    /// Keeps what an earlier pass wrote about the same link: by now it is up because of us.
    fn site_alias(&self, bridge: &str, site: &SiteTarget) -> String {
        let mut written: Vec<_> = self
            .observed
            .ours()
            .filter_map(|(name, link)| Some((name == bridge, read_site_alias(link.alias.as_deref()?)?)))
            .filter(|(_, (link, _))| *link == site.link)
            .collect();
        written.sort_by_key(|(own, _)| !own);
        let found_up = match written.first() {
            Some((_, (_, up))) => *up,
            None => self.observed.links.get(&site.link).is_some_and(|l| l.up),
        };
        site.alias(found_up)
    }

    /// Whether the link will be there for the rest of the plan.
    pub(crate) fn create_link(&mut self, name: &str, create: Step, mtu: u32, alias: &str) -> bool {
        if self.blocked.contains(name) {
            return false;
        }
        let kept = self.kept(name);
        match kept {
            None => self.push(create),
            Some(link) if link.mtu != mtu => self.push(Step::Resize { link: name.to_owned(), mtu }),
            Some(_) => {}
        }
        if kept.is_none_or(|l| l.alias.as_deref() != Some(alias)) {
            self.push(Step::Name { link: name.to_owned(), alias: alias.to_owned() });
        }
        if kept.is_none_or(|l| l.ipv6) {
            self.push(Step::Mute { link: name.to_owned() });
        }
        true
    }

    /// Uplinks and taps with their bridges; uplinks first, so that a guest never talks into a half network.
    fn members(&self) -> Vec<(&'a str, &'a str)> {
        let target = self.target;
        let sites =
            target.bridges.iter().filter_map(|(n, b)| Some((b.site.as_ref()?.link.as_str(), n.as_str())));
        let vxlans = target.vxlans.iter().map(|(n, v)| (n.as_str(), v.bridge.as_str()));
        let vlans = target.vlans.iter().map(|(n, v)| (n.as_str(), v.bridge.as_str()));
        let taps = target.taps.iter().filter(|(_, t)| !t.held).map(|(n, t)| (n.as_str(), t.bridge.as_str()));
        let usable = |name: &str| !self.blocked.contains(name);
        let routers = target.routers.values().flat_map(|r| r.links());
        let all = sites.chain(vxlans).chain(vlans).chain(routers).chain(taps);
        all.filter(|(m, b)| usable(m) && usable(b)).collect()
    }

    /// Where no port moves, a link comes up with being attached: that is one request to the kernel.
    fn attach(&mut self) {
        let is_calm = !self.plan.steps.iter().any(|step| matches!(step, Step::Detach { .. }));
        for (member, bridge) in self.members() {
            let is_site = self.bridge_wanted_for(member).is_none();
            let found = if is_site { self.observed.links.get(member) } else { self.kept(member) };
            let bridge_kept = self.kept(bridge).is_some();
            if !bridge_kept || found.and_then(|l| l.master.as_deref()) != Some(bridge) {
                self.note_arrival(member);
                self.push(Step::Attach { link: member.to_owned(), bridge: bridge.to_owned() });
                let is_down = !found.is_some_and(|l| l.up) || self.closed.contains(member);
                if is_calm && !is_site && is_down {
                    self.push(Step::Up { link: member.to_owned() });
                    self.raised.insert(member);
                }
            }
        }
    }

    /// Written down before a guest that is there already is attached: whoever is stopped in between knows that its
    /// network must still be told.
    fn note_arrival(&mut self, name: &str) {
        let Some(tap) = self.target.taps.get(name).filter(|t| t.announcement.is_some()) else { return };
        if self.kept(name).is_some_and(|l| l.carrier) && !self.is_arriving(name, tap) {
            self.arriving.insert(name.to_owned());
            self.push(Step::Name { link: name.to_owned(), alias: tap.arriving_alias.clone() });
        }
    }

    fn announce(&mut self) {
        let target = self.target;
        let usable = |name: &str, tap: &TapTarget| {
            !tap.held && !self.blocked.contains(name) && !self.blocked.contains(&tap.bridge)
        };
        let arrived = target.taps.iter().filter(|(name, tap)| {
            usable(name, tap) && (self.arriving.contains(*name) || self.is_arriving(name, tap))
        });
        for (name, tap) in arrived.collect::<Vec<_>>() {
            let (link, alias) = (name.clone(), tap.alias.clone());
            self.push(match tap.announcement.clone() {
                Some(mut announcement) => {
                    announcement.uplinks.retain(|uplink| !self.blocked.contains(uplink));
                    Step::Announce { link, alias, announcement }
                }
                None => Step::Name { link, alias },
            });
        }
    }

    fn up(&mut self) {
        let bridges = self.target.bridges.keys().map(String::as_str);
        // New ones are up.
        let mut names: Vec<&str> = bridges.filter(|n| self.kept(n).is_some()).collect();
        names.extend(self.members().into_iter().map(|(member, _)| member));
        let released: BTreeSet<String> = self.plan.steps.iter().filter_map(released).collect();
        for name in names.into_iter().filter(|name| !self.raised.contains(name)).collect::<Vec<_>>() {
            let is_ours = self.target.bridges.contains_key(name) || self.bridge_wanted_for(name).is_some();
            let found = if is_ours { self.kept(name) } else { self.observed.links.get(name) };
            // A released link was put back into its found state earlier in this plan.
            if !found.is_some_and(|l| l.up) || self.closed.contains(name) || released.contains(name) {
                self.push(Step::Up { link: name.to_owned() });
            }
        }
    }
}

fn released(step: &Step) -> Option<String> {
    if let Step::Release { link, .. } = step { Some(link.clone()) } else { None }
}
