//! Carrying out a plan.

use crate::observe::{group_of, mac_of, name_of, peer_of};
use crate::{Kernel, NftError, ObserveError, REQUEST_TIMEOUT, nft, sysctl, tap};
use futures::{StreamExt as _, TryStreamExt as _};
use netd_plan::{GROUP, Plan, Step, VXLAN_PORT};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::link::{BridgeStpState, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVxlan};
use std::future::Future;
use std::io;
use std::net::IpAddr;

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused.
    #[error("the kernel refused: {0}")]
    Kernel(String),
    /// The kernel did not answer.
    #[error("the kernel did not answer within {} s", REQUEST_TIMEOUT.as_secs())]
    Timeout,
    /// A link is not there, or not ours any more.
    #[error("{0} is gone or carries no mark of netd")]
    NotOurs(String),
    /// The tap device refused.
    #[error("/dev/net/tun refused")]
    Tap(#[source] io::Error),
    /// A switch under /proc/sys cannot be set.
    #[error("cannot write under /proc/sys/net")]
    Sysctl(#[source] io::Error),
    /// The rules are as before.
    #[error("the rules were not changed")]
    Rules(#[source] NftError),
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
    /// rules nothing is created, attached or brought up.
    pub async fn apply(&self, plan: &Plan) -> Applied {
        let mut applied = Applied::default();
        for step in &plan.steps {
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

    /// Carries out one step.
    ///
    /// # Errors
    /// [`StepError`]; the kernel is then as before the step, except that a tap may remain until its file closes.
    pub async fn apply_step(&self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::ReplaceRules { rules, counters } => {
                nft::replace(rules, counters).await.map_err(StepError::Rules)
            }
            Step::AmendRules { remove, add } => nft::amend(remove, add).await.map_err(StepError::Rules),
            Step::RemoveRules => nft::remove().await.map_err(StepError::Rules),
            Step::BypassHostFirewall => sysctl::bypass_host_firewall().map_err(StepError::Sysctl),
            Step::Mute { link } => {
                self.ours(link).await?;
                sysctl::mute(link).map_err(StepError::Sysctl)
            }
            Step::CreateBridge { link, mtu } => {
                let bridge =
                    LinkMessageBuilder::<LinkBridge>::new(link).mtu(*mtu).append_extra_attribute(mark());
                self.add(bridge.stp_state(BridgeStpState::Disabled).mcast_snooping(false).build()).await
            }
            Step::CreateVxlan { link, vni, local, mtu } => {
                let vxlan =
                    LinkMessageBuilder::<LinkVxlan>::new(link).mtu(*mtu).append_extra_attribute(mark());
                let vxlan = vxlan.id(*vni).port(VXLAN_PORT).learning(true);
                self.add(match local {
                    IpAddr::V4(v4) => vxlan.local(*v4).build(),
                    IpAddr::V6(v6) => vxlan.local6(*v6).build(),
                })
                .await
            }
            Step::CreateTap { link, mtu } => self.create_tap(link, *mtu).await,
            Step::AddPeer { link, peer } => self.add_peer(link, *peer).await,
            Step::RemovePeer { link, peer } => self.remove_peer(link, *peer).await,
            Step::Router(step) => match *step {},
            Step::Mirror(step) => match *step {},
            Step::Shape(step) => match *step {},
            Step::Delete { link } => {
                let index = self.ours(link).await?;
                answered(self.handle.link().del(index).execute()).await
            }
            _ => self.change(self.changed(step).await?).await,
        }
    }

    /// The message of a step that changes one link in place.
    async fn changed(&self, step: &Step) -> Result<LinkMessage, StepError> {
        let message = match step {
            Step::Detach { link } => link_at(self.ours(link).await?).nocontroller().build(),
            Step::Name { link, alias } => link_at(self.ours(link).await?)
                .append_extra_attribute(LinkAttribute::IfAlias(alias.clone()))
                .build(),
            Step::Resize { link, mtu } => link_at(self.ours(link).await?).mtu(*mtu).build(),
            Step::TameBridge { link } => {
                let index = self.ours(link).await?;
                let bridge = LinkMessageBuilder::<LinkBridge>::new(link).index(index);
                bridge.stp_state(BridgeStpState::Disabled).mcast_snooping(false).build()
            }
            Step::Release { link, up } => {
                let found = link_at(self.find(link).await?.header.index).nocontroller();
                if *up { found.up().build() } else { found.down().build() }
            }
            Step::Attach { link, bridge } => {
                let bridge = self.ours(bridge).await?;
                link_at(self.find(link).await?.header.index).controller(bridge).build()
            }
            Step::Up { link } => link_at(self.find(link).await?.header.index).up().build(),
            other => return Err(StepError::Kernel(format!("{other} is no change of a link"))),
        };
        Ok(message)
    }

    async fn find(&self, name: &str) -> Result<LinkMessage, StepError> {
        let mut links = self.handle.link().get().match_name(name).execute();
        let found =
            tokio::time::timeout(REQUEST_TIMEOUT, links.try_next()).await.map_err(|_| StepError::Timeout)?;
        let found = found.ok().flatten().filter(|message| name_of(message) == name);
        found.ok_or_else(|| StepError::NotOurs(name.to_owned()))
    }

    /// The index of a link, after checking the mark again: names move between observation and step.
    async fn ours(&self, name: &str) -> Result<u32, StepError> {
        let message = self.find(name).await?;
        if group_of(&message) == GROUP {
            Ok(message.header.index)
        } else {
            Err(StepError::NotOurs(name.to_owned()))
        }
    }

    async fn add(&self, message: LinkMessage) -> Result<(), StepError> {
        answered(self.handle.link().add(message).execute()).await
    }

    async fn change(&self, message: LinkMessage) -> Result<(), StepError> {
        answered(self.handle.link().change(message).execute()).await
    }

    /// The mark is on before the tap outlives us: killed in between, it vanishes with our file.
    async fn create_tap(&self, name: &str, mtu: u32) -> Result<(), StepError> {
        let file = tap::create(name).map_err(StepError::Tap)?;
        let index = self.find(name).await?.header.index;
        self.change(link_at(index).mtu(mtu).append_extra_attribute(mark()).build()).await?;
        tap::keep(&file).map_err(StepError::Tap)
    }

    async fn add_peer(&self, link: &str, peer: IpAddr) -> Result<(), StepError> {
        let index = self.ours(link).await?;
        let message = RouteNetlinkMessage::NewNeighbour(forwarding_entry(index, [0; 6], peer));
        self.request(message, NLM_F_CREATE | NLM_F_APPEND).await
    }

    async fn remove_peer(&self, link: &str, peer: IpAddr) -> Result<(), StepError> {
        let index = self.ours(link).await?;
        let entries = self.forwarding().await.map_err(StepError::Observe)?;
        for entry in entries.iter().filter(|e| e.header.ifindex == index && peer_of(e) == Some(peer)) {
            let Some(mac) = mac_of(entry) else { continue };
            self.request(RouteNetlinkMessage::DelNeighbour(forwarding_entry(index, mac, peer)), 0).await?;
        }
        Ok(())
    }

    async fn request(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), StepError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = self.handle.clone();
        answered(async move {
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(rtnetlink::Error::NetlinkError(error));
                }
            }
            Ok(())
        })
        .await
    }
}

fn mark() -> LinkAttribute {
    LinkAttribute::Group(GROUP)
}

fn link_at(index: u32) -> LinkMessageBuilder<LinkUnspec> {
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

async fn answered(request: impl Future<Output = Result<(), rtnetlink::Error>>) -> Result<(), StepError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Err(_) => Err(StepError::Timeout),
        Ok(Ok(())) => Ok(()),
        Ok(Err(rtnetlink::Error::NetlinkError(error))) => Err(StepError::Kernel(error.to_io().to_string())),
        Ok(Err(error)) => Err(StepError::Kernel(error.to_string())),
    }
}
