use super::*;
use crate::chain::Stage;
use controller_api::life::Layer;

fn disks(folder: &Path) -> Disks {
    Disks::open(Layout::make(&folder.join("state"), &folder.join("run")).unwrap()).unwrap()
}

fn home() -> (InstanceId, VolumeName) {
    ("office/a".parse().unwrap(), VolumeName::new("home").unwrap())
}

#[test]
fn a_volume_of_before_chains_is_the_chain_of_none() {
    let folder = tempfile::tempdir().unwrap();
    let (instance, name) = home();
    let layout = disks(folder.path()).layout().clone();
    let path = layout.volume(&instance, &name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, vec![7; 1024]).unwrap();
    let held = disks(folder.path());
    assert_eq!(held.volumes()[&(instance.clone(), name.clone())], (1024, String::new()));
    held.delete_volume(&instance, &name).unwrap();
    assert_eq!(held.volumes(), BTreeMap::new());
    assert_eq!(fs::read_dir(layout.volumes()).unwrap().count(), 0, "nor a folder");
}

#[test]
fn freezing_copies_nothing_can_be_done_twice_and_makes_whole_sectors() {
    let folder = tempfile::tempdir().unwrap();
    let (active, layer) = (folder.path().join("a"), folder.path().join("layers/x/l.raw"));
    fs::write(&active, vec![1; 1000]).unwrap();
    let (bytes, _) = freeze(&active, &layer).unwrap();
    assert_eq!(freeze(&active, &layer).unwrap().0, bytes);
    assert_eq!(bytes, 1024);
    assert_eq!(fs::metadata(&active).unwrap().ino(), fs::metadata(&layer).unwrap().ino());
}

#[test]
fn what_is_kept_is_read_again_and_what_is_dropped_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let held = disks(folder.path());
    let (instance, name) = home();
    let id = CaptureId { checkpoint: Uuid::from_bytes([9; 16]), instance: instance.clone() };
    let capture = Capture::new(Uuid::from_bytes([1; 16]), false, Stage::Taken);
    held.keep_capture(&id, capture.clone()).unwrap();
    let disk = DiskName::Volume(name.clone());
    let layer = LayerId { checkpoint: id.checkpoint, instance: instance.clone(), disk: disk.clone() };
    let file = FileId::Layer(layer.clone());
    fs::write(held.layout().layer(&layer, LayerFormat::Raw), vec![0; 512]).unwrap();
    let image = FileImage { draft: None, digest: Some(types::Digest::from_bytes([3; 32])) };
    held.keep_image(&file, image.clone()).unwrap();
    let volume = DiskId::Volume(instance.clone(), name.clone());
    let path = held.layout().chain(&volume);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let wire = Layer {
        checkpoint: id.checkpoint.to_string(),
        instance,
        disk,
        format: LayerFormat::Raw,
        file_bytes: 512,
        disk_bytes: 512,
        image: None,
    };
    let chain = Chain {
        incarnation: String::new(),
        layers: vec![wire],
        active: "home.x.qcow2".to_owned(),
        format: LayerFormat::Qcow2,
        disk_bytes: 512,
    };
    fs::write(held.layout().active(&volume, &chain), b"active").unwrap();
    fs::write(held.layout().active_file(&volume, "home.raw"), b"the old name").unwrap();
    held.keep_chain(&volume, chain.clone()).unwrap();

    let again = disks(folder.path());
    assert_eq!(again.captures(), BTreeMap::from([(id.clone(), capture)]));
    assert_eq!(again.chains(), BTreeMap::from([(volume.clone(), chain.clone())]));
    assert_eq!(again.images(), BTreeMap::from([(file.clone(), image)]));
    assert_eq!(again.files().unwrap(), BTreeSet::from([file.clone()]));
    again.tidy(&volume, Some(&chain.active)).unwrap();
    assert!(!again.layout().active_file(&volume, "home.raw").exists());
    assert!(again.layout().active(&volume, &chain).exists() && again.layout().chain(&volume).exists());

    again.forget_capture(&id).unwrap();
    assert_eq!(again.files().unwrap().len(), 1, "its layer is no part of it");
    again.remove_file(&file).unwrap();
    assert_eq!(fs::read_dir(again.layout().layers()).unwrap().count(), 0);
}
