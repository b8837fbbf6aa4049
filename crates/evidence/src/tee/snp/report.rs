//! ATTESTATION_REPORT: what the SNP firmware says of a guest (SEV-SNP Firmware ABI, table of the structure).
//!
//! Reading says nothing about who wrote the bytes. Everything that the firmware does not define has to be zero: a
//! field of a later version must not pass unseen, nor may anything hide behind the signature.

use thiserror::Error;

use super::product::Product;
use super::tcb::Tcb;
use crate::der;
use crate::read::{Reader, Truncated};

/// A report, field by field; nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report<'a> {
    pub(super) version: u32,
    pub(super) guest_svn: u32,
    pub(super) policy: GuestPolicy,
    pub(super) family_id: [u8; 16],
    pub(super) image_id: [u8; 16],
    pub(super) vmpl: u32,
    pub(super) platform: PlatformInfo,
    pub(super) signing_key: SigningKey,
    pub(super) has_author_key: bool,
    pub(super) report_data: [u8; 64],
    pub(super) measurement: [u8; 48],
    pub(super) host_data: [u8; 32],
    pub(super) id_key_digest: [u8; 48],
    pub(super) author_key_digest: [u8; 48],
    pub(super) report_id: [u8; 32],
    /// Combined family and model, from version 3 on.
    pub(super) cpuid: Option<(u8, u8)>,
    pub(super) chip_id: [u8; 64],
    tcb: RawTcb,
    pub(super) mitigations: Option<Mitigations>,
    /// What the signature is over, as received.
    pub(super) signed: &'a [u8],
    /// ECDSA over P-384, in DER.
    pub(super) signature: Vec<u8>,
}

/// TCB versions before it is known which product's layout they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RawTcb {
    current: [u8; 8],
    reported: [u8; 8],
    committed: [u8; 8],
    launch: [u8; 8],
}

/// The four TCB versions of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcbVersions {
    /// What runs now.
    pub current: Tcb,
    /// What the platform's owner lets it say, and what the key was made for.
    pub reported: Tcb,
    /// Below this the platform does not go back any more.
    pub committed: Tcb,
    /// What ran when the guest was launched.
    pub launch: Tcb,
}

/// Which key signed a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// Versioned chip endorsement key: the chip's own.
    Vcek,
    /// Versioned loaded endorsement key: of a cloud provider, on every chip of a region.
    Vlek,
}

/// What a guest's owner allows the platform (GUEST_POLICY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    /// Simultaneous multithreading is allowed.
    pub fn allows_smt(self) -> bool {
        self.has(16)
    }

    /// An agent may move the guest to another machine.
    pub fn allows_migration(self) -> bool {
        self.has(18)
    }

    /// The host may read and change the guest's memory.
    pub fn allows_debug(self) -> bool {
        self.has(19)
    }

    /// The guest runs on one socket alone.
    pub fn wants_one_socket(self) -> bool {
        self.has(20)
    }

    /// The bits as they stand.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn has(self, bit: u32) -> bool {
        self.0 & (1 << bit) != 0
    }
}

/// How the platform is set up (PLATFORM_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformInfo(u64);

impl PlatformInfo {
    /// Simultaneous multithreading is on.
    pub fn has_smt(self) -> bool {
        self.0 & 1 != 0
    }

    /// All memory is encrypted with a key of the platform as well (TSME).
    pub fn has_tsme(self) -> bool {
        self.0 & 2 != 0
    }

    /// The bits as they stand.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// Mitigations that were on (version 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mitigations {
    /// When the guest was launched.
    pub launch: u64,
    /// When the report was made.
    pub current: u64,
}

impl<'a> Report<'a> {
    /// Reads a report, all of it.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        if bytes.len() != REPORT_BYTES {
            return Err(ReportError::Length(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u32_le()?;
        if !VERSIONS.contains(&version) {
            return Err(ReportError::Version(version));
        }
        let guest_svn = reader.u32_le()?;
        let policy = guest_policy(reader.u64_le()?)?;
        let (family_id, image_id) = (reader.array()?, reader.array()?);
        let vmpl = reader.u32_le()?;
        let algorithm = reader.u32_le()?;
        if algorithm != ECDSA_P384_SHA384 {
            return Err(ReportError::Algorithm(algorithm));
        }
        let current = reader.array()?;
        let platform = PlatformInfo(reader.u64_le()?);
        let (signing_key, has_author_key) = key_flags(reader.u32_le()?)?;
        zero(&mut reader, 4)?;
        let (report_data, measurement, host_data) = (reader.array()?, reader.array()?, reader.array()?);
        let (id_key_digest, author_key_digest) = (reader.array()?, reader.array()?);
        // The second is the ID of the migration agent's report.
        let (report_id, _migration_agent) = (reader.array()?, reader.bytes(32)?);
        let reported = reader.array()?;
        let cpuid = cpuid(&mut reader, version)?;
        let chip_id = reader.array()?;
        let committed = reader.array()?;
        // Build, minor and major of the firmware, current and committed.
        for _ in 0..2 {
            reader.bytes(3)?;
            zero(&mut reader, 1)?;
        }
        let launch = reader.array()?;
        let mitigations = mitigations(&mut reader, version)?;
        let spare = SIGNED_BYTES.saturating_sub(reader.offset());
        zero(&mut reader, spare)?;
        let signature = signature(&mut reader)?;
        Ok(Report {
            version,
            guest_svn,
            policy,
            family_id,
            image_id,
            vmpl,
            platform,
            signing_key,
            has_author_key,
            report_data,
            measurement,
            host_data,
            id_key_digest,
            author_key_digest,
            report_id,
            cpuid,
            chip_id,
            tcb: RawTcb { current, reported, committed, launch },
            mitigations,
            signed: Reader::new(bytes).bytes(SIGNED_BYTES)?,
            signature,
        })
    }

    /// The TCB versions in a product's layout.
    pub(super) fn tcb(&self, product: Product) -> TcbVersions {
        let RawTcb { current, reported, committed, launch } = self.tcb;
        TcbVersions {
            current: Tcb::parse(current, product),
            reported: Tcb::parse(reported, product),
            committed: Tcb::parse(committed, product),
            launch: Tcb::parse(launch, product),
        }
    }
}

/// Bit 17 is reserved and one.
fn guest_policy(bits: u64) -> Result<GuestPolicy, ReportError> {
    let policy = GuestPolicy(bits);
    if policy.has(17) { Ok(policy) } else { Err(ReportError::Policy(bits)) }
}

fn key_flags(flags: u32) -> Result<(SigningKey, bool), ReportError> {
    // Bit 1, MASK_CHIP_KEY, says that the firmware writes no signature.
    if flags & !0x1d != 0 {
        return Err(ReportError::KeyFlags(flags));
    }
    let signing_key = match (flags >> 2) & 7 {
        0 => SigningKey::Vcek,
        1 => SigningKey::Vlek,
        _ => return Err(ReportError::KeyFlags(flags)),
    };
    Ok((signing_key, flags & 1 != 0))
}

fn cpuid(reader: &mut Reader<'_>, version: u32) -> Result<Option<(u8, u8)>, ReportError> {
    if version < 3 {
        zero(reader, 24)?;
        return Ok(None);
    }
    let (family, model, _stepping) = (reader.u8()?, reader.u8()?, reader.u8()?);
    zero(reader, 21)?;
    Ok(Some((family, model)))
}

fn mitigations(reader: &mut Reader<'_>, version: u32) -> Result<Option<Mitigations>, ReportError> {
    if version < 5 {
        return Ok(None);
    }
    Ok(Some(Mitigations { launch: reader.u64_le()?, current: reader.u64_le()? }))
}

/// R and S, 72 bytes each and little endian, and zeros up to the end.
fn signature(reader: &mut Reader<'_>) -> Result<Vec<u8>, ReportError> {
    let mut number = || -> Result<Vec<u8>, ReportError> {
        let mut bytes = reader.bytes(NUMBER_BYTES)?.to_vec();
        zero(reader, SIGNATURE_PART_BYTES - NUMBER_BYTES)?;
        bytes.reverse();
        Ok(der::unsigned(&bytes))
    };
    let (r, s) = (number()?, number()?);
    let spare = REPORT_BYTES.saturating_sub(reader.offset());
    zero(reader, spare)?;
    Ok(der::sequence(&[&r, &s]))
}

fn zero(reader: &mut Reader<'_>, count: usize) -> Result<(), ReportError> {
    let offset = reader.offset();
    match reader.bytes(count)?.iter().position(|byte| *byte != 0) {
        None => Ok(()),
        Some(at) => Err(ReportError::Reserved { offset: offset.saturating_add(at) }),
    }
}

/// Bytes that are not a report we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReportError {
    /// Longer or shorter than a report.
    #[error("{0} bytes, a report has {REPORT_BYTES}")]
    Length(usize),
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A version whose layout is not known.
    #[error("version {0}; 2 to 5 are known")]
    Version(u32),
    /// Not ECDSA P-384 with SHA-384.
    #[error("signature algorithm {0}; only 1, ECDSA P-384 with SHA-384, is known")]
    Algorithm(u32),
    /// A guest policy that no firmware takes.
    #[error("guest policy {0:#x} without bit 17, which is always set")]
    Policy(u64),
    /// No key signed it, or one that is not known.
    #[error("key flags {0:#x}: neither VCEK nor VLEK signed this report, or the chip's key is masked")]
    KeyFlags(u32),
    /// Something stands where nothing is defined.
    #[error("offset {offset:#x}: something other than zero in a reserved field")]
    Reserved {
        /// Where in the report.
        offset: usize,
    },
}

/// The whole structure.
pub(super) const REPORT_BYTES: usize = 1184;
/// Everything before the signature.
const SIGNED_BYTES: usize = 0x2a0;
/// A number of the signature has room for a curve of 576 bits.
const SIGNATURE_PART_BYTES: usize = 72;
/// What a number of P-384 takes of it.
const NUMBER_BYTES: usize = 48;
const ECDSA_P384_SHA384: u32 = 1;
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;
