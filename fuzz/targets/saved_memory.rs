//! Saved memory as another host's checkpoint brings it: libvirt's header is rewritten, the rest copied.
#![no_main]

use controller_hypervisor::rehome;
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|bytes: &[u8]| {
    let uuid = Uuid::from_u128(7);
    let mut copy = Vec::new();
    let Ok(machine_type) = rehome(&mut &bytes[..], &mut copy, "c-office-other", uuid) else { return };
    // What was rewritten is read again, to the same end; and what follows the header is what followed it.
    let mut again = Vec::new();
    let same = rehome(&mut copy.as_slice(), &mut again, "c-office-other", uuid).expect("our own is read");
    assert_eq!(machine_type, same);
    assert_eq!(copy, again);
    assert!(copy.len() >= bytes.len(), "bytes were lost");
});
