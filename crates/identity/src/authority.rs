//! Certificate authorities: the self-signed root, the issuing CA below it, and the issuer that signs.

use std::fmt;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

use crate::key::PrivateKey;
use crate::life::Life;
use crate::serial::Serial;
use crate::spiffe_id::TrustDomain;
use crate::x509_svid;

/// What a CA certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityTemplate {
    /// Whose authority it is; becomes its one URI SAN.
    pub trust_domain: TrustDomain,
    /// The subject's common name.
    pub name: String,
    /// The serial number.
    pub serial: Serial,
    /// Start of its life.
    pub not_before: UnixTime,
    /// End of its life.
    pub not_after: UnixTime,
}

/// Why a certificate could not be signed.
#[derive(Debug, Error)]
pub enum IssueError {
    /// A date beyond the year 9999, or an end before its start.
    #[error("the dates cannot be those of a certificate")]
    Dates,
    /// A DNS name that is none.
    #[error("{name:?} is not a DNS name")]
    DnsName {
        /// The name.
        name: String,
    },
    /// The public key is none we certify.
    #[error("the public key is not a P-256, P-384 or RSA SubjectPublicKeyInfo")]
    PublicKey,
    /// The issuer's certificate is not a CA's, or does not parse.
    #[error("the issuer's certificate is not a signing certificate")]
    NotAnAuthority,
    /// The issuer's certificate belongs to another key.
    #[error("the issuer's certificate does not hold its key")]
    KeyMismatch,
    /// The signature could not be made.
    #[error("the signing key refused")]
    Signing(#[source] rcgen::Error),
    /// What was signed is not what was asked for.
    #[error("the signed certificate is not the one asked for")]
    Inspection(#[from] x509_svid::InspectError),
}

/// An authority that can sign: its certificate and its key.
pub struct Issuer {
    pub(crate) signer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) key_identifier: Vec<u8>,
    certificate: Vec<u8>,
    life: Life,
}

impl Issuer {
    /// Joins a CA certificate and its key.
    pub fn new(certificate: Vec<u8>, key: PrivateKey) -> Result<Self, IssueError> {
        let (key_identifier, life) = {
            let parsed = parse_authority(&certificate).ok_or(IssueError::NotAnAuthority)?;
            if parsed.public_key().raw != key.spki() {
                return Err(IssueError::KeyMismatch);
            }
            let identifier = subject_key_identifier(&parsed).ok_or(IssueError::NotAnAuthority)?;
            let validity = parsed.validity();
            let [from, until] = [validity.not_before, validity.not_after].map(x509_svid::unix_time);
            (identifier.to_vec(), Life::of(from, until))
        };
        let signer = rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(certificate.as_slice()), key.0)
            .map_err(|_| IssueError::NotAnAuthority)?;
        Ok(Issuer { signer, key_identifier, certificate, life })
    }

    /// The authority's certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// When the authority's certificate ends; nothing it signs may live longer.
    pub fn not_after(&self) -> UnixTime {
        self.life.until()
    }

    /// The life of its certificate.
    pub fn life(&self) -> Life {
        self.life
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("life", &self.life).finish_non_exhaustive()
    }
}

/// Signs a root certificate with its own key.
pub fn sign_root(template: &AuthorityTemplate, key: &PrivateKey) -> Result<Vec<u8>, IssueError> {
    // One level of issuing CAs may stand below.
    let parameters = authority_parameters(template, 1)?;
    let certificate = parameters.self_signed(&key.0).map_err(IssueError::Signing)?;
    Ok(certificate.der().to_vec())
}

/// Signs the certificate of an issuing CA, which may sign leaves only.
pub fn sign_issuing(template: &AuthorityTemplate, spki: &[u8], root: &Issuer) -> Result<Vec<u8>, IssueError> {
    if template.not_after > root.not_after() {
        return Err(IssueError::Dates);
    }
    let public = rcgen::SubjectPublicKeyInfo::from_der(spki).map_err(|_| IssueError::PublicKey)?;
    let mut parameters = authority_parameters(template, 0)?;
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&public, &root.signer).map_err(IssueError::Signing)?;
    Ok(certificate.der().to_vec())
}

fn authority_parameters(
    template: &AuthorityTemplate,
    path_length: u8,
) -> Result<CertificateParams, IssueError> {
    let (not_before, not_after) = dates(template.not_before, template.not_after)?;
    let mut parameters = CertificateParams::default();
    parameters.not_before = not_before;
    parameters.not_after = not_after;
    parameters.serial_number = Some(template.serial.as_bytes().to_vec().into());
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::OrganizationName, "Assay");
    parameters.distinguished_name.push(DnType::CommonName, template.name.as_str());
    // X509-SVID §3.1: a signing certificate's ID, where present, has no path.
    let uri = template.trust_domain.id().as_str().try_into().map_err(IssueError::Signing)?;
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

/// The dates as rcgen wants them, if they are in order.
pub(crate) fn dates(from: UnixTime, until: UnixTime) -> Result<(OffsetDateTime, OffsetDateTime), IssueError> {
    if until <= from {
        return Err(IssueError::Dates);
    }
    Ok((date(from)?, date(until)?))
}

pub(crate) fn date(at: UnixTime) -> Result<OffsetDateTime, IssueError> {
    i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(IssueError::Dates)
}

/// Parses a certificate that may sign others (X509-SVID §4: cA, and keyCertSign in a critical key usage).
pub(crate) fn parse_authority(der: &[u8]) -> Option<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    let constraints = certificate.basic_constraints().ok()??;
    let usage = certificate.key_usage().ok()??;
    (rest.is_empty() && constraints.value.ca && usage.critical && usage.value.key_cert_sign())
        .then_some(certificate)
}

pub(crate) fn subject_key_identifier<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0),
        _ => None,
    })
}
