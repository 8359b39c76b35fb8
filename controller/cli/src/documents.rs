//! Documents in files: reading several as one request, and saying in which file and line a refusal is. Pure but for
//! [`read`].

use crate::failure::Failure;
use controller_api::rest::Issue;
use std::io::Read as _;
use std::path::PathBuf;

/// Bytes of one request, as the API says.
const BYTES_MAX: usize = 1024 * 1024;

/// Several files as one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Documents {
    /// What is sent.
    pub(crate) text: String,
    /// Name of each file and the line of the text at which it starts, from 1.
    starts: Vec<(String, u32)>,
}

/// Reads files; `-` is standard input.
pub(crate) fn read(files: &[PathBuf]) -> Result<Documents, Failure> {
    let mut documents = Documents::default();
    for file in files {
        let (name, bytes) = if file.as_os_str() == "-" {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            ("<stdin>".to_owned(), bytes)
        } else {
            let cannot =
                |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()));
            (file.display().to_string(), std::fs::read(file).map_err(cannot)?)
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(Failure::refused(vec![format!("{name}: it is not UTF-8 text")]));
        };
        documents.add(&name, &text);
    }
    if documents.text.len() > BYTES_MAX {
        return Err(Failure::refused(vec![format!(
            "the documents are larger than 1 MiB: {} bytes",
            documents.text.len()
        )]));
    }
    if documents.text.trim().is_empty() {
        return Err(Failure::refused(vec!["there is no document in what was given".to_owned()]));
    }
    Ok(documents)
}

impl Documents {
    pub(crate) fn add(&mut self, name: &str, text: &str) {
        if !self.text.is_empty() {
            if !self.text.ends_with('\n') {
                self.text.push('\n');
            }
            self.text.push_str("---\n");
        }
        let start = self.text.matches('\n').count() + 1;
        self.starts.push((name.to_owned(), u32::try_from(start).unwrap_or(u32::MAX)));
        self.text.push_str(text);
    }

    /// `office.yaml:12:5: spec.members.gateway.appliance: message`.
    pub(crate) fn place(&self, issue: &Issue) -> String {
        let file = self.starts.iter().rev().find(|(_, start)| *start <= issue.line.max(1));
        let Some((name, start)) = file else { return issue_text(None, issue) };
        let line = if issue.line == 0 { 0 } else { issue.line - start + 1 };
        let name = if issue.line == 0 && self.starts.len() > 1 { None } else { Some(name.as_str()) };
        issue_text(name, &Issue { line, ..issue.clone() })
    }
}

/// An issue on one line, with what is known of its place.
pub(crate) fn issue_text(file: Option<&str>, issue: &Issue) -> String {
    let mut text = String::new();
    if let Some(file) = file {
        text.push_str(file);
        if issue.line > 0 {
            text += &format!(":{}", issue.line);
            if issue.column > 0 {
                text += &format!(":{}", issue.column);
            }
        }
        text.push_str(": ");
    }
    if !issue.field.is_empty() {
        text += &format!("{}: ", issue.field);
    }
    text + &issue.message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(line: u32, column: u32, field: &str) -> Issue {
        Issue { line, column, field: field.into(), message: "unknown appliance".into() }
    }

    #[test]
    fn an_issue_names_file_line_column_and_field() {
        let mut documents = Documents::default();
        documents.add("office.yaml", "kind: Bundle\n");
        assert_eq!(
            documents.place(&issue(12, 5, "spec.members.gateway.appliance")),
            "office.yaml:12:5: spec.members.gateway.appliance: unknown appliance"
        );
        assert_eq!(documents.place(&issue(0, 0, "")), "office.yaml: unknown appliance");
    }

    #[test]
    fn a_line_of_the_request_is_told_as_the_line_of_its_file() {
        let mut documents = Documents::default();
        documents.add("a.yaml", "one\ntwo");
        documents.add("b.yaml", "three\n");
        assert_eq!(documents.text, "one\ntwo\n---\nthree\n");
        assert_eq!(documents.place(&issue(2, 1, "")), "a.yaml:2:1: unknown appliance");
        assert_eq!(documents.place(&issue(4, 3, "x")), "b.yaml:1:3: x: unknown appliance");
        assert_eq!(documents.place(&issue(0, 0, "x")), "x: unknown appliance");
    }
}
