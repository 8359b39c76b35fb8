//! Announces to one HTTP(S) tracker (BEP 3, compact answers by BEP 23).

use rand::Rng as _;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use streamer_plan::Bencode;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Shortest time between two announces, whatever the hurry.
const HURRY: Duration = Duration::from_secs(1);
/// Waits after failures.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Intervals a tracker may wish for.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time a goodbye may take: nothing depends on it.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Peers asked for: all hosts of a site, and as many again.
const PEERS_WANTED: u32 = 200;

/// Why an announce failed.
#[derive(Debug, Error)]
pub(crate) enum AnnounceError {
    #[error("the tracker cannot be reached: {}", chain(.0))]
    Unreachable(reqwest::Error),
    #[error("the tracker answers {0}")]
    Status(reqwest::StatusCode),
    #[error("the tracker refuses: {0}")]
    Refused(String),
    #[error("the tracker's answer is not understood")]
    Malformed,
}

/// The cause is what a person needs: `reqwest` itself only names the URL.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        // A full string cannot fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Numbers an announce carries, kept by the torrent.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) left: AtomicU64,
    pub(crate) downloaded: AtomicU64,
    pub(crate) uploaded: AtomicU64,
}

/// Who announces what to whom.
#[derive(Debug, Clone)]
pub(crate) struct Announcer {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) info_hash: [u8; 20],
    pub(crate) peer_id: [u8; 20],
    pub(crate) address: SocketAddr,
    pub(crate) totals: Arc<Totals>,
    /// Somebody waits for a piece that no connected peer has.
    pub(crate) hurry: Arc<Notify>,
}

/// What came of an announce: peers, or why not.
pub(crate) type News = Result<Vec<SocketAddr>, AnnounceError>;

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    interval: Duration,
    peers: Vec<SocketAddr>,
}

impl Announcer {
    /// Announces until `stop`, then says goodbye.
    pub(crate) async fn run(self, news: mpsc::Sender<News>, stop: CancellationToken) {
        let mut event = Some("started");
        let mut complete = self.totals.left.load(Ordering::Relaxed) == 0;
        let mut failures = 0u32;
        loop {
            let began = Instant::now();
            let result = tokio::select! {
                result = self.announce(event) => result,
                () = stop.cancelled() => break,
            };
            let wait = match &result {
                Ok(answer) => {
                    failures = 0;
                    event = None;
                    answer.interval
                }
                Err(error) => {
                    tracing::debug!(%error, url = self.url, "announce failed");
                    failures += 1;
                    let most = (RETRY_MIN * 2u32.saturating_pow(failures.min(6))).min(RETRY_MAX);
                    rand::rng().random_range(RETRY_MIN..=most)
                }
            };
            if news.send(result.map(|answer| answer.peers)).await.is_err() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep_until(began + wait) => {}
                () = async { self.hurry.notified().await; tokio::time::sleep_until(began + HURRY).await } => {}
                () = stop.cancelled() => break,
            }
            if !complete && event.is_none() && self.totals.left.load(Ordering::Relaxed) == 0 {
                complete = true;
                event = Some("completed");
            }
        }
        if event != Some("started") {
            // Nothing depends on the goodbye.
            let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.announce(Some("stopped"))).await;
        }
    }

    async fn announce(&self, event: Option<&str>) -> Result<Answer, AnnounceError> {
        let request = self.http.get(self.query(event)).timeout(ANSWER_TIMEOUT).send();
        let mut response = request.await.map_err(AnnounceError::Unreachable)?;
        if !response.status().is_success() {
            return Err(AnnounceError::Status(response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(AnnounceError::Unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(AnnounceError::Malformed);
            }
        }
        parse(&body)
    }

    fn query(&self, event: Option<&str>) -> String {
        let mut url = self.url.clone();
        url.push(if url.contains('?') { '&' } else { '?' });
        let number = |total: &AtomicU64| total.load(Ordering::Relaxed);
        // Writing to a string cannot fail.
        let _ = write!(
            url,
            "info_hash={}&peer_id={}&ip={}&port={}&uploaded={}&downloaded={}&left={}&numwant={PEERS_WANTED}&compact=1",
            percent(&self.info_hash),
            percent(&self.peer_id),
            self.address.ip(),
            self.address.port(),
            number(&self.totals.uploaded),
            number(&self.totals.downloaded),
            number(&self.totals.left),
        );
        if let Some(event) = event {
            let _ = write!(url, "&event={event}");
        }
        url
    }
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02x}")).collect()
}

fn parse(body: &[u8]) -> Result<Answer, AnnounceError> {
    let value = Bencode::parse(body).ok_or(AnnounceError::Malformed)?;
    let answer = value.dict().ok_or(AnnounceError::Malformed)?;
    if let Some(reason) = answer.bytes("failure reason") {
        let reason: String = String::from_utf8_lossy(reason).chars().take(200).collect();
        return Err(AnnounceError::Refused(reason));
    }
    let seconds = answer.integer("interval").ok_or(AnnounceError::Malformed)?;
    let interval = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).clamp(HURRY, INTERVAL_MAX);
    let mut peers = Vec::new();
    match answer.get("peers") {
        Some(Bencode::Bytes(compact)) => {
            peers.extend(compact.as_chunks::<6>().0.iter().map(|[a, b, c, d, high, low]| {
                SocketAddr::from((Ipv4Addr::new(*a, *b, *c, *d), u16::from_be_bytes([*high, *low])))
            }));
        }
        Some(Bencode::List(list)) => peers.extend(list.iter().filter_map(listed)),
        _ => {}
    }
    for chunk in answer.bytes("peers6").unwrap_or_default().as_chunks::<18>().0 {
        let mut ip = [0; 16];
        ip.copy_from_slice(&chunk[..16]);
        peers.push(SocketAddr::from((Ipv6Addr::from(ip), u16::from_be_bytes([chunk[16], chunk[17]]))));
    }
    peers.retain(|peer| peer.port() != 0);
    Ok(Answer { interval, peers })
}

fn listed(value: &Bencode<'_>) -> Option<SocketAddr> {
    let peer = value.dict()?;
    let ip: IpAddr = std::str::from_utf8(peer.bytes("ip")?).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(peer.integer("port")?).ok()?))
}

/// For the fuzz targets: the peers a tracker's answer names, `None` if it names none.
pub(crate) fn peers(body: &[u8]) -> Option<Vec<SocketAddr>> {
    parse(body).ok().map(|answer| answer.peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_and_listed_peers_are_read() {
        let answer = parse(b"d8:intervali30e5:peers12:\x0a\0\0\x01\x1a\xe1\x0a\0\0\x02\x1a\xe2e").unwrap();
        assert_eq!(answer.interval, Duration::from_secs(30));
        assert_eq!(answer.peers, ["10.0.0.1:6881".parse().unwrap(), "10.0.0.2:6882".parse().unwrap()]);
        let answer = parse(b"d8:intervali30e5:peersld2:ip8:10.0.0.14:porti6881eeee").unwrap();
        assert_eq!(answer.peers, ["10.0.0.1:6881".parse().unwrap()]);
    }

    #[test]
    fn a_refusal_and_junk_are_told_apart() {
        assert!(matches!(parse(b"d14:failure reason2:noe"), Err(AnnounceError::Refused(why)) if why == "no"));
        for junk in [&b""[..], b"<html>", b"le", b"d5:peers3:abce", b"d8:intervali-"] {
            assert!(matches!(parse(junk), Err(AnnounceError::Malformed)), "{junk:?}");
        }
    }

    // A number of more than 64 bits overflowed in the parser used before, and took the announcer's task with it.
    #[test]
    fn a_number_that_does_not_fit_is_junk() {
        for junk in [&b"d8:intervali99999999999999999999ee"[..], b"d99999999999999999999:"] {
            assert!(matches!(parse(junk), Err(AnnounceError::Malformed)), "{junk:?}");
        }
    }
}
