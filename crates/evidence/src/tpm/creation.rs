//! TPM2_CertifyCreation by the key that was made: its TPM's word on how.

use super::attest::{Attest, Body};
use super::public_area::PublicArea;
use super::signature::Signature;
use crate::check::{Check, Failure};

/// What is wrong with `message` as `ak`'s own certification of how it was made (TPM 2.0 Part 3, TPM2_CertifyCreation).
///
/// It has no nonce and may be of any time, and whoever has the key in memory makes one as well: that the key is in a TPM, and
/// in which, is for credential activation to show.
pub fn verify_creation(ak: &PublicArea, data: &[u8], message: &[u8], signature: &[u8]) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut fail = |claim: &str, expected: String, found: String| {
        failures.push(Failure::new(Check::AkName, claim, expected, found));
    };
    match Signature::parse(signature) {
        Ok(signature) => {
            if let Err(error) = ak.verify(&signature, message) {
                fail("signature", format!("a signature by the key {}", ak.name()), error.to_string());
            }
        }
        Err(error) => fail("signature", "a TPMT_SIGNATURE".to_owned(), error.to_string()),
    }
    match Attest::parse(message) {
        Ok(attest) => check_attest(&attest, ak, data, &mut fail),
        Err(error) => fail("creation info", "a TPMS_ATTEST".to_owned(), error.to_string()),
    }
    failures
}

fn check_attest(attest: &Attest, ak: &PublicArea, data: &[u8], fail: &mut impl FnMut(&str, String, String)) {
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    if attest.magic != Attest::MAGIC {
        fail("magic", format!("{:#010x}", Attest::MAGIC), format!("{:#010x}", attest.magic));
    }
    let Body::Creation { name, creation_hash } = &attest.body else {
        return fail(
            "type",
            format!("{:#06x}", Attest::TYPE_CREATION),
            format!("{:#06x}", attest.attest_type),
        );
    };
    if name != ak.name().as_bytes() {
        fail("name", ak.name().to_hex(), hex(name));
    }
    // Part 3, TPM2_Create: the hash is the object's nameAlg over TPMS_CREATION_DATA.
    let expected = ak.name_algorithm().hash(&[data]);
    if creation_hash != expected.as_bytes() {
        fail("creation hash", expected.to_hex(), hex(creation_hash));
    }
}

#[cfg(test)]
mod tests {
    use assay_testkit::software_device::TpmKey;
    use assay_testkit::software_device::key::ATTESTATION_KEY;

    use super::*;
    use crate::digest::HashAlgorithm;

    fn statement(magic: u32, kind: u16, name: &[u8], data: &[u8]) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
        let mut bytes = [&magic.to_be_bytes()[..], &kind.to_be_bytes(), &[0, 0, 0, 0]].concat();
        bytes.extend([0; 8]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([0; 8]);
        bytes.extend(sized(name));
        bytes.extend(sized(HashAlgorithm::Sha256.hash(&[data]).as_bytes()));
        bytes
    }

    #[test]
    fn each_part_of_the_word_on_how_a_key_was_made_counts() {
        let (key, other) =
            (TpmKey::generate(ATTESTATION_KEY).unwrap(), TpmKey::generate(ATTESTATION_KEY).unwrap());
        let ak = PublicArea::parse_tpm2b(&key.public_area()).unwrap();
        let claims = |message: &[u8], signer: &TpmKey, data: &[u8]| {
            let failures = verify_creation(&ak, data, message, &signer.sign(message).unwrap());
            failures.into_iter().map(|failure| failure.claim).collect::<Vec<_>>()
        };
        let good = statement(Attest::MAGIC, Attest::TYPE_CREATION, &key.name(), b"data");
        assert_eq!(claims(&good, &key, b"data"), Vec::<String>::new());
        assert_eq!(claims(&good, &other, b"data"), ["signature"]);
        assert_eq!(claims(&good, &key, b"other"), ["creation hash"]);
        let magic = statement(1, Attest::TYPE_CREATION, &key.name(), b"data");
        assert_eq!(claims(&magic, &key, b"data"), ["magic"]);
        let name = statement(Attest::MAGIC, Attest::TYPE_CREATION, &other.name(), b"data");
        assert_eq!(claims(&name, &key, b"data"), ["name"]);
        let kind = statement(Attest::MAGIC, Attest::TYPE_CERTIFY, &key.name(), b"data");
        assert_eq!(claims(&kind, &key, b"data"), ["type"]);
        assert_eq!(claims(&good[..9], &key, b"data"), ["creation info"]);
        assert_eq!(verify_creation(&ak, b"data", &good, &[0; 4]).len(), 1);
    }
}
