//! A secret that only this TPM gives back: in the boot that it was sealed in, and until an end by the TPM's own clock.
//!
//! The clock is the TPM's because the machine's can be set back by whoever has it. It counts while the TPM has power.

use assay_evidence::tpm::pcr::PcrSelection;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{
    Tpm2bAuth, Tpm2bDigest, Tpm2bMaxBuffer, Tpm2bSensitiveCreate, Tpm2bSensitiveData, TpmEo, TpmRcBase,
    TpmSe, TpmsSensitiveCreate,
};
use tpm2_protocol::frame::{
    TpmPolicyCounterTimerCommand, TpmPolicyGetDigestCommand, TpmPolicyPcrCommand, TpmUnsealCommand,
};

use super::command::{Loaded, argument, policy};
use super::keys::{Blob, HIERARCHY};
use super::pcr::encode_selection;
use super::template;
use super::{Tpm, TpmError};

/// What a secret is bound to.
#[derive(Clone, Debug)]
pub struct Bond {
    /// PCRs that have to hold what they held when it was sealed.
    pub pcrs: PcrSelection,
    /// The last moment, as [`Tpm::read_clock`] tells it.
    pub clock_until_ms: u64,
}

impl Tpm {
    /// Seals a secret to the PCRs as they are now; what it gives is no secret.
    pub fn seal(&self, secret: &[u8; 32], bond: &Bond) -> Result<Vec<u8>, TpmError> {
        let refused = argument("Create");
        let trial = self.start_session(TpmSe::Trial)?;
        self.bind(&trial, bond)?;
        let command = TpmPolicyGetDigestCommand { handles: [TpmHandle::new(trial.handle())] };
        let digest =
            self.run("PolicyGetDigest", &command, &[], 0)?.read(|reader| Ok(reader.tpm2b()?.to_vec()))?;
        let digest = Tpm2bDigest::try_from(digest.as_slice()).map_err(&refused)?;
        let sensitive = Tpm2bSensitiveCreate {
            inner: TpmsSensitiveCreate {
                user_auth: Tpm2bAuth::new(),
                data: Tpm2bSensitiveData::try_from(secret.as_slice()).map_err(&refused)?,
            },
        };
        let (parent, _) = self.create_primary(HIERARCHY, template::storage_key())?;
        Ok(Blob::create_with(&parent, template::sealed_data(digest), sensitive)?.to_bytes())
    }

    /// Gives a secret back, if what it is bound to holds.
    pub fn unseal(&self, sealed: &[u8], bond: &Bond) -> Result<[u8; 32], UnsealError> {
        let blob = Blob::from_bytes(sealed).ok_or(UnsealError::Damaged)?;
        let (parent, _) = self.create_primary(HIERARCHY, template::storage_key())?;
        let object = blob.load_object(&parent)?;
        let session = self.start_session(TpmSe::Policy)?;
        self.bind(&session, bond)?;
        let command = TpmUnsealCommand { handles: [TpmHandle::new(object.handle())] };
        let response = self.run("Unseal", &command, &[policy(session.handle())], 0)?;
        let secret = response.read(|reader| Ok(reader.tpm2b()?.to_vec()))?;
        secret.try_into().map_err(|_| UnsealError::Damaged)
    }

    /// Has a session show what a secret is bound to.
    fn bind(&self, session: &Loaded, bond: &Bond) -> Result<(), TpmError> {
        let handles = [TpmHandle::new(session.handle())];
        // TPM 2.0 Part 3, 23.7: without a digest the PCRs as they are go into the policy.
        let command = TpmPolicyPcrCommand {
            handles,
            pcr_digest: Tpm2bDigest::new(),
            pcrs: encode_selection(&bond.pcrs)?,
        };
        self.run("PolicyPCR", &command, &[], 0)?;
        let operand_b = Tpm2bMaxBuffer::try_from(bond.clock_until_ms.to_be_bytes().as_slice());
        let command = TpmPolicyCounterTimerCommand {
            handles,
            operand_b: operand_b.map_err(argument("PolicyCounterTimer"))?,
            offset: TpmUint16::new(CLOCK_OFFSET),
            operation: TpmEo::UnsignedLe,
        };
        self.run("PolicyCounterTimer", &command, &[], 0).map(drop)
    }
}

/// Why a secret stays one.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// The boot is another one, or this is another TPM's.
    #[error("the PCRs are not as they were when it was sealed")]
    OtherPcrs,
    /// Its end has passed.
    #[error("by the TPM's clock its time is over")]
    Over,
    /// It is none.
    #[error("it is not what was sealed")]
    Damaged,
    /// The TPM does not do it.
    #[error(transparent)]
    Tpm(TpmError),
}

impl From<TpmError> for UnsealError {
    fn from(error: TpmError) -> Self {
        match error.refusal() {
            Some(code) if code.is(TpmRcBase::PolicyFail) => UnsealError::OtherPcrs,
            Some(code) if code.is(TpmRcBase::Policy) => UnsealError::Over,
            Some(code) if code.is(TpmRcBase::Integrity) => UnsealError::Damaged,
            _ => UnsealError::Tpm(error),
        }
    }
}

/// Where `clock` stands in TPMS_TIME_INFO, behind `time`: TPM 2.0 Part 2, 10.11.6.
const CLOCK_OFFSET: u16 = 8;
