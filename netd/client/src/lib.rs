//! Typed client of netd's unix socket.
//!
//! Each call makes its own connection. Start at [`Client`]; the contract is in [`netd_api`].

use chassis::unix_http::{self, CallError, Streamed};
use hyper::Method;
use netd_api::{Capture, Change, Desired, Explanation, Flow, Network, PlanReport, Question, Status};
use std::collections::HashMap;
use std::path::PathBuf;

/// Calls one host's netd.
#[derive(Debug, Clone)]
pub struct Client(unix_http::Client);

impl Client {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self(unix_http::Client::new(socket))
    }

    /// Hands over the whole desired state; answers once it was applied.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 409 `stale-generation` or 422 `invalid-document` changes nothing.
    pub async fn put_desired(&self, desired: &Desired) -> Result<Status, CallError> {
        self.0.call(Method::PUT, "/v1/desired", desired).await
    }

    /// Hands over what differs from the document that netd holds; the status has the networks put only.
    ///
    /// # Errors
    /// As [`Self::put_desired`]; also 409 `stale-generation` if netd holds another document than the change is from.
    pub async fn change(&self, change: &Change) -> Result<Status, CallError> {
        self.0.call(Method::PATCH, "/v1/desired", change).await
    }

    /// Hands over `wanted`, as a change of what netd is believed to hold if that is less, and whole otherwise, or if
    /// netd holds something else after all. The status may have the networks that changed only.
    ///
    /// # Errors
    /// As [`Self::put_desired`].
    pub async fn converge(&self, held: Option<&Desired>, wanted: &Desired) -> Result<Status, CallError> {
        if let Some(change) = held.and_then(|held| between(held, wanted)) {
            match self.change(&change).await {
                Err(CallError::Refused { status: 409, .. }) => {}
                answer => return answer,
            }
        }
        self.put_desired(wanted).await
    }

    /// What [`Self::put_desired`] would do.
    ///
    /// # Errors
    /// As [`Self::put_desired`].
    pub async fn plan(&self, desired: &Desired) -> Result<PlanReport, CallError> {
        self.0.call(Method::POST, "/v1/plan", desired).await
    }

    /// Freshly observed.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn status(&self) -> Result<Status, CallError> {
        self.0.call(Method::GET, "/v1/status", &()).await
    }

    /// Removes everything of netd's from the host, and forgets the desired document.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn purge(&self) -> Result<Status, CallError> {
        self.0.call(Method::POST, "/v1/purge", &()).await
    }

    /// Why a connection would pass or not.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 404 `unknown-port` or 422 `invalid-request`.
    pub async fn explain(&self, question: &Question) -> Result<Explanation, CallError> {
        self.0.call(Method::POST, "/v1/explain", question).await
    }

    /// Frames of ports as pcapng, as they come; dropping it ends the capture.
    ///
    /// # Errors
    /// [`CallError::Refused`] with 404 `unknown-port`, 422 `invalid-request` or 429 `too-many-captures`.
    pub async fn capture(&self, capture: &Capture) -> Result<Streamed, CallError> {
        self.0.call_streamed(Method::POST, "/v1/capture", capture).await
    }

    /// Who speaks with whom.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn flows(&self) -> Result<Vec<Flow>, CallError> {
        self.0.call(Method::GET, "/v1/flows", &()).await
    }
}

/// What makes `wanted` of `held`, if it is less than half of it.
fn between(held: &Desired, wanted: &Desired) -> Option<Change> {
    let is_newer = held.generation < wanted.generation;
    if !is_newer || held.watchers != wanted.watchers || held.mirrors != wanted.mirrors {
        return None;
    }
    let mut gone: HashMap<&str, &Network> = held.networks.iter().map(|n| (n.id.as_str(), n)).collect();
    let mut change = Change { from: held.generation, generation: wanted.generation, ..Change::default() };
    for network in &wanted.networks {
        if gone.remove(network.id.as_str()) != Some(network) {
            change.put.push(network.clone());
        }
    }
    change.remove = gone.into_keys().map(str::to_owned).collect();
    let size = |networks: &[Network]| networks.iter().map(|network| 1 + network.ports.len()).sum::<usize>();
    (2 * (size(&change.put) + change.remove.len()) < size(&wanted.networks)).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Generation;

    fn document(generation: u64, networks: &[(&str, u16)]) -> Desired {
        let network =
            |(id, mtu): &(&str, u16)| Network { id: (*id).to_owned(), mtu: *mtu, ..Network::default() };
        Desired {
            generation: Generation(generation),
            networks: networks.iter().map(network).collect(),
            ..Desired::default()
        }
    }

    #[test]
    fn the_smaller_of_change_and_document_is_sent() {
        let held = document(1, &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
        let change = between(&held, &document(2, &[("a", 1), ("b", 2), ("c", 1), ("d", 1)])).unwrap();
        assert_eq!((change.from, change.generation), (Generation(1), Generation(2)));
        assert_eq!(change.put, document(0, &[("b", 2)]).networks);
        assert_eq!(change.remove, Vec::<String>::new());
        let change = between(&held, &document(2, &[("a", 1), ("c", 1), ("d", 1)])).unwrap();
        assert_eq!((change.put.len(), change.remove), (0, vec!["b".to_owned()]));
        assert_eq!(between(&held, &document(2, &[("a", 2), ("b", 2), ("c", 1), ("d", 1)])), None);
        assert_eq!(between(&held, &document(1, &[("a", 1)])), None);
    }
}
