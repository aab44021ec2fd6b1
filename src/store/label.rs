//! The bytes of a label: lengths before texts, zeros to the end of its bucket. Bounded, total, one form only.

use super::seal::{Label, bucket};
use crate::name::{Attributes, MAX_ATTRIBUTES, Service, Target};

/// How many bytes the label takes before padding.
pub(super) fn encoded_len(label: &Label) -> usize {
    let texts = label.attributes.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>();
    2 + label.service.as_str().len() + 2 + label.target.as_str().len() + 1 + texts
}

/// Writes the label to the beginning of `out`, which holds zeros. None if it has no room.
pub(super) fn encode(label: &Label, out: &mut [u8]) -> Option<()> {
    let mut out = Writer(out);
    out.text(label.service.as_str())?;
    out.text(label.target.as_str())?;
    out.bytes(&[u8::try_from(label.attributes.len()).ok()?])?;
    for (name, value) in label.attributes.iter() {
        out.text(name)?;
        out.text(value)?;
    }
    Some(())
}

/// Reads a padded label. None for anything that [`encode`] does not write.
pub(super) fn decode(bytes: &[u8]) -> Option<Label> {
    let mut rest = Reader(bytes);
    let service = Service::parse(rest.text()?).ok()?;
    let target = Target::parse(rest.text()?).ok()?;
    let count = usize::from(*rest.take(1)?.first()?);
    if count > MAX_ATTRIBUTES {
        return None;
    }
    let mut attributes = Attributes::new();
    for _ in 0..count {
        let (name, value) = (rest.text()?, rest.text()?);
        attributes.insert(name, value).ok()?;
    }
    let used = bytes.len() - rest.0.len();
    let padded = rest.0.iter().all(|byte| *byte == 0) && bytes.len() == bucket(used);
    padded.then_some(Label { service, target, attributes })
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn text(&mut self, text: &str) -> Option<()> {
        self.bytes(&u16::try_from(text.len()).ok()?.to_le_bytes())?;
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let (here, rest) = std::mem::take(&mut self.0).split_at_mut_checked(bytes.len())?;
        here.copy_from_slice(bytes);
        self.0 = rest;
        Some(())
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn text(&mut self) -> Option<&'a str> {
        let length = u16::from_le_bytes(*self.take(2)?.first_chunk()?);
        str::from_utf8(self.take(usize::from(length))?).ok()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (here, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(here)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_label_in_its_one_form_or_none(bytes in proptest::collection::vec(0_u8..6, 0..200)) {
            if let Some(label) = decode(&bytes) {
                let mut again = vec![0; bucket(encoded_len(&label))];
                encode(&label, &mut again).unwrap();
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn a_label_as_long_as_names_may_be_has_one_form() {
        let mut attributes = Attributes::new();
        for number in 0..MAX_ATTRIBUTES {
            attributes.insert(&format!("{number:064}"), &"v".repeat(256)).unwrap();
        }
        let service = Service::parse(&"s".repeat(256)).unwrap();
        let label = Label { service, target: Target::parse(&"t".repeat(1024)).unwrap(), attributes };
        let mut bytes = vec![0; bucket(encoded_len(&label))];
        encode(&label, &mut bytes).unwrap();
        assert_eq!(decode(&bytes), Some(label));
        bytes.extend([0; 64]);
        assert_eq!(decode(&bytes), None, "more padding than its bucket");
    }
}
