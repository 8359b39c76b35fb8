//! Names and passwords for registries, where `docker login` and `podman login` leave them.

use super::RegistryError;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

/// Largest configuration that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// What a credential helper says of a registry that it does not know.
const NOT_FOUND: &str = "credentials not found";
/// What Docker calls its own registry in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A name and a password, or a token in place of one.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who.
    pub user: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.user)
    }
}

impl Credentials {
    /// What the user's configuration has for a registry: `$DOCKER_CONFIG/config.json` or `~/.docker/config.json` with
    /// its credential helpers, then Podman's `auth.json`.
    ///
    /// # Errors
    /// There is a configuration, and it cannot be used.
    pub fn of_user(registry: &str) -> Result<Option<Self>, RegistryError> {
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let home = || std::env::home_dir().map(|home| home.join(".docker"));
        let docker = variable("DOCKER_CONFIG").or_else(home).map(|folder| folder.join("config.json"));
        let run = || variable("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json"));
        let podman = variable("REGISTRY_AUTH_FILE").or_else(run);
        Self::of_files(registry, docker.into_iter().chain(podman))
    }

    /// What the first of these configurations has that knows the registry. A file that is absent knows none.
    ///
    /// # Errors
    /// One is there and cannot be used.
    pub fn of_files(
        registry: &str,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Result<Option<Self>, RegistryError> {
        let name = if registry == "docker.io" { DOCKER_HUB } else { registry };
        for path in files {
            let unusable = |problem: String| RegistryError::Credentials {
                registry: registry.to_owned(),
                problem: format!("{}: {problem}", path.display()),
            };
            let file = match File::open(&path) {
                Ok(file) => file.take(CONFIG_BYTES_MAX),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(unusable(error.to_string())),
            };
            match docker_credential::get_credential_from_reader(file, name) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Self { user, password }));
                }
                Ok(DockerCredential::IdentityToken(_)) => {
                    let problem =
                        "it has an identity token, which is not spoken here: log in with a password";
                    return Err(unusable(problem.to_owned()));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                // A helper that holds others' credentials says so by failing.
                Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains(NOT_FOUND) => {
                }
                Err(error) => return Err(unusable(error.to_string())),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ana:secret`.
    const CONFIG: &str = r#"{"auths": {"127.0.0.1:5000": {"auth": "YW5hOnNlY3JldA=="}}}"#;

    fn look(registry: &str, config: Option<&str>) -> Result<Option<Credentials>, RegistryError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        if let Some(config) = config {
            std::fs::write(&path, config).unwrap();
        }
        Credentials::of_files(registry, [folder.path().join("absent.json"), path])
    }

    #[test]
    fn a_password_is_found_for_its_registry_and_for_no_other() {
        let found = look("127.0.0.1:5000", Some(CONFIG)).unwrap().unwrap();
        assert_eq!((found.user.as_str(), found.password.as_str()), ("ana", "secret"));
        assert_eq!(look("127.0.0.1:5001", Some(CONFIG)).unwrap(), None);
        assert!(!format!("{found:?}").contains("secret"));
    }

    #[test]
    fn without_any_configuration_nobody_is_logged_in() {
        assert_eq!(look("127.0.0.1:5000", None).unwrap(), None);
    }

    #[test]
    fn a_damaged_configuration_is_said_with_its_path() {
        let error = look("127.0.0.1:5000", Some("{")).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
    }
}
