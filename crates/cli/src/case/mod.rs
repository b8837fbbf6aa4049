//! A case: a folder of evidence as a device left it, read with bounds and verified offline.
//!
//! `quote.*` is the evidence; the other quotes are held to the same logs. What is optional may be missing; a folder
//! without a quote or an AK is no case. `keys.rs` holds the folder's keys and certificates against each other.

mod keys;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use assay_evidence::boot_log::LOG_BYTES_MAX;
use assay_evidence::ima::{self, LIST_BYTES_MAX};
use assay_evidence::measure_log;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::banks::BankStatement;
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Claims, Evidence, Expectation, ImaLog, QuoteEvidence, verify};
use assay_evidence::{Check, Failure};
use assay_trust::{Finding, Tier};
use thiserror::Error;

/// The files of a case, unverified.
#[derive(Debug)]
pub struct Case {
    folder: PathBuf,
    quotes: Vec<Quote>,
    ak: Key,
    ak_ecc: Option<Key>,
    ek_public: Option<Vec<u8>>,
    ek_pem: Option<Vec<u8>>,
    ek_certificates: Vec<(&'static str, Vec<u8>)>,
    authorities: Vec<(&'static str, Vec<u8>)>,
    boot_log: Option<Vec<u8>>,
    measure_log: Option<Vec<u8>>,
    banks: Option<Banks>,
    ima_binary: Option<Vec<u8>>,
    ima_ascii: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Quote {
    label: &'static str,
    message: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<u8>,
    nonce: Option<Vec<u8>>,
}

/// The TPM's word on its PCR banks, in answer to the nonce of the first quote.
#[derive(Debug)]
struct Banks {
    capability: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

/// A public area, and what else the folder says of the same key.
#[derive(Debug)]
struct Key {
    label: &'static str,
    public: Vec<u8>,
    pem: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
}

/// What the verifier brings along.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Whom it trusts to vouch for TPMs; without anchors: the folder's own authorities.
    pub endorsers: Endorsers,
    /// The nonce it gave; `None`: what the folder says.
    pub nonce: Option<Vec<u8>>,
    /// The TPM's reset counter when it was last seen.
    pub last_reset_count: Option<u32>,
    /// When certificates have to be valid.
    pub at: UnixTime,
}

impl Expected {
    fn last_counters(&self) -> Option<BootCounters> {
        self.last_reset_count.map(|reset_count| BootCounters { reset_count, restart_count: 0 })
    }
}

/// A case after every check.
#[derive(Debug)]
pub struct Verified {
    /// The claims, where nothing failed.
    pub claims: Option<Claims>,
    /// The EK, and who vouches for it.
    pub endorsement: Option<Endorsement>,
    /// Every check that did not hold.
    pub failures: Vec<Failure>,
    /// What is odd, but proves nothing false.
    pub notes: Vec<Failure>,
}

impl Verified {
    /// The claims, or every reason why there are none.
    pub fn believed(self, folder: &Path) -> Result<Claims, CaseError> {
        let why = |failure: &Failure| Finding::from_failure(failure, Tier::Contraindicated).message;
        let failures = &self.failures;
        self.claims.ok_or_else(|| CaseError::NotBelieved {
            path: folder.to_owned(),
            why: failures.iter().map(why).collect::<Vec<_>>().join(" "),
        })
    }
}

/// Why a folder is no case.
#[derive(Debug, Error)]
pub enum CaseError {
    /// Not there, or not a folder.
    #[error("{} is not a folder", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// It does not verify.
    #[error("nothing is learned from {}, because it does not verify: {why}", path.display())]
    NotBelieved {
        /// The folder.
        path: PathBuf,
        /// The failures, in words.
        why: String,
    },
    /// A file that every case has.
    #[error("{} is missing: a case has quote.msg, quote.sig, quote.pcrs and ak.tpm2b_public", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A quote of which only a part is there.
    #[error("{} is missing, and the rest of that quote is there", path.display())]
    PartOfQuote {
        /// The file.
        path: PathBuf,
    },
    /// No nonce to hold a quote against.
    #[error("{} is missing: say which nonce the quote has to answer with --nonce", path.display())]
    NoNonce {
        /// The file.
        path: PathBuf,
    },
    /// A nonce that is not hex.
    #[error("{} is not hex", path.display())]
    NonceNotHex {
        /// The file.
        path: PathBuf,
    },
    /// A file too long to be what its name says.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it may be.
        bytes_max: usize,
    },
    /// The file cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: std::io::Error,
    },
}

impl Case {
    /// Reads a folder; no file is read past its bound.
    pub fn read(folder: &Path) -> Result<Self, CaseError> {
        if !folder.is_dir() {
            return Err(CaseError::NotAFolder { path: folder.to_owned() });
        }
        let files = Folder(folder);
        let mut quotes = vec![files.quote(QUOTE)?.ok_or_else(|| files.missing("quote.msg"))?];
        for label in OTHER_QUOTES {
            quotes.extend(files.quote(label)?);
        }
        Ok(Case {
            folder: folder.to_owned(),
            quotes,
            ak: files.key("ak")?.ok_or_else(|| files.missing("ak.tpm2b_public"))?,
            ak_ecc: files.key("ak-ecc")?,
            ek_public: files.small("ek.tpm2b_public")?,
            ek_pem: files.small("ek.pem")?,
            ek_certificates: files.present(EK_CERTIFICATES)?,
            authorities: files.present(EK_AUTHORITIES)?,
            boot_log: files.log("binary_bios_measurements", LOG_BYTES_MAX)?,
            measure_log: files.log("tpm2-measure.log", measure_log::LOG_BYTES_MAX)?,
            banks: files.banks()?,
            ima_binary: files.log("binary_runtime_measurements", LIST_BYTES_MAX)?,
            ima_ascii: files.log("ascii_runtime_measurements", LIST_BYTES_MAX)?,
        })
    }

    /// Makes every check of the evidence, the keys and the certificates.
    pub fn verify(&self, expected: &Expected) -> Result<Verified, CaseError> {
        let mut failures = Vec::new();
        let mut quotes = Vec::with_capacity(self.quotes.len());
        for quote in &self.quotes {
            quotes.push(self.quote_evidence(quote, expected, &mut failures)?);
        }
        let evidence = Evidence {
            ak_public: &self.ak.public,
            quotes,
            boot_log: self.boot_log.as_deref(),
            measure_log: self.measure_log.as_deref(),
            ima_log: self.ima_log(),
            ima_from_entry: 0,
            banks: self.banks(expected),
        };
        let expectation = Expectation { last_counters: expected.last_counters(), ..Expectation::default() };
        let verification = verify(&evidence, &expectation);
        failures.extend(verification.failures);
        let endorsement = self.verify_keys(expected, &mut failures);
        let mut notes = verification.notes;
        notes.extend(self.compare_ima_forms());
        let claims = verification.claims.filter(|_| failures.is_empty());
        notes.extend(self.own_words(expected, endorsement.as_ref()));
        Ok(Verified { claims, endorsement, failures, notes })
    }

    /// What is only the folder's word: who may vouch for TPMs, and which nonce was to be answered.
    fn own_words(&self, expected: &Expected, endorsement: Option<&Endorsement>) -> Vec<Failure> {
        let certificate =
            endorsement.and_then(Endorsement::certificate).filter(|_| expected.endorsers.is_empty());
        let own_anchor = certificate.map(|certificate| {
            let issuer = certificate.issuer();
            let found = format!("no trust anchor was given, and {issuer} is one by the folder's word");
            Failure::new(Check::EkChain, EK_CERTIFICATE, "a trust anchor", found)
        });
        let own_nonce = expected.nonce.is_none().then(|| {
            Failure::new(Check::QuoteNonce, QUOTE, "a nonce of the verifier's", "the one in the folder")
        });
        own_anchor.into_iter().chain(own_nonce).collect()
    }

    /// The evidence without the other quotes: `quote.*` and the logs.
    pub fn evidence<'a>(&'a self, expected: &'a Expected) -> Result<Evidence<'a>, CaseError> {
        let mut failures = Vec::new();
        let mut quotes = Vec::new();
        for quote in self.quotes.iter().take(1) {
            quotes.push(self.quote_evidence(quote, expected, &mut failures)?);
        }
        Ok(Evidence {
            ak_public: &self.ak.public,
            quotes,
            boot_log: self.boot_log.as_deref(),
            measure_log: self.measure_log.as_deref(),
            ima_log: self.ima_log(),
            ima_from_entry: 0,
            banks: self.banks(expected),
        })
    }

    fn quote_evidence<'a>(
        &'a self,
        quote: &'a Quote,
        expected: &'a Expected,
        failures: &mut Vec<Failure>,
    ) -> Result<QuoteEvidence<'a>, CaseError> {
        let nonce = expected.nonce.as_deref().or(quote.nonce.as_deref());
        let nonce_file = || CaseError::NoNonce { path: self.folder.join(format!("{}.nonce", quote.label)) };
        let pcrs = PcrValues::from_tpm2_tools(&quote.pcrs).map(|(_, values)| values);
        Ok(QuoteEvidence {
            label: quote.label,
            message: &quote.message,
            signature: &quote.signature,
            pcrs: pcrs.unwrap_or_else(|error| {
                let claim = format!("{}.pcrs", quote.label);
                failures.push(Failure::new(
                    Check::QuoteParse,
                    claim,
                    "PCR values as tpm2-tools write them",
                    error.to_string(),
                ));
                PcrValues::new()
            }),
            nonce: nonce.ok_or_else(nonce_file)?,
            ak_public: self
                .ak_ecc
                .as_ref()
                .filter(|_| quote.label == ECC_QUOTE)
                .map(|key| key.public.as_slice()),
        })
    }

    fn banks<'a>(&'a self, expected: &'a Expected) -> Option<BankStatement<'a>> {
        let Banks { capability, message, signature } = self.banks.as_ref()?;
        let own = self.quotes.first().and_then(|quote| quote.nonce.as_deref());
        let nonce = expected.nonce.as_deref().or(own).unwrap_or_default();
        Some(BankStatement { capability, message, signature, nonce })
    }

    /// The binary form is the truth; the ASCII form serves where it is all there is.
    fn ima_log(&self) -> Option<ImaLog<'_>> {
        let binary = self.ima_binary.as_deref().map(ImaLog::Binary);
        binary.or_else(|| self.ima_ascii.as_deref().map(ImaLog::Ascii))
    }

    fn compare_ima_forms(&self) -> Option<Failure> {
        // A binary list that does not parse is a failure of its own.
        let binary = ima::parse_binary(self.ima_binary.as_deref()?).ok()?;
        let found = match ima::parse_ascii(self.ima_ascii.as_deref()?) {
            Ok(ascii) if ascii == binary => return None,
            Ok(ascii) => format!("another list, of {} entries", ascii.len()),
            Err(error) => format!("no list: {error}"),
        };
        let expected = format!("the {} entries of the binary form", binary.len());
        Some(Failure::new(Check::ImaForms, "ascii_runtime_measurements", expected, found))
    }
}

/// Reads files of the folder, each within its bound.
struct Folder<'a>(&'a Path);

impl Folder<'_> {
    fn quote(&self, label: &'static str) -> Result<Option<Quote>, CaseError> {
        let file = |extension| format!("{label}.{extension}");
        let Some(message) = self.small(&file("msg"))? else { return Ok(None) };
        let part = |extension| {
            let name = file(extension);
            self.small(&name)?.ok_or_else(|| CaseError::PartOfQuote { path: self.0.join(&name) })
        };
        let nonce = match self.small(&file("nonce"))? {
            Some(hex) => Some(
                from_hex(&hex).ok_or_else(|| CaseError::NonceNotHex { path: self.0.join(file("nonce")) })?,
            ),
            None => None,
        };
        Ok(Some(Quote { label, message, signature: part("sig")?, pcrs: part("pcrs")?, nonce }))
    }

    fn banks(&self) -> Result<Option<Banks>, CaseError> {
        let part = |ending| self.small(&format!("{BANKS}.{ending}"));
        let parts = (part("bin")?, part("msg")?, part("sig")?);
        let (Some(capability), Some(message), Some(signature)) = parts else { return Ok(None) };
        Ok(Some(Banks { capability, message, signature }))
    }

    fn key(&self, label: &'static str) -> Result<Option<Key>, CaseError> {
        let Some(public) = self.small(&format!("{label}.tpm2b_public"))? else { return Ok(None) };
        let pem = self.small(&format!("{label}.pem"))?;
        Ok(Some(Key { label, public, pem, name: self.small(&format!("{label}.name"))? }))
    }

    fn present(&self, names: [&'static str; 2]) -> Result<Vec<(&'static str, Vec<u8>)>, CaseError> {
        let files = names.into_iter().map(|name| Ok(self.small(name)?.map(|bytes| (name, bytes))));
        files.filter_map(Result::transpose).collect()
    }

    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, CaseError> {
        read_bounded(&self.0.join(name), SMALL_BYTES_MAX)
    }

    /// A log is cut one byte past its bound, so that its parser refuses it by its own word.
    fn log(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, CaseError> {
        read_up_to(&self.0.join(name), bytes_max)
    }

    fn missing(&self, name: &str) -> CaseError {
        CaseError::Missing { path: self.0.join(name) }
    }
}

/// A file's content, if it is there; more than `bytes_max` is an error.
pub fn read_bounded(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, CaseError> {
    match read_up_to(path, bytes_max)? {
        Some(bytes) if bytes.len() > bytes_max => {
            Err(CaseError::TooLong { path: path.to_owned(), bytes_max })
        }
        content => Ok(content),
    }
}

/// A file's content, but never more than one byte past `bytes_max`.
fn read_up_to(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, CaseError> {
    let unreadable = |error| CaseError::Unreadable { path: path.to_owned(), error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(bytes))
}

/// Hex as people write it: any case, white space around it.
pub fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    data_encoding::HEXLOWER_PERMISSIVE.decode(text.trim_ascii()).ok()
}

/// The evidence.
const QUOTE: &str = "quote";
/// The TPM's word on its PCR banks: what it said, the attestation, its signature.
const BANKS: &str = "pcr-banks";
/// The quote by the ECC AK.
const ECC_QUOTE: &str = "quote-ecc";
/// Quotes that a case may have besides.
const OTHER_QUOTES: [&str; 3] = ["quote-pcr10", ECC_QUOTE, "quote-multibank"];
/// The first is the one for the EK of the case.
const EK_CERTIFICATES: [&str; 2] = [EK_CERTIFICATE, "ek-ecc-p384-cert.der"];
const EK_CERTIFICATE: &str = "ek-cert.der";
const EK_AUTHORITIES: [&str; 2] = ["ek-root-ca.pem", "ek-issuing-ca.pem"];
/// Quotes, keys and certificates have a few thousand bytes.
pub const SMALL_BYTES_MAX: usize = 64 << 10;
