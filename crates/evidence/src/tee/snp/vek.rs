//! The certificate of the key that signs reports: AMD's word for which chip, or provider, and which firmware it is of.
//!
//! VCEK and VLEK Certificate and KDS Interface Specification: extensions under 1.3.6.1.4.1.3704.1.

use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::product::Product;
use super::report::SigningKey;
use super::tcb::Tcb;
use crate::tpm::certificate::{Certificate, CertificateError};

/// A versioned endorsement key's certificate; nothing of it is verified.
#[derive(Clone, Debug)]
pub(super) struct Vek {
    pub(super) certificate: Certificate,
    pub(super) kind: SigningKey,
    pub(super) product: Product,
    pub(super) tcb: Tcb,
    /// The chip's, of a VCEK: 64 bytes, of Turin 8.
    pub(super) hwid: Option<Vec<u8>>,
    /// The cloud provider's, of a VLEK.
    pub(super) csp_id: Option<String>,
}

impl Vek {
    /// Reads one in DER.
    pub(super) fn parse(der: &[u8]) -> Result<Self, VekError> {
        let certificate = Certificate::parse(der)?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CertificateError::Der)?;
        let mut fields = Fields::default();
        for extension in parsed.extensions() {
            if let Some(arc) = extension.oid.to_id_string().strip_prefix(AMD_ARC) {
                fields.take(arc, extension.value)?;
            }
        }
        let kind = kind(&parsed)?;
        let product = fields.product.ok_or(VekError::Missing("productName"))?;
        match kind {
            SigningKey::Vcek if fields.hwid.is_none() => return Err(VekError::Missing("hwID")),
            SigningKey::Vlek if fields.csp_id.is_none() => return Err(VekError::Missing("cspID")),
            _ => {}
        }
        let part = |name, value: Option<u8>| value.ok_or(VekError::Missing(name));
        let tcb = Tcb {
            fmc: match product {
                Product::Milan | Product::Genoa => None,
                Product::Turin => Some(part("fmcSPL", fields.fmc)?),
            },
            bootloader: part("blSPL", fields.bootloader)?,
            tee: part("teeSPL", fields.tee)?,
            snp: part("snpSPL", fields.snp)?,
            microcode: part("ucodeSPL", fields.microcode)?,
        };
        Ok(Vek { certificate, kind, product, tcb, hwid: fields.hwid, csp_id: fields.csp_id })
    }

    /// The common name that its issuer has: other keys of AMD's sign other things.
    pub(super) fn issuer_name(&self) -> String {
        match self.kind {
            SigningKey::Vcek => format!("SEV-{}", self.product),
            SigningKey::Vlek => format!("SEV-VLEK-{}", self.product),
        }
    }

    /// The common name of the issuer that it names.
    pub(super) fn issuer_found(&self) -> &str {
        common_name(&self.certificate.issuer_text)
    }
}

#[derive(Default)]
struct Fields {
    product: Option<Product>,
    fmc: Option<u8>,
    bootloader: Option<u8>,
    tee: Option<u8>,
    snp: Option<u8>,
    microcode: Option<u8>,
    hwid: Option<Vec<u8>>,
    csp_id: Option<String>,
}

impl Fields {
    /// Takes the extension that stands under `arc`.
    fn take(&mut self, arc: &str, value: &[u8]) -> Result<(), VekError> {
        let malformed = || VekError::Extension(format!("{AMD_ARC}{arc}"));
        let small = || small_integer(value).ok_or_else(malformed);
        let text = || ia5_string(value).ok_or_else(malformed);
        match arc {
            "2" => {
                let name = text()?;
                self.product = Some(Product::from_name(name).ok_or_else(|| VekError::product(name))?);
            }
            "3.1" => self.bootloader = Some(small()?),
            "3.2" => self.tee = Some(small()?),
            "3.3" => self.snp = Some(small()?),
            "3.8" => self.microcode = Some(small()?),
            "3.9" => self.fmc = Some(small()?),
            "4" => self.hwid = Some(hwid(value).ok_or_else(malformed)?),
            "5" => self.csp_id = Some(text()?.to_owned()),
            // The structure's version, and parts of the TCB that are spare.
            _ => {}
        }
        Ok(())
    }
}

/// Whether it says that it is one.
pub(super) fn is_vek(der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| kind(&certificate).is_ok())
}

fn kind(certificate: &X509Certificate<'_>) -> Result<SigningKey, VekError> {
    let subject = certificate.subject().to_string();
    match common_name(&subject) {
        "SEV-VCEK" => Ok(SigningKey::Vcek),
        "SEV-VLEK" => Ok(SigningKey::Vlek),
        _ => Err(VekError::Kind(subject)),
    }
}

/// The CN of a name as the parser writes it.
fn common_name(name: &str) -> &str {
    name.split(", ").find_map(|attribute| attribute.strip_prefix("CN=")).unwrap_or_default()
}

/// A DER INTEGER from 0 to 255.
fn small_integer(der: &[u8]) -> Option<u8> {
    match der {
        [0x02, 1, value] if *value < 0x80 => Some(*value),
        [0x02, 2, 0, value] if *value >= 0x80 => Some(*value),
        _ => None,
    }
}

fn ia5_string(der: &[u8]) -> Option<&str> {
    let [0x16, length, text @ ..] = der else { return None };
    let text = std::str::from_utf8(text).ok()?;
    (usize::from(*length) == text.len() && text.is_ascii() && text.len() < 0x80).then_some(text)
}

/// Most certificates hold the bytes as they are, some hold them in an OCTET STRING.
fn hwid(value: &[u8]) -> Option<Vec<u8>> {
    match value {
        [0x04, 8, bytes @ ..] if bytes.len() == 8 => Some(bytes.to_vec()),
        [0x04, 64, bytes @ ..] if bytes.len() == 64 => Some(bytes.to_vec()),
        bytes => matches!(bytes.len(), 8 | 64).then(|| bytes.to_vec()),
    }
}

/// A certificate that is not one of an endorsement key for reports.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VekError {
    /// Not a certificate that we read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Neither VCEK nor VLEK.
    #[error("a certificate of {0:?}, which is neither SEV-VCEK nor SEV-VLEK")]
    Kind(String),
    /// A product whose root and layouts are not known.
    #[error("product {0:?}; Milan, Genoa and Turin are known")]
    Product(String),
    /// It lacks what such a certificate has.
    #[error("no extension {0}")]
    Missing(&'static str),
    /// An extension of AMD's that does not read.
    #[error("extension {0} is malformed")]
    Extension(String),
}

impl VekError {
    fn product(name: &str) -> Self {
        VekError::Product(name.chars().take(NAME_CHARACTERS_MAX).collect())
    }
}

/// AMD's arc for these certificates.
const AMD_ARC: &str = "1.3.6.1.4.1.3704.1.";
/// Of a name that is shown in an error.
const NAME_CHARACTERS_MAX: usize = 32;
