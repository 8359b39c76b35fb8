//! Real TLS on loopback, with an authority of its own.

use super::*;
use crate::moving::plan::Run;
use chassis::tls::{ClientCertificate, Identity, client_config, server_config};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::sync::Mutex;

struct Authority(Issuer<'static, KeyPair>, CertificateDer<'static>);

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let der = certificate.der().clone();
    Authority(Issuer::new(params, key), der)
}

impl Authority {
    fn identity(&self, host: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        Identity {
            chain: vec![leaf.der().clone()],
            key: rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            authorities: vec![self.1.clone()],
        }
    }
}

const MOVE: &str = "11111111-2222-4333-8444-555555555555";

/// Expects one move from h1; its sockets are in a folder of the test.
struct Target {
    folder: PathBuf,
    ends: Mutex<Option<CancellationToken>>,
    guests: Mutex<Vec<Guest>>,
}

impl Gate for Target {
    fn expects(&self, id: &str) -> Option<(HostName, CancellationToken)> {
        let ends = self.ends.lock().unwrap().clone()?;
        (id == MOVE).then(|| ("h1".parse().unwrap(), ends))
    }
    fn socket(&self, id: &str, what: &What) -> Option<PathBuf> {
        Some(socket_path(&self.folder, id, what))
    }
    async fn machine(&self, _id: &str, guest: Guest) -> Answer {
        self.guests.lock().unwrap().push(guest);
        Answer::Machine { document: "<domain/>".into(), sockets: self.folder.clone() }
    }
}

struct Scene {
    authority: Authority,
    target: Arc<Target>,
    address: SocketAddr,
    near: tempfile::TempDir,
    _far: tempfile::TempDir,
    shutdown: tokio_util::sync::DropGuard,
}

impl Scene {
    async fn new() -> Self {
        let authority = authority();
        let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = Arc::new(Target {
            folder: far.path().to_owned(),
            ends: Mutex::new(Some(CancellationToken::new())),
            guests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = server_config(authority.identity("h2"), ClientCertificate::Required).unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(serve(listener, tls, Arc::clone(&target), shutdown.clone()));
        Self { authority, target, address, near, _far: far, shutdown: shutdown.drop_guard() }
    }

    fn dialler(&self, host: &str, id: &str) -> Dialler {
        let tls = Arc::new(client_config(self.authority.identity(host)).unwrap());
        Dialler { tls, id: id.into(), to: "h2".parse().unwrap(), address: self.address }
    }

    fn socket(&self, what: &What) -> UnixListener {
        UnixListener::bind(socket_path(&self.target.folder, MOVE, what)).unwrap()
    }
}

#[tokio::test]
async fn streams_reach_the_socket_of_their_name_both_ways_and_end_with_either_end() {
    let scene = Scene::new().await;
    let far = [What::Libvirt, What::Memory, What::Disks].map(|what| (scene.socket(&what), what));
    let _ways = Ways::open(scene.near.path(), &scene.dialler("h1", MOVE)).unwrap();
    for (listener, what) in &far {
        let mut near = UnixStream::connect(socket_path(scene.near.path(), MOVE, what)).await.unwrap();
        let sent = vec![7_u8; 3 << 20];
        let writer = async {
            near.write_all(&sent).await.unwrap();
            near.shutdown().await.unwrap();
            let mut back = Vec::new();
            near.read_to_end(&mut back).await.unwrap();
            back
        };
        let reader = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            stream.write_all(b"all there").await.unwrap();
            bytes
        };
        let (back, bytes) = tokio::join!(writer, reader);
        assert!(bytes == sent && back == b"all there", "{what:?}");
    }
}

#[tokio::test]
async fn another_host_another_move_and_another_authority_are_let_in_nowhere() {
    let scene = Scene::new().await;
    let memory = scene.socket(&What::Memory);
    let refusal = format!("no move {MOVE} comes here from you");
    let (_, answer) = scene.dialler("h3", MOVE).open(What::Memory).await.unwrap();
    assert_eq!(answer, Answer::Refused(refusal.clone()));
    let (_, answer) =
        scene.dialler("h1", "99999999-2222-4333-8444-555555555555").open(What::Memory).await.unwrap();
    assert!(matches!(answer, Answer::Refused(why) if why.contains("no move 9999")));
    let tls = Arc::new(
        client_config(Identity {
            authorities: scene.authority.identity("h2").authorities,
            ..authority().identity("h1")
        })
        .unwrap(),
    );
    let stranger = Dialler { tls, ..scene.dialler("h1", MOVE) };
    stranger.open(What::Memory).await.unwrap_err();
    // And a target that is not who the controller says is told nothing.
    let elsewhere = Dialler { to: "h4".parse().unwrap(), ..scene.dialler("h1", MOVE) };
    elsewhere.open(What::Memory).await.unwrap_err();
    assert!(tokio::time::timeout(Duration::from_millis(50), memory.accept()).await.is_err());
    let guest = Guest { run: Run { starts: 2, ..Run::default() }, disks: vec![] };
    scene.dialler("h3", MOVE).machine(guest.clone()).await.unwrap_err();
    assert!(scene.target.guests.lock().unwrap().is_empty());
    let (document, sockets) = scene.dialler("h1", MOVE).machine(guest.clone()).await.unwrap();
    assert_eq!((document.as_str(), sockets), ("<domain/>", scene.target.folder.clone()));
    assert_eq!(*scene.target.guests.lock().unwrap(), [guest]);
}

#[tokio::test]
async fn a_move_that_is_named_no_more_is_cut_and_comes_in_no_more() {
    let scene = Scene::new().await;
    let disks = scene.socket(&What::Disks);
    let (mut stream, answer) = scene.dialler("h1", MOVE).open(What::Disks).await.unwrap();
    assert_eq!(answer, Answer::Open);
    let (mut far, _) = disks.accept().await.unwrap();
    scene.target.ends.lock().unwrap().take().unwrap().cancel();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok() && rest.is_empty());
    assert_eq!(far.read_to_end(&mut rest).await.unwrap(), 0);
    let (_, answer) = scene.dialler("h1", MOVE).open(What::Disks).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)));
}

#[tokio::test]
async fn garbage_silence_and_a_socket_that_is_not_there_keep_nobody_out() {
    let scene = Scene::new().await;
    // No TLS at all, one byte and silence, a handshake and then no line, one that is no opening.
    let mut plain = TcpStream::connect(scene.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut silent = TcpStream::connect(scene.address).await.unwrap();
    silent.write_all(&[22]).await.unwrap();
    let connect = async || {
        let tls = TlsConnector::from(Arc::new(client_config(scene.authority.identity("h1")).unwrap()));
        let tcp = TcpStream::connect(scene.address).await.unwrap();
        tls.connect(ServerName::try_from("h2").unwrap(), tcp).await.unwrap()
    };
    let half = connect().await;
    for line in ["{}\n", "nonsense\n", "{\"move\":\"x\",\"what\":\"everything\"}\n"] {
        let mut wrong = connect().await;
        wrong.write_all(line.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(10), wrong.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty(), "{line}");
    }
    // Nobody listens there.
    let (_, answer) = scene.dialler("h1", MOVE).open(What::Memory).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)));
    let memory = scene.socket(&What::Libvirt);
    let (_, answer) = scene.dialler("h1", MOVE).open(What::Libvirt).await.unwrap();
    assert_eq!(answer, Answer::Open);
    drop((memory, half, silent, scene.shutdown));
}
