//! Keys: the rules of AK, EK and device key, certification of one by another, and credentials for two.

use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::credential::{CredentialError, make_credential};
use assay_evidence::tpm::name::Name;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::public_key::PublicKey;
use assay_evidence::{Check, Failure};
use assay_testkit::software_device::EkKind;
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::software_device::{EndorsementKey, TpmKey};
use assay_testkit::{EkMaker, SoftwareDevice};

use crate::files::vector;

const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;

fn area(bytes: &[u8]) -> PublicArea {
    PublicArea::parse_tpm2b(bytes).unwrap()
}

fn claims(failures: &[Failure]) -> Vec<&str> {
    failures.iter().map(|failure| failure.claim.as_str()).collect()
}

#[test]
fn recorded_keys_keep_the_rules() {
    for (key, name) in [("ak", "ak.name"), ("ak-ecc", "ak-ecc.name"), ("ek", "ek.name")] {
        let area = area(&vector(&format!("tpm/sb-good-1/{key}.tpm2b_public")));
        let stated = vector(&format!("tpm/sb-good-1/{name}"));
        assert_eq!(area.name().as_bytes(), stated);
        assert_eq!(Name::from_bytes(&stated), Some(area.name()));
        let failures = if key == "ek" { area.check_ek() } else { area.check_ak() };
        assert_eq!(failures, [], "{key}");
    }
    let ak = area(&vector("tpm/sb-good-1/ak.tpm2b_public"));
    let ek = area(&vector("tpm/sb-good-1/ek.tpm2b_public"));
    assert_eq!(claims(&ak.check_ek()), ["decrypt", "sign", "symmetric cipher"]);
    assert_eq!(claims(&ek.check_ak()), ["sign", "decrypt", "signature scheme"]);
}

#[test]
fn each_attribute_of_an_ak_matters() {
    let check = |change: u32, expected: &[&str]| {
        let key = TpmKey::generate(ATTESTATION_KEY ^ change).unwrap();
        let failures = area(&key.public_area()).check_ak();
        assert_eq!(claims(&failures), expected);
        assert!(failures.iter().all(|failure| failure.check == Check::AkAttributes));
    };
    check(0, &[]);
    check(FIXED_TPM, &["fixedTPM"]);
    check(FIXED_PARENT, &["fixedParent"]);
    check(SENSITIVE_DATA_ORIGIN, &["sensitiveDataOrigin"]);
    check(RESTRICTED, &["restricted"]);
    check(SIGN, &["sign"]);
    check(DECRYPT, &["decrypt"]);
}

#[test]
fn each_attribute_of_a_device_key_matters() {
    let check = |change: u32, expected: &[&str]| {
        let key = TpmKey::generate(DEVICE_KEY ^ change).unwrap();
        assert_eq!(claims(&area(&key.public_area()).check_device_key()), expected);
    };
    check(0, &[]);
    check(FIXED_TPM, &["fixedTPM"]);
    check(FIXED_PARENT, &["fixedParent"]);
    check(SENSITIVE_DATA_ORIGIN, &["sensitiveDataOrigin"]);
    check(SIGN, &["sign"]);
    check(RESTRICTED, &["restricted"]);
    check(DECRYPT, &["decrypt"]);
}

#[test]
fn an_spki_is_what_other_software_makes_of_the_key() {
    let key = TpmKey::generate(DEVICE_KEY).unwrap();
    assert_eq!(area(&key.public_area()).spki_der(), key.spki());
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let ek = EndorsementKey::generate(kind).unwrap();
        assert_eq!(area(ek.public_area()).spki_der(), ek.spki());
    }
}

/// A device, and how its AK's certification of `key` is judged when `change` altered it before it was signed.
fn certify(key: &TpmKey, change: impl Fn(&mut Certifying)) -> Vec<Failure> {
    let device = device();
    let nonce = [9; 32];
    let mut certifying = Certifying::honest(&device, &nonce);
    certifying.name = key.name();
    change(&mut certifying);
    let signed = certifying.sign(&device.ak).unwrap();
    let ak = area(&device.ak.public_area());
    let key_area = area(&key.public_area());
    match verify_certify(&ak, &signed.message, &signed.signature, &nonce, &key_area) {
        Ok(certified) => {
            assert_eq!((certified.public_area(), certified.spki_der()), (&key_area, &*key.spki()));
            vec![]
        }
        Err(failures) => failures,
    }
}

fn device() -> SoftwareDevice {
    SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap()
}

#[test]
fn a_certification_holds_for_one_key_and_one_nonce() {
    let key = TpmKey::generate(DEVICE_KEY).unwrap();
    let check = |expected: &[&str], change: &dyn Fn(&mut Certifying)| {
        let failures = certify(&key, change);
        assert_eq!(claims(&failures), expected);
        assert!(failures.iter().all(|failure| failure.check == Check::DeviceKeyCertify));
    };
    check(&[], &|_| {});
    check(&["magic"], &|certifying| certifying.magic ^= 1);
    check(&["nonce"], &|certifying| certifying.nonce = vec![8; 32]);
    check(&["nonce"], &|certifying| certifying.nonce.clear());
    check(&["name"], &|certifying| *certifying.name.last_mut().unwrap() ^= 1);
    // TPM_ST_ATTEST_TIME, and a quote's type over a certification's body.
    check(&["type"], &|certifying| certifying.kind = 0x8019);
    check(&["certify info"], &|certifying| certifying.kind = 0x8018);
}

#[test]
fn a_certification_by_another_key_or_of_a_restricted_key_does_not_hold() {
    let key = TpmKey::generate(DEVICE_KEY | RESTRICTED).unwrap();
    assert_eq!(claims(&certify(&key, |_| {})), ["restricted"]);

    let device = device();
    let (ak, key) = (area(&device.ak.public_area()), area(&device.device_key.public_area()));
    let signed = Certifying::honest(&device, &[9]).sign(&device.device_key).unwrap();
    let failures = verify_certify(&ak, &signed.message, &signed.signature, &[9], &key).unwrap_err();
    assert_eq!(claims(&failures), ["signature"]);
    let failures = verify_certify(&ak, &[], &[], &[9], &key).unwrap_err();
    assert_eq!(claims(&failures), ["signature", "certify info"]);
}

#[test]
fn a_credential_opens_for_its_ek_and_ak_alone() {
    let secret = [0x5a; 32];
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let (ek, other_ek) =
            (EndorsementKey::generate(kind).unwrap(), EndorsementKey::generate(kind).unwrap());
        let ak = TpmKey::generate(ATTESTATION_KEY).unwrap();
        let name = area(&ak.public_area()).name();
        let credential = make_credential(&area(ek.public_area()), &name, &secret).unwrap();
        let open = |ek: &EndorsementKey, name: &[u8]| {
            ek.activate(name, &credential.blob, &credential.encrypted_secret).ok()
        };
        assert_eq!(open(&ek, name.as_bytes()).as_deref(), Some(&secret[..]), "{kind:?}");
        let other = TpmKey::generate(ATTESTATION_KEY).unwrap();
        assert_eq!(open(&ek, &other.name()), None, "{kind:?}");
        assert_eq!(open(&other_ek, name.as_bytes()), None, "{kind:?}");
        // Two credentials for the same secret have nothing in common.
        let again = make_credential(&area(ek.public_area()), &name, &secret).unwrap();
        assert_ne!(again.blob, credential.blob);
        assert_ne!(again.encrypted_secret, credential.encrypted_secret);
    }
}

#[test]
fn a_credential_is_made_only_where_it_makes_sense() {
    let ek = area(EndorsementKey::generate(EkKind::P256).unwrap().public_area());
    let name = ek.name();
    let size = |found| Err(CredentialError::SecretSize { found, max: 32 });
    assert_eq!(make_credential(&ek, &name, &[]), size(0));
    assert_eq!(make_credential(&ek, &name, &[0; 33]), size(33));
    let ak = area(&TpmKey::generate(ATTESTATION_KEY).unwrap().public_area());
    assert_eq!(make_credential(&ak, &name, &[0; 32]), Err(CredentialError::Cipher));
    // A point that is not on its curve.
    let mut bytes = EndorsementKey::generate(EkKind::P256).unwrap().public_area().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let off_curve = area(&bytes);
    assert!(matches!(off_curve.key(), PublicKey::EcP256 { .. }));
    assert_eq!(make_credential(&off_curve, &name, &[0; 32]), Err(CredentialError::Key));
}
