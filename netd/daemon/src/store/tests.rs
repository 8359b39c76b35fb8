use super::*;

fn network(number: usize, mtu: u16) -> Network {
    Network { id: format!("a/n{number}"), bridge: format!("cb{number}"), mtu, ..Network::default() }
}

fn document(networks: usize) -> Desired {
    Desired {
        generation: Generation(1),
        networks: (0..networks).map(|number| network(number, 1450)).collect(),
        ..Desired::default()
    }
}

#[test]
fn what_was_written_is_read_in_its_order_after_changes_and_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    assert_eq!(store.read().unwrap(), None);
    let mut wanted = document(12);
    store.write(&wanted).unwrap();
    assert_eq!(store.read().unwrap().as_ref(), Some(&wanted));
    let change = Change {
        from: Generation(1),
        generation: Generation(2),
        put: vec![network(20, 1450), network(3, 1400), network(13, 1450)],
        remove: vec!["a/n11".to_owned(), "a/n0".to_owned()],
    };
    store.change(&change).unwrap();
    wanted.generation = Generation(2);
    wanted.networks[3] = network(3, 1400);
    wanted.networks.remove(11);
    wanted.networks.remove(0);
    wanted.networks.extend([network(20, 1450), network(13, 1450)]);
    assert_eq!(store.read().unwrap().as_ref(), Some(&wanted));
    drop(store);
    let mut store = Store::open(folder.path()).unwrap();
    assert_eq!(store.read().unwrap().as_ref(), Some(&wanted));
    store.forget().unwrap();
    assert_eq!(store.read().unwrap(), None);
}

#[test]
fn a_document_left_as_a_file_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("desired.json");
    fs::write(&file, serde_json::to_vec(&document(2)).unwrap()).unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    assert_eq!(store.read().unwrap(), Some(document(2)));
    assert!(!file.exists());
    drop(store);
    fs::write(&file, "{").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("desired.json holds no desired document"), "{error}");
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Store::open(folder.path()).unwrap();
    assert!(matches!(Store::open(folder.path()), Err(StoreError::Locked(_))));
}

#[test]
fn twenty_thousand_networks_are_kept_and_one_of_them_changed() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let mut wanted = document(20_000);
    store.write(&wanted).unwrap();
    let put = vec![network(10_000, 1400)];
    let change = Change { from: Generation(1), generation: Generation(2), put, remove: Vec::new() };
    store.change(&change).unwrap();
    drop(store);
    wanted.networks[10_000].mtu = 1400;
    wanted.generation = Generation(2);
    assert_eq!(Store::open(folder.path()).unwrap().read().unwrap(), Some(wanted));
}
