//! The IMA measurement list: what Linux says it measured, believed once it replays to PCR 10.
//!
//! [`parse_binary`] and [`parse_ascii`] make a [`List`]; [`attested_prefix`] replays it to a quoted
//! value, recomputing every template digest on the way, and says how much of it the quote covers.
//! A list may be a suffix: a [`Replay`] kept from an earlier appraisal goes on where that one stopped.
//! Nothing here knows which files are allowed.

mod ascii;
mod binary;
mod boot_aggregate;
mod device_mapper;
mod kernel_policy;
mod layout;
mod measured_key;
mod replay;
mod signature;
mod stream;
mod template;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

pub use self::ascii::{ascii_offset, parse_ascii};
pub use self::binary::{binary_offset, parse_binary, parse_shared};
pub use self::boot_aggregate::{BOOT_AGGREGATE, expected_boot_aggregate};
pub use self::device_mapper::{DmChange, DmDevice, DmError, DmEvent, DmNumbers, DmTarget};
pub use self::kernel_policy::{
    KERNEL_POLICIES_MAX, KERNEL_POLICY_BYTES_MAX, KERNEL_POLICY_PATH, KernelPolicy, KernelPolicyError,
    ShippedPolicy, Unseen, measured_kernel_policies,
};
use self::layout::Layout;
pub use self::measured_key::{MEASURED_KEYS_MAX, MeasuredKey, learned_keys};
pub(crate) use self::replay::reached_pcrs;
pub use self::replay::{Chain, Extension, Prefix, QuotedPcr, Replay, attested_prefix};
pub use self::signature::{
    FileSignature, SignatureFault, SignatureForm, SigningKey, SigningKeyError, SigningKeys,
};
pub use self::stream::{EntryStream, ListForm};
pub use self::template::Template;
use crate::read::Truncated;
use crate::text::escaped;
use crate::tpm::pcr::PcrSet;
use crate::{Digest, HashAlgorithm, PcrIndex};

/// The PCR that the kernel measures into where nobody told it another (`CONFIG_IMA_MEASURE_PCR_IDX`, or `pcr=` in a rule of
/// its IMA policy).
pub const PCR: u8 = PcrIndex::IMA.get();

/// A parsed measurement list, or a suffix of one, in the kernel's binary form.
///
/// It owns its bytes or shares them, so that claims outlive the message they came in.
#[derive(Clone, Debug)]
pub struct List {
    bytes: Bytes,
    entries: Vec<Layout>,
    template_hash: HashAlgorithm,
    pcrs: PcrSet,
}

impl List {
    /// The PCRs that its entries were measured into.
    pub fn pcrs(&self) -> PcrSet {
        self.pcrs
    }

    /// Entries in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry at `index`, counted from the start of this list.
    pub fn entry(&self, index: usize) -> Option<Entry<'_>> {
        self.entries.get(index)?.entry(&self.bytes, self.template_hash)
    }

    /// Every entry, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + '_ {
        self.range(0..self.len())
    }

    /// The entries of `range`, in order; what lies past the end is left out.
    pub fn range(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = Entry<'_>> + '_ {
        let end = range.end.min(self.len());
        let layouts = self.entries.get(range.start.min(end)..end).unwrap_or_default();
        layouts.iter().filter_map(|layout| layout.entry(&self.bytes, self.template_hash))
    }
}

/// Lists are equal when they say the same, whichever form they came in.
impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.template_hash == other.template_hash
    }
}

/// One entry: views into the list.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pcr: PcrIndex,
    template_digest: &'a [u8],
    template_hash: HashAlgorithm,
    template: Template<'a>,
    data: &'a [u8],
    digest: FieldDigest<'a>,
    path: &'a [u8],
    signature: &'a [u8],
    buffer: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The PCR that the kernel says it extended with the entry. A wrong one does not replay.
    pub fn pcr(&self) -> PcrIndex {
        self.pcr
    }

    /// The template digest the list states: the hash of the template data, or zeros for a violation.
    pub fn template_digest(&self) -> &'a [u8] {
        self.template_digest
    }

    /// The template.
    pub fn template(&self) -> Template<'a> {
        self.template
    }

    /// Whether the kernel reports a violation: it could not be sure of what it measured
    /// (time of measure, time of use; or open writers), and extended PCR 10 with ones.
    pub fn is_violation(&self) -> bool {
        self.template_digest.iter().all(|byte| *byte == 0)
    }

    /// The file's path, or the event's name for a measured buffer. The kernel has put an underscore
    /// for each space in it.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The path as text on one line: what is not printable UTF-8 is escaped.
    pub fn path_text(&self) -> Cow<'a, str> {
        match std::str::from_utf8(self.path) {
            Ok(text) => escaped(text),
            Err(_) => Cow::Owned(self.path.escape_ascii().to_string()),
        }
    }

    /// The digest of the file's content, where its algorithm is one we know and its length is right.
    /// Not that of an fs-verity file: see [`Entry::verity_digest`].
    pub fn file_digest(&self) -> Option<Digest> {
        (!self.digest.is_verity).then(|| self.digest.known()).flatten()
    }

    /// The fs-verity digest of the file, which is over a Merkle tree and not the content.
    pub fn verity_digest(&self) -> Option<Digest> {
        self.digest.is_verity.then(|| self.digest.known()).flatten()
    }

    /// The digest as the list states it, known algorithm or not: name and bytes.
    pub fn stated_digest(&self) -> (&'a str, &'a [u8]) {
        (self.digest.algorithm.name(), self.digest.bytes)
    }

    /// The file signature attribute, if the template carries one that parses.
    pub fn signature(&self) -> Option<FileSignature<'a>> {
        FileSignature::parse(self.signature)
    }

    /// The measured buffer of an `ima-buf` entry; empty otherwise.
    pub fn buffer(&self) -> &'a [u8] {
        self.buffer
    }
}

/// A digest field.
#[derive(Clone, Copy, Debug)]
struct FieldDigest<'a> {
    algorithm: Algorithm<'a>,
    bytes: &'a [u8],
    is_verity: bool,
}

/// The algorithm of a digest field: lists may name some that we do not know.
#[derive(Clone, Copy, Debug)]
enum Algorithm<'a> {
    Known(HashAlgorithm),
    Other(&'a str),
}

impl FieldDigest<'_> {
    fn known(&self) -> Option<Digest> {
        match self.algorithm {
            Algorithm::Known(algorithm) => Digest::new(algorithm, self.bytes),
            Algorithm::Other(_) => None,
        }
    }
}

impl<'a> Algorithm<'a> {
    fn from_name(name: &'a str) -> Self {
        HashAlgorithm::from_name(name).map_or(Algorithm::Other(name), Algorithm::Known)
    }

    fn name(self) -> &'a str {
        match self {
            Algorithm::Known(algorithm) => algorithm.name(),
            Algorithm::Other(name) => name,
        }
    }
}

impl Default for FieldDigest<'_> {
    fn default() -> Self {
        FieldDigest { algorithm: Algorithm::Other(""), bytes: &[], is_verity: false }
    }
}

/// Why a list was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("entry {entry} at byte {offset}: {kind}")]
pub struct ImaError {
    /// The entry, counted from zero.
    pub entry: usize,
    /// The byte of the input at which the entry starts.
    pub offset: usize,
    /// What is wrong with it.
    pub kind: ImaErrorKind,
}

/// What can be wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImaErrorKind {
    /// The input ends inside an entry.
    #[error("it ends early: {0}")]
    Truncated(#[from] Truncated),
    /// The list is longer than [`LIST_BYTES_MAX`].
    #[error("the list has more than {LIST_BYTES_MAX} bytes")]
    ListTooLong,
    /// The list has more entries than [`ENTRIES_MAX`].
    #[error("the list has more than {ENTRIES_MAX} entries")]
    TooManyEntries,
    /// The entry is for a PCR that no TPM has.
    #[error("it is for PCR {0}, and a TPM has {count} of them", count = PcrIndex::COUNT)]
    NoSuchPcr(u32),
    /// The template name is longer than [`TEMPLATE_NAME_BYTES_MAX`].
    #[error("its template name has {0} bytes, more than {TEMPLATE_NAME_BYTES_MAX}")]
    TemplateNameTooLong(usize),
    /// Neither a template name nor a format of known fields with one digest and one name.
    #[error("its template is unknown")]
    TemplateUnknown,
    /// The template data is longer than [`TEMPLATE_DATA_BYTES_MAX`].
    #[error("its template data has {0} bytes, more than {TEMPLATE_DATA_BYTES_MAX}")]
    TemplateDataTooLong(usize),
    /// There is more template data than fields.
    #[error("its template data has {0} bytes past the last field")]
    TrailingData(usize),
    /// A digest field is not `algorithm:`, NUL, digest.
    #[error("its digest field is malformed")]
    DigestMalformed,
    /// A name is too long, is not ended by its only NUL, or is missing.
    #[error("its name is malformed")]
    NameMalformed,
    /// A line of the ASCII form does not start with PCR, template digest and template name.
    #[error("it is not a line of PCR, template digest, template name and fields")]
    LineMalformed,
    /// A field of the ASCII form is not the hexadecimal or decimal number it has to be.
    #[error("a field is not a number of the right form")]
    FieldMalformed,
    /// The line has fewer fields than its template.
    #[error("it has too few fields for its template")]
    TooFewFields,
    /// The ASCII form mixes template digests of different lengths.
    #[error("its template digest has another length than the first entry's")]
    MixedTemplateHash,
}

/// Bytes of a list: more than 400,000 entries of common size.
pub const LIST_BYTES_MAX: usize = 64 << 20;
/// Entries of a list; the longest seen in practice have some 100,000.
pub const ENTRIES_MAX: usize = 500_000;
/// Bytes of one entry's template data; buffers of measured policies and keys are the largest.
pub const TEMPLATE_DATA_BYTES_MAX: usize = 256 << 10;
/// Bytes of a template name: the kernel's MAX_TEMPLATE_NAME_LEN.
pub const TEMPLATE_NAME_BYTES_MAX: usize = 255;
/// Fields of a stated format: the kernel's TEMPLATE_NUM_FIELDS_MAX is 15.
pub const TEMPLATE_FIELDS_MAX: usize = 16;
/// Bytes of a path: PATH_MAX, with room for the suffix ` (deleted)`.
pub const PATH_BYTES_MAX: usize = 4096 + 16;
/// Bytes of a name in the `ima` template: the kernel's IMA_EVENT_NAME_LEN_MAX.
pub const SHORT_NAME_BYTES_MAX: usize = 255;
