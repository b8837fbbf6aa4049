//! What another trust domain says of itself: its X.509 authorities and the keys that it signs tokens with.
//!
//! SPIFFE Trust Domain and Bundle 4, as SPIFFE Federation 5 fetches it. Such a bundle is never put together with another: whose
//! it is, an ID's trust domain says.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::bundle::{Bundle, BundleError};
use crate::spiffe_id::TrustDomain;

/// The bundle of another trust domain.
#[derive(Clone, Debug)]
pub struct ForeignBundle {
    x509: Bundle,
    /// JWKs of use `jwt-svid`, each with its `kid`, as they came.
    jwt: Vec<Map<String, Value>>,
    sequence: u64,
    refresh_hint_seconds: u64,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Map<String, Value>>,
    #[serde(default)]
    spiffe_sequence: Option<u64>,
    #[serde(default)]
    spiffe_refresh_hint: Option<u64>,
}

impl ForeignBundle {
    /// Reads a bundle document (Trust Domain and Bundle 4.1). Keys of other uses, and those without a name, are passed over.
    pub fn from_document(trust_domain: TrustDomain, json: &[u8]) -> Result<ForeignBundle, BundleError> {
        // It holds everything to its sizes, and each authority to its trust domain.
        let x509 = Bundle::from_jwks(trust_domain, json)?;
        let document: Document = serde_json::from_slice(json).map_err(|_| BundleError::Document)?;
        let is_of_tokens = |key: &Map<String, Value>| {
            let text = |member: &str| key.get(member).and_then(Value::as_str).unwrap_or_default();
            text("use") == "jwt-svid" && !text("kid").is_empty()
        };
        let jwt: Vec<_> = document.keys.into_iter().filter(is_of_tokens).collect();
        if jwt.len() > JWT_AUTHORITIES_MAX {
            return Err(BundleError::TooLarge);
        }
        Ok(ForeignBundle {
            x509,
            jwt,
            sequence: document.spiffe_sequence.unwrap_or_default(),
            refresh_hint_seconds: document.spiffe_refresh_hint.unwrap_or(REFRESH_HINT_SECONDS),
        })
    }

    /// Of these authorities: certificates in DER, and for tokens names with SubjectPublicKeyInfo.
    pub fn of<C: AsRef<[u8]>>(
        trust_domain: TrustDomain,
        x509: impl IntoIterator<Item = C>,
        jwt: impl IntoIterator<Item = (String, Vec<u8>)>,
        (sequence, refresh_hint_seconds): (u64, u64),
    ) -> Result<ForeignBundle, BundleError> {
        let x509 = Bundle::new(trust_domain, x509)?;
        let jwks = jwt.into_iter().map(|(name, spki)| jwk(&name, &spki).ok_or(BundleError::Document));
        let jwt = jwks.take(JWT_AUTHORITIES_MAX + 1).collect::<Result<Vec<_>, _>>()?;
        if jwt.len() > JWT_AUTHORITIES_MAX {
            return Err(BundleError::TooLarge);
        }
        Ok(ForeignBundle { x509, jwt, sequence, refresh_hint_seconds })
    }

    /// Whose it is.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.x509.trust_domain()
    }

    /// What its X.509-SVIDs are verified with.
    pub fn x509(&self) -> &Bundle {
        &self.x509
    }

    /// What its tokens are verified with, a JWK set; empty: nothing is.
    pub fn jwt_keys(&self) -> String {
        match self.jwt.as_slice() {
            [] => String::new(),
            keys => json!({ "keys": keys }).to_string(),
        }
    }

    /// The same as names with SubjectPublicKeyInfo, as far as they are RSA, P-256 or P-384 keys.
    pub fn jwt_authorities(&self) -> Vec<(String, Vec<u8>)> {
        self.jwt.iter().filter_map(spki).collect()
    }

    /// Higher is newer; 0: it does not say.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How often it is worth fetching, by its own word.
    pub fn refresh_hint_seconds(&self) -> u64 {
        self.refresh_hint_seconds
    }

    /// The whole as a document.
    pub fn to_document(&self) -> String {
        let text = self.x509.to_jwks(self.sequence, self.refresh_hint_seconds);
        let mut document: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(Value::Array(keys)) = document.get_mut("keys") {
            keys.extend(self.jwt.iter().cloned().map(Value::Object));
        }
        document.to_string()
    }
}

/// RFC 7517 of a SubjectPublicKeyInfo.
fn jwk(name: &str, spki: &[u8]) -> Option<Map<String, Value>> {
    let ([], info) = SubjectPublicKeyInfo::from_der(spki).ok()? else { return None };
    let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let key = match info.parsed().ok()? {
        PublicKey::EC(point) => {
            let (x, y) = point.data().strip_prefix(&[0x04])?.split_at_checked(point.data().len() / 2)?;
            let curve = CURVES.iter().find(|curve| curve.coordinate_bytes == x.len())?;
            json!({ "kty": "EC", "crv": curve.name, "x": text(x), "y": text(y) })
        }
        PublicKey::RSA(rsa) => {
            json!({ "kty": "RSA", "n": text(strip(rsa.modulus)), "e": text(strip(rsa.exponent)) })
        }
        _ => return None,
    };
    let Value::Object(mut key) = key else { return None };
    key.insert("use".to_owned(), json!("jwt-svid"));
    key.insert("kid".to_owned(), json!(name));
    Some(key).filter(|_| !name.is_empty())
}

/// The other way.
fn spki(key: &Map<String, Value>) -> Option<(String, Vec<u8>)> {
    let text = |member: &str| key.get(member).and_then(Value::as_str);
    let bytes = |member: &str| BASE64URL_NOPAD.decode(text(member)?.as_bytes()).ok();
    let (algorithm, bits) = match text("kty")? {
        "EC" => {
            let curve = CURVES.iter().find(|curve| Some(curve.name) == text("crv"))?;
            let (x, y) = (bytes("x")?, bytes("y")?);
            let is_whole = [&x, &y].iter().all(|one| one.len() == curve.coordinate_bytes);
            let point = Some([&[0x04], x.as_slice(), &y].concat()).filter(|_| is_whole)?;
            (tlv(0x30, &[&tlv(0x06, &[OID_EC]), &tlv(0x06, &[curve.oid])]), point)
        }
        "RSA" => {
            let integer = |bytes: Vec<u8>| {
                let digits = strip(&bytes).to_vec();
                // A positive number has its highest bit clear.
                let sign: &[u8] = if digits.first().is_none_or(|byte| *byte >= 0x80) { &[0] } else { &[] };
                tlv(0x02, &[sign, &digits])
            };
            let key = tlv(0x30, &[&integer(bytes("n")?), &integer(bytes("e")?)]);
            (tlv(0x30, &[&tlv(0x06, &[OID_RSA]), &[0x05, 0]]), key)
        }
        _ => return None,
    };
    let spki = tlv(0x30, &[&algorithm, &tlv(0x03, &[&[0], &bits])]);
    Some((text("kid")?.to_owned(), spki))
}

/// A DER value (X.690, 8.1).
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let length = strip(&length);
    let head = match content.len() {
        short @ 0..0x80 => vec![tag, u8::try_from(short).unwrap_or(0)],
        _ => [&[tag, 0x80 | u8::try_from(length.len()).unwrap_or(0)], length].concat(),
    };
    [head, content].concat()
}

fn strip(integer: &[u8]) -> &[u8] {
    let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len());
    integer.get(start..).unwrap_or_default()
}

struct Curve {
    name: &'static str,
    coordinate_bytes: usize,
    oid: &'static [u8],
}

const CURVES: [Curve; 2] = [
    Curve { name: "P-256", coordinate_bytes: 32, oid: &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07] },
    Curve { name: "P-384", coordinate_bytes: 48, oid: &[0x2b, 0x81, 0x04, 0x00, 0x22] },
];
/// 1.2.840.10045.2.1.
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.113549.1.1.1.
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// What a bundle says that says nothing (Trust Domain and Bundle 4.1.2).
const REFRESH_HINT_SECONDS: u64 = 300;
/// One for each server and rotation.
const JWT_AUTHORITIES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("other.example").unwrap()
    }

    #[test]
    fn keys_for_tokens_are_the_same_in_both_forms() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
        {
            let key = KeyPair::generate_for(algorithm).unwrap().subject_public_key_info();
            let authorities = vec![("one".to_owned(), key)];
            let none: [&[u8]; 0] = [];
            let bundle = ForeignBundle::of(domain(), none, authorities.clone(), (7, 60)).unwrap();
            assert_eq!(bundle.jwt_authorities(), authorities);
            let again = ForeignBundle::from_document(domain(), bundle.to_document().as_bytes()).unwrap();
            assert_eq!(again.jwt_authorities(), authorities);
            assert_eq!((again.sequence(), again.refresh_hint_seconds()), (7, 60));
        }
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().subject_public_key_info();
        let none: [&[u8]; 0] = [];
        assert!(ForeignBundle::of(domain(), none, [("one".to_owned(), ed25519)], (0, 0)).is_err());
    }

    #[test]
    fn a_document_is_of_its_trust_domain_and_of_bounded_size() {
        let read = |json: &str| ForeignBundle::from_document(domain(), json.as_bytes());
        let empty = read(r#"{"keys":[]}"#).unwrap();
        assert_eq!((empty.sequence(), empty.refresh_hint_seconds()), (0, 300));
        assert!(empty.jwt_keys().is_empty());
        let unknown = r#"{"keys":[{"kty":"new","use":"wit-svid","kid":"1"},{"kty":"EC","use":"jwt-svid"}]}"#;
        assert!(read(unknown).unwrap().jwt_authorities().is_empty());
        for bad in
            ["", "[]", "{}", r#"{"keys":[{"use":"x509-svid"}]}"#, r#"{"keys":[],"spiffe_sequence":-1}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        let one = r#"{"kty":"EC","use":"jwt-svid","kid":"1"}"#;
        let many = format!(r#"{{"keys":[{}]}}"#, [one; JWT_AUTHORITIES_MAX + 1].join(","));
        assert!(matches!(read(&many), Err(BundleError::TooLarge)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_bundle_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ForeignBundle::from_document(domain(), &bytes);
            let none: [&[u8]; 0] = [];
            prop_assert!(ForeignBundle::of(domain(), none, [("1".to_owned(), bytes)], (0, 0)).is_err());
        }
    }
}
