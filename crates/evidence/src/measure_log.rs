//! systemd's measurement log: what user space extended into PCRs once the firmware's log had ended.
//!
//! systemd appends a record per measurement to `/run/log/systemd/tpm2-measure.log`, as a JSON text sequence (RFC 7464) of
//! objects that follow the TCG's Canonical Event Log in its JSON form (systemd-pcrextend(8)). Whoever may write the file
//! writes what he likes: a record counts where it leads exactly to a quoted PCR, and its words are a remark.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use crate::{Digest, HashAlgorithm, PcrIndex};

/// A parsed log: the records of PCRs, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeasureLog {
    records: Vec<MeasureRecord>,
    of_nv_indexes: usize,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasureRecord {
    /// The PCR that it extended.
    pub pcr: PcrIndex,
    digests: Vec<Digest>,
    /// What systemd calls its kind, such as `phase`; empty where it does not say. A remark.
    pub kind: String,
    /// What systemd says that it measured; empty where it does not say. A remark.
    pub text: String,
}

impl MeasureLog {
    /// The records of PCRs.
    pub fn records(&self) -> &[MeasureRecord] {
        &self.records
    }

    /// How many records are of NV indexes (systemd's NvPCRs), which no quote covers.
    pub fn of_nv_indexes(&self) -> usize {
        self.of_nv_indexes
    }

    /// The values that a PCR goes through from `start`, which is the first, as far as each record has a digest of its bank.
    pub fn course(&self, pcr: PcrIndex, start: Digest) -> Vec<Digest> {
        let bank = start.algorithm();
        let mut values = vec![start];
        let mut value = start;
        for record in self.records.iter().filter(|record| record.pcr == pcr) {
            let Some(digest) = record.digest(bank) else { break };
            value = value.extend(digest.as_bytes());
            values.push(value);
        }
        values
    }
}

impl MeasureRecord {
    /// What it extended the PCR of `bank` with.
    pub fn digest(&self, bank: HashAlgorithm) -> Option<&Digest> {
        self.digests.iter().find(|digest| digest.algorithm() == bank)
    }

    /// What it extended, in every bank we know.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Whether the text is what was measured. Not of secrets, such as a volume's key, which are measured under a description.
    pub fn is_of_its_text(&self) -> bool {
        let is_of = |digest: &Digest| digest.algorithm().hash(&[self.text.as_bytes()]) == *digest;
        !self.digests.is_empty() && self.digests.iter().all(is_of)
    }
}

/// Why a log was refused, and where.
#[derive(Debug, Error)]
#[error("record {record} at byte {offset}: {kind}")]
pub struct MeasureLogError {
    /// The record, counted from zero.
    pub record: usize,
    /// The byte at which it starts.
    pub offset: usize,
    /// What is wrong with it.
    #[source]
    pub kind: MeasureLogErrorKind,
}

/// What can be wrong with a log.
#[derive(Debug, Error)]
pub enum MeasureLogErrorKind {
    /// The log is longer than [`LOG_BYTES_MAX`].
    #[error("the log has more than {LOG_BYTES_MAX} bytes")]
    TooLong,
    /// The log has more records than [`RECORDS_MAX`].
    #[error("the log has more than {RECORDS_MAX} records")]
    TooManyRecords,
    /// A record does not begin with the record separator.
    #[error("it does not begin with the separator of RFC 7464, 0x1e")]
    NoSeparator,
    /// A record is not the JSON object that it has to be.
    #[error("it is no record: {0}")]
    Json(#[from] serde_json::Error),
    /// A record names neither a PCR nor an NV index, or both.
    #[error("it has to name a PCR or an NV index, and one of them alone")]
    Register,
    /// The PCR does not exist.
    #[error("there is no PCR {0}")]
    NoSuchPcr(u32),
    /// A digest is not hex of its algorithm's length.
    #[error("its {0} digest is malformed")]
    Digest(HashAlgorithm),
    /// Two digests of one algorithm.
    #[error("it has two {0} digests")]
    TwoDigests(HashAlgorithm),
    /// No digest of an algorithm we know.
    #[error("it has no digest of a known algorithm")]
    NoDigest,
}

/// Parses a log. An empty one has no records.
pub fn parse(bytes: &[u8]) -> Result<MeasureLog, MeasureLogError> {
    if bytes.len() > LOG_BYTES_MAX {
        return Err(MeasureLogError { record: 0, offset: 0, kind: MeasureLogErrorKind::TooLong });
    }
    let mut log = MeasureLog::default();
    let mut offset = 0;
    for (number, text) in bytes.split_inclusive(|byte| *byte == SEPARATOR).enumerate() {
        let at = |kind| MeasureLogError { record: number.saturating_sub(1), offset, kind };
        // What stands before the first separator is nothing; of every other piece the next one's separator is the last byte.
        let body = text.strip_suffix(&[SEPARATOR]).unwrap_or(text);
        if number == 0 {
            if !body.is_empty() {
                return Err(at(MeasureLogErrorKind::NoSeparator));
            }
        } else {
            if number > RECORDS_MAX {
                return Err(at(MeasureLogErrorKind::TooManyRecords));
            }
            match record(body).map_err(at)? {
                Some(record) => log.records.push(record),
                None => log.of_nv_indexes += 1,
            }
        }
        offset += text.len();
    }
    Ok(log)
}

/// The log with what replay needs and nothing else, as a log again; `None` where it is none.
pub fn essential(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut essential = Vec::new();
    for record in parse(bytes).ok()?.records {
        let digests = record.digests.iter().map(
            |digest| serde_json::json!({ "hashAlg": digest.algorithm().name(), "digest": digest.to_hex() }),
        );
        let record = serde_json::json!({ "pcr": record.pcr.get(), "digests": digests.collect::<Vec<_>>() });
        essential.push(SEPARATOR);
        essential.extend(record.to_string().into_bytes());
        essential.push(b'\n');
    }
    Some(essential)
}

/// Whether bytes begin as a log of records does.
pub fn begins(head: &[u8]) -> bool {
    head.strip_prefix(&[SEPARATOR]).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"))
}

/// One record; `None` where it is an NV index's.
fn record(text: &[u8]) -> Result<Option<MeasureRecord>, MeasureLogErrorKind> {
    let record: Record = serde_json::from_slice(text)?;
    let pcr = match (record.pcr, record.nv_index) {
        (None, Some(_)) => return Ok(None),
        (Some(pcr), None) => PcrIndex::new(pcr).ok_or(MeasureLogErrorKind::NoSuchPcr(pcr))?,
        (None, None) | (Some(_), Some(_)) => return Err(MeasureLogErrorKind::Register),
    };
    let mut digests: Vec<Digest> = Vec::new();
    for RecordDigest { algorithm, digest } in record.digests {
        // A bank that we do not know is not quoted either.
        let Some(algorithm) = HashAlgorithm::from_name(&algorithm) else { continue };
        if digests.iter().any(|known| known.algorithm() == algorithm) {
            return Err(MeasureLogErrorKind::TwoDigests(algorithm));
        }
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digest.as_bytes()).ok();
        let digest = bytes.and_then(|bytes| Digest::new(algorithm, &bytes));
        digests.push(digest.ok_or(MeasureLogErrorKind::Digest(algorithm))?);
    }
    if digests.is_empty() {
        return Err(MeasureLogErrorKind::NoDigest);
    }
    let word = |name| record.content.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(Some(MeasureRecord { pcr, digests, kind: word("eventType"), text: word("string") }))
}

/// A record as it is written; what else it says of itself is not looked at.
#[derive(Deserialize)]
struct Record {
    pcr: Option<u32>,
    nv_index: Option<u64>,
    digests: Vec<RecordDigest>,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct RecordDigest {
    #[serde(rename = "hashAlg")]
    algorithm: String,
    digest: String,
}

/// Bytes of a log. A boot makes some twenty records of less than a thousand bytes; every log-in of another user may add one.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// Records of a log.
pub const RECORDS_MAX: usize = 2048;
/// RFC 7464: what each text of a sequence begins with.
const SEPARATOR: u8 = 0x1e;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(pcr: &str, kind: &str, text: &str) -> String {
        let digest = |bank: HashAlgorithm| bank.hash(&[text.as_bytes()]).to_hex();
        format!(
            "\u{1e}{{{pcr},\"digests\":[{{\"hashAlg\":\"sm3_256\",\"digest\":\"00\"}},{{\"hashAlg\":\"sha1\",\"digest\":\"{}\"}},\
             {{\"hashAlg\":\"sha256\",\"digest\":\"{}\"}}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{text}\",\
             \"bootId\":\"6b1f\",\"timestamp\":4213371,\"eventType\":\"{kind}\"}}}}\n",
            digest(HashAlgorithm::Sha1),
            digest(HashAlgorithm::Sha256),
        )
    }

    fn log() -> String {
        [
            line("\"pcr\":9", "nvpcr-init", "nvpcr-init:hardware:0x1d10200:sha256:de38"),
            line("\"nv_index\":30474752", "product-id", "product-id:4691"),
            line("\"pcr\":11", "phase", "enter-initrd"),
            line("\"pcr\":15", "machine-id", "machine-id:0123"),
        ]
        .concat()
    }

    #[test]
    fn records_say_what_they_extended() {
        let log = parse(log().as_bytes()).unwrap();
        let told: Vec<(u8, &str)> =
            log.records().iter().map(|one| (one.pcr.get(), one.kind.as_str())).collect();
        assert_eq!(told, [(9, "nvpcr-init"), (11, "phase"), (15, "machine-id")]);
        assert_eq!(log.of_nv_indexes(), 1);
        assert!(log.records().iter().all(MeasureRecord::is_of_its_text));
        assert_eq!(parse(b"").unwrap(), MeasureLog::default());
    }

    #[test]
    fn what_is_essential_replays_to_the_same() {
        let (whole, short) = (parse(log().as_bytes()).unwrap(), essential(log().as_bytes()).unwrap());
        let short = parse(&short).unwrap();
        assert_eq!(short.records().len(), whole.records().len());
        for record in whole.records() {
            for bank in [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384] {
                assert_eq!(short.course(record.pcr, bank.zero()), whole.course(record.pcr, bank.zero()));
            }
        }
        assert_eq!(essential(b"\x1e{"), None);
    }

    #[test]
    fn a_course_ends_where_a_bank_is_not_told() {
        let log = parse(log().as_bytes()).unwrap();
        let course =
            |index, bank: HashAlgorithm| log.course(PcrIndex::new(index).unwrap(), bank.zero()).len();
        assert_eq!(
            [
                course(15, HashAlgorithm::Sha256),
                course(15, HashAlgorithm::Sha384),
                course(4, HashAlgorithm::Sha256)
            ],
            [2, 1, 1]
        );
    }

    #[test]
    fn what_is_no_log_says_where() {
        let whole = log();
        let check = |text: &str, record, words: &str| {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!((error.record, error.to_string().contains(words)), (record, true), "{error}");
        };
        check(whole.trim_start_matches('\u{1e}'), 0, "separator");
        check(whole.get(..whole.len() - 9).unwrap(), 3, "no record");
        check(&whole.replace("\"pcr\":15", "\"pcr\":24"), 3, "no PCR 24");
        check(&whole.replace("\"pcr\":15", "\"pcr\":15,\"pcr\":14"), 3, "duplicate");
        check(&whole.replace("\"pcr\":11", "\"rtmr\":2"), 2, "a PCR or an NV index");
        check(&whole.replace("sm3_256", "sha256"), 0, "malformed");
        check(&line("\"pcr\":1", "phase", "a").replace("sha1", "sha256"), 0, "malformed");
        check(&"\u{1e}{}".repeat(2), 0, "digests");
        check(&line("\"pcr\":1", "", "a").replace("sha1", "x").replace("sha256", "y"), 0, "no digest");
        check(&line("\"pcr\":1", "", "a").repeat(RECORDS_MAX + 1), RECORDS_MAX, "more than");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..1600) {
            let _ = parse(&bytes);
            let whole = log().into_bytes();
            let mixed = [whole.get(..cut.min(whole.len())).unwrap_or_default(), &bytes].concat();
            if let Ok(log) = parse(&mixed) {
                prop_assert!(log.records().len() + log.of_nv_indexes() <= RECORDS_MAX);
            }
        }

        /// Whatever the words are, they come back as they were.
        #[test]
        fn words_come_back(words in proptest::collection::vec("[^\u{0}-\u{1f}\"\\\\]{0,40}", 0..8)) {
            let text: String = words.iter().map(|word| line("\"pcr\":12", "phase", word)).collect();
            let log = parse(text.as_bytes()).unwrap();
            prop_assert_eq!(log.records().iter().map(|record| record.text.clone()).collect::<Vec<_>>(), words);
        }
    }
}
