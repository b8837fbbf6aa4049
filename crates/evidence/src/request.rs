//! What a verifier asks of a device and what the device answers, as owned bytes and apart from any protocol. Every door
//! translates into these; nothing in them is believed by anybody.

use bytes::Bytes;

use crate::digest::{HashAlgorithm, PcrIndex};
use crate::tpm::banks;
use crate::tpm::pcr::PcrValues;
use crate::verify::ImaLog;

/// A request for fresh evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the quote has to answer; used once.
    pub nonce: [u8; NONCE_BYTES],
    /// The PCRs to quote, by bank.
    pub selection: Vec<(HashAlgorithm, Vec<PcrIndex>)>,
    /// Further PCRs to quote where the TPM has them, and to watch.
    pub watched: Vec<(HashAlgorithm, Vec<PcrIndex>)>,
    /// Whether the boot log is wanted; else it is known.
    pub boot_log_wanted: bool,
    /// The first IMA entry that is wanted, counted from boot.
    pub ima_from_entry: u64,
    /// Whether the TPM's word on its PCR banks is wanted; of those that are off, nothing is quoted then.
    pub banks_wanted: bool,
}

/// What a device answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Of the challenge that it says to answer.
    pub nonce: Bytes,
    /// The TPM's word.
    pub quote: Quote,
    /// The TCG boot log; `None`: not wanted, or the host has none.
    pub boot_log: Option<Bytes>,
    /// systemd's measurement log; `None`: the host has none, or it was told before.
    pub measure_log: Option<Bytes>,
    /// The IMA list from `ima_from_entry` on.
    pub ima_log: Bytes,
    /// Its first entry, counted from boot.
    pub ima_from_entry: u64,
    /// Whether it is in the ASCII form.
    pub ima_ascii: bool,
    /// The TPM's word on its PCR banks; `None`: not wanted, or told before.
    pub banks: Option<BankStatement>,
}

/// A TPM's word on its PCR banks as it was received: see [`banks`](crate::tpm::banks).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BankStatement {
    /// Of the challenge that it answered.
    pub nonce: Bytes,
    /// What the TPM said.
    pub capability: Bytes,
    /// TPMS_ATTEST.
    pub message: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
}

impl BankStatement {
    /// How long it is.
    pub fn bytes(&self) -> usize {
        let BankStatement { nonce, capability, message, signature } = self;
        [nonce, capability, message, signature].into_iter().map(Bytes::len).sum()
    }

    /// The same for verification.
    pub fn as_evidence(&self) -> banks::BankStatement<'_> {
        let BankStatement { nonce, capability, message, signature } = self;
        banks::BankStatement { nonce, capability, message, signature }
    }
}

/// A quote as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// TPMS_ATTEST.
    pub message: Bytes,
    /// TPMT_SIGNATURE.
    pub signature: Bytes,
    /// The PCR values that it is said to cover.
    pub pcrs: PcrValues,
}

/// What a device shows of its TPM and of the identity its maker gave it. Empty: it shows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// TPM2B_PUBLIC of the EK.
    pub ek_public: Bytes,
    /// The EK certificate, DER.
    pub ek_certificate: Bytes,
    /// Certificates between that and the anchors, DER.
    pub ek_intermediates: Vec<Bytes>,
    /// TPM2B_PUBLIC of the IAK.
    pub iak_public: Bytes,
    /// The IAK's certificate, DER.
    pub iak_certificate: Bytes,
    /// TPM2B_PUBLIC of the IDevID.
    pub idevid_public: Bytes,
    /// The IDevID's certificate, DER.
    pub idevid_certificate: Bytes,
    /// Certificates between both and the anchors, DER.
    pub idevid_intermediates: Vec<Bytes>,
}

impl Evidence {
    /// The boot log, if there is one. Empty counts as none.
    pub fn boot_log(&self) -> Option<&[u8]> {
        self.boot_log.as_deref().filter(|log| !log.is_empty())
    }

    /// The IMA list, if there is one: no bytes mean nothing new after entries that are known, and else that the host has
    /// no list.
    pub fn ima_log(&self) -> Option<ImaLog<'_>> {
        match (self.ima_log.is_empty() && self.ima_from_entry == 0, self.ima_ascii) {
            (true, _) => None,
            (false, true) => Some(ImaLog::Ascii(&self.ima_log)),
            (false, false) => Some(ImaLog::Shared(&self.ima_log)),
        }
    }
}

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 32;
