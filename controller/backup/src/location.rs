use crate::Error;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a repository is, in restic's own words, so that whoever knows restic knows ours. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A folder of this machine, or of a file server that is mounted: an absolute path.
    Folder(PathBuf),
    /// A folder of another machine, by `ssh` with its usual keys and known hosts.
    Sftp {
        /// `host`, `user@host` or `user@host:port`.
        server: String,
        /// Absolute there.
        folder: String,
    },
    /// A bucket of a server that speaks S3.
    S3 {
        /// With its scheme.
        endpoint: String,
        /// Its name.
        bucket: String,
        /// What all names begin with, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Location { text: text.to_owned(), reason: reason.to_owned() };
        if text.chars().any(char::is_control) {
            return Err(wrong("it has control characters"));
        }
        if let Some(rest) = text.strip_prefix("sftp://") {
            let (server, folder) = rest.split_once('/').ok_or_else(|| wrong("it names no folder"))?;
            return sftp(server, &format!("/{}", folder.trim_start_matches('/'))).map_err(wrong);
        }
        if let Some(rest) = text.strip_prefix("sftp:") {
            let (server, folder) = rest.split_once(':').ok_or_else(|| wrong("it names no folder"))?;
            return sftp(server, folder).map_err(wrong);
        }
        if let Some(rest) = text.strip_prefix("s3:") {
            return s3(rest).map_err(wrong);
        }
        if text.starts_with('/') {
            if text.split('/').any(|part| part == ".." || part == ".") {
                return Err(wrong("its path has . or .. in it"));
            }
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        Err(wrong("it is neither an absolute path nor of a kind we know"))
    }
}

fn sftp(server: &str, folder: &str) -> Result<Location, &'static str> {
    // A leading dash would be an option of ssh.
    if server.is_empty()
        || server.starts_with('-')
        || server.contains(char::is_whitespace)
        || server.contains("@-")
    {
        return Err("it names no server");
    }
    if !folder.starts_with('/') {
        return Err("its folder is not absolute");
    }
    Ok(Location::Sftp { server: server.to_owned(), folder: folder.to_owned() })
}

fn s3(rest: &str) -> Result<Location, &'static str> {
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err("its scheme is neither http nor https"),
        None => ("https", rest),
    };
    if rest.split('/').next().is_some_and(|server| server.contains('@')) {
        return Err("keys do not belong into it");
    }
    let (server, path) = rest.split_once('/').ok_or("it names no bucket")?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if server.is_empty() || bucket.is_empty() {
        return Err("it names no bucket");
    }
    Ok(Location::S3 {
        endpoint: format!("{scheme}://{server}"),
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
    })
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Sftp { server, folder } if server.contains(':') => write!(f, "sftp://{server}/{folder}"),
            Self::Sftp { server, folder } => write!(f, "sftp:{server}:{folder}"),
            Self::S3 { endpoint, bucket, prefix } if prefix.is_empty() => write!(f, "s3:{endpoint}/{bucket}"),
            Self::S3 { endpoint, bucket, prefix } => write!(f, "s3:{endpoint}/{bucket}/{prefix}"),
        }
    }
}

/// A word that is never shown: a password, a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes it in.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Lets it out, to whom it is meant for.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What opens a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// What its bytes are encrypted under. Whoever loses it has lost the backups.
    pub password: Secret,
    /// For S3: the key's id and the key.
    pub s3: Option<(String, Secret)>,
    /// For SFTP: the file with the private key; `ssh` chooses if there is none.
    pub ssh_key: Option<PathBuf>,
}

impl Credentials {
    /// For a folder.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self { password: Secret::new(password), s3: None, ssh_key: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        text.parse::<Location>().expect_err(text).to_string()
    }

    #[test]
    fn speaks_the_words_of_restic() {
        for text in [
            "/srv/backups",
            "sftp:backup@nas:/srv/backups",
            "s3:https://s3.example.org/offsite/collective",
            "s3:http://10.0.0.1:9000/offsite",
        ] {
            assert_eq!(text.parse::<Location>().expect(text).to_string(), text);
        }
        let with_port: Location = "sftp://backup@nas:2222//srv/backups".parse().expect("a port");
        assert_eq!(
            with_port,
            Location::Sftp { server: "backup@nas:2222".into(), folder: "/srv/backups".into() }
        );
        assert_eq!(with_port.to_string().parse::<Location>().expect("its own words"), with_port);
    }

    #[test]
    fn refuses_what_is_no_place_and_says_what_is() {
        for text in [
            "",
            "backups",
            "../backups",
            "/srv/../etc",
            "ftp://nas/x",
            "s3:nas",
            "s3:gopher://nas/x",
            "s3:https:///x",
            "sftp:nas",
            "sftp:-oProxyCommand=x:/y",
            "sftp:nas:relative",
            "/srv/\n",
        ] {
            assert!(refused(text).contains("sftp:user@host:/a/folder"), "{text}");
        }
    }

    #[test]
    fn refuses_keys_in_an_address() {
        assert!(refused("s3:https://id:secret@host/bucket").contains("keys do not belong"));
    }

    #[test]
    fn never_shows_a_secret() {
        assert!(!format!("{:?}", Credentials::password("opensesame")).contains("opensesame"));
    }
}
