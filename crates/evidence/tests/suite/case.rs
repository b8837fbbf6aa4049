//! A folder of evidence as recorded from one machine, read into memory.

use std::fs;
use std::path::{Path, PathBuf};

use assay_evidence::Check;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::{Evidence, Expectation, ImaLog, QuoteEvidence, Verification, verify};

/// The files of a case. Tests change them to lie.
#[derive(Clone)]
pub struct Case {
    pub folder: PathBuf,
    pub ak_public: Vec<u8>,
    pub quotes: Vec<CaseQuote>,
    pub boot_log: Option<Vec<u8>>,
    pub ima_log: Option<Vec<u8>>,
    pub ima_from_entry: u64,
}

/// The files of one quote.
#[derive(Clone)]
pub struct CaseQuote {
    pub label: String,
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub pcrs: PcrValues,
    pub nonce: Vec<u8>,
    pub ak_public: Option<Vec<u8>>,
}

impl Case {
    /// One of the project's own.
    pub fn vector(name: &str) -> Self {
        Self::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/tpm").join(name))
    }

    /// Any folder.
    pub fn read(folder: &Path) -> Self {
        let labels = ["quote", "quote-pcr10", "quote-ecc", "quote-multibank"];
        Case {
            folder: folder.to_owned(),
            ak_public: fs::read(folder.join("ak.tpm2b_public")).unwrap(),
            quotes: labels.iter().filter_map(|label| CaseQuote::read(folder, label)).collect(),
            boot_log: fs::read(folder.join("binary_bios_measurements")).ok(),
            ima_log: fs::read(folder.join("binary_runtime_measurements")).ok(),
            ima_from_entry: 0,
        }
    }

    /// Another file of the folder.
    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The same case with its first quote alone.
    pub fn quote_only(mut self) -> Self {
        self.quotes.truncate(1);
        (self.boot_log, self.ima_log) = (None, None);
        self
    }

    /// The first quote.
    pub fn quote(&mut self) -> &mut CaseQuote {
        self.quotes.first_mut().unwrap()
    }

    pub fn evidence(&self) -> Evidence<'_> {
        let quotes = self.quotes.iter().map(|quote| QuoteEvidence {
            label: &quote.label,
            message: &quote.message,
            signature: &quote.signature,
            pcrs: quote.pcrs.clone(),
            nonce: &quote.nonce,
            ak_public: quote.ak_public.as_deref(),
        });
        Evidence {
            ak_public: &self.ak_public,
            quotes: quotes.collect(),
            boot_log: self.boot_log.as_deref(),
            measure_log: None,
            ima_log: self.ima_log.as_deref().map(ImaLog::Binary),
            ima_from_entry: self.ima_from_entry,
            banks: None,
        }
    }

    pub fn verify(&self, expectation: &Expectation<'_>) -> Verification {
        verify(&self.evidence(), expectation)
    }

    /// The checks that fail, each once, in the order they are made.
    pub fn failing(&self) -> Vec<Check> {
        failing(&self.verify(&Expectation::default()))
    }
}

/// The checks that failed, each once. Claims exist exactly when there are none.
pub fn failing(verification: &Verification) -> Vec<Check> {
    assert_eq!(verification.claims.is_some(), verification.failures.is_empty());
    let mut checks: Vec<Check> = verification.failures.iter().map(|failure| failure.check).collect();
    checks.dedup();
    checks
}

impl CaseQuote {
    fn read(folder: &Path, label: &str) -> Option<Self> {
        let file = |ending: &str| fs::read(folder.join(format!("{label}.{ending}"))).ok();
        let (_, pcrs) = PcrValues::from_tpm2_tools(&file("pcrs")?).unwrap();
        let other_ak = label == "quote-ecc";
        Some(CaseQuote {
            label: label.to_owned(),
            message: file("msg")?,
            signature: file("sig")?,
            pcrs,
            nonce: data_encoding::HEXLOWER.decode(file("nonce")?.trim_ascii()).unwrap(),
            ak_public: other_ak.then(|| fs::read(folder.join("ak-ecc.tpm2b_public")).unwrap()),
        })
    }
}
