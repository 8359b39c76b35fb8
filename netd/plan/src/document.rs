//! A document that passed every check, and can be changed.

use crate::target::{Host, Invalid, Seen, Target, bridge_of, copies, network_check};
use netd_api::{Change, Desired, Network, Uplink};
use std::collections::{BTreeSet, HashSet};

/// A document that passed every check, with an index of what must be unique in it: a change of one network costs the
/// check of one network.
#[derive(Debug, Clone)]
pub struct Document {
    desired: Desired,
    seen: Seen,
}

/// What a change can have an effect on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Networks as they were: those that changed or went, and those that share a site's bridge with one of them.
    pub before: Vec<Network>,
    /// The same as they are, and the new ones.
    pub after: Vec<Network>,
    /// Nothing else has a part in it: looking at these networks' links and rules is enough.
    pub alone: bool,
}

impl Document {
    /// Checks a document against what this host was granted.
    ///
    /// # Errors
    /// [`Invalid`] names the first problem, where it is, and what to do.
    pub fn new(desired: Desired, host: &Host) -> Result<Self, Invalid> {
        let mut seen = Seen::default();
        for network in &desired.networks {
            network_check(network, host, &mut seen)?;
        }
        copies(&desired, host, &mut seen)?;
        Ok(Self { desired, seen })
    }

    /// A document that was checked when it was taken up, for a host that does not grant it any more, or an empty one.
    #[must_use]
    pub fn unchecked(desired: Desired) -> Self {
        Self { desired, seen: Seen::default() }
    }

    /// As desired.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What the planner works towards.
    ///
    /// # Errors
    /// [`Invalid`]: the host no longer grants what the document asks for.
    pub fn target(&self, host: &Host) -> Result<Target, Invalid> {
        Target::of(&self.desired, host)
    }

    /// Takes up a change with every check that the whole new document would have to pass. Refused, nothing is changed.
    ///
    /// # Errors
    /// [`Invalid`] names the first problem, where it is, and what to do.
    pub fn change(&mut self, change: &Change, host: &Host) -> Result<Scope, Invalid> {
        self.check_names(change)?;
        let touched: HashSet<&str> = change
            .put
            .iter()
            .map(|n| n.id.as_str())
            .chain(change.remove.iter().map(String::as_str))
            .collect();
        if self.desired.mirrors.is_empty() {
            self.check_changed(change, &touched, host)?;
        } else {
            // A mirror names ports and networks anywhere.
            *self = Self::new(changed(self.desired.clone(), change), host)?.with(self.desired.clone());
        }
        let sites = self.sites(change, &touched);
        let before = self.members(&touched, &sites);
        self.desired = changed(std::mem::take(&mut self.desired), change);
        let after = self.members(&touched, &sites);
        let alone = self.desired.mirrors.is_empty()
            && before.iter().chain(&after).all(is_alone)
            && !self.desired.networks.iter().any(|n| routes_to(n, &sites))
            && !self.desired.networks.is_empty();
        Ok(Scope { before, after, alone })
    }

    fn with(self, desired: Desired) -> Self {
        Self { desired, ..self }
    }

    fn check_names(&self, change: &Change) -> Result<(), Invalid> {
        let fail = |network: &str, problem| Err(Invalid::Change { network: network.to_owned(), problem });
        let mut once = HashSet::new();
        let names = change.put.iter().map(|n| n.id.as_str()).chain(change.remove.iter().map(String::as_str));
        for name in names {
            if !once.insert(name) {
                return fail(name, "is put or removed twice; name it once");
            }
        }
        for name in &change.remove {
            if !self.seen.has_network(name) {
                return fail(name, "is not held, so that it cannot be removed; send the whole document");
            }
        }
        Ok(())
    }

    fn check_changed(
        &mut self,
        change: &Change,
        touched: &HashSet<&str>,
        host: &Host,
    ) -> Result<(), Invalid> {
        let forgotten: Vec<_> = touched.iter().map(|name| self.seen.forget(name)).collect();
        let checked = change.put.iter().try_for_each(|network| network_check(network, host, &mut self.seen));
        if checked.is_err() {
            for network in &change.put {
                self.seen.forget(&network.id);
            }
            forgotten.into_iter().for_each(|network| self.seen.restore(network));
        }
        checked
    }

    /// The sites whose bridges are touched: networks share them.
    fn sites(&self, change: &Change, touched: &HashSet<&str>) -> BTreeSet<String> {
        let held = self.desired.networks.iter().filter(|n| touched.contains(n.id.as_str()));
        held.chain(&change.put).filter(|n| matches!(n.uplink, Uplink::Site { .. })).map(bridge_of).collect()
    }

    fn members(&self, touched: &HashSet<&str>, sites: &BTreeSet<String>) -> Vec<Network> {
        let shares = |n: &Network| matches!(n.uplink, Uplink::Site { .. }) && sites.contains(&bridge_of(n));
        let networks = self.desired.networks.iter();
        networks.filter(|n| touched.contains(n.id.as_str()) || shares(n)).cloned().collect()
    }
}

impl Scope {
    /// What the planner works towards within it.
    ///
    /// # Errors
    /// [`Invalid`]: the host no longer grants what the networks ask for.
    pub fn target(&self, host: &Host) -> Result<Target, Invalid> {
        Self::of(&self.after, host)
    }

    /// What it was working towards before the change.
    ///
    /// # Errors
    /// [`Invalid`]: the host no longer grants what the networks ask for.
    pub fn target_before(&self, host: &Host) -> Result<Target, Invalid> {
        Self::of(&self.before, host)
    }

    fn of(networks: &[Network], host: &Host) -> Result<Target, Invalid> {
        let desired = Desired { networks: networks.to_vec(), ..Desired::default() };
        let mut target = Target::of(&desired, host)?;
        // Other networks keep the tables alive.
        target.rules.get_or_insert_default();
        Ok(target)
    }
}

/// Its port limits, routers and counted conversations are looked at with everything else.
fn is_alone(network: &Network) -> bool {
    network.router.is_none() && !network.flows && network.ports.iter().all(|port| port.rate.is_none())
}

fn routes_to(network: &Network, sites: &BTreeSet<String>) -> bool {
    let outside = network.router.as_ref().and_then(|router| router.outside.as_ref());
    outside.is_some_and(|outside| sites.contains(&crate::site_bridge(&outside.site)))
}

/// The document that a change makes: replaced networks keep their places, new ones are added at the end.
fn changed(mut desired: Desired, change: &Change) -> Desired {
    desired.generation = change.generation;
    if !change.remove.is_empty() {
        let gone: HashSet<&str> = change.remove.iter().map(String::as_str).collect();
        desired.networks.retain(|network| !gone.contains(network.id.as_str()));
    }
    for network in &change.put {
        match desired.networks.iter_mut().find(|held| held.id == network.id) {
            Some(held) => held.clone_from(network),
            None => desired.networks.push(network.clone()),
        }
    }
    desired
}
