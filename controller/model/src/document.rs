//! Texts to documents, every error with its line, column and field.

use crate::yaml::{self, Content, Node, Position, Step};
use controller_api::document::{
    API_VERSION, Appliance, Bundle, Deployment, Document, FixedPort, MirrorPort, Site, VlanUplink,
};
use controller_api::rest::Issue;
use serde::de::DeserializeOwned;
use serde_json::Value;
use types::NetworkName;

/// A document that remembers where it was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// What it says.
    pub document: Document,
    tree: Node,
}

impl Written {
    /// An issue at a path such as `spec.access[0].from`.
    #[must_use]
    pub fn issue(&self, path: &str, message: impl Into<String>) -> Issue {
        self.tree.locate(&yaml::steps(path)).issue(path, message)
    }

    /// `Bundle`, `Deployment` or `Site`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.document {
            Document::Bundle(_) => "Bundle",
            Document::Deployment(_) => "Deployment",
            Document::Site(_) => "Site",
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.document {
            Document::Bundle(bundle) => bundle.metadata.name.as_str(),
            Document::Deployment(deployment) => deployment.metadata.name.as_str(),
            Document::Site(site) => site.metadata.name.as_str(),
        }
    }
}

/// Reads every document of a text that may be applied.
///
/// # Errors
/// At least one issue; at most one for each document.
pub fn parse(text: &str) -> Result<Vec<Written>, Vec<Issue>> {
    let trees = yaml::parse(text).map_err(|issue| vec![issue])?;
    if trees.is_empty() {
        return Err(vec![Position::default().issue("", "there is no document in it")]);
    }
    let (mut documents, mut issues) = (Vec::new(), Vec::new());
    for tree in trees {
        match document(&tree) {
            Ok(document) => documents.push(Written { document, tree }),
            Err(issue) => issues.push(issue),
        }
    }
    if issues.is_empty() { Ok(documents) } else { Err(issues) }
}

/// Reads an `appliance.yaml`.
///
/// # Errors
/// One issue.
pub fn parse_appliance(text: &str) -> Result<Appliance, Vec<Issue>> {
    let read = || {
        let trees = yaml::parse(text)?;
        let [tree] = trees.as_slice() else {
            return Err(Position::default().issue("", "write exactly one document of kind Appliance"));
        };
        match kind(tree)? {
            "Appliance" => typed(tree, tree.to_value()),
            other => Err(tree
                .locate(&[Step::Key("kind")])
                .issue("kind", format!("{other:?} is no appliance: write Appliance"))),
        }
    };
    read().map_err(|issue| vec![issue])
}

fn document(tree: &Node) -> Result<Document, Issue> {
    let kind = kind(tree)?;
    let mut value = tree.to_value();
    if let Value::Object(map) = &mut value {
        map.remove("kind");
    }
    match kind {
        "Bundle" => typed::<Bundle>(tree, value).map(Document::Bundle),
        "Deployment" => typed::<Deployment>(tree, value).map(Document::Deployment),
        "Site" => typed::<Site>(tree, value).map(Document::Site),
        "Appliance" => Err(tree.locate(&[Step::Key("kind")]).issue(
            "kind",
            "an Appliance is not applied: publish its folder with `collective appliance publish`",
        )),
        other => Err(tree
            .locate(&[Step::Key("kind")])
            .issue("kind", format!("{other:?} is no kind of document: write Bundle, Deployment or Site"))),
    }
}

fn kind(tree: &Node) -> Result<&str, Issue> {
    if !matches!(tree.content, Content::Map(_)) {
        return Err(tree.at.issue("", "a document is a map with apiVersion, kind, metadata and spec"));
    }
    let version = tree.get("apiVersion").and_then(Node::text).unwrap_or_default();
    if version != API_VERSION {
        let at = tree.locate(&[Step::Key("apiVersion")]);
        return Err(at.issue("apiVersion", format!("{version:?} is not known: write {API_VERSION}")));
    }
    tree.get("kind")
        .and_then(Node::text)
        .filter(|kind| !kind.is_empty())
        .ok_or_else(|| tree.at.issue("kind", "it is missing: write Bundle, Deployment or Site"))
}

fn typed<T: DeserializeOwned>(tree: &Node, value: Value) -> Result<T, Issue> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path: Vec<Step<'_>> = error
            .path()
            .iter()
            .filter_map(|segment| match segment {
                serde_path_to_error::Segment::Seq { index } => Some(Step::Index(*index)),
                serde_path_to_error::Segment::Map { key } => Some(Step::Key(key)),
                _ => None,
            })
            .collect();
        explain(tree, &path, &error.inner().to_string())
    })
}

fn explain(tree: &Node, path: &[Step<'_>], message: &str) -> Issue {
    let node = tree.follow(path);
    if message.contains("untagged enum PortSpec")
        && let Some(node) = node
    {
        return explain_port(tree, path, node);
    }
    if message.contains("untagged enum NetworkUplink")
        && let Some(node) = node
    {
        let fallback = "write site, nat, routed or {vlan: NUMBER, trunk: NAME}";
        return match &node.content {
            Content::Map(_) => explain_map::<VlanUplink>(tree, path, node, fallback),
            Content::Scalar { .. } | Content::List(_) => tree.locate(path).issue(show(path), fallback),
        };
    }
    let mut message = message.to_owned();
    let plain = matches!(node.map(|n| &n.content), Some(Content::Scalar { plain: true, .. }));
    if plain && message.starts_with("invalid type") && message.contains("expected a string") {
        message.push_str(": write it in quotes");
    }
    tree.locate(path).issue(show(path), message)
}

/// Serde only says that no variant of an untagged enum fits; this says why the one that was meant does not.
fn explain_port(tree: &Node, path: &[Step<'_>], node: &Node) -> Issue {
    let fallback = "write a network's name, {network: NAME, address: ADDRESS} or {mirror: NAME}".to_owned();
    match &node.content {
        Content::Scalar { text, .. } => {
            let message = NetworkName::new(text.as_str()).err().map_or(fallback, |error| error.to_string());
            tree.locate(path).issue(show(path), message)
        }
        Content::Map(_) if node.get("mirror").is_some() => {
            explain_map::<MirrorPort>(tree, path, node, &fallback)
        }
        Content::Map(_) => explain_map::<FixedPort>(tree, path, node, &fallback),
        Content::List(_) => {
            tree.locate(path).issue(show(path), format!("a port joins one network: {fallback}"))
        }
    }
}

/// Why a map is not what it was meant to be.
fn explain_map<T: DeserializeOwned>(tree: &Node, path: &[Step<'_>], node: &Node, fallback: &str) -> Issue {
    match serde_path_to_error::deserialize::<_, T>(node.to_value()) {
        Ok(_) => tree.locate(path).issue(show(path), fallback),
        Err(error) => {
            let key = error.path().to_string();
            let mut path = path.to_vec();
            if key != "." {
                path.extend(yaml::steps(&key));
            }
            tree.locate(&path).issue(show(&path), error.inner().to_string())
        }
    }
}

fn show(path: &[Step<'_>]) -> String {
    path.iter().fold(String::new(), |mut shown, step| {
        match step {
            Step::Index(index) => shown.push_str(&format!("[{index}]")),
            Step::Key(key) if shown.is_empty() => shown.push_str(key),
            Step::Key(key) => {
                shown.push('.');
                shown.extend(key.chars().take(64));
            }
        }
        shown
    })
}
