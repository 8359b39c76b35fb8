//! A person in the office: HTTP requests from the site's LAN, made inside the playground's switch.

use anyhow::{Context as _, bail};
use playground::Part;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Largest answer read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Where pages are served.
pub(crate) const HTTP: u16 = 80;

/// Where from and to.
#[derive(Debug, Clone)]
pub(crate) struct Office {
    switch: Part,
    /// The gateway's address on the site's LAN.
    pub(crate) address: IpAddr,
}

impl Office {
    /// Requests go from `switch` to `address`, TCP port [`HTTP`].
    pub(crate) fn new(switch: Part, address: IpAddr) -> Self {
        Self { switch, address }
    }

    /// The body of an answer with status 200.
    pub(crate) async fn get(&self, path: &str, patience: Duration) -> anyhow::Result<String> {
        get(&self.switch, SocketAddr::new(self.address, HTTP), path, patience).await
    }

    /// Asks again and again until an answer comes; the answer and when it came, in milliseconds since 1970.
    pub(crate) async fn first(&self, path: &str, deadline: Duration) -> anyhow::Result<(String, u64)> {
        let until = Instant::now() + deadline;
        loop {
            match self.get(path, Duration::from_millis(1500)).await {
                Ok(body) => return Ok((body, chassis::clock::unix_ms())),
                Err(error) if Instant::now() > until => {
                    return Err(error.context(format!(
                        "no answer from {} within {} s",
                        self.address,
                        deadline.as_secs()
                    )));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// One HTTP GET from inside a box.
pub(crate) async fn get(
    from: &Part,
    to: SocketAddr,
    path: &str,
    patience: Duration,
) -> anyhow::Result<String> {
    let (from, path) = (from.clone(), path.to_owned());
    tokio::task::spawn_blocking(move || exchange(connect(&from, to, patience)?, to, &path, patience)).await?
}

/// A connection from inside a box.
pub(crate) fn connect(from: &Part, to: SocketAddr, patience: Duration) -> anyhow::Result<TcpStream> {
    from.in_namespace(move || TcpStream::connect_timeout(&to, patience))
        .context("enter the namespace")?
        .with_context(|| format!("connect to {to}"))
}

fn exchange(mut stream: TcpStream, to: SocketAddr, path: &str, patience: Duration) -> anyhow::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).context("read the answer")?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{path} was answered with {status:?}");
    }
    Ok(body.to_owned())
}

/// What a counter served over HTTP did while something was done to the system.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// Answers read.
    pub(crate) answers: u32,
    /// It only ever grew, on the same boot of the guest.
    pub(crate) steady: bool,
    /// Longest time without an answer in milliseconds.
    pub(crate) longest_gap_ms: u64,
}

/// Reads `/counter` and `/boot-id` until told to stop.
pub(crate) fn watch(
    office: Office,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> tokio::task::JoinHandle<Watched> {
    tokio::spawn(async move {
        let mut watched = Watched { answers: 0, steady: true, longest_gap_ms: 0 };
        let (mut last, mut boot, mut answered) = (0u64, None::<String>, Instant::now());
        while stop.try_recv().is_err() {
            if let Ok(body) = office.get("/counter", Duration::from_secs(2)).await {
                let count = body.trim().parse().unwrap_or(0);
                watched.steady &= count >= last && count > 0;
                last = count;
                watched.answers += 1;
                let gap = u64::try_from(answered.elapsed().as_millis()).unwrap_or(u64::MAX);
                watched.longest_gap_ms = watched.longest_gap_ms.max(gap);
                answered = Instant::now();
            }
            if let Ok(id) = office.get("/boot-id", Duration::from_secs(2)).await {
                watched.steady &= boot.as_ref().is_none_or(|known| *known == id);
                boot = Some(id);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let gap = u64::try_from(answered.elapsed().as_millis()).unwrap_or(u64::MAX);
        watched.longest_gap_ms = watched.longest_gap_ms.max(gap);
        watched
    })
}
