//! An input, checked and in the form in which a guest sees it.

use super::{CHOICES_MAX, Columns, HOSTS_MAX, PlacementInput};
use crate::bindings::{placement as wire, types};
use crate::call::PolicyError;
use std::collections::{HashMap, HashSet};

/// Numbers stay below this, so that a guest whose only number is a double loses nothing.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// Choices wanted where the request leaves it open.
const CHOICES_DEFAULT: u32 = 8;

/// What the imports of one call read.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) input: PlacementInput,
    pub(crate) settings: String,
    pub(crate) deadline_ms: u64,
    pub(crate) symbols: Symbols,
    /// The column `sites` as symbols.
    pub(crate) sites: Vec<u32>,
}

impl Scene {
    /// Checks the input. `default_settings` stand in for null.
    pub(crate) fn new(
        input: &PlacementInput,
        default_settings: &str,
        deadline_ms: u64,
    ) -> Result<Self, PolicyError> {
        check(input).map_err(|detail| PolicyError::BadInput { detail })?;
        let mut input = input.clone();
        for cached in &mut input.hosts.image_cached_bytes {
            *cached = (*cached).min(input.request.image_bytes);
        }
        let settings = match &input.settings {
            serde_json::Value::Null => default_settings.to_owned(),
            settings => settings.to_string(),
        };
        let mut symbols = Symbols::default();
        let sites = input.hosts.sites.iter().map(|site| symbols.intern(site)).collect();
        Ok(Self { input, settings, deadline_ms, symbols, sites })
    }

    pub(crate) fn host_count(&self) -> u32 {
        u32::try_from(self.input.hosts.names.len()).unwrap_or(u32::MAX)
    }

    /// Choices wanted.
    pub(crate) fn choices_max(&self) -> u32 {
        match self.input.request.choices_max {
            0 => CHOICES_DEFAULT,
            wanted => wanted,
        }
    }

    /// The request in the contract's words.
    pub(crate) fn request(&self) -> wire::Request {
        let request = &self.input.request;
        let index = |name: &Option<String>| {
            let name = name.as_ref()?;
            let position = self.input.hosts.names.iter().position(|host| host == name)?;
            u32::try_from(position).ok()
        };
        let attributes = request.attributes.iter();
        wire::Request {
            instance: request.instance.clone(),
            deployment: request.deployment.clone(),
            member: request.member.clone(),
            appliance: request.appliance.clone(),
            version: request.version.clone(),
            vcpus_milli: request.vcpus_milli,
            memory_bytes: request.memory_bytes,
            disk_bytes: request.disk_bytes,
            image_bytes: request.image_bytes,
            current: index(&request.current_host),
            pinned: index(&request.pinned_host),
            choices_max: self.choices_max(),
            attributes: attributes
                .map(|(key, value)| types::Attribute { key: key.clone(), value: value.clone() })
                .collect(),
        }
    }
}

/// Repeated texts as numbers; 0 is the empty text.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    texts: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Symbols {
    fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.texts.push(text.to_owned());
        let number = u32::try_from(self.texts.len()).unwrap_or(0);
        self.numbers.insert(text.to_owned(), number);
        number
    }

    pub(crate) fn text(&self, symbol: u32) -> &str {
        let position = (symbol as usize).checked_sub(1);
        position.and_then(|position| self.texts.get(position)).map_or("", String::as_str)
    }

    pub(crate) fn find(&self, text: &str) -> u32 {
        self.numbers.get(text).copied().unwrap_or(0)
    }
}

fn check(input: &PlacementInput) -> Result<(), String> {
    let (request, hosts) = (&input.request, &input.hosts);
    let count = hosts.names.len();
    if count > HOSTS_MAX {
        return Err(format!("hosts: {count} are more than {HOSTS_MAX}"));
    }
    if let Some((name, len)) = lens(hosts).into_iter().find(|(_, len)| *len != count) {
        return Err(format!("hosts.{name} has {len} elements for {count} hosts"));
    }
    if hosts.names.iter().collect::<HashSet<_>>().len() != count {
        return Err("hosts.names: a name occurs twice".to_owned());
    }
    if !hosts.loads.iter().all(|load| (0.0..=1.0).contains(load)) {
        return Err("hosts.loads: a load is not in 0.0 ..= 1.0".to_owned());
    }
    let wide = [&hosts.memory_total_bytes, &hosts.memory_free_bytes, &hosts.disk_free_bytes];
    let scalars =
        [input.now_ms, input.revision.0, request.memory_bytes, request.disk_bytes, request.image_bytes];
    if wide.into_iter().flatten().chain(&scalars).any(|number| *number > NUMBER_MAX) {
        return Err(format!("a number is above {NUMBER_MAX}"));
    }
    if request.choices_max > CHOICES_MAX {
        return Err(format!("request.choices_max is above {CHOICES_MAX}"));
    }
    if let Some(pinned) = &request.pinned_host
        && !hosts.names.contains(pinned)
    {
        return Err(format!("request.pinned_host: {pinned} holds the volumes and is not among the hosts"));
    }
    if !input.settings.is_null() && !input.settings.is_object() {
        return Err("settings: give an object".to_owned());
    }
    Ok(())
}

fn lens(hosts: &Columns) -> [(&'static str, usize); 11] {
    [
        ("sites", hosts.sites.len()),
        ("states", hosts.states.len()),
        ("memory_total_bytes", hosts.memory_total_bytes.len()),
        ("memory_free_bytes", hosts.memory_free_bytes.len()),
        ("disk_free_bytes", hosts.disk_free_bytes.len()),
        ("cpu_total_milli", hosts.cpu_total_milli.len()),
        ("cpu_free_milli", hosts.cpu_free_milli.len()),
        ("instance_counts", hosts.instance_counts.len()),
        ("loads", hosts.loads.len()),
        ("image_cached_bytes", hosts.image_cached_bytes.len()),
        ("peers", hosts.peers.len()),
    ]
}
