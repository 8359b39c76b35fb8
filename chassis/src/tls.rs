//! TLS (rustls, aws-lc-rs) with certificates of one authority: servers that may see a client's certificate, clients
//! that show their own and trust that authority only.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A handshake that is not done by then is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time the last answers may take after a shutdown began.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);

/// The crypto of every TLS connection of ours.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds nothing of the kind.
    #[error("cannot read {what} from {}", path.display())]
    Pem {
        /// Certificate or key.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificates and keys do not fit together.
    #[error("certificate, key and authority do not fit together")]
    Mismatch(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A certificate chain with its key, and the authority whose certificates are trusted.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// Trusted.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl Identity {
    /// Reads three PEM files.
    ///
    /// # Errors
    /// [`TlsError::Pem`] names the file.
    pub fn load(authority: &Path, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Ok(Self {
            chain: certificates(certificate)?,
            key: PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Pem {
                what: "a key",
                path: key.to_owned(),
                source,
            })?,
            authorities: certificates(authority)?,
        })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key(), authorities: self.authorities.clone() }
    }
}

/// Reads the certificates of a PEM file.
///
/// # Errors
/// [`TlsError::Pem`] names the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let fail = |source| TlsError::Pem { what: "certificates", path: path.to_owned(), source };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(fail)?.collect();
    match found {
        Ok(list) if list.is_empty() => Err(fail(rustls::pki_types::pem::Error::NoItemsFound)),
        found => found.map_err(fail),
    }
}

/// Whether a server asks for a client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Checked if shown; who shows none is served too, and told apart by the handlers.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// A server's side.
///
/// # Errors
/// [`TlsError::Mismatch`].
pub fn server_config(identity: Identity, clients: ClientCertificate) -> Result<ServerConfig, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(&identity.authorities)?, provider());
    let builder = match clients {
        ClientCertificate::Optional => builder.allow_unauthenticated(),
        ClientCertificate::Required => builder,
    };
    let verifier = builder.build().map_err(|error| TlsError::Mismatch(error.into()))?;
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Mismatch(error.into()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain, identity.key)
        .map_err(|error| TlsError::Mismatch(error.into()))
}

/// A client's side that shows `identity` and trusts its authorities only.
///
/// # Errors
/// [`TlsError::Mismatch`].
pub fn client_config(identity: Identity) -> Result<ClientConfig, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Mismatch(error.into()))?
        .with_root_certificates(roots(&identity.authorities)?)
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(|error| TlsError::Mismatch(error.into()))
}

/// A client's side that shows nothing and trusts `authorities` only.
///
/// # Errors
/// [`TlsError::Mismatch`].
pub fn anonymous_client_config(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Mismatch(error.into()))?
        .with_root_certificates(roots(authorities)?)
        .with_no_client_auth())
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        store.add(authority.clone()).map_err(|error| TlsError::Mismatch(error.into()))?;
    }
    Ok(Arc::new(store))
}

/// Who is at the other end of a connection: an extension of every request that [`serve`] hands to its router.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Its verified leaf certificate (DER), if it showed one.
    pub certificate: Option<Arc<[u8]>>,
}

/// Serves HTTP/1.1 and HTTP/2 over TLS until `shutdown`, then finishes the answers under way, 4 seconds at most.
///
/// Each request carries a [`Peer`] extension. WebSocket upgrades work over HTTP/1.1.
pub async fn serve(listener: TcpListener, tls: ServerConfig, router: Router, shutdown: CancellationToken) {
    let mut tls = tls;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let tracker = TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: let some connections end first.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        tracker.spawn(async move { connection(stream, address, acceptor, router, shutdown).await });
    }
    tracker.close();
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, tracker.wait()).await;
}

async fn connection(
    stream: tokio::net::TcpStream,
    address: SocketAddr,
    acceptor: tokio_rustls::TlsAcceptor,
    router: Router,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%address, "TLS handshake took too long"),
    };
    let certificate =
        stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|c| Arc::from(c.as_ref()));
    let service = hyper_util::service::TowerToHyperService::new(
        router.layer(axum::Extension(Peer { address, certificate })),
    );
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%address, %error, "connection ended");
    }
}
