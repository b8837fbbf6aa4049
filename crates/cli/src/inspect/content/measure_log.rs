//! systemd's measurement log: what user space extended after the firmware's log had ended.

use assay_evidence::measure_log::{self, LOG_BYTES_MAX};
use assay_evidence::{HashAlgorithm, PcrIndex};

use super::report::{Column, Place, Report, Severity, Table, Value};
use super::{Context, Fault, malformed};

/// A text sequence of JSON objects.
pub(super) fn begins(head: &[u8], _is_all: bool) -> bool {
    measure_log::begins(head)
}

/// Reads a log.
pub(super) fn read(bytes: &[u8], _context: &Context) -> Result<Report, Fault> {
    let log = measure_log::parse(bytes).map_err(|error| malformed("systemd's measurement log", error))?;
    let records = log.records();
    let rows = records.iter().enumerate().map(|(number, record)| {
        let digests =
            record.digests().iter().map(|digest| (digest.algorithm().name(), Value::from(digest.to_hex())));
        vec![
            number.into(),
            u64::from(record.pcr.get()).into(),
            record.kind.as_str().into(),
            record.text.as_str().into(),
            if record.is_of_its_text() { "text" } else { "elsewhere" }.into(),
            Value::group(digests),
        ]
    });
    let mut report = Report::new("measure-log", format!("systemd's log of {} measurements", records.len()))
        .with("records", records.len())
        .with("of_nv_indexes", log.of_nv_indexes())
        .with("extensions", extensions(&log))
        .with("events", Table { columns: COLUMNS, rows: rows.collect() });
    report.remark(
        Severity::Note,
        "whoever may write the file writes what he likes: a record counts where it leads from the boot log's value of its PCR to \
         the quoted one (assay appraise)",
    );
    if log.of_nv_indexes() > 0 {
        report
            .remark(Severity::Note, "records of NV indexes are of no PCR, and no quote of PCRs covers them");
    }
    Ok(report)
}

/// How often each PCR was extended.
fn extensions(log: &measure_log::MeasureLog) -> Value {
    let indexes = (0..u32::from(PcrIndex::COUNT)).filter_map(PcrIndex::new);
    let counted = indexes.map(|index| {
        let count = log.course(index, HashAlgorithm::Sha256.zero()).len().saturating_sub(1);
        (index.to_string(), count)
    });
    Value::group(counted.filter(|(_, count)| *count > 0))
}

pub(super) const BYTES_MAX: usize = LOG_BYTES_MAX;
const COLUMNS: &[Column] = &[
    Column { name: "event", place: Place::Row },
    Column { name: "pcr", place: Place::Row },
    Column { name: "type", place: Place::Row },
    Column { name: "says", place: Place::Row },
    Column { name: "covers", place: Place::Row },
    Column { name: "digests", place: Place::Program },
];
