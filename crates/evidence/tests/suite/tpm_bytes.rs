//! No bytes make a TPM parser panic: not any, and not real ones with something changed.

use assay_evidence::read::Reader;
use assay_evidence::tpm::attest::Attest;
use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::pcr::{PcrSelection, PcrValues};
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::quote::{Quote, verify_quote};
use assay_evidence::tpm::signature::Signature;
use proptest::prelude::*;

use crate::case::Case;
use crate::files::vector;

fn parse_as_everything(bytes: &[u8]) {
    let _ = Attest::parse(bytes);
    let _ = Signature::parse(bytes);
    let _ = PcrSelection::parse(&mut Reader::new(bytes));
    let _ = PcrValues::from_tpm2_tools(bytes);
    let _ = PublicArea::parse_tpm2b(bytes);
    if let Ok(area) = PublicArea::parse(bytes) {
        let _ = (area.check_ak(), area.check_ek(), area.check_device_key(), area.spki_der(), area.name());
        let _ = verify_certify(&area, bytes, bytes, bytes, &area);
    }
}

/// Real bytes, with a run of them replaced, or cut.
fn changed(real: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = real.len();
    (0..length, prop::collection::vec(any::<u8>(), 0..6), any::<bool>()).prop_map(move |(at, bytes, cut)| {
        let mut copy = real.clone();
        if cut {
            copy.truncate(at);
        }
        for (to, from) in copy.iter_mut().skip(at).zip(bytes) {
            *to = from;
        }
        copy
    })
}

fn real() -> impl Strategy<Value = Vec<u8>> {
    let files = [
        "quote.msg",
        "quote.sig",
        "quote.pcrs",
        "quote-ecc.sig",
        "quote-multibank.pcrs",
        "ak.tpm2b_public",
        "ak-ecc.tpm2b_public",
        "ek.tpm2b_public",
    ];
    let files: Vec<Vec<u8>> = files.iter().map(|file| vector(&format!("tpm/sb-good-1/{file}"))).collect();
    prop::sample::select(files).prop_flat_map(changed)
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..1300)) {
        parse_as_everything(&bytes);
    }

    #[test]
    fn changed_real_bytes(bytes in real()) {
        parse_as_everything(&bytes);
        parse_as_everything(bytes.get(2..).unwrap_or_default());
    }

    #[test]
    fn no_changed_quote_is_believed(position in 0usize..145, value in any::<u8>()) {
        let mut case = Case::vector("sb-good-1").quote_only();
        let ak = PublicArea::parse_tpm2b(&case.ak_public).unwrap();
        let quote = case.quote();
        let same = quote.message[position] == value;
        quote.message[position] = value;
        let (verified, failures) = verify_quote(
            &Quote {
                label: "quote",
                message: &quote.message,
                signature: &quote.signature,
                pcrs: &quote.pcrs,
                nonce: &quote.nonce,
            },
            &ak,
        );
        prop_assert_eq!(verified.is_some(), same);
        prop_assert_eq!(failures.is_empty(), same);
    }

    #[test]
    fn parsing_keeps_every_byte_of_a_public_area(bytes in real()) {
        if let Ok(area) = PublicArea::parse_tpm2b(&bytes) {
            prop_assert_eq!(Some(area.raw()), bytes.get(2..));
        }
    }
}
