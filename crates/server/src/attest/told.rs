//! What a device told once on its stream and need not tell again: what its user space measured, until that changed, and the
//! TPM's word on its banks, which holds for a boot.

use assay_evidence::measure_log::essential;
use assay_evidence::request::{BankStatement, Evidence};
use bytes::Bytes;

/// It, so that each piece of evidence is judged, and kept, whole; nothing of it is believed.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The log as it was last told, without words.
    measurements: Option<Bytes>,
    banks: Option<BankStatement>,
    list: Option<ToldList>,
}

/// Entries of the IMA list that are attested and not good, so that each result is about them again.
#[derive(Debug)]
pub(super) struct ToldList {
    /// Of which entry, counted from boot, they are the first.
    pub from: u64,
    /// How many entries since boot there are with them.
    pub to: u64,
    pub bytes: Bytes,
    pub is_ascii: bool,
}

impl Told {
    /// Gives evidence what was told before. The TPM's word on its banks is what came, where it was asked for.
    pub(super) fn complete(&mut self, mut evidence: Evidence, banks_wanted: bool) -> Evidence {
        if let Some(log) = evidence.measure_log.take().filter(|log| !log.is_empty()) {
            // One that does not read is judged as it is, and explains nothing.
            let log = essential(&log).map_or(log, Bytes::from);
            self.measurements = Some(log).filter(|log| log.len() <= TOLD_BYTES_MAX);
        }
        evidence.measure_log.clone_from(&self.measurements);
        if banks_wanted {
            self.banks =
                evidence.banks.clone().filter(|banks| banks.bytes() <= STATEMENT_BYTES_MAX).map(owned);
        }
        evidence.banks.clone_from(&self.banks);
        evidence
    }

    /// Up to which entry a list need not be told again, of which all before `known` are good.
    pub(super) fn list_to(&self, known: u64) -> u64 {
        self.list.as_ref().filter(|list| list.from == known).map_or(known, |list| list.to)
    }

    /// Puts the entries that were told before in front of those that came, where the evidence is to begin at `known`.
    pub(super) fn complete_list(&self, mut evidence: Evidence, known: u64) -> Evidence {
        let follows = |list: &&ToldList| list.from == known && list.to == evidence.ima_from_entry;
        let Some(list) = self.list.as_ref().filter(follows) else { return evidence };
        // A device without anything new may not say in which form its list is.
        if evidence.ima_log.is_empty() || evidence.ima_ascii == list.is_ascii {
            evidence.ima_log = [list.bytes.as_ref(), evidence.ima_log.as_ref()].concat().into();
            (evidence.ima_ascii, evidence.ima_from_entry) = (list.is_ascii, list.from);
        }
        evidence
    }

    /// Remembers entries; what is too long to be kept in mind is asked for again each time.
    pub(super) fn remember_list(&mut self, list: Option<ToldList>) {
        let is_worth_it = |list: &ToldList| list.from < list.to && list.bytes.len() <= LIST_BYTES_MAX;
        self.list = list
            .filter(is_worth_it)
            .map(|list| ToldList { bytes: Bytes::copy_from_slice(&list.bytes), ..list });
    }
}

/// In bytes of its own, so that it does not keep the message that it came in.
fn owned(banks: BankStatement) -> BankStatement {
    let BankStatement { nonce, capability, message, signature } = banks;
    let [nonce, capability, message, signature] =
        [nonce, capability, message, signature].map(|bytes| Bytes::copy_from_slice(&bytes));
    BankStatement { nonce, capability, message, signature }
}

/// Bytes that are remembered of one device: five hundred measurements; a boot makes some twenty.
const TOLD_BYTES_MAX: usize = 64 << 10;
/// Sixteen banks, an attestation and a signature by a key of 4096 bits take a third.
const STATEMENT_BYTES_MAX: usize = 4 << 10;

/// Some two thousand entries, of each suspect device that is attached.
const LIST_BYTES_MAX: usize = 256 << 10;

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
        let mut known = Told::default();
        let mut complete = |evidence| known.complete(evidence, false);
        assert_eq!(complete(told(None)).measure_log, None);
        let first = complete(told(Some(record(11)))).measure_log.unwrap();
        assert!(first.len() < 200, "{first:?}");
        assert_eq!(complete(told(None)).measure_log.as_ref(), Some(&first));
        assert_eq!(complete(told(Some(Vec::new()))).measure_log.as_ref(), Some(&first));
        let second = complete(told(Some([record(11), record(15)].concat()))).measure_log.unwrap();
        assert_ne!(first, second);
        assert_eq!(complete(told(None)).measure_log, Some(second));
        // What is too long to be kept in mind is forgotten, and not taken for what was told before.
        complete(told(Some(record(11).repeat(2000))));
        assert_eq!(complete(told(None)).measure_log, None);
    }

    #[test]
    fn banks_are_told_once_for_a_boot_and_never_those_of_another() {
        let stated =
            |nonce: &[u8]| BankStatement { nonce: nonce.to_vec().into(), ..BankStatement::default() };
        let told = |banks| Evidence { banks, ..Evidence::default() };
        let mut known = Told::default();
        assert_eq!(known.complete(told(Some(stated(b"1"))), true).banks, Some(stated(b"1")));
        assert_eq!(known.complete(told(None), false).banks, Some(stated(b"1")));
        // What nobody asked for counts as little as what was said before, once it is asked for again.
        assert_eq!(known.complete(told(Some(stated(b"2"))), false).banks, Some(stated(b"1")));
        assert_eq!(known.complete(told(None), true).banks, None);
        assert_eq!(known.complete(told(None), false).banks, None);
        assert_eq!(known.complete(told(Some(stated(&[0; 8192]))), true).banks, None);
    }

    #[test]
    fn entries_that_were_told_are_put_before_what_is_new() {
        let came = |from: u64, bytes: &'static [u8]| Evidence {
            ima_log: bytes.into(),
            ima_from_entry: from,
            ..Evidence::default()
        };
        let mut told = Told::default();
        assert_eq!(told.list_to(7), 7);
        told.remember_list(Some(ToldList { from: 7, to: 9, bytes: (&b"bad"[..]).into(), is_ascii: false }));
        // Of another good end of the list nothing is known.
        assert_eq!((told.list_to(7), told.list_to(8)), (9, 8));
        let whole = told.complete_list(came(9, b"new"), 7);
        assert_eq!((whole.ima_from_entry, whole.ima_log.as_ref()), (7, b"badnew".as_slice()));
        // What begins elsewhere is judged as it is: it replays or it does not.
        for (from, known) in [(7, 7), (8, 7), (9, 9), (0, 7)] {
            assert_eq!(told.complete_list(came(from, b"new"), known).ima_log.as_ref(), b"new");
        }
        let text = Evidence { ima_ascii: true, ..came(9, b"10 text") };
        assert_eq!(told.complete_list(text, 7).ima_from_entry, 9);
        assert_eq!(
            told.complete_list(Evidence { ima_ascii: true, ..came(9, b"") }, 7).ima_log.as_ref(),
            b"bad"
        );
        told.remember_list(Some(ToldList {
            from: 7,
            to: 9,
            bytes: vec![0; 300 << 10].into(),
            is_ascii: false,
        }));
        assert_eq!(told.list_to(7), 7);
    }
}
