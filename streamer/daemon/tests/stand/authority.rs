//! Certificates for daemons whose peers speak TLS.

use super::Daemon;

/// An authority, and a function that makes a host's certificate.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// A daemon with a certificate of this authority, trusting `trusted`.
    pub(crate) async fn daemon(&self, name: &str, role: &str, trusted: &Self) -> Daemon {
        self.certify(Daemon::prepare(role, ""), name, trusted).await
    }

    /// Gives a daemon that is not started its certificate, and starts it.
    pub(crate) async fn certify(&self, daemon: Daemon, name: &str, trusted: &Self) -> Daemon {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = daemon.folder.path();
        let write = |file: &str, text: &str| {
            std::fs::write(folder.join(file), text).unwrap();
            folder.join(file).display().to_string()
        };
        let tls = format!(
            "[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
            write("ca.pem", &trusted.pem),
            write("cert.pem", &certificate.pem()),
            write("key.pem", &key.serialize_pem())
        );
        let config = std::fs::read_to_string(folder.join("config.toml")).unwrap();
        write("config.toml", &(config + &tls));
        daemon.up().await
    }
}
