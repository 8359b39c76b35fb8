//! Which controller to talk to: flags, then environment, then `~/.config/collective/config.toml`.

use crate::args::Global;
use crate::failure::{Code, Failure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file of contexts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContextFile {
    /// Used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// By name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One controller, as somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `https://...`.
    pub(crate) server: String,
    /// Who we are.
    pub(crate) token: String,
    /// PEM of its certificate authority.
    pub(crate) ca: String,
    /// Socket of the streamer that publishes, if it is on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) streamer: Option<PathBuf>,
}

/// `$XDG_CONFIG_HOME/collective`, or `~/.config/collective`.
pub(crate) fn config_folder() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|folder| folder.join("collective"))
        .ok_or_else(|| Failure::usage("neither HOME nor XDG_CONFIG_HOME is set: where is the configuration?"))
}

fn file_path() -> Result<PathBuf, Failure> {
    Ok(config_folder()?.join("config.toml"))
}

pub(crate) fn load_file() -> Result<ContextFile, Failure> {
    let path = file_path()?;
    if !path.exists() {
        return Ok(ContextFile::default());
    }
    chassis::config::load(&path).map_err(|error| Failure::usage(crate::failure::chain(&error)))
}

/// Reads the file, changes it, writes it whole. Readable by its owner only: it holds tokens.
pub(crate) fn change_file(change: impl FnOnce(&mut ContextFile)) -> Result<(), Failure> {
    let path = file_path()?;
    let mut file = load_file()?;
    let before = file.clone();
    change(&mut file);
    if file == before {
        return Ok(());
    }
    let failed = |error: String| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let text = toml::to_string(&file).map_err(|error| failed(error.to_string()))?;
    private_folder(&config_folder()?).map_err(|error| failed(error.to_string()))?;
    chassis::durable::write(&path, text.as_bytes(), 0o600).map_err(|error| failed(error.to_string()))
}

/// Makes a folder only its owner may enter.
pub(crate) fn private_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// The controller that flags, environment and file name together.
pub(crate) fn resolve(global: &Global) -> Result<Context, Failure> {
    let file = || match &global.context {
        Some(name) => named(&load_file()?, name).map(Some),
        None => Ok(current(&load_file()?)),
    };
    // A server on the command line is somebody else's: no token of a context may go there.
    let from_file = if global.server.is_some() { None } else { file()? };
    let ca = match &global.ca {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?,
        ),
        None => None,
    };
    assemble(global, from_file, ca)
}

fn named(file: &ContextFile, name: &str) -> Result<Context, Failure> {
    file.contexts.get(name).cloned().ok_or_else(|| {
        let known: Vec<_> = file.contexts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Failure::new(Code::NotFound, format!("there is no context {name:?}; there are: {known}"))
    })
}

fn current(file: &ContextFile) -> Option<Context> {
    file.contexts.get(file.current.as_ref()?).cloned()
}

fn assemble(global: &Global, file: Option<Context>, ca: Option<String>) -> Result<Context, Failure> {
    let missing = |what: &str, flag: &str, variable: &str| {
        Failure::usage(format!(
            "no {what}: give {flag}, set {variable}, or choose a context (`collective playground up` writes one)"
        ))
    };
    let (file_server, file_token, file_ca, streamer) = match file {
        Some(file) => (Some(file.server), Some(file.token), Some(file.ca), file.streamer),
        None => (None, None, None, None),
    };
    let server = global.server.clone().or(file_server);
    let server = server.ok_or_else(|| missing("controller", "--server", "COLLECTIVE_SERVER"))?;
    if !server.starts_with("https://") {
        return Err(Failure::usage(format!(
            "{server:?} is not the address of a controller: it starts with https://"
        )));
    }
    let token = global.token.clone().or(file_token);
    let token = token.ok_or_else(|| missing("token", "--token", "COLLECTIVE_TOKEN"))?;
    let ca = ca.or(file_ca).ok_or_else(|| missing("certificate authority", "--ca", "COLLECTIVE_CA"))?;
    Ok(Context { server: server.trim_end_matches('/').to_owned(), token, ca, streamer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn global(server: Option<&str>, token: Option<&str>) -> Global {
        let text = |value: Option<&str>| value.map(ToOwned::to_owned);
        Global { server: text(server), token: text(token), ca: None, context: None, output: Format::Table }
    }

    fn context() -> Context {
        Context { server: "https://a:1".into(), token: "t".into(), ca: "c".into(), streamer: None }
    }

    #[test]
    fn flags_win_over_the_file() {
        let got = assemble(&global(Some("https://b:2/"), Some("u")), Some(context()), None).unwrap();
        assert_eq!((got.server.as_str(), got.token.as_str(), got.ca.as_str()), ("https://b:2", "u", "c"));
    }

    #[test]
    fn a_missing_controller_says_what_to_do() {
        let failure = assemble(&global(None, None), None, None).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.messages[0].starts_with("no controller: give --server, set COLLECTIVE_SERVER"));
    }

    #[test]
    fn plain_http_is_refused() {
        let failure = assemble(&global(Some("http://a"), Some("t")), None, Some("c".into())).unwrap_err();
        assert!(failure.messages[0].contains("it starts with https://"));
    }

    #[test]
    fn the_file_survives_being_written() {
        let mut file = ContextFile { current: Some("x".into()), ..ContextFile::default() };
        file.contexts.insert("x".into(), context());
        assert_eq!(toml::from_str::<ContextFile>(&toml::to_string(&file).unwrap()).unwrap(), file);
    }
}
