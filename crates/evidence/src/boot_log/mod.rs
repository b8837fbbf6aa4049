//! The boot log: what firmware, shim, boot loader and kernel say they measured before Linux ran.
//!
//! [`parse`] reads a TCG PC Client log, legacy (SHA-1) or crypto-agile; [`replay`] says what PCRs it
//! would make; [`data_digest_failures`] finds events whose data no longer fits their digest; [`facts`]
//! says what the authenticated data means. The log is the attacker's until it replays to the quoted
//! PCRs, and even then an event's type and its unhashed data are: see `coverage.rs`.

mod cc_log;
mod claims;
mod coverage;
mod device_path;
mod event_type;
mod facts;
mod guid;
mod kernel_line;
mod load_options;
mod meaning;
mod parse;
mod remark;
mod replay;
mod secure_boot;
mod unified_kernel;
mod user_space;
mod variable;

pub use self::cc_log::{CcLog, Rtmr, parse_cc};
pub(crate) use self::claims::claims;
pub use self::claims::{BootClaims, EventSummary};
pub use self::coverage::{Coverage, bank_contradictions, data_digest_failures};
pub use self::event_type::EventType;
pub use self::facts::{
    Authority, BootFacts, Image, LoaderText, MeasuredItem, SecureBootVariables, Statement, facts,
};
pub use self::guid::Guid;
pub use self::kernel_line::{KernelLine, is_load_command, loaded_line};
pub use self::load_options::{LOAD_OPTIONS_REMARK, load_options};
pub use self::meaning::summaries;
pub use self::parse::{
    ALGORITHMS_MAX, BootLogError, BootLogErrorKind, EVENT_BYTES_MAX, EVENTS_MAX, LOG_BYTES_MAX, parse,
};
pub(crate) use self::replay::course;
pub use self::replay::replay;
pub use self::unified_kernel::Section;
pub(crate) use self::user_space::{separated, stages};
pub use self::variable::{Signature, SignatureKind, Variable, signature_lists};
use std::cell::OnceCell;

use crate::{Digest, HashAlgorithm, PcrIndex};

/// A parsed log: views into its bytes.
#[derive(Clone, Debug)]
pub struct BootLog<'a> {
    bytes: &'a [u8],
    events: Vec<Event<'a>>,
    banks: Vec<HashAlgorithm>,
}

impl<'a> BootLog<'a> {
    /// Its bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its events, the header among them.
    pub fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// The banks it has digests for, as far as we know their algorithm.
    pub fn banks(&self) -> &[HashAlgorithm] {
        &self.banks
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    number: usize,
    pcr: Option<PcrIndex>,
    event_type: EventType,
    digests: [Option<&'a [u8]>; HashAlgorithm::ALL.len()],
    data: &'a [u8],
    /// Whether the data hashes to each digest, once somebody asked: it is hashed once in a bank, however often that is.
    is_hash_of_data: [OnceCell<bool>; HashAlgorithm::ALL.len()],
}

impl<'a> Event<'a> {
    /// Its place in the log, counted from zero as other tools do.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The PCR it extends; `None` where it is `EV_NO_ACTION`, which extends nothing.
    pub fn extends(&self) -> Option<PcrIndex> {
        self.pcr.filter(|_| self.event_type != EventType::NO_ACTION)
    }

    /// The PCR it names.
    pub fn pcr(&self) -> Option<PcrIndex> {
        self.pcr
    }

    /// Its type. Not authenticated: the digest does not cover it.
    pub fn event_type(&self) -> EventType {
        self.event_type
    }

    /// What it extends the PCR of `bank` with.
    pub fn digest(&self, bank: HashAlgorithm) -> Option<Digest> {
        Digest::new(bank, (*self.digests.get(position(bank))?)?)
    }

    /// Its data as logged. Authenticated only as far as [`Event::coverage`] says.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

/// The place of a bank among all.
fn position(bank: HashAlgorithm) -> usize {
    HashAlgorithm::ALL.iter().position(|algorithm| *algorithm == bank).unwrap_or(usize::MAX)
}
