//! Carrying out a plan.

use crate::link::Forwarding;
use crate::{Kernel, NftError, ObserveError, RouteError, RouterError, sysctl, tap};
use netd_plan::{DOOMED, GROUP, Plan, Step, VXLAN_PORT};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{BridgeStpState, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVxlan};
use std::io;
use std::net::IpAddr;

/// Fewer links than this are deleted one by one.
const DELETED_TOGETHER_MIN: usize = 4;
/// So many links are deleted in one request: the kernel serves nobody else meanwhile, half a second or so.
const DELETED_TOGETHER_MAX: usize = 250;

/// How long a bridge remembers who is where, in hundredths of a second, and the link-local groups (IEEE 802.1D) it
/// passes, a bit each; those of a wire are all that the kernel lets pass: LLDP and 802.1X, but not pause frames and LACP.
pub(crate) const WIRE: (u32, u16) = (0, 0xfff8);
const SWITCH: (u32, u16) = (30_000, 0);

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    Kernel(String),
    /// The kernel cannot be asked.
    #[error(transparent)]
    Route(RouteError),
    /// A link is not there, or not ours any more.
    #[error("{0} is gone or carries no mark of netd")]
    NotOurs(String),
    /// The tap device refused.
    #[error("/dev/net/tun refused")]
    Tap(#[source] io::Error),
    /// A switch under /proc/sys cannot be set.
    #[error("cannot write under /proc/sys/net")]
    Sysctl(#[source] io::Error),
    /// A guest that has arrived could not be told of.
    #[error("cannot send out of {link}")]
    Announce {
        /// The uplink.
        link: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The rules are as before.
    #[error("the rules were not changed")]
    Rules(#[source] NftError),
    /// Something about a router.
    #[error(transparent)]
    Router(RouterError),
    /// Something had to be read and could not.
    #[error("cannot read the kernel's state")]
    Observe(#[source] ObserveError),
}

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Applied {
    /// Steps carried out.
    pub done: u32,
    /// Steps that failed, each with its reason.
    pub failures: Vec<(Step, StepError)>,
}

impl Kernel {
    /// Carries out the steps in order. A failed step does not stop those after it, but failed rules do: behind old
    /// rules nothing is attached or brought up.
    pub async fn apply(&self, plan: &Plan) -> Applied {
        let mut applied = Applied::default();
        let mut rest = plan.steps.as_slice();
        while let Some(step) = rest.first() {
            let together = self.apply_together(rest);
            if together > 0 {
                applied.done += u32::try_from(together).unwrap_or(u32::MAX);
                rest = &rest[together..];
                continue;
            }
            rest = &rest[1..];
            match self.apply_step(step).await {
                Ok(()) => applied.done += 1,
                Err(error) => {
                    let stop = matches!(step, Step::ReplaceRules { .. } | Step::AmendRules { .. });
                    applied.failures.push((step.clone(), error));
                    if stop {
                        break;
                    }
                }
            }
        }
        applied
    }

    /// Carries out the first steps with fewer requests than one each, if there is a way; how many. What fails together
    /// is tried again one by one, so that the failure is the step's own.
    fn apply_together(&self, steps: &[Step]) -> usize {
        let doomed: Vec<&str> = steps.iter().map_while(deleted).take(DELETED_TOGETHER_MAX).collect();
        if doomed.len() >= DELETED_TOGETHER_MIN {
            return if self.delete_together(&doomed).is_ok() { doomed.len() } else { 0 };
        }
        let done = match steps {
            [Step::CreateTap { link, mtu }, Step::Name { link: named, alias }, ..] if link == named => {
                self.create_tap(link, *mtu, Some(alias))
            }
            [Step::Name { link, alias }, Step::Mute { link: mute }, Step::Up { link: up }, ..]
                if link == mute && link == up =>
            {
                return if self.name_mute_up(link, alias).is_ok() { 3 } else { 0 };
            }
            [Step::Attach { link, bridge }, Step::Up { link: up }, ..] if link == up => {
                self.attach_up(link, bridge)
            }
            _ => return 0,
        };
        if done.is_ok() { 2 } else { 0 }
    }

    /// Carries out one step.
    ///
    /// # Errors
    /// [`StepError`]; the kernel is then as before the step, except that a tap may remain until its file closes.
    pub async fn apply_step(&self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::ReplaceRules { rules, counters, used } => {
                self.tables.replace(rules, counters, used).await.map_err(StepError::Rules)
            }
            Step::AmendRules { remove, add } => {
                self.tables.amend(remove, add).await.map_err(StepError::Rules)
            }
            Step::RemoveRules => self.tables.remove().await.map_err(StepError::Rules),
            Step::Flows(step) => self.tables.change_flows(step).await.map_err(StepError::Rules),
            Step::BypassHostFirewall => sysctl::bypass_host_firewall().map_err(StepError::Sysctl),
            Step::Mute { link } => {
                self.ours(link)?;
                sysctl::mute(link).map_err(StepError::Sysctl)
            }
            Step::CreateBridge { link, mtu } => {
                let bridge =
                    LinkMessageBuilder::<LinkBridge>::new(link).mtu(*mtu).append_extra_attribute(mark());
                self.add(link, bridge.stp_state(BridgeStpState::Disabled).mcast_snooping(false).build())
            }
            Step::CreateVxlan { link, vni, local, mtu } => {
                let vxlan =
                    LinkMessageBuilder::<LinkVxlan>::new(link).mtu(*mtu).append_extra_attribute(mark());
                let vxlan = vxlan.id(*vni).port(VXLAN_PORT).learning(true);
                let message = match local {
                    IpAddr::V4(v4) => vxlan.local(*v4).build(),
                    IpAddr::V6(v6) => vxlan.local6(*v6).build(),
                };
                self.add(link, message)
            }
            Step::CreateVlan { link, vid, parent, mtu } => {
                let vlan = LinkMessageBuilder::<LinkVlan>::new(link).mtu(*mtu).append_extra_attribute(mark());
                self.add(link, vlan.link(self.find(parent)?).id(*vid).build())
            }
            Step::CreateTap { link, mtu } => self.create_tap(link, *mtu, None),
            Step::Announce { link, alias, announcement } => self.announce(link, alias, announcement),
            Step::AddPeer { link, peer } => self.add_peer(link, *peer),
            Step::RemovePeer { link, peer } => self.remove_peer(link, *peer),
            Step::Router(step) => self.apply_router(step).await.map_err(StepError::Router),
            Step::Mirror(step) => self.mirror(step).await,
            Step::Shape(step) => self.shape(step),
            Step::Delete { link } => self.delete(link),
            _ => self.change(self.changed(step)?),
        }
    }

    /// The message of a step that changes one link in place.
    fn changed(&self, step: &Step) -> Result<LinkMessage, StepError> {
        let message = match step {
            Step::Detach { link } => link_at(self.ours(link)?).nocontroller().build(),
            Step::Name { link, alias } => named(link_at(self.ours(link)?), alias).build(),
            Step::Resize { link, mtu } => link_at(self.ours(link)?).mtu(*mtu).build(),
            Step::TameBridge { link } => {
                let index = self.ours(link)?;
                let bridge = LinkMessageBuilder::<LinkBridge>::new(link).index(index);
                bridge.stp_state(BridgeStpState::Disabled).mcast_snooping(false).build()
            }
            Step::Wire { link, on } => {
                let bridge = LinkMessageBuilder::<LinkBridge>::new(link).index(self.ours(link)?);
                let (ageing, groups) = if *on { WIRE } else { SWITCH };
                bridge.ageing_time(ageing).group_fwd_mask(groups).build()
            }
            Step::Release { link, up } => {
                let found = link_at(self.find(link)?).nocontroller();
                if *up { found.up().build() } else { found.down().build() }
            }
            Step::Attach { link, bridge } => link_at(self.find(link)?).controller(self.ours(bridge)?).build(),
            Step::Down { link } => link_at(self.ours(link)?).down().build(),
            Step::Up { link } => link_at(self.find(link)?).up().build(),
            other => return Err(StepError::Kernel(format!("{other} is no change of a link"))),
        };
        Ok(message)
    }

    /// The index of any link.
    pub(crate) fn find(&self, name: &str) -> Result<u32, StepError> {
        let mut host = self.host();
        if let Some(index) = host.ours.get(name) {
            return Ok(*index);
        }
        host.find(name).map(|told| told.index).map_err(|error| refused(error, name))
    }

    /// The index of a link that carries our mark.
    pub(crate) fn ours(&self, name: &str) -> Result<u32, StepError> {
        let found = self.host().index_of_ours(name).map_err(|error| refused(error, name))?;
        found.ok_or_else(|| StepError::NotOurs(name.to_owned()))
    }

    pub(crate) fn add(&self, name: &str, message: LinkMessage) -> Result<(), StepError> {
        let mut host = self.host();
        let made = host.route.change(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        made.map_err(|error| refused(error, name))?;
        host.made(name);
        Ok(())
    }

    pub(crate) fn change(&self, message: LinkMessage) -> Result<(), StepError> {
        let index = message.header.index;
        let mut host = self.host();
        // Only one of the two looks into what is the kind's own.
        let of_kind = message.attributes.iter().any(|a| matches!(a, LinkAttribute::LinkInfo(_)));
        let message = if of_kind {
            RouteNetlinkMessage::NewLink(message)
        } else {
            RouteNetlinkMessage::SetLink(message)
        };
        host.route.change(&message, 0).map_err(|error| {
            let name = host.names.get(&index).cloned().unwrap_or_else(|| format!("link {index}"));
            if error.code() == Some(nix::libc::ENODEV) {
                host.gone(&name);
            }
            refused(error, &name)
        })
    }

    fn name_mute_up(&self, link: &str, alias: &str) -> Result<(), StepError> {
        let index = self.ours(link)?;
        sysctl::mute(link).map_err(StepError::Sysctl)?;
        self.change(named(link_at(index), alias).up().build())
    }

    fn attach_up(&self, link: &str, bridge: &str) -> Result<(), StepError> {
        self.change(link_at(self.find(link)?).controller(self.ours(bridge)?).up().build())
    }

    /// A link that is gone already is no failure: those deleted together go together.
    fn delete(&self, name: &str) -> Result<(), StepError> {
        let index = match self.ours(name) {
            Err(StepError::NotOurs(_)) => return Ok(()),
            index => index?,
        };
        let mut host = self.host();
        match host.route.change(&RouteNetlinkMessage::DelLink(link_at(index).build()), 0) {
            Err(error) if error.code() != Some(nix::libc::ENODEV) => Err(refused(error, name)),
            _ => {
                host.gone(name);
                Ok(())
            }
        }
    }

    /// The kernel waits for its readers once for all links of a group, not once a link. Down and marked first, each:
    /// whoever is stopped in between leaves closed links that are still ours.
    fn delete_together(&self, names: &[&str]) -> Result<(), StepError> {
        if self.host().strangers_doomed {
            return Err(StepError::NotOurs(format!("a link of group {DOOMED:#x}")));
        }
        for name in names {
            let doom = |index| self.change(link_at(index).link_group(DOOMED).down().build());
            match self.ours(name).and_then(doom) {
                Ok(()) | Err(StepError::NotOurs(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut host = self.host();
        let all = link_at(0).link_group(DOOMED).build();
        match host.route.change(&RouteNetlinkMessage::DelLink(all), 0) {
            Err(error) if error.code() != Some(nix::libc::ENODEV) => Err(refused(error, "the links")),
            _ => {
                names.iter().for_each(|name| host.gone(name));
                Ok(())
            }
        }
    }

    /// The mark is on before the tap outlives us: killed in between, it vanishes with our file.
    fn create_tap(&self, name: &str, mtu: u32, alias: Option<&str>) -> Result<(), StepError> {
        let file = tap::create(name).map_err(StepError::Tap)?;
        let mut message = LinkUnspec::new_with_name(name).mtu(mtu).append_extra_attribute(mark());
        if let Some(alias) = alias {
            message = named(message, alias);
        }
        self.change(message.build())?;
        tap::keep(&file).map_err(StepError::Tap)?;
        self.host().made(name);
        Ok(())
    }

    fn add_peer(&self, link: &str, peer: IpAddr) -> Result<(), StepError> {
        let entry = forwarding_entry(self.ours(link)?, [0; 6], peer);
        self.request(link, &RouteNetlinkMessage::NewNeighbour(entry), NLM_F_CREATE | NLM_F_APPEND)
    }

    fn remove_peer(&self, link: &str, peer: IpAddr) -> Result<(), StepError> {
        let index = self.ours(link)?;
        let entries = self.forwarding_of(index).map_err(StepError::Observe)?;
        for Forwarding { mac, .. } in entries.into_iter().filter(|entry| entry.peer == Some(peer)) {
            let entry = forwarding_entry(index, mac, peer);
            self.request(link, &RouteNetlinkMessage::DelNeighbour(entry), 0)?;
        }
        Ok(())
    }

    /// Changes something of a link.
    pub(crate) fn request(
        &self,
        link: &str,
        message: &RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), StepError> {
        self.host().route.change(message, flags).map_err(|error| refused(error, link))
    }
}

fn deleted(step: &Step) -> Option<&str> {
    if let Step::Delete { link } = step { Some(link) } else { None }
}

pub(crate) fn named(message: LinkMessageBuilder<LinkUnspec>, alias: &str) -> LinkMessageBuilder<LinkUnspec> {
    message.append_extra_attribute(LinkAttribute::IfAlias(alias.to_owned()))
}

pub(crate) fn mark() -> LinkAttribute {
    LinkAttribute::Group(GROUP)
}

pub(crate) fn link_at(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

fn forwarding_entry(index: u32, mac: [u8; 6], peer: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = index;
    entry.header.state = NeighbourState::Permanent;
    entry.header.flags = NeighbourFlags::Own;
    entry.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
        NeighbourAttribute::Destination(peer.into()),
    ];
    entry
}

fn refused(error: RouteError, link: &str) -> StepError {
    match error.code() {
        Some(nix::libc::ENODEV) => StepError::NotOurs(link.to_owned()),
        Some(_) => StepError::Kernel(error.to_string()),
        None => StepError::Route(error),
    }
}
