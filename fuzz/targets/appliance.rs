//! `appliance.yaml`, by both its readers: the command line's, which publishes, and the model's.
#![no_main]

// The command line is a program without a library: this part of it is taken as it stands.
#[allow(dead_code)]
#[path = "../../controller/cli/src/appliance_text.rs"]
mod appliance_text;

use controller_api::document::Appliance;
use controller_api::rest::Issue;
use libfuzzer_sys::fuzz_target;

fn check(text: &str, read: Result<Appliance, Vec<Issue>>) {
    match read {
        Ok(appliance) => {
            let json = serde_json::to_string(&appliance).expect("an appliance has a JSON");
            assert_eq!(serde_json::from_str::<Appliance>(&json).expect("read"), appliance);
        }
        Err(issues) => {
            assert!(!issues.is_empty());
            // YAML ends a line with a carriage return too.
            let lines = text.matches(['\n', '\r']).count() + 1;
            for issue in issues {
                assert!(issue.line as usize <= lines, "{issue:?}");
                assert!(!issue.message.is_empty(), "{issue:?}");
            }
        }
    }
}

fuzz_target!(|text: &str| {
    check(text, appliance_text::read(text));
    check(text, controller_model::document::parse_appliance(text));
});
