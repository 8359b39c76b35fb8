//! The store in memory: for tests, and the measure of the other one.

use crate::{
    Backend, BackendError, Change, CommitError, Compare, Entry, HISTORY_REVISIONS_MAX, History, Operation,
    Transaction,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::Revision;

/// Keeps everything in memory, nothing for ever.
#[derive(Debug, Default)]
pub struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, (Revision, Vec<u8>)>,
    history: VecDeque<Change>,
    compacted: Revision,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self, compare: &Compare) -> Result<(), CommitError> {
        let (key, expected) = match compare {
            Compare::Absent(key) => (key, None),
            Compare::At(key, revision) => (key, Some(*revision)),
        };
        let actual = self.entries.get(key).map(|(revision, _)| *revision);
        if actual == expected { Ok(()) } else { Err(CommitError::Conflict { key: key.clone(), actual }) }
    }

    fn has_effect(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Put(..) => true,
            Operation::Delete(key) => self.entries.contains_key(key),
        }
    }

    fn carry_out(&mut self, operation: &Operation) {
        let (key, value) = match operation {
            Operation::Put(key, value) => {
                self.entries.insert(key.clone(), (self.revision, value.clone()));
                (key, Some(value.clone()))
            }
            Operation::Delete(key) => {
                self.entries.remove(key);
                (key, None)
            }
        };
        self.history.push_back(Change { revision: self.revision, key: key.clone(), value });
    }

    fn forget(&mut self) {
        self.compacted = Revision(self.revision.0.saturating_sub(HISTORY_REVISIONS_MAX));
        while self.history.front().is_some_and(|change| change.revision <= self.compacted) {
            self.history.pop_front();
        }
    }
}

impl Backend for Memory {
    fn revision(&self) -> Result<Revision, BackendError> {
        Ok(self.state().revision)
    }

    fn get(&self, key: &str) -> Result<Option<Entry>, BackendError> {
        let state = self.state();
        Ok(state.entries.get(key).map(|(revision, value)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            revision: *revision,
        }))
    }

    fn list(&self, prefix: &str) -> Result<(Revision, Vec<Entry>), BackendError> {
        let state = self.state();
        let entries = state
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (revision, value))| Entry {
                key: key.clone(),
                value: value.clone(),
                revision: *revision,
            })
            .collect();
        Ok((state.revision, entries))
    }

    fn commit(&self, transaction: &Transaction) -> Result<Revision, CommitError> {
        let mut state = self.state();
        for compare in &transaction.compares {
            state.check(compare)?;
        }
        let operations: Vec<_> =
            transaction.operations.iter().filter(|operation| state.has_effect(operation)).collect();
        if operations.is_empty() {
            return Ok(state.revision);
        }
        state.revision.0 += 1;
        for operation in operations {
            state.carry_out(operation);
        }
        state.forget();
        Ok(state.revision)
    }

    fn history(&self, since: Revision) -> Result<History, BackendError> {
        let state = self.state();
        if since < state.compacted {
            return Ok(History::Compacted(state.compacted));
        }
        Ok(History::Changes(state.history.iter().filter(|c| c.revision > since).cloned().collect()))
    }
}
