//! Why a command failed, and the exit code that says so.

use controller_api::rest::{Problem, ProblemCode};
use controller_client::ClientError;
use std::io::Write as _;
use std::process::ExitCode;

/// Exit codes. They are stable: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    NotFound = 4,
    Conflict = 5,
    Forbidden = 6,
    Unreachable = 7,
    Timeout = 8,
}

/// Why a command failed. Each message becomes one `error: ` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) messages: Vec<String>,
    /// The reader of our output has gone: nobody is there to be told.
    quiet: bool,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, messages: vec![message.into()], quiet: false }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Code::Failed, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Code::Unreachable, message)
    }

    pub(crate) fn refused(messages: Vec<String>) -> Self {
        Self { code: Code::Refused, messages, quiet: false }
    }

    /// The controller said no. `place` renders where an issue is.
    pub(crate) fn from_problem(
        problem: &Problem,
        place: impl Fn(&controller_api::rest::Issue) -> String,
    ) -> Self {
        let code = match problem.code {
            ProblemCode::Unauthenticated | ProblemCode::Forbidden => Code::Forbidden,
            ProblemCode::NotFound => Code::NotFound,
            ProblemCode::Conflict => Code::Conflict,
            ProblemCode::BadRequest | ProblemCode::TooLarge | ProblemCode::Invalid => Code::Refused,
            ProblemCode::Unavailable => Code::Unreachable,
            ProblemCode::DiskFull | ProblemCode::Internal => Code::Failed,
        };
        let mut issues: Vec<_> = problem.issues.iter().collect();
        issues.sort_by_key(|issue| (issue.line, issue.column));
        let mut messages: Vec<_> = issues.into_iter().map(place).collect();
        if messages.is_empty() {
            messages.push(problem.message.clone());
        }
        if code == Code::Failed && !problem.request_id.is_empty() {
            messages.push(format!("the controller's log has more under request {}", problem.request_id));
        }
        Self { code, messages, quiet: false }
    }

    /// Writes it to standard error.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.quiet {
            let mut err = std::io::stderr().lock();
            for message in &self.messages {
                // Nobody can be told that standard error is gone.
                let _ = writeln!(err, "error: {message}");
            }
        }
        ExitCode::from(self.code as u8)
    }
}

/// Writing our own output failed. A closed pipe (`| head`) is no error to talk about.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let quiet = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { code: Code::Failed, messages: vec![error.to_string()], quiet }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused(problem) => {
                Self::from_problem(problem, |issue| crate::documents::issue_text(None, issue))
            }
            ClientError::Setup { .. } => Self::usage(chain(&error)),
            ClientError::Answer { .. } => Self::failed(chain(&error)),
            ClientError::Unreachable { .. } => Self::unreachable(format!("{error}: {}", root(&error))),
        }
    }
}

/// The last cause: what the kernel or TLS said, without the layers between.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

impl From<playground::PlaygroundError> for Failure {
    fn from(error: playground::PlaygroundError) -> Self {
        use playground::PlaygroundError as P;
        let code = match &error {
            P::Absent { .. } | P::Unknown(_) => Code::NotFound,
            P::Exists { .. } | P::Busy { .. } | P::PortTaken { .. } => Code::Conflict,
            P::Invalid(_) | P::Foreign { .. } => Code::Usage,
            P::NotRoot => Code::Forbidden,
            P::MissingBinary { .. } | P::Io { .. } | P::Links { .. } | P::Part { .. } | P::Refused { .. } => {
                Code::Failed
            }
        };
        Self::new(code, chain(&error))
    }
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_has_its_exit_code() {
        for (code, exit) in [
            (ProblemCode::Invalid, 3),
            (ProblemCode::BadRequest, 3),
            (ProblemCode::NotFound, 4),
            (ProblemCode::Conflict, 5),
            (ProblemCode::Unauthenticated, 6),
            (ProblemCode::Forbidden, 6),
            (ProblemCode::Unavailable, 7),
            (ProblemCode::DiskFull, 1),
            (ProblemCode::Internal, 1),
        ] {
            let problem = Problem { code, message: "no".into(), issues: vec![], request_id: "r1".into() };
            assert_eq!(Failure::from_problem(&problem, |_| String::new()).code as u8, exit, "{code:?}");
        }
    }
}
