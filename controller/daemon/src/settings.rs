//! Whether a policy accepts settings: its JSON Schema says where something is wrong in the words of the format, then
//! the policy itself has the last word.

use crate::problem::{Answer, Refused};
use boon::{Compiler, Draft, Schemas, UrlLoader, ValidationError};
use controller_api::rest::Issue;
use plugins_runtime::Policy;
use serde_json::Value;

/// By what the schema is called while it is used.
const SCHEMA_URL: &str = "http://localhost/settings";
/// Places named in one answer.
const ISSUES_MAX: usize = 32;
/// Bytes of one message: it may quote what was given.
const MESSAGE_LEN_MAX: usize = 512;

/// Judges settings by the schema, then by the policy. Blocks for a call of the policy.
///
/// # Errors
/// 422 with a JSON pointer for each place.
pub(crate) fn check(policy: &Policy, settings: &Value) -> Answer<()> {
    let manifest = policy.manifest();
    let mut issues = by_schema(&manifest.settings_schema, settings).map_err(|problem| {
        Refused::invalid(format!(
            "the settings schema of {} {} is no JSON Schema: {problem}",
            manifest.name, manifest.version
        ))
    })?;
    if issues.is_empty() {
        let judged = policy.validate_settings(settings).err().unwrap_or_default();
        issues.extend(judged.into_iter().map(|issue| at(issue.path, issue.message)));
    }
    let Some(first) = issues.first() else { return Ok(()) };
    let place = if first.field.is_empty() { String::new() } else { format!("{}: ", first.field) };
    let message = format!(
        "{} {} does not accept the settings: {place}{}",
        manifest.name, manifest.version, first.message
    );
    Err(Refused::invalid(message).with_issues(issues))
}

/// Every place where the settings break the schema.
///
/// # Errors
/// The schema is none.
fn by_schema(schema: &Value, settings: &Value) -> Result<Vec<Issue>, String> {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.use_loader(Box::new(Nothing));
    compiler.add_resource(SCHEMA_URL, schema.clone()).map_err(|error| error.to_string())?;
    let compiled = compiler.compile(SCHEMA_URL, &mut schemas).map_err(|error| error.to_string())?;
    let mut issues = Vec::new();
    if let Err(error) = schemas.validate(settings, compiled) {
        leaves(&error, &mut issues);
    }
    Ok(issues)
}

/// What is wrong in the end, without the steps that lead there.
fn leaves(error: &ValidationError<'_, '_>, issues: &mut Vec<Issue>) {
    if issues.len() == ISSUES_MAX {
        return;
    }
    if error.causes.is_empty() {
        issues.push(at(error.instance_location.to_string(), error.kind.to_string()));
    }
    error.causes.iter().for_each(|cause| leaves(cause, issues));
}

/// A schema stands alone: it can make the controller read no file.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err(format!("{url} lies elsewhere: a settings schema stands alone").into())
    }
}

fn at(pointer: String, mut message: String) -> Issue {
    message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX));
    Issue { line: 0, column: 0, field: pointer, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wrong_place_is_named_by_its_pointer() {
        let schema = json!({
            "type": "object", "additionalProperties": false,
            "properties": {"weights": {"type": "object", "properties": {"memory": {"type": "number", "minimum": 0}}}},
        });
        assert_eq!(by_schema(&schema, &json!({"weights": {"memory": 2}})), Ok(vec![]));
        let issues = by_schema(&schema, &json!({"weights": {"memory": -1}, "wieghts": {}})).unwrap();
        let fields: Vec<_> = issues.iter().map(|issue| issue.field.as_str()).collect();
        assert!(fields.contains(&"/weights/memory") && fields.contains(&""), "{issues:?}");
    }

    #[test]
    fn a_schema_that_is_none_or_lies_elsewhere_is_refused() {
        assert!(by_schema(&json!({"type": 7}), &json!({})).is_err());
        for elsewhere in ["https://example.com/schema.json", "file:///etc/hostname"] {
            let refused = by_schema(&json!({"$ref": elsewhere}), &json!({})).unwrap_err();
            assert!(refused.contains(elsewhere), "{refused}");
        }
    }
}
