//! A guest's serial console, driven over the REST API's WebSocket as a person's terminal would.

use crate::observe::Api;
use anyhow::{Context as _, bail};
use futures::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};

/// A harmless first command is typed again after this.
const RESEND: Duration = Duration::from_secs(3);

/// A shell on an instance's console.
#[derive(Debug)]
pub(crate) struct Console {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    seen: String,
}

impl Console {
    /// Opens an instance's console and waits for its shell.
    pub(crate) async fn open(api: &Api, instance: &str) -> anyhow::Result<Self> {
        let endpoint = api.endpoint();
        let address =
            endpoint.url.strip_prefix("https://").context("the controller is not at an https URL")?;
        let host = address.split(':').next().unwrap_or_default().to_owned();
        let ca = CertificateDer::from_pem_slice(endpoint.ca.as_bytes())?;
        let tls = chassis::tls::anonymous_client_config(&[ca])?;
        let stream = TcpStream::connect(address).await.context("connect to the controller")?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(ServerName::try_from(host)?, stream)
            .await
            .context("speak TLS with the controller")?;
        let mut request = format!("wss://{address}/v1/instances/{instance}/console").into_client_request()?;
        request.headers_mut().insert("authorization", format!("Bearer {}", endpoint.token).parse()?);
        let (socket, _) =
            tokio_tungstenite::client_async(request, stream).await.context("open the console")?;
        let mut console = Self { socket, seen: String::new() };
        // A login that is just beginning throws away what was typed before it.
        console.send("true", Duration::from_secs(40), true).await.context("no shell on the console")?;
        Ok(console)
    }

    /// Runs one shell command and returns its exit code and what it printed.
    pub(crate) async fn run(&mut self, command: &str, patience: Duration) -> anyhow::Result<(i32, String)> {
        self.send(command, patience, false).await
    }

    async fn send(
        &mut self,
        command: &str,
        patience: Duration,
        again: bool,
    ) -> anyhow::Result<(i32, String)> {
        self.seen.clear();
        // Split by quotes, so that the echo of the line is not taken for its result.
        let line = format!("{command}; echo \"<<\"\"$?\"\">>\"\n");
        let deadline = tokio::time::Instant::now() + patience;
        let mut resend = tokio::time::Instant::now();
        loop {
            if let Some((code, text)) = finished(&self.seen) {
                return Ok((code, text));
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                bail!(
                    "`{command}` did not end within {} s; the console says {:?}",
                    patience.as_secs(),
                    tail(&self.seen)
                );
            }
            if now >= resend {
                self.socket.send(Message::Binary(line.clone().into_bytes().into())).await?;
                resend = if again { now + RESEND } else { deadline };
            }
            match tokio::time::timeout_at(deadline.min(resend), self.socket.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(Some(Ok(Message::Text(text)))) => self.seen.push_str(&text),
                Ok(Some(Ok(Message::Close(reason)))) => bail!("the console was closed: {reason:?}"),
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(Some(Err(error))) => return Err(error).context("the console broke off"),
                Ok(None) => bail!("the console ended"),
            }
        }
    }
}

fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(300);
    text.get(from..).unwrap_or(text)
}

/// The exit code between `<<` and `>>`, and the text before.
fn finished(seen: &str) -> Option<(i32, String)> {
    let mut from = 0;
    while let Some(at) = seen[from..].find("<<") {
        let after = &seen[from + at + 2..];
        let end = after.find(">>")?;
        if let Ok(code) = after[..end].parse() {
            return Some((code, seen[..from + at].to_owned()));
        }
        from += at + 2;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_of_a_command_is_not_its_result() {
        assert_eq!(finished("# true; echo \"<<\"\"$?\"\">>\"\r\n"), None);
        let seen = "# false; echo \"<<\"\"$?\"\">>\"\r\nsome output\r\n<<1>>\r\n# ";
        assert_eq!(finished(seen).map(|(code, _)| code), Some(1));
    }
}
