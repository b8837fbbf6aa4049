//! `assay-agent collect`: evidence of this machine as a folder, for `assay appraise` and `assay policy learn`.
//!
//! The layout is the one tpm2-tools users have: `quote.msg`, `.sig`, `.pcrs` and `.nonce`, keys as TPM2B_PUBLIC and
//! PEM, and the kernel's logs under their own names.

mod pcr_file;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use assay_evidence::digest::{HashAlgorithm, PcrIndex};
use assay_evidence::tpm::pcr::{PcrSelection, PcrSet};
use assay_evidence::tpm::public_area::{PublicArea, PublicAreaError};
use assay_identity::bundle::pem;
use data_encoding::HEXLOWER;
use thiserror::Error;

use crate::config::Sources;
use crate::logs::{self, ImaSource, LogError};
use crate::tpm::ek::EndorsementKey;
use crate::tpm::keys::Keys;
use crate::tpm::{Tpm, TpmError};
use crate::upstream::attest::earlier;

/// Evidence could not be collected.
#[derive(Debug, Error)]
pub enum CollectError {
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The endorsement key is of a kind we do not know.
    #[error("the endorsement key cannot be read")]
    EndorsementKey(#[from] PublicAreaError),
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The TPM has no PCR bank we can use.
    #[error("the TPM has no active SHA-256 or stronger PCR bank; `assay-agent tpm detect` says what to do")]
    NoBank,
    /// A file cannot be written.
    #[error("{path}: cannot be written")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What was collected.
#[derive(Debug)]
pub struct Collected {
    /// The names of the files.
    pub files: Vec<&'static str>,
    /// What the TPM should have had as well, and why it is not there.
    pub missing: Vec<String>,
}

/// Writes a case into `out`.
pub fn collect(sources: &Sources, out: &Path) -> Result<Collected, CollectError> {
    let tpm = Tpm::open(&sources.tpm)?;
    let keys = Keys::ephemeral(&tpm)?;
    let nonce = tpm.random(NONCE_BYTES)?;
    let selection = whole_machine(&tpm)?;
    let banks = tpm.state_banks(&keys.ak, &nonce)?;
    let ima = ImaSource::new(&sources.ima_log);
    let quote = tpm.quote(&keys.ak, &nonce, &selection, |quoted, read| earlier(&ima, quoted, read))?;
    let mut case = Case::create(out)?;
    case.write("quote.msg", &quote.message)?;
    case.write("quote.sig", &quote.signature)?;
    case.write("quote.pcrs", &pcr_file::serialize(&selection, &quote.values))?;
    case.write("quote.nonce", HEXLOWER.encode(&nonce).as_bytes())?;
    case.write("pcr-banks.bin", &banks.capability)?;
    case.write("pcr-banks.msg", &banks.message)?;
    case.write("pcr-banks.sig", &banks.signature)?;
    case.write("ak.tpm2b_public", keys.ak.public())?;
    case.write("ak.name", keys.ak.area().name().as_bytes())?;
    case.write("ak.pem", pem("PUBLIC KEY", &keys.ak.area().spki_der()).as_bytes())?;
    drop(keys);

    let ek = EndorsementKey::load(&tpm)?;
    let area = PublicArea::parse_tpm2b(ek.public())?;
    case.write("ek.tpm2b_public", ek.public())?;
    case.write("ek.name", area.name().as_bytes())?;
    case.write("ek.pem", pem("PUBLIC KEY", &area.spki_der()).as_bytes())?;
    if let Some(certificate) = ek.certificate() {
        case.write("ek-cert.der", certificate)?;
    }
    // What the TPM's maker put there may complete the chain; it is no trust anchor, so it has a name of its own.
    if !ek.intermediates().is_empty() {
        let chain: String = ek.intermediates().iter().map(|der| pem("CERTIFICATE", der)).collect();
        case.write("ek-intermediates.pem", chain.as_bytes())?;
    }

    // After the quote: a list read before it could lack what the quote already covers.
    if let Some(log) = logs::read_boot_log(&sources.boot_log)? {
        case.write("binary_bios_measurements", &log)?;
    }
    if let Some(log) = logs::read_measure_log(&sources.measure_log)? {
        case.write("tpm2-measure.log", &log)?;
    }
    let list = ima.read_from(0)?;
    match list.bytes.is_empty() {
        true => {}
        false if list.ascii => case.write("ascii_runtime_measurements", &list.bytes)?,
        false => case.write("binary_runtime_measurements", &list.bytes)?,
    }
    Ok(Collected { files: case.written, missing: ek.unread().iter().map(ToString::to_string).collect() })
}

/// PCRs 0 to 15 of the preferred active bank, which firmware, boot loaders and the kernel measure into, and the firmware's in
/// every other that is active.
fn whole_machine(tpm: &Tpm) -> Result<PcrSelection, CollectError> {
    let banks = tpm.pcr_banks()?;
    let active: Vec<HashAlgorithm> =
        banks.iter().filter(|bank| bank.pcrs > 0).filter_map(|bank| bank.hash()).collect();
    let preferred =
        PREFERRED_BANKS.into_iter().find(|bank| active.contains(bank)).ok_or(CollectError::NoBank)?;
    let of = |bank: HashAlgorithm| -> PcrSet {
        match bank == preferred {
            true => (0..16).filter_map(PcrIndex::new).collect(),
            false => PcrIndex::of_firmware().collect(),
        }
    };
    Ok(active.into_iter().map(|bank| (bank, of(bank))).collect())
}

struct Case<'a> {
    folder: &'a Path,
    written: Vec<&'static str>,
}

impl<'a> Case<'a> {
    fn create(folder: &'a Path) -> Result<Self, CollectError> {
        fs::create_dir_all(folder)
            .map_err(|source| CollectError::Write { path: folder.to_owned(), source })?;
        Ok(Case { folder, written: Vec::new() })
    }

    fn write(&mut self, name: &'static str, bytes: &[u8]) -> Result<(), CollectError> {
        let path = self.folder.join(name);
        fs::write(&path, bytes).map_err(|source| CollectError::Write { path, source })?;
        self.written.push(name);
        Ok(())
    }
}

const NONCE_BYTES: u16 = 32;
/// SHA-256 first: it is the bank every verifier and every log has.
const PREFERRED_BANKS: [HashAlgorithm; 3] =
    [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
