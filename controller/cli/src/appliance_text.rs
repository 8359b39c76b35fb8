//! The text of an `appliance.yaml`, which comes from whoever made the folder: read and checked without touching a file.

use controller_api::document::{API_VERSION, Appliance};
use controller_api::rest::Issue;
use types::ByteSize;

/// The file's name in a publisher's folder.
pub(crate) const FILE: &str = "appliance.yaml";
const VCPUS_MAX: u32 = 64;
const MEMORY_MIN: ByteSize = ByteSize(16 << 20);
const MEMORY_MAX: ByteSize = ByteSize(1 << 40);
const PORTS_MAX: usize = 8;

/// Text to a description that can be published, but for its disk.
pub(crate) fn read(text: &str) -> Result<Appliance, Vec<Issue>> {
    let appliance = parse(text).map_err(|issue| vec![issue])?;
    let issues = issues(&appliance, text);
    if issues.is_empty() { Ok(appliance) } else { Err(issues) }
}

/// Text to a document; the error says line, column and field.
fn parse(text: &str) -> Result<Appliance, Issue> {
    let mut path = String::new();
    let result: Result<Appliance, serde_saphyr::Error> =
        serde_saphyr::with_deserializer_from_str(text, |yaml| {
            serde_path_to_error::deserialize(yaml).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        });
    result.map_err(|error| {
        let place = error.location();
        let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Issue {
            line: place.map_or(0, |place| number(place.line())),
            column: place.map_or(0, |place| number(place.column())),
            field: if path == "." { String::new() } else { path.clone() },
            message: message(&error),
        }
    })
}

/// The parser's sentence without the excerpt of the text and the place, which are told apart.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let cut = first.find(" at line ").or_else(|| first.find(" (line ")).unwrap_or(first.len());
    let words = first[..cut].trim();
    match words.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, words)) => words.to_owned(),
        None => words.to_owned(),
    }
}

/// What is wrong with a document that can be read.
fn issues(appliance: &Appliance, text: &str) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut say = |path: &[&str], message: String| {
        let (line, column) = locate(text, path);
        issues.push(Issue { line, column, field: path.join("."), message });
    };
    if appliance.api_version != API_VERSION {
        say(&["apiVersion"], format!("{:?} is not known: write {API_VERSION}", appliance.api_version));
    }
    if appliance.kind != "Appliance" {
        say(&["kind"], format!("{:?} is no appliance: write Appliance", appliance.kind));
    }
    let name = &appliance.metadata.name;
    if let Err(error) = format!("{}/{name}", appliance.metadata.publisher).parse::<types::ApplianceRef>() {
        say(&["metadata", "name"], error.to_string());
    }
    let (vcpus, memory) = (appliance.spec.hardware.vcpus, appliance.spec.hardware.memory);
    if vcpus == 0 || vcpus > VCPUS_MAX {
        say(&["spec", "hardware", "vcpus"], format!("{vcpus} processors cannot be: write 1 to {VCPUS_MAX}"));
    }
    if memory < MEMORY_MIN || memory > MEMORY_MAX {
        say(
            &["spec", "hardware", "memory"],
            format!("{memory} cannot be: write {MEMORY_MIN} to {MEMORY_MAX}"),
        );
    }
    let disks: Vec<_> = appliance.spec.disks.keys().map(String::as_str).collect();
    if disks != ["system"] {
        say(
            &["spec", "disks"],
            format!("exactly one disk named system is expected, not [{}]", disks.join(", ")),
        );
    } else {
        let file = &appliance.spec.disks["system"].file;
        let plain = !file.is_empty() && !file.contains('/') && file != "." && file != "..";
        if !plain {
            say(&["spec", "disks", "system", "file"], format!("{file:?} is not a file name beside {FILE}"));
        }
    }
    if appliance.spec.ports.len() > PORTS_MAX {
        say(
            &["spec", "ports"],
            format!("{} ports are too many: {PORTS_MAX} at most", appliance.spec.ports.len()),
        );
    }
    if let Some(twice) = repeated(&appliance.spec.ports) {
        say(&["spec", "ports"], format!("{twice} is named twice"));
    }
    if let Some(twice) = repeated(&appliance.spec.volumes) {
        say(&["spec", "volumes"], format!("{twice} is named twice"));
    }
    issues
}

fn repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    items.iter().enumerate().find(|(index, item)| items[..*index].contains(item)).map(|(_, item)| item)
}

/// Line and column of a value in block or flow YAML of our shape: the last key is looked for after each key before it.
/// Zero if it is not found: a place is a help, not a promise.
pub(crate) fn locate(text: &str, path: &[&str]) -> (u32, u32) {
    let mut at = 0;
    for key in path {
        let Some(next) = find_key(text, at, key) else { return (0, 0) };
        at = next;
    }
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0))
}

fn find_key(text: &str, from: usize, key: &str) -> Option<usize> {
    let starts = |at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ',' | '"' | '\''))
    };
    let ends = |at: usize| text[at..].trim_start_matches(['"', '\'', ' ']).starts_with(':');
    text[from..]
        .match_indices(key)
        .map(|(offset, _)| from + offset)
        .find(|at| starts(*at) && ends(*at + key.len()))
}
