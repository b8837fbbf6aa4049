//! What SPIRE's node attestors say inside of AttestAgent: JSON as Go's programs write it, bytes in base64.
//!
//! `tpm` is spire-tpm-plugin's, 1.10 and before; `x509pop` is SPIRE's own. Members that are not named here are passed over, as
//! Go's programs do. What is read is held to its form and sizes alone; nothing of it is believed.

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// What a node says that attests by `tpm`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TpmShown {
    /// PEM: the EK's certificate, if its TPM has one, then its public key.
    #[serde(rename = "EK")]
    pub ek_pem: Base64,
    /// The AK, and the TPM's word on how it was made.
    #[serde(rename = "AK")]
    pub ak: AkShown,
}

/// An AK of this moment, as `go-attestation` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AkShown {
    /// TPMT_PUBLIC.
    #[serde(rename = "Public")]
    pub public: Base64,
    /// TPMS_CREATION_DATA.
    #[serde(rename = "CreateData", default)]
    pub creation_data: Base64,
    /// TPMS_ATTEST of TPM2_CertifyCreation by itself.
    #[serde(rename = "CreateAttestation", default)]
    pub creation_info: Base64,
    /// TPMT_SIGNATURE over that.
    #[serde(rename = "CreateSignature", default)]
    pub creation_signature: Base64,
}

#[derive(Serialize)]
struct TpmChallenge {
    #[serde(rename = "EC")]
    credential: Credential,
}

#[derive(Serialize)]
struct Credential {
    #[serde(rename = "Credential")]
    blob: Base64,
    #[serde(rename = "Secret")]
    encrypted_secret: Base64,
}

#[derive(Deserialize)]
struct TpmAnswer {
    #[serde(rename = "Secret")]
    secret: Base64,
}

/// What a node says that attests by `x509pop`: certificates in DER, its own first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CertificateShown {
    /// The chain.
    pub certificates: Vec<Base64>,
}

/// How a node shows that it has its certificate's key, by the kind of the key. Both signatures are over the SHA-256 of the
/// challenger's nonce and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Possession {
    /// RSA-PSS.
    Rsa {
        /// Its own.
        nonce: Vec<u8>,
        /// As long as the modulus.
        signature: Vec<u8>,
    },
    /// ECDSA.
    Ecdsa {
        /// Its own.
        nonce: Vec<u8>,
        /// Big endian.
        r: Vec<u8>,
        /// Big endian.
        s: Vec<u8>,
    },
}

#[derive(Serialize)]
struct PossessionChallenge {
    rsa_signature: Option<Nonce>,
    ecdsa_signature: Option<Nonce>,
}

#[derive(Serialize)]
struct Nonce {
    nonce: Base64,
}

#[derive(Deserialize)]
struct PossessionAnswer {
    #[serde(default)]
    rsa_signature: Option<RsaAnswer>,
    #[serde(default)]
    ecdsa_signature: Option<EcdsaAnswer>,
}

#[derive(Deserialize)]
struct RsaAnswer {
    nonce: Base64,
    signature: Base64,
}

#[derive(Deserialize)]
struct EcdsaAnswer {
    nonce: Base64,
    r: Base64,
    s: Base64,
}

/// Why what was said is not understood.
#[derive(Debug, Error)]
pub enum NodeAttestorError {
    /// More than any node has to say.
    #[error("{0} bytes, at most {SAID_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not the JSON that the attestor has.
    #[error("not the JSON of the attestor: {0}")]
    Json(#[from] serde_json::Error),
    /// Both kinds of answer, or none.
    #[error("an answer is rsa_signature or ecdsa_signature")]
    Answer,
    /// More certificates than there are between a node and its root.
    #[error("{0} certificates, at most {CERTIFICATES_MAX} are read")]
    Certificates(usize),
}

impl TpmShown {
    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Result<TpmShown, NodeAttestorError> {
        read(payload)
    }
}

impl CertificateShown {
    /// Reads a payload.
    pub fn read(payload: &[u8]) -> Result<CertificateShown, NodeAttestorError> {
        let shown: CertificateShown = read(payload)?;
        match shown.certificates.len() {
            count if count > CERTIFICATES_MAX => Err(NodeAttestorError::Certificates(count)),
            _ => Ok(shown),
        }
    }
}

impl Possession {
    /// Reads an answer.
    pub fn read(answer: &[u8]) -> Result<Possession, NodeAttestorError> {
        let PossessionAnswer { rsa_signature, ecdsa_signature } = read(answer)?;
        match (rsa_signature, ecdsa_signature) {
            (Some(RsaAnswer { nonce, signature }), None) => {
                Ok(Possession::Rsa { nonce: nonce.0, signature: signature.0 })
            }
            (None, Some(EcdsaAnswer { nonce, r, s })) => {
                Ok(Possession::Ecdsa { nonce: nonce.0, r: r.0, s: s.0 })
            }
            _ => Err(NodeAttestorError::Answer),
        }
    }
}

/// What only the TPM with this EK and this AK can open: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET.
pub fn tpm_challenge(blob: &[u8], encrypted_secret: &[u8]) -> Vec<u8> {
    let (blob, encrypted_secret) = (Base64(blob.to_vec()), Base64(encrypted_secret.to_vec()));
    written(&TpmChallenge { credential: Credential { blob, encrypted_secret } })
}

/// What a node found in it.
pub fn tpm_answer(answer: &[u8]) -> Result<Vec<u8>, NodeAttestorError> {
    Ok(read::<TpmAnswer>(answer)?.secret.0)
}

/// What a node signs to show that it has an RSA key, or one for ECDSA.
pub fn possession_challenge(is_rsa: bool, nonce: &[u8]) -> Vec<u8> {
    let nonce = Some(Nonce { nonce: Base64(nonce.to_vec()) });
    written(&match is_rsa {
        true => PossessionChallenge { rsa_signature: nonce, ecdsa_signature: None },
        false => PossessionChallenge { rsa_signature: None, ecdsa_signature: nonce },
    })
}

/// Bytes as Go's programs put them into JSON: base64, or `null` where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base64(pub Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
        let bytes = BASE64.decode(text.as_bytes());
        bytes.map(Base64).map_err(|_| serde::de::Error::custom("not base64"))
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(&self.0))
    }
}

fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, NodeAttestorError> {
    match bytes.len() {
        length if length > SAID_BYTES_MAX => Err(NodeAttestorError::TooLong(length)),
        _ => Ok(serde_json::from_slice(bytes)?),
    }
}

fn written(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).expect("text and names are all that is in it")
}

/// A chain of the largest certificates that are read, in base64.
const SAID_BYTES_MAX: usize = 96 << 10;
/// Its own and what is between that and a root.
const CERTIFICATES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_node_shows_of_its_tpm_is_read_as_its_plugin_writes_it() {
        let text =
            br#"{"EK":"ZWs=","AK":{"Public":"cHVi","UseTCSDActivationFormat":false,"CreateData":"AQ==",
            "CreateAttestation":"Ag==","CreateSignature":null}}"#;
        let shown = TpmShown::read(text).unwrap();
        assert_eq!((shown.ek_pem.0.as_slice(), shown.ak.public.0.as_slice()), (&b"ek"[..], &b"pub"[..]));
        assert_eq!((shown.ak.creation_data.0, shown.ak.creation_info.0), (vec![1], vec![2]));
        assert!(shown.ak.creation_signature.0.is_empty());
        assert!(TpmShown::read(br#"{"EK":"ZWs="}"#).is_err());
        assert!(TpmShown::read(br#"{"EK":"*","AK":{"Public":""}}"#).is_err());
        assert!(matches!(
            TpmShown::read(&vec![b' '; SAID_BYTES_MAX + 1]),
            Err(NodeAttestorError::TooLong(_))
        ));
        assert_eq!(tpm_challenge(&[1], &[2]), br#"{"EC":{"Credential":"AQ==","Secret":"Ag=="}}"#);
        assert_eq!(tpm_answer(br#"{"Secret":"Aw=="}"#).unwrap(), [3]);
    }

    #[test]
    fn possession_is_of_one_kind_of_key() {
        assert_eq!(
            possession_challenge(true, &[1]),
            br#"{"rsa_signature":{"nonce":"AQ=="},"ecdsa_signature":null}"#
        );
        let answer = br#"{"rsa_signature":null,"ecdsa_signature":{"nonce":"AQ==","r":"Ag==","s":"Aw=="}}"#;
        assert_eq!(
            Possession::read(answer).unwrap(),
            Possession::Ecdsa { nonce: vec![1], r: vec![2], s: vec![3] }
        );
        let both =
            br#"{"rsa_signature":{"nonce":"","signature":""},"ecdsa_signature":{"nonce":"","r":"","s":""}}"#;
        for bad in [&both[..], b"{}", b"null", b"[]"] {
            assert!(Possession::read(bad).is_err());
        }
        let many = format!(r#"{{"certificates":[{}]}}"#, ["\"AQ==\""; CERTIFICATES_MAX + 1].join(","));
        assert!(matches!(CertificateShown::read(many.as_bytes()), Err(NodeAttestorError::Certificates(9))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (TpmShown::read(&bytes), CertificateShown::read(&bytes), Possession::read(&bytes), tpm_answer(&bytes));
        }
    }
}
