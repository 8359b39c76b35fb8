//! Both backends against one model.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use controller_store::{
    Backend, Change, CommitError, Compare, HISTORY_REVISIONS_MAX, Memory, Operation, Redb, Store,
    Transaction, WatchError,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use types::Revision;

fn both(check: impl Fn(Store)) {
    check(Store::new(Memory::default()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    check(Store::new(Redb::open(&folder.path().join("store.redb")).unwrap()).unwrap());
}

fn put(key: &str, value: &str) -> Transaction {
    let mut transaction = Transaction::default();
    transaction.put(key, value);
    transaction
}

#[test]
fn a_transaction_with_a_wrong_compare_changes_nothing() {
    both(|store| {
        let first = store.commit(&put("a", "1")).unwrap();
        let mut stale = put("b", "2");
        stale.require(Compare::Absent("a".into()));
        assert!(matches!(
            store.commit(&stale),
            Err(CommitError::Conflict { actual: Some(revision), .. }) if revision == first
        ));
        assert!(store.get("b").unwrap().is_none());
        assert_eq!(store.revision(), first);
        let mut right = put("b", "2");
        right.require(Compare::At("a".into(), first));
        assert_eq!(store.commit(&right).unwrap(), Revision(first.0 + 1));
    });
}

#[test]
fn a_transaction_without_effect_takes_no_revision() {
    both(|store| {
        let mut nothing = Transaction::default();
        nothing.delete("absent");
        assert_eq!(store.commit(&nothing).unwrap(), Revision(0));
        assert_eq!(store.commit(&Transaction::default()).unwrap(), Revision(0));
    });
}

#[test]
fn a_key_written_twice_or_empty_or_a_huge_value_is_refused() {
    both(|store| {
        let mut twice = put("a", "1");
        twice.delete("a");
        assert!(matches!(store.commit(&twice), Err(CommitError::Twice(_))));
        assert!(matches!(store.commit(&put("", "1")), Err(CommitError::Key(_))));
        let mut huge = Transaction::default();
        huge.put("a", vec![0; controller_store::VALUE_LEN_MAX + 1]);
        assert!(matches!(store.commit(&huge), Err(CommitError::Value { .. })));
    });
}

#[test]
fn a_watcher_too_far_back_is_told_so() {
    both(|store| {
        for n in 0..=HISTORY_REVISIONS_MAX.min(64) {
            store.commit(&put("a", &n.to_string())).unwrap();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut watch = store.watch("", Revision(0));
        let first = runtime.block_on(watch.next()).unwrap().unwrap();
        assert_eq!(first, Change { revision: Revision(1), key: "a".into(), value: Some(b"0".to_vec()) });
    });
    let store = Store::new(Memory::default()).unwrap();
    for n in 0..HISTORY_REVISIONS_MAX + 2 {
        store.commit(&put("a", &n.to_string())).unwrap();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(store.watch("", Revision(1)).next()).unwrap_err();
    assert!(matches!(error, WatchError::Compacted { oldest: Revision(2), .. }), "{error}");
    assert!(runtime.block_on(store.watch("", Revision(2)).next()).unwrap().is_some());
}

#[tokio::test]
async fn a_watcher_is_woken_by_a_change_under_its_prefix_only() {
    let store = Store::new(Memory::default()).unwrap();
    let mut watch = store.watch("b/", Revision(0));
    let other = store.clone();
    let task = tokio::spawn(async move { watch.next().await.unwrap().unwrap() });
    tokio::task::yield_now().await;
    other.commit(&put("a/1", "x")).unwrap();
    other.commit(&put("b/1", "y")).unwrap();
    let change = task.await.unwrap();
    assert_eq!((change.key.as_str(), change.revision), ("b/1", Revision(2)));
}

#[test]
fn a_file_reopened_holds_all_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    {
        let store = Store::new(Redb::open(&path).unwrap()).unwrap();
        store.commit(&put("a", "1")).unwrap();
        store.commit(&put("b", "2")).unwrap();
    }
    let store = Store::new(Redb::open(&path).unwrap()).unwrap();
    assert_eq!(store.revision(), Revision(2));
    assert_eq!(store.list("").unwrap().1.len(), 2);
}

fn operation() -> impl Strategy<Value = Operation> {
    let key = "[ab]/[a-d]";
    prop_oneof![
        3 => (key, prop::collection::vec(any::<u8>(), 0..8)).prop_map(|(k, v)| Operation::Put(k, v)),
        1 => key.prop_map(Operation::Delete),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    prop_oneof![
        "[ab]/[a-d]".prop_map(Compare::Absent),
        ("[ab]/[a-d]", 0u64..12).prop_map(|(k, r)| Compare::At(k, Revision(r))),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    (prop::collection::vec(compare(), 0..2), prop::collection::vec(operation(), 0..5))
        .prop_map(|(compares, operations)| Transaction { compares, operations })
}

/// The claim of the seam, spelled out naively.
#[derive(Default)]
struct Model {
    revision: u64,
    entries: BTreeMap<String, (u64, Vec<u8>)>,
    history: Vec<Change>,
}

impl Model {
    fn commit(&mut self, transaction: &Transaction) -> bool {
        let holds = transaction.compares.iter().all(|compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::At(key, at) => self.entries.get(key).is_some_and(|(r, _)| *r == at.0),
        });
        if !holds {
            return false;
        }
        let next = self.revision + 1;
        for operation in &transaction.operations {
            let value = match operation {
                Operation::Put(key, value) => {
                    self.entries.insert(key.clone(), (next, value.clone()));
                    Some(value.clone())
                }
                Operation::Delete(key) if self.entries.remove(key).is_some() => None,
                Operation::Delete(_) => continue,
            };
            self.revision = next;
            self.history.push(Change { revision: Revision(next), key: operation.key().to_owned(), value });
        }
        true
    }
}

fn check_against_model(backend: impl Backend, transactions: &[Transaction]) {
    let store = Store::new(backend).unwrap();
    let mut model = Model::default();
    for transaction in transactions {
        match store.commit(transaction) {
            Ok(revision) => {
                assert!(model.commit(transaction));
                assert_eq!(revision.0, model.revision);
            }
            Err(CommitError::Twice(_)) => {}
            Err(CommitError::Conflict { .. }) => assert!(!model.commit(transaction)),
            Err(other) => panic!("{other}"),
        }
        for prefix in ["", "a/", "b/c"] {
            let listed = store.list(prefix).unwrap().1;
            let expected: Vec<_> = model.entries.iter().filter(|(k, _)| k.starts_with(prefix)).collect();
            assert_eq!(listed.len(), expected.len());
            for (entry, (key, (revision, value))) in listed.iter().zip(expected) {
                assert_eq!((&entry.key, entry.revision.0, &entry.value), (key, *revision, value));
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut watch = store.watch("", Revision(0));
    for change in &model.history {
        assert_eq!(runtime.block_on(watch.next()).unwrap().as_ref(), Some(change));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn memory_behaves_as_the_model(transactions in prop::collection::vec(transaction(), 0..16)) {
        check_against_model(Memory::default(), &transactions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn redb_behaves_as_the_model(transactions in prop::collection::vec(transaction(), 0..12)) {
        let folder = tempfile::tempdir().unwrap();
        check_against_model(Redb::open(&folder.path().join("store.redb")).unwrap(), &transactions);
    }
}
