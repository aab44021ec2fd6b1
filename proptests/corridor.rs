//! Random transcripts of several clients: every reply is the model's.

use arbitrary::{Arbitrary, Unstructured};
use proptest::{collection::vec, prelude::*};

use crate::laws::{corridor, script};

proptest! {
    #![proptest_config(crate::config(512))]

    #[test]
    fn every_reply_is_the_models(choices in vec(any::<u8>(), 0..800)) {
        let script = script::Script::arbitrary(&mut Unstructured::new(&choices)).unwrap();
        corridor::hold(&script.render());
    }

    #[test]
    fn a_mutated_transcript_breaks_nothing(
        choices in vec(any::<u8>(), 0..400), noise in vec(vec(any::<u8>(), 1..64), 1..6),
    ) {
        let script = script::Script::arbitrary(&mut Unstructured::new(&choices)).unwrap();
        let mut transcript = script.render();
        for noise in &noise {
            transcript = script::mutate(&transcript, noise).unwrap();
        }
        corridor::hold(&transcript);
    }
}
