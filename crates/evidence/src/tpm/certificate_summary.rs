//! Everything that a certificate says, for people who look at one. Nothing of it is verified.
//!
//! It reads what the strict reader of `certificate.rs` refuses as well, and says why that would refuse it.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OidRegistry;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name, X509Version};

use super::certificate::{
    Certificate, CertificateError, Extensions, signature_algorithm, subject_key, unix_time,
};
use super::ek_certificate::check_leaf;
use super::nv_certificate::{NvCertificate, unreadable};
use crate::check::Failure;
use crate::digest::{Digest, HashAlgorithm};
use crate::text::escaped;
use crate::time::UnixTime;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSummary {
    /// SHA-256 over the certificate.
    pub sha256: Digest,
    /// X.509 version, 1 to 3.
    pub version: u32,
    /// The subject, for people; empty where it is.
    pub subject: String,
    /// The issuer, for people.
    pub issuer: String,
    /// The serial number in hex.
    pub serial: String,
    /// From when on it is valid.
    pub not_before: UnixTime,
    /// Until when it is valid.
    pub not_after: UnixTime,
    /// The kind of key, such as `RSA-2048`; its algorithm where we know no more.
    pub key: String,
    /// SHA-256 over the SubjectPublicKeyInfo as it stands.
    pub spki_sha256: Digest,
    /// How it is signed, such as `rsassa-sha256`.
    pub signature: String,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// How many authorities may follow below it.
    pub path_length: Option<u32>,
    /// What the key may be used for, by the names of RFC 5280.
    pub key_usage: Vec<&'static str>,
    /// Extended key usages: names where they are known, else object identifiers.
    pub extended_key_usage: Vec<String>,
    /// Subject alternative names, each with its kind, such as `URI:spiffe://example/agent`.
    pub names: Vec<String>,
    /// What it says of a TPM: manufacturer, model, version.
    pub tpm: [Option<String>; 3],
    /// What it says of a platform: manufacturer, model, version, serial number.
    pub platform: [Option<String>; 4],
    /// The key identifier of the issuer, in hex.
    pub authority_key_id: Option<String>,
    /// Its own key identifier, in hex.
    pub subject_key_id: Option<String>,
    /// Every extension: its name or object identifier, and whether it is critical.
    pub extensions: Vec<(String, bool)>,
    /// Bytes of an NV index before and after it.
    pub around: (usize, usize),
}

impl CertificateSummary {
    /// Whether the bytes are an NV index or a file that holds the beginning of a certificate.
    pub fn is_cut_short(bytes: &[u8]) -> bool {
        matches!(unreadable(bytes), CertificateError::CutShort { .. })
    }

    /// Reads one certificate in DER, or an NV index that holds one.
    pub fn read(bytes: &[u8]) -> Result<Self, CertificateError> {
        let nv = NvCertificate::find(bytes);
        let der = nv.map_or(bytes, |nv| nv.certificate);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable(bytes))?;
        if !rest.is_empty() {
            return Err(CertificateError::Surplus(rest.len()));
        }
        let tbs = &parsed.tbs_certificate;
        let algorithm = &parsed.signature_algorithm;
        let mut summary = CertificateSummary {
            sha256: HashAlgorithm::Sha256.hash(&[parsed.as_raw()]),
            version: version(tbs.version()),
            subject: one_line(tbs.subject().to_string()),
            issuer: one_line(tbs.issuer().to_string()),
            serial: data_encoding::HEXLOWER.encode(tbs.raw_serial()),
            not_before: unix_time(tbs.validity().not_before),
            not_after: unix_time(tbs.validity().not_after),
            key: key(tbs.public_key()),
            spki_sha256: HashAlgorithm::Sha256.hash(&[tbs.public_key().raw]),
            signature: signature_algorithm(algorithm)
                .map_or_else(|| algorithm.algorithm.to_id_string(), |known| known.to_string()),
            is_ca: false,
            path_length: None,
            key_usage: Vec::new(),
            extended_key_usage: Vec::new(),
            names: Vec::new(),
            tpm: [None, None, None],
            platform: [None, None, None, None],
            authority_key_id: None,
            subject_key_id: None,
            extensions: Vec::new(),
            around: nv.map_or((0, 0), |nv| (nv.header.len(), nv.filling.len())),
        };
        let registry = OidRegistry::default().with_x509();
        for extension in tbs.extensions() {
            let name = match registry.get(&extension.oid) {
                Some(entry) => entry.sn().to_owned(),
                None => extension.oid.to_id_string(),
            };
            summary.extensions.push((name, extension.critical));
            summary.take(extension.parsed_extension());
        }
        if let Ok(extensions) = Extensions::read(tbs.extensions()) {
            let tpm = extensions.tpm;
            summary.tpm = [tpm.manufacturer, tpm.model, tpm.version].map(|value| value.map(one_line));
        }
        Ok(summary)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) {
        let hex = |id: &[u8]| data_encoding::HEXLOWER.encode(id);
        match extension {
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_ca = constraints.ca;
                self.path_length = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                let uses = [
                    (usage.digital_signature(), "digitalSignature"),
                    (usage.non_repudiation(), "nonRepudiation"),
                    (usage.key_encipherment(), "keyEncipherment"),
                    (usage.data_encipherment(), "dataEncipherment"),
                    (usage.key_agreement(), "keyAgreement"),
                    (usage.key_cert_sign(), "keyCertSign"),
                    (usage.crl_sign(), "cRLSign"),
                ];
                self.key_usage = uses.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let known = [
                    (usage.server_auth, "serverAuth"),
                    (usage.client_auth, "clientAuth"),
                    (usage.code_signing, "codeSigning"),
                    (usage.email_protection, "emailProtection"),
                    (usage.time_stamping, "timeStamping"),
                    (usage.ocsp_signing, "OCSPSigning"),
                    (usage.any, "any"),
                ];
                let known = known.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned());
                let others = usage.other.iter().map(|oid| {
                    let oid = oid.to_id_string();
                    tcg_name(&oid).map_or(oid.clone(), |name| format!("{name} ({oid})"))
                });
                self.extended_key_usage = known.chain(others).collect();
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.names = names.general_names.iter().take(NAMES_MAX).map(general_name).collect();
                for name in &names.general_names {
                    if let GeneralName::DirectoryName(name) = name {
                        self.platform.take(name);
                    }
                }
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| hex(id.0));
            }
            _ => {}
        }
    }

    /// The names that are URIs.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| name.strip_prefix("URI:"))
    }

    /// Whether it is about an endorsement key, by its use or by what it says of a TPM.
    pub fn is_of_ek(&self) -> bool {
        let by_use = self.extended_key_usage.iter().any(|usage| usage.contains(OID_EK_CERTIFICATE));
        by_use || (!self.is_ca && self.tpm.iter().all(Option::is_some))
    }

    /// Whether it is about a platform: a machine with its TPM.
    pub fn is_of_platform(&self) -> bool {
        let by_use = self
            .extended_key_usage
            .iter()
            .any(|usage| usage.contains("2.23.133.8.2") || usage.contains("2.23.133.8.4"));
        by_use || self.platform.iter().any(Option::is_some)
    }

    /// What the strict reader of TPM certificates says.
    pub fn strict_reader(bytes: &[u8]) -> Result<(), CertificateError> {
        Certificate::parse(bytes).map(drop)
    }

    /// What keeps a certificate from being one of an endorsement key, by its own words alone.
    pub fn ek_rules(bytes: &[u8]) -> Result<Vec<Failure>, CertificateError> {
        Certificate::parse(bytes).map(|certificate| check_leaf(&certificate))
    }
}

/// What is said of a platform.
pub(super) trait PlatformNames {
    /// Takes what a directory name of the subjectAltName says (TCG Platform Certificate Profile 1.1, 3.2.4).
    fn take(&mut self, name: &X509Name<'_>);
}

impl PlatformNames for [Option<String>; 4] {
    fn take(&mut self, name: &X509Name<'_>) {
        for attribute in name.iter_attributes() {
            let oid = attribute.attr_type().to_id_string();
            let slots = PLATFORM_OIDS.iter().zip(self.iter_mut());
            if let Some((_, slot)) = slots.into_iter().find(|(known, _)| **known == oid) {
                *slot = attribute.as_str().ok().map(|text| one_line(text.to_owned()));
            }
        }
    }
}

fn version(version: X509Version) -> u32 {
    version.0.saturating_add(1)
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    subject_key(info).map_or_else(
        || format!("algorithm {}", info.algorithm.algorithm.to_id_string()),
        |key| key.to_string(),
    )
}

fn general_name(name: &GeneralName<'_>) -> String {
    one_line(match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::RFC822Name(name) => format!("email:{name}"),
        GeneralName::IPAddress(octets) => match **octets {
            [a, b, c, d] => format!("IP:{}", core::net::Ipv4Addr::new(a, b, c, d)),
            ref octets => format!("IP:{}", data_encoding::HEXLOWER.encode(octets)),
        },
        GeneralName::DirectoryName(name) => format!("directory:{name}"),
        GeneralName::OtherName(oid, value) => {
            format!("other:{} of {} bytes", oid.to_id_string(), value.len())
        }
        GeneralName::RegisteredID(oid) => format!("id:{}", oid.to_id_string()),
        _ => "of a kind that is not known".to_owned(),
    })
}

pub(super) fn one_line(text: String) -> String {
    escaped(&text.chars().take(TEXT_CHARACTERS_MAX).collect::<String>()).into_owned()
}

/// TCG EK Credential Profile and Platform Certificate Profile.
fn tcg_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        OID_EK_CERTIFICATE => "tcg-kp-EKCertificate",
        "2.23.133.8.2" => "tcg-kp-PlatformAttributeCertificate",
        "2.23.133.8.3" => "tcg-kp-AIKCertificate",
        "2.23.133.8.4" => "tcg-kp-PlatformKeyCertificate",
        _ => return None,
    })
}

const OID_EK_CERTIFICATE: &str = "2.23.133.8.1";
/// platformManufacturerStr, platformModel, platformVersion, platformSerial.
const PLATFORM_OIDS: [&str; 4] = ["2.23.133.5.1.1", "2.23.133.5.1.4", "2.23.133.5.1.5", "2.23.133.5.1.6"];
/// Names of one certificate that are shown.
const NAMES_MAX: usize = 64;
/// Characters of one name that are shown.
const TEXT_CHARACTERS_MAX: usize = 512;
