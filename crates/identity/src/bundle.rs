//! The authorities of one trust domain, and the three forms bundles travel in.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::authority::parse_authority;
use crate::serial::Serial;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::x509_svid::unix_time;

/// The signing certificates a trust domain is verified with.
///
/// An empty bundle is a bundle: everything was revoked, so nothing verifies.
#[derive(Clone, Debug)]
pub struct Bundle {
    trust_domain: TrustDomain,
    authorities: Vec<Authority>,
}

#[derive(Clone, Debug)]
struct Authority {
    der: Vec<u8>,
    anchor: TrustAnchor<'static>,
    not_before: UnixTime,
    not_after: UnixTime,
}

/// Why bytes are not a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// More than any bundle has.
    #[error("a bundle has at most {AUTHORITIES_MAX} authorities in {BUNDLE_BYTES_MAX} bytes")]
    TooLarge,
    /// A certificate that does not parse, or may not sign.
    #[error("authority {index} is not a signing certificate")]
    NotAnAuthority {
        /// Which one, from 0.
        index: usize,
    },
    /// An authority that names another trust domain.
    #[error("authority {index} is of another trust domain")]
    TrustDomain {
        /// Which one, from 0.
        index: usize,
    },
    /// Not PEM.
    #[error("not PEM")]
    Pem,
    /// Not a SPIFFE bundle document.
    #[error("not a SPIFFE bundle document")]
    Document,
}

impl Bundle {
    /// Makes a bundle of DER certificates; an authority listed twice counts once.
    pub fn new<C: AsRef<[u8]>>(
        trust_domain: TrustDomain,
        authorities: impl IntoIterator<Item = C>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Bundle { trust_domain, authorities: Vec::new() };
        for (index, der) in authorities.into_iter().enumerate() {
            if index >= AUTHORITIES_MAX {
                return Err(BundleError::TooLarge);
            }
            let authority = bundle.authority(index, der.as_ref())?;
            if bundle.authorities.iter().all(|known| known.der != authority.der) {
                bundle.authorities.push(authority);
            }
        }
        Ok(bundle)
    }

    /// Reads concatenated DER, the Workload API's form.
    pub fn from_der(trust_domain: TrustDomain, bytes: &[u8]) -> Result<Self, BundleError> {
        check_size(bytes)?;
        let authorities = split_certificates(bytes).map_err(|index| BundleError::NotAnAuthority { index })?;
        Self::new(trust_domain, authorities)
    }

    /// Reads PEM `CERTIFICATE` sections.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        check_size(pem)?;
        let authorities: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| BundleError::Pem)?;
        Self::new(trust_domain, authorities)
    }

    /// Reads a SPIFFE bundle document; keys of other uses are passed over.
    pub fn from_jwks(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleError> {
        check_size(json)?;
        let document: Document = serde_json::from_slice(json).map_err(|_| BundleError::Document)?;
        let mut authorities = Vec::new();
        for key in document.keys.iter().filter(|key| key.usage.as_deref() == Some(X509_SVID_USE)) {
            // Trust domain and bundle §4.2.2: x5c holds exactly one certificate.
            let [certificate] = key.x5c.as_slice() else {
                return Err(BundleError::Document);
            };
            authorities.push(BASE64.decode(certificate.as_bytes()).map_err(|_| BundleError::Document)?);
        }
        Self::new(trust_domain, authorities)
    }

    /// Whose bundle it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The certificates, DER.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.iter().map(|authority| authority.der.as_slice())
    }

    /// Concatenated DER.
    pub fn to_der(&self) -> Vec<u8> {
        self.authorities().collect::<Vec<_>>().concat()
    }

    /// PEM sections.
    pub fn to_pem(&self) -> String {
        pem_certificates(self.authorities())
    }

    /// The SPIFFE bundle document, with its sequence number and how often to fetch it.
    pub fn to_jwks(&self, sequence: u64, refresh_hint_seconds: u64) -> String {
        let keys = self.authorities().filter_map(Jwk::of_authority).collect();
        let document = Document {
            keys,
            spiffe_sequence: Some(sequence),
            spiffe_refresh_hint: Some(refresh_hint_seconds),
        };
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }

    /// The trust anchors whose own dates hold: path validation does not look at an anchor's dates.
    pub(crate) fn anchors(&self, now: UnixTime) -> Vec<TrustAnchor<'static>> {
        let alive = |authority: &&Authority| authority.not_before <= now && now <= authority.not_after;
        self.authorities.iter().filter(alive).map(|authority| authority.anchor.clone()).collect()
    }

    fn authority(&self, index: usize, der: &[u8]) -> Result<Authority, BundleError> {
        let certificate = parse_authority(der).ok_or(BundleError::NotAnAuthority { index })?;
        let der_type = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&der_type)
            .map_err(|_| BundleError::NotAnAuthority { index })?
            .to_owned();
        if !names_only(&certificate, &self.trust_domain) {
            return Err(BundleError::TrustDomain { index });
        }
        let validity = certificate.validity();
        let (not_before, not_after) = (unix_time(validity.not_before), unix_time(validity.not_after));
        Ok(Authority { der: der.to_vec(), anchor, not_before, not_after })
    }
}

/// Concatenated DER certificates, each for itself; the place of the first that is none.
pub fn split_certificates(mut bytes: &[u8]) -> Result<Vec<&[u8]>, usize> {
    let mut certificates = Vec::new();
    while !bytes.is_empty() {
        let (rest, _) = X509Certificate::from_der(bytes).map_err(|_| certificates.len())?;
        certificates.extend(bytes.get(..bytes.len() - rest.len()));
        bytes = rest;
    }
    Ok(certificates)
}

/// Whether a certificate names this authority as its issuer.
pub fn names_issuer(certificate: &[u8], authority: &[u8]) -> bool {
    let parsed = (X509Certificate::from_der(certificate), X509Certificate::from_der(authority));
    let (Ok((_, certificate)), Ok((_, authority))) = parsed else { return false };
    certificate.issuer().as_raw() == authority.subject().as_raw()
}

/// The key that a certificate is for, SubjectPublicKeyInfo DER.
pub fn subject_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

/// A certificate's serial number.
pub fn serial(certificate: &[u8]) -> Option<Serial> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Serial::from_integer(certificate.raw_serial())
}

/// From when until when a certificate is good.
pub fn life(certificate: &[u8]) -> Option<(UnixTime, UnixTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((unix_time(validity.not_before), unix_time(validity.not_after)))
}

/// Whether a certificate is for this key, SubjectPublicKeyInfo DER.
pub fn certifies(certificate: &[u8], spki: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, certificate)| certificate.public_key().raw == spki)
}

/// Renders certificates as PEM.
pub fn pem_certificates<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> String {
    certificates.into_iter().map(|der| pem("CERTIFICATE", der.as_ref())).collect()
}

/// RFC 7468, lines of 64.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n");
    format!("-----BEGIN {label}-----\n{}-----END {label}-----\n", lines.collect::<String>())
}

/// X509-SVID §3.1: the URI name of a signing certificate, where there is one, is its trust domain.
fn names_only(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> bool {
    let Ok(names) = certificate.subject_alternative_name() else {
        return false;
    };
    let names = names.iter().flat_map(|extension| extension.value.general_names.iter());
    names.into_iter().all(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => {
            SpiffeId::parse(uri).is_ok_and(|id| id == domain.id())
        }
        _ => true,
    })
}

fn check_size(bytes: &[u8]) -> Result<(), BundleError> {
    if bytes.len() > BUNDLE_BYTES_MAX { Err(BundleError::TooLarge) } else { Ok(()) }
}

#[derive(Serialize, Deserialize)]
struct Document {
    keys: Vec<Jwk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Default, Serialize, Deserialize)]
struct Jwk {
    #[serde(default)]
    kty: String,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(default)]
    x5c: Vec<String>,
}

impl Jwk {
    fn of_authority(der: &[u8]) -> Option<Jwk> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let base =
            Jwk { usage: Some(X509_SVID_USE.to_owned()), x5c: vec![BASE64.encode(der)], ..Jwk::default() };
        let key = match certificate.public_key().parsed().ok()? {
            PublicKey::EC(point) => {
                // SEC 1 §2.3.3: 0x04, then both coordinates.
                let coordinates = point.data().strip_prefix(&[0x04])?;
                let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
                let crv = if x.len() == 32 { "P-256" } else { "P-384" };
                Jwk {
                    kty: "EC".to_owned(),
                    crv: Some(crv.to_owned()),
                    x: Some(BASE64URL_NOPAD.encode(x)),
                    y: Some(BASE64URL_NOPAD.encode(y)),
                    ..base
                }
            }
            PublicKey::RSA(rsa) => Jwk {
                kty: "RSA".to_owned(),
                n: Some(unsigned(rsa.modulus)),
                e: Some(unsigned(rsa.exponent)),
                ..base
            },
            _ => return None,
        };
        Some(key)
    }
}

/// RFC 7518 §2, Base64urlUInt: no leading zeros.
fn unsigned(integer: &[u8]) -> String {
    let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len());
    BASE64URL_NOPAD.encode(integer.get(start..).unwrap_or_default())
}

const X509_SVID_USE: &str = "x509-svid";
// Authorities of a large deployment: one per server and rotation. A PEM certificate is under 2 KiB.
const AUTHORITIES_MAX: usize = 256;
const BUNDLE_BYTES_MAX: usize = 1 << 20;
