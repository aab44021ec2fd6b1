use proptest::prelude::*;

use super::*;

fn sealer() -> Sealer {
    Sealer::new(&VaultKey::from_buffer(Buffer::zeroed(32)).unwrap(), [5; 16])
}

fn label(service: &str, target: &str) -> Label {
    let mut attributes = Attributes::new();
    attributes.insert("env", "production").unwrap();
    Label { service: Service::parse(service).unwrap(), target: Target::parse(target).unwrap(), attributes }
}

fn secret(text: &[u8]) -> SecretValue {
    SecretValue::from_buffer(Buffer::from(text)).unwrap()
}

#[test]
fn a_service_and_a_target_never_collide_with_another_pair() {
    let key = |service: &str, target: &str| {
        sealer().record_key(&Service::parse(service).unwrap(), &Target::parse(target).unwrap())
    };
    assert_ne!(key("a", "b:c"), key("a:b", "c"));
    assert_ne!(key("ab", "c"), key("a", "bc"));
    assert_eq!(key("a", "b"), key("a", "b"));
}

#[test]
fn a_record_opens_only_at_its_place_in_its_vault_with_its_own_label() {
    let sealer = sealer();
    let (one, two) = (label("s", "one"), label("s", "two"));
    let (at, elsewhere) = ([1; 32], [2; 32]);
    let sealed = sealer.seal_record(&at, &[9; NONCE], &one, &secret(b"v")).unwrap();
    assert_eq!(sealer.open_label(&at, &sealed), Ok((one, [9; NONCE])));
    assert_eq!(sealer.open_value(&at, &sealed).unwrap().expose_secret(), "v");
    assert_eq!(sealer.open_label(&elsewhere, &sealed), Err(Unsealable));
    assert!(sealer.open_value(&elsewhere, &sealed).is_err());

    let other = Sealer::new(&VaultKey::from_buffer(Buffer::zeroed(32)).unwrap(), [6; 16]);
    assert_eq!(other.open_label(&at, &sealed), Err(Unsealable), "same key, another vault");

    // the same nonce by force, so that nothing but the binding to the label's tag can tell
    let foreign = sealer.seal_record(&at, &[9; NONCE], &two, &secret(b"w")).unwrap();
    assert_eq!(foreign.len(), sealed.len());
    let value_part = sealed.len() - 64 - TAG;
    let mixed = [&sealed[..value_part], &foreign[value_part..]].concat();
    assert!(sealer.open_value(&at, &mixed).is_err(), "a value under another record's label");
}

#[test]
fn a_line_opens_only_under_its_number_and_not_as_a_header() {
    let sealer = sealer();
    let sealed = sealer.seal_line(7, &[1; NONCE], b"{line").unwrap();
    assert_eq!(sealer.open_line(7, &sealed), Ok(b"{line".to_vec()));
    assert_eq!(sealer.open_line(8, &sealed), Err(Unsealable));
    assert!(sealer.open_header(&sealed).is_err());
}

#[test]
fn padded_sizes_grow_in_steps_of_at_most_an_eighth() {
    assert_eq!((bucket(0), bucket(1), bucket(64), bucket(65)), (64, 64, 64, 128));
    for length in (65..MAX_VALUE + 8).step_by(7) {
        let padded = bucket(length);
        assert!(padded >= length && padded - length < (length / 8).max(STEP), "{length}");
    }
}

proptest! {
    #[test]
    fn what_is_sealed_opens_to_the_same(
        service in "[^\\p{Cc}]{1,40}", target in "[^\\p{Cc}]{1,80}", value in ".{0,300}",
        attributes in proptest::collection::btree_map("[^\\p{Cc}]{1,12}", ".{0,40}", 0..=16),
        at: [u8; 32], nonce: [u8; NONCE],
    ) {
        let mut label = label(&service, &target);
        label.attributes = Attributes::new();
        for (name, value) in &attributes {
            label.attributes.insert(name, value).unwrap();
        }
        let sealer = sealer();
        let sealed = sealer.seal_record(&at, &nonce, &label, &secret(value.as_bytes())).unwrap();
        prop_assert_eq!(sealer.open_label(&at, &sealed), Ok((label, nonce)));
        let opened = sealer.open_value(&at, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), value);
    }

    #[test]
    fn no_bytes_open_that_were_not_sealed(bytes in proptest::collection::vec(any::<u8>(), 0..400), at: [u8; 32]) {
        let sealer = sealer();
        prop_assert!(sealer.open_label(&at, &bytes).is_err());
        prop_assert!(sealer.open_value(&at, &bytes).is_err());
        prop_assert!(sealer.open_line(0, &bytes).is_err());
        prop_assert!(sealer.open_header(&bytes).is_err());
    }

    #[test]
    fn one_changed_bit_never_opens(bit in 0_usize..8 * 256, at: [u8; 32]) {
        let sealer = sealer();
        let mut sealed = sealer.seal_record(&at, &[9; NONCE], &label("s", "t"), &secret(b"v")).unwrap();
        let bit = bit % (sealed.len() * 8);
        sealed[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(sealer.open_label(&at, &sealed).is_err() || sealer.open_value(&at, &sealed).is_err());
    }
}
