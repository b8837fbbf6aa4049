//! Certificates of attestation keys: that a key is the AK of the TPM whose EK has this hash.
//!
//! TCG EK Credential Profile 2.5, 3.2, for the names of a TPM; RFC 4043 for the permanent identifier; W3C Web Authentication 2, 8.3.1,
//! for what makes one that others accept: an empty subject, the names in a critical SAN, and the extended key usage
//! tcg-kp-AIKCertificate. The root is none of the trust domain's authorities: nothing of it is an X.509-SVID, and it signs no CA. Serial
//! numbers have 18 bytes, so that a number says whose list it belongs on.

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
};
use rustls_pki_types::UnixTime;
use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::asn1_rs::FromDer as _;
use x509_parser::oid_registry::asn1_rs::{Any, Oid, Utf8String};
use x509_parser::prelude::X509Certificate;

use crate::authority::{IssueError, Issuer, dates, parse_authority};
use crate::key::PrivateKey;
use crate::serial::Serial;
use crate::signature;
use crate::spiffe_id::TrustDomain;
use crate::x509_svid::unix_time;

/// What the certificate of an AK says of its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmNames {
    /// As the EK certificate has it, such as `id:00001014`.
    pub manufacturer: String,
    /// Likewise.
    pub model: String,
    /// Its firmware's, likewise.
    pub version: String,
    /// The permanent identifier: SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub identifier: String,
}

/// What the certificate of an AK is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AkTemplate {
    /// The TPM.
    pub names: TpmNames,
    /// The AK, SubjectPublicKeyInfo DER.
    pub spki: Vec<u8>,
    /// The serial number; see [`Serial::of_ak`].
    pub serial: Serial,
    /// Start of its life.
    pub not_before: UnixTime,
    /// End of its life.
    pub not_after: UnixTime,
    /// Where the list is that may withdraw it.
    pub crl_url: Option<String>,
}

/// A certificate that was signed and found to say what its template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedAk(Vec<u8>);

impl IssuedAk {
    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// How a signed certificate differs from its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AkCertificateError {
    /// It could not be signed.
    #[error("the certificate could not be signed")]
    Signing,
    /// A name that is empty, or longer than names are.
    #[error("the TPM's {0} is empty, or longer than {NAME_BYTES_MAX} bytes")]
    Name(&'static str),
    /// It does not parse, or its issuer's does not.
    #[error("not an X.509 v3 certificate below a signing certificate")]
    Malformed,
    /// Its signature is not the root's.
    #[error("the signature is not the root's")]
    Signature,
    /// Another key, serial number, date or name.
    #[error("the {0} differs")]
    Differs(&'static str),
}

/// Signs a root for certificates of AKs with its own key.
pub fn sign_root(
    trust_domain: &TrustDomain,
    serial: &Serial,
    (not_before, not_after): (UnixTime, UnixTime),
    key: &PrivateKey,
) -> Result<Vec<u8>, IssueError> {
    let mut parameters = parameters(serial, not_before, not_after)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Assay");
    name.push(DnType::CommonName, format!("attestation keys of {trust_domain}"));
    parameters.distinguished_name = name;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key.0).map_err(IssueError::Signing)?;
    Ok(certificate.der().to_vec())
}

/// Signs the certificate of an AK, then looks at what was signed.
pub fn issue(template: &AkTemplate, root: &Issuer) -> Result<IssuedAk, AkCertificateError> {
    let TpmNames { manufacturer, model, version, identifier } = &template.names;
    let names =
        [("manufacturer", manufacturer), ("model", model), ("version", version), ("identifier", identifier)];
    if let Some((what, _)) = names.iter().find(|(_, name)| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err(AkCertificateError::Name(what));
    }
    let signed = sign(template, root).map_err(|_| AkCertificateError::Signing)?;
    inspect(&signed, template, root.certificate())?;
    Ok(IssuedAk(signed))
}

/// What a certificate says of a TPM in its critical SAN, if it says all of it; nothing of the rest is looked at.
pub fn names(certificate: &[u8]) -> Option<TpmNames> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    names_of(&certificate)
}

fn sign(template: &AkTemplate, root: &Issuer) -> Result<Vec<u8>, IssueError> {
    let public = rcgen::SubjectPublicKeyInfo::from_der(&template.spki).map_err(|_| IssueError::PublicKey)?;
    let mut parameters = parameters(&template.serial, template.not_before, template.not_after)?;
    parameters.distinguished_name = DistinguishedName::new();
    let mut names = CustomExtension::from_oid_content(&[2, 5, 29, 17], alternative_names(&template.names));
    names.set_criticality(true);
    parameters.custom_extensions = vec![names];
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AIK_CERTIFICATE.to_vec())];
    parameters.use_authority_key_identifier_extension = true;
    parameters.crl_distribution_points =
        template.crl_url.iter().map(|url| CrlDistributionPoint { uris: vec![url.clone()] }).collect();
    let signed = parameters.signed_by(&public, &root.signer).map_err(IssueError::Signing)?;
    Ok(signed.der().to_vec())
}

fn parameters(
    serial: &Serial,
    not_before: UnixTime,
    not_after: UnixTime,
) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    (parameters.not_before, parameters.not_after) = dates(not_before, not_after)?;
    parameters.serial_number = Some(serial.as_bytes().to_vec().into());
    Ok(parameters)
}

/// GeneralNames: a directory name with the TPM's attributes, and the permanent identifier.
fn alternative_names(names: &TpmNames) -> Vec<u8> {
    let TpmNames { manufacturer, model, version, identifier } = names;
    let attributes = [(MANUFACTURER, manufacturer), (MODEL, model), (VERSION, version)];
    let attributes = attributes.map(|(oid, value)| {
        let attribute = tlv(SEQUENCE, &[&tlv(OBJECT_IDENTIFIER, &[oid]), &utf8(value)]);
        tlv(SET, &[&attribute])
    });
    let [one, two, three] = &attributes;
    let directory = tlv(DIRECTORY_NAME, &[&tlv(SEQUENCE, &[one, two, three])]);
    tlv(SEQUENCE, &[&directory, &other_name(identifier)])
}

/// GeneralNames of a permanent identifier alone.
pub(crate) fn permanent_identifier_name(identifier: &str) -> Vec<u8> {
    tlv(SEQUENCE, &[&other_name(identifier)])
}

fn other_name(identifier: &str) -> Vec<u8> {
    let value = tlv(CONTEXT_0, &[&tlv(SEQUENCE, &[&utf8(identifier)])]);
    tlv(CONTEXT_0, &[&tlv(OBJECT_IDENTIFIER, &[PERMANENT_IDENTIFIER]), &value])
}

fn utf8(text: &str) -> Vec<u8> {
    tlv(UTF8_STRING, &[text.as_bytes()])
}

/// DER of less than 64 KiB: names are bounded.
fn tlv(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let contents = contents.concat();
    let length = u16::try_from(contents.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let header = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header, contents].concat()
}

/// With code that shares nothing with the code that signed it.
fn inspect(der: &[u8], template: &AkTemplate, root: &[u8]) -> Result<(), AkCertificateError> {
    let root = parse_authority(root).ok_or(AkCertificateError::Malformed)?;
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| AkCertificateError::Malformed)?;
    if !rest.is_empty() || certificate.issuer().as_raw() != root.subject().as_raw() {
        return Err(AkCertificateError::Malformed);
    }
    if !signature::verifies(root.public_key().raw, der) {
        return Err(AkCertificateError::Signature);
    }
    let validity = certificate.validity();
    let dates = unix_time(validity.not_before) == template.not_before
        && unix_time(validity.not_after) == template.not_after
        && validity.not_after <= root.validity().not_after;
    let is_leaf =
        certificate.basic_constraints().ok().flatten().is_some_and(|constraints| !constraints.value.ca);
    let aik = Oid::from(AIK_CERTIFICATE).ok();
    let usage = certificate.extended_key_usage().ok().flatten();
    let usage = usage.is_some_and(|usage| {
        let named = usage.value.other.iter().map(Some).eq([aik.as_ref()]);
        named && !usage.value.any && !usage.value.client_auth && !usage.value.server_auth
    });
    for (holds, what) in [
        (Serial::from_integer(certificate.raw_serial()).as_ref() == Some(&template.serial), "serial number"),
        (certificate.public_key().raw == template.spki, "key"),
        (dates, "life"),
        (certificate.subject().iter_rdn().next().is_none(), "subject"),
        (names_of(&certificate).as_ref() == Some(&template.names), "name"),
        (usage, "extended key usage"),
        (is_leaf, "basic constraint"),
    ] {
        if !holds {
            return Err(AkCertificateError::Differs(what));
        }
    }
    Ok(())
}

fn names_of(certificate: &X509Certificate<'_>) -> Option<TpmNames> {
    let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) if extension.critical => Some(names),
        _ => None,
    })?;
    let (mut attributes, mut identifier) = ([None, None, None], None);
    for name in &names.general_names {
        match name {
            GeneralName::DirectoryName(name) => {
                for attribute in name.iter_attributes() {
                    let known = [MANUFACTURER, MODEL, VERSION]
                        .iter()
                        .position(|oid| attribute.attr_type().as_bytes() == *oid);
                    let slot = known.and_then(|place| attributes.get_mut(place))?;
                    if slot.replace(attribute.as_str().ok()?.to_owned()).is_some() {
                        return None;
                    }
                }
            }
            GeneralName::OtherName(oid, value) if oid.as_bytes() == PERMANENT_IDENTIFIER => {
                if identifier.replace(permanent_identifier(value)?).is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    let [manufacturer, model, version] = attributes;
    Some(TpmNames { manufacturer: manufacturer?, model: model?, version: version?, identifier: identifier? })
}

/// RFC 4043, 2, in the explicit tag of an other name; of the two members the first alone.
fn permanent_identifier(value: &[u8]) -> Option<String> {
    let (rest, tagged) = Any::from_der(value).ok()?;
    let (after, sequence) = Any::from_der(tagged.data).ok()?;
    let (last, text) = Utf8String::from_der(sequence.data).ok()?;
    (rest.is_empty() && after.is_empty() && last.is_empty()).then(|| text.string())
}

/// tcg-kp-AIKCertificate.
const AIK_CERTIFICATE: &[u64] = &[2, 23, 133, 8, 3];
/// 2.23.133.2.1 to 3, contents of an OBJECT IDENTIFIER.
const MANUFACTURER: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x01];
const MODEL: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x02];
const VERSION: &[u8] = &[0x67, 0x81, 0x05, 0x02, 0x03];
/// id-on-permanentIdentifier, 1.3.6.1.5.5.7.8.3.
const PERMANENT_IDENTIFIER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x08, 0x03];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
/// Context tag 0, constructed: an other name, and the explicit tag in it.
const CONTEXT_0: u8 = 0xa0;
/// Context tag 4, constructed and explicit, as a Name is a choice.
const DIRECTORY_NAME: u8 = 0xa4;
/// Makers write some sixteen characters.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn root() -> Issuer {
        let domain = TrustDomain::parse("example.org").unwrap();
        let key = PrivateKey::generate().unwrap();
        let serial = Serial::of_ak([9; 18]);
        let der = sign_root(&domain, &serial, (at(1_000_000), at(9_000_000)), &key).unwrap();
        Issuer::new(der, key).unwrap()
    }

    fn template(model: &str) -> AkTemplate {
        AkTemplate {
            names: TpmNames {
                manufacturer: "id:00001014".to_owned(),
                model: model.to_owned(),
                version: "id:20191023".to_owned(),
                identifier: "a".repeat(64),
            },
            spki: PrivateKey::generate().unwrap().spki(),
            serial: Serial::of_ak([7; 18]),
            not_before: at(2_000_000),
            not_after: at(3_000_000),
            crl_url: Some("http://crl.example.org/ak.crl".to_owned()),
        }
    }

    #[test]
    fn it_says_what_its_template_says_whatever_the_length_of_the_names() {
        let root = root();
        for length in [1, 100, 128, NAME_BYTES_MAX] {
            let template = template(&"m".repeat(length));
            let issued = issue(&template, &root).unwrap();
            assert_eq!(names(issued.der()), Some(template.names));
        }
        assert_eq!(names(root.certificate()), None);
    }

    #[test]
    fn what_cannot_be_said_is_not_signed() {
        let root = root();
        for model in [String::new(), "m".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(issue(&template(&model), &root), Err(AkCertificateError::Name("model")));
        }
        let late = AkTemplate { not_after: at(9_000_001), ..template("swtpm") };
        assert_eq!(issue(&late, &root), Err(AkCertificateError::Differs("life")));
    }

    #[test]
    fn each_difference_is_found() {
        let root = root();
        let asked = template("swtpm");
        let signed = sign(&asked, &root).unwrap();
        let names = TpmNames { identifier: "b".repeat(64), ..asked.names.clone() };
        for (other, what) in [
            (AkTemplate { names, ..asked.clone() }, "name"),
            (AkTemplate { serial: Serial::of_ak([8; 18]), ..asked.clone() }, "serial number"),
            (AkTemplate { not_after: at(2_500_000), ..asked.clone() }, "life"),
            (AkTemplate { spki: root_key(), ..asked.clone() }, "key"),
        ] {
            assert_eq!(inspect(&signed, &other, root.certificate()), Err(AkCertificateError::Differs(what)));
        }
    }

    fn root_key() -> Vec<u8> {
        PrivateKey::generate().unwrap().spki()
    }
}
