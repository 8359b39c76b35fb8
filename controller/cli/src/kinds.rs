//! Kinds of things by the names people type, and how each stands in a table.

use crate::output::{Row, or_dash};
use crate::time;
use controller_api::agent::InstanceState;
use controller_api::planned::RolloutView;
use controller_api::rest::{
    ApplianceView, AuditEntry, BundleView, DecisionView, DeploymentView, Event, HostView, InstanceView,
    PolicyView, SiteView, TokenView, VolumeView,
};
use std::str::FromStr;

/// A kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bundle,
    Deployment,
    Instance,
    Host,
    Site,
    Volume,
    Appliance,
    Policy,
    Decision,
    Rollout,
}

/// Kind, singular, plural, and shorter names.
const NAMES: [(Kind, &str, &str, &[&str]); 10] = [
    (Kind::Bundle, "bundle", "bundles", &[]),
    (Kind::Deployment, "deployment", "deployments", &["deploy"]),
    (Kind::Instance, "instance", "instances", &["inst"]),
    (Kind::Host, "host", "hosts", &[]),
    (Kind::Site, "site", "sites", &[]),
    (Kind::Volume, "volume", "volumes", &["vol"]),
    (Kind::Appliance, "appliance", "appliances", &["app"]),
    (Kind::Policy, "policy", "policies", &[]),
    (Kind::Decision, "decision", "decisions", &[]),
    (Kind::Rollout, "rollout", "rollouts", &[]),
];

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found =
            NAMES.iter().find(|(_, one, many, short)| text == *one || text == *many || short.contains(&text));
        found.map(|(kind, ..)| *kind).ok_or_else(|| {
            let known: Vec<_> = NAMES.iter().map(|(_, _, many, _)| *many).collect();
            format!("there is no such kind; there are {}", known.join(", "))
        })
    }
}

impl Kind {
    fn names(self) -> (&'static str, &'static str) {
        let found = NAMES.iter().find(|(kind, ..)| *kind == self);
        found.map_or(("", ""), |(_, one, many, _)| (one, many))
    }

    /// `bundle`.
    pub(crate) fn singular(self) -> &'static str {
        self.names().0
    }

    /// `bundles`: also the API's path and the watch's collection.
    pub(crate) fn plural(self) -> &'static str {
        self.names().1
    }

    /// The API answers for one by name.
    pub(crate) fn has_path_per_name(self) -> bool {
        matches!(self, Self::Bundle | Self::Deployment | Self::Instance | Self::Host | Self::Appliance)
    }

    /// Slashes in a name of this kind.
    fn slashes(self) -> usize {
        match self {
            Self::Instance | Self::Appliance => 1,
            Self::Volume => 2,
            Self::Rollout => 4,
            _ => 0,
        }
    }

    /// How names of this kind are written.
    pub(crate) fn name_form(self) -> &'static str {
        match self {
            Self::Instance => "DEPLOYMENT/MEMBER",
            Self::Appliance => "PUBLISHER/APPLIANCE",
            Self::Volume => "DEPLOYMENT/MEMBER/VOLUME",
            Self::Rollout => "PUBLISHER/APPLIANCE/CHANNEL/VERSION/POLICY",
            _ => "NAME",
        }
    }

    /// A name that can stand in a path: labels and slashes, nothing to be escaped.
    pub(crate) fn check_name(self, name: &str) -> Result<(), String> {
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        };
        if name.matches('/').count() == self.slashes() && name.split('/').all(plain) {
            return Ok(());
        }
        Err(format!("{name:?} cannot name a {}: write {}", self.singular(), self.name_form()))
    }
}

pub(crate) fn state_word(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "pending",
        InstanceState::Preparing => "preparing",
        InstanceState::Booting => "booting",
        InstanceState::Ready => "ready",
        InstanceState::Stopped => "stopped",
        InstanceState::Failed => "failed",
        InstanceState::Removing => "removing",
    }
}

fn joined<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

impl Row for BundleView {
    const COLUMNS: &'static [&'static str] = &["NAME", "MEMBERS", "NETWORKS", "DEPLOYMENTS"];
    const WIDE: &'static [&'static str] = &["APPLIANCES", "PLACEMENT", "REVISION"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let (members, networks) = (joined(self.spec.members.keys()), joined(self.spec.networks.keys()));
        vec![self.name(), members, networks, joined(&self.deployments)]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let appliances = joined(self.spec.members.values().map(|member| &member.appliance));
        let placement =
            self.spec.policies.placement.as_ref().map_or("balanced".to_owned(), ToString::to_string);
        vec![appliances, placement, self.revision.to_string()]
    }
}

impl Row for DeploymentView {
    const COLUMNS: &'static [&'static str] = &["NAME", "BUNDLE", "READY", "INSTANCES", "USER"];
    const WIDE: &'static [&'static str] = &["SITE", "REVISION", "PROBLEM"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let ready = self.instances.iter().filter(|instance| instance.state == InstanceState::Ready).count();
        let word = if self.ready { "yes" } else { "no" };
        let count = format!("{ready}/{}", self.instances.len());
        vec![
            self.name(),
            self.spec.bundle.to_string(),
            word.to_owned(),
            count,
            or_dash(self.spec.user.as_ref()),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let problem = self.problems.first().cloned().unwrap_or_default();
        vec![or_dash(self.spec.site.as_ref()), self.revision.to_string(), problem]
    }
}

impl Row for InstanceView {
    const COLUMNS: &'static [&'static str] = &["NAME", "STATE", "HOST", "APPLIANCE", "ADDRESSES", "AGE"];
    const WIDE: &'static [&'static str] =
        &["VERSION", "BOOT", "STARTS", "VCPUS", "MEMORY", "IMAGE", "REASON"];
    fn name(&self) -> String {
        self.id.to_string()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        let addresses = joined(self.ports.iter().filter_map(|port| port.address));
        let age = self.started_ms.map_or_else(String::new, |started| time::age(started, now_ms));
        let state = state_word(self.state).to_owned();
        vec![self.name(), state, or_dash(self.host.as_ref()), self.appliance.to_string(), addresses, age]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let boot =
            self.started_ms.zip(self.ready_ms).map_or_else(String::new, |(from, to)| time::span(from, to));
        vec![
            self.version.to_string(),
            boot,
            self.starts.to_string(),
            self.vcpus.to_string(),
            self.memory.to_string(),
            self.image.short(),
            self.reason.clone().unwrap_or_default(),
        ]
    }
}

impl Row for HostView {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "SITE", "ROLE", "ONLINE", "SERVICE", "INSTANCES", "MEMORY-FREE", "ACCELERATOR"];
    const WIDE: &'static [&'static str] =
        &["SEEN", "UNDERLAY", "LIBVIRT", "QEMU", "DISK-FREE", "ATTESTED", "LABELS", "PROBLEM"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let status = self.status.as_ref();
        vec![
            self.name(),
            self.site.to_string(),
            self.role.clone(),
            // An origin only seeds: it has no agent that could be online.
            if self.online {
                "yes"
            } else if self.role == "host" {
                "no"
            } else {
                ""
            }
            .to_owned(),
            if self.role == "host" { self.service.word() } else { "" }.to_owned(),
            status.map_or_else(String::new, |status| status.instances.len().to_string()),
            status.map_or_else(String::new, |status| time::bytes(status.memory_free_bytes)),
            self.facts.as_ref().map_or_else(String::new, |facts| facts.accelerator.clone()),
        ]
    }
    fn wide_cells(&self, now_ms: u64) -> Vec<String> {
        let (facts, status) = (self.facts.as_ref(), self.status.as_ref());
        vec![
            self.seen_ms.map_or_else(String::new, |seen| format!("{} ago", time::age(seen, now_ms))),
            or_dash(facts.and_then(|facts| facts.underlay_address.as_ref())),
            facts.map_or_else(String::new, |facts| facts.libvirt_version.clone()),
            facts.map_or_else(String::new, |facts| facts.qemu_version.clone()),
            status.map_or_else(String::new, |status| time::bytes(status.disk_free_bytes)),
            if self.attestation.is_some() { "yes" } else { "" }.to_owned(),
            joined(self.labels.iter().map(|(key, value)| format!("{key}={value}"))),
            status.and_then(|status| status.problems.first().cloned()).unwrap_or_default(),
        ]
    }
}

impl Row for SiteView {
    const COLUMNS: &'static [&'static str] = &["NAME", "LAN", "HOSTS"];
    const WIDE: &'static [&'static str] = &["ADDRESSES", "ROUTER"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        vec![self.name(), self.spec.lan.subnet.to_string(), joined(&self.hosts)]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let lan = &self.spec.lan;
        vec![format!("{}-{}", lan.first, lan.last), or_dash(lan.router.as_ref())]
    }
}

impl Row for VolumeView {
    const COLUMNS: &'static [&'static str] = &["NAME", "SIZE", "HOST", "IN-USE"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        format!("{}/{}", self.instance, self.name)
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let in_use = if self.in_use { "yes" } else { "no" }.to_owned();
        vec![Row::name(self), self.size.to_string(), self.host.to_string(), in_use]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }
}

impl Row for ApplianceView {
    const COLUMNS: &'static [&'static str] = &["NAME", "CHANNELS", "VERSIONS", "SIZE", "PUBLISHED"];
    const WIDE: &'static [&'static str] = &["IMAGE", "PORTS", "VOLUMES", "SUMMARY"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        let channels = joined(self.channels.iter().map(|(channel, version)| format!("{channel}={version}")));
        let newest = self.versions.last();
        let size = newest.map_or_else(String::new, |newest| time::bytes(newest.size_bytes));
        let age = newest
            .map_or_else(String::new, |newest| format!("{} ago", time::age(newest.published_ms, now_ms)));
        vec![Row::name(self), channels, self.versions.len().to_string(), size, age]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let Some(newest) = self.versions.last() else { return vec![String::new(); 4] };
        let spec = &newest.spec;
        vec![newest.image.short(), joined(&spec.ports), joined(&spec.volumes), spec.summary.clone()]
    }
}

impl Row for PolicyView {
    const COLUMNS: &'static [&'static str] =
        &["NAME", "KIND", "COMPONENT", "VERSION", "SIGNER", "ON-FAILURE", "SHADOW", "PROBLEM"];
    const WIDE: &'static [&'static str] = &["SUMMARY", "DIGEST"];
    fn name(&self) -> String {
        self.name.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let candidate =
            self.candidate.as_ref().map_or_else(String::new, |candidate| candidate.version.clone());
        vec![
            Row::name(self),
            self.kind.to_string(),
            self.active.component.clone(),
            self.active.version.clone(),
            self.active.origin.to_string(),
            self.on_failure.to_string(),
            candidate,
            self.health.problem.clone().unwrap_or_default(),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        vec![self.active.summary.clone(), self.active.digest.to_string()]
    }
}

impl Row for DecisionView {
    const COLUMNS: &'static [&'static str] = &["ID", "SUBJECT", "POLICY", "OUTCOME", "SHADOW", "TOOK", "AGE"];
    const WIDE: &'static [&'static str] = &["CHOICES", "COMPONENT", "INPUT", "FALLBACK"];
    fn name(&self) -> String {
        self.id.to_string()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        let shadow = self.shadow.as_ref().filter(|shadow| shadow.differs);
        let shadow = shadow.map_or_else(String::new, |shadow| shadow.outcome.clone());
        vec![
            self.id.to_string(),
            self.subject.clone(),
            self.policy.to_string(),
            self.outcome.clone(),
            shadow,
            format!("{} us", self.took_us),
            time::age(self.at_ms, now_ms),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let choices =
            joined(self.choices.iter().map(|choice| format!("{}={:.2}", choice.host, choice.score)));
        let fallback = self.fallback.as_ref().map(|fallback| &fallback.policy);
        vec![choices, self.component.clone(), self.input.short(), or_dash(fallback)]
    }
}

impl Row for RolloutView {
    const COLUMNS: &'static [&'static str] = &["NAME", "STEP", "AT-TARGET", "UNDER-WAY", "STARTED", "REASON"];
    const WIDE: &'static [&'static str] = &["NEXT", "DECISION"];
    fn name(&self) -> String {
        self.id.clone()
    }
    fn cells(&self, now_ms: u64) -> Vec<String> {
        let under_way = self.orders.iter().filter(|order| order.status.is_under_way()).count();
        let step = if self.paused.is_some() { format!("{}, paused", self.step) } else { self.step.clone() };
        vec![
            Row::name(self),
            step,
            format!("{}/{}", self.at_target, self.instances),
            format!("{under_way} of {}", self.orders.len()),
            format!("{} ago", time::age(self.started_ms, now_ms)),
            self.reasons.first().cloned().unwrap_or_default(),
        ]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        let next = if self.next_call_ms == 0 { String::new() } else { time::utc(self.next_call_ms) };
        vec![next, or_dash(self.decision.as_ref())]
    }
}

impl Row for TokenView {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "ROLE", "EXPIRES"];
    const WIDE: &'static [&'static str] = &[];
    fn name(&self) -> String {
        self.id.clone()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let expires = self.expires_ms.map_or_else(|| "never".to_owned(), time::utc);
        vec![self.id.clone(), self.name.clone(), self.role.clone(), expires]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        Vec::new()
    }
}

impl Row for Event {
    const COLUMNS: &'static [&'static str] = &["TIME", "OBJECT", "REASON", "MESSAGE"];
    const WIDE: &'static [&'static str] = &["REVISION"];
    fn name(&self) -> String {
        self.revision.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        vec![time::utc(self.at_ms), self.object.clone(), self.reason.clone(), self.message.clone()]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        vec![self.revision.to_string()]
    }
}

impl Row for AuditEntry {
    const COLUMNS: &'static [&'static str] = &["NUMBER", "TIME", "WHO", "ACTION", "OBJECT"];
    const WIDE: &'static [&'static str] = &["WHY", "REVISION", "PREVIOUS"];
    fn name(&self) -> String {
        self.number.to_string()
    }
    fn cells(&self, _now_ms: u64) -> Vec<String> {
        let number = self.number.to_string();
        vec![number, time::utc(self.at_ms), self.who.clone(), self.action.clone(), self.object.clone()]
    }
    fn wide_cells(&self, _now_ms: u64) -> Vec<String> {
        vec![or_dash(self.why.as_ref()), self.revision.to_string(), self.previous.short()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{Format, list};

    #[test]
    fn kinds_are_known_by_singular_plural_and_short_name() {
        for (kind, one, many, short) in NAMES {
            for name in [one, many].iter().chain(short) {
                assert_eq!(name.parse::<Kind>().unwrap(), kind);
            }
        }
        assert!("pod".parse::<Kind>().unwrap_err().starts_with("there is no such kind; there are bundles, "));
    }

    #[test]
    fn a_name_that_would_change_the_path_is_refused() {
        Kind::Instance.check_name("office/gateway").unwrap();
        for name in ["office", "office/", "/x", "a/b/c", "../x", "office/..", "a/b?c=d", "a/b%2f"] {
            let problem = Kind::Instance.check_name(name).unwrap_err();
            assert!(problem.ends_with("write DEPLOYMENT/MEMBER"), "{problem}");
        }
    }

    #[test]
    fn every_row_has_as_many_cells_as_columns() {
        fn check<R: Row>(row: &R) {
            assert_eq!(row.cells(0).len(), R::COLUMNS.len());
            assert_eq!(row.wide_cells(0).len(), R::WIDE.len());
        }
        check(&site());
        check(&token());
        check(&event());
        check(&volume());
    }

    fn site() -> SiteView {
        serde_json::from_value(serde_json::json!({
            "name": "main", "hosts": ["h1", "h2"],
            "spec": {"lan": {"subnet": "10.88.0.0/24", "first": "10.88.0.100", "last": "10.88.0.199"}}
        }))
        .unwrap()
    }

    fn token() -> TokenView {
        TokenView { id: "t1".into(), name: "ci".into(), role: "read".into(), expires_ms: None }
    }

    fn event() -> Event {
        serde_json::from_value(serde_json::json!({
            "revision": 7, "at_ms": 0, "object": "host/h1", "reason": "host-online", "message": "h1 is online"
        }))
        .unwrap()
    }

    fn volume() -> VolumeView {
        serde_json::from_value(serde_json::json!({
            "instance": "office/workspace", "name": "home", "size": "256MiB", "host": "h2", "in_use": true
        }))
        .unwrap()
    }

    fn render<R: Row>(row: R, format: Format) -> String {
        let mut out = Vec::new();
        list(&mut out, &[row], format, 0).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats_are_as_documented() {
        assert_eq!(render(site(), Format::Table), "NAME  LAN           HOSTS\nmain  10.88.0.0/24  h1,h2\n");
        assert_eq!(
            render(site(), Format::Wide),
            "NAME  LAN           HOSTS  ADDRESSES                ROUTER\n\
             main  10.88.0.0/24  h1,h2  10.88.0.100-10.88.0.199  -\n"
        );
        assert_eq!(render(volume(), Format::Name), "office/workspace/home\n");
        assert_eq!(
            render(token(), Format::Json),
            "[\n  {\n    \"id\": \"t1\",\n    \"name\": \"ci\",\n    \"role\": \"read\",\n    \"expires_ms\": null\n  }\n]\n"
        );
        let yaml = render(volume(), Format::Yaml);
        let read: Vec<VolumeView> = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, [volume()]);
    }
}
