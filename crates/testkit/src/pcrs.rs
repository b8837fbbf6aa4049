//! PCR values kept in software: for a device without a TPM, and to foretell what a real TPM will hold.

use std::collections::BTreeMap;

use crate::Bank;

/// One extension of one PCR, with a digest for each bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    /// The PCR.
    pub pcr: u32,
    /// What is extended, bank by bank.
    pub digests: Vec<(Bank, Vec<u8>)>,
}

impl Measurement {
    /// Measures `data` into `pcr`: each bank gets its own hash of it.
    pub fn of(banks: &[Bank], pcr: u32, data: &[u8]) -> Measurement {
        Measurement { pcr, digests: banks.iter().map(|bank| (*bank, bank.hash(data))).collect() }
    }
}

/// The PCRs of some banks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcrs {
    values: BTreeMap<(Bank, u32), Vec<u8>>,
}

impl Pcrs {
    /// PCRs as they are after a reset.
    pub fn new(banks: &[Bank]) -> Pcrs {
        let values = banks.iter().flat_map(|bank| {
            (0..PCRS).map(move |pcr| {
                // PC Client Platform TPM Profile: PCRs of the dynamic launch begin as all ones.
                let byte = if (17..=22).contains(&pcr) { 0xff } else { 0 };
                ((*bank, pcr), vec![byte; bank.size()])
            })
        });
        Pcrs { values: values.collect() }
    }

    /// PCRs as they are after a start from this locality, which PCR 0 begins with.
    pub fn started_at(banks: &[Bank], locality: u8) -> Pcrs {
        let mut pcrs = Pcrs::new(banks);
        for bank in banks {
            if let Some(last) = pcrs.values.get_mut(&(*bank, 0)).and_then(|value| value.last_mut()) {
                *last = locality;
            }
        }
        pcrs
    }

    /// Takes a PCR back to zeros, as nobody can on a real TPM.
    pub fn reset(&mut self, pcr: u32) {
        for (_, value) in self.values.iter_mut().filter(|((_, index), _)| *index == pcr) {
            value.fill(0);
        }
    }

    /// The banks there are.
    pub fn banks(&self) -> Vec<Bank> {
        Bank::ALL.into_iter().filter(|bank| self.values.contains_key(&(*bank, 0))).collect()
    }

    /// Extends a PCR; digests of other banks are left alone.
    pub fn extend(&mut self, measurement: &Measurement) {
        for (bank, digest) in &measurement.digests {
            if let Some(value) = self.values.get_mut(&(*bank, measurement.pcr)) {
                *value = bank.extend(value, digest);
            }
        }
    }

    /// The value of one PCR; empty where there is no such PCR.
    pub fn value(&self, bank: Bank, pcr: u32) -> &[u8] {
        self.values.get(&(bank, pcr)).map(Vec::as_slice).unwrap_or_default()
    }
}

const PCRS: u32 = 24;
