//! Registration: what an agent shows of its TPM, what only that TPM can open, and that it did.

use assay_evidence::request::DeviceIdentity;
use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

use super::{KeylimeError, base64};

/// What an agent shows when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its EK and certificates, and the identity that its maker gave it.
    pub identity: DeviceIdentity,
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify(AK) by the IAK, where an IAK is shown.
    pub iak_certified: (Bytes, Bytes),
    /// Where it listens, if it is one that is polled.
    pub contact: Contact,
}

/// Where an agent listens, by its own word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The certificate that it shows there, PEM, or `disabled`.
    pub certificate: String,
}

/// As it is sent. Members of keys that there are none of are missing, null or empty, by the agent's version.
#[derive(Deserialize)]
struct Sent {
    ek_tpm: Option<String>,
    ekcert: Option<String>,
    aik_tpm: Option<String>,
    iak_tpm: Option<String>,
    iak_cert: Option<String>,
    iak_attest: Option<String>,
    iak_sign: Option<String>,
    idevid_tpm: Option<String>,
    idevid_cert: Option<String>,
    mtls_cert: Option<String>,
    ip: Option<String>,
    port: Option<u16>,
}

impl Registration {
    /// Reads the body of a registration.
    pub fn read(body: &[u8]) -> Result<Registration, KeylimeError> {
        let sent: Sent = serde_json::from_slice(body)?;
        let bytes = |member, text: &Option<String>| base64(member, text.as_deref().unwrap_or_default());
        let needed = |member, bytes: Bytes| match bytes.is_empty() {
            true => Err(KeylimeError::Missing(member)),
            false => Ok(bytes),
        };
        let mut ek_chain = certificates("ekcert", sent.ekcert.as_deref().unwrap_or_default())?.into_iter();
        let mut iak_chain =
            certificates("iak_cert", sent.iak_cert.as_deref().unwrap_or_default())?.into_iter();
        let mut idevid_chain =
            certificates("idevid_cert", sent.idevid_cert.as_deref().unwrap_or_default())?.into_iter();
        Ok(Registration {
            identity: DeviceIdentity {
                ek_public: needed("ek_tpm", bytes("ek_tpm", &sent.ek_tpm)?)?,
                ek_certificate: ek_chain.next().unwrap_or_default(),
                ek_intermediates: ek_chain.collect(),
                iak_public: bytes("iak_tpm", &sent.iak_tpm)?,
                iak_certificate: iak_chain.next().unwrap_or_default(),
                idevid_public: bytes("idevid_tpm", &sent.idevid_tpm)?,
                idevid_certificate: idevid_chain.next().unwrap_or_default(),
                idevid_intermediates: iak_chain.chain(idevid_chain).collect(),
            },
            ak_public: needed("aik_tpm", bytes("aik_tpm", &sent.aik_tpm)?)?,
            iak_certified: (bytes("iak_attest", &sent.iak_attest)?, bytes("iak_sign", &sent.iak_sign)?),
            contact: Contact {
                address: bounded("ip", sent.ip)?,
                port: sent.port.unwrap_or_default(),
                certificate: bounded("mtls_cert", sent.mtls_cert)?,
            },
        })
    }
}

/// Certificates in PEM, the leaf first, or one in base64.
fn certificates(member: &'static str, text: &str) -> Result<Vec<Bytes>, KeylimeError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    if !text.starts_with("-----BEGIN") {
        return base64(member, text).map(|der| vec![der]);
    }
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let certificate = certificate
            .map_err(|_| KeylimeError::Encoding { member, form: "certificates in PEM or one in base64" })?;
        chain.push(Bytes::copy_from_slice(&certificate));
    }
    Ok(chain)
}

fn bounded(member: &'static str, text: Option<String>) -> Result<String, KeylimeError> {
    let text = text.unwrap_or_default();
    match text.len() <= CONTACT_BYTES_MAX {
        true => Ok(text),
        false => Err(KeylimeError::Encoding { member, form: "short enough to be one" }),
    }
}

/// What only the TPM with an EK and an AK can open, in the form of tpm2-tools: a magic number, a version, TPM2B_ID_OBJECT and
/// TPM2B_ENCRYPTED_SECRET; in base64.
pub fn credential(id_object: &[u8], encrypted_secret: &[u8]) -> String {
    BASE64.encode(
        &[&MAGIC.to_be_bytes(), &CREDENTIAL_VERSION.to_be_bytes(), id_object, encrypted_secret].concat(),
    )
}

/// Reads the proof: an HMAC-SHA-384 over the agent's id, in hexadecimal.
pub fn read_proof(body: &[u8]) -> Result<Vec<u8>, KeylimeError> {
    #[derive(Deserialize)]
    struct Sent {
        auth_tag: String,
    }
    let Sent { auth_tag } = serde_json::from_slice(body)?;
    let tag = HEXLOWER_PERMISSIVE.decode(auth_tag.as_bytes());
    tag.map_err(|_| KeylimeError::Encoding { member: "auth_tag", form: "hexadecimal" })
}

/// The first bytes of a credential's file.
const MAGIC: u32 = 0xBADC_C0DE;
const CREDENTIAL_VERSION: u32 = 1;
/// A self-signed certificate for a key of 4096 bits takes some 2 KiB of PEM.
const CONTACT_BYTES_MAX: usize = 16 << 10;
