//! The register of tasks: an NV index of type extend, which the agent makes, extends and has certified.

use assay_evidence::task::log::VALUE_BYTES;
use assay_evidence::task::register::{ATTRIBUTES, INDEX};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::basic::{TpmHandle, TpmUint16};
use tpm2_protocol::data::{
    Tpm2bAuth, Tpm2bData, Tpm2bMaxNvBuffer, Tpm2bNvPublic, TpmRcBase, TpmRh, TpmtSigScheme,
};
use tpm2_protocol::frame::{
    TpmNvCertifyCommand, TpmNvDefineSpaceCommand, TpmNvExtendCommand, TpmNvReadPublicCommand,
    TpmNvUndefineSpaceCommand,
};

use super::command::{argument, empty_password};
use super::keys::Key;
use super::{Tpm, TpmError};

/// What the TPM says of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// TPMS_NV_PUBLIC.
    pub public: Vec<u8>,
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

impl Tpm {
    /// The register's value; zero where nothing was extended in this boot. Makes the register where there is none.
    pub fn register_value(&self) -> Result<[u8; VALUE_BYTES], TpmError> {
        match self.nv_read(INDEX) {
            Ok(value) => Ok(value.try_into().unwrap_or([0; VALUE_BYTES])),
            Err(TpmError::Refused { code, .. }) if code.is(TpmRcBase::NvUninitialized) => {
                Ok([0; VALUE_BYTES])
            }
            Err(TpmError::Refused { code, .. }) if code.is(TpmRcBase::Handle) => {
                self.define_register()?;
                Ok([0; VALUE_BYTES])
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the register and makes it anew. Whoever has seen its log sees that it begins anew.
    pub fn renew_register(&self) -> Result<(), TpmError> {
        let handles = [TpmHandle::new(TpmRh::Owner.value()), TpmHandle::new(INDEX)];
        let command = TpmNvUndefineSpaceCommand { handles };
        self.run("NV_UndefineSpace", &command, &[empty_password()], 0)?;
        self.define_register()
    }

    fn define_register(&self) -> Result<(), TpmError> {
        let refused = argument("NV_DefineSpace");
        let public = Tpm2bNvPublic::unmarshal(&super::template::tpm2b(&public())).map_err(&refused)?.0;
        let handles = [TpmHandle::new(TpmRh::Owner.value())];
        let command = TpmNvDefineSpaceCommand { handles, auth: Tpm2bAuth::new(), public_info: public };
        self.run("NV_DefineSpace", &command, &[empty_password()], 0).map(drop)
    }

    /// Extends the register.
    pub fn extend_register(&self, data: &[u8]) -> Result<(), TpmError> {
        let data = Tpm2bMaxNvBuffer::try_from(data).map_err(argument("NV_Extend"))?;
        let command = TpmNvExtendCommand { handles: [TpmHandle::new(INDEX); 2], data };
        self.run("NV_Extend", &command, &[empty_password()], 0).map(drop)
    }

    /// TPM2_NV_Certify of all of the register by a key.
    pub fn certify_register(&self, key: &Key, nonce: &[u8]) -> Result<Certified, TpmError> {
        let command = TpmNvReadPublicCommand { handles: [TpmHandle::new(INDEX)] };
        let public =
            self.run("NV_ReadPublic", &command, &[], 0)?.read(|reader| Ok(reader.tpm2b()?.to_vec()))?;
        let index = TpmHandle::new(INDEX);
        let command = TpmNvCertifyCommand {
            handles: [TpmHandle::new(key.handle()), index, index],
            qualifying_data: Tpm2bData::try_from(nonce).map_err(argument("NV_Certify"))?,
            in_scheme: TpmtSigScheme::default(),
            size: TpmUint16::new(u16::try_from(VALUE_BYTES).unwrap_or(u16::MAX)),
            offset: TpmUint16::new(0),
        };
        let (message, signature) = self
            .run("NV_Certify", &command, &[empty_password(), empty_password()], 0)?
            .read(|reader| Ok((reader.tpm2b()?.to_vec(), reader.rest().to_vec())))?;
        Ok(Certified { public, message, signature })
    }
}

/// TPMS_NV_PUBLIC of the register: TPM 2.0 Part 2, 13.5.
fn public() -> Vec<u8> {
    let size = u16::try_from(VALUE_BYTES).unwrap_or(u16::MAX);
    let sha256 = assay_evidence::HashAlgorithm::Sha256.tpm_id();
    [
        INDEX.to_be_bytes().as_slice(),
        &sha256.to_be_bytes(),
        &ATTRIBUTES.to_be_bytes(),
        // No policy.
        &[0, 0],
        &size.to_be_bytes(),
    ]
    .concat()
}
