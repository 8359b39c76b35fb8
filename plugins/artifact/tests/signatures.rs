//! Who vouches for a component.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use plugins_artifact::{
    COMPONENT_BYTES_MAX, ENVELOPE_BYTES_MAX, Envelope, Kind, PublicKey, Root, SecretKey, Statement,
    VerifyError, digest, sign, verify,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const COMPONENT: &[u8] = b"\0asm a component";

fn statement(kind: Kind) -> Statement {
    Statement { component: digest(COMPONENT), kind, name: "balanced".into(), version: "1.2.3".into() }
}

fn root(name: &str, key: &SecretKey, kinds: &[Kind]) -> Root {
    Root { name: name.into(), key: key.public(), kinds: kinds.iter().copied().collect() }
}

#[test]
fn a_component_signed_by_a_root_of_its_kind_is_vouched_for() {
    let (ours, others) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let roots = [root("others", &others, &Kind::ALL), root("acme", &ours, &[Kind::Placement])];
    let envelope = sign(&statement(Kind::Placement), &ours).unwrap();
    let signer = verify(&envelope, COMPONENT, &roots).unwrap();
    assert_eq!((signer.root.as_str(), signer.key), ("acme", ours.public().id()));
    assert_eq!(signer.statement, statement(Kind::Placement));
}

#[test]
fn a_key_vouches_only_for_the_kinds_it_is_trusted_with() {
    let key = SecretKey::generate().unwrap();
    let envelope = sign(&statement(Kind::Introspection), &key).unwrap();
    let error = verify(&envelope, COMPONENT, &[root("acme", &key, &[Kind::Placement])]).unwrap_err();
    assert_eq!(error, VerifyError::KindNotTrusted { root: "acme".into(), kind: Kind::Introspection });
}

#[test]
fn an_unknown_key_vouches_for_nothing_and_the_error_says_what_to_do() {
    let (key, other) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let envelope = sign(&statement(Kind::Update), &key).unwrap();
    for roots in [vec![], vec![root("other", &other, &Kind::ALL)]] {
        let error = verify(&envelope, COMPONENT, &roots).unwrap_err();
        assert!(matches!(error, VerifyError::UnknownKey { .. }), "{error}");
        assert!(error.to_string().contains(&key.public().id().to_string()));
        assert!(error.to_string().contains("trust roots of update policies"));
    }
}

#[test]
fn one_changed_byte_of_the_component_is_another_component() {
    let key = SecretKey::generate().unwrap();
    let envelope = sign(&statement(Kind::Placement), &key).unwrap();
    let mut changed = COMPONENT.to_vec();
    changed[5] ^= 1;
    let error = verify(&envelope, &changed, &[root("acme", &key, &Kind::ALL)]).unwrap_err();
    assert!(matches!(error, VerifyError::OtherComponent { .. }), "{error}");
}

#[test]
fn a_signature_does_not_carry_over_to_another_statement_or_type() {
    let key = SecretKey::generate().unwrap();
    let roots = [root("acme", &key, &Kind::ALL)];
    let mut envelope: Value =
        serde_json::from_slice(&sign(&statement(Kind::Placement), &key).unwrap()).unwrap();
    let other = serde_json::to_vec(&statement(Kind::Update)).unwrap();
    envelope["payload"] = json!(STANDARD.encode(other));
    let error = verify(envelope.to_string().as_bytes(), COMPONENT, &roots).unwrap_err();
    assert!(matches!(error, VerifyError::UnknownKey { .. }), "{error}");
    envelope["payloadType"] = json!("text/plain");
    let error = verify(envelope.to_string().as_bytes(), COMPONENT, &roots).unwrap_err();
    assert!(matches!(error, VerifyError::Malformed(_)), "{error}");
}

#[test]
fn the_raw_payload_signed_without_its_type_is_not_enough() {
    let key = SecretKey::generate().unwrap();
    let mut envelope: Value =
        serde_json::from_slice(&sign(&statement(Kind::Placement), &key).unwrap()).unwrap();
    let pair = {
        // What somebody would sign who forgot DSSE's pre-authentication encoding.
        let pem = key.to_pem().unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&STANDARD.decode(body).unwrap())
            .unwrap()
    };
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    envelope["signatures"][0]["sig"] = json!(STANDARD.encode(pair.sign(&payload)));
    let roots = [root("acme", &key, &Kind::ALL)];
    assert!(verify(envelope.to_string().as_bytes(), COMPONENT, &roots).is_err());
}

#[test]
fn both_alphabets_of_base64_and_unknown_fields_are_read_as_dsse_wants() {
    let key = SecretKey::generate().unwrap();
    let mut envelope: Value =
        serde_json::from_slice(&sign(&statement(Kind::Placement), &key).unwrap()).unwrap();
    let signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    envelope["signatures"][0] = json!({"sig": URL_SAFE.encode(signature), "cert": "later"});
    envelope["later"] = json!(1);
    verify(envelope.to_string().as_bytes(), COMPONENT, &[root("acme", &key, &Kind::ALL)]).unwrap();
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let large = vec![b' '; ENVELOPE_BYTES_MAX + 1];
    assert!(matches!(Envelope::parse(&large), Err(VerifyError::EnvelopeTooLarge { .. })));
    let component = vec![0; COMPONENT_BYTES_MAX + 1];
    assert!(matches!(verify(b"{}", &component, &[]), Err(VerifyError::ComponentTooLarge { .. })));
}

#[test]
fn no_signatures_and_too_many_are_refused() {
    let key = SecretKey::generate().unwrap();
    let mut envelope: Value =
        serde_json::from_slice(&sign(&statement(Kind::Placement), &key).unwrap()).unwrap();
    let one = envelope["signatures"][0].clone();
    for count in [0, 9] {
        envelope["signatures"] = json!(vec![one.clone(); count]);
        let error = Envelope::parse(envelope.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, VerifyError::Malformed(_)), "{error}");
    }
}

#[test]
fn a_statement_with_a_wrong_name_is_neither_signed_nor_read() {
    let key = SecretKey::generate().unwrap();
    for name in ["", "Balanced", "9lives", "a b", "é", &"a".repeat(64)] {
        let wrong = Statement { name: name.into(), ..statement(Kind::Placement) };
        assert!(sign(&wrong, &key).is_err(), "{name:?}");
    }
}

#[test]
fn a_loaded_component_must_be_what_was_signed() {
    let signed = statement(Kind::Placement);
    signed.describes(Kind::Placement, "balanced", "1.2.3").unwrap();
    assert_eq!(signed.describes(Kind::Update, "balanced", "1.2.3").unwrap_err().field, "the kind");
    assert_eq!(signed.describes(Kind::Placement, "packed", "1.2.3").unwrap_err().field, "the name");
    assert_eq!(signed.describes(Kind::Placement, "balanced", "2.0.0").unwrap_err().field, "the version");
}

#[test]
fn keys_survive_their_files() {
    let key = SecretKey::generate().unwrap();
    let again = SecretKey::parse(&key.to_pem().unwrap()).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(PublicKey::parse(&key.public().to_pem()).unwrap(), key.public());
    assert_eq!(PublicKey::parse(&format!("{}\n", key.public())).unwrap(), key.public());
    assert!(!format!("{key:?}").contains(&key.to_pem().unwrap()[30..60]));
}

#[test]
fn keys_that_openssl_wrote_are_read() {
    // openssl genpkey -algorithm ed25519; the key of RFC 8410, section 10.3.
    let secret = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    assert_eq!(SecretKey::parse(secret).unwrap().public(), PublicKey::parse(public).unwrap());
}

#[test]
fn what_is_no_key_is_refused_with_a_reason() {
    assert!(SecretKey::parse("hello").unwrap_err().to_string().contains("BEGIN PRIVATE KEY"));
    assert!(PublicKey::parse("hello!").is_err());
    let key = SecretKey::generate().unwrap();
    assert!(PublicKey::parse(&key.to_pem().unwrap()).is_err(), "a secret key is no public one");
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_fail_otherwise_than_with_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Envelope::parse(&bytes);
    }

    #[test]
    fn any_flipped_bit_of_an_envelope_is_noticed_or_does_not_matter(at in 0usize..400, bit in 0u8..8) {
        let key = SecretKey::generate().unwrap();
        let mut envelope = sign(&statement(Kind::Placement), &key).unwrap();
        let at = at % envelope.len();
        envelope[at] ^= 1 << bit;
        // A changed key hint or white space changes nothing; whatever passes is what was signed.
        if let Ok(signer) = verify(&envelope, COMPONENT, &[root("acme", &key, &Kind::ALL)]) {
            prop_assert_eq!(signer.statement, statement(Kind::Placement));
        }
    }
}
