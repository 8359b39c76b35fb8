//! One module per command.

pub(crate) mod appliance;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod checkpoint;
pub(crate) mod completion;
pub(crate) mod console;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod get;
pub(crate) mod host;
pub(crate) mod interpose;
pub(crate) mod logs;
pub(crate) mod moving;
pub(crate) mod network;
pub(crate) mod playground;
pub(crate) mod policy;
pub(crate) mod publisher;
pub(crate) mod rollout;
pub(crate) mod site;
pub(crate) mod stream;
pub(crate) mod token;
pub(crate) mod version;
pub(crate) mod wait;

use crate::args::{Cli, Command, Global};
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::kinds::Kind;
use crate::output::Format;
use controller_client::Client;
use std::io::Write as _;
use std::process::ExitCode;

/// What every command that talks to the controller is given.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) format: Format,
}

impl Session {
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let context = context::resolve(global)?;
        let client = Client::new(&context.server, &context.ca, Some(&context.token))?;
        Ok(Self { client, context, format: global.output })
    }
}

/// Runs a command.
pub(crate) async fn dispatch(cli: &Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    let session = || Session::new(global);
    match &cli.command {
        Command::Appliance(command) if command.is_local() => appliance::local(command).await,
        Command::Appliance(command) => appliance::run(&session()?, command).await,
        Command::Apply(args) => apply::run(&session()?, args).await,
        Command::Checkpoint(command) => checkpoint::run(&session()?, command).await,
        Command::Suspend(args) => checkpoint::suspend(&session()?, args).await,
        Command::Resume(args) => checkpoint::resume(&session()?, args).await,
        Command::Diff(args) => diff::run(&session()?, args).await,
        Command::Get(args) => get::run(&session()?, args).await,
        Command::Describe(args) => describe::run(&session()?, args).await,
        Command::Delete(args) => delete::run(&session()?, args).await,
        Command::Wait(args) => wait::run(&session()?, args).await,
        Command::Host(host::Command::Join(args)) => host::join(args),
        Command::Host(command) => host::run(&session()?, command).await,
        Command::Site(command) => site::run(&session()?, command).await,
        Command::Move(args) => moving::run(&session()?, args).await,
        Command::Rebalance(args) => host::rebalance(&session()?, args).await,
        Command::Publisher(command) => publisher::run(command, global.output),
        Command::Catalog(command) => catalog::run(&session()?, command).await,
        Command::Rollout(command) => rollout::run(&session()?, command).await,
        Command::Token(command) => token::run(&session()?, command).await,
        Command::Policy(policy::Command::Local(command)) => policy::local::run(global.output, command).await,
        Command::Policy(command) => policy::run(&session()?, command).await,
        Command::Events(args) => events::run(&session()?, args).await,
        Command::Audit(args) => audit::run(&session()?, args).await,
        Command::Logs(args) => logs::run(&session()?, args).await,
        Command::Console(args) => console::run(&session()?, args).await,
        Command::Stream(args) => stream::run(&session()?, args).await,
        Command::Network(command) => network::run(&session()?, command).await,
        Command::Interpose(args) => interpose::run(&session()?, args).await,
        Command::Doctor(args) => doctor::run(global, args).await,
        Command::Playground(command) => playground::run(global, command).await,
        Command::Completion(args) => completion::run(args),
        Command::Version => version::run(global).await,
    }
}

/// One line on standard error for people who watch.
pub(crate) fn note(text: impl std::fmt::Display) {
    // Progress that nobody can read is not worth failing for.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The path of one thing, its name checked.
pub(crate) fn path_of(kind: Kind, name: &str) -> Result<String, Failure> {
    kind.check_name(name).map_err(Failure::usage)?;
    Ok(format!("/v1/{}/{name}", kind.plural()))
}

/// An instance's name as people type it.
pub(crate) fn instance_id(name: &str) -> Result<types::InstanceId, Failure> {
    name.parse().map_err(|error: types::NameError| Failure::usage(error.to_string()))
}
