//! `playground`: a whole site on this machine.

use super::note;
use crate::args::Global;
use crate::context::{self, Context};
use crate::failure::{Code, Failure};
use crate::output::{self, Format};
use playground::{Config, Playground, PlaygroundStatus, Removed};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// A whole site on this machine: hosts in namespaces
#[derive(Debug, clap::Subcommand)]
#[command(
    after_help = "Needs root. Nothing of the machine's own network or libvirt is touched.\n\nExamples:\n  \
    collective playground up --hosts 2\n  collective playground exec h1 -- virsh list\n  \
    eval \"$(collective playground env)\"\n  collective playground down"
)]
pub(crate) enum Command {
    /// Make it: hosts, switch, controller, origin; and a context for this command
    Up(UpArgs),
    /// What of it runs; exit 1 if not all of it
    Status(WhichArgs),
    /// Remove it with all it holds
    Down(WhichArgs),
    /// Run a program in a box: h1, h2, ... or switch
    Exec {
        #[command(flatten)]
        which: WhichArgs,
        /// h1, h2, ... or switch
        #[arg(value_name = "BOX")]
        part: String,
        /// Program and arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        command: Vec<String>,
    },
    /// Shell lines that point this command at it
    Env(WhichArgs),
    /// Process 1 of a box.
    #[command(hide = true)]
    HostInit {
        #[arg(long)]
        spec: PathBuf,
        /// Second stage.
        #[arg(long)]
        inside: bool,
    },
    /// Carries TCP into the switch.
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        outer: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct WhichArgs {
    /// Its name
    #[arg(long, default_value = "default", value_name = "NAME")]
    name: String,
    /// Its folder, instead of /var/lib/collective/playground/NAME
    #[arg(long, value_name = "FOLDER")]
    state: Option<PathBuf>,
}

impl WhichArgs {
    fn state_dir(&self) -> Result<PathBuf, Failure> {
        types::HostName::new(self.name.as_str())
            .map_err(|error| Failure::usage(error.to_string().replace("host name", "playground name")))?;
        match &self.state {
            Some(state) => std::path::absolute(state)
                .map_err(|error| Failure::usage(format!("{}: {error}", state.display()))),
            None => Ok(playground::default_state_dir(&self.name)),
        }
    }

    fn open(&self) -> Result<Playground, Failure> {
        Ok(Playground::open(&self.state_dir()?)?)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// How many hosts
    #[arg(long, default_value_t = 2, value_name = "N")]
    hosts: u8,
    /// TCP port on 127.0.0.1 for the controller; 0 for any free one
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    port: u16,
    /// Folder of our programs, instead of this one's
    #[arg(long, value_name = "FOLDER")]
    bin: Option<PathBuf>,
    /// Folder of policies to install
    #[arg(long, value_name = "FOLDER")]
    policies: Option<PathBuf>,
}

/// The one command that must run before this process has threads.
pub(crate) fn first_stage(command: &Command) -> Option<Result<(), Failure>> {
    match command {
        Command::HostInit { spec, inside: false } => {
            Some(playground::init::enter(spec).map_err(Failure::from))
        }
        _ => None,
    }
}

pub(crate) async fn run(global: &Global, command: &Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(args) => up(global, args).await,
        Command::Status(which) => status(&which.open()?.status(), global.output),
        Command::Down(which) => down(which).await,
        Command::Exec { which, part, command } => exec(&which.open()?, part, command),
        Command::Env(which) => env(&which.open()?, global.output),
        Command::HostInit { spec, .. } => {
            playground::init::run(spec).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Relay { outer, listen, to } => {
            let served = playground::relay::serve(outer, *listen, *to).await;
            served.map_err(|error| Failure::failed(format!("cannot listen at {listen}: {error}")))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn up(global: &Global, args: &UpArgs) -> Result<ExitCode, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::failed(error.to_string()))?;
    let own_folder = own.parent().unwrap_or(Path::new("/"));
    let binaries = absolute(args.bin.as_deref().unwrap_or(own_folder))?;
    let policies = absolute(&args.policies.clone().unwrap_or_else(|| default_policies(&binaries)))?;
    let config = Config {
        hosts: args.hosts,
        state_dir: args.which.state_dir()?,
        port: args.port,
        ..Config::new(&args.which.name, &binaries, &policies)
    };
    let making = Playground::up(config, |progress| {
        note(format_args!("{:5.1} s  {}", progress.elapsed.as_secs_f32(), progress.text));
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let made = tokio::select! {
        made = making => Some(made?),
        _ = tokio::signal::ctrl_c() => None,
        _ = terminate.recv() => None,
        _ = hang_up.recv() => None,
    };
    // Dropping the future has removed what it made.
    let made = made.ok_or_else(|| Failure::failed("interrupted; what was made is removed"))?;
    let name = context_name(made.name());
    let endpoint = made.endpoint()?;
    let new = Context {
        server: endpoint.url,
        token: endpoint.token,
        ca: endpoint.ca,
        streamer: Some(origin_socket(&made)?),
    };
    let mut current = String::new();
    context::change_file(|file| {
        file.contexts.insert(name.clone(), new);
        current = file.current.get_or_insert_with(|| name.clone()).clone();
    })?;
    if current != name {
        note(format_args!(
            "the current context stays {current:?}: use --context {name}, or COLLECTIVE_CONTEXT={name}"
        ));
    }
    status(&made.status(), global.output)
}

fn context_name(playground: &str) -> String {
    format!("playground-{playground}")
}

fn origin_socket(playground: &Playground) -> Result<PathBuf, Failure> {
    Ok(playground.switch()?.folders().run().join("streamer.sock"))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

/// Beside the programs, above them (a target folder), or installed.
fn default_policies(binaries: &Path) -> PathBuf {
    let above = binaries.parent().map(|parent| parent.join("policies"));
    let installed = PathBuf::from("/usr/share/collective/policies");
    let all = [Some(binaries.join("policies")), above.clone(), Some(installed)];
    let found = all.into_iter().flatten().find(|folder| folder.join("balanced.wasm").is_file());
    found.or(above).unwrap_or_default()
}

fn status(status: &PlaygroundStatus, format: Format) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout();
    match format {
        Format::Json => output::json(&mut out, status)?,
        Format::Yaml => output::yaml(&mut out, status)?,
        Format::Name => status.boxes.iter().try_for_each(|part| writeln!(out, "{}", part.name))?,
        Format::Table | Format::Wide => {
            let rows = rows(status, format == Format::Wide);
            let headers = ["BOX", "ADDRESS", "DAEMON", "PID", "STARTS", "LOG", "ENDED"];
            let columns = if format == Format::Wide { headers.len() } else { 5 };
            output::table(&mut out, &headers[..columns], &rows)?;
            let word = if status.up { "up" } else { "not all up" };
            writeln!(out, "playground {} is {word}: {}", status.name, status.url)?;
        }
    }
    Ok(if status.up { ExitCode::SUCCESS } else { ExitCode::from(Code::Failed as u8) })
}

fn rows(status: &PlaygroundStatus, wide: bool) -> Vec<Vec<String>> {
    let pid = |pid: Option<i32>| pid.map_or_else(|| "down".to_owned(), |pid| pid.to_string());
    let mut rows = Vec::new();
    for part in &status.boxes {
        rows.push(vec![
            part.name.clone(),
            part.address.clone(),
            "init".to_owned(),
            pid(part.pid),
            "1".to_owned(),
        ]);
        for daemon in &part.daemons {
            let starts = daemon.starts.to_string();
            rows.push(vec![
                part.name.clone(),
                part.address.clone(),
                daemon.name.clone(),
                pid(daemon.pid),
                starts,
            ]);
            if wide && let Some(row) = rows.last_mut() {
                row.extend([daemon.log.display().to_string(), daemon.ended.clone().unwrap_or_default()]);
            }
        }
    }
    rows
}

async fn down(which: &WhichArgs) -> Result<ExitCode, Failure> {
    let state_dir = which.state_dir()?;
    let removed = tokio::task::spawn_blocking(move || playground::down(&state_dir));
    let removed = removed.await.map_err(|error| Failure::failed(error.to_string()))??;
    let name = context_name(&which.name);
    context::change_file(|file| {
        file.contexts.remove(&name);
        if file.current.as_ref() == Some(&name) {
            file.current = None;
        }
    })?;
    match removed {
        Removed::Playground { boxes } => {
            note(format_args!("playground {} is removed ({boxes} boxes were running)", which.name));
        }
        Removed::Nothing => note(format_args!("there was no playground {}", which.name)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the program in the box: its terminal, signals and exit code are ours.
fn exec(playground: &Playground, part: &str, command: &[String]) -> Result<ExitCode, Failure> {
    let part = playground.part(part)?;
    if !part.process().alive() {
        return Err(Failure::failed(format!("the box {} has ended", part.name())));
    }
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let enter = part.enter(&words);
    let error = std::process::Command::new(&enter[0]).args(&enter[1..]).exec();
    Err(Failure::failed(format!("cannot run nsenter (package util-linux): {error}")))
}

fn env(playground: &Playground, format: Format) -> Result<ExitCode, Failure> {
    let endpoint = playground.endpoint()?;
    let mut out = std::io::stdout();
    if matches!(format, Format::Json | Format::Yaml) {
        match format {
            Format::Json => output::json(&mut out, &endpoint)?,
            _ => output::yaml(&mut out, &endpoint)?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (key, value) in [
        ("COLLECTIVE_SERVER", endpoint.url),
        ("COLLECTIVE_TOKEN", endpoint.token),
        ("COLLECTIVE_CA", endpoint.ca_file.display().to_string()),
        ("COLLECTIVE_STREAMER", origin_socket(playground)?.display().to_string()),
    ] {
        writeln!(out, "export {key}={}", shell_quoted(&value))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_shell() {
        for value in ["plain", "with space", "it's", "$HOME `x`"] {
            let script = format!("printf %s {}", shell_quoted(value));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
