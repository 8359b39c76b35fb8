//! Two hosts whose agents do what they are told, late, out of order, or not at all.

use crate::support;
use controller_api::agent::{HostStatus, InstanceState, InstanceStatus};
use controller_api::checkpoint::CheckpointPhase as Phase;
use controller_api::life::{
    CaptureState, CaptureStatus, CaptureStep, CapturedDisk, DesiredCapture, DiskName, Layer, LayerFormat,
    Power, SavedMemory,
};
use controller_model::checkpoint::{self, Order};
use controller_model::placement::Observed;
use controller_model::standing::Sight;
use controller_model::{Cluster, Draft, name, record};
use std::collections::{BTreeMap, BTreeSet};
use types::{HostName, InstanceId};

/// Every layer has as many bytes.
pub const LAYER_BYTES: u64 = 65_536;

pub fn id(name: &str) -> InstanceId {
    name.parse().unwrap()
}

pub fn named(name: &str) -> HostName {
    name.parse().unwrap()
}

#[derive(Debug, Clone, Default)]
pub struct Fresh(u64);

impl Fresh {
    pub fn uuid(&mut self) -> String {
        self.0 += 1;
        format!("10000000-0000-4000-8000-{:012}", self.0)
    }
}

/// One host as it really is.
#[derive(Debug, Clone, Default)]
struct Agent {
    told: Vec<DesiredCapture>,
    instances: Vec<(InstanceId, String, Power)>,
    captures: BTreeMap<(String, InstanceId), CaptureStatus>,
    chains: BTreeMap<(InstanceId, String, DiskName), Vec<Layer>>,
    stopped: bool,
    breaks: bool,
    publishes: bool,
    online: bool,
}

#[derive(Debug, Clone)]
pub struct World {
    pub cluster: Cluster,
    pub observed: Observed,
    pub now_ms: u64,
    pub fresh: Fresh,
    pub events: Vec<String>,
    agents: Vec<Agent>,
    /// Some member was taken while another could still send, or let go between.
    torn: BTreeSet<String>,
}

impl World {
    pub fn office() -> Self {
        let agent = Agent { publishes: true, online: true, ..Agent::default() };
        let mut world = Self {
            cluster: support::office(),
            observed: Observed::new(),
            now_ms: 60_000,
            fresh: Fresh::default(),
            events: Vec::new(),
            agents: vec![agent.clone(), agent],
            torn: BTreeSet::new(),
        };
        let mut draft = Draft::new(world.cluster.clone());
        let volume = draft.cluster.volumes[&(id("office/workspace"), "home".parse().unwrap())].value.clone();
        let placed = record::Volume { host: Some(named("h2")), ..volume };
        draft.put("volumes/office/workspace/home", &placed);
        world.cluster = draft.cluster;
        for host in 0..2 {
            world.round(host);
        }
        world
    }

    fn host(index: usize) -> HostName {
        named(["h1", "h2"][index])
    }

    fn online(&self) -> BTreeSet<HostName> {
        (0..2).filter(|index| self.agents[*index].online).map(Self::host).collect()
    }

    pub fn request(&mut self, order: Order) -> String {
        let mut draft = Draft::new(self.cluster.clone());
        let mut fresh = || self.fresh.uuid();
        let name =
            checkpoint::request(&mut draft, &"office".parse().unwrap(), order, self.now_ms, &mut fresh)
                .unwrap();
        self.cluster = draft.cluster;
        name
    }

    pub fn checkpoint(&self, name: &str) -> record::Checkpoint {
        self.cluster.checkpoints[&("office".parse().unwrap(), name.to_owned())].value.clone()
    }

    pub fn captures(&self, host: &str) -> Vec<DesiredCapture> {
        checkpoint::captures(&self.cluster, &named(host))
    }

    pub fn settle(&mut self) {
        let online = self.online();
        let sight = Sight { observed: &self.observed, online: &online, now_ms: self.now_ms };
        let mut fresh = || self.fresh.uuid();
        let settled = checkpoint::settle(&self.cluster, sight, &mut fresh);
        self.events.extend(settled.events.into_iter().map(|(_, reason, _)| reason.to_owned()));
        if let Some(draft) = settled.draft {
            self.cluster = draft.cluster;
        }
    }

    /// What it shall hold arrives.
    pub fn deliver(&mut self, index: usize) {
        if !self.agents[index].online {
            return;
        }
        let host = Self::host(index);
        let told = checkpoint::captures(&self.cluster, &host);
        let instances = self
            .cluster
            .placements
            .iter()
            .filter(|(_, placement)| placement.host == host)
            .filter_map(|(id, _)| {
                let instance = self.cluster.instances.get(id)?;
                Some((id.clone(), instance.incarnation.clone(), instance.power))
            })
            .collect();
        let agent = &mut self.agents[index];
        (agent.told, agent.instances) = (told, instances);
    }

    fn state(&self, checkpoint: &str, instance: &InstanceId) -> CaptureState {
        let key = (checkpoint.to_owned(), instance.clone());
        let found = self.agents.iter().find_map(|agent| agent.captures.get(&key));
        found.map_or(CaptureState::Waiting, |capture| capture.state)
    }

    /// It does the next step of everything that it was told.
    pub fn act(&mut self, index: usize) {
        let told = self.agents[index].told.clone();
        for capture in told {
            let key = (capture.checkpoint.clone(), capture.instance.clone());
            let state = self.state(&key.0, &key.1);
            let next = match (capture.step, state) {
                (CaptureStep::Hold, CaptureState::Waiting) => CaptureState::Held,
                (CaptureStep::Take, CaptureState::Held) if self.agents[index].breaks => CaptureState::Failed,
                (CaptureStep::Take, CaptureState::Held) => {
                    self.look_at_all(&key.0);
                    CaptureState::Taken
                }
                (CaptureStep::Take, CaptureState::Waiting) => CaptureState::Failed,
                (CaptureStep::Keep, CaptureState::Taken) if self.agents[index].publishes => {
                    self.look_at_taken(&key.0);
                    CaptureState::Published
                }
                (CaptureStep::Keep, CaptureState::Taken) => {
                    self.look_at_taken(&key.0);
                    continue;
                }
                _ => continue,
            };
            self.become_(index, &capture, next);
        }
        let agent = &mut self.agents[index];
        let named: BTreeSet<_> =
            agent.told.iter().map(|told| (told.checkpoint.clone(), told.instance.clone())).collect();
        agent.captures.retain(|key, _| named.contains(key));
    }

    /// Somebody is taken now: everybody has to be held.
    fn look_at_all(&mut self, checkpoint: &str) {
        let all = [id("office/gateway"), id("office/workspace")];
        let held = |instance: &InstanceId| {
            matches!(
                self.state(checkpoint, instance),
                CaptureState::Held | CaptureState::Taken | CaptureState::Published
            )
        };
        if !all.iter().all(held) {
            self.torn.insert(checkpoint.to_owned());
        }
    }

    /// Somebody is let go now: everybody has to be taken.
    fn look_at_taken(&mut self, checkpoint: &str) {
        let all = [id("office/gateway"), id("office/workspace")];
        let taken = |instance: &InstanceId| {
            matches!(self.state(checkpoint, instance), CaptureState::Taken | CaptureState::Published)
        };
        if !all.iter().all(taken) {
            self.torn.insert(checkpoint.to_owned());
        }
    }

    fn become_(&mut self, index: usize, capture: &DesiredCapture, state: CaptureState) {
        let now_ms = self.now_ms;
        let publishes = self.agents[index].publishes;
        let agent = &mut self.agents[index];
        let key = (capture.checkpoint.clone(), capture.instance.clone());
        let status = agent.captures.entry(key).or_insert_with(|| CaptureStatus {
            checkpoint: capture.checkpoint.clone(),
            instance: capture.instance.clone(),
            state,
            reason: None,
            taken_ms: 0,
            pause_us: 0,
            disks: Vec::new(),
            memory: None,
            new_bytes: 0,
        });
        status.state = state;
        status.reason = (state == CaptureState::Failed).then(|| "it broke".into());
        if state == CaptureState::Taken {
            status.taken_ms = now_ms;
            status.pause_us = 900;
            let mut disks = vec![DiskName::System];
            if capture.instance.member.as_str() == "workspace" {
                disks.push(DiskName::Volume("home".parse().unwrap()));
            }
            for disk in disks {
                let chain = agent
                    .chains
                    .entry((capture.instance.clone(), capture.incarnation.clone(), disk.clone()))
                    .or_default();
                chain.push(Layer {
                    checkpoint: capture.checkpoint.clone(),
                    instance: capture.instance.clone(),
                    disk: disk.clone(),
                    format: LayerFormat::Qcow2,
                    file_bytes: LAYER_BYTES,
                    disk_bytes: 1 << 20,
                    image: None,
                });
                status.disks.push(CapturedDisk { disk, layers: chain.clone() });
                status.new_bytes += LAYER_BYTES;
            }
            status.memory = capture.with_memory.then(|| SavedMemory {
                checkpoint: capture.checkpoint.clone(),
                instance: capture.instance.clone(),
                file_bytes: 1 << 20,
                image: None,
            });
        }
        if state == CaptureState::Published && publishes {
            let digest = |what: String| Some(name::digest(what.as_bytes()));
            for layer in status.disks.iter_mut().flat_map(|disk| &mut disk.layers) {
                layer.image = digest(format!("{} {} {}", layer.checkpoint, layer.instance, layer.disk));
            }
            if let Some(memory) = &mut status.memory {
                memory.image = digest(format!("{} {} memory", memory.checkpoint, memory.instance));
            }
        }
    }

    /// Its status arrives.
    pub fn report(&mut self, index: usize) {
        let agent = &self.agents[index];
        if !agent.online {
            return;
        }
        let state = |power: Power| match power {
            Power::On if !agent.stopped => InstanceState::Ready,
            _ => InstanceState::Stopped,
        };
        let instances = agent.instances.iter().map(|(id, incarnation, power)| InstanceStatus {
            id: id.clone(),
            incarnation: incarnation.clone(),
            state: state(*power),
            reason: None,
            started_ms: Some(1_000),
            ready_ms: Some(2_000),
            starts: 1,
            dirty_bytes: 0,
            health: None,
        });
        let status = HostStatus {
            instances: instances.collect(),
            captures: agent.captures.values().cloned().collect(),
            ..HostStatus::default()
        };
        self.observed.insert(Self::host(index), status);
    }

    pub fn round(&mut self, index: usize) {
        self.deliver(index);
        self.act(index);
        self.report(index);
    }

    pub fn flip(&mut self, index: usize) {
        self.agents[index].online = !self.agents[index].online;
    }

    /// What was held is so no more; what was taken is on disk.
    pub fn restart(&mut self, index: usize) {
        for capture in self.agents[index].captures.values_mut() {
            if capture.state == CaptureState::Held {
                capture.state = CaptureState::Waiting;
            }
        }
    }

    pub fn break_next_take(&mut self, index: usize) {
        self.agents[index].breaks = true;
    }

    pub fn stop(&mut self, index: usize) {
        self.agents[index].stopped = true;
        self.report(index);
    }

    pub fn lose_files(&mut self, index: usize) {
        for capture in self.agents[index].captures.values_mut() {
            capture.state = CaptureState::Failed;
        }
        self.report(index);
    }

    /// Everybody comes back and does what is asked, for as long as it takes.
    pub fn calm_down(&mut self) {
        for agent in &mut self.agents {
            (agent.online, agent.publishes) = (true, true);
        }
        for _ in 0..12 {
            for index in 0..2 {
                self.round(index);
            }
            self.now_ms += 2_000;
            self.settle();
        }
        for index in 0..2 {
            self.round(index);
        }
    }

    fn take_until(&mut self, name: &str, phase: Phase) {
        for _ in 0..12 {
            if self.checkpoint(name).phase == phase {
                return;
            }
            self.settle();
            for index in 0..2 {
                self.round(index);
            }
            self.now_ms += 10;
        }
        panic!("{:#?}", self.checkpoint(name));
    }

    pub fn take(&mut self, name: &str) {
        if self.checkpoint(name).phase != Phase::Complete {
            self.take_until(name, Phase::Complete);
        }
    }

    pub fn take_without_images(&mut self, name: &str) {
        for agent in &mut self.agents {
            agent.publishes = false;
        }
        self.take_until(name, Phase::Keeping);
    }

    pub fn is_one_instant(&self, held: &record::Checkpoint) -> bool {
        !self.torn.contains(&held.id)
    }

    pub fn nobody_is_held(&self) -> bool {
        let held =
            |capture: &CaptureStatus| matches!(capture.state, CaptureState::Held | CaptureState::Waiting);
        !self.agents.iter().any(|agent| agent.captures.values().any(held))
    }
}
