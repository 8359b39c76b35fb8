//! Whether news of a link is a reason to look.

use crate::observed::{Link, LinkKind};
use crate::target::Target;
use crate::{DOOMED, VXLAN_PORT};

impl Target {
    /// Whether a link of this name, as told (none: it is gone), is what it should be, or none of our business. Errs on
    /// the side of looking. Aliases do not count: they are for people.
    #[must_use]
    pub fn expects(&self, name: &str, told: Option<&Link>) -> bool {
        match told {
            Some(link) if link.is_ours(name) => self.expects_ours(name, link),
            Some(link) => {
                let joins_ours = link.master.as_ref().is_some_and(|m| self.bridges.contains_key(m));
                !self.names(name) && !joins_ours
            }
            None => !self.names(name),
        }
    }

    /// A link that the document asks for, or that was granted to us.
    fn names(&self, name: &str) -> bool {
        self.bridges.contains_key(name)
            || self.taps.contains_key(name)
            || self.vxlans.contains_key(name)
            || self.vlans.contains_key(name)
            || self.bridges.values().any(|b| b.site.as_ref().is_some_and(|site| site.link == name))
            || self.vlans.values().any(|vlan| vlan.parent == name)
    }

    fn expects_ours(&self, name: &str, link: &Link) -> bool {
        let is = |mtu: u32, bridge: Option<&String>, up: bool| {
            link.mtu == mtu && link.master.as_ref() == bridge && link.up == up && !link.ipv6
        };
        if link.group == DOOMED {
            return false;
        }
        match &link.kind {
            LinkKind::Bridge { stp, snooping, wire } => {
                let is_tame = |on: bool| !stp && !snooping && *wire == on;
                self.bridges.get(name).is_some_and(|b| is(b.mtu, None, true) && is_tame(b.wire))
            }
            LinkKind::Tap => {
                self.taps.get(name).is_some_and(|t| is(t.mtu, Some(&t.bridge).filter(|_| !t.held), !t.held))
            }
            LinkKind::Vxlan { vni, local, port, .. } => self.vxlans.get(name).is_some_and(|t| {
                is(t.mtu, Some(&t.bridge), true)
                    && (t.vni, Some(t.local), VXLAN_PORT) == (*vni, *local, *port)
            }),
            LinkKind::Vlan { vid, parent } => self
                .vlans
                .get(name)
                .is_some_and(|t| is(t.mtu, Some(&t.bridge), true) && (t.vid, &t.parent) == (*vid, parent)),
            LinkKind::Veth | LinkKind::Ifb | LinkKind::Other(_) => false,
        }
    }
}
