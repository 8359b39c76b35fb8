//! Against Debian's `docker-registry`.

use crate::{PATIENCE, about, signed};
use plugins_artifact::registry::{Credentials, Reference, RegistryError, pull, push};
use plugins_artifact::{digest, verify};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// bcrypt of `secret`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "ana:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A registry that is gone after the test.
struct Registry {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    fn start(passwords: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            data.display()
        );
        if passwords {
            let file = folder.path().join("htpasswd");
            std::fs::write(&file, HTPASSWD).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", file.display());
        }
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry (Debian package docker-registry, installed by `make deps`)");
        let log = process.stderr.take().unwrap();
        let mut registry = Self { process, address: String::new(), _folder: folder };
        let mut lines = BufReader::new(log).lines();
        let listening = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            Some(rest.split(['"', ',', ' ']).next()?.to_owned())
        });
        registry.address = listening.expect("the registry says where it listens");
        // Somebody must read on, or it blocks.
        std::thread::spawn(move || lines.for_each(drop));
        registry
    }

    fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }
}

#[tokio::test]
async fn a_signed_component_comes_back_the_same_by_tag_and_by_digest() {
    let (registry, signed) = (Registry::start(false), signed());
    let reference = registry.reference("acme/balanced:1.2.3");
    let pushed = push(
        &reference,
        &signed.component,
        &signed.statement,
        &about(),
        Some(&signed.envelope),
        None,
        PATIENCE,
    )
    .await
    .unwrap();
    for reference in [reference.clone(), reference.pinned(pushed.manifest)] {
        let pulled = pull(&reference, None, PATIENCE).await.unwrap();
        assert_eq!(pulled.component, signed.component);
        assert_eq!(pulled.manifest, pushed.manifest);
        assert_eq!(pulled.annotations["vnd.collective.policy.kind"], "placement");
        let signer = verify(&pulled.signature.unwrap(), &pulled.component, &signed.roots).unwrap();
        assert_eq!(signer.statement, signed.statement);
    }
    let tag = format!("acme/balanced:{}", pushed.signature_tag.unwrap());
    assert!(tag.ends_with(&format!("sha256-{}.sig", digest(&signed.component).hex())));
    let error = pull(&registry.reference(&tag), None, PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("application/wasm"), "a signature is no component: {error}");
}

#[tokio::test]
async fn pushing_again_changes_nothing_and_a_component_without_a_signature_has_none() {
    let (registry, signed) = (Registry::start(false), signed());
    let reference = registry.reference("balanced:1");
    let mut digests = Vec::new();
    for _ in 0..2 {
        let pushed =
            push(&reference, &signed.component, &signed.statement, &about(), None, None, PATIENCE).await;
        digests.push(pushed.unwrap().manifest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(pull(&reference, None, PATIENCE).await.unwrap().signature, None);
}

#[tokio::test]
async fn a_component_of_many_mebibytes_passes() {
    let (registry, mut signed) = (Registry::start(false), signed());
    signed.component = b"0123456789abcdef".repeat(1 << 20);
    let reference = registry.reference("python:1");
    push(&reference, &signed.component, &signed.statement, &about(), None, None, PATIENCE).await.unwrap();
    assert!(pull(&reference, None, PATIENCE).await.unwrap().component == signed.component);
}

#[tokio::test]
async fn a_registry_with_passwords_lets_in_who_has_one() {
    let (registry, signed) = (Registry::start(true), signed());
    let reference = registry.reference("balanced:1");
    let with = |password: &str| Credentials { user: "ana".into(), password: password.into() };
    let attempt = async |credentials| {
        push(&reference, &signed.component, &signed.statement, &about(), None, credentials, PATIENCE).await
    };
    let error = attempt(None).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: false, .. }), "{error}");
    assert!(error.to_string().contains("docker login"), "{error}");
    let error = attempt(Some(with("wrong"))).await.unwrap_err();
    assert!(matches!(error, RegistryError::Denied { logged_in: true, .. }), "{error}");
    attempt(Some(with("secret"))).await.unwrap();
    pull(&reference, Some(with("secret")), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let registry = Registry::start(false);
    let error = pull(&registry.reference("nothing:1"), None, PATIENCE).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
}
