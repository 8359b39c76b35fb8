//! Sees what this thread is about to do to the disk, in order, and makes it fail on demand.

use crate::probe::Op;
use std::cell::RefCell;
use std::io;
use std::path::Path;

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Write(u64, Vec<u8>),
    Copy(u64, u64),
    Punch(u64, u64),
    Replace(Vec<u8>),
    Sync,
}

/// What was done, and to which file.
pub(crate) type Step = (String, Done);

/// Says whether something fails.
type Rule = Box<dyn Fn(&str, &Op<'_>) -> Option<io::ErrorKind>>;

thread_local! {
    static STEPS: RefCell<Option<Vec<Step>>> = const { RefCell::new(None) };
    static RULE: RefCell<Option<Rule>> = const { RefCell::new(None) };
}

/// Begins to record.
pub(crate) fn record() {
    STEPS.set(Some(Vec::new()));
}

/// What was recorded so far.
pub(crate) fn recorded() -> Vec<Step> {
    STEPS.with_borrow_mut(|steps| steps.replace(Vec::new()).unwrap_or_default())
}

/// Makes fail what the rule says, while `during` runs.
pub(crate) fn failing<T>(
    rule: impl Fn(&str, &Op<'_>) -> Option<io::ErrorKind> + 'static,
    during: impl FnOnce() -> T,
) -> T {
    RULE.set(Some(Box::new(rule)));
    let done = during();
    RULE.set(None);
    done
}

pub(crate) fn before(path: &Path, op: &Op<'_>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let fails = RULE.with_borrow(|rule| rule.as_ref().and_then(|rule| rule(&name, op)));
    if let Some(kind) = fails {
        return Err(kind.into());
    }
    let done = match op {
        Op::Write(at, bytes) => Done::Write(*at, bytes.to_vec()),
        Op::Copy(at, length) => Done::Copy(*at, *length),
        Op::Punch(at, length) => Done::Punch(*at, *length),
        Op::Replace(bytes) => Done::Replace(bytes.to_vec()),
        Op::Sync => Done::Sync,
    };
    STEPS.with_borrow_mut(|steps| steps.as_mut().map(|steps| steps.push((name, done))));
    Ok(())
}
