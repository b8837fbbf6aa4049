//! TPM2_Quote and TPM2_Certify in software. Whatever goes into the signed structure can be altered first.

use super::tpm_bytes::{ALG_SHA256, TpmBytes};
use super::{BANKS, DeviceError, SoftwareDevice, TpmKey};
use crate::Bank;
use crate::edge::protocol::{BankStatement, Challenge, PcrSelection, PcrValue, Quote};
use crate::pcrs::Pcrs;

/// TPMS_CLOCK_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds the TPM has been powered.
    pub millis: u64,
    /// How often it was reset.
    pub reset_count: u32,
    /// How often it was resumed since.
    pub restart_count: u32,
    /// Whether the clock never showed this value before.
    pub safe: bool,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { millis: 60_000, reset_count: 0, restart_count: 0, safe: true }
    }
}

/// All that a quote says, before it is signed.
#[derive(Clone, Debug)]
pub struct Quoting {
    /// TPM_GENERATED_VALUE.
    pub magic: u32,
    /// TPM_ST_ATTEST_QUOTE.
    pub kind: u16,
    /// Who signs.
    pub signer: Vec<u8>,
    /// The qualifying data.
    pub nonce: Vec<u8>,
    /// The clock and counters.
    pub clock: Clock,
    /// Which PCRs are quoted.
    pub selection: Vec<(Bank, Vec<u32>)>,
    /// The hash of their values.
    pub pcr_digest: Vec<u8>,
    /// The values told beside the quote.
    pub pcrs: Vec<PcrValue>,
}

/// All that a certification of a key says, before it is signed.
#[derive(Clone, Debug)]
pub struct Certifying {
    /// TPM_GENERATED_VALUE.
    pub magic: u32,
    /// TPM_ST_ATTEST_CERTIFY.
    pub kind: u16,
    /// The qualifying data.
    pub nonce: Vec<u8>,
    /// The clock and counters.
    pub clock: Clock,
    /// The Name of the certified key.
    pub name: Vec<u8>,
}

/// All that a TPM says of its banks, before it is signed.
#[derive(Clone, Debug)]
pub struct Stating {
    /// TPM_GENERATED_VALUE.
    pub magic: u32,
    /// TPM_ST_ATTEST_SESSION_AUDIT.
    pub kind: u16,
    /// Who signs.
    pub signer: Vec<u8>,
    /// The qualifying data.
    pub nonce: Vec<u8>,
    /// The clock and counters.
    pub clock: Clock,
    /// TPM_ALG_ID of the active banks as they are told.
    pub told: Vec<u16>,
    /// And as they went through the session.
    pub audited: Vec<u16>,
}

/// A signed attestation structure.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
}

/// How a key was made, before it is signed.
#[derive(Clone, Debug)]
pub struct Creating {
    /// TPM_GENERATED_VALUE.
    pub magic: u32,
    /// Clock and counters.
    pub clock: Clock,
    /// The key's Name.
    pub name: Vec<u8>,
    /// TPMS_CREATION_DATA.
    pub data: Vec<u8>,
    /// What is said to be its hash.
    pub hash: Vec<u8>,
}

impl Quoting {
    /// What an honest TPM says to this challenge.
    pub fn honest(device: &mut SoftwareDevice, challenge: &Challenge) -> Quoting {
        device.clock.millis += 1;
        let mut selection: Vec<(Bank, Vec<u32>)> = Vec::new();
        for PcrSelection { bank, pcrs } in challenge.selection.iter().chain(&challenge.watched) {
            let Some(bank) = Bank::from_name(bank) else { continue };
            if challenge.banks_wanted && !BANKS.contains(&bank) {
                continue;
            }
            let place = selection.iter().position(|(of, _)| *of == bank).unwrap_or_else(|| {
                selection.push((bank, Vec::new()));
                selection.len() - 1
            });
            if let Some((_, of_bank)) = selection.get_mut(place) {
                // A TPM hashes in ascending order and each once, however it was asked.
                of_bank.extend(pcrs);
                of_bank.sort_unstable();
                of_bank.dedup();
            }
        }
        let mut quoting = Quoting {
            magic: GENERATED,
            kind: ATTEST_QUOTE,
            signer: device.ak.name(),
            nonce: challenge.nonce.clone(),
            clock: device.clock,
            selection: Vec::new(),
            pcr_digest: Vec::new(),
            pcrs: Vec::new(),
        };
        quoting.select(device, selection);
        quoting
    }

    /// Quotes other PCRs than were asked for.
    pub fn select(&mut self, device: &SoftwareDevice, selection: Vec<(Bank, Vec<u32>)>) {
        self.select_of(&device.pcrs, selection);
    }

    /// Quotes these PCRs of a TPM that holds `values`.
    pub fn select_of(&mut self, values: &Pcrs, selection: Vec<(Bank, Vec<u32>)>) {
        self.pcrs.clear();
        for (bank, pcrs) in &selection {
            for pcr in pcrs {
                let digest = values.value(*bank, *pcr).to_vec();
                self.pcrs.push(PcrValue { bank: bank.name().into(), index: *pcr, digest });
            }
        }
        self.selection = selection;
        self.pcr_digest = self.told_digest();
    }

    /// The digest over the values as they are told.
    pub fn told_digest(&self) -> Vec<u8> {
        Bank::Sha256.hash(&self.pcrs.iter().flat_map(|pcr| pcr.digest.clone()).collect::<Vec<_>>())
    }

    /// Signs it.
    pub fn sign(self, key: &TpmKey) -> Result<Quote, DeviceError> {
        let header = attest_header(self.magic, self.kind, &self.signer, &self.nonce, self.clock);
        let message = selection(header, &self.selection).sized(&self.pcr_digest).finish();
        let signature = key.sign(&message)?;
        Ok(Quote { message, signature, pcrs: self.pcrs })
    }
}

impl Certifying {
    /// What an honest TPM says of the device key.
    pub fn honest(device: &SoftwareDevice, nonce: &[u8]) -> Certifying {
        Certifying {
            magic: GENERATED,
            kind: ATTEST_CERTIFY,
            nonce: nonce.to_vec(),
            clock: device.clock,
            name: device.device_key.name(),
        }
    }

    /// What an honest TPM says of the attestation key.
    pub fn of_ak(device: &SoftwareDevice, nonce: &[u8]) -> Certifying {
        Certifying { name: device.ak.name(), ..Certifying::honest(device, nonce) }
    }

    /// Signs it.
    pub fn sign(self, key: &TpmKey) -> Result<Signed, DeviceError> {
        let message = attest_header(self.magic, self.kind, &key.name(), &self.nonce, self.clock)
            .sized(&self.name)
            .sized(&self.name)
            .finish();
        let signature = key.sign(&message)?;
        Ok(Signed { message, signature })
    }
}

impl Creating {
    /// What an honest TPM says of how it made the attestation key.
    pub fn honest(device: &SoftwareDevice) -> Creating {
        // No PCRs, made at locality zero, below a storage key whose names nobody looks at, with nothing of the caller's.
        let data =
            TpmBytes::default().u32(0).sized(&[]).u8(1).u16(ALG_SHA256).sized(&[]).sized(&[]).sized(&[]);
        let data = data.finish();
        let hash = Bank::Sha256.hash(&data);
        Creating { magic: GENERATED, clock: device.clock, name: device.ak.name(), data, hash }
    }

    /// Signs it.
    pub fn sign(&self, key: &TpmKey) -> Result<Signed, DeviceError> {
        let message = attest_header(self.magic, ATTEST_CREATION, &key.name(), &[], self.clock)
            .sized(&self.name)
            .sized(&self.hash)
            .finish();
        let signature = key.sign(&message)?;
        Ok(Signed { message, signature })
    }
}

impl Stating {
    /// What an honest TPM with these banks says.
    pub fn honest(banks: &[Bank], signer: &TpmKey, clock: Clock, nonce: &[u8]) -> Stating {
        let ids: Vec<u16> = banks.iter().map(|bank| bank.id()).collect();
        Stating {
            magic: GENERATED,
            kind: ATTEST_SESSION_AUDIT,
            signer: signer.name(),
            nonce: nonce.to_vec(),
            clock,
            told: ids.clone(),
            audited: ids,
        }
    }

    /// Signs it.
    pub fn sign(self, key: &TpmKey) -> Result<BankStatement, DeviceError> {
        let digest = audit_digest(&capability(&self.audited));
        let message = attest_header(self.magic, self.kind, &self.signer, &self.nonce, self.clock)
            .u8(0)
            .sized(&digest)
            .finish();
        let signature = key.sign(&message)?;
        Ok(BankStatement { capability: capability(&self.told), message, signature })
    }
}

/// TPMS_CAPABILITY_DATA of the PCRs after moreData. A TPM names its banks that are off as well.
fn capability(active: &[u16]) -> Vec<u8> {
    let known: Vec<u16> = Bank::ALL.into_iter().map(Bank::id).collect();
    let off = known.iter().filter(|bank| !active.contains(bank)).map(|bank| (*bank, 0));
    let banks: Vec<(u16, u8)> = active.iter().map(|bank| (*bank, 0xff)).chain(off).collect();
    let head = TpmBytes::default().u8(0).u32(CAP_PCRS).u32(banks.len() as u32);
    banks.into_iter().fold(head, |bytes, (bank, mask)| bytes.u16(bank).u8(3).raw(&[mask; 3])).finish()
}

/// What an audit session holds after TPM2_GetCapability(TPM_CAP_PCRS, 0, 16) and this answer.
fn audit_digest(answer: &[u8]) -> Vec<u8> {
    let command = TpmBytes::default().u32(GET_CAPABILITY);
    let asked = command.u32(CAP_PCRS).u32(0).u32(16).finish();
    let answered = TpmBytes::default().u32(0).u32(GET_CAPABILITY).raw(answer).finish();
    let hashes = [vec![0; 32], Bank::Sha256.hash(&asked), Bank::Sha256.hash(&answered)];
    Bank::Sha256.hash(&hashes.concat())
}

/// TPMS_ATTEST up to the part that depends on its type.
pub(super) fn attest_header(magic: u32, kind: u16, signer: &[u8], nonce: &[u8], clock: Clock) -> TpmBytes {
    TpmBytes::default()
        .u32(magic)
        .u16(kind)
        .sized(signer)
        .sized(nonce)
        .u64(clock.millis)
        .u32(clock.reset_count)
        .u32(clock.restart_count)
        .u8(u8::from(clock.safe))
        .u64(FIRMWARE_VERSION)
}

/// TPML_PCR_SELECTION.
fn selection(bytes: TpmBytes, selection: &[(Bank, Vec<u32>)]) -> TpmBytes {
    selection.iter().fold(bytes.u32(selection.len() as u32), |bytes, (bank, pcrs)| {
        let map: u32 = pcrs.iter().filter(|pcr| **pcr < 24).map(|pcr| 1 << pcr).sum();
        let [first, second, third, _] = map.to_le_bytes();
        bytes.u16(bank.id()).u8(3).raw(&[first, second, third])
    })
}

/// TPM_GENERATED_VALUE: what no TPM signs unless it said it itself.
pub const GENERATED: u32 = 0xff54_4347;
/// TPM_ST_ATTEST_QUOTE.
pub const ATTEST_QUOTE: u16 = 0x8018;
/// TPM_ST_ATTEST_CERTIFY.
pub const ATTEST_CERTIFY: u16 = 0x8017;
/// TPM_ST_ATTEST_CREATION.
pub const ATTEST_CREATION: u16 = 0x801a;
/// TPM_ST_ATTEST_SESSION_AUDIT.
pub const ATTEST_SESSION_AUDIT: u16 = 0x8016;
const CAP_PCRS: u32 = 5;
const GET_CAPABILITY: u32 = 0x17a;
const FIRMWARE_VERSION: u64 = 0x2026_0101_0000_0001;
