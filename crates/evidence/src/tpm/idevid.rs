//! IDevID and IAK: the identity that a device's maker gave it, and the attestation key that belongs to it.
//!
//! TCG, TPM 2.0 Keys for Device Identity and Attestation: two keys in the TPM, each with a certificate that names the
//! TPM by one serial number. The certificates say whose keys they are; that the device has them, the IAK shows by
//! certifying the AK ([`verify_iak_binding`]). Being in one TPM is then the word of whoever issued both certificates.

use super::certificate::{Certificate, HardwareModule};
use super::certify::check_certification;
use super::endorsers::{Endorsers, IssuerList};
use super::path::{PathChecks, verify_path};
use super::public_area::PublicArea;
use crate::check::{Check, Failure};
use crate::digest::Digest;
use crate::time::UnixTime;

/// What a device shows of its identity.
#[derive(Clone, Copy, Debug)]
pub struct ShownIdentity<'a> {
    /// TPM2B_PUBLIC of the IAK.
    pub iak_public: &'a [u8],
    /// The IAK's certificate, DER.
    pub iak_certificate: &'a [u8],
    /// TPM2B_PUBLIC of the IDevID.
    pub idevid_public: &'a [u8],
    /// The IDevID's certificate, DER.
    pub idevid_certificate: &'a [u8],
    /// Certificates between those and the anchors, DER.
    pub intermediates: &'a [&'a [u8]],
}

/// A verified identity. Made by [`verify_device_identity`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceIdentity {
    serial: String,
    issuer: String,
    iak_sha256: Digest,
    idevid_sha256: Digest,
    valid_until: UnixTime,
    lists: Vec<IssuerList>,
}

impl DeviceIdentity {
    /// The TPM's serial number by the IDevID certificate (hwSerialNum): as text where it is such, else in hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Who issued the IDevID certificate, for people.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// SHA-256 over the IAK certificate.
    pub fn iak_certificate_sha256(&self) -> Digest {
        self.iak_sha256
    }

    /// SHA-256 over the IDevID certificate.
    pub fn idevid_certificate_sha256(&self) -> Digest {
        self.idevid_sha256
    }

    /// When the first certificate of either path expires.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// What is known of the revocation of their paths, by the authorities in them; a policy weighs it.
    pub fn revocation_lists(&self) -> &[IssuerList] {
        &self.lists
    }
}

/// Verifies keys and certificates at a time; every check that does not hold is in the error.
pub fn verify_device_identity(
    shown: &ShownIdentity<'_>,
    endorsers: &Endorsers,
    at: UnixTime,
) -> Result<DeviceIdentity, Vec<Failure>> {
    let mut failures = Vec::new();
    let iak = Shown { label: "IAK", public: shown.iak_public, certificate: shown.iak_certificate };
    let idevid =
        Shown { label: "IDevID", public: shown.idevid_public, certificate: shown.idevid_certificate };
    let mut take =
        |verified: Result<Verified, Vec<Failure>>| verified.map_err(|found| failures.extend(found)).ok();
    let iak = take(iak.verify(PublicArea::check_attestation_key, shown.intermediates, endorsers, at));
    let idevid = take(idevid.verify(PublicArea::check_signing_key, shown.intermediates, endorsers, at));
    let (Some(iak), Some(idevid)) = (iak, idevid) else { return Err(failures) };
    if iak.module != idevid.module {
        // Else the IDevID of any device could be shown beside the IAK of one's own.
        let (expected, found) = (iak.module.title(), idevid.module.title());
        return Err(vec![Failure::new(Check::IdevidCertificate, "IDevID serial number", expected, found)]);
    }
    Ok(DeviceIdentity {
        serial: idevid.module.title(),
        issuer: idevid.issuer,
        iak_sha256: iak.sha256,
        idevid_sha256: idevid.sha256,
        valid_until: iak.valid_until.min(idevid.valid_until),
        lists: [iak.lists, idevid.lists].concat(),
    })
}

/// What is wrong with `message` as the IAK's certification of `ak`, made for `nonce`.
pub fn verify_iak_binding(
    iak_public: &[u8],
    ak: &PublicArea,
    message: &[u8],
    signature: &[u8],
    nonce: &[u8],
) -> Vec<Failure> {
    match PublicArea::parse_tpm2b(iak_public) {
        // An unrestricted key would sign a forged TPMS_ATTEST handed to it as plain data.
        Ok(iak) => [
            iak.check_attestation_key(Check::IdevidKey),
            check_certification(Check::IakCertify, &iak, message, signature, nonce, ak),
        ]
        .concat(),
        Err(error) => vec![Failure::new(Check::IdevidKey, "IAK", "a TPM2B_PUBLIC", error.to_string())],
    }
}

/// One key and its certificate.
struct Shown<'a> {
    label: &'static str,
    public: &'a [u8],
    certificate: &'a [u8],
}

struct Verified {
    module: HardwareModule,
    issuer: String,
    sha256: Digest,
    valid_until: UnixTime,
    lists: Vec<IssuerList>,
}

impl Shown<'_> {
    fn verify(
        &self,
        check_key: impl Fn(&PublicArea, Check) -> Vec<Failure>,
        intermediates: &[&[u8]],
        endorsers: &Endorsers,
        at: UnixTime,
    ) -> Result<Verified, Vec<Failure>> {
        let malformed =
            |check, expected, found: String| vec![Failure::new(check, self.label, expected, found)];
        let certificate = Certificate::parse(self.certificate)
            .map_err(|error| malformed(Check::IdevidChain, "an X.509 certificate", error.to_string()))?;
        let public = PublicArea::parse_tpm2b(self.public)
            .map_err(|error| malformed(Check::IdevidKey, "a TPM2B_PUBLIC", error.to_string()))?;
        let mut failures = check_key(&public, Check::IdevidKey);
        failures.iter_mut().for_each(|failure| failure.claim.insert_str(0, &format!("{} ", self.label)));
        if certificate.key.as_ref() != Some(public.key()) {
            let expected = "the key of the certificate";
            failures.push(Failure::new(Check::IdevidKey, self.label, expected, "another key"));
        }
        failures.extend(self.check_certificate(&certificate));
        let path = verify_path(&certificate, intermediates, endorsers, at, CHECKS);
        match (path, &certificate.extensions.hardware_module) {
            (Ok(path), Some(module)) if failures.is_empty() => Ok(Verified {
                module: module.clone(),
                issuer: certificate.issuer_text,
                sha256: certificate.sha256,
                valid_until: path.valid_until,
                lists: path.lists,
            }),
            (path, _) => {
                failures.extend(path.err().unwrap_or_default());
                Err(failures)
            }
        }
    }

    /// What makes a certificate an IAK's or IDevID's.
    fn check_certificate(&self, certificate: &Certificate) -> Vec<Failure> {
        let mut failures = Vec::new();
        let mut fail = |claim: &str, expected: &str, found: String| {
            let claim = format!("{} certificate {claim}", self.label);
            failures.push(Failure::new(Check::IdevidCertificate, claim, expected, found));
        };
        let extensions = &certificate.extensions;
        if extensions.is_ca {
            fail("basic constraints", "not a CA", "a CA".to_owned());
        }
        for oid in &extensions.not_understood {
            fail("critical extensions", "understood ones only", oid.clone());
        }
        if extensions.key_usage.is_some_and(|usage| !usage.digital_signature) {
            fail("key usage", "digitalSignature", format!("{:?}", extensions.key_usage));
        }
        let usages = &extensions.extended_key_usage;
        if self.label == "IAK" && !usages.is_empty() && !usages.iter().any(|oid| oid == OID_AIK_CERTIFICATE) {
            fail("extended key usage", OID_AIK_CERTIFICATE, usages.join(", "));
        }
        match &extensions.hardware_module {
            Some(module) if module.kind == OID_TPM_20 => {}
            Some(module) => fail("hardware type", OID_TPM_20, module.kind.clone()),
            None => fail("subjectAltName", "a HardwareModuleName", "none".to_owned()),
        }
        failures
    }
}

impl HardwareModule {
    fn title(&self) -> String {
        match std::str::from_utf8(&self.serial) {
            Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => {
                text.chars().take(TITLE_CHARS_MAX).collect()
            }
            _ => data_encoding::HEXLOWER.encode(&self.serial).chars().take(TITLE_CHARS_MAX).collect(),
        }
    }
}

const CHECKS: PathChecks = PathChecks {
    chain: Check::IdevidChain,
    signature: Check::IdevidChain,
    validity: Check::IdevidValidity,
    revoked: Check::IdevidRevoked,
};
/// The hwType of a TPM 2.0.
const OID_TPM_20: &str = "2.23.133.1.2";
/// tcg-kp-AIKCertificate.
const OID_AIK_CERTIFICATE: &str = "2.23.133.8.3";
/// A serial number of a vendor, two hashes and what is between them.
const TITLE_CHARS_MAX: usize = 256;
