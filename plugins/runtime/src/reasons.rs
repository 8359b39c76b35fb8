//! Whether the reasons of an answer keep the contract's rules: those of all kinds do it the same way.

use crate::bindings::types;
use crate::decision::Reason;

const REASONS_MAX: usize = 32;
const CODE_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 1024;

/// Reasons of a verdict that places nothing: there must be one.
pub(crate) fn why(list: Vec<types::Reason>) -> Result<Vec<Reason>, String> {
    if list.is_empty() { Err("reasons: there is none".to_owned()) } else { reasons(list) }
}

/// Reasons, at most 32.
pub(crate) fn reasons(list: Vec<types::Reason>) -> Result<Vec<Reason>, String> {
    if list.len() > REASONS_MAX {
        return Err(format!("reasons: {} are more than {REASONS_MAX}", list.len()));
    }
    let checked = list.into_iter().enumerate().map(|(position, reason)| {
        let at = |problem: String| format!("reasons[{position}]: {problem}");
        let types::Reason { code, text, weight } = reason;
        if text.len() > TEXT_BYTES_MAX {
            return Err(at(format!("the text has {} bytes, more than {TEXT_BYTES_MAX}", text.len())));
        }
        if !weight.is_finite() {
            return Err(at("the weight is not finite".to_owned()));
        }
        Ok(Reason { code: code_of(code).map_err(at)?, text, weight })
    });
    checked.collect()
}

/// A code of the contract's form.
pub(crate) fn code_of(code: String) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=CODE_BYTES_MAX).contains(&code.len()) && code.bytes().all(fine) {
        return Ok(code);
    }
    Err(format!(
        "the code {:?} is not 1 to {CODE_BYTES_MAX} of a-z, 0-9 and -",
        code.chars().take(80).collect::<String>()
    ))
}
