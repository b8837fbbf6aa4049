//! IDevID and IAK in a real TPM: shown as they are, and the IAK vouches for the agent's AK.

use assay_agent::tpm::identity::{CertificateSource, Identity, IdentityConfig, IdentityError};
use assay_agent::tpm::keys::Keys;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{Endorsers, TrustAnchor};
use assay_evidence::tpm::idevid::{ShownIdentity, verify_device_identity, verify_iak_binding};
use assay_evidence::{Check, tpm::public_area::PublicArea};
use assay_testkit::EkMaker;
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};

use crate::bench::Bench;

const IAK: u32 = 0x8101_0020;
const IDEVID: u32 = 0x8101_0021;
const NONCE: [u8; 32] = [7; 32];

/// What a device's maker does: two keys in the TPM, and their certificates in files.
fn provisioned(bench: &Bench, maker: &EkMaker) -> IdentityConfig {
    let mut tpm = bench.soft.connect().unwrap();
    let iak = tpm.persist_signing_key(ATTESTATION_KEY, IAK).unwrap();
    let idevid = tpm.persist_signing_key(DEVICE_KEY, IDEVID).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(bench.path(name), bytes).unwrap();
        CertificateSource::File(bench.path(name))
    };
    let pem = |der: &[u8]| {
        let body = data_encoding::BASE64.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    IdentityConfig {
        iak: IAK,
        iak_certificate: file("iak.der", &maker.certify_identity(&iak.spki, "7", true).unwrap()),
        idevid: IDEVID,
        idevid_certificate: file(
            "idevid.pem",
            pem(&maker.certify_identity(&idevid.spki, "7", false).unwrap()).as_bytes(),
        ),
        intermediates: vec![file("ca.pem", pem(maker.issuing_ca()).as_bytes())],
    }
}

#[test]
fn swtpm_identity_is_shown_and_vouches_for_the_ak() {
    let (bench, maker) = (Bench::new(), EkMaker::new().unwrap());
    let config = provisioned(&bench, &maker);
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    let identity = Identity::load(&tpm, &config).unwrap();
    let intermediates: Vec<&[u8]> = identity.intermediates.iter().map(Vec::as_slice).collect();
    let shown = ShownIdentity {
        iak_public: &identity.iak_public,
        iak_certificate: &identity.iak_certificate,
        idevid_public: &identity.idevid_public,
        idevid_certificate: &identity.idevid_certificate,
        intermediates: &intermediates,
    };
    let endorsers = Endorsers::new(TrustAnchor::from_pem_or_der(maker.root_ca()).unwrap(), Vec::new());
    let verified = verify_device_identity(&shown, &endorsers, UnixTime(1_800_000_000)).unwrap();
    assert_eq!(verified.serial(), "7");

    let (message, signature) = identity.certify(&keys.ak, &NONCE).unwrap();
    let bind = |key: &[u8], nonce: &[u8]| {
        let key = PublicArea::parse_tpm2b(key).unwrap();
        verify_iak_binding(&identity.iak_public, &key, &message, &signature, nonce)
    };
    assert_eq!(bind(keys.ak.public(), &NONCE), []);
    assert_eq!(bind(keys.device.public(), &NONCE)[0].check, Check::IakCertify);
    assert_eq!(bind(keys.ak.public(), &[8; 32])[0].check, Check::IakCertify);
}

#[test]
fn swtpm_without_the_identity_says_what_is_missing() {
    let (bench, maker) = (Bench::new(), EkMaker::new().unwrap());
    let good = provisioned(&bench, &maker);
    let tpm = bench.open();
    let error = |change: &dyn Fn(&mut IdentityConfig)| {
        let mut config = good.clone();
        change(&mut config);
        Identity::load(&tpm, &config).unwrap_err()
    };
    let missing = error(&|config| config.iak = 0x8101_0030);
    assert!(matches!(missing, IdentityError::NoKey { name: "iak", handle: 0x8101_0030 }), "{missing}");
    let missing = error(&|config| config.iak_certificate = CertificateSource::NvIndex(0x01c9_0003));
    assert!(matches!(missing, IdentityError::NoCertificateInTpm { index: 0x01c9_0003 }), "{missing}");
    let missing = error(&|config| config.iak_certificate = CertificateSource::File(bench.path("no")));
    assert!(matches!(missing, IdentityError::File { .. }), "{missing}");
    std::fs::write(bench.path("text"), "no certificate").unwrap();
    let missing = error(&|config| config.iak_certificate = CertificateSource::File(bench.path("text")));
    assert!(matches!(missing, IdentityError::NoCertificate { .. }), "{missing}");
    // Certificates that the TPM came with are read from where they are.
    let config = IdentityConfig { iak_certificate: CertificateSource::NvIndex(0x01c0_0002), ..good.clone() };
    assert_eq!(Identity::load(&tpm, &config).unwrap().iak_certificate.first(), Some(&0x30));
}

#[test]
fn a_configuration_says_where_the_identity_is() {
    let text = "iak = 0x81010020\niak_certificate = 0x01c90003\nidevid = 0x81010021\nidevid_certificate = \"idevid.pem\"";
    let config: IdentityConfig = toml::from_str(text).unwrap();
    assert_eq!((config.iak, config.iak_certificate), (IAK, CertificateSource::NvIndex(0x01c9_0003)));
    assert_eq!(config.idevid_certificate, CertificateSource::File("idevid.pem".into()));
    assert!(toml::from_str::<IdentityConfig>(&format!("{text}\npassword = \"x\"")).is_err());
}
