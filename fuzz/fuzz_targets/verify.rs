//! All of verification, one piece of the evidence hostile. A boot log that is known changes nothing that is found.
#![no_main]

use std::sync::{Arc, LazyLock};

use assay_evidence::boot_log::BootClaims;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, KnownBootLog, QuoteEvidence, verify};
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 8);
    let pick = |of: u8, good: &'static [u8]| if number == of { bytes } else { good };
    let ak_public = pick(0, vector!("tpm/sb-good-1/ak.tpm2b_public"));
    let message = pick(1, vector!("tpm/sb-good-1/quote.msg"));
    let signature = pick(2, vector!("tpm/sb-good-1/quote.sig"));
    let pcrs = pick(3, vector!("tpm/sb-good-1/quote.pcrs"));
    let nonce = pick(4, b"no nonce");
    let boot_log = pick(5, vector!("tpm/sb-good-1/binary_bios_measurements"));
    let ima_log = match number {
        6 => ImaLog::Ascii(bytes),
        _ => ImaLog::Binary(pick(7, vector!("tpm/sb-good-1/binary_runtime_measurements"))),
    };
    let (_, pcrs) = PcrValues::from_tpm2_tools(pcrs).unwrap_or_default();
    let quote = QuoteEvidence { label: "quote", message, signature, pcrs, nonce, ak_public: None };
    let evidence = Evidence {
        ak_public,
        quotes: vec![quote],
        boot_log: Some(boot_log),
        measure_log: None,
        ima_log: Some(ima_log),
        ima_from_entry: 0,
        banks: None,
    };
    let verification = verify(&evidence, &Expectation::default());
    let known_boot_log = Some(KnownBootLog::find(boot_log, |_| Some(KNOWN.clone())));
    let aided = verify(&evidence, &Expectation { known_boot_log, ..Expectation::default() });
    assert_eq!((aided.failures, aided.notes), (verification.failures.clone(), verification.notes));
    assert!(verification.claims.is_none(), "the quote answers another nonce");
    assert!(!verification.failures.is_empty(), "no claims, and no reason");
});

/// What the vector's boot log says.
static KNOWN: LazyLock<Arc<BootClaims>> = LazyLock::new(|| {
    let (_, pcrs) = PcrValues::from_tpm2_tools(vector!("tpm/sb-good-1/quote.pcrs")).expect("PCR values");
    let hex = vector!("tpm/sb-good-1/quote.nonce").trim_ascii();
    let nonce: Vec<u8> = hex
        .chunks(2)
        .map(|byte| u8::from_str_radix(str::from_utf8(byte).expect("text"), 16).expect("hex"))
        .collect();
    let quote = QuoteEvidence {
        label: "quote",
        message: vector!("tpm/sb-good-1/quote.msg"),
        signature: vector!("tpm/sb-good-1/quote.sig"),
        pcrs,
        nonce: &nonce,
        ak_public: None,
    };
    let evidence = Evidence {
        ak_public: vector!("tpm/sb-good-1/ak.tpm2b_public"),
        quotes: vec![quote],
        boot_log: Some(vector!("tpm/sb-good-1/binary_bios_measurements")),
        measure_log: None,
        ima_log: None,
        ima_from_entry: 0,
        banks: None,
    };
    let claims = verify(&evidence, &Expectation::default()).claims.expect("a good case");
    claims.boot().expect("a boot log").clone()
});
