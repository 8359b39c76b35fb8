//! How a registry wants to be told who asks (`WWW-Authenticate`).

use crate::statement::shortened;

/// Longest header that is read, in bytes.
const HEADER_BYTES_MAX: usize = 4 << 10;

/// What is to be done to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Send name and password with every request.
    Basic,
    /// Fetch a token there.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// What the token is for.
        service: Option<String>,
    },
}

/// Reads the header. Of several ways the token is taken: it does not show the password to the registry.
pub(crate) fn parse(header: &str) -> Result<Challenge, String> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(format!("its challenge has {} bytes", header.len()));
    }
    let challenges =
        http_auth::parse_challenges(header).map_err(|_| "its challenge is malformed".to_owned())?;
    let by_scheme = |scheme: &str| challenges.iter().find(|one| one.scheme.eq_ignore_ascii_case(scheme));
    if let Some(bearer) = by_scheme("bearer") {
        let parameter = |name: &str| {
            let found = bearer.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").ok_or("its challenge names no realm")?;
        return Ok(Challenge::Bearer { realm, service: parameter("service") });
    }
    if by_scheme("basic").is_some() {
        return Ok(Challenge::Basic);
    }
    let schemes: Vec<_> = challenges.iter().map(|one| shortened(one.scheme)).collect();
    Err(format!("it wants {}, which is not spoken here", schemes.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_challenges_of_known_registries_are_read() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:x:pull""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: Some("registry.example".into()),
        };
        assert_eq!(parse(bearer), Ok(expected.clone()));
        assert_eq!(parse(&format!(r#"Basic realm="x", {bearer}"#)), Ok(expected));
        assert_eq!(parse(r#"basic realm="Registry""#), Ok(Challenge::Basic));
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        assert!(parse("Negotiate").unwrap_err().contains("Negotiate"));
        assert!(parse("Bearer service=\"x\"").unwrap_err().contains("realm"));
        assert!(parse(&"x".repeat(HEADER_BYTES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_header_makes_it_fail_otherwise(header in "\\PC{0,200}") {
            let _ = parse(&header);
        }
    }
}
