//! An AMD SEV-SNP platform: the authorities above its keys, and the reports that these sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

use crate::DeviceError;

/// An ARK, the ASK and ASVK under it, and a key that signs reports.
pub struct SnpMaker {
    product: &'static str,
    root: Vec<u8>,
    root_issuer: Issuer<'static, KeyPair>,
    chip_authority: (Vec<u8>, Issuer<'static, KeyPair>),
    loaded_authority: (Vec<u8>, Issuer<'static, KeyPair>),
    key: KeyPair,
}

/// What a certificate of the key that signs reports says.
#[derive(Clone, Debug)]
pub struct SnpCertificate {
    /// `SEV-VCEK` or `SEV-VLEK`.
    pub kind: &'static str,
    /// productName.
    pub product_name: String,
    /// blSPL, teeSPL, snpSPL, ucodeSPL, and fmcSPL where there is one.
    pub tcb: (u8, u8, u8, u8, Option<u8>),
    /// hwID; none in a VLEK.
    pub hwid: Option<Vec<u8>>,
    /// Whether hwID stands in an OCTET STRING of its own.
    pub hwid_wrapped: bool,
    /// cspID, in a VLEK.
    pub csp_id: Option<String>,
    /// Years from the first of January to the first of January.
    pub valid: (i32, i32),
    /// Whether the ASVK signs it, where otherwise the ASK does.
    pub by_loaded_authority: bool,
    /// An extension that nobody knows, marked critical.
    pub critical_extension: bool,
}

/// What a report says, as the bytes that are signed.
#[derive(Clone, Debug)]
pub struct SnpReport {
    bytes: Vec<u8>,
}

impl SnpMaker {
    /// A maker with new keys and AMD's names.
    pub fn new(product: &'static str) -> Result<SnpMaker, DeviceError> {
        let root_params = authority(&format!("ARK-{product}"), 1);
        let root_key = key()?;
        let root = root_params.self_signed(&root_key)?.der().to_vec();
        let root_issuer = Issuer::new(root_params, root_key);
        let below = |name: &str, serial: u8| -> Result<_, DeviceError> {
            let mut params = authority(name, 0);
            params.serial_number = Some(SerialNumber::from(vec![serial]));
            let key = key()?;
            let der = params.signed_by(&key, &root_issuer)?.der().to_vec();
            Ok((der, Issuer::new(params, key)))
        };
        let chip_authority = below(&format!("SEV-{product}"), CHIP_AUTHORITY_SERIAL)?;
        let loaded_authority = below(&format!("SEV-VLEK-{product}"), LOADED_AUTHORITY_SERIAL)?;
        Ok(SnpMaker { product, root, root_issuer, chip_authority, loaded_authority, key: key()? })
    }

    /// The root's certificate, DER.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// ASK, ASVK and ARK, DER.
    pub fn authorities(&self) -> [&[u8]; 3] {
        [&self.chip_authority.0, &self.loaded_authority.0, &self.root]
    }

    /// A certificate of a chip as this maker gives them.
    pub fn certificate(&self) -> SnpCertificate {
        let has_fmc = self.product == "Turin";
        SnpCertificate {
            kind: "SEV-VCEK",
            product_name: self.product.to_owned(),
            tcb: (4, 1, 24, 219, has_fmc.then_some(1)),
            hwid: Some((1..=if has_fmc { 8 } else { 64 }).collect()),
            hwid_wrapped: false,
            csp_id: None,
            valid: (2025, 2032),
            by_loaded_authority: false,
            critical_extension: false,
        }
    }

    /// Certifies the key that signs reports.
    pub fn certify(&self, certificate: &SnpCertificate) -> Result<Vec<u8>, DeviceError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(certificate.kind);
        params.serial_number = Some(SerialNumber::from(vec![0]));
        params.not_before = date_time_ymd(certificate.valid.0, 1, 1);
        params.not_after = date_time_ymd(certificate.valid.1, 1, 1);
        params.custom_extensions = certificate.extensions();
        let issuer =
            if certificate.by_loaded_authority { &self.loaded_authority.1 } else { &self.chip_authority.1 };
        Ok(params.signed_by(&self.key, issuer)?.der().to_vec())
    }

    /// The root's revocation list, which takes back the ASK if it is told to; in force in 2026.
    pub fn revocation_list(&self, of_chip_authority: bool) -> Result<Vec<u8>, DeviceError> {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(vec![CHIP_AUTHORITY_SERIAL]),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: if of_chip_authority { vec![revoked] } else { Vec::new() },
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.root_issuer)?.der().to_vec())
    }

    /// A report that a chip with [`SnpMaker::certificate`] makes.
    pub fn report(&self) -> SnpReport {
        let mut report = SnpReport { bytes: vec![0; SIGNED_BYTES] };
        let (cpuid, tcb, hwid): (_, [u8; 8], Vec<u8>) = match self.product {
            "Turin" => ([0x1a, 0x02, 1], [1, 4, 1, 24, 0, 0, 0, 219], (1..=8).collect()),
            "Genoa" => ([0x19, 0x11, 1], [4, 1, 0, 0, 0, 0, 24, 219], (1..=64).collect()),
            _ => ([0x19, 0x01, 1], [4, 1, 0, 0, 0, 0, 24, 219], (1..=64).collect()),
        };
        for at in [0x38, 0x180, 0x1e0, 0x1f0] {
            report.set(at, &tcb);
        }
        report.set(0, &[5]).set(0x08, &[0, 0, 3]).set(0x34, &[1]).set(0x188, &cpuid).set(0x1a0, &hwid);
        report.set(0x50, &[0x5a; 64]).set(0x90, &[0x11; 48]);
        report
    }

    /// Signs a report.
    pub fn sign(&self, report: &SnpReport) -> Result<Vec<u8>, DeviceError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, self.key.serialized_der())?;
        let signature = key.sign(&SystemRandom::new(), &report.bytes)?;
        let mut signed = report.bytes.clone();
        for number in signature.as_ref().chunks(48) {
            signed.extend(number.iter().rev());
            signed.extend([0; 24]);
        }
        signed.resize(REPORT_BYTES, 0);
        Ok(signed)
    }
}

impl SnpReport {
    /// Puts bytes at an offset of the structure, before it is signed.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        let range = offset..offset.saturating_add(bytes.len());
        if let Some(field) = self.bytes.get_mut(range) {
            field.copy_from_slice(bytes);
        }
        self
    }
}

impl SnpCertificate {
    fn extensions(&self) -> Vec<CustomExtension> {
        let (bootloader, tee, snp, microcode, fmc) = self.tcb;
        let mut extensions = vec![
            extension(&[1], integer(0)),
            extension(&[2], ia5_string(&self.product_name)),
            extension(&[3, 1], integer(bootloader)),
            extension(&[3, 2], integer(tee)),
            extension(&[3, 3], integer(snp)),
            extension(&[3, 8], integer(microcode)),
        ];
        extensions.extend(fmc.map(|fmc| extension(&[3, 9], integer(fmc))));
        extensions.extend(self.hwid.as_ref().map(|hwid| {
            let wrapped = || [&[4, u8::try_from(hwid.len()).unwrap_or(0)], hwid.as_slice()].concat();
            extension(&[4], if self.hwid_wrapped { wrapped() } else { hwid.clone() })
        }));
        extensions.extend(self.csp_id.as_ref().map(|id| extension(&[5], ia5_string(id))));
        if self.critical_extension {
            let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 55555, 1], vec![5, 0]);
            unknown.set_criticality(true);
            extensions.push(unknown);
        }
        extensions
    }
}

fn key() -> Result<KeyPair, DeviceError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?)
}

fn authority(common_name: &str, path_length: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2023, 1, 1);
    params.not_after = date_time_ymd(2048, 1, 1);
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationalUnitName, "Engineering");
    name.push(DnType::CountryName, "US");
    name.push(DnType::LocalityName, "Santa Clara");
    name.push(DnType::StateOrProvinceName, "CA");
    name.push(DnType::OrganizationName, "Advanced Micro Devices");
    name.push(DnType::CommonName, common_name);
    name
}

/// An extension under AMD's arc.
fn extension(arc: &[u64], content: Vec<u8>) -> CustomExtension {
    let oid = [&[1, 3, 6, 1, 4, 1, 3704, 1], arc].concat();
    CustomExtension::from_oid_content(&oid, content)
}

fn integer(value: u8) -> Vec<u8> {
    if value < 0x80 { vec![2, 1, value] } else { vec![2, 2, 0, value] }
}

fn ia5_string(text: &str) -> Vec<u8> {
    [&[0x16, u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat()
}

const CHIP_AUTHORITY_SERIAL: u8 = 2;
const LOADED_AUTHORITY_SERIAL: u8 = 3;
const SIGNED_BYTES: usize = 0x2a0;
const REPORT_BYTES: usize = 1184;
