//! Arm CCA: a token in two parts, one of the realm and one of the platform that runs it.
//!
//! The platform signs with a key that its maker gave it and of which there is no certificate: the operator names it. It vouches for
//! the realm's attestation key (RAK) by that key's hash in place of a nonce, and the RAK signs what the realm is and the
//! verifier's challenge. draft-ffm-rats-cca-token, and the profile before it; CBOR and COSE by `coset`.

use coset::cbor::value::Value;
use coset::{AsCborValue, CborSerializable, CoseKey, CoseSign1, Label, RegisteredLabelWithPrivate, iana};
use serde::Deserialize;
use thiserror::Error;

use super::Verified;
use crate::check::{Check, Failure};
use crate::der;
use crate::digest::HashAlgorithm;
use crate::tpm::public_key::{PublicKey, SignatureAlgorithm, SignatureScheme};

/// The key of a platform, as its maker or operator names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformKey {
    key: PublicKey,
    /// Which one it is for; `None`: whichever shows it.
    instance: Option<Vec<u8>>,
    implementation: Option<Vec<u8>>,
}

/// What the verifier knows, and asked for.
#[derive(Clone, Debug, Default)]
pub struct CcaExpectation {
    /// What the realm's challenge has to be; `None` where nobody asked.
    pub challenge: Option<[u8; 64]>,
    /// The platforms that count.
    pub keys: Vec<PlatformKey>,
}

/// What a genuine token says. Made by [`verify`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CcaClaims {
    /// The platform's profile.
    pub profile: String,
    /// Which hardware design.
    pub implementation_id: Vec<u8>,
    /// Which machine.
    pub instance_id: Vec<u8>,
    /// Where in its life the platform is; 0x3000 to 0x30ff is secured.
    pub lifecycle: u16,
    /// How it is set up.
    pub configuration: Vec<u8>,
    /// What it booted.
    pub software: Vec<CcaSoftware>,
    /// What the realm was asked with.
    pub challenge: Vec<u8>,
    /// What its owner put in at the start.
    pub personalization: Vec<u8>,
    /// What was loaded before it ran.
    pub initial_measurement: Vec<u8>,
    /// What was measured since.
    pub extensible_measurements: Vec<Vec<u8>>,
}

/// One part of the platform's firmware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CcaSoftware {
    /// Its name, such as `BL`.
    pub kind: Option<String>,
    /// Its hash.
    pub measurement: Vec<u8>,
    /// The hash of the key that signed it.
    pub signer: Vec<u8>,
    /// Its version, as its maker writes it.
    pub version: Option<String>,
}

impl PlatformKey {
    /// Reads a JWK, or a list of `{"pkey": JWK, "instance-id": hex, "implementation-id": hex}`.
    pub fn from_json(json: &[u8]) -> Result<Vec<PlatformKey>, PlatformKeyError> {
        if json.len() > KEYS_BYTES_MAX {
            return Err(PlatformKeyError::TooLong(json.len()));
        }
        match serde_json::from_slice(json).map_err(PlatformKeyError::Json)? {
            KeyFile::One(jwk) => {
                Ok(vec![PlatformKey { key: jwk.key()?, instance: None, implementation: None }])
            }
            KeyFile::Many(entries) => entries.into_iter().map(Entry::key).collect(),
        }
    }
}

/// Whether the bytes start as a token does: CBOR tag 399.
pub fn is_token(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xd9, 0x01, 0x8f])
}

/// Makes every check of a token, each reported on its own. Nothing in it has an end.
pub fn verify(token: &[u8], expectation: &CcaExpectation) -> Verified<CcaClaims> {
    let unreadable = |error: &dyn std::fmt::Display| {
        Verified::refused(vec![Failure::new(Check::TeeParse, "CCA token", "a CCA token", error.to_string())])
    };
    let token = match Token::parse(token) {
        Ok(token) => token,
        Err(error) => return unreadable(&error),
    };
    let mut failures = Vec::new();
    failures.extend(check_platform(&token, &expectation.keys));
    failures.extend(check_binding(&token));
    if let Err(found) = token.realm.signature.check(&token.realm.key) {
        let expected = "a signature by the key in it";
        failures.push(Failure::new(
            Check::TeeReportSignature,
            "realm's part of the CCA token",
            expected,
            found,
        ));
    }
    let challenge = &token.realm.challenge;
    if let Some(wanted) = expectation.challenge.filter(|wanted| wanted.as_slice() != challenge) {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        failures.push(Failure::new(Check::TeeReportData, "realm challenge", hex(&wanted), hex(challenge)));
    }
    let claims = failures.is_empty().then(|| token.claims());
    Verified { claims, failures, notes: Vec::new() }
}

fn check_platform(token: &Token, keys: &[PlatformKey]) -> Option<Failure> {
    let platform = &token.platform;
    let is_for =
        |wanted: &Option<Vec<u8>>, found: &[u8]| wanted.as_deref().is_none_or(|wanted| wanted == found);
    let mut named = keys.iter().filter(|key| {
        is_for(&key.instance, &platform.instance_id)
            && is_for(&key.implementation, &platform.implementation_id)
    });
    let instance = data_encoding::HEXLOWER.encode(&platform.instance_id);
    let Some(first) = named.next() else {
        let expected = "a key named for this platform";
        return Some(Failure::new(
            Check::TeeChain,
            "CCA platform",
            expected,
            format!("none for instance {instance}"),
        ));
    };
    let mut flaw = None;
    for key in std::iter::once(first).chain(named) {
        match platform.signature.check(&key.key) {
            Ok(()) => return None,
            Err(found) => flaw = Some(found),
        }
    }
    let expected = "a signature by the platform's named key";
    Some(Failure::new(
        Check::TeeReportSignature,
        "platform's part of the CCA token",
        expected,
        flaw.unwrap_or_default(),
    ))
}

/// The platform's challenge is the hash of the realm's key: neither part can be another machine's.
fn check_binding(token: &Token) -> Option<Failure> {
    let hash = token.realm.key_hash.hash(&[&token.realm.key_bytes]);
    (token.platform.challenge != hash.as_bytes()).then(|| {
        let found = data_encoding::HEXLOWER.encode(&token.platform.challenge);
        Failure::new(Check::TeeBinding, "challenge of the CCA platform", hash.to_hex(), found)
    })
}

struct Token {
    platform: Platform,
    realm: Realm,
}

struct Platform {
    signature: Signed,
    profile: String,
    challenge: Vec<u8>,
    implementation_id: Vec<u8>,
    instance_id: Vec<u8>,
    configuration: Vec<u8>,
    lifecycle: u16,
    software: Vec<CcaSoftware>,
}

struct Realm {
    signature: Signed,
    challenge: Vec<u8>,
    personalization: Vec<u8>,
    initial_measurement: Vec<u8>,
    extensible_measurements: Vec<Vec<u8>>,
    key: PublicKey,
    /// As the platform hashed it.
    key_bytes: Vec<u8>,
    key_hash: HashAlgorithm,
}

/// A COSE_Sign1 with its signature made ready.
struct Signed {
    algorithm: SignatureAlgorithm,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Token {
    fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(bytes.len()));
        }
        let Value::Tag(CCA_TAG, collection) = value(bytes)? else { return Err(TokenError::Tag) };
        let parts = Claims::of(*collection)?;
        Ok(Token {
            platform: Platform::read(&parts.bytes(PLATFORM_PART)?)?,
            realm: Realm::read(&parts.bytes(REALM_PART)?)?,
        })
    }

    fn claims(self) -> CcaClaims {
        let Token { platform, realm } = self;
        CcaClaims {
            profile: platform.profile,
            implementation_id: platform.implementation_id,
            instance_id: platform.instance_id,
            lifecycle: platform.lifecycle,
            configuration: platform.configuration,
            software: platform.software,
            challenge: realm.challenge,
            personalization: realm.personalization,
            initial_measurement: realm.initial_measurement,
            extensible_measurements: realm.extensible_measurements,
        }
    }
}

impl Platform {
    fn read(bytes: &[u8]) -> Result<Self, TokenError> {
        let (signature, claims) = Signed::read(bytes)?;
        let lifecycle = claims.get(2395)?.as_integer().and_then(|value| u16::try_from(value).ok());
        let software = claims.get(2399)?.as_array().ok_or(TokenError::Claim(2399))?;
        Ok(Platform {
            signature,
            profile: claims
                .get(265)?
                .as_text()
                .ok_or(TokenError::Claim(265))?
                .chars()
                .take(TEXT_MAX)
                .collect(),
            challenge: claims.bytes(10)?,
            implementation_id: claims.bytes(2396)?,
            instance_id: claims.bytes(256)?,
            configuration: claims.bytes(2401)?,
            lifecycle: lifecycle.ok_or(TokenError::Claim(2395))?,
            software: software.iter().take(SOFTWARE_MAX).map(CcaSoftware::read).collect::<Result<_, _>>()?,
        })
    }
}

impl CcaSoftware {
    fn read(value: &Value) -> Result<Self, TokenError> {
        let claims = Claims::of(value.clone())?;
        let text = |key| {
            claims
                .get(key)
                .ok()
                .and_then(|value| value.as_text())
                .map(|text| text.chars().take(TEXT_MAX).collect())
        };
        Ok(CcaSoftware {
            kind: text(1),
            measurement: claims.bytes(2)?,
            signer: claims.bytes(5)?,
            version: text(4),
        })
    }
}

impl Realm {
    fn read(bytes: &[u8]) -> Result<Self, TokenError> {
        let (signature, claims) = Signed::read(bytes)?;
        let key_bytes = claims.bytes(44237)?;
        let hash = claims.get(44240)?.as_text().unwrap_or_default().to_owned();
        let measurements = claims.get(44239)?.as_array().ok_or(TokenError::Claim(44239))?;
        let measurements = measurements.iter().take(MEASUREMENTS_MAX).map(|value| value.as_bytes().cloned());
        Ok(Realm {
            signature,
            challenge: claims.bytes(10)?,
            personalization: claims.bytes(44235)?,
            initial_measurement: claims.bytes(44238)?,
            extensible_measurements: measurements.collect::<Option<_>>().ok_or(TokenError::Claim(44239))?,
            key: realm_key(&key_bytes)?,
            key_bytes,
            key_hash: binding_hash(&hash).ok_or(TokenError::Claim(44240))?,
        })
    }
}

/// By what hash the platform names the realm's key. The realm says it, and none that collides binds anything.
fn binding_hash(name: &str) -> Option<HashAlgorithm> {
    HashAlgorithm::from_name(&name.replace('-', "")).filter(|hash| *hash != HashAlgorithm::Sha1)
}

/// The earlier profile has a bare point, the later one a COSE_Key.
fn realm_key(bytes: &[u8]) -> Result<PublicKey, TokenError> {
    let point = |x: &[u8], y: &[u8]| {
        let (x, y) = (x.try_into().ok()?, y.try_into().ok()?);
        Some(PublicKey::EcP384 { x, y })
    };
    if let [4, point_bytes @ ..] = bytes {
        let (x, y) = point_bytes.split_at_checked(48).ok_or(TokenError::RealmKey)?;
        return point(x, y).ok_or(TokenError::RealmKey);
    }
    let key = CoseKey::from_slice(bytes).map_err(|_| TokenError::RealmKey)?;
    let parameter = |wanted: iana::Ec2KeyParameter| {
        let label = Label::Int(wanted as i64);
        let found = key.params.iter().find(|(name, _)| *name == label);
        found.and_then(|(_, value)| value.as_bytes().cloned())
    };
    match (parameter(iana::Ec2KeyParameter::X), parameter(iana::Ec2KeyParameter::Y)) {
        (Some(x), Some(y)) => point(&x, &y).ok_or(TokenError::RealmKey),
        _ => Err(TokenError::RealmKey),
    }
}

impl Signed {
    fn read(bytes: &[u8]) -> Result<(Self, Claims), TokenError> {
        let sign1 = match value(bytes)? {
            Value::Tag(COSE_SIGN1_TAG, inner) => CoseSign1::from_cbor_value(*inner),
            untagged => CoseSign1::from_cbor_value(untagged),
        };
        let sign1 = sign1.map_err(|_| TokenError::Cose)?;
        let hash = match sign1.protected.header.alg {
            Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::ES256)) => HashAlgorithm::Sha256,
            Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::ES384)) => HashAlgorithm::Sha384,
            _ => return Err(TokenError::Algorithm),
        };
        let payload = sign1.payload.as_deref().ok_or(TokenError::Cose)?;
        let claims = Claims::of(value(payload)?)?;
        let (r, s) = sign1.signature.split_at(sign1.signature.len() / 2);
        let signed = Signed {
            algorithm: SignatureAlgorithm { scheme: SignatureScheme::EcDsa, hash },
            signature: der::sequence(&[&der::unsigned(r), &der::unsigned(s)]),
            message: sign1.tbs_data(&[]),
        };
        Ok((signed, claims))
    }

    fn check(&self, key: &PublicKey) -> Result<(), String> {
        key.verify(self.algorithm, &self.message, &self.signature).map_err(|error| error.to_string())
    }
}

/// A map of claims by number, none of them twice.
struct Claims(Vec<(Value, Value)>);

impl Claims {
    fn of(value: Value) -> Result<Self, TokenError> {
        let Value::Map(claims) = value else { return Err(TokenError::Cose) };
        for (index, (key, _)) in claims.iter().enumerate() {
            if claims.iter().skip(index.saturating_add(1)).any(|(other, _)| other == key) {
                return Err(TokenError::Twice);
            }
        }
        Ok(Claims(claims))
    }

    fn get(&self, key: u16) -> Result<&Value, TokenError> {
        let wanted = Value::Integer(key.into());
        self.0.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value).ok_or(TokenError::Missing(key))
    }

    fn bytes(&self, key: u16) -> Result<Vec<u8>, TokenError> {
        self.get(key)?.as_bytes().cloned().ok_or(TokenError::Claim(key))
    }
}

/// One CBOR item, and nothing behind it.
fn value(bytes: &[u8]) -> Result<Value, TokenError> {
    let mut rest = bytes;
    let value = coset::cbor::de::from_reader(&mut rest).map_err(|_| TokenError::Cbor)?;
    if rest.is_empty() { Ok(value) } else { Err(TokenError::Surplus(rest.len())) }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KeyFile {
    One(Jwk),
    Many(Vec<Entry>),
}

#[derive(Deserialize)]
struct Entry {
    pkey: Jwk,
    #[serde(rename = "instance-id")]
    instance: Option<String>,
    #[serde(rename = "implementation-id")]
    implementation: Option<String>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Entry {
    fn key(self) -> Result<PlatformKey, PlatformKeyError> {
        let hex = |text: Option<String>| {
            let decode = |text: String| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
            text.map(decode).transpose().map_err(|_| PlatformKeyError::Key)
        };
        Ok(PlatformKey {
            key: self.pkey.key()?,
            instance: hex(self.instance)?,
            implementation: hex(self.implementation)?,
        })
    }
}

impl Jwk {
    fn key(&self) -> Result<PublicKey, PlatformKeyError> {
        let number = |text: &str| {
            data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| PlatformKeyError::Key)
        };
        let (x, y) = (number(&self.x)?, number(&self.y)?);
        let key = match (self.kty.as_str(), self.crv.as_str()) {
            ("EC", "P-256") => {
                x.try_into().ok().zip(y.try_into().ok()).map(|(x, y)| PublicKey::EcP256 { x, y })
            }
            ("EC", "P-384") => {
                x.try_into().ok().zip(y.try_into().ok()).map(|(x, y)| PublicKey::EcP384 { x, y })
            }
            _ => None,
        };
        key.ok_or(PlatformKeyError::Key)
    }
}

/// A file that names no platform keys.
#[derive(Debug, Error)]
pub enum PlatformKeyError {
    /// Longer than any.
    #[error("{0} bytes, at most {KEYS_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Not the JSON.
    #[error("neither a JWK nor a list of platforms with their keys: {0}")]
    Json(serde_json::Error),
    /// A key of another kind.
    #[error("a key that is not on P-256 or P-384, or an identifier that is not hex")]
    Key,
}

/// Bytes that are no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum TokenError {
    #[error("{0} bytes, at most {TOKEN_BYTES_MAX} make sense")]
    TooLong(usize),
    #[error("not CBOR")]
    Cbor,
    #[error("{0} bytes behind the CBOR")]
    Surplus(usize),
    #[error("not tagged as a CCA token (399)")]
    Tag,
    #[error("a part that is no COSE_Sign1 over a map of claims")]
    Cose,
    #[error("a claim that is there twice")]
    Twice,
    #[error("claim {0} is missing")]
    Missing(u16),
    #[error("claim {0} is of another kind")]
    Claim(u16),
    #[error("an algorithm other than ES256 and ES384")]
    Algorithm,
    #[error("claim 44237 is no point on P-384")]
    RealmKey,
}

const CCA_TAG: u64 = 399;
const COSE_SIGN1_TAG: u64 = 18;
const PLATFORM_PART: u16 = 44234;
const REALM_PART: u16 = 44241;
/// Ten times the largest seen.
const TOKEN_BYTES_MAX: usize = 32 << 10;
const KEYS_BYTES_MAX: usize = 1 << 20;
/// Components of a platform's firmware; a dozen is much.
const SOFTWARE_MAX: usize = 64;
/// There are four.
const MEASUREMENTS_MAX: usize = 16;
/// Characters of a name.
const TEXT_MAX: usize = 128;
