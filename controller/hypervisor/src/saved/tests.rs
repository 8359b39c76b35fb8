use super::*;

const DOCUMENT: &str = "<domain type='qemu'>\n  <name>c-a-b</name>\n  <uuid>11111111-2222-4333-8444-555555555555</uuid>\n\
    <os>\n    <type arch='x86_64' machine='pc-q35-10.0'>hvm</type>\n  </os>\n  <devices/></domain>\n";

fn header() -> Header {
    Header {
        was_running: 1,
        format: 0,
        document: DOCUMENT.to_owned(),
        cookie: b"<cookie><cpu/></cookie>".to_vec(),
        text_bytes: DOCUMENT.len() + 100,
    }
}

fn file(stream: &[u8]) -> Vec<u8> {
    let mut bytes = header().bytes().unwrap();
    bytes.extend(stream);
    bytes
}

fn rehomed(mut bytes: &[u8], named: &str, uuid: Uuid) -> Result<Vec<u8>, SavedError> {
    let mut copy = Vec::new();
    rehome(&mut bytes, &mut copy, named, uuid)?;
    Ok(copy)
}

#[test]
fn name_and_uuid_change_and_all_else_stays() {
    let uuid = Uuid::from_u128(7);
    let before = file(b"QEVM...");
    let after = rehomed(&before, "c-other<-b", uuid).unwrap();
    let read = Header::read(&mut after.as_slice()).unwrap();
    let document = DOCUMENT
        .replace("c-a-b", "c-other&lt;-b")
        .replace("11111111-2222-4333-8444-555555555555", &uuid.to_string());
    assert_eq!(read, Header { document, ..header() });
    assert!(after.ends_with(b"QEVM..."));
    assert_eq!(before.len(), after.len(), "the stream begins where it began");
    assert_eq!(header().machine_type().unwrap(), "pc-q35-10.0");
}

#[test]
fn a_longer_document_gets_the_room_it_needs() {
    let name = "n".repeat(300);
    let after = rehomed(&file(b"QEVM"), &name, Uuid::from_u128(7)).unwrap();
    let mut rest = after.as_slice();
    let read = Header::read(&mut rest).unwrap();
    assert!(read.document.contains(&name));
    assert_eq!((read.cookie, rest), (header().cookie, b"QEVM".as_slice()));
}

#[test]
fn a_header_without_a_cookie_stays_without() {
    let bare = Header { cookie: Vec::new(), ..header() };
    assert_eq!(Header::read(&mut bare.bytes().unwrap().as_slice()).unwrap(), bare);
}

#[test]
fn what_is_no_saved_memory_is_refused_with_its_reason() {
    let good = file(b"");
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        rehomed(&bad, "n", Uuid::nil()).unwrap_err().to_string()
    };
    assert_eq!(with(0, b'X'), SavedError::Magic.to_string());
    assert!(with(16, 3).starts_with("its version 3 and format 0 are not supported here"));
    assert!(with(28, 6).starts_with("its version 2 and format 6 are not supported here"));
    assert!(with(23, 0x7f).contains("which cannot be"));
    assert!(with(35, 0x7f).contains("which cannot be"));
    let mut unfinished = good.clone();
    unfinished[..16].copy_from_slice(UNFINISHED);
    assert!(matches!(rehomed(&unfinished, "n", Uuid::nil()), Err(SavedError::Unfinished)));
    for len in [0, 15, HEADER_BYTES, good.len() - 1] {
        assert!(matches!(rehomed(&good[..len], "n", Uuid::nil()), Err(SavedError::Short)), "{len}");
    }
    let nameless = Header { document: "<domain/>".to_owned(), ..header() }.bytes().unwrap();
    assert!(matches!(rehomed(&nameless, "n", Uuid::nil()), Err(SavedError::Document("name"))));
}

#[test]
fn no_header_makes_it_panic() {
    // Every byte of a small file is set to every value that has made parsers fail.
    let good = file(b"QEVM");
    for at in 0..good.len() {
        for byte in [0, 1, 0x3c, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            let _ = rehomed(&bad, "n", Uuid::nil());
        }
    }
}
