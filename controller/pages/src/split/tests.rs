use super::*;

/// A stream as QEMU writes it behind libvirt's header: a list of blocks, then these records, then devices.
pub(crate) fn stream(passes: &[Vec<(u64, u8)>]) -> Vec<u8> {
    let mut bytes = b"LibvirtQemudSave".to_vec();
    bytes.extend([2_u32, 300, 1, 0, 200].iter().flat_map(|word| word.to_le_bytes()));
    bytes.resize(92 + 300, b'x');
    bytes.extend(QEMU);
    bytes.extend(b"\x07\0\0\0\x0bpc-q35-10.0");
    bytes.extend(b"\x01\0\0\0\x02");
    bytes.extend(RAM);
    bytes.extend((0x40_1000 | FLAG_MEM_SIZE).to_be_bytes());
    for (name, size) in [("pc.ram", 0x40_0000_u64), ("vga", 0x1000)] {
        bytes.push(name.len() as u8);
        bytes.extend(name.bytes());
        bytes.extend(size.to_be_bytes());
    }
    let end = |bytes: &mut Vec<u8>| {
        bytes.extend(FLAG_EOS.to_be_bytes());
        bytes.extend(b"\x7e\0\0\0\x02");
    };
    end(&mut bytes);
    for (index, pass) in passes.iter().enumerate() {
        bytes.push(if index + 1 == passes.len() { SECTION_END } else { SECTION_PART });
        bytes.extend(2_u32.to_be_bytes());
        for (at, (page, fill)) in pass.iter().enumerate() {
            let name: &[u8] = if at == 0 { b"\x06pc.ram" } else { b"" };
            let goes_on = if at == 0 { 0 } else { FLAG_CONTINUE };
            let flag = if *fill == 0 { FLAG_ZERO } else { FLAG_PAGE };
            bytes.extend(((page * 4096) | flag | goes_on).to_be_bytes());
            bytes.extend(name);
            bytes.resize(bytes.len() + if *fill == 0 { 1 } else { 4096 }, *fill);
        }
        end(&mut bytes);
    }
    bytes.extend(b"\x04\0\0\0\x05devices and what they hold");
    bytes
}

pub(crate) fn pieces(bytes: &[u8]) -> Vec<Piece> {
    let mut split = Split::new(bytes);
    std::iter::from_fn(|| split.next().unwrap()).collect()
}

fn joined(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes().iter().copied()).collect()
}

#[test]
fn every_page_of_every_pass_is_a_piece_of_its_own() {
    let bytes = stream(&[vec![(0, 1), (1, 0), (2, 3), (3, 0xff)], vec![(2, 4)]]);
    let pieces = pieces(&bytes);
    assert_eq!(joined(&pieces), bytes);
    let pages: Vec<u8> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Page(bytes) => bytes.last().copied(),
            Piece::Other(_) => None,
        })
        .collect();
    assert_eq!(pages, [1, 3, 0xff, 4]);
}

#[test]
fn a_stream_without_libvirts_header_is_split_too() {
    let bytes = stream(&[vec![(0, 1), (1, 2)]]);
    let bare = &bytes[392..];
    assert!(bare.starts_with(QEMU));
    assert_eq!(pieces(bare).iter().filter(|piece| matches!(piece, Piece::Page(_))).count(), 2);
}

#[test]
fn whatever_it_is_and_wherever_it_ends_no_byte_is_lost() {
    let good = stream(&[vec![(0, 1), (1, 0), (2, 3)], vec![(2, 4)]]);
    for len in (0..good.len()).step_by(37).chain(good.len() - 60..good.len()) {
        assert!(joined(&pieces(&good[..len])) == good[..len], "{len}");
    }
    for at in 0..700 {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(joined(&pieces(&bad)) == bad, "{at} {byte}");
        }
    }
}
