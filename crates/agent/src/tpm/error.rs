//! What can go wrong with a TPM, named, and what the reader can do about it.

use std::fmt;
use std::io;

use assay_evidence::read::Truncated;
use thiserror::Error;
use tpm2_protocol::data::{TpmRc, TpmRcBase};

/// A TPM command could not be carried out.
#[derive(Debug, Error)]
pub enum TpmError {
    /// The path or address is not one of the forms we know.
    #[error("{target:?} is no TPM address: use /dev/tpmrm0, tcp:HOST:PORT or unix:PATH")]
    Address {
        /// What was given.
        target: String,
    },
    /// The TPM could not be opened.
    #[error("cannot open the TPM at {target}; {}", open_advice(source))]
    Open {
        /// Which TPM.
        target: String,
        /// What the system said.
        source: io::Error,
    },
    /// The connection to the TPM broke.
    #[error("{command}: the TPM at {target} does not answer")]
    Transport {
        /// Which TPM.
        target: String,
        /// What was being done.
        command: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The TPM refused the command.
    #[error("{command}: the TPM answered {code}")]
    Refused {
        /// What was being done.
        command: &'static str,
        /// The response code, which knows what to do.
        code: ReturnCode,
    },
    /// The AK is of another kind than the configuration says.
    #[error(
        "{path}: this AK is of another kind than attestation_key says. Remove the file and the device enrolls anew with another AK, \
         or leave attestation_key as it was"
    )]
    OtherAkKind {
        /// Which file.
        path: String,
    },
    /// The response is not what the command answers with.
    #[error("{command}: malformed response")]
    Response {
        /// What was being done.
        command: &'static str,
        /// Where it stopped making sense.
        source: Truncated,
    },
    /// A list in the response is longer than the format allows.
    #[error("{command}: {count} items in a response, at most {max} expected")]
    ResponseTooLong {
        /// What was being done.
        command: &'static str,
        /// Items announced.
        count: usize,
        /// Items we accept.
        max: usize,
    },
    /// An argument does not fit the command.
    #[error("{command}: an argument does not fit: {reason}")]
    Argument {
        /// What was being done.
        command: &'static str,
        /// The encoder's reason.
        reason: tpm2_protocol::TpmError,
    },
    /// PCRs kept changing between reading and quoting them.
    #[error("PCRs kept changing while they were quoted ({tries} tries)")]
    PcrsChanging {
        /// How often it was tried.
        tries: u32,
    },
    /// The TPM has no bank of this algorithm.
    #[error("the TPM has no {bank} PCR bank")]
    NoBank {
        /// The bank asked for.
        bank: assay_evidence::digest::HashAlgorithm,
    },
    /// The signature is not the ECDSA P-256 signature asked for.
    #[error("the TPM returned an unexpected kind of signature")]
    SignatureKind,
    /// A key's public area is not of the kind that was made.
    #[error("the key is not of the kind that was asked for")]
    KeyKind,
    /// The agent is stopping.
    #[error("interrupted: the agent is stopping")]
    Interrupted,
    /// A saved key belongs to another TPM, or the TPM was cleared since.
    #[error(
        "{path}: this key is not of this TPM: the state folder is another machine's, or the TPM was cleared. To enroll anew, \
         remove both ak.key and device.key there"
    )]
    ForeignKey {
        /// The key file.
        path: String,
        /// What the TPM said.
        #[source]
        source: Box<TpmError>,
    },
    /// A key file cannot be read or written.
    #[error(transparent)]
    State(#[from] crate::state_dir::StateError),
    /// The TPM has none of the endorsement keys we know how to make.
    #[error("no endorsement key could be made: {reasons}")]
    NoEndorsementKey {
        /// Each kind tried with its refusal.
        reasons: String,
    },
}

impl TpmError {
    /// Whether the keys have to be loaded anew: the TPM was restarted, or the connection to it is gone.
    pub fn is_lost(&self) -> bool {
        let unloaded =
            [TpmRcBase::ReferenceH0, TpmRcBase::ReferenceH1, TpmRcBase::Handle, TpmRcBase::Initialize];
        match self {
            TpmError::Transport { .. } => true,
            TpmError::Refused { code, .. } => unloaded.into_iter().any(|base| code.is(base)),
            _ => false,
        }
    }

    /// The TPM's own name of the refusal, where it is one.
    pub fn refusal(&self) -> Option<ReturnCode> {
        match self {
            TpmError::Refused { code, .. } => Some(*code),
            TpmError::ForeignKey { source, .. } => source.refusal(),
            _ => None,
        }
    }
}

fn open_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such device: enable the TPM in firmware setup, load tpm_crb or tpm_tis, or name another with --tpm"
        }
        io::ErrorKind::PermissionDenied => "permission denied: add this user to group tss",
        io::ErrorKind::ResourceBusy => "another program holds it: use the resource manager, /dev/tpmrm0",
        io::ErrorKind::ConnectionRefused => "nothing listens there: start the software TPM first",
        _ => "see the cause",
    }
}

/// A TPM_RC, TPM 2.0 Part 2 §6.6.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ReturnCode(u32);

impl ReturnCode {
    /// Takes the code as it was received.
    pub fn new(value: u32) -> Self {
        ReturnCode(value)
    }

    /// The number.
    pub fn value(self) -> u32 {
        self.0
    }

    /// The name without handle, session or parameter number (`TPM_RC_LOCKOUT`).
    pub fn name(self) -> String {
        match self.base() {
            Some(base) => base.to_string(),
            None => String::from("an unknown code"),
        }
    }

    /// What somebody running the machine can do about it.
    pub fn advice(self) -> Option<&'static str> {
        Some(match self.base()? {
            TpmRcBase::Lockout => {
                "the TPM is in dictionary-attack lockout: wait, or reset it with tpm2_dictionarylockout -c"
            }
            TpmRcBase::AuthFail | TpmRcBase::BadAuth => {
                "a hierarchy has a password: Assay needs owner and endorsement hierarchies without one"
            }
            TpmRcBase::Hierarchy | TpmRcBase::Disabled => {
                "the hierarchy is switched off: enable it in firmware setup"
            }
            TpmRcBase::ObjectMemory | TpmRcBase::ObjectHandles => {
                "all object slots are in use: use /dev/tpmrm0, or flush with tpm2_flushcontext -t"
            }
            TpmRcBase::SessionMemory | TpmRcBase::SessionHandles => {
                "all session slots are in use: flush with tpm2_flushcontext -l"
            }
            TpmRcBase::Initialize => "the TPM was not started up: firmware has to send TPM2_Startup",
            TpmRcBase::Failure => "the TPM is in failure mode: power the machine off and on",
            TpmRcBase::Integrity => "the key was made by another TPM, or the TPM was cleared since",
            TpmRcBase::CommandCode => "this TPM does not have the command",
            TpmRcBase::Retry | TpmRcBase::Testing | TpmRcBase::Yielded => "the TPM was busy for too long",
            TpmRcBase::NvRate => "the TPM limits writes to its memory: wait a while",
            TpmRcBase::NvSpace => "the TPM's memory is full",
            TpmRcBase::Reboot => "the TPM wants a reboot",
            _ => return None,
        })
    }

    /// Whether the same command may succeed if it is sent again after a moment.
    pub fn is_busy(self) -> bool {
        matches!(self.base(), Some(TpmRcBase::Retry | TpmRcBase::Testing | TpmRcBase::Yielded))
    }

    pub(crate) fn is(self, base: TpmRcBase) -> bool {
        self.base() == Some(base)
    }

    fn base(self) -> Option<TpmRcBase> {
        TpmRc::try_from(self.0).ok().map(|code| code.base())
    }
}

impl fmt::Display for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match TpmRc::try_from(self.0) {
            Ok(code) => write!(f, "{code} ({:#05x})", self.0)?,
            Err(_) => write!(f, "an unknown code ({:#05x})", self.0)?,
        }
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ReturnCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_knows_its_name_and_what_to_do() {
        let check = |value, name: &str, advised| {
            let code = ReturnCode::new(value);
            assert_eq!(code.name(), name);
            assert_eq!(code.advice().is_some(), advised, "{code}");
        };
        check(0x921, "TPM_RC_LOCKOUT", true);
        check(0x922, "TPM_RC_RETRY", true);
        check(0x902, "TPM_RC_OBJECT_MEMORY", true);
        check(0x98e, "TPM_RC_AUTH_FAIL", true);
        check(0x1df, "TPM_RC_INTEGRITY", true);
        check(0x084, "TPM_RC_VALUE", false);
        check(0xffff_0000, "an unknown code", false);
        assert!(ReturnCode::new(0x922).is_busy());
        assert!(!ReturnCode::new(0x921).is_busy());
    }
}
