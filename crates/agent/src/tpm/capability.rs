//! What the TPM says of itself: properties, algorithms, PCR banks, handles, clock, and random bytes.

use assay_evidence::digest::HashAlgorithm;
use assay_evidence::read::{Reader, Truncated};
use tpm2_protocol::basic::{TpmUint16, TpmUint32};
use tpm2_protocol::data::{TpmAlgId, TpmCap};
use tpm2_protocol::frame::{TpmGetCapabilityCommand, TpmGetRandomCommand, TpmReadClockCommand};

use super::{Tpm, TpmError};

/// A numbered property of the TPM, TPM 2.0 Part 2 §6.13.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Property {
    /// TPM_PT_REVISION, times a hundred.
    Revision = 0x102,
    /// TPM_PT_MANUFACTURER, four characters.
    Manufacturer = 0x105,
    /// TPM_PT_VENDOR_STRING_1, four characters; three more follow.
    VendorString = 0x106,
    /// TPM_PT_FIRMWARE_VERSION_1.
    FirmwareHigh = 0x10b,
    /// TPM_PT_FIRMWARE_VERSION_2.
    FirmwareLow = 0x10c,
    /// TPM_PT_NV_BUFFER_MAX: bytes one NV_Read may ask for.
    NvBufferMax = 0x12c,
    /// TPM_PT_LOCKOUT_COUNTER.
    LockoutCounter = 0x20e,
}

/// A PCR bank and how many PCRs it has; none means the bank is switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrBank {
    /// TPM_ALG_ID.
    pub algorithm: u16,
    /// PCRs allocated in it.
    pub pcrs: u32,
}

impl PcrBank {
    /// Its algorithm, if it is one we compute.
    pub fn hash(&self) -> Option<HashAlgorithm> {
        HashAlgorithm::from_tpm_id(self.algorithm)
    }
}

/// The TPM's clock and counters, TPMS_TIME_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds the TPM was powered.
    pub clock_ms: u64,
    /// Boots, as the TPM counts them.
    pub reset_count: u32,
    /// Resumes and restarts since the last boot.
    pub restart_count: u32,
    /// Whether no earlier value can have been higher.
    pub safe: bool,
}

impl Tpm {
    /// The value of a property, or `None` if the TPM does not have it.
    pub fn property(&self, property: Property) -> Result<Option<u32>, TpmError> {
        Ok(self.properties(property, 1)?.first().copied())
    }

    /// The values of `count` properties from `first` on, as many of them as the TPM has in one row.
    pub fn properties(&self, first: Property, count: u32) -> Result<Vec<u32>, TpmError> {
        let pairs = self.capability(TpmCap::TpmProperties, first as u32, count, |reader| {
            Ok((reader.u32_be()?, reader.u32_be()?))
        })?;
        let wanted = first as u32..;
        Ok(wanted
            .zip(pairs)
            .take_while(|(wanted, (found, _))| wanted == found)
            .map(|(_, (_, value))| value)
            .collect())
    }

    /// Every algorithm the TPM has, as TPM_ALG_ID.
    pub fn algorithms(&self) -> Result<Vec<u16>, TpmError> {
        self.capability(TpmCap::Algs, 0, ITEMS_MAX_U32, |reader| {
            let algorithm = reader.u16_be()?;
            reader.u32_be()?;
            Ok(algorithm)
        })
    }

    /// The curves the TPM has, as TPM_ECC_CURVE.
    pub fn curves(&self) -> Result<Vec<u16>, TpmError> {
        self.capability(TpmCap::EccCurves, 0, ITEMS_MAX_U32, |reader| reader.u16_be())
    }

    /// Every PCR bank, the ones switched off too.
    pub fn pcr_banks(&self) -> Result<Vec<PcrBank>, TpmError> {
        self.capability(TpmCap::Pcrs, 0, ITEMS_MAX_U32, |reader| {
            let algorithm = reader.u16_be()?;
            let size = reader.u8()?;
            let pcrs = reader.bytes(usize::from(size))?.iter().map(|byte| byte.count_ones()).sum();
            Ok(PcrBank { algorithm, pcrs })
        })
    }

    /// The handles in use from `first` to the end of its range.
    pub fn handles(&self, first: u32) -> Result<Vec<u32>, TpmError> {
        let handles = self.capability(TpmCap::Handles, first, ITEMS_MAX_U32, |reader| reader.u32_be())?;
        Ok(handles.into_iter().filter(|handle| handle >> 24 == first >> 24).collect())
    }

    /// Reads the clock and the counters.
    pub fn read_clock(&self) -> Result<Clock, TpmError> {
        let response = self.run("ReadClock", &TpmReadClockCommand { handles: [] }, &[], 0)?;
        response.read(|reader| {
            reader.u64_be()?;
            Ok(Clock {
                clock_ms: reader.u64_be()?,
                reset_count: reader.u32_be()?,
                restart_count: reader.u32_be()?,
                safe: reader.u8()? == 1,
            })
        })
    }

    /// Random bytes of the TPM; as many as fit one of its digests, which may be fewer than asked for.
    pub fn random(&self, count: u16) -> Result<Vec<u8>, TpmError> {
        let command = TpmGetRandomCommand { handles: [], bytes_requested: TpmUint16::new(count) };
        self.run("GetRandom", &command, &[], 0)?.read(|reader| Ok(reader.tpm2b()?.to_vec()))
    }

    /// One page of a capability: moreData, the capability's number, a count and that many items.
    fn capability<T>(
        &self,
        capability: TpmCap,
        first: u32,
        count: u32,
        item: impl Fn(&mut Reader<'_>) -> Result<T, Truncated>,
    ) -> Result<Vec<T>, TpmError> {
        let command = TpmGetCapabilityCommand {
            handles: [],
            cap: capability,
            property: TpmUint32::new(first),
            property_count: TpmUint32::new(count),
        };
        let response = self.run("GetCapability", &command, &[], 0)?;
        let count = response.read(|reader| {
            reader.bytes(CAPABILITY_HEADER_BYTES)?;
            reader.u32_be()
        })?;
        let count = response.bounded(count, ITEMS_MAX)?;
        response.read(|reader| {
            reader.bytes(CAPABILITY_HEADER_BYTES + size_of::<u32>())?;
            (0..count).map(|_| item(reader)).collect()
        })
    }
}

/// The usual name of an algorithm (`sha256`, `ecdsa`), or its number.
pub fn algorithm_name(id: u16) -> String {
    match TpmAlgId::try_from(id) {
        Ok(algorithm) => algorithm.to_string().trim_start_matches("TPM_ALG_").to_ascii_lowercase(),
        Err(_) => format!("{id:#06x}"),
    }
}

/// moreData and the capability's number.
const CAPABILITY_HEADER_BYTES: usize = 5;
/// A response of 4096 bytes has no room for more.
const ITEMS_MAX: usize = 1024;
/// How many to ask for; the TPM returns what fits. No list we ask for needs a second page.
const ITEMS_MAX_U32: u32 = 254;
