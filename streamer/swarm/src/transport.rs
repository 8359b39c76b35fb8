//! Bytes between peers: TLS with certificates on both sides, or plain.

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A connection's bytes.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Certificates cannot be used.
#[derive(Debug, Error)]
#[error("peer certificates cannot be used")]
pub struct TlsError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// TLS between peers of one authority.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// `server` demands a client's certificate; `client` shows ours. Peers are dialled by address, so that the name in
    /// their certificate is not compared: that it comes from one of `authorities` is what makes them a host of ours.
    ///
    /// # Errors
    /// If the authorities cannot be used.
    pub fn new(
        server: ServerConfig,
        client: ClientConfig,
        authorities: &[CertificateDer<'static>],
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.clone()).map_err(|error| TlsError(error.into()))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| TlsError(error.into()))?;
        let mut client = client;
        client.dangerous().set_certificate_verifier(Arc::new(AnyNameOfAuthority(inner)));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}

/// Bytes a socket takes beyond what the network carries now. What is urgent waits behind them and no more.
const UNSENT_BYTES_MAX: u32 = 32 << 10;

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)
}

pub(crate) async fn accept(tls: Option<&Tls>, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
    prepare(&stream)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.acceptor.accept(stream).await?),
    })
}

pub(crate) async fn connect(tls: Option<&Tls>, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
    let stream = TcpStream::connect(address).await?;
    prepare(&stream)?;
    Ok(match tls {
        None => Box::new(stream),
        Some(tls) => Box::new(tls.connector.connect(ServerName::from(address.ip()), stream).await?),
    })
}

/// Verifies that a certificate comes from the authority and is valid now, whatever its name.
#[derive(Debug)]
struct AnyNameOfAuthority(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyNameOfAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is looked at last, after the chain: only its mismatch is forgiven.
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
