//! How a machine becomes a host: it makes a key, and a one-time token buys a certificate for it.
//!
//! The token carries the SHA-256 of the controller's CA certificate (DER). The server has to show that very
//! certificate in its chain and a leaf signed by it, before the token's secret is sent: nobody in between learns it.

use controller_api::agent::{JoinAnswer, JoinRequest};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::{HostName, SiteName};

/// Longest wait for the controller's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What a join needs.
#[derive(Debug, Clone)]
pub struct Join {
    /// The controller, `https://name:port`.
    pub server: String,
    /// `cj1.<ca digest>.<secret>`.
    pub token: String,
    /// Where `ca.pem`, `host.pem` and `host.key` go; made if absent.
    pub state: PathBuf,
    /// This host's name.
    pub host: HostName,
    /// Its site.
    pub site: SiteName,
}

/// What a join gave.
#[derive(Debug, Clone)]
pub struct Joined {
    /// `host` or `origin`.
    pub role: String,
    /// Folder of `ca.pem`, `host.pem` and `host.key`.
    pub state: PathBuf,
}

/// Why a join failed. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token is none.
    #[error("the join token is malformed: copy it whole, as `collective host token` printed it (cj1.…)")]
    Token,
    /// The controller cannot be reached, or is not the one the token is from.
    #[error("cannot reach the controller at {server}")]
    Reach {
        /// Its URL.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server is not the one the token is from.
    #[error("{server} is not the controller this token is from: {problem}")]
    Impostor {
        /// Its URL.
        server: String,
        /// What it lacks.
        problem: String,
    },
    /// The controller refused.
    #[error("the controller refused: {0}")]
    Refused(String),
    /// The answer cannot be used.
    #[error("the controller's answer cannot be used: {0}")]
    Answer(String),
    /// A key or request cannot be made.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Joins: afterwards the three files are in `state`, the key readable by its owner only.
///
/// # Errors
/// [`JoinError`]; nothing was written then, but the token may be used up.
pub async fn join(join: &Join) -> Result<Joined, JoinError> {
    let digest = ca_digest(&join.token)?;
    let key = KeyPair::generate().map_err(JoinError::Key)?;
    let request = JoinRequest {
        token: join.token.clone(),
        host: join.host.clone(),
        site: join.site.clone(),
        csr: request_for(&join.host, &key).map_err(JoinError::Key)?,
    };
    let answer = ask(join, digest, &request).await?;
    let ca = CertificateDer::from_pem_slice(answer.ca.as_bytes())
        .map_err(|error| JoinError::Answer(format!("no certificate authority in it ({error})")))?;
    if sha256(&ca) != digest {
        return Err(JoinError::Answer("its certificate authority is not the token's".to_owned()));
    }
    CertificateDer::from_pem_slice(answer.certificate.as_bytes())
        .map_err(|error| JoinError::Answer(format!("no certificate in it ({error})")))?;
    write_all(&join.state, &answer, &key.serialize_pem())?;
    Ok(Joined { role: answer.role, state: join.state.clone() })
}

fn ca_digest(token: &str) -> Result<[u8; 32], JoinError> {
    let mut parts = token.trim().split('.');
    let (Some("cj1"), Some(hex), Some(secret), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JoinError::Token);
    };
    let digest: types::Digest = format!("sha256:{hex}").parse().map_err(|_| JoinError::Token)?;
    if secret.is_empty() { Err(JoinError::Token) } else { Ok(*digest.as_bytes()) }
}

fn request_for(host: &HostName, key: &KeyPair) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::new(vec![host.to_string()])?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, host.as_str());
    params.distinguished_name = name;
    params.serialize_request(key)?.pem()
}

async fn ask(join: &Join, digest: [u8; 32], request: &JoinRequest) -> Result<JoinAnswer, JoinError> {
    let verifier = Arc::new(TokenVerifier { digest, problem: Mutex::default() });
    let tls = ClientConfig::builder_with_provider(chassis::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| JoinError::Answer(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let reach = |source| {
        let problem = verifier.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        match problem {
            Some(problem) => JoinError::Impostor { server: join.server.clone(), problem },
            None => JoinError::Reach { server: join.server.clone(), source },
        }
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(ANSWER_TIMEOUT)
        .https_only(true)
        .build()
        .map_err(&reach)?;
    let url = format!("{}/join/v1", join.server.trim_end_matches('/'));
    let answer = client.post(url).json(request).send().await.map_err(&reach)?;
    let status = answer.status();
    if !status.is_success() {
        #[derive(serde::Deserialize)]
        struct Problem {
            message: String,
        }
        let text = answer.text().await.unwrap_or_default();
        let message =
            serde_json::from_str::<Problem>(&text).map_or_else(|_| status.to_string(), |p| p.message);
        return Err(JoinError::Refused(message));
    }
    answer.json().await.map_err(|error| JoinError::Answer(error.to_string()))
}

fn write_all(state: &Path, answer: &JoinAnswer, key: &str) -> Result<(), JoinError> {
    std::fs::create_dir_all(state).map_err(|source| JoinError::Write { path: state.to_owned(), source })?;
    for (name, text, mode) in [
        ("host.key", key, 0o600),
        ("ca.pem", answer.ca.as_str(), 0o644),
        ("host.pem", &answer.certificate, 0o644),
    ] {
        let path = state.join(name);
        chassis::durable::write(&path, text.as_bytes(), mode)
            .map_err(|source| JoinError::Write { path, source })?;
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

/// Trusts exactly the authority whose digest the token carries.
#[derive(Debug)]
struct TokenVerifier {
    digest: [u8; 32],
    /// Why the last handshake was refused.
    problem: Mutex<Option<String>>,
}

impl TokenVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, String> {
        let ca = chain
            .iter()
            .find(|certificate| sha256(certificate) == self.digest)
            .ok_or("it does not show the certificate authority whose digest the token carries")?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned()).map_err(|error| error.to_string())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), chassis::tls::provider())
            .build()
            .map_err(|error| error.to_string())?
            .verify_server_cert(leaf, &[], name, &[], now)
            .map_err(|error| error.to_string())
    }
}

impl ServerCertVerifier for TokenVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(leaf, intermediates, server_name, now).map_err(|problem| {
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.clone());
            rustls::Error::General(problem)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &chassis::tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &chassis::tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        chassis::tls::provider().signature_verification_algorithms.supported_schemes()
    }
}
