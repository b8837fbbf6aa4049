//! The PCK certificate: Intel's word for which platform, at which TCB, a key was provisioned.
//!
//! Intel SGX PCK Certificate and CRL Profile Specification, 1.3.5: the extension 1.2.840.113741.1.13.1.

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::asn1_rs::{Any, Integer, OctetString, Oid, Sequence};
use x509_parser::prelude::FromDer;

use crate::tpm::certificate::{Certificate, CertificateError};

/// A PCK certificate; nothing of it is verified.
#[derive(Clone, Debug)]
pub(super) struct Pck {
    pub(super) certificate: Certificate,
    /// Family, model, stepping, platform type and SKU: which TCB info is for it.
    pub(super) fmspc: [u8; 6],
    pub(super) pce_id: [u8; 2],
    /// Versions of the sixteen components.
    pub(super) components: [u8; 16],
    pub(super) pce_svn: u16,
}

impl Pck {
    /// Reads one in DER.
    pub(super) fn parse(der: &[u8]) -> Result<Self, PckError> {
        let certificate = Certificate::parse(der)?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Der)?;
        let mut extensions = parsed.extensions().iter();
        let extension = extensions.find(|extension| extension.oid.to_id_string() == SGX_EXTENSIONS);
        let fields = extension.ok_or(PckError::Missing("SGX extensions"))?.value;
        let mut read = Fields::default();
        each(fields, 0, &mut |arc, value| read.take(arc, value)).ok_or(PckError::Malformed)?;
        let mut components = [0; 16];
        for (component, found) in components.iter_mut().zip(read.components) {
            *component = found.ok_or(PckError::Missing("a component's version"))?;
        }
        Ok(Pck {
            certificate,
            fmspc: read.fmspc.ok_or(PckError::Missing("FMSPC"))?,
            pce_id: read.pce_id.ok_or(PckError::Missing("PCE-ID"))?,
            components,
            pce_svn: read.pce_svn.ok_or(PckError::Missing("PCESVN"))?,
        })
    }
}

#[derive(Default)]
struct Fields {
    fmspc: Option<[u8; 6]>,
    pce_id: Option<[u8; 2]>,
    components: [Option<u8>; 16],
    pce_svn: Option<u16>,
}

impl Fields {
    /// Takes the value under an arc; `None` if it is not of the kind that belongs there.
    fn take(&mut self, arc: &str, value: &[u8]) -> Option<()> {
        match arc {
            "3" => self.pce_id = Some(octets(value)?),
            "4" => self.fmspc = Some(octets(value)?),
            "2.17" => self.pce_svn = Some(integer(value)?),
            component => {
                let number = component.strip_prefix("2.").and_then(|number| number.parse::<usize>().ok());
                let slot = number.and_then(|number| self.components.get_mut(number.checked_sub(1)?));
                if let Some(slot) = slot {
                    *slot = Some(u8::try_from(integer(value)?).ok()?);
                }
            }
        }
        Some(())
    }
}

/// Walks SEQUENCE { SEQUENCE { OID, value } … }, into those values that are such sequences themselves.
fn each(der: &[u8], depth: usize, take: &mut dyn FnMut(&str, &[u8]) -> Option<()>) -> Option<()> {
    let ([], outer) = Sequence::from_der(der).ok()? else { return None };
    let mut rest: &[u8] = &outer.content;
    while !rest.is_empty() {
        let (after, pair) = Sequence::from_der(rest).ok()?;
        rest = after;
        let (value, oid) = Oid::from_der(&pair.content).ok()?;
        let oid = oid.to_id_string();
        let arc = oid.strip_prefix(SGX_EXTENSIONS)?.strip_prefix('.')?;
        if arc == TCB && depth == 0 {
            each(value, 1, take)?;
        } else {
            take(arc, value)?;
        }
    }
    Some(())
}

fn octets<const N: usize>(der: &[u8]) -> Option<[u8; N]> {
    let ([], octets) = OctetString::from_der(der).ok()? else { return None };
    octets.as_ref().try_into().ok()
}

fn integer(der: &[u8]) -> Option<u16> {
    let ([], any) = Any::from_der(der).ok()? else { return None };
    Integer::try_from(any).ok()?.as_u16().ok()
}

/// A certificate that is not a platform's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PckError {
    /// Not a certificate that we read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The extension does not read.
    #[error("extension {SGX_EXTENSIONS} is malformed")]
    Malformed,
    /// It lacks what such a certificate has.
    #[error("no {0} in it")]
    Missing(&'static str),
}

const SGX_EXTENSIONS: &str = "1.2.840.113741.1.13.1";
const TCB: &str = "2";
