//! Endorsement keys and the maker that certifies them, as the TCG EK Credential Profile says.

use std::fmt;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SubjectPublicKeyInfo, date_time_ymd,
};

use super::tpm_bytes::{ALG_AES, ALG_CFB, ALG_ECC, ALG_NULL, ALG_RSA, ALG_SHA256, ECC_NIST_P256, TpmBytes};
use super::{DeviceError, TpmKey, activation, key};
use crate::Bank;

/// What kind of endorsement key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkKind {
    /// Template L-1: RSA-2048.
    Rsa2048,
    /// Template L-2: ECC P-256, which is quick to make.
    P256,
}

/// An endorsement key, with its private half.
pub struct EndorsementKey {
    private: Private,
    public_area: Vec<u8>,
    spki: Vec<u8>,
}

enum Private {
    Rsa(OaepPrivateDecryptingKey),
    Ecc(PrivateKey),
}

/// A maker of devices: a root CA and the CA that issues its EK certificates.
pub struct EkMaker {
    root: Vec<u8>,
    root_issuer: Issuer<'static, KeyPair>,
    issuing: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// IDevID and IAK, with the certificates that their maker gave them.
#[derive(Debug)]
pub struct MakersIdentity {
    /// The initial attestation key.
    pub iak: TpmKey,
    /// Its certificate, DER.
    pub iak_certificate: Vec<u8>,
    /// The initial device identity.
    pub idevid: TpmKey,
    /// Its certificate, DER.
    pub idevid_certificate: Vec<u8>,
    /// The certificates between those and the root, DER.
    pub intermediates: Vec<Vec<u8>>,
}

impl EndorsementKey {
    /// Makes an endorsement key.
    pub fn generate(kind: EkKind) -> Result<EndorsementKey, DeviceError> {
        match kind {
            EkKind::Rsa2048 => EndorsementKey::rsa(),
            EkKind::P256 => EndorsementKey::ecc(),
        }
    }

    /// TPM2B_PUBLIC.
    pub fn public_area(&self) -> &[u8] {
        &self.public_area
    }

    /// SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// The serial number of every certificate for it.
    pub fn certificate_serial(&self) -> Vec<u8> {
        certificate_serial(&self.spki)
    }

    /// TPM2_ActivateCredential: the secret, if the credential is for this key and the object called `name`.
    pub fn activate(&self, name: &[u8], blob: &[u8], encrypted_seed: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let seed = match &self.private {
            Private::Rsa(key) => activation::rsa_seed(key, encrypted_seed)?,
            Private::Ecc(key) => activation::ecc_seed(key, encrypted_seed)?,
        };
        activation::open(&seed, name, blob)
    }

    fn rsa() -> Result<EndorsementKey, DeviceError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048)?;
        let der: PublicKeyX509Der<'_> = key.public_key().as_der()?;
        let spki = der.as_ref().to_vec();
        let modulus = spki.get(RSA_MODULUS_AT..RSA_MODULUS_AT + 256).unwrap_or_default();
        let template = ek_template(ALG_RSA).u16(ALG_NULL).u16(2048).u32(0).sized(modulus).finish();
        let public_area = TpmBytes::default().sized(&template).finish();
        Ok(EndorsementKey { private: Private::Rsa(OaepPrivateDecryptingKey::new(key)?), public_area, spki })
    }

    fn ecc() -> Result<EndorsementKey, DeviceError> {
        let key = PrivateKey::generate(&ECDH_P256)?;
        let public = key.compute_public_key()?;
        let (x, y) = public.as_ref().get(1..).unwrap_or_default().split_at(32);
        let template =
            ek_template(ALG_ECC).u16(ALG_NULL).u16(ECC_NIST_P256).u16(ALG_NULL).sized(x).sized(y).finish();
        let public_area = TpmBytes::default().sized(&template).finish();
        let der: PublicKeyX509Der<'_> = public.as_der()?;
        let spki = der.as_ref().to_vec();
        Ok(EndorsementKey { private: Private::Ecc(key), public_area, spki })
    }
}

impl fmt::Debug for EndorsementKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndorsementKey").finish_non_exhaustive()
    }
}

impl EkMaker {
    /// A maker with a new root.
    pub fn new() -> Result<EkMaker, DeviceError> {
        let (root_key, issuing_key) = (KeyPair::generate()?, KeyPair::generate()?);
        let root_params = authority("Example TPM Root CA", 1);
        let root = root_params.self_signed(&root_key)?.der().to_vec();
        let mut issuing_params = authority("Example TPM EK CA", 0);
        issuing_params.serial_number = Some(ISSUING_CA_SERIAL.to_vec().into());
        let root_issuer = Issuer::new(root_params, root_key);
        let issuing = issuing_params.signed_by(&issuing_key, &root_issuer)?.der().to_vec();
        let issuer = Issuer::new(issuing_params, issuing_key);
        Ok(EkMaker { root, root_issuer, issuing, issuer })
    }

    /// The root certificate, DER.
    pub fn root_ca(&self) -> &[u8] {
        &self.root
    }

    /// The root certificate, PEM.
    pub fn root_ca_pem(&self) -> String {
        let body = data_encoding::BASE64.encode(&self.root);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    /// The certificate of the CA that issues EK certificates, DER.
    pub fn issuing_ca(&self) -> &[u8] {
        &self.issuing
    }

    /// Issues an EK certificate.
    pub fn certify(&self, ek: &EndorsementKey) -> Result<Vec<u8>, DeviceError> {
        self.issue(ek, ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE_USAGE.to_vec()))
    }

    /// Issues a certificate for the EK that makes it a TLS server's key.
    pub fn certify_as_server(&self, ek: &EndorsementKey) -> Result<Vec<u8>, DeviceError> {
        self.issue(ek, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn issue(&self, ek: &EndorsementKey, usage: ExtendedKeyUsagePurpose) -> Result<Vec<u8>, DeviceError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![match ek.private {
            Private::Rsa(_) => KeyUsagePurpose::KeyEncipherment,
            Private::Ecc(_) => KeyUsagePurpose::KeyAgreement,
        }];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = vec![tpm_identity()];
        params.serial_number = Some(ek.certificate_serial().into());
        set_validity(&mut params);
        let key = SubjectPublicKeyInfo::from_der(&ek.spki)?;
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }

    /// Gives a TPM with this serial number an identity.
    pub fn identity(&self, serial: &str) -> Result<MakersIdentity, DeviceError> {
        let (iak, idevid) = (TpmKey::generate(key::ATTESTATION_KEY)?, TpmKey::generate(key::DEVICE_KEY)?);
        Ok(MakersIdentity {
            iak_certificate: self.certify_identity(&iak.spki(), serial, true)?,
            idevid_certificate: self.certify_identity(&idevid.spki(), serial, false)?,
            intermediates: vec![self.issuing.clone()],
            iak,
            idevid,
        })
    }

    /// Issues the certificate of an IAK or IDevID with this SubjectPublicKeyInfo.
    pub fn certify_identity(&self, spki: &[u8], serial: &str, is_iak: bool) -> Result<Vec<u8>, DeviceError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if is_iak {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AIK_CERTIFICATE_USAGE.to_vec())];
        }
        params.use_authority_key_identifier_extension = true;
        params.custom_extensions = vec![hardware_module(serial)];
        params.serial_number = Some(certificate_serial(spki).into());
        set_validity(&mut params);
        let key = SubjectPublicKeyInfo::from_der(spki)?;
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }

    /// The list of EK certificates that the issuing CA takes back, by serial number, DER; good until 2120.
    pub fn revoke(&self, serials: &[&[u8]]) -> Result<Vec<u8>, DeviceError> {
        revocation_list(serials, 2120, &self.issuer)
    }

    /// A list by the issuing CA that has been out of date since 2021.
    pub fn stale_revocation_list(&self, serials: &[&[u8]]) -> Result<Vec<u8>, DeviceError> {
        revocation_list(serials, 2021, &self.issuer)
    }

    /// The list with which the root takes back the issuing CA, DER.
    pub fn revoke_issuing_ca(&self) -> Result<Vec<u8>, DeviceError> {
        revocation_list(&[&ISSUING_CA_SERIAL], 2120, &self.root_issuer)
    }
}

/// The TCG EK Credential Profile's templates share everything up to the key's own parameters.
fn ek_template(algorithm: u16) -> TpmBytes {
    TpmBytes::default()
        .u16(algorithm)
        .u16(ALG_SHA256)
        .u32(EK_ATTRIBUTES)
        .sized(&EK_POLICY)
        .u16(ALG_AES)
        .u16(128)
        .u16(ALG_CFB)
}

fn authority(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params);
    params
}

fn revocation_list(
    serials: &[&[u8]],
    until: i32,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<Vec<u8>, DeviceError> {
    let revoked = |serial: &&[u8]| RevokedCertParams {
        serial_number: serial.to_vec().into(),
        revocation_time: date_time_ymd(2020, 2, 1),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 2, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(issuer)?.der().to_vec())
}

fn set_validity(params: &mut CertificateParams) {
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
}

/// The subjectAltName that names the TPM; critical, since the subject is empty.
fn tpm_identity() -> CustomExtension {
    let attributes = [(1, "id:00001014"), (2, "software device"), (3, "id:20260101")];
    let names: Vec<u8> = attributes
        .iter()
        .flat_map(|(number, value)| {
            // 2.23.133.2.{1,2,3}: the TPM's manufacturer, model and version.
            let attribute =
                [der(0x06, &[0x67, 0x81, 0x05, 0x02, *number]), der(0x0c, value.as_bytes())].concat();
            der(0x31, &der(0x30, &attribute))
        })
        .collect();
    let directory_name = der(0xa4, &der(0x30, &names));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &directory_name));
    extension.set_criticality(true);
    extension
}

/// The serial number of every certificate for a key: positive, and as long as it looks.
pub(super) fn certificate_serial(spki: &[u8]) -> Vec<u8> {
    let mut serial = Bank::Sha256.hash(spki);
    serial.truncate(16);
    serial.iter_mut().take(1).for_each(|first| *first = *first & 0x3f | 0x40);
    serial
}

/// The subjectAltName that says which TPM it is (RFC 4108, HardwareModuleName); critical, as the subject is empty.
fn hardware_module(serial: &str) -> CustomExtension {
    // 2.23.133.1.2: a TPM 2.0.
    let module = [der(0x06, &[0x67, 0x81, 0x05, 0x01, 0x02]), der(0x04, serial.as_bytes())].concat();
    let kind = der(0x06, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x08, 0x04]);
    let other_name = [kind, der(0xa0, &der(0x30, &module))].concat();
    let mut extension =
        CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &der(0xa0, &other_name)));
    extension.set_criticality(true);
    extension
}

/// One DER element of fewer than 256 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u8;
    let header = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [header, content.to_vec()].concat()
}

const ISSUING_CA_SERIAL: [u8; 2] = [0x12, 0x34];
/// tcg-kp-AIKCertificate.
const AIK_CERTIFICATE_USAGE: [u64; 5] = [2, 23, 133, 8, 3];
/// tcg-kp-EKCertificate.
const EK_CERTIFICATE_USAGE: [u64; 5] = [2, 23, 133, 8, 1];
/// fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted, decrypt.
const EK_ATTRIBUTES: u32 = 0x0003_00b2;
/// PolicyA: TPM2_PolicySecret(TPM_RH_ENDORSEMENT).
const EK_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// Where the modulus starts in the SubjectPublicKeyInfo of an RSA-2048 key.
const RSA_MODULUS_AT: usize = 33;
