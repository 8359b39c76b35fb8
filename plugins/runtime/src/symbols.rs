//! Repeated texts as numbers.

use std::collections::HashMap;
use std::sync::Arc;

/// The texts of one snapshot; 0 is the empty text.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl Symbols {
    pub(crate) fn intern(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        let number = u32::try_from(self.texts.len()).unwrap_or(0);
        self.numbers.insert(text, number);
        number
    }

    /// The texts of a column as one.
    pub(crate) fn column<'a>(&mut self, texts: impl IntoIterator<Item = &'a String>) -> Arc<[u32]> {
        texts.into_iter().map(|text| self.intern(text)).collect()
    }

    pub(crate) fn text(&self, symbol: u32) -> &str {
        let position = (symbol as usize).checked_sub(1);
        position.and_then(|position| self.texts.get(position)).map_or("", |text| text)
    }

    pub(crate) fn find(&self, text: &str) -> u32 {
        self.numbers.get(text).copied().unwrap_or(0)
    }
}
