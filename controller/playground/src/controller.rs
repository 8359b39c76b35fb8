//! The few things a playground asks of its controller.

use crate::access::Endpoint;
use crate::error::PlaygroundError;
use controller_api::rest::JoinTokenRequest;
use controller_client::{Client, ClientError};
use std::time::Duration;

/// The controller is on this machine: an answer that takes longer is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Controller(Client);

impl Controller {
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self, PlaygroundError> {
        let client = Client::new(&endpoint.url, &endpoint.ca, Some(&endpoint.token));
        client.map(Self).map_err(refused("let itself be called"))
    }

    pub(crate) async fn answers(&self) -> bool {
        tokio::time::timeout(ANSWER_TIMEOUT, self.0.version()).await.is_ok_and(|answer| answer.is_ok())
    }

    pub(crate) async fn apply(&self, document: &str) -> Result<(), PlaygroundError> {
        self.0.apply(document, false).await.map(drop).map_err(refused("apply the site"))
    }

    pub(crate) async fn join_token(&self, role: &str) -> Result<String, PlaygroundError> {
        let request = JoinTokenRequest { role: Some(role.to_owned()), valid_s: None };
        Ok(self.0.join_token(&request).await.map_err(refused("make a join token"))?.token)
    }

    pub(crate) async fn online(&self, host: &str) -> bool {
        let Ok(name) = types::HostName::new(host) else { return false };
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.0.host(&name)).await;
        asked.is_ok_and(|answer| answer.is_ok_and(|host| host.online))
    }
}

/// A refusal with every place in the document it is about.
fn refused(attempt: &'static str) -> impl FnOnce(ClientError) -> PlaygroundError {
    move |error| {
        let issues = error.problem().map(|problem| problem.issues.as_slice()).unwrap_or_default();
        let issues = issues.iter().map(|issue| format!("{}: {}", issue.field, issue.message));
        let message = std::iter::once(error.to_string()).chain(issues).collect::<Vec<_>>().join("; ");
        PlaygroundError::Refused { attempt: attempt.to_owned(), message }
    }
}
