//! What every policy is told about its call, and the words in which it explains itself.

/// Facts about the call.
pub trait Context {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
    /// The only source of chance.
    fn seed(&self) -> u32;
    /// Text of a symbol, empty if there is none.
    fn symbol_text(&self, symbol: u32) -> String;
    /// Symbol of a text, 0 if it does not occur.
    fn find_symbol(&self, text: &str) -> u32;
    /// Writes one line that is kept with the decision; the tests' stand-ins drop it.
    fn log(&self, _level: Level, _message: &str) {}
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For authors.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is odd.
    Warn,
    /// Something is wrong.
    Error,
}

/// One step of an explanation.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// Kebab-case, 1 to 64 bytes.
    pub code: String,
    /// For people, at most 1 KiB.
    pub text: String,
    /// Share of the score; 0.0 where that has no meaning.
    pub weight: f64,
}

impl Reason {
    /// A reason with its share of the score.
    #[must_use]
    pub fn new(code: &str, text: String, weight: f64) -> Self {
        Self { code: code.to_owned(), text, weight }
    }

    /// A reason where nothing is scored.
    #[must_use]
    pub fn plain(code: &str, text: String) -> Self {
        Self::new(code, text, 0.0)
    }
}
