//! The TPM's own word on which PCR banks are active.

use assay_evidence::tpm::banks::BANKS_MAX;
use tpm2_protocol::basic::{TpmHandle, TpmUint32};
use tpm2_protocol::data::{Tpm2bData, TpmCap, TpmRh, TpmSe, TpmaSession, TpmsAuthCommand, TpmtSigScheme};
use tpm2_protocol::frame::{TpmGetCapabilityCommand, TpmGetSessionAuditDigestCommand};

use super::command::{argument, empty_password};
use super::keys::Key;
use super::{Tpm, TpmError};

/// What the TPM said, and the signature that it did.
#[derive(Clone, Debug)]
pub struct BankStatement {
    /// The response's parameters as returned.
    pub capability: Vec<u8>,
    /// TPMS_ATTEST as signed.
    pub message: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

impl Tpm {
    /// Asks in an audit session which PCR banks are active, and has `ak` sign over `nonce` what went through that. The
    /// question is the one that verifiers hash.
    pub fn state_banks(&self, ak: &Key, nonce: &[u8]) -> Result<BankStatement, TpmError> {
        let session = self.start_session(TpmSe::Hmac)?;
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: TpmCap::Pcrs,
            property: TpmUint32::new(0),
            property_count: TpmUint32::new(BANKS_MAX),
        };
        // TPM 2.0 Part 1, 19.6.5: without a key in the session, its HMAC is empty.
        let audited = TpmsAuthCommand {
            session_handle: TpmHandle::new(session.handle()),
            session_attributes: TpmaSession::CONTINUE_SESSION | TpmaSession::AUDIT,
            ..TpmsAuthCommand::default()
        };
        let response = self.run("GetCapability", &command, &[audited], 0)?;
        let capability = response.read(|reader| Ok(reader.rest().to_vec()))?;
        let command = TpmGetSessionAuditDigestCommand {
            handles: [TpmRh::Endorsement.value(), ak.handle(), session.handle()].map(TpmHandle::new),
            qualifying_data: Tpm2bData::try_from(nonce).map_err(argument("GetSessionAuditDigest"))?,
            in_scheme: TpmtSigScheme::default(),
        };
        let response =
            self.run("GetSessionAuditDigest", &command, &[empty_password(), empty_password()], 0)?;
        let (message, signature) =
            response.read(|reader| Ok((reader.tpm2b()?.to_vec(), reader.rest().to_vec())))?;
        Ok(BankStatement { capability, message, signature })
    }
}
