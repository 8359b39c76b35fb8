//! The authority of the cluster, and the certificates it gives.
//!
//! ECDSA P-256. The authority's key never leaves the state folder; a member's key never leaves the member.

use chassis::tls::{ClientCertificate, Identity};
use controller_model::name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use types::Digest;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks differ: certificates begin this long ago.
const BACKDATE: Duration = DAY;
const AUTHORITY_VALID: Duration = Duration::from_secs(3650 * 24 * 3600);
const LEAF_VALID: Duration = Duration::from_secs(825 * 24 * 3600);
/// A server certificate with less than this left is made anew at start.
const RENEW_BEFORE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS refuses what was made.
    #[error(transparent)]
    Tls(#[from] chassis::tls::TlsError),
    /// One of the authority's two files is missing.
    #[error("{} is there and {} is not: restore it from a backup, or remove both to begin a new cluster", there.display(), missing.display())]
    Half {
        /// This one is.
        there: PathBuf,
        /// This one is not.
        missing: PathBuf,
    },
}

/// The authority and this server's own certificate.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub pem: String,
    /// SHA-256 of its certificate (DER).
    pub digest: Digest,
    server: Identity,
}

impl Authority {
    /// Reads the authority and the server's certificate from the state folder, or makes them.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) fn open(state_dir: &Path, public_names: &[String]) -> Result<Self, IdentityError> {
        let (certificate, key) = (state_dir.join("ca.pem"), state_dir.join("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => {}
            (false, false) => make_authority(&certificate, &key)?,
            (true, false) => return Err(IdentityError::Half { there: certificate, missing: key }),
            // The key was written first and the certificate never: nobody trusts it yet.
            (false, true) => make_authority(&certificate, &key)?,
        }
        let pem = read(&certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&read(&key)?)?)?;
        let der = chassis::tls::certificates(&certificate)?;
        let digest = der.first().map_or_else(|| name::digest(b""), |der| name::digest(der));
        let server = server_identity(state_dir, &issuer, &pem, public_names)?;
        Ok(Self { issuer, pem, digest, server })
    }

    /// TLS of the server: who shows a certificate of this authority is told apart by the handlers.
    ///
    /// # Errors
    /// [`IdentityError::Tls`].
    pub(crate) fn server_config(&self) -> Result<ServerConfig, IdentityError> {
        Ok(chassis::tls::server_config(self.server.clone(), ClientCertificate::Optional)?)
    }

    /// Certifies a member's key: only the key of its request counts.
    ///
    /// # Errors
    /// The request is malformed, or its signature is not by its key.
    pub(crate) fn certify(
        &self,
        csr: &str,
        host: &str,
        role: &str,
    ) -> Result<(String, Digest), IdentityError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr)?;
        request.params = leaf(&[host.to_owned()], host, Some(role))?;
        let certificate = request.signed_by(&self.issuer)?;
        Ok((certificate.pem(), name::digest(certificate.der())))
    }
}

fn read(path: &Path) -> Result<String, IdentityError> {
    std::fs::read_to_string(path).map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    chassis::durable::write(path, text.as_bytes(), mode)
        .map_err(|source| IdentityError::File { path: path.to_owned(), source })
}

fn make_authority(certificate: &Path, key: &Path) -> Result<(), IdentityError> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = distinguished("Collective CA", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(AUTHORITY_VALID);
    write(key, &pair.serialize_pem(), 0o600)?;
    write(certificate, &params.self_signed(&pair)?.pem(), 0o644)
}

fn distinguished(common_name: &str, unit: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(unit) = unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name
}

fn validity(valid: Duration) -> (time::OffsetDateTime, time::OffsetDateTime) {
    let now = SystemTime::now();
    ((now - BACKDATE).into(), (now + valid).into())
}

fn leaf(names: &[String], common_name: &str, unit: Option<&str>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished(common_name, unit);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = validity(LEAF_VALID);
    Ok(params)
}

fn server_identity(
    state_dir: &Path,
    issuer: &Issuer<'_, KeyPair>,
    authority: &str,
    public_names: &[String],
) -> Result<Identity, IdentityError> {
    let (certificate, key) = (state_dir.join("server.pem"), state_dir.join("server.key"));
    let names_file = state_dir.join("server.names");
    let names = public_names.join("\n");
    let current = std::fs::read_to_string(&names_file).is_ok_and(|held| held == names)
        && key.exists()
        && lasts(&certificate, authority);
    if !current {
        let pair = KeyPair::generate()?;
        let made = leaf(public_names, "collectived", Some("controller"))?.signed_by(&pair, issuer)?;
        // The names last: without them the next start makes all three anew.
        chassis::durable::remove(&names_file)
            .map_err(|source| IdentityError::File { path: names_file.clone(), source })?;
        write(&key, &pair.serialize_pem(), 0o600)?;
        write(&certificate, &made.pem(), 0o644)?;
        write(&names_file, &names, 0o644)?;
    }
    let mut identity = Identity::load(&state_dir.join("ca.pem"), &certificate, &key)?;
    // A joining host knows the authority by its digest alone, so it must be shown.
    identity.chain.extend(identity.authorities.iter().cloned());
    Ok(identity)
}

/// The certificate is by this authority and not about to end.
fn lasts(path: &Path, authority: &str) -> bool {
    let (Ok(leaf), Ok(authority)) =
        (CertificateDer::from_pem_file(path), CertificateDer::from_pem_slice(authority.as_bytes()))
    else {
        return false;
    };
    let (Ok((_, leaf)), Ok((_, authority))) =
        (x509_parser::parse_x509_certificate(&leaf), x509_parser::parse_x509_certificate(&authority))
    else {
        return false;
    };
    let left = leaf.validity().time_to_expiration().map_or(0, time::Duration::whole_seconds);
    leaf.verify_signature(Some(authority.public_key())).is_ok()
        && u64::try_from(left).is_ok_and(|left| left > RENEW_BEFORE.as_secs())
}
