//! TPMT_PUBLIC: what a key is, and the rules an AK, an EK and a device key have to keep.
//!
//! The attributes are only worth something once the TPM vouches for the area: by credential activation for the
//! AK, by the EK certificate for the EK's key, by TPM2_Certify for the device key.

use std::fmt;

use thiserror::Error;

use super::name::Name;
use super::public_key::{PublicKey, SignatureAlgorithm, SignatureError};
use super::signature::{Signature, scheme_from_tpm_id};
use crate::check::{Check, Failure};
use crate::der::strip_zeros;
use crate::digest::HashAlgorithm;
use crate::read::{Reader, Truncated};

/// TPMA_OBJECT: what the TPM lets a key do (TPM 2.0 Part 2, 8.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Attributes(pub u32);

impl Attributes {
    /// Never leaves this TPM.
    pub const FIXED_TPM: Attributes = Attributes(1 << 1);
    /// Never moves to another parent.
    pub const FIXED_PARENT: Attributes = Attributes(1 << 4);
    /// The TPM made the secret.
    pub const SENSITIVE_DATA_ORIGIN: Attributes = Attributes(1 << 5);
    /// Works only on what the TPM itself made.
    pub const RESTRICTED: Attributes = Attributes(1 << 16);
    /// Decrypts.
    pub const DECRYPT: Attributes = Attributes(1 << 17);
    /// Signs.
    pub const SIGN: Attributes = Attributes(1 << 18);

    /// Whether all of `other` is set.
    pub fn contains(self, other: Attributes) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// The symmetric cipher a storage or endorsement key protects things with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symmetric {
    /// TPM_ALG_ID of the cipher.
    pub algorithm: u16,
    /// Key size.
    pub bits: u16,
    /// TPM_ALG_ID of the mode.
    pub mode: u16,
}

/// The public area of an RSA or ECC key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicArea {
    raw: Vec<u8>,
    name_algorithm: HashAlgorithm,
    attributes: Attributes,
    symmetric: Option<Symmetric>,
    scheme: Option<SignatureAlgorithm>,
    key: PublicKey,
}

impl PublicArea {
    /// Reads a TPM2B_PUBLIC, all of it.
    pub fn parse_tpm2b(bytes: &[u8]) -> Result<Self, PublicAreaError> {
        let mut outer = Reader::new(bytes);
        let raw = outer.tpm2b()?;
        match outer.rest().len() {
            0 => Self::parse(raw),
            surplus => Err(PublicAreaError::Surplus(surplus)),
        }
    }

    /// Reads a TPMT_PUBLIC, all of it (TPM 2.0 Part 2, 12.2.4).
    pub fn parse(raw: &[u8]) -> Result<Self, PublicAreaError> {
        let mut reader = Reader::new(raw);
        let kind = reader.u16_be()?;
        let name_id = reader.u16_be()?;
        let name_algorithm =
            HashAlgorithm::from_tpm_id(name_id).ok_or(PublicAreaError::NameAlgorithm(name_id))?;
        let attributes = Attributes(reader.u32_be()?);
        let _policy = reader.tpm2b()?;
        let (symmetric, scheme, key) = match kind {
            ALG_RSA => rsa(&mut reader)?,
            ALG_ECC => ecc(&mut reader)?,
            _ => return Err(PublicAreaError::Kind(kind)),
        };
        match reader.rest().len() {
            0 => Ok(PublicArea { raw: raw.to_vec(), name_algorithm, attributes, symmetric, scheme, key }),
            surplus => Err(PublicAreaError::Surplus(surplus)),
        }
    }

    /// The key's numbers.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// What the TPM lets it do.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The hash of its Name.
    pub fn name_algorithm(&self) -> HashAlgorithm {
        self.name_algorithm
    }

    /// The signature scheme it is bound to, if any.
    pub fn scheme(&self) -> Option<SignatureAlgorithm> {
        self.scheme
    }

    /// The cipher it protects children and credentials with, if it decrypts.
    pub fn symmetric(&self) -> Option<Symmetric> {
        self.symmetric
    }

    /// The marshalled TPMT_PUBLIC.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Its Name.
    pub fn name(&self) -> Name {
        Name::of(self.name_algorithm, &self.raw)
    }

    /// The key as DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> Vec<u8> {
        self.key.spki_der()
    }

    /// Checks a signature, and that it is of the scheme the key is bound to.
    pub fn verify(&self, signature: &Signature, message: &[u8]) -> Result<(), SignatureError> {
        match self.scheme {
            Some(key) if key != signature.algorithm() => {
                Err(SignatureError::KeyScheme { key, found: signature.algorithm() })
            }
            _ => signature.verify(&self.key, message),
        }
    }

    /// What keeps it from being an attestation key: a TPM-made, restricted signing key.
    pub fn check_ak(&self) -> Vec<Failure> {
        self.check_attestation_key(Check::AkAttributes)
    }

    /// What keeps it from being an attestation key of any standing, an IAK among them.
    pub(super) fn check_attestation_key(&self, check: Check) -> Vec<Failure> {
        let mut rules = Rules { check, area: self, failures: Vec::new() };
        rules.resident();
        // An unrestricted key would sign a forged TPMS_ATTEST handed to it as plain data.
        rules.attribute(Attributes::RESTRICTED, "restricted", true);
        rules.attribute(Attributes::SIGN, "sign", true);
        rules.attribute(Attributes::DECRYPT, "decrypt", false);
        rules.key_size();
        rules.strong_name();
        let scheme = self.scheme.map_or("none".to_owned(), |scheme| scheme.to_string());
        let strong = self.scheme.is_some_and(|scheme| scheme.hash != HashAlgorithm::Sha1);
        rules.holds(strong, "signature scheme", "RSASSA, RSAPSS or ECDSA with SHA-256 or better", &scheme);
        rules.failures
    }

    /// What keeps it from being an endorsement key: a TPM-made, restricted decryption key.
    pub fn check_ek(&self) -> Vec<Failure> {
        let mut rules = Rules { check: Check::EkPublic, area: self, failures: Vec::new() };
        rules.resident();
        // An unrestricted key would decrypt a credential for whoever asks, AK or no AK.
        rules.attribute(Attributes::RESTRICTED, "restricted", true);
        rules.attribute(Attributes::DECRYPT, "decrypt", true);
        rules.attribute(Attributes::SIGN, "sign", false);
        rules.key_size();
        rules.strong_name();
        let found = format!("{:?}", self.symmetric);
        rules.holds(
            self.aes_cfb_bits().is_some(),
            "symmetric cipher",
            "AES-128 or AES-256 in CFB mode",
            &found,
        );
        rules.failures
    }

    /// What keeps it from being a device key: a TPM-made key for signing anything.
    pub fn check_device_key(&self) -> Vec<Failure> {
        self.check_signing_key(Check::DeviceKeyCertify)
    }

    /// What keeps it from being a key that secrets are sealed to: a TPM-made key of P-256 for exchanges, which signs nothing.
    pub fn check_exchange_key(&self) -> Vec<Failure> {
        let mut rules = Rules { check: Check::DeviceKeyCertify, area: self, failures: Vec::new() };
        rules.resident();
        rules.attribute(Attributes::DECRYPT, "decrypt", true);
        rules.attribute(Attributes::RESTRICTED, "restricted", false);
        rules.attribute(Attributes::SIGN, "sign", false);
        let found = self.key.to_string();
        rules.holds(matches!(self.key, PublicKey::EcP256 { .. }), "key", "ECC P-256", &found);
        rules.strong_name();
        rules.failures
    }

    /// What keeps it from being a key for signing anything, an IDevID among them.
    pub(super) fn check_signing_key(&self, check: Check) -> Vec<Failure> {
        let mut rules = Rules { check, area: self, failures: Vec::new() };
        rules.resident();
        rules.attribute(Attributes::SIGN, "sign", true);
        rules.attribute(Attributes::RESTRICTED, "restricted", false);
        rules.attribute(Attributes::DECRYPT, "decrypt", false);
        rules.key_size();
        rules.strong_name();
        rules.failures
    }

    /// Key bits of the AES-CFB cipher that a credential for this key is protected with.
    pub(super) fn aes_cfb_bits(&self) -> Option<u16> {
        self.symmetric
            .filter(|cipher| cipher.algorithm == ALG_AES && cipher.mode == ALG_CFB)
            .map(|cipher| cipher.bits)
            .filter(|bits| matches!(bits, 128 | 256))
    }
}

/// Bytes that are not a public area we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PublicAreaError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Neither RSA nor ECC.
    #[error("object of unknown type {0:#06x}")]
    Kind(u16),
    /// A hash we do not know.
    #[error("unknown name algorithm {0:#06x}")]
    NameAlgorithm(u16),
    /// A signature scheme or its hash that we do not know.
    #[error("unknown scheme {scheme:#06x} with hash {hash:#06x}")]
    Scheme {
        /// The scheme's TPM_ALG_ID.
        scheme: u16,
        /// The hash's TPM_ALG_ID.
        hash: u16,
    },
    /// Neither P-256 nor P-384.
    #[error("unsupported curve {0:#06x}")]
    Curve(u16),
    /// A modulus or coordinate does not have the stated size.
    #[error("{found} bytes of key where {expected} belong")]
    KeySize {
        /// What the parameters ask for.
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Bytes follow.
    #[error("{0} bytes after the public area")]
    Surplus(usize),
}

/// Collects what an area breaks of one kind of key's rules.
struct Rules<'a> {
    check: Check,
    area: &'a PublicArea,
    failures: Vec<Failure>,
}

impl Rules<'_> {
    fn holds(&mut self, good: bool, claim: &str, expected: &str, found: &str) {
        if !good {
            self.failures.push(Failure::new(self.check, claim, expected, found));
        }
    }

    fn attribute(&mut self, attribute: Attributes, name: &str, wanted: bool) {
        let text = |set| if set { "set" } else { "clear" };
        let found = self.area.attributes.contains(attribute);
        self.holds(found == wanted, name, text(wanted), text(found));
    }

    /// The key was made in this TPM and can never be anywhere else.
    fn resident(&mut self) {
        self.attribute(Attributes::FIXED_TPM, "fixedTPM", true);
        self.attribute(Attributes::FIXED_PARENT, "fixedParent", true);
        self.attribute(Attributes::SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin", true);
    }

    fn key_size(&mut self) {
        if let PublicKey::Rsa { exponent, .. } = self.area.key {
            let bits = self.area.key.bits();
            self.holds(bits >= RSA_BITS_MIN, "key size", "RSA-2048 or more", &self.area.key.to_string());
            self.holds(exponent == RSA_EXPONENT, "public exponent", "65537", &exponent.to_string());
        }
    }

    fn strong_name(&mut self) {
        let algorithm = self.area.name_algorithm;
        self.holds(algorithm != HashAlgorithm::Sha1, "name algorithm", "SHA-256 or better", algorithm.name());
    }
}

type Parameters = (Option<Symmetric>, Option<SignatureAlgorithm>, PublicKey);

/// TPMS_RSA_PARMS and TPM2B_PUBLIC_KEY_RSA.
fn rsa(reader: &mut Reader<'_>) -> Result<Parameters, PublicAreaError> {
    let symmetric = symmetric(reader)?;
    let scheme = scheme(reader)?;
    let bits = reader.u16_be()?;
    // Zero stands for the default exponent.
    let exponent = match reader.u32_be()? {
        0 => RSA_EXPONENT,
        exponent => exponent,
    };
    let modulus = reader.tpm2b()?;
    let expected = usize::from(bits) / 8;
    if modulus.len() != expected || modulus.first().is_none_or(|byte| *byte < 0x80) {
        return Err(PublicAreaError::KeySize { expected, found: strip_zeros(modulus).len() });
    }
    Ok((symmetric, scheme, PublicKey::Rsa { modulus: modulus.to_vec(), exponent }))
}

/// TPMS_ECC_PARMS and TPMS_ECC_POINT.
fn ecc(reader: &mut Reader<'_>) -> Result<Parameters, PublicAreaError> {
    let symmetric = symmetric(reader)?;
    let scheme = scheme(reader)?;
    let curve = reader.u16_be()?;
    if reader.u16_be()? != ALG_NULL {
        // A key derivation scheme comes with its hash; no TPM uses one here.
        reader.u16_be()?;
    }
    let (x, y) = (reader.tpm2b()?, reader.tpm2b()?);
    let key = match curve {
        CURVE_P256 => PublicKey::EcP256 { x: coordinate(x)?, y: coordinate(y)? },
        CURVE_P384 => PublicKey::EcP384 { x: coordinate(x)?, y: coordinate(y)? },
        _ => return Err(PublicAreaError::Curve(curve)),
    };
    Ok((symmetric, scheme, key))
}

/// TPMT_SYM_DEF_OBJECT.
fn symmetric(reader: &mut Reader<'_>) -> Result<Option<Symmetric>, PublicAreaError> {
    match reader.u16_be()? {
        ALG_NULL => Ok(None),
        algorithm => Ok(Some(Symmetric { algorithm, bits: reader.u16_be()?, mode: reader.u16_be()? })),
    }
}

/// TPMT_RSA_SCHEME or TPMT_ECC_SCHEME; the schemes that do not sign count as none.
fn scheme(reader: &mut Reader<'_>) -> Result<Option<SignatureAlgorithm>, PublicAreaError> {
    let id = reader.u16_be()?;
    match (id, scheme_from_tpm_id(id)) {
        (ALG_NULL | ALG_RSAES, _) => Ok(None),
        (ALG_OAEP | ALG_ECDH, _) => reader.u16_be().map(|_| None).map_err(PublicAreaError::from),
        (_, Some(scheme)) => {
            let hash_id = reader.u16_be()?;
            let hash = HashAlgorithm::from_tpm_id(hash_id)
                .ok_or(PublicAreaError::Scheme { scheme: id, hash: hash_id })?;
            Ok(Some(SignatureAlgorithm { scheme, hash }))
        }
        _ => Err(PublicAreaError::Scheme { scheme: id, hash: 0 }),
    }
}

/// A coordinate, to which some TPMs add and from which some drop leading zeros.
fn coordinate<const N: usize>(bytes: &[u8]) -> Result<[u8; N], PublicAreaError> {
    let digits = strip_zeros(bytes);
    let mut padded = [0; N];
    match N.checked_sub(digits.len()).and_then(|start| padded.get_mut(start..)) {
        Some(tail) => tail.copy_from_slice(digits),
        None => return Err(PublicAreaError::KeySize { expected: N, found: digits.len() }),
    }
    Ok(padded)
}

/// NIST SP 800-131A: nothing shorter is acceptable.
const RSA_BITS_MIN: usize = 2048;
const RSA_EXPONENT: u32 = 65537;

// TCG Algorithm Registry.
const ALG_RSA: u16 = 0x0001;
const ALG_AES: u16 = 0x0006;
const ALG_NULL: u16 = 0x0010;
const ALG_RSAES: u16 = 0x0015;
const ALG_OAEP: u16 = 0x0017;
const ALG_ECDH: u16 = 0x0019;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
const CURVE_P384: u16 = 0x0004;

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 AK with zeros before its coordinates, as some TPMs write them.
    fn ecc(curve: u8, x: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0];
        bytes.extend([0, 0x10, 0, 0x18, 0, 0x0b, 0, curve, 0, 0x10]);
        bytes.extend([0, u8::try_from(x.len()).unwrap()]);
        bytes.extend(x);
        bytes.extend([0, 2, 0, 9]);
        bytes
    }

    #[test]
    fn coordinates_are_padded_to_the_curve() {
        let area = PublicArea::parse(&ecc(3, &[0, 0, 7])).unwrap();
        let PublicKey::EcP256 { x, y } = area.key() else { panic!("not P-256") };
        assert_eq!((x.last(), y.last()), (Some(&7), Some(&9)));
        assert_eq!(area.scheme().unwrap().to_string(), "ecdsa-sha256");
        assert_eq!(area.check_ak(), []);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |bytes: &[u8]| PublicArea::parse(bytes).unwrap_err();
        assert_eq!(error(&ecc(5, &[7])), PublicAreaError::Curve(5));
        assert_eq!(error(&ecc(3, &[7; 33])), PublicAreaError::KeySize { expected: 32, found: 33 });
        assert_eq!(error(&[ecc(3, &[7]), vec![0]].concat()), PublicAreaError::Surplus(1));
        assert_eq!(error(&[0, 8, 0, 0x0b, 0, 0, 0, 0, 0, 0]), PublicAreaError::Kind(8));
        assert_eq!(error(&[0, 1, 0, 0x12]), PublicAreaError::NameAlgorithm(0x12));
        let good = ecc(3, &[7; 32]);
        for length in 0..good.len() {
            assert!(PublicArea::parse(good.get(..length).unwrap()).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn an_rsa_modulus_has_the_stated_size() {
        let rsa = |bits: u16, modulus: &[u8]| {
            let mut bytes = vec![0, 1, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x14, 0, 0x0b];
            bytes.extend(bits.to_be_bytes());
            bytes.extend([0, 0, 0, 0]);
            bytes.extend(u16::try_from(modulus.len()).unwrap().to_be_bytes());
            bytes.extend(modulus);
            PublicArea::parse(&bytes)
        };
        assert_eq!(rsa(2048, &[0x80; 256]).unwrap().check_ak(), []);
        assert!(matches!(rsa(2048, &[0x80; 128]), Err(PublicAreaError::KeySize { .. })));
        assert!(matches!(rsa(2048, &[0x01; 256]), Err(PublicAreaError::KeySize { .. })));
        let small: Vec<String> =
            rsa(1024, &[0x80; 128]).unwrap().check_ak().iter().map(|f| f.claim.clone()).collect();
        assert_eq!(small, ["key size"]);
    }
}
