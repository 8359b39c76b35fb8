//! A serial console over WebSocket.

use crate::ClientError;
use futures::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use types::InstanceId;

/// An open console: bytes both ways.
#[derive(Debug)]
pub struct Console {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    url: String,
}

impl Console {
    pub(crate) async fn open(
        server: &str,
        token: Option<&str>,
        tls: rustls::ClientConfig,
        id: &InstanceId,
    ) -> Result<Self, ClientError> {
        let authority = server.trim_start_matches("https://");
        let url = format!("wss://{authority}/v1/instances/{id}/console");
        let unusable = |what| move |detail: String| ClientError::Setup { what, detail };
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|e| unusable("the server's address")(e.to_string()))?;
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|error| unusable("the token")(error.to_string()))?;
            request.headers_mut().insert("authorization", value);
        }
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()) {
            Some((host, port)) => (host, port.parse().unwrap_or(443)),
            None => (authority, 443),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| unusable("the server's address")(error.to_string()))?;
        let stream =
            TcpStream::connect((host, port)).await.map_err(|error| ClientError::unreachable(&url, error))?;
        let stream = TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await
            .map_err(|error| ClientError::unreachable(&url, error))?;
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, _)) => Ok(Self { socket, url }),
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                match serde_json::from_slice(body) {
                    Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
                    Err(_) => {
                        Err(ClientError::Answer { url, detail: format!("status {}", response.status()) })
                    }
                }
            }
            Err(error) => Err(ClientError::unreachable(&url, error)),
        }
    }

    /// Sends bytes to the guest.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, bytes: Vec<u8>) -> Result<(), ClientError> {
        let sent = self.socket.send(Message::Binary(bytes.into())).await;
        sent.map_err(|error| ClientError::unreachable(&self.url, error))
    }

    /// The next bytes from the guest; none when the console has ended. Cancel safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn receive(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        loop {
            match self.socket.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(bytes.to_vec())),
                Some(Ok(Message::Text(text))) => return Ok(Some(text.as_bytes().to_vec())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ClientError::unreachable(&self.url, error)),
            }
        }
    }
}
