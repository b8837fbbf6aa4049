//! What a software device says to SPIRE's server: what its agent's plugin `tpm` sends, in JSON.

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::software_device::quote::Creating;
use crate::{DeviceError, SoftwareDevice};

impl SoftwareDevice {
    /// What it shows of its TPM.
    pub fn spire_tpm_payload(&self) -> Result<Value, DeviceError> {
        self.spire_tpm_payload_with(&Creating::honest(self))
    }

    /// The same with any word on how its attestation key was made.
    pub fn spire_tpm_payload_with(&self, creating: &Creating) -> Result<Value, DeviceError> {
        let pem = |label: &str, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
        };
        let certificate = match self.ek_certificate.as_slice() {
            [] => String::new(),
            der => pem("CERTIFICATE", der),
        };
        let ek = certificate + &pem("PUBLIC KEY", self.ek.spki());
        let signed = creating.sign(&self.ak)?;
        Ok(json!({
            "EK": BASE64.encode(ek.as_bytes()),
            "AK": {
                // Without the length that it has elsewhere.
                "Public": BASE64.encode(self.ak.public_area().get(2..).unwrap_or_default()),
                "UseTCSDActivationFormat": false,
                "CreateData": BASE64.encode(&creating.data),
                "CreateAttestation": BASE64.encode(&signed.message),
                "CreateSignature": BASE64.encode(&signed.signature),
            },
        }))
    }

    /// What it answers to the challenge.
    pub fn spire_tpm_answer(&self, challenge: &[u8]) -> Result<Value, DeviceError> {
        let malformed = || DeviceError::Activation("challenge");
        let challenge: Value = serde_json::from_slice(challenge).map_err(|_| malformed())?;
        let bytes = |pointer: &str| {
            let text = challenge.pointer(pointer).and_then(Value::as_str).ok_or_else(malformed)?;
            BASE64.decode(text.as_bytes()).map_err(|_| malformed())
        };
        let secret = self.ek.activate(&self.ak.name(), &bytes("/EC/Credential")?, &bytes("/EC/Secret")?)?;
        Ok(json!({ "Secret": BASE64.encode(&secret) }))
    }
}
