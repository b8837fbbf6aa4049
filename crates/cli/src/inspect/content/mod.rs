//! What a file is, by its bytes, and what it says. Pure: bytes come from a reader, the time is an argument.
//!
//! [`KINDS`] is the table of forms; each looks at the first [`HEAD_BYTES`] bytes and says whether a file that begins so
//! is its own. The first that does reads the whole, within its own bound; names of files say nothing. IMA lists have no
//! bound of bytes, because they are read entry by entry.

mod attestation;
pub mod boot_log;
mod certificate;
mod der;
mod ima_list;
mod json;
mod keylime;
mod measure_log;
mod pem;
mod policy;
pub mod report;
mod tee;
mod text;
mod token;
mod tpm;

use std::error::Error;
use std::io::{self, Read};

use assay_evidence::ima::{Entry, ListForm};
use assay_evidence::time::UnixTime;
use assay_trust::policy::{Envelope, Import, ImportError};
use flate2::read::MultiGzDecoder;
use thiserror::Error;

use self::report::Report;

/// What a reader may ask for beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// When it is looked at.
    pub now: UnixTime,
}

/// Is told of each entry of an IMA list, with its number.
pub type EachEntry<'a> = &'a mut dyn FnMut(usize, &Entry<'_>);

/// Why nothing can be said of a file.
#[derive(Debug, Error)]
pub enum Fault {
    /// It cannot be read.
    #[error("it cannot be read")]
    Input(#[from] io::Error),
    /// No form begins like this.
    #[error("this is no form that is known here: {0}")]
    Unknown(Looks),
    /// It begins like one, and is too long for it.
    #[error("it begins like {kind}, and has more than the {bytes_max} bytes that one may have")]
    TooLong {
        /// The form, for people.
        kind: &'static str,
        /// The bound.
        bytes_max: usize,
    },
    /// It begins like one, and is none.
    #[error("it begins like {kind}, and is none: {error}")]
    Malformed {
        /// The form, for people.
        kind: &'static str,
        /// What is wrong, and where.
        error: Box<dyn Error + Send + Sync>,
    },
    /// Packed in what is packed.
    #[error("it is packed twice with gzip, and is unpacked once: unpack it first")]
    PackedTwice,
}

/// What can be said of bytes that are of no known form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Looks {
    /// Text, but of what?
    #[error("it is text")]
    Text,
    /// Parsable, but of what?
    #[error("it is JSON whose members say nothing here")]
    Json,
    /// DER of something else.
    #[error("it is DER, and neither a certificate nor a revocation list nor a public key")]
    Der,
    /// A private key; nothing of it is shown.
    #[error("it is a private key, of which nothing is shown; see who can read this file")]
    PrivateKey,
    /// Nothing else.
    #[error("it is binary")]
    Binary,
}

/// How a form is read.
#[derive(Clone, Copy)]
enum Reading {
    /// As a whole, of so many bytes at most.
    Whole(usize, fn(&[u8], &Context) -> Result<Report, Fault>),
    /// Entry by entry.
    Entries,
}

/// A form of files.
struct Kind {
    /// What it is, for people: `a boot log`.
    name: &'static str,
    /// Whether a file that begins with these bytes is one. The second argument says whether that is all of it.
    begins: fn(&[u8], bool) -> bool,
    reading: Reading,
}

/// The forms, in the order in which they are asked: those that are told by a magic number first.
const KINDS: &[Kind] = &[
    Kind {
        name: "an empty file",
        begins: |head, _| head.is_empty(),
        reading: Reading::Whole(0, text::empty),
    },
    Kind {
        name: "an SEV-SNP report",
        begins: tee::begins_snp,
        reading: Reading::Whole(SMALL_BYTES_MAX, tee::read_snp),
    },
    Kind {
        name: "a TDX or SGX quote",
        begins: tee::begins_dcap,
        reading: Reading::Whole(SMALL_BYTES_MAX, tee::read_dcap),
    },
    Kind {
        name: "a CCA token",
        begins: tee::begins_cca,
        reading: Reading::Whole(SMALL_BYTES_MAX, tee::read_cca),
    },
    Kind {
        name: "systemd's measurement log",
        begins: measure_log::begins,
        reading: Reading::Whole(measure_log::BYTES_MAX, measure_log::read),
    },
    Kind { name: "PEM", begins: pem::begins, reading: Reading::Whole(PEM_BYTES_MAX, pem::read) },
    Kind {
        name: "a TPM's statement",
        begins: attestation::begins,
        reading: Reading::Whole(SMALL_BYTES_MAX, attestation::read),
    },
    Kind { name: "an IMA list", begins: |head, _| ListForm::of(head).is_some(), reading: Reading::Entries },
    Kind {
        name: "a boot log",
        begins: boot_log::begins,
        reading: Reading::Whole(boot_log::BYTES_MAX, boot_log::read),
    },
    Kind { name: "DER", begins: der::begins, reading: Reading::Whole(DER_BYTES_MAX, der::read) },
    Kind {
        name: "a TPM's signature",
        begins: tpm::begins_signature,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_signature),
    },
    Kind {
        name: "a public area",
        begins: tpm::begins_public_area,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_public_area),
    },
    Kind {
        name: "a Name",
        begins: tpm::begins_name,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_name),
    },
    Kind {
        name: "PCR values as tpm2-tools write them",
        begins: tpm::begins_pcr_file,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_pcr_file),
    },
    Kind {
        name: "the PCRs of one bank",
        begins: tpm::begins_pcr_bank,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_pcr_bank),
    },
    Kind { name: "JSON", begins: json::begins, reading: Reading::Whole(TEXT_BYTES_MAX, json::read) },
    Kind {
        name: "a signed token",
        begins: token::begins,
        reading: Reading::Whole(PEM_BYTES_MAX, token::read),
    },
    Kind {
        name: "a quote as Keylime sends it",
        begins: keylime::begins_quote,
        reading: Reading::Whole(PEM_BYTES_MAX, keylime::read_quote),
    },
    Kind { name: "hex", begins: text::begins_hex, reading: Reading::Whole(SMALL_BYTES_MAX, text::read_hex) },
    Kind {
        name: "a list of files and their digests",
        begins: keylime::begins_allowlist,
        reading: Reading::Whole(TEXT_BYTES_MAX, keylime::read_allowlist),
    },
    Kind {
        name: "PCR values as tpm2_pcrread prints them",
        begins: tpm::begins_pcr_text,
        reading: Reading::Whole(SMALL_BYTES_MAX, tpm::read_pcr_text),
    },
    Kind { name: "a policy", begins: policy::begins, reading: Reading::Whole(TEXT_BYTES_MAX, policy::read) },
    Kind {
        name: "an NV index with a certificate",
        begins: der::begins_nv,
        reading: Reading::Whole(SMALL_BYTES_MAX, der::read_nv),
    },
];

/// Recognises and reads one file; what is packed with gzip is unpacked.
pub fn inspect(input: &mut dyn Read, context: &Context, each: EachEntry<'_>) -> Result<Report, Fault> {
    let mut head = fill(input, HEAD_BYTES)?;
    if !head.starts_with(GZIP_MAGIC) {
        return inspect_plain(head, input, context, each);
    }
    let mut unpacked = MultiGzDecoder::new(io::Cursor::new(std::mem::take(&mut head)).chain(input));
    let head = fill(&mut unpacked, HEAD_BYTES)?;
    if head.starts_with(GZIP_MAGIC) {
        return Err(Fault::PackedTwice);
    }
    Ok(inspect_plain(head, &mut unpacked, context, each)?.with("packed", "gzip"))
}

fn inspect_plain(
    head: Vec<u8>,
    rest: &mut dyn Read,
    context: &Context,
    each: EachEntry<'_>,
) -> Result<Report, Fault> {
    let is_all = head.len() < HEAD_BYTES;
    let kind_of = |head: &[u8]| KINDS.iter().find(|kind| (kind.begins)(head, is_all));
    let mut head = head;
    let mut kind = kind_of(&head);
    if kind.is_none() && head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
        kind = kind_of(&head);
    }
    let Some(kind) = kind else {
        return Err(Fault::Unknown(if text::is_text(&head) { Looks::Text } else { Looks::Binary }));
    };
    let (bytes_max, read) = match kind.reading {
        Reading::Entries => return ima_list::read(head, rest, each),
        Reading::Whole(bytes_max, read) => (bytes_max, read),
    };
    let mut bytes = head;
    bytes.extend(fill(rest, bytes_max.saturating_add(1).saturating_sub(bytes.len()))?);
    if bytes.len() > bytes_max {
        return Err(Fault::TooLong { kind: kind.name, bytes_max });
    }
    read(&bytes, context)
}

/// The policy in a file that was found to be of one of [`POLICY_KINDS`], or what would become of it here.
pub fn policy_of(kind: &str, bytes: &[u8]) -> Option<assay_trust::Policy> {
    let text = std::str::from_utf8(bytes).ok()?;
    let imported =
        |taken: Result<(), ImportError>, import: Import| taken.ok().and_then(|()| import.finish().0.ok());
    let mut import = Import::new("inspected");
    match kind {
        "policy" => assay_trust::Policy::from_text(text).ok(),
        "dsse" => match Envelope::parse(text) {
            Ok(envelope) => assay_trust::Policy::from_text(envelope.payload()).ok(),
            Err(_) => imported(import.runtime_policy(text), import),
        },
        "keylime-runtime-policy" => imported(import.runtime_policy(text), import),
        "keylime-tpm-policy" => imported(import.tpm_policy(text), import),
        "keylime-refstate" => imported(import.reference_state(text), import),
        "allowlist" => imported(import.allowlist(text), import),
        _ => None,
    }
}

/// Reads until there are `count` bytes or the input ends.
fn fill(input: &mut dyn Read, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    input.take(u64::try_from(count).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A [`Fault`] of a form.
fn malformed(kind: &'static str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Fault {
    Fault::Malformed { kind, error: error.into() }
}

/// Kinds of which a policy can be made.
pub const POLICY_KINDS: &[&str] =
    &["policy", "keylime-runtime-policy", "keylime-tpm-policy", "keylime-refstate", "allowlist"];
/// With which some editors begin a text; it says nothing.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];
/// What a recogniser looks at. The heads of all forms are shorter.
const HEAD_BYTES: usize = 4096;
pub(super) const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
/// Structures of a TPM have some hundred bytes, and an NV index a few thousand.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// A revocation list of a large authority; `assay_evidence::tpm::revocation` takes no more.
const DER_BYTES_MAX: usize = assay_evidence::tpm::revocation::LIST_BYTES_MAX;
/// A bundle, or a chain of many certificates, and a list in base64.
const PEM_BYTES_MAX: usize = 2 * DER_BYTES_MAX;
/// The longest policy in an envelope.
const TEXT_BYTES_MAX: usize = assay_trust::policy::ENVELOPE_BYTES_MAX;

#[cfg(test)]
mod tests;
