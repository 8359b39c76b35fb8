//! What a policy does with settings.

use crate::{Claim, Outcome};
use plugins_runtime::Policy;
use serde_json::{Value, json};

pub(crate) fn claims(policy: &Policy) -> Vec<Claim> {
    vec![same_twice(policy), unknown_member(policy), wrong_types(policy), described(policy)]
}

fn same_twice(policy: &Policy) -> Claim {
    let strange = strange();
    let same = policy.validate_settings(&strange) == policy.validate_settings(&strange);
    let outcome = if same { Outcome::Passed } else { Outcome::Failed };
    Claim::new("the same settings get the same judgement", outcome, "")
}

fn unknown_member(policy: &Policy) -> Claim {
    let name = "it refuses a setting that it does not know";
    match policy.validate_settings(&strange()) {
        Ok(()) => Claim::new(name, Outcome::Warned, "it accepts one: a typing error will go unnoticed"),
        Err(issues) => Claim::new(name, Outcome::Passed, issues.first().map_or("", |issue| &issue.message)),
    }
}

/// Its own defaults, each with the wrong type.
fn wrong_types(policy: &Policy) -> Claim {
    let name = "it refuses settings of the wrong type";
    let known = policy.manifest().settings_schema.get("properties").and_then(Value::as_object);
    let accepted = known.into_iter().flatten().find(|(key, _)| {
        let wrong = json!({ key.as_str(): { "no": ["type", "of", "anything"] } });
        policy.validate_settings(&wrong).is_ok()
    });
    match accepted {
        None => Claim::new(name, Outcome::Passed, ""),
        Some((key, _)) => Claim::new(name, Outcome::Warned, format!("it accepts nonsense as {key}")),
    }
}

/// Whether the schema says what the policy accepts.
fn described(policy: &Policy) -> Claim {
    let name = "its schema describes every setting";
    let known = policy.manifest().settings_schema.get("properties").and_then(Value::as_object);
    let dark = known.into_iter().flatten().find(|(_, schema)| schema.get("description").is_none());
    match dark {
        None => Claim::new(name, Outcome::Passed, ""),
        Some((key, _)) => Claim::new(name, Outcome::Warned, format!("{key} has no description")),
    }
}

fn strange() -> Value {
    json!({ "a-setting-that-no-policy-knows": true })
}
