//! Signed policies: DSSE envelopes (secure-systems-lab DSSE 1.0) around the text as its author wrote it.
//!
//! Signatures are over the bytes received, never over a re-encoding, and nothing of the text is read before one of them
//! holds. A `keyid` is a hint for people: every accepted key is tried on every signature.

use std::borrow::Cow;
use std::collections::BTreeMap;

use assay_evidence::Digest;
use assay_evidence::ima::{SigningKey, SigningKeyError};
use assay_telemetry::pae;
use data_encoding::{BASE64, BASE64URL};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Policy;
use super::text::{POLICY_BYTES_MAX, PolicyError, TextError};

/// What an envelope of a policy says it holds. The text inside is TOML or JSON, which tell themselves apart.
pub const PAYLOAD_TYPE: &str = "application/vnd.assay.policy.v1";

/// A signed text; believed by nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    key_id: String,
    bytes: Vec<u8>,
}

/// The keys that may sign policies.
#[derive(Clone, Debug, Default)]
pub struct PolicySigners(Vec<SigningKey>);

/// Why a text is no policy signed by an accepted key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Longer than an envelope of the longest policy.
    #[error("the envelope has {bytes} bytes; at most {ENVELOPE_BYTES_MAX} are read")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// Not an envelope at all.
    #[error(
        "it is not signed: sign it with `assay policy sign FILE --key KEY.pem` by a key that is accepted"
    )]
    Unsigned,
    /// JSON, but no envelope.
    #[error("line {line}, column {column}: {error}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        error: TextError,
    },
    /// An envelope of something else.
    #[error("it holds {found:?}, and a signed policy holds {PAYLOAD_TYPE:?}")]
    PayloadType {
        /// What it says it holds.
        found: String,
    },
    /// The payload is not base64 of a text.
    #[error("payload: not a text in UTF-8, in base64")]
    Payload,
    /// Signatures without number.
    #[error("signatures: {count} of them; 1 to {SIGNATURES_MAX} are read")]
    Signatures {
        /// How many there are.
        count: usize,
    },
    /// A signature that is none.
    #[error("signatures[{index}].sig: not base64 of at most {SIGNATURE_BYTES_MAX} bytes")]
    Signature {
        /// Which.
        index: usize,
    },
    /// Nobody who counts signed.
    #[error(
        "none of its {signatures} signature(s) is by one of the {accepted} accepted key(s) over this text: have a holder of \
         one sign it"
    )]
    NotAccepted {
        /// How many signatures there are.
        signatures: usize,
        /// How many keys are accepted.
        accepted: usize,
    },
    /// More keys than anyone can oversee.
    #[error("{count} keys may sign policies; at most {SIGNERS_MAX} are accepted")]
    TooManySigners {
        /// How many there are.
        count: usize,
    },
    /// What was signed is no usable policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// The text of a policy, signed or not, without any look at its signatures.
pub fn payload(text: &str) -> Result<Cow<'_, str>, EnvelopeError> {
    match Envelope::parse(text) {
        Ok(envelope) => Ok(Cow::Owned(envelope.payload)),
        // A policy in JSON is no envelope either; its own reader says what is wrong with it.
        Err(EnvelopeError::Unsigned) => Ok(Cow::Borrowed(text)),
        Err(error) => Err(error),
    }
}

impl Envelope {
    /// An envelope without signatures yet.
    pub fn new(payload: impl Into<String>) -> Self {
        Envelope { payload: payload.into(), signatures: Vec::new() }
    }

    /// Reads the JSON form; `Unsigned` where the text is no envelope.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        if text.len() > ENVELOPE_BYTES_MAX {
            return Err(EnvelopeError::TooLong { bytes: text.len() });
        }
        let read: Json = match serde_json::from_str(text) {
            Ok(read) => read,
            Err(error) if is_envelope(text) => {
                return Err(EnvelopeError::Text {
                    line: error.line(),
                    column: error.column(),
                    error: TextError::of_json(&error),
                });
            }
            Err(_) => return Err(EnvelopeError::Unsigned),
        };
        if read.payload_type != PAYLOAD_TYPE {
            return Err(EnvelopeError::PayloadType { found: read.payload_type.into_owned() });
        }
        if !(1..=SIGNATURES_MAX).contains(&read.signatures.len()) {
            return Err(EnvelopeError::Signatures { count: read.signatures.len() });
        }
        let payload = decode(&read.payload).and_then(|bytes| String::from_utf8(bytes).ok());
        let payload = payload.ok_or(EnvelopeError::Payload)?;
        if payload.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong { bytes: payload.len() }.into());
        }
        let signatures = read.signatures.into_iter().enumerate().map(|(index, signature)| {
            let bytes = decode(&signature.sig).filter(|bytes| bytes.len() <= SIGNATURE_BYTES_MAX);
            let bytes = bytes.ok_or(EnvelopeError::Signature { index })?;
            Ok(Signature { key_id: signature.keyid.into_owned(), bytes })
        });
        Ok(Envelope { payload, signatures: signatures.collect::<Result<_, EnvelopeError>>()? })
    }

    /// The JSON form, on one line.
    pub fn to_json(&self) -> String {
        let signatures = self.signatures.iter().map(|signature| JsonSignature {
            keyid: Cow::Borrowed(&signature.key_id),
            sig: BASE64.encode(&signature.bytes).into(),
        });
        let json = Json {
            payload_type: PAYLOAD_TYPE.into(),
            payload: BASE64.encode(self.payload.as_bytes()).into(),
            signatures: signatures.collect(),
        };
        serde_json::to_string(&json).expect("text alone is always JSON")
    }

    /// The text, on nobody's word.
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// What a signature is over.
    pub fn to_be_signed(&self) -> Vec<u8> {
        pae(PAYLOAD_TYPE, self.payload.as_bytes())
    }

    /// Adds a signature by the key whose SubjectPublicKeyInfo hashes to `spki_sha256`.
    pub fn add_signature(&mut self, spki_sha256: &Digest, bytes: Vec<u8>) {
        self.signatures.push(Signature { key_id: spki_sha256.to_hex(), bytes });
    }

    /// The accepted keys that signed, by the SHA-256 of their SubjectPublicKeyInfo; never none.
    pub fn signed_by(&self, accepted: &PolicySigners) -> Result<Vec<Digest>, EnvelopeError> {
        let message = self.to_be_signed();
        let signed = |key: &&SigningKey| {
            self.signatures.iter().any(|signature| key.verify_message(&message, &signature.bytes))
        };
        let signers: Vec<Digest> = accepted.0.iter().filter(signed).map(SigningKey::spki_sha256).collect();
        if signers.is_empty() {
            let (signatures, accepted) = (self.signatures.len(), accepted.0.len());
            return Err(EnvelopeError::NotAccepted { signatures, accepted });
        }
        Ok(signers)
    }
}

impl PolicySigners {
    /// Reads certificates and public keys, each in PEM or DER. Of a certificate only the key counts.
    pub fn new<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> Result<Self, SigningKeyError> {
        keys.into_iter()
            .map(|key| SigningKey::from_certificate_or_spki(key.as_ref()))
            .collect::<Result<_, _>>()
            .map(PolicySigners)
    }

    /// Whether nobody is accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The policy in an envelope that one of these keys signed.
    pub fn open(&self, text: &str) -> Result<Policy, EnvelopeError> {
        if self.0.len() > SIGNERS_MAX {
            return Err(EnvelopeError::TooManySigners { count: self.0.len() });
        }
        let envelope = Envelope::parse(text)?;
        envelope.signed_by(self)?;
        Ok(Policy::from_text(&envelope.payload)?)
    }
}

/// DSSE wants members that it does not know to be ignored; nothing but these is authenticated or read.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<JsonSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
struct JsonSignature<'a> {
    /// DSSE: unset is the same as empty.
    #[serde(borrow, default)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

/// Tells an envelope that is malformed from what is none: no policy has a member of this name.
fn is_envelope(text: &str) -> bool {
    let members = serde_json::from_str::<BTreeMap<Cow<'_, str>, IgnoredAny>>(text);
    members.is_ok_and(|members| members.contains_key("payloadType"))
}

/// DSSE: either alphabet.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL.decode(text.as_bytes())).ok()
}

/// Base64 of the longest policy, and room for signatures and what others add.
pub const ENVELOPE_BYTES_MAX: usize = POLICY_BYTES_MAX / 3 * 4 + (1 << 20);
/// Signatures of one envelope.
const SIGNATURES_MAX: usize = 16;
/// An RSA signature of 8,192 bits; ECDSA and Ed25519 are far shorter.
const SIGNATURE_BYTES_MAX: usize = 1024;
/// Keys that may sign policies: with [`SIGNATURES_MAX`], a thousand verifications at most.
pub const SIGNERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    };
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "name = \"edge\"\nversion = 3\n[ima.allow]\n\"/bin/a\" = [\"sha256:abababababababababababababababababababababababababababababababab\"]\n";

    type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

    /// A key that signs: its SPKI, and what it makes of a message.
    struct Key {
        spki: Vec<u8>,
        sign: Sign,
    }

    fn keys() -> Vec<Key> {
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let spki = ed25519.public_key().as_der().unwrap().as_ref().to_vec();
        let mut keys =
            vec![Key { spki, sign: Box::new(move |message| ed25519.sign(message).as_ref().to_vec()) }];
        for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
            let key = EcdsaKeyPair::generate(algorithm).unwrap();
            let spki = key.public_key().as_der().unwrap().as_ref().to_vec();
            let sign =
                move |message: &[u8]| key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
            keys.push(Key { spki, sign: Box::new(sign) });
        }
        keys
    }

    fn signed(text: &str, key: &Key) -> Envelope {
        let mut envelope = Envelope::new(text);
        let signature = (key.sign)(&envelope.to_be_signed());
        let id = SigningKey::from_certificate_or_spki(&key.spki).unwrap().spki_sha256();
        envelope.add_signature(&id, signature);
        envelope
    }

    #[test]
    fn each_kind_of_key_signs_for_itself_alone() {
        let keys = keys();
        for (number, key) in keys.iter().enumerate() {
            let json = signed(TEXT, key).to_json();
            let accepted = PolicySigners::new([&key.spki]).unwrap();
            assert_eq!(accepted.open(&json).unwrap().citation(), "edge v3");
            let others =
                keys.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, key)| &key.spki);
            let refused = EnvelopeError::NotAccepted { signatures: 1, accepted: 2 };
            assert_eq!(PolicySigners::new(others).unwrap().open(&json), Err(refused));
        }
        let nobody = EnvelopeError::NotAccepted { signatures: 1, accepted: 0 };
        assert_eq!(PolicySigners::default().open(&signed(TEXT, &keys[0]).to_json()), Err(nobody));
    }

    #[test]
    fn one_good_signature_of_several_is_enough_whatever_its_hint() {
        let keys = keys();
        let mut envelope = signed(TEXT, &keys[0]);
        let mut other = signed(TEXT, &keys[1]);
        envelope.signatures.append(&mut other.signatures);
        envelope.signatures.iter_mut().for_each(|signature| signature.key_id = "somebody".into());
        let accepted = PolicySigners::new([&keys[1].spki, &keys[2].spki]).unwrap();
        assert_eq!(envelope.signed_by(&accepted).unwrap().len(), 1);
        let json =
            envelope.to_json().replace(",\"keyid\":\"somebody\"", "").replace("\"keyid\":\"somebody\",", "");
        assert!(accepted.open(&json).is_ok());
    }

    #[test]
    fn what_is_signed_is_the_text_and_its_type() {
        let keys = keys();
        let accepted = PolicySigners::new([&keys[1].spki]).unwrap();
        let mut envelope = signed(TEXT, &keys[1]);
        // The same meaning in other bytes is another text.
        envelope.payload = TEXT.replace("version = 3", "version  = 3");
        assert!(matches!(accepted.open(&envelope.to_json()), Err(EnvelopeError::NotAccepted { .. })));
        let mut of_other_type = Envelope::new(TEXT);
        let signature = (keys[1].sign)(&pae("application/vnd.other", TEXT.as_bytes()));
        of_other_type.signatures.push(Signature { key_id: String::new(), bytes: signature });
        assert!(matches!(accepted.open(&of_other_type.to_json()), Err(EnvelopeError::NotAccepted { .. })));
        let json = signed(TEXT, &keys[1]).to_json().replace(PAYLOAD_TYPE, "application/vnd.other");
        assert_eq!(
            accepted.open(&json),
            Err(EnvelopeError::PayloadType { found: "application/vnd.other".into() })
        );
        let useless = signed("name = \"edge\"\nversion = 1\n", &keys[1]).to_json();
        assert_eq!(accepted.open(&useless), Err(PolicyError::MeasuresNothing.into()));
    }

    #[test]
    fn what_is_no_envelope_is_told_apart_from_what_is_a_bad_one() {
        assert_eq!(Envelope::parse(TEXT), Err(EnvelopeError::Unsigned));
        assert_eq!(Envelope::parse("{\"name\": \"edge\"}"), Err(EnvelopeError::Unsigned));
        assert_eq!(payload(TEXT).unwrap(), TEXT);
        let check = |text: &str, expected: &str| {
            let error = payload(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("{\"payloadType\": 1}", "line 1, column 17: invalid type");
        check(
            "{\"payloadType\": \"a\", \"payloadType\": \"a\", \"payload\": \"\", \"signatures\": []}",
            "duplicate field `payloadType`",
        );
        let with = |payload: &str, signatures: &str| {
            format!(
                "{{\"payloadType\":\"{PAYLOAD_TYPE}\",\"payload\":\"{payload}\",\"signatures\":{signatures},\"more\":1}}"
            )
        };
        check(&with("", "[]"), "signatures: 0 of them");
        check(&with("", &format!("[{}]", vec!["{\"sig\":\"\"}"; 17].join(","))), "17 of them");
        check(&with("?", "[{\"sig\":\"\"}]"), "payload: not a text");
        check(&with("/w==", "[{\"sig\":\"\"}]"), "payload: not a text");
        check(&with("", "[{\"sig\":\"?\"}]"), "signatures[0].sig");
        check(&with("", &format!("[{{\"sig\":\"{}\"}}]", "AAAA".repeat(400))), "signatures[0].sig");
        // Either alphabet, and members that nobody knows.
        assert_eq!(payload(&with("Pz8_", "[{\"sig\":\"\",\"x\":[]}]")).unwrap(), "???");
        assert_eq!(payload(&with("Pz8/", "[{\"sig\":\"\"}]")).unwrap(), "???");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[\\[\\]{}\":, a-zA-Z0-9+/=]{0,120}") {
            let _ = Envelope::parse(&text);
        }

        #[test]
        fn what_was_written_is_read_again(text in ".{0,80}", signatures in proptest::collection::vec(
            (".{0,9}", proptest::collection::vec(any::<u8>(), 0..80)), 1..4
        )) {
            let signatures = signatures.into_iter().map(|(key_id, bytes)| Signature { key_id, bytes });
            let envelope = Envelope { payload: text, signatures: signatures.collect() };
            prop_assert_eq!(Envelope::parse(&envelope.to_json()), Ok(envelope));
        }
    }
}
