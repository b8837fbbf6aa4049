//! The register: an NV index of type extend, and the TPM's word on what is in it.
//!
//! While it exists it can only be extended, and it begins anew with each boot. Whoever owns the TPM can delete it and make it anew: that
//! shows to who has seen more of the log in the same boot, and to nobody else. That what extends it measures what it runs is for the
//! device's boot and its IMA list to show.

use thiserror::Error;

use super::log::{Log, VALUE_BYTES};
use crate::HashAlgorithm;
use crate::read::{Reader, Truncated};
use crate::tpm::attest::{Attest, Body};
use crate::tpm::name::Name;
use crate::tpm::public_area::PublicArea;
use crate::tpm::signature::Signature;

/// What a device shows of its register, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct RegisterStatement<'a> {
    /// TPMS_NV_PUBLIC of the index.
    pub public: &'a [u8],
    /// TPMS_ATTEST of TPM2_NV_Certify.
    pub message: &'a [u8],
    /// TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// What it has to be made for.
    pub nonce: &'a [u8],
}

/// What the register held. Made by [`verify_register`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    value: [u8; VALUE_BYTES],
    reset_count: u32,
}

impl Register {
    /// Its value.
    pub fn value(&self) -> &[u8; VALUE_BYTES] {
        &self.value
    }

    /// The boot that it was read in.
    pub fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Whether a log leads here.
    pub fn is_of(&self, log: &Log) -> Result<(), RegisterFault> {
        if log.reset_count() != self.reset_count {
            return Err(RegisterFault::Boot { log: log.reset_count(), tpm: self.reset_count });
        }
        let replayed = log.end().value;
        if replayed != self.value {
            return Err(RegisterFault::Replay { replayed: hex(&replayed), found: hex(&self.value) });
        }
        Ok(())
    }
}

/// What is wrong with a statement about the register, or with the log that is to lead to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterFault {
    /// The signature is not the AK's.
    #[error("the register's statement is not signed by the AK {ak}: {found}")]
    Signature {
        /// The AK's Name.
        ak: String,
        /// What is wrong.
        found: String,
    },
    /// Not what TPM2_NV_Certify makes.
    #[error("the register's statement is no certification of an NV index by a TPM: {0}")]
    Statement(String),
    /// Made for something else.
    #[error("the register's statement was made for {found}, and {expected} was asked for")]
    Nonce {
        /// What was asked for.
        expected: String,
        /// What it was made for.
        found: String,
    },
    /// The public area is not that of the index.
    #[error("the register's public area is not that of the index that was certified")]
    Name,
    /// Not a register: it can be written, or set back.
    #[error("the NV index is no register: {0}")]
    Public(&'static str),
    /// Nothing was extended yet, or not all of it was certified.
    #[error("the register's value has {0} bytes, not {VALUE_BYTES}")]
    Value(usize),
    /// The log is of another boot.
    #[error(
        "the log is of boot {log}, and the register of boot {tpm}: the log was played again, or the device booted meanwhile"
    )]
    Boot {
        /// The log's.
        log: u32,
        /// The TPM's.
        tpm: u32,
    },
    /// The log was changed, or something else extended the register.
    #[error(
        "the log replays to {replayed}, and the register holds {found}: entries were left out, moved or changed"
    )]
    Replay {
        /// What the log leads to.
        replayed: String,
        /// What the register holds.
        found: String,
    },
}

/// Makes every check of a statement about the register.
pub fn verify_register(
    statement: &RegisterStatement<'_>,
    ak: &PublicArea,
) -> Result<Register, Vec<RegisterFault>> {
    let mut faults = Vec::new();
    let found = match Signature::parse(statement.signature) {
        Ok(signature) => ak.verify(&signature, statement.message).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    faults.extend(found.map(|found| RegisterFault::Signature { ak: ak.name().to_hex(), found }));
    if let Err(fault) = check_public(statement.public) {
        faults.push(fault);
    }
    let read = match Attest::parse(statement.message) {
        Ok(attest) => read(&attest, statement, &mut faults),
        Err(error) => {
            faults.push(RegisterFault::Statement(error.to_string()));
            None
        }
    };
    match read {
        Some(register) if faults.is_empty() => Ok(register),
        _ => Err(faults),
    }
}

fn read(
    attest: &Attest,
    statement: &RegisterStatement<'_>,
    faults: &mut Vec<RegisterFault>,
) -> Option<Register> {
    // Part 2, 10.12.12: without the magic, what follows may be anybody's data that a key was asked to sign.
    if attest.magic != Attest::MAGIC {
        faults.push(RegisterFault::Statement(format!("its magic is {:#010x}", attest.magic)));
    }
    if attest.extra_data != statement.nonce {
        let (expected, found) = (hex(statement.nonce), hex(&attest.extra_data));
        faults.push(RegisterFault::Nonce { expected, found });
    }
    let Body::NvCertify { index_name, offset, contents } = &attest.body else {
        faults.push(RegisterFault::Statement(format!("its type is {:#06x}", attest.attest_type)));
        return None;
    };
    if index_name != Name::of(HashAlgorithm::Sha256, statement.public).as_bytes() {
        faults.push(RegisterFault::Name);
    }
    match <[u8; VALUE_BYTES]>::try_from(contents.as_slice()) {
        Ok(value) if *offset == 0 => Some(Register { value, reset_count: attest.clock_info.reset_count }),
        _ => {
            faults.push(RegisterFault::Value(contents.len()));
            None
        }
    }
}

/// TPMS_NV_PUBLIC (TPM 2.0 Part 2, 13.5): its Name covers all of it, so that what is checked here cannot change.
fn check_public(public: &[u8]) -> Result<(), RegisterFault> {
    let mut reader = Reader::new(public);
    let cut = |_: Truncated| RegisterFault::Public("its public area is cut short");
    let index = reader.u32_be().map_err(cut)?;
    let name_algorithm = reader.u16_be().map_err(cut)?;
    let attributes = reader.u32_be().map_err(cut)?;
    let policy = reader.tpm2b().map_err(cut)?;
    let size = reader.u16_be().map_err(cut)?;
    let holds = [
        ("bytes follow its public area", reader.is_empty()),
        ("it is another index", index == INDEX),
        ("it is not hashed with SHA-256", name_algorithm == HashAlgorithm::Sha256.tpm_id()),
        ("its attributes are not those of a register", attributes == ATTRIBUTES | WRITTEN),
        ("it has a policy", policy.is_empty()),
        ("it has another size", usize::from(size) == VALUE_BYTES),
    ];
    match holds.into_iter().find(|(_, holds)| !holds) {
        Some((what, _)) => Err(RegisterFault::Public(what)),
        None => Ok(()),
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// The index, of those that a TPM's owner defines (TCG Registry of Reserved TPM 2.0 Handles, 2.2).
pub const INDEX: u32 = 0x0180_a5a1;
/// TPMA_NV: AUTHWRITE, OWNERREAD, AUTHREAD, NO_DA, of type extend, kept in memory until the TPM is shut down (ORDERLY: a task wears
/// nothing out), and not written after each boot (CLEAR_STCLEAR).
pub const ATTRIBUTES: u32 = 0x0e06_0044;
/// TPMA_NV_WRITTEN.
const WRITTEN: u32 = 0x2000_0000;
