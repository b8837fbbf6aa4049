//! The log's framing: TCG_PCR_EVENT and TCG_PCR_EVENT2 (TCG PC Client Platform Firmware Profile, 10.2).

use thiserror::Error;

use super::{BootLog, Event, EventType};
use crate::read::{Reader, Truncated};
use crate::{HashAlgorithm, PcrIndex};

/// Parses a log as the kernel gives it: little endian, the Spec ID event first if it is crypto-agile.
///
/// An empty log has no events; whether that is acceptable is for others to say.
pub fn parse(bytes: &[u8]) -> Result<BootLog<'_>, BootLogError> {
    parse_as(bytes, Kind::BootLog)
}

/// Parses a log of a confidential machine, at the beginning of a memory area that is filled up with one byte.
pub(super) fn parse_area(bytes: &[u8]) -> Result<BootLog<'_>, BootLogError> {
    parse_as(bytes, Kind::CcArea)
}

/// What measured, and where its log ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// PCRs, and the whole of the bytes.
    BootLog,
    /// Measurement registers, and where the memory is filled up with zeros or ones.
    CcArea,
}

impl Kind {
    fn is_end(self, rest: &[u8]) -> bool {
        let is_filler = || [0, 0xff].iter().any(|filler| rest.iter().all(|byte| byte == filler));
        rest.is_empty() || (self == Kind::CcArea && is_filler())
    }
}

fn parse_as(bytes: &[u8], kind: Kind) -> Result<BootLog<'_>, BootLogError> {
    let at = |event, offset, kind| BootLogError { event, offset, kind };
    if bytes.len() > LOG_BYTES_MAX {
        return Err(at(0, 0, BootLogErrorKind::LogTooLong(bytes.len())));
    }
    let mut reader = Reader::new(bytes);
    let mut events = Vec::with_capacity((bytes.len() / EVENT_BYTES_COMMON).min(EVENTS_MAX));
    let mut format = Format::Legacy;
    while !kind.is_end(reader.rest()) {
        let (number, offset) = (events.len(), reader.offset());
        if number >= EVENTS_MAX {
            return Err(at(number, offset, BootLogErrorKind::TooManyEvents));
        }
        let event = read_event(&mut reader, &format, number).map_err(|kind| at(number, offset, kind))?;
        if let Some(register) = event.extends().map(PcrIndex::get)
            && kind == Kind::CcArea
            && register > RTMR_INDEX_LAST
        {
            return Err(at(number, offset, BootLogErrorKind::Register(register.into())));
        }
        if number == 0 {
            format = Format::of_header(&event).map_err(|kind| at(number, offset, kind))?;
        }
        events.push(event);
    }
    Ok(BootLog { bytes, events, banks: format.banks() })
}

/// How the events after the first are framed.
enum Format {
    /// One SHA-1 digest each.
    Legacy,
    /// A digest of each of these algorithms, by TPM_ALG_ID and size.
    CryptoAgile(Vec<(u16, u16)>),
}

impl Format {
    /// TCG_EfiSpecIDEvent, if that is what the first event holds.
    fn of_header(event: &Event<'_>) -> Result<Self, BootLogErrorKind> {
        let mut reader = Reader::new(event.data);
        if event.event_type != EventType::NO_ACTION || !event.data.starts_with(SPEC_ID_EVENT_03) {
            return Ok(Format::Legacy);
        }
        // Signature, platform class, versions and uintn size say nothing that the parse depends on.
        reader.bytes(SPEC_ID_FIXED_BYTES)?;
        let count = reader.u32_le()?;
        if count == 0 || usize::try_from(count).unwrap_or(usize::MAX) > ALGORITHMS_MAX {
            return Err(BootLogErrorKind::AlgorithmCount(count));
        }
        let mut algorithms: Vec<(u16, u16)> = Vec::new();
        for _ in 0..count {
            let (id, size) = (reader.u16_le()?, reader.u16_le()?);
            let known = HashAlgorithm::from_tpm_id(id);
            if known.is_some_and(|known| known.len() != usize::from(size)) {
                return Err(BootLogErrorKind::DigestSize { algorithm: id, size });
            }
            if algorithms.iter().any(|(other, _)| *other == id) {
                return Err(BootLogErrorKind::AlgorithmTwice(id));
            }
            algorithms.push((id, size));
        }
        let vendor_info = reader.u8()?;
        reader.bytes(usize::from(vendor_info))?;
        Ok(Format::CryptoAgile(algorithms))
    }

    fn banks(&self) -> Vec<HashAlgorithm> {
        match self {
            Format::Legacy => vec![HashAlgorithm::Sha1],
            Format::CryptoAgile(algorithms) => {
                algorithms.iter().filter_map(|(id, _)| HashAlgorithm::from_tpm_id(*id)).collect()
            }
        }
    }
}

fn read_event<'a>(
    reader: &mut Reader<'a>,
    format: &Format,
    number: usize,
) -> Result<Event<'a>, BootLogErrorKind> {
    let index = reader.u32_le()?;
    let event_type = EventType(reader.u32_le()?);
    let pcr = PcrIndex::new(index);
    // Firmware may give an event that extends nothing an index that no PCR has.
    if pcr.is_none() && event_type != EventType::NO_ACTION {
        return Err(BootLogErrorKind::Pcr(index));
    }
    let mut digests = [None; HashAlgorithm::ALL.len()];
    match format {
        Format::Legacy => {
            set(&mut digests, HashAlgorithm::Sha1, reader.bytes(HashAlgorithm::Sha1.len())?);
        }
        Format::CryptoAgile(algorithms) => read_digests(reader, algorithms, &mut digests)?,
    }
    let size = usize::try_from(reader.u32_le()?).unwrap_or(usize::MAX);
    if size > EVENT_BYTES_MAX {
        return Err(BootLogErrorKind::EventTooLong(size));
    }
    let data = reader.bytes(size)?;
    Ok(Event { number, pcr, event_type, digests, data, is_hash_of_data: Default::default() })
}

/// TPML_DIGEST_VALUES: exactly one digest of each of the header's algorithms, or an event could be
/// seen by one bank and not by another.
fn read_digests<'a>(
    reader: &mut Reader<'a>,
    algorithms: &[(u16, u16)],
    digests: &mut [Option<&'a [u8]>; HashAlgorithm::ALL.len()],
) -> Result<(), BootLogErrorKind> {
    let count = reader.u32_le()?;
    if usize::try_from(count) != Ok(algorithms.len()) {
        return Err(BootLogErrorKind::DigestCount { found: count, expected: algorithms.len() });
    }
    let mut seen = [false; ALGORITHMS_MAX];
    for _ in algorithms {
        let id = reader.u16_le()?;
        let known = algorithms.iter().zip(&mut seen).find(|((other, _), _)| *other == id);
        let Some(((_, size), seen)) = known else {
            return Err(BootLogErrorKind::AlgorithmUnknown(id));
        };
        if std::mem::replace(seen, true) {
            return Err(BootLogErrorKind::AlgorithmTwice(id));
        }
        let digest = reader.bytes(usize::from(*size))?;
        if let Some(algorithm) = HashAlgorithm::from_tpm_id(id) {
            set(digests, algorithm, digest);
        }
    }
    Ok(())
}

fn set<'a>(digests: &mut [Option<&'a [u8]>], algorithm: HashAlgorithm, digest: &'a [u8]) {
    for (slot, candidate) in digests.iter_mut().zip(HashAlgorithm::ALL) {
        if candidate == algorithm {
            *slot = Some(digest);
        }
    }
}

/// Why a log was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("event {event} at byte {offset}: {kind}")]
pub struct BootLogError {
    /// The event, counted from zero.
    pub event: usize,
    /// The byte at which it starts.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: BootLogErrorKind,
}

/// What can be wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BootLogErrorKind {
    /// The log ends inside an event, or an event inside its data.
    #[error("it ends early: {0}")]
    Truncated(#[from] Truncated),
    /// The log is longer than [`LOG_BYTES_MAX`].
    #[error("the log has {0} bytes, more than {LOG_BYTES_MAX}")]
    LogTooLong(usize),
    /// The log has more events than [`EVENTS_MAX`].
    #[error("the log has more than {EVENTS_MAX} events")]
    TooManyEvents,
    /// The event's data is longer than [`EVENT_BYTES_MAX`].
    #[error("its data has {0} bytes, more than {EVENT_BYTES_MAX}")]
    EventTooLong(usize),
    /// An event that extends a PCR that does not exist.
    #[error("it extends PCR {0}, which does not exist")]
    Pcr(u32),
    /// An event of a confidential machine that extends a register that does not exist.
    #[error("it extends measurement register {0}, which does not exist")]
    Register(u32),
    /// The header lists no algorithm, or more than [`ALGORITHMS_MAX`].
    #[error("the header lists {0} algorithms, not 1 to {ALGORITHMS_MAX}")]
    AlgorithmCount(u32),
    /// The header gives an algorithm another digest size than it has.
    #[error("the header gives algorithm {algorithm:#06x} digests of {size} bytes")]
    DigestSize {
        /// TPM_ALG_ID.
        algorithm: u16,
        /// Bytes stated.
        size: u16,
    },
    /// An algorithm is listed twice.
    #[error("algorithm {0:#06x} is there twice")]
    AlgorithmTwice(u16),
    /// A digest of an algorithm that the header does not list.
    #[error("it has a digest of algorithm {0:#06x}, which the header does not list")]
    AlgorithmUnknown(u16),
    /// Not one digest for each algorithm of the header.
    #[error("it has {found} digests where the header lists {expected} algorithms")]
    DigestCount {
        /// Digests stated.
        found: u32,
        /// Algorithms of the header.
        expected: usize,
    },
}

/// Bytes of a log. Kernels export some 64 KiB; the longest seen have 50,000 bytes.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// Bytes of one event's data; a long dbx is the largest, with some 25,000.
pub const EVENT_BYTES_MAX: usize = 256 << 10;
/// Events of a log; the most seen are 121.
pub const EVENTS_MAX: usize = 4096;
/// Digests per event: the TCG registry has seven hash algorithms for PCR banks.
pub const ALGORITHMS_MAX: usize = 8;
/// The index that a confidential machine's log has for RTMR 3.
const RTMR_INDEX_LAST: u8 = 4;
/// What to expect of an event when reserving memory.
const EVENT_BYTES_COMMON: usize = 200;
const SPEC_ID_EVENT_03: &[u8] = b"Spec ID Event03\0";
/// Signature, platformClass, specVersionMinor, specVersionMajor, specErrata, uintnSize.
const SPEC_ID_FIXED_BYTES: usize = 16 + 4 + 4;
