use super::*;
use proptest::prelude::*;

const NUMBERS: Numbers = Numbers { urgent: 1, want: 2 };

fn geometry() -> Geometry {
    Geometry::new(10 * 65536, 65536).unwrap()
}

fn said(bytes: &[u8]) -> Result<Option<Said>, Violation> {
    take(&mut BytesMut::from(bytes), geometry())
}

fn extended(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len() + 1).unwrap().to_be_bytes().to_vec();
    message.push(EXTENDED);
    message.extend_from_slice(body);
    message
}

#[test]
fn what_is_said_is_understood() {
    let block = Block { piece: 3, begin: 16384, length: 16384 };
    let mut buffer = BytesMut::new();
    let ask = Say::Ask { block, urgent: false };
    for say in [Say::Unchoke, Say::Interested, Say::Has(9), ask, Say::TakeBack(block)] {
        put(&mut buffer, &say, NUMBERS);
    }
    put(&mut buffer, &Say::HasAll(Pieces::none(10)), NUMBERS);
    buffer.extend_from_slice(&block_header(block));
    buffer.extend_from_slice(&[7; 16384]);
    let mut next = || take(&mut buffer, geometry()).unwrap().unwrap();
    assert!(matches!(next(), Said::Choking(false)));
    assert!(matches!(next(), Said::Nothing));
    assert!(matches!(next(), Said::Has(9)));
    assert!(matches!(next(), Said::Asks(asked) if asked == block));
    assert!(matches!(next(), Said::TakesBack(asked) if asked == block));
    assert!(matches!(next(), Said::HasAll(pieces) if pieces.count() == 0));
    assert!(matches!(next(), Said::Sends(sent, bytes) if sent == block && bytes == [7; 16384][..]));
    assert!(take(&mut buffer, geometry()).unwrap().is_none());
}

#[test]
fn our_extensions_are_understood() {
    let block = Block { piece: 3, begin: 16384, length: 16384 };
    let mut buffer = BytesMut::new();
    for say in [
        Say::Hello(Some("office-1".into())),
        Say::Ask { block, urgent: true },
        Say::Urge(block),
        Say::Want(7),
        Say::Hello(None),
    ] {
        put(&mut buffer, &say, NUMBERS);
    }
    let mut next = || take(&mut buffer, geometry()).unwrap().unwrap();
    assert!(
        matches!(next(), Said::Hello(Hello { numbers: NUMBERS, site: Some(site) }) if &*site == "office-1")
    );
    assert!(matches!(next(), Said::Asks(asked) if asked == block));
    assert!(matches!(next(), Said::Urges(urged) if urged == block));
    assert!(matches!(next(), Said::Urges(urged) if urged == block));
    assert!(matches!(next(), Said::Wants(7)));
    assert!(matches!(next(), Said::Hello(Hello { numbers: NUMBERS, site: None })));
}

#[test]
fn a_peer_that_does_not_speak_our_extensions_hears_none() {
    let block = Block { piece: 3, begin: 0, length: 16384 };
    let mut buffer = BytesMut::new();
    for say in [Say::Urge(block), Say::Want(7)] {
        put(&mut buffer, &say, Numbers::default());
    }
    assert!(buffer.is_empty());
    put(&mut buffer, &Say::Ask { block, urgent: true }, Numbers::default());
    assert!(matches!(take(&mut buffer, geometry()), Ok(Some(Said::Asks(_)))));
    assert!(buffer.is_empty());
}

#[test]
fn a_malformed_message_is_a_violation() {
    assert!(matches!(said(&[255; 8]), Err(Violation::TooLong(_))));
    assert!(matches!(said(&[0, 0, 0, 5, 4, 0, 0, 0, 10]), Err(Violation::NoSuchPiece(10))));
    assert!(matches!(said(&[0, 0, 0, 2, 4, 0]), Err(Violation::Malformed(_))));
    assert!(matches!(said(&[0, 0, 0, 2, 5, 0]), Err(Violation::Bitfield(_))));
    let mut outside = BytesMut::new();
    let block = Block { piece: 9, begin: u32::MAX, length: 16384 };
    put(&mut outside, &Say::Ask { block, urgent: false }, NUMBERS);
    assert!(matches!(said(&outside), Err(Violation::BadRequest(_))));
}

#[test]
fn a_block_of_another_cut_is_a_violation() {
    for (begin, length) in [(0, 2), (0, 32768), (1, 16384), (65536, 16384), (u32::MAX, 16384)] {
        let mut bytes = block_header(Block { piece: 3, begin, length }).to_vec();
        bytes.resize(bytes.len() + length as usize, 0);
        assert!(matches!(said(&bytes), Err(Violation::BadBlock(_))), "{begin} {length}");
    }
}

#[test]
fn a_malformed_message_of_our_extensions_is_a_violation() {
    let outside = [&[1][..], &[0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 64, 0]].concat();
    assert!(matches!(said(&extended(&outside)), Err(Violation::BadRequest(_))));
    assert!(matches!(said(&extended(&[2, 0, 0, 0, 10])), Err(Violation::NoSuchPiece(10))));
    for body in [&[1][..], &[1, 0, 0, 0, 1], &[2], &[2, 0, 0, 1], &[2, 0, 0, 0, 1, 0]] {
        assert!(matches!(said(&extended(body)), Err(Violation::Extension)), "{body:?}");
    }
}

// A number of more than 64 bits in an extension's message overflowed in its parser, and took the connection's task
// with it before the torrent was told.
#[test]
fn another_extension_is_passed_over_whatever_is_in_it() {
    for body in [&b""[..], b"\0", b"\0d1:pi99999999999999999999ee", b"\0le", b"\x07llll"] {
        assert!(matches!(said(&extended(body)), Ok(Some(Said::Nothing))), "{body:?}");
    }
    let foreign = b"\0d1:md11:ut_metadatai3e6:ut_pexi1ee13:metadata_sizei31235e4:reqqi512ee";
    assert!(matches!(said(&extended(foreign)), Ok(Some(Said::Hello(hello))) if hello == Hello::default()));
}

#[test]
fn an_unknown_message_is_passed_over() {
    assert!(matches!(said(&[0, 0, 0, 3, 9, 1, 2]), Ok(Some(Said::Nothing))));
}

fn say() -> impl Strategy<Value = Say> {
    let block = || (0u32..10, 0u32..4).prop_map(|(piece, index)| geometry().block(piece, index));
    prop_oneof![
        prop::option::of("[a-z0-9-]{1,63}").prop_map(|site| Say::Hello(site.map(Into::into))),
        Just(Say::Unchoke),
        Just(Say::Interested),
        (0u32..10).prop_map(Say::Has),
        (0u32..10).prop_map(|piece| {
            let mut pieces = Pieces::none(10);
            pieces.insert(piece);
            Say::HasAll(pieces)
        }),
        (block(), any::<bool>()).prop_map(|(block, urgent)| Say::Ask { block, urgent }),
        block().prop_map(Say::Urge),
        (0u32..10).prop_map(Say::Want),
        block().prop_map(Say::TakeBack),
    ]
}

proptest! {
    #[test]
    fn messages_in_parts_of_any_size_are_understood_as_they_were_said(
        says in prop::collection::vec(say(), 0..40), part in 1usize..200
    ) {
        let mut bytes = BytesMut::new();
        says.iter().for_each(|say| put(&mut bytes, say, NUMBERS));
        let mut heard = Vec::new();
        let mut buffer = BytesMut::new();
        for part in bytes.chunks(part) {
            buffer.extend_from_slice(part);
            while let Some(said) = take(&mut buffer, geometry()).unwrap() {
                heard.push(said);
            }
        }
        prop_assert!(buffer.is_empty());
        let mut heard = heard.into_iter();
        for say in says {
            let said = heard.next().unwrap();
            let same = match (&say, &said) {
                (Say::Hello(site), Said::Hello(hello)) => hello.site == *site && hello.numbers == NUMBERS,
                (Say::Unchoke, Said::Choking(false)) | (Say::Interested, Said::Nothing) => true,
                (Say::Has(one), Said::Has(other)) | (Say::Want(one), Said::Wants(other)) => one == other,
                (Say::HasAll(one), Said::HasAll(other)) => one == other,
                (Say::Ask { block, urgent }, Said::Asks(other)) => {
                    let told = !urgent || matches!(heard.next(), Some(Said::Urges(urged)) if urged == *block);
                    told && block == other
                }
                (Say::Urge(one), Said::Urges(other)) | (Say::TakeBack(one), Said::TakesBack(other)) => one == other,
                _ => false,
            };
            prop_assert!(same, "{:?} {:?}", say, said);
        }
        prop_assert!(heard.next().is_none());
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_take_more_than_there_is(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..32, any::<u8>()], 0..300)
    ) {
        let mut buffer = BytesMut::from(&bytes[..]);
        while let Ok(Some(_)) = take(&mut buffer, geometry()) {}
        prop_assert!(buffer.len() <= bytes.len());
    }
}
