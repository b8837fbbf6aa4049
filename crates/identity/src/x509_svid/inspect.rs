//! Looks at a freshly signed certificate with code that shares nothing with the code that signed it.
//!
//! Whatever goes wrong between a grant and its certificate, in our template or in the library, is to be found
//! here, before anybody else sees the certificate.

use core::net::IpAddr;

use rustls_pki_types::UnixTime;
use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::template::SvidTemplate;
use super::unix_time;
use crate::authority::{parse_authority, subject_key_identifier};
use crate::serial::Serial;
use crate::signature;

/// A certificate that was signed and found to say what its template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedSvid {
    der: Vec<u8>,
    serial: Serial,
    not_after: UnixTime,
}

impl IssuedSvid {
    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The end of its life.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }
}

/// How a signed certificate differs from its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InspectError {
    /// The certificate does not parse as one v3 certificate.
    #[error("not an X.509 v3 certificate")]
    Malformed,
    /// The issuer's certificate does not parse or is no CA's.
    #[error("the issuer is not a signing certificate")]
    NotAnAuthority,
    /// The issuer name is another's.
    #[error("the issuer name is not the issuer's subject")]
    IssuerName,
    /// The signature is not the issuer's.
    #[error("the signature is not the issuer's")]
    Signature,
    /// Another serial number.
    #[error("the serial number differs")]
    Serial,
    /// Another key.
    #[error("the public key differs")]
    PublicKey,
    /// A subject where none belongs.
    #[error("the subject is not empty")]
    Subject,
    /// Other dates, or dates beyond the issuer's.
    #[error("the dates differ or exceed the issuer's")]
    Dates,
    /// Other names, or names not marked critical.
    #[error("the subject alternative names differ")]
    Names,
    /// Key usage or extended key usage beyond or below the profile.
    #[error("the key usages are not an X.509-SVID's")]
    Usage,
    /// The certificate could pass for a CA's.
    #[error("the basic constraints are not a leaf's")]
    Constraints,
    /// The key identifiers do not link the certificate to its issuer.
    #[error("the key identifiers do not name issuer and subject")]
    KeyIdentifier,
    /// An extension nobody asked for, or one twice.
    #[error("there is an extension too many or too few")]
    Extensions,
}

/// Checks that `der` says exactly what `template` says and is signed by `issuer`.
pub fn inspect(der: &[u8], template: &SvidTemplate, issuer: &[u8]) -> Result<IssuedSvid, InspectError> {
    let issuer = parse_authority(issuer).ok_or(InspectError::NotAnAuthority)?;
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| InspectError::Malformed)?;
    ensure(rest.is_empty() && certificate.version() == X509Version::V3, InspectError::Malformed)?;
    inspect_signature(&certificate, &issuer)?;

    let serial = Serial::from_integer(certificate.raw_serial()).ok_or(InspectError::Serial)?;
    ensure(serial == template.serial, InspectError::Serial)?;
    ensure(certificate.public_key().raw == template.spki, InspectError::PublicKey)?;
    ensure(certificate.subject().iter().next().is_none(), InspectError::Subject)?;

    let (validity, bounds) = (certificate.validity(), issuer.validity());
    let not_after = unix_time(validity.not_after);
    let dates_hold = unix_time(validity.not_before) == template.not_before
        && not_after == template.not_after
        && validity.not_after <= bounds.not_after;
    ensure(dates_hold, InspectError::Dates)?;

    inspect_extensions(&certificate, template, &issuer)?;
    Ok(IssuedSvid { der: der.to_vec(), serial, not_after })
}

fn inspect_signature(
    certificate: &X509Certificate<'_>,
    issuer: &X509Certificate<'_>,
) -> Result<(), InspectError> {
    ensure(certificate.issuer().as_raw() == issuer.subject().as_raw(), InspectError::IssuerName)?;
    ensure(signature::verifies(issuer.public_key().raw, certificate.as_raw()), InspectError::Signature)
}

/// Each of the six extensions of the profile once, and no other.
fn inspect_extensions(
    certificate: &X509Certificate<'_>,
    template: &SvidTemplate,
    issuer: &X509Certificate<'_>,
) -> Result<(), InspectError> {
    ensure(certificate.extensions_map().is_ok(), InspectError::Extensions)?;
    ensure(certificate.extensions().len() == 6, InspectError::Extensions)?;
    for extension in certificate.extensions() {
        let critical = extension.critical;
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                let expected = expected_names(template);
                let found: Vec<_> = names.general_names.iter().map(found_name).collect();
                ensure(critical && found == expected, InspectError::Names)?;
            }
            ParsedExtension::KeyUsage(usage) => {
                ensure(critical && usage.flags == DIGITAL_SIGNATURE_ONLY, InspectError::Usage)?;
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let others = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing
                    || !usage.other.is_empty();
                ensure(usage.server_auth && usage.client_auth && !others, InspectError::Usage)?;
            }
            ParsedExtension::BasicConstraints(constraints) => {
                let leaf = critical && !constraints.ca && constraints.path_len_constraint.is_none();
                ensure(leaf, InspectError::Constraints)?;
            }
            ParsedExtension::AuthorityKeyIdentifier(identifier) => {
                let found = identifier.key_identifier.as_ref().map(|identifier| identifier.0);
                let expected = subject_key_identifier(issuer);
                ensure(found.is_some() && found == expected, InspectError::KeyIdentifier)?;
            }
            ParsedExtension::SubjectKeyIdentifier(identifier) => {
                ensure(!identifier.0.is_empty(), InspectError::KeyIdentifier)?;
            }
            _ => return Err(InspectError::Extensions),
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Name {
    Uri(String),
    Dns(String),
    Ip(Vec<u8>),
    Other,
}

fn expected_names(template: &SvidTemplate) -> Vec<Name> {
    let uri = Name::Uri(template.spiffe_id.to_string());
    let dns = template.dns_names.iter().cloned().map(Name::Dns);
    let ip = template.ip_addresses.iter().map(|address| match address {
        IpAddr::V4(address) => Name::Ip(address.octets().to_vec()),
        IpAddr::V6(address) => Name::Ip(address.octets().to_vec()),
    });
    std::iter::once(uri).chain(dns).chain(ip).collect()
}

fn found_name(name: &GeneralName<'_>) -> Name {
    match name {
        GeneralName::URI(uri) => Name::Uri((*uri).to_owned()),
        GeneralName::DNSName(name) => Name::Dns((*name).to_owned()),
        GeneralName::IPAddress(octets) => Name::Ip(octets.to_vec()),
        _ => Name::Other,
    }
}

fn ensure(holds: bool, error: InspectError) -> Result<(), InspectError> {
    if holds { Ok(()) } else { Err(error) }
}

// Bit 0 of KeyUsage as x509-parser numbers it.
const DIGITAL_SIGNATURE_ONLY: u16 = 1;
