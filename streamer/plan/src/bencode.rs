//! Bencode (BEP 3) as strangers write it: metainfo and trackers' answers, read by reference.
//!
//! A reader of our own, because a number that does not fit must be refused: the one in our BitTorrent crates lets it
//! overflow. Numbers and lengths are taken only as BEP 3 writes them, so that a text has one reading.

use std::collections::BTreeMap;

/// Deepest nesting of lists and dictionaries. Metainfo needs 5.
pub const BENCODE_DEPTH_MAX: u32 = 16;
/// Longest number in bytes: `-9223372036854775808`.
const NUMBER_LEN_MAX: usize = 20;

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bencode<'a> {
    /// A number.
    Integer(i64),
    /// Bytes, often text.
    Bytes(&'a [u8]),
    /// A list.
    List(Vec<Bencode<'a>>),
    /// A dictionary.
    Dict(BencodeDict<'a>),
}

/// A dictionary, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BencodeDict<'a> {
    entries: BTreeMap<&'a [u8], Bencode<'a>>,
    /// Its own bytes, what an info hash is of.
    pub written: &'a [u8],
}

impl<'a> BencodeDict<'a> {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Bencode<'a>> {
        self.entries.get(key.as_bytes())
    }

    /// The number of a key.
    #[must_use]
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(Bencode::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// The bytes of a key.
    #[must_use]
    pub fn bytes(&self, key: &str) -> Option<&'a [u8]> {
        match self.get(key) {
            Some(Bencode::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

impl<'a> Bencode<'a> {
    /// Reads exactly one value; `None` if it is malformed, nested deeper than [`BENCODE_DEPTH_MAX`], has a key twice, or
    /// has something after its end.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        reader.value(0).filter(|_| reader.at == text.len())
    }

    /// As a dictionary.
    #[must_use]
    pub fn dict(&self) -> Option<&BencodeDict<'a>> {
        match self {
            Self::Dict(dict) => Some(dict),
            _ => None,
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: u32) -> Option<Bencode<'a>> {
        if depth > BENCODE_DEPTH_MAX {
            return None;
        }
        let start = self.at;
        match self.peek()? {
            b'i' => {
                self.at += 1;
                self.number(b'e').map(Bencode::Integer)
            }
            b'l' => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.ends()? {
                    items.push(self.value(depth + 1)?);
                }
                Some(Bencode::List(items))
            }
            b'd' => {
                self.at += 1;
                let mut entries = BTreeMap::new();
                while !self.ends()? {
                    let (key, value) = (self.bytes()?, self.value(depth + 1)?);
                    if entries.insert(key, value).is_some() {
                        return None;
                    }
                }
                Some(Bencode::Dict(BencodeDict { entries, written: self.text.get(start..self.at)? }))
            }
            _ => self.bytes().map(Bencode::Bytes),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Takes the end of a list or dictionary, if it is next.
    fn ends(&mut self) -> Option<bool> {
        let ends = self.peek()? == b'e';
        self.at += usize::from(ends);
        Some(ends)
    }

    /// A number as it is written canonically, and the byte after it.
    fn number(&mut self, end: u8) -> Option<i64> {
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().take(NUMBER_LEN_MAX + 1).position(|byte| *byte == end)?;
        let digits = std::str::from_utf8(&rest[..length]).ok()?;
        let number: i64 = digits.parse().ok()?;
        self.at += length + 1;
        (number.to_string() == digits).then_some(number)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number(b':')?).ok()?;
        let bytes = self.text.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<Bencode<'_>> {
        Bencode::parse(text.as_bytes())
    }

    #[test]
    fn a_dictionary_is_read_and_knows_how_it_was_written() {
        let value = parse("d4:infod6:lengthi7ee5:peersl1:ai-3eee").unwrap();
        let dict = value.dict().unwrap();
        let info = dict.get("info").unwrap().dict().unwrap();
        assert_eq!(info.written, b"d6:lengthi7ee");
        assert_eq!(info.integer("length"), Some(7));
        assert_eq!(dict.bytes("peers"), None);
        let list = Bencode::List(vec![Bencode::Bytes(b"a"), Bencode::Integer(-3)]);
        assert_eq!(dict.get("peers"), Some(&list));
    }

    #[test]
    fn a_number_that_does_not_fit_is_refused() {
        assert_eq!(parse("i9223372036854775807e"), Some(Bencode::Integer(i64::MAX)));
        assert_eq!(parse("i-9223372036854775808e"), Some(Bencode::Integer(i64::MIN)));
        for text in ["i9223372036854775808e", "i99999999999999999999e", "99999999999999999999:", "-1:a"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        for text in ["i-0e", "i03e", "i+3e", "ie", "01:a", "d1:ai1e1:ai2ee", "i1ei2e", "d1:ae", "l", "d"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_deep_nesting_is_refused_without_a_deep_stack() {
        assert_eq!(parse(&"l".repeat(1 << 20)), None);
        let at_limit = BENCODE_DEPTH_MAX as usize + 1;
        assert!(parse(&format!("{}{}", "l".repeat(at_limit), "e".repeat(at_limit))).is_some());
        assert_eq!(parse(&format!("l{}{}e", "l".repeat(at_limit), "e".repeat(at_limit))), None);
    }

    proptest! {
        #[test]
        fn no_text_like_bencode_makes_the_reader_panic(text in "[dlie0-9:a-]{0,64}") {
            let _ = parse(&text);
        }
    }
}
