//! The SPIFFE rules for a leaf certificate that somebody presents (X509-SVID §2-§5).

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::unix_time;
use crate::life::Life;
use crate::serial::Serial;
use crate::spiffe_id::SpiffeId;
use crate::verify::SvidError;

/// The SPIFFE ID that a leaf states, if it keeps every rule that needs no other certificate. It authenticates nobody:
/// [`verify_svid`](crate::verify_svid) does.
pub fn presented_id(der: &[u8]) -> Result<SpiffeId, SvidError> {
    Leaf::parse(der).map(|leaf| leaf.spiffe_id)
}

/// What a presented leaf says of itself; nothing of it is verified yet.
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) serial: Serial,
    pub(crate) life: Life,
    pub(crate) spki: Vec<u8>,
    /// The issuer's name, DER.
    pub(crate) issuer: Vec<u8>,
}

impl Leaf {
    /// Parses a leaf and applies every rule that needs no other certificate.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, SvidError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SvidError::Malformed)?;
        // Two copies of an extension would leave open which one counts.
        if !rest.is_empty() || certificate.extensions_map().is_err() {
            return Err(SvidError::Malformed);
        }
        check_usage(&certificate)?;
        Ok(Leaf {
            spiffe_id: spiffe_id(&certificate)?,
            serial: Serial::from_integer(certificate.raw_serial()).ok_or(SvidError::Malformed)?,
            life: Life::of(
                unix_time(certificate.validity().not_before),
                unix_time(certificate.validity().not_after),
            ),
            spki: certificate.public_key().raw.to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }
}

/// Exactly one URI SAN, and it is a SPIFFE ID with a path.
fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = certificate.subject_alternative_name().map_err(|_| SvidError::Malformed)?;
    let names = names.iter().flat_map(|extension| extension.value.general_names.iter());
    let mut uris = names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(SvidError::UriNames);
    };
    let id = SpiffeId::parse(uri).map_err(SvidError::SpiffeId)?;
    // A trust domain's own ID is its authorities', and those must not authenticate.
    if id.path().is_empty() { Err(SvidError::SigningCertificate) } else { Ok(id) }
}

fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = certificate.basic_constraints().map_err(|_| SvidError::Malformed)?;
    if constraints.is_some_and(|extension| extension.value.ca) {
        return Err(SvidError::SigningCertificate);
    }
    let Some(usage) = certificate.key_usage().map_err(|_| SvidError::Malformed)? else {
        return Err(SvidError::KeyUsage);
    };
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(SvidError::SigningCertificate);
    }
    if !usage.critical || !usage.value.digital_signature() {
        return Err(SvidError::KeyUsage);
    }
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(purposes)
                if !(purposes.server_auth && purposes.client_auth) =>
            {
                return Err(SvidError::ExtendedKeyUsage);
            }
            ParsedExtension::ParseError { .. } => return Err(SvidError::Malformed),
            _ => {}
        }
    }
    Ok(())
}
