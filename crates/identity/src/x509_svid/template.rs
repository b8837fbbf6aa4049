//! What an X.509-SVID is to say, and signing it.

use core::net::IpAddr;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::{DnsName, UnixTime};

use super::inspect::{IssuedSvid, inspect};
use crate::authority::{IssueError, Issuer, dates};
use crate::serial::Serial;
use crate::spiffe_id::SpiffeId;

/// The content of an X.509-SVID. Only the public key comes from whoever asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidTemplate {
    /// Whom it names.
    pub spiffe_id: SpiffeId,
    /// DNS names to add, for clients that know no SPIFFE.
    pub dns_names: Vec<String>,
    /// Addresses to add, for the same clients.
    pub ip_addresses: Vec<IpAddr>,
    /// The subject's key, SubjectPublicKeyInfo DER.
    pub spki: Vec<u8>,
    /// The serial number.
    pub serial: Serial,
    /// Start of its life; see [`NOT_BEFORE_LEEWAY`].
    pub not_before: UnixTime,
    /// End of its life.
    pub not_after: UnixTime,
}

/// How far `not_before` should lie in the past, for peers whose clocks are behind.
pub const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(10);

/// Signs the template, then inspects what was signed.
pub fn issue(template: &SvidTemplate, issuer: &Issuer) -> Result<IssuedSvid, IssueError> {
    let public = rcgen::SubjectPublicKeyInfo::from_der(&template.spki).map_err(|_| IssueError::PublicKey)?;
    let signed = parameters(template)?.signed_by(&public, &issuer.signer).map_err(IssueError::Signing)?;
    Ok(inspect(signed.der(), template, issuer.certificate())?)
}

fn parameters(template: &SvidTemplate) -> Result<CertificateParams, IssueError> {
    let (not_before, not_after) = dates(template.not_before, template.not_after)?;
    let mut parameters = CertificateParams::default();
    parameters.not_before = not_before;
    parameters.not_after = not_after;
    parameters.serial_number = Some(template.serial.as_bytes().to_vec().into());
    // An empty subject says nothing we have not verified; RFC 5280 §4.2.1.6 then makes the SAN critical.
    parameters.distinguished_name = DistinguishedName::new();
    parameters.subject_alt_names = alternative_names(template)?;
    // X509-SVID §4: cA false, digitalSignature, both authentication purposes.
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

fn alternative_names(template: &SvidTemplate) -> Result<Vec<SanType>, IssueError> {
    let uri = template.spiffe_id.as_str().try_into().map_err(IssueError::Signing)?;
    let mut names = vec![SanType::URI(uri)];
    for name in &template.dns_names {
        let not_dns = || IssueError::DnsName { name: name.clone() };
        DnsName::try_from(name.as_str()).map_err(|_| not_dns())?;
        names.push(SanType::DnsName(name.as_str().try_into().map_err(|_| not_dns())?));
    }
    names.extend(template.ip_addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}
