//! What user space measured, as a device last told it on its stream: an agent sends its log again only when it changed.

use assay_evidence::measure_log::essential;
use assay_evidence::request::Evidence;
use bytes::Bytes;

/// The log as it was last told, without words; nothing of it is believed.
#[derive(Debug, Default)]
pub(super) struct ToldMeasurements(Option<Bytes>);

impl ToldMeasurements {
    /// Gives evidence that came without the log the one that was told last, so that each piece is judged, and kept, whole.
    pub(super) fn complete(&mut self, mut evidence: Evidence) -> Evidence {
        if let Some(log) = evidence.measure_log.take().filter(|log| !log.is_empty()) {
            // One that does not read is judged as it is, and explains nothing.
            let log = essential(&log).map_or(log, Bytes::from);
            self.0 = Some(log).filter(|log| log.len() <= TOLD_BYTES_MAX);
        }
        evidence.measure_log.clone_from(&self.0);
        evidence
    }
}

/// Bytes that are remembered of one device: five hundred measurements; a boot makes some twenty.
const TOLD_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use assay_testkit::Bank;
    use assay_testkit::machine::measure_record;

    use super::*;

    #[test]
    fn the_log_that_was_told_last_completes_what_comes_without_one() {
        let record = |pcr| measure_record(&[Bank::Sha256], pcr, "phase", &"ready".repeat(200));
        let told =
            |log: Option<Vec<u8>>| Evidence { measure_log: log.map(Bytes::from), ..Evidence::default() };
        let mut known = ToldMeasurements::default();
        assert_eq!(known.complete(told(None)).measure_log, None);
        let first = known.complete(told(Some(record(11)))).measure_log.unwrap();
        assert!(first.len() < 200, "{first:?}");
        assert_eq!(known.complete(told(None)).measure_log.as_ref(), Some(&first));
        assert_eq!(known.complete(told(Some(Vec::new()))).measure_log.as_ref(), Some(&first));
        let second = known.complete(told(Some([record(11), record(15)].concat()))).measure_log.unwrap();
        assert_ne!(first, second);
        assert_eq!(known.complete(told(None)).measure_log, Some(second));
        // What is too long to be kept in mind is forgotten, and not taken for what was told before.
        known.complete(told(Some(record(11).repeat(2000))));
        assert_eq!(known.complete(told(None)).measure_log, None);
    }
}
