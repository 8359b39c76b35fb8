//! YAML text to a tree that knows where everything stands, within limits no text can break.
//!
//! Anchors, aliases, merge keys, tags and duplicate keys are refused: documents are short, and what is written is what
//! is meant. The tree becomes a JSON value by the YAML 1.2 core schema, and paths lead back to lines.

use controller_api::rest::Issue;
use serde_json::{Map, Number, Value};
use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle};

/// Longest text in bytes.
pub const TEXT_LEN_MAX: usize = 1 << 20;
/// Deepest nesting of maps and lists.
pub const DEPTH_MAX: usize = 24;
/// Most scalars, maps and lists of one text.
pub const NODES_MAX: usize = 50_000;
/// Most documents of one text.
pub const DOCUMENTS_MAX: usize = 256;

/// Where something stands, both from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl From<&Marker> for Position {
    fn from(marker: &Marker) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { line: narrow(marker.line()), column: narrow(marker.col() + 1) }
    }
}

impl Position {
    pub(crate) fn issue(self, field: impl Into<String>, message: impl Into<String>) -> Issue {
        Issue { line: self.line, column: self.column, field: field.into(), message: message.into() }
    }
}

/// A scalar, list or map.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) content: Content,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<Pair>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    key: String,
    key_at: Position,
    value: Node,
}

/// One step of a path into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// `spec.access[0].from` as steps.
pub(crate) fn steps(path: &str) -> Vec<Step<'_>> {
    path.split(['.', '['])
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_suffix(']').and_then(|index| index.parse().ok()) {
            Some(index) => Step::Index(index),
            None => Step::Key(part),
        })
        .collect()
}

impl Node {
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(pairs) => pairs.iter().find(|pair| pair.key == key).map(|pair| &pair.value),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn follow(&self, path: &[Step<'_>]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match (step, &node.content) {
            (Step::Key(key), _) => node.get(key),
            (Step::Index(index), Content::List(items)) => items.get(*index),
            (Step::Index(_), _) => None,
        })
    }

    /// Where a path leads: a written scalar itself, else its key; where it ends early, the last thing that is there.
    pub(crate) fn locate(&self, path: &[Step<'_>]) -> Position {
        let (mut node, mut at) = (self, self.at);
        for step in path {
            let (next, next_at) = match (step, &node.content) {
                (Step::Key(key), Content::Map(pairs)) => match pairs.iter().find(|pair| pair.key == *key) {
                    Some(pair) => (&pair.value, pair.key_at),
                    None => return at,
                },
                (Step::Index(index), Content::List(items)) => match items.get(*index) {
                    Some(item) => (item, item.at),
                    None => return at,
                },
                _ => return at,
            };
            (node, at) = (next, next_at);
        }
        match &node.content {
            Content::Scalar { text, .. } if !text.is_empty() => node.at,
            _ => at,
        }
    }

    pub(crate) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar { text, plain: true } => plain_scalar(text),
            Content::Scalar { text, plain: false } => Value::String(text.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Map(pairs) => Value::Object(
                pairs.iter().map(|pair| (pair.key.clone(), pair.value.to_value())).collect::<Map<_, _>>(),
            ),
        }
    }
}

/// The YAML 1.2 core schema, without infinities.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::String(text.to_owned());
    }
    let unsigned = if let Some(hex) = text.strip_prefix("0x") {
        u64::from_str_radix(hex, 16).ok()
    } else if let Some(octal) = text.strip_prefix("0o") {
        u64::from_str_radix(octal, 8).ok()
    } else {
        text.parse().ok()
    };
    let number = unsigned
        .map(Number::from)
        .or_else(|| text.parse::<i64>().ok().map(Number::from))
        .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64));
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

/// Parses all documents of a text; empty ones are left out.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, Issue> {
    if text.len() > TEXT_LEN_MAX {
        let message = format!("the text has {} bytes, more than {TEXT_LEN_MAX}", text.len());
        return Err(Position::default().issue("", message));
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            Position::from(error.marker()).issue("", format!("this is no YAML: {}", error.info()))
        })?;
        builder.take(&event, Position::from(&span.start))?;
    }
    Ok(builder.documents)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Frame>,
    nodes: usize,
}

enum Frame {
    List(Position, Vec<Node>),
    Map(Position, Vec<Pair>, Option<(String, Position)>),
}

impl Builder {
    fn take(&mut self, event: &Event<'_>, at: Position) -> Result<(), Issue> {
        refuse_references(event, at)?;
        match event {
            Event::Scalar(text, style, ..) => {
                let plain = *style == ScalarStyle::Plain;
                self.value(Node { at, content: Content::Scalar { text: text.to_string(), plain } })
            }
            Event::SequenceStart(..) => self.open(Frame::List(at, Vec::new()), at),
            Event::MappingStart(..) => self.open(Frame::Map(at, Vec::new(), None), at),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            _ => Ok(()),
        }
    }

    fn open(&mut self, frame: Frame, at: Position) -> Result<(), Issue> {
        if self.open.len() >= DEPTH_MAX {
            return Err(at.issue("", format!("maps and lists are nested deeper than {DEPTH_MAX}")));
        }
        if let Some(Frame::Map(_, _, None)) = self.open.last() {
            return Err(at.issue("", "a key must be a text"));
        }
        self.open.push(frame);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Issue> {
        match self.open.pop() {
            Some(Frame::List(at, items)) => self.value(Node { at, content: Content::List(items) }),
            Some(Frame::Map(at, pairs, _)) => self.value(Node { at, content: Content::Map(pairs) }),
            None => Ok(()),
        }
    }

    fn value(&mut self, node: Node) -> Result<(), Issue> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(node.at.issue("", format!("there are more than {NODES_MAX} values")));
        }
        match self.open.last_mut() {
            None => {
                let empty = matches!(&node.content, Content::Scalar { text, plain: true } if text.is_empty());
                if !empty {
                    self.documents.push(node);
                }
                if self.documents.len() > DOCUMENTS_MAX {
                    return Err(Position::default()
                        .issue("", format!("there are more than {DOCUMENTS_MAX} documents")));
                }
                Ok(())
            }
            Some(Frame::List(_, items)) => {
                items.push(node);
                Ok(())
            }
            Some(Frame::Map(_, pairs, pending)) => match pending.take() {
                Some((key, key_at)) => {
                    pairs.push(Pair { key, key_at, value: node });
                    Ok(())
                }
                None => take_key(pairs, pending, node),
            },
        }
    }
}

fn take_key(pairs: &[Pair], pending: &mut Option<(String, Position)>, node: Node) -> Result<(), Issue> {
    let Content::Scalar { text, .. } = node.content else {
        return Err(node.at.issue("", "a key must be a text"));
    };
    if text == "<<" {
        return Err(node.at.issue("", "merge keys are not taken: write it out"));
    }
    if pairs.iter().any(|pair| pair.key == text) {
        let shown: String = text.chars().take(64).collect();
        return Err(node.at.issue("", format!("{shown:?} is there twice: remove one")));
    }
    *pending = Some((text, node.at));
    Ok(())
}

fn refuse_references(event: &Event<'_>, at: Position) -> Result<(), Issue> {
    match event {
        Event::Alias(_) | Event::UnresolvedAlias(_) => {
            Err(at.issue("", "aliases (*name) are not taken: write it out"))
        }
        _ if event.anchor_id().is_some_and(|id| id > 0) => {
            Err(at.issue("", "anchors (&name) are not taken: write it out"))
        }
        _ if event.tag().is_some() => Err(at.issue("", "tags (!name) are not taken: remove it")),
        _ => Ok(()),
    }
}
