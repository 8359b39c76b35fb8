//! What the controller says, read over its REST API.

use anyhow::{Context as _, bail};
use controller_api::agent::InstanceState;
use controller_api::rest::{BootView, HostView, InstanceView, PortView};
use playground::Endpoint;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The REST API of one controller.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    endpoint: Endpoint,
}

impl Api {
    /// Trusts the endpoint's authority only.
    pub(crate) fn new(endpoint: Endpoint) -> anyhow::Result<Self> {
        use rustls::pki_types::{CertificateDer, pem::PemObject as _};
        let ca = CertificateDer::from_pem_slice(endpoint.ca.as_bytes())
            .context("read the controller's authority")?;
        let tls = chassis::tls::anonymous_client_config(&[ca])?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self { http, endpoint })
    }

    /// The endpoint.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET`s a path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.endpoint.url);
        let answer = self.http.get(url).bearer_auth(&self.endpoint.token).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!("GET {path} was answered with {status}: {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("read the answer to GET {path}"))
    }

    /// One instance.
    pub(crate) async fn instance(&self, id: &str) -> anyhow::Result<InstanceView> {
        self.get(&format!("/v1/instances/{id}")).await
    }

    /// One instance's boot, with the state of its image.
    pub(crate) async fn boot(&self, id: &str) -> anyhow::Result<BootView> {
        self.get(&format!("/v1/instances/{id}/boot")).await
    }

    /// One host.
    pub(crate) async fn host(&self, name: &str) -> anyhow::Result<HostView> {
        self.get(&format!("/v1/hosts/{name}")).await
    }

    /// Asks for an instance until `wanted` holds.
    pub(crate) async fn instance_until(
        &self,
        id: &str,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&InstanceView) -> bool,
    ) -> anyhow::Result<InstanceView> {
        let until = Instant::now() + deadline;
        loop {
            let seen = self.instance(id).await;
            if let Ok(instance) = &seen
                && wanted(instance)
            {
                return seen;
            }
            if Instant::now() > until {
                let state = seen.map(|i| format!("{:?}, {}", i.state, i.reason.unwrap_or_default()));
                bail!(
                    "{id} is not {what} after {} s: {}",
                    deadline.as_secs(),
                    state.unwrap_or_else(|e| format!("{e:#}"))
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until an instance is ready in an incarnation other than `before`.
    pub(crate) async fn ready(
        &self,
        id: &str,
        before: Option<&str>,
        deadline: Duration,
    ) -> anyhow::Result<InstanceView> {
        self.instance_until(id, "ready", deadline, |instance| {
            instance.state == InstanceState::Ready && before != Some(&instance.incarnation)
        })
        .await
    }

    /// Waits until every host is online, heard after `since_ms`, and holds what it shall. How long that took.
    pub(crate) async fn settled(
        &self,
        hosts: &[String],
        since_ms: u64,
        deadline: Duration,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let mut why = String::new();
            for name in hosts {
                match self.host(name).await {
                    Ok(host) => {
                        if let Some(reason) = unsettled(&host, since_ms) {
                            why = format!("{name}: {reason}");
                        }
                    }
                    Err(error) => why = format!("{name}: {error:#}"),
                }
            }
            if why.is_empty() {
                return Ok(began.elapsed());
            }
            if began.elapsed() > deadline {
                bail!("not settled after {} s: {why}", deadline.as_secs());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn unsettled(host: &HostView, since_ms: u64) -> Option<String> {
    let Some(status) = &host.status else { return Some("no status".to_owned()) };
    if !host.online {
        return Some("offline".to_owned());
    }
    if host.seen_ms.unwrap_or(0) <= since_ms {
        return Some("not heard since".to_owned());
    }
    if !status.streamer_up {
        return Some("its streamer does not answer".to_owned());
    }
    let networks = status.networks.as_ref().is_some_and(|networks| networks.converged);
    if !networks {
        return Some("its networks are not as desired".to_owned());
    }
    if let Some(instance) = status.instances.iter().find(|i| i.state != InstanceState::Ready) {
        return Some(format!("{} is {:?}", instance.id, instance.state));
    }
    (!status.converged).then(|| format!("not converged: {}", status.problems.join("; ")))
}

/// The port of an instance that joins `network`.
pub(crate) fn port<'a>(instance: &'a InstanceView, network: &str) -> anyhow::Result<&'a PortView> {
    instance
        .ports
        .iter()
        .find(|port| port.network.as_str() == network)
        .with_context(|| format!("{} has no port on {network}", instance.id))
}

/// The host of an instance, or `no host`.
pub(crate) fn host(instance: &InstanceView) -> &str {
    instance.host.as_ref().map_or("no host", |host| host.as_str())
}

/// A port of an instance by the appliance's name for it.
pub(crate) fn nic<'a>(instance: &'a InstanceView, name: &str) -> anyhow::Result<&'a PortView> {
    let found = instance.ports.iter().find(|port| port.name.as_str() == name);
    found.with_context(|| format!("{} has no port {name}", instance.id))
}

/// The address of an instance's port.
pub(crate) fn nic_address(instance: &InstanceView, name: &str) -> anyhow::Result<IpAddr> {
    nic(instance, name)?.address.with_context(|| format!("{} has no address", instance.id))
}
