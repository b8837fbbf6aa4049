//! TPMS_ATTEST: a statement of the TPM, parsed but not yet believed.

use thiserror::Error;

use super::pcr::{PcrSelection, SelectionError};
use crate::read::{Reader, Truncated};

/// A TPMS_ATTEST (TPM 2.0 Part 2, 10.12.12). Magic and type are kept as found, so that each can be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attest {
    /// TPM_GENERATED_VALUE if the TPM made it.
    pub magic: u32,
    /// A TPM_ST, such as [`Attest::TYPE_QUOTE`].
    pub attest_type: u16,
    /// Qualified Name of the signing key.
    pub qualified_signer: Vec<u8>,
    /// The caller's qualifying data: our nonce.
    pub extra_data: Vec<u8>,
    /// Clock and counters.
    pub clock_info: ClockInfo,
    /// The vendor's firmware version.
    pub firmware_version: u64,
    /// What is attested.
    pub body: Body,
}

/// TPMS_CLOCK_INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds the TPM was powered since it was last cleared.
    pub clock: u64,
    /// Boots (TPM Reset) since it was last cleared.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// Whether no higher clock value can have been reported before.
    pub safe: bool,
}

impl ClockInfo {
    /// The counters alone.
    pub fn counters(&self) -> BootCounters {
        BootCounters { reset_count: self.reset_count, restart_count: self.restart_count }
    }
}

/// How often a TPM was reset and restarted. Both only grow, the second from zero after each reset (TPM 2.0 Part 1, 36.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BootCounters {
    /// Boots (TPM Reset) since it was last cleared.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
}

/// TPMU_ATTEST, as far as we use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// TPMS_QUOTE_INFO.
    Quote {
        /// The PCRs quoted.
        selection: PcrSelection,
        /// The hash of their values.
        pcr_digest: Vec<u8>,
    },
    /// TPMS_CERTIFY_INFO.
    Certify {
        /// Name of the certified object.
        name: Vec<u8>,
        /// Its qualified Name.
        qualified_name: Vec<u8>,
    },
    /// TPMS_SESSION_AUDIT_INFO.
    SessionAudit {
        /// What went through the session.
        digest: Vec<u8>,
    },
    /// TPMS_NV_CERTIFY_INFO.
    NvCertify {
        /// Name of the index.
        index_name: Vec<u8>,
        /// Where in it the content begins.
        offset: u16,
        /// What is there.
        contents: Vec<u8>,
    },
    /// TPMS_CREATION_INFO.
    Creation {
        /// Name of the object that was made.
        name: Vec<u8>,
        /// The hash of how it was made.
        creation_hash: Vec<u8>,
    },
    /// Any other kind of statement; not read further.
    Other,
}

impl Attest {
    /// TPM_GENERATED_VALUE: what a restricted key refuses to sign at the start of foreign data.
    pub const MAGIC: u32 = 0xff54_4347;
    /// TPM_ST_ATTEST_NV.
    pub const TYPE_NV: u16 = 0x8014;
    /// TPM_ST_ATTEST_SESSION_AUDIT.
    pub const TYPE_SESSION_AUDIT: u16 = 0x8016;
    /// TPM_ST_ATTEST_CERTIFY.
    pub const TYPE_CERTIFY: u16 = 0x8017;
    /// TPM_ST_ATTEST_QUOTE.
    pub const TYPE_QUOTE: u16 = 0x8018;
    /// TPM_ST_ATTEST_CREATION.
    pub const TYPE_CREATION: u16 = 0x801a;

    /// Reads a TPMS_ATTEST, all of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        if bytes.len() > ATTEST_BYTES_MAX {
            return Err(AttestError::TooLong(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let magic = reader.u32_be()?;
        let attest_type = reader.u16_be()?;
        let qualified_signer = reader.tpm2b()?.to_vec();
        let extra_data = reader.tpm2b()?.to_vec();
        let clock_info = ClockInfo::parse(&mut reader)?;
        let firmware_version = reader.u64_be()?;
        let body = Body::parse(attest_type, &mut reader)?;
        if !reader.is_empty() && body != Body::Other {
            return Err(AttestError::Surplus(reader.rest().len()));
        }
        Ok(Attest { magic, attest_type, qualified_signer, extra_data, clock_info, firmware_version, body })
    }
}

impl ClockInfo {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, AttestError> {
        Ok(ClockInfo {
            clock: reader.u64_be()?,
            reset_count: reader.u32_be()?,
            restart_count: reader.u32_be()?,
            safe: match reader.u8()? {
                0 => false,
                1 => true,
                other => return Err(AttestError::Safe(other)),
            },
        })
    }
}

impl Body {
    fn parse(attest_type: u16, reader: &mut Reader<'_>) -> Result<Self, AttestError> {
        match attest_type {
            Attest::TYPE_QUOTE => Ok(Body::Quote {
                selection: PcrSelection::parse(reader)?,
                pcr_digest: reader.tpm2b()?.to_vec(),
            }),
            Attest::TYPE_CERTIFY => {
                Ok(Body::Certify { name: reader.tpm2b()?.to_vec(), qualified_name: reader.tpm2b()?.to_vec() })
            }
            Attest::TYPE_SESSION_AUDIT => {
                // Whether another command came between is of no account: the digest says which did.
                reader.u8()?;
                Ok(Body::SessionAudit { digest: reader.tpm2b()?.to_vec() })
            }
            Attest::TYPE_NV => Ok(Body::NvCertify {
                index_name: reader.tpm2b()?.to_vec(),
                offset: reader.u16_be()?,
                contents: reader.tpm2b()?.to_vec(),
            }),
            Attest::TYPE_CREATION => {
                Ok(Body::Creation { name: reader.tpm2b()?.to_vec(), creation_hash: reader.tpm2b()?.to_vec() })
            }
            _ => Ok(Body::Other),
        }
    }
}

/// Bytes that are not a TPMS_ATTEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AttestError {
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// The PCR selection is not one.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// TPMI_YES_NO is neither.
    #[error("clock safe flag is {0}")]
    Safe(u8),
    /// More than a TPM ever makes.
    #[error("{0} bytes, at most {ATTEST_BYTES_MAX} make sense")]
    TooLong(usize),
    /// Bytes follow.
    #[error("{0} bytes after the attestation")]
    Surplus(usize),
}

/// sizeof(TPMS_ATTEST) is below 700 with every bank selected; twice that is room enough.
const ATTEST_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(magic: u32, kind: u16, safe: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(magic.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        // An empty signer, a nonce of two bytes, clock 7, reset 2, restart 1.
        bytes.extend([0, 0, 0, 2, 0xab, 0xcd]);
        bytes.extend(7u64.to_be_bytes());
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 1, safe]);
        bytes.extend(9u64.to_be_bytes());
        // sha256:0,9 and a digest of one byte.
        bytes.extend([0, 0, 0, 1, 0, 0x0b, 3, 1, 2, 0, 0, 1, 0xee]);
        bytes
    }

    #[test]
    fn reads_a_quote() {
        let attest = Attest::parse(&quote(Attest::MAGIC, Attest::TYPE_QUOTE, 1)).unwrap();
        assert_eq!(attest.extra_data, [0xab, 0xcd]);
        assert_eq!(attest.clock_info, ClockInfo { clock: 7, reset_count: 2, restart_count: 1, safe: true });
        assert_eq!(attest.firmware_version, 9);
        let Body::Quote { selection, pcr_digest } = attest.body else { panic!("not a quote") };
        assert_eq!(selection.to_string(), "sha256:0,9");
        assert_eq!(pcr_digest, [0xee]);
    }

    #[test]
    fn keeps_a_wrong_magic_and_type_for_the_report() {
        let attest = Attest::parse(&quote(1, 0x8019, 0)).unwrap();
        assert_eq!((attest.magic, attest.attest_type, attest.body), (1, 0x8019, Body::Other));
    }

    #[test]
    fn refuses_what_is_cut_or_longer() {
        let good = quote(Attest::MAGIC, Attest::TYPE_QUOTE, 1);
        for length in 0..good.len() {
            assert!(Attest::parse(good.get(..length).unwrap()).is_err(), "{length} bytes");
        }
        assert_eq!(Attest::parse(&[good.as_slice(), &[0]].concat()), Err(AttestError::Surplus(1)));
        assert_eq!(Attest::parse(&quote(Attest::MAGIC, Attest::TYPE_QUOTE, 2)), Err(AttestError::Safe(2)));
        assert_eq!(Attest::parse(&[0; 4096]), Err(AttestError::TooLong(4096)));
    }
}
