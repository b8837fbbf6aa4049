//! IDevID and IAK: an honest device's are believed, and each thing wrong with them is its own failure.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, ListStanding, TrustAnchor};
use assay_evidence::tpm::idevid::{
    DeviceIdentity, ShownIdentity, verify_device_identity, verify_iak_binding,
};
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::revocation::RevocationList;
use assay_evidence::{Check, Failure, HashAlgorithm};
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::software_device::quote::{ATTEST_QUOTE, Certifying, Signed};
use assay_testkit::software_device::{EkMaker, MakersIdentity, TpmKey};
use assay_testkit::{SoftwareDevice, tamper};
use proptest::prelude::*;

const AT: UnixTime = UnixTime(1_800_000_000);
const SERIAL: &str = "id:00001014.0a1b.42";
const NONCE: [u8; 32] = [9; 32];

/// A maker that is trusted, and what a device shows of the identity it got there.
struct Stage {
    maker: EkMaker,
    shown: MakersIdentity,
    lists: Vec<Vec<u8>>,
}

impl Stage {
    fn new() -> Stage {
        let maker = EkMaker::new().unwrap();
        Stage { shown: maker.identity(SERIAL).unwrap(), maker, lists: Vec::new() }
    }

    fn verify(&self) -> Result<DeviceIdentity, Vec<Failure>> {
        self.verify_keys(&self.shown.iak.public_area(), &self.shown.idevid.public_area())
    }

    fn verify_keys(&self, iak: &[u8], idevid: &[u8]) -> Result<DeviceIdentity, Vec<Failure>> {
        let anchors = TrustAnchor::from_pem_or_der(self.maker.root_ca()).unwrap();
        let lists = self.lists.iter().flat_map(|list| RevocationList::from_pem_or_der(list).unwrap());
        let intermediates: Vec<&[u8]> = self.shown.intermediates.iter().map(Vec::as_slice).collect();
        let shown = ShownIdentity {
            iak_public: iak,
            iak_certificate: &self.shown.iak_certificate,
            idevid_public: idevid,
            idevid_certificate: &self.shown.idevid_certificate,
            intermediates: &intermediates,
        };
        verify_device_identity(&shown, &Endorsers::new(anchors, lists.collect()), AT)
    }
}

fn check(expected: &[(Check, &str)], change: impl FnOnce(&mut Stage)) {
    let mut stage = Stage::new();
    change(&mut stage);
    let failures = stage.verify().err().unwrap_or_default();
    let found: Vec<_> = failures.iter().map(|failure| (failure.check, failure.claim.as_str())).collect();
    assert_eq!(found, expected, "{failures:?}");
}

#[test]
fn an_honest_identity_is_believed() {
    let stage = Stage::new();
    let identity = stage.verify().unwrap();
    assert_eq!((identity.serial(), identity.issuer()), (SERIAL, "CN=Example TPM EK CA"));
    let sha256 = |der: &[u8]| HashAlgorithm::Sha256.hash(&[der]);
    assert_eq!(identity.iak_certificate_sha256(), sha256(&stage.shown.iak_certificate));
    assert_eq!(identity.idevid_certificate_sha256(), sha256(&stage.shown.idevid_certificate));
    assert!(identity.revocation_lists().iter().all(|known| known.list == ListStanding::Missing));
}

#[test]
fn each_rule_of_an_identity_matters() {
    use Check::{IdevidCertificate, IdevidChain, IdevidKey, IdevidRevoked};
    check(&[], |_| {});
    // Nothing at all, and bytes that are no certificate.
    check(&[(IdevidChain, "IAK")], |stage| stage.shown.iak_certificate.clear());
    check(&[(IdevidChain, "IDevID")], |stage| stage.shown.idevid_certificate.truncate(100));
    // Another maker's, and a link left out.
    let chain = |change: fn(&mut Stage)| {
        let mut stage = Stage::new();
        change(&mut stage);
        let failures = stage.verify().unwrap_err();
        let checks: Vec<Check> = failures.iter().map(|failure| failure.check).collect();
        checks
    };
    assert_eq!(chain(|stage| stage.shown.intermediates.clear()), [IdevidChain; 2]);
    assert_eq!(chain(|stage| stage.maker = EkMaker::new().unwrap()), [IdevidChain; 2]);
    assert_eq!(chain(|stage| stage.lists.push(stage.maker.revoke_issuing_ca().unwrap())), [IdevidRevoked; 2]);
    // A certificate of another key, a key for another use, and the two swapped.
    check(&[(IdevidKey, "IAK")], |stage| stage.shown.iak = TpmKey::generate(ATTESTATION_KEY).unwrap());
    check(&[(IdevidKey, "IDevID")], |stage| stage.shown.idevid = TpmKey::generate(DEVICE_KEY).unwrap());
    check(&[(IdevidKey, "IAK restricted")], |stage| {
        let unrestricted = TpmKey::generate(DEVICE_KEY).unwrap();
        stage.shown.iak_certificate =
            stage.maker.certify_identity(&unrestricted.spki(), SERIAL, true).unwrap();
        stage.shown.iak = unrestricted;
    });
    check(&[(IdevidKey, "IDevID restricted")], |stage| {
        let restricted = TpmKey::generate(ATTESTATION_KEY).unwrap();
        stage.shown.idevid_certificate =
            stage.maker.certify_identity(&restricted.spki(), SERIAL, false).unwrap();
        stage.shown.idevid = restricted;
    });
    // FIXED without fixedTPM: a key that could be anywhere.
    check(&[(IdevidKey, "IAK fixedTPM")], |stage| {
        let movable = TpmKey::generate(ATTESTATION_KEY & !2).unwrap();
        stage.shown.iak_certificate = stage.maker.certify_identity(&movable.spki(), SERIAL, true).unwrap();
        stage.shown.iak = movable;
    });
    // The IDevID of another device beside the IAK of one's own.
    check(&[(IdevidCertificate, "IDevID serial number")], |stage| {
        let other = stage.maker.identity("id:00001014.0a1b.43").unwrap();
        (stage.shown.idevid, stage.shown.idevid_certificate) = (other.idevid, other.idevid_certificate);
    });
    // An EK's certificate is of the same maker, and for another use.
    let failures = chain(|stage| {
        let device = SoftwareDevice::new("device", &stage.maker).unwrap();
        stage.shown.idevid_certificate = device.ek_certificate;
    });
    assert_eq!(failures, [IdevidKey, IdevidCertificate, IdevidCertificate]);
}

#[test]
fn the_hardware_type_is_a_tpms() {
    // The last arc of 2.23.133.1.2, in a certificate that is signed anew would be wrong in that alone; one that is not
    // is not signed by its authority either.
    let mut stage = Stage::new();
    let certificate = &mut stage.shown.idevid_certificate;
    let kind = [0x67, 0x81, 0x05, 0x01, 0x02];
    let at = certificate.windows(kind.len()).position(|window| window == kind).unwrap();
    certificate[at + 4] = 3;
    let checks: Vec<Check> = stage.verify().unwrap_err().iter().map(|failure| failure.check).collect();
    assert_eq!(checks, [Check::IdevidCertificate, Check::IdevidChain]);
}

#[test]
fn certificates_expire() {
    let stage = Stage::new();
    let identity = stage.verify().unwrap();
    assert_eq!(identity.valid_until(), UnixTime::from_rfc3339("2120-01-01T00:00:00Z").unwrap());
    let anchors = TrustAnchor::from_pem_or_der(stage.maker.root_ca()).unwrap();
    let shown = ShownIdentity {
        iak_public: &stage.shown.iak.public_area(),
        iak_certificate: &stage.shown.iak_certificate,
        idevid_public: &stage.shown.idevid.public_area(),
        idevid_certificate: &stage.shown.idevid_certificate,
        intermediates: &[stage.maker.issuing_ca()],
    };
    let later = identity.valid_until().plus(1);
    let failures = verify_device_identity(&shown, &Endorsers::new(anchors, Vec::new()), later).unwrap_err();
    // Two keys, and of each the certificate, the issuing CA and the root.
    let checks: Vec<Check> = failures.iter().map(|failure| failure.check).collect();
    assert_eq!(checks, [Check::IdevidValidity; 6]);
}

/// The binding that a device makes, after a change.
fn binding(
    change: impl FnOnce(&SoftwareDevice, &mut Certifying),
    signed: impl FnOnce(&mut Signed),
) -> Vec<Check> {
    let maker = EkMaker::new().unwrap();
    let device = SoftwareDevice::new("device", &maker).unwrap();
    let iak = TpmKey::generate(ATTESTATION_KEY).unwrap();
    let mut certifying = Certifying::of_ak(&device, &NONCE);
    change(&device, &mut certifying);
    let mut by_iak = certifying.sign(&iak).unwrap();
    signed(&mut by_iak);
    let ak = PublicArea::parse_tpm2b(&device.ak.public_area()).unwrap();
    let failures = verify_iak_binding(&iak.public_area(), &ak, &by_iak.message, &by_iak.signature, &NONCE);
    failures.iter().map(|failure| failure.check).collect()
}

#[test]
fn each_lie_about_the_binding_is_caught() {
    let certify = [Check::IakCertify];
    assert_eq!(binding(|_, _| {}, |_| {}), []);
    assert_eq!(binding(|_, certifying| certifying.nonce = vec![8; 32], |_| {}), certify);
    assert_eq!(binding(|_, certifying| certifying.magic ^= 1, |_| {}), certify);
    assert_eq!(binding(|_, certifying| certifying.kind = ATTEST_QUOTE, |_| {}), certify);
    // The device key's certification is no certification of the AK.
    assert_eq!(binding(|device, certifying| certifying.name = device.device_key.name(), |_| {}), certify);
    assert_eq!(binding(|_, _| {}, |signed| tamper::flip_bit(&mut signed.signature, 200)), certify);
    assert_eq!(binding(|_, _| {}, |signed| signed.message.truncate(40)), [Check::IakCertify; 2]);
    assert_eq!(binding(|_, _| {}, |signed| *signed = Signed::default()), [Check::IakCertify; 2]);
}

#[test]
fn an_unrestricted_iak_binds_nothing() {
    let device = SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap();
    let iak = TpmKey::generate(DEVICE_KEY).unwrap();
    let ak = PublicArea::parse_tpm2b(&device.ak.public_area()).unwrap();
    let signed = Certifying::of_ak(&device, &NONCE).sign(&iak).unwrap();
    let failures = verify_iak_binding(&iak.public_area(), &ak, &signed.message, &signed.signature, &NONCE);
    assert_eq!(failures.iter().map(|failure| failure.check).collect::<Vec<_>>(), [Check::IdevidKey]);
    let failures = verify_iak_binding(&[1, 2], &ak, &signed.message, &signed.signature, &NONCE);
    assert_eq!(failures[0].check, Check::IdevidKey);
}

proptest! {
    #[test]
    fn no_changed_identity_is_believed(position in 0usize..2000, value in any::<u8>(), of_iak in any::<bool>()) {
        let mut stage = Stage::new();
        let certificate = match of_iak {
            true => &mut stage.shown.iak_certificate,
            false => &mut stage.shown.idevid_certificate,
        };
        let position = position % certificate.len();
        let same = certificate[position] == value;
        certificate[position] = value;
        prop_assert_eq!(stage.verify().is_ok(), same);
    }
}
