//! `policy test`: recorded inputs against the outcomes that are expected.

use super::ask::Question;
use super::component;
use crate::commands::note;
use crate::failure::{Failure, chain};
use crate::output::{self, Format, Row};
use plugins_runtime::{Policy, PolicyError};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// After the options.
pub(super) const HELP: &str = "\
DIR holds NAME.json, a question as a controller records it, and beside it NAME.expected.json, the outcome: \
{\"verdict\": ...} or {\"error\": \"part of its text\"}. Fields that the expected verdict leaves out may be anything. For \
introspection policies NAME.guest.json says what is seen of the guest. Exit 1 if an outcome is another, or none is \
expected yet; --accept writes the outcomes that are there now: read what changed before you commit it.";

/// Largest file with an expected outcome, in bytes.
const EXPECTED_BYTES_MAX: usize = 16 << 20;
/// Differences that are shown of one case.
const DIFFERENCES_MAX: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The component, a .wasm file
    file: PathBuf,
    /// Folder with the inputs
    #[arg(long, value_name = "DIR", default_value = "inputs")]
    inputs: PathBuf,
    /// Take today's outcomes as the expected ones
    #[arg(long)]
    accept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Passed,
    Failed,
    /// No outcome is expected yet.
    New,
    Accepted,
}

#[derive(Debug, Serialize)]
struct Case {
    name: String,
    result: Outcome,
    took_us: Option<u64>,
    /// Where the outcome differs, and how.
    differences: Vec<String>,
    log: Vec<String>,
}

impl Row for Case {
    const COLUMNS: &'static [&'static str] = &["INPUT", "RESULT", "TIME"];
    const WIDE: &'static [&'static str] = &["LOG"];
    fn name(&self) -> String {
        self.name.clone()
    }
    fn cells(&self, _: u64) -> Vec<String> {
        let result = match self.result {
            Outcome::Passed => "passed",
            Outcome::Failed => "FAILED",
            Outcome::New => "NEW: nothing is expected yet",
            Outcome::Accepted => "accepted",
        };
        let time = self.took_us.map(|us| format!("{us} us")).unwrap_or_default();
        vec![self.name.clone(), result.to_owned(), time]
    }
    fn wide_cells(&self, _: u64) -> Vec<String> {
        vec![self.log.join("; ")]
    }
}

pub(super) fn run(args: &Args, format: Format) -> Result<ExitCode, Failure> {
    let bytes = component::component(&args.file)?;
    let policy = component::load(&component::runtime(|_| ())?, &bytes, &args.file.display().to_string())?;
    let inputs = inputs(&args.inputs)?;
    let cases: Vec<Case> =
        inputs.iter().map(|input| case(&policy, input, args.accept)).collect::<Result<_, _>>()?;
    output::list(&mut std::io::stdout(), &cases, format, 0)?;
    for case in &cases {
        case.differences.iter().for_each(|difference| note(format_args!("{}: {difference}", case.name)));
    }
    let wrong = cases.iter().any(|case| matches!(case.result, Outcome::Failed | Outcome::New));
    Ok(ExitCode::from(u8::from(wrong)))
}

/// The questions of a folder, by name.
fn inputs(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", folder.display()));
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(stem) = name.strip_suffix(".json")
            && !stem.ends_with(".expected")
            && !stem.ends_with(".guest")
        {
            inputs.push(path);
        }
    }
    inputs.sort();
    if inputs.is_empty() {
        return Err(Failure::usage(format!("there is no NAME.json in {}", folder.display())));
    }
    Ok(inputs)
}

fn case(policy: &Policy, input: &Path, accept: bool) -> Result<Case, Failure> {
    let name = input.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let question = Question::read(policy.kind(), input)?;
    let answer = question.ask(policy);
    let (took_us, log) = match &answer {
        Ok(answer) => (Some(answer.took_us), answer.log.clone()),
        Err(_) => (None, Vec::new()),
    };
    let outcome = answer.map(|answer| answer.verdict);
    let beside = input.with_extension("expected.json");
    let (result, differences) = if accept {
        write(&beside, &outcome)?;
        (Outcome::Accepted, Vec::new())
    } else if beside.exists() {
        let expected = serde_json::from_slice(&component::read(&beside, EXPECTED_BYTES_MAX)?)
            .map_err(|error| Failure::refused(vec![format!("{}: {error}", beside.display())]))?;
        let differences = differences(&expected, &outcome);
        (if differences.is_empty() { Outcome::Passed } else { Outcome::Failed }, differences)
    } else {
        (Outcome::New, Vec::new())
    };
    Ok(Case { name, result, took_us, differences, log })
}

fn write(path: &Path, outcome: &Result<Value, PolicyError>) -> Result<(), Failure> {
    let value = match outcome {
        Ok(verdict) => json!({ "verdict": verdict }),
        Err(error) => json!({ "error": chain(error) }),
    };
    let mut text = serde_json::to_vec_pretty(&value).map_err(|error| Failure::failed(error.to_string()))?;
    text.push(b'\n');
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

/// Where an outcome is not the expected one.
fn differences(expected: &Value, outcome: &Result<Value, PolicyError>) -> Vec<String> {
    match (expected.get("verdict"), expected.get("error").and_then(Value::as_str), outcome) {
        (Some(expected), None, Ok(verdict)) => {
            let mut found = Vec::new();
            compare(expected, verdict, "", &mut found);
            found.truncate(DIFFERENCES_MAX);
            found
        }
        (None, Some(part), Err(error)) if chain(error).contains(part) => Vec::new(),
        (None, Some(part), Err(error)) => vec![format!("the error is {:?}, without {part:?}", chain(error))],
        (Some(_), None, Err(error)) => vec![format!("there is no verdict: {}", chain(error))],
        (None, Some(part), Ok(_)) => vec![format!("there is a verdict instead of the error {part:?}")],
        _ => vec!["its .expected.json has neither a verdict nor an error, or both".to_owned()],
    }
}

/// Every field that is expected is there and equal; lists are as long as expected.
fn compare(expected: &Value, found: &Value, pointer: &str, differences: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                let pointer = format!("{pointer}/{key}");
                match found.get(key) {
                    Some(found) => compare(value, found, &pointer, differences),
                    None => differences.push(format!("{pointer} is missing: expected {value}")),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                compare(expected, found, &format!("{pointer}/{index}"), differences);
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            let (wanted, there) = (expected.len(), found.len());
            differences.push(format!("{pointer} has {there} entries: expected {wanted}"));
        }
        _ if expected == found => {}
        _ => differences.push(format!("{pointer} is {found}: expected {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(expected: &Value, found: Value) -> Vec<String> {
        differences(expected, &Ok(found))
    }

    #[test]
    fn what_is_not_expected_may_be_anything_and_what_is_must_be_there() {
        let expected = json!({"verdict": {"choices": [{"host": "a"}]}});
        let found = json!({"choices": [{"host": "a", "score": 1.5}], "rejections": []});
        assert_eq!(compared(&expected, found), [] as [&str; 0]);
        let other = compared(&expected, json!({"choices": [{"host": "b"}]}));
        assert_eq!(other, [r#"/choices/0/host is "b": expected "a""#]);
        assert!(compared(&expected, json!({}))[0].contains("/choices is missing"));
        let more = json!({"choices": [{"host": "a"}, {"host": "b"}]});
        assert_eq!(compared(&expected, more), ["/choices has 2 entries: expected 1"]);
    }

    #[test]
    fn an_error_is_expected_by_a_part_of_its_text() {
        let error = || Err(PolicyError::BadAnswer { detail: "no host 7".to_owned() });
        assert!(differences(&json!({"error": "no host"}), &error()).is_empty());
        assert_eq!(differences(&json!({"error": "deadline"}), &error()).len(), 1);
        assert_eq!(differences(&json!({"verdict": {}}), &error()).len(), 1);
        assert_eq!(compared(&json!({"error": "x"}), json!({})).len(), 1);
        assert_eq!(compared(&json!({}), json!({})).len(), 1);
    }
}
