//! A key that may sign files, and a file signature.
#![no_main]

use assay_evidence::HashAlgorithm;
use assay_evidence::ima::{FileSignature, SigningKey};
use assay_fuzz::{part, vector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 2);
    let digest = HashAlgorithm::Sha256.hash(&[b"a file"]);
    let certificate = if number == 0 { bytes } else { vector!("ima/ima-sig/signing-cert.pem") };
    let signature = if number == 1 { bytes } else { b"\x03\x02\x04\x05\x78\xb4\x29\x00\x02ab" };
    let key = SigningKey::from_certificate_or_spki(certificate);
    if let (Ok(key), Some(signature)) = (key, FileSignature::parse(signature)) {
        assert!(!key.verify_digest(&signature, &digest), "nobody signed this file");
    }
});
