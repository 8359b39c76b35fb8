//! Names and passwords for registries, where `docker login` and `podman login` leave them.

use super::RegistryError;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use std::fmt;

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
        let name = if registry == "docker.io" { DOCKER_HUB } else { registry };
        for look in [docker_credential::get_credential, docker_credential::get_podman_credential] {
            match look(name) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Self { user, password }));
                }
                Ok(DockerCredential::IdentityToken(_)) => {
                    let problem =
                        "an identity token is there, which is not spoken here: log in with a password";
                    return Err(RegistryError::Credentials {
                        registry: name.into(),
                        problem: problem.into(),
                    });
                }
                Err(
                    CredentialRetrievalError::ConfigNotFound
                    | CredentialRetrievalError::NoCredentialConfigured,
                ) => {}
                Err(error) => {
                    let problem = error.to_string();
                    return Err(RegistryError::Credentials { registry: name.into(), problem });
                }
            }
        }
        Ok(None)
    }
}
