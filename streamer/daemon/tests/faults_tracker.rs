//! A tracker that lies: it can keep a host from finding its peers, and do no other harm.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it measured")]

mod stand;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use rand::RngCore as _;
use stand::{Daemon, Nbd, PIECE, Stand, until};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streamer_api::Prefetch;

/// Memory of the streamer, whatever it is told: an answer of any size is cut off, addresses of any number are forgotten.
const RSS_KIB_MAX: u64 = 96 << 10;
const PIECE_BYTES: u32 = 65536;
/// Between two bytes of an answer that is slow.
const DRIP: Duration = Duration::from_millis(100);

/// What the tracker says.
#[derive(Debug, Clone)]
enum Answer {
    Body(Vec<u8>),
    Status(u16),
    /// To itself, for ever.
    Redirect,
    /// A byte now and then.
    Drip,
    /// More and more.
    Endless,
}

#[derive(Clone)]
struct Liar {
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicU32>,
    url: String,
}

impl Liar {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/announce", listener.local_addr().unwrap());
        let liar = Self { answer: Arc::new(Mutex::new(Answer::Status(500))), asked: Arc::default(), url };
        let router = Router::new().route("/announce", get(lie)).with_state(liar.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        liar
    }

    /// Says this from now on, and has been asked since. Somebody waits for a piece: they ask every second.
    async fn says(&self, what: &str, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
        let before = self.asked.load(Ordering::SeqCst);
        let asked = || async { (self.asked.load(Ordering::SeqCst) > before).then_some(()) };
        until(&format!("the tracker to be asked while it answers with {what}"), asked).await;
    }
}

async fn lie(State(liar): State<Liar>) -> Response {
    liar.asked.fetch_add(1, Ordering::SeqCst);
    let answer = liar.answer.lock().unwrap().clone();
    let stream = |part: Vec<u8>, pause: Duration| {
        Body::from_stream(futures::stream::unfold((), move |()| {
            let part = part.clone();
            async move {
                tokio::time::sleep(pause).await;
                Some((Ok::<_, std::io::Error>(part), ()))
            }
        }))
    };
    match answer {
        Answer::Body(body) => body.into_response(),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect => (StatusCode::FOUND, [(LOCATION, liar.url)]).into_response(),
        Answer::Drip => stream(b"d".to_vec(), DRIP).into_response(),
        Answer::Endless => stream(vec![b'9'; 1 << 20], Duration::ZERO).into_response(),
    }
}

fn compact(peers: impl IntoIterator<Item = SocketAddr>) -> Vec<u8> {
    let mut compact = Vec::new();
    for peer in peers {
        let SocketAddr::V4(peer) = peer else { unreachable!() };
        compact.extend_from_slice(&peer.ip().octets());
        compact.extend_from_slice(&peer.port().to_be_bytes());
    }
    let mut answer = format!("d8:intervali1e5:peers{}:", compact.len()).into_bytes();
    answer.extend_from_slice(&compact);
    answer.push(b'e');
    answer
}

/// Addresses of this machine's loopback where nobody listens.
fn nobody(count: u32) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|index| {
        let [_, high, middle, low] = (index + 256).to_be_bytes();
        SocketAddr::from(([127, high, middle, low], 9))
    })
}

fn junk(bytes: usize) -> Vec<u8> {
    let mut junk = vec![0; bytes];
    rand::rng().fill_bytes(&mut junk);
    junk
}

fn lies(ourselves: SocketAddr, tracker: SocketAddr, mute: SocketAddr) -> Vec<(&'static str, Answer)> {
    let body = |text: &str| Answer::Body(text.as_bytes().to_vec());
    vec![
        ("junk", Answer::Body(junk(5000))),
        ("nothing", Answer::Body(Vec::new())),
        ("a page", body("<html><body>Welcome to the hotel's network</body></html>")),
        ("an error", Answer::Status(500)),
        ("a refusal", Answer::Body([b"d14:failure reason300:", &[b'n'; 300][..], b"e"].concat())),
        (
            "a refusal that is no text",
            Answer::Body([b"d14:failure reason300:", &[0xff; 300][..], b"e"].concat()),
        ),
        ("half an answer", body("d8:intervali30e5:peers600:abc")),
        ("lists in lists", Answer::Body(vec![b'l'; 500_000])),
        ("a number that does not fit", body("d8:intervali99999999999999999999e5:peers0:e")),
        ("a time before the last", body("d8:intervali-1e5:peers0:e")),
        ("a month's patience", body("d8:intervali2592000e5:peers0:e")),
        ("peers of odd length", body("d8:intervali1e5:peers7:\u{7f}\0\0\u{1}\u{1}\u{1}\u{1}e")),
        ("peers that are no peers", body("d8:intervali1e5:peersli1e2:xxd2:ip4:nope4:porti99999eeee")),
        ("ourselves", Answer::Body(compact([ourselves]))),
        ("itself", Answer::Body(compact([tracker]))),
        ("one that is mute", Answer::Body(compact([mute]))),
        (
            "port 0 and no address",
            Answer::Body(compact([([127, 0, 0, 1], 0).into(), ([0, 0, 0, 0], 9).into()])),
        ),
        ("a thousand who are not there", Answer::Body(compact(nobody(1000)))),
        ("as many as fit who are not there", Answer::Body(compact(nobody(170_000)))),
        ("more than an answer may hold", Answer::Body(compact(nobody(2_000_000)))),
        ("a redirect to itself", Answer::Redirect),
        ("an answer without an end", Answer::Endless),
        ("a slow answer", Answer::Drip),
    ]
}

fn address(url: &str) -> SocketAddr {
    url.split('/').nth(2).unwrap().parse().unwrap()
}

async fn listens(daemon: &Daemon) -> SocketAddr {
    daemon.client.status().await.unwrap().listen.parse().unwrap()
}

#[tokio::test]
async fn whatever_a_tracker_says_a_host_lives_and_finds_its_peers_once_it_says_the_truth() {
    let stand = Stand::new(32).await;
    let liar = Liar::start().await;
    let host = Daemon::start("host", "").await;
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    host.put(&stand.published, &liar.url, Prefetch::Off).await;
    let lies = lies(listens(&host).await, address(&liar.url), mute.local_addr().unwrap());

    let (socket, name) = (host.nbd(), stand.published.digest.hex());
    let read = move || Nbd::connect(&socket, &name).patient().read(0, 32 * PIECE_BYTES);
    let guest = async { assert!(tokio::task::spawn_blocking(read).await.unwrap() == stand.bytes) };
    let tracker = async {
        for (what, answer) in lies {
            liar.says(what, answer).await;
            let status = host.status(&stand.published).await;
            assert_eq!((status.pieces_local, status.stalls.waiting), (0, 1), "{what}");
            let rss = host.rss_kib();
            assert!(rss < RSS_KIB_MAX, "{rss} KiB after {what}");
        }
        let truth = compact([listens(&stand.origin).await]);
        liar.says("the truth", Answer::Body(truth)).await;
    };
    // The guest's read waits all the while, and is right.
    tokio::join!(guest, tracker);
    assert_eq!(host.status(&stand.published).await.bytes.origin, 24 * PIECE);
    println!("{} KiB at the end", host.rss_kib());
}

#[tokio::test]
async fn lies_do_not_part_peers_that_have_met() {
    let stand = Stand::new(64).await;
    let liar = Liar::start().await;
    let host = Daemon::start("host", "").await;
    *liar.answer.lock().unwrap() = Answer::Body(compact([listens(&stand.origin).await]));
    host.put(&stand.published, &liar.url, Prefetch::Off).await;
    host.becomes(&stand.published, "the origin", |status| status.peers.len() == 1).await;
    for (index, (what, answer)) in
        [("nobody", Answer::Body(compact(nobody(1000)))), ("junk", Answer::Body(junk(9000)))]
            .into_iter()
            .enumerate()
    {
        liar.says(what, answer).await;
        stand.check(&host, index as u64 * 16 * PIECE, 16 * PIECE).await;
        assert_eq!(host.status(&stand.published).await.peers.len(), 1, "{what}");
    }
}
