//! One boot: what the TPM holds, and what is going to be sent about it.

use super::blindness::Blindness;
use super::event::{BootEvent, encode};
use super::installation::Installation;
use super::list;
use crate::edge::protocol::BankStatement;
use crate::machine::ImaEntry;
use crate::pcrs::{Measurement, Pcrs};
use crate::software_device::{Clock, DeviceError, Quoting, Stating, TpmKey, quote};
use crate::{Bank, Program};

/// A boot that is over, with root in the attacker's hands: he extends what he likes and sends what he likes.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The events of a good machine's boot, as everybody knows them.
    pub(super) good: Vec<BootEvent>,
    good_programs: Vec<Program>,
    locality: u8,
    blindness: Option<Blindness>,
    pub(super) banks: Vec<Bank>,
    pub(super) measured_banks: Vec<Bank>,
    pub(super) good_banks: Vec<Bank>,
    pub(super) pcrs: Pcrs,
    /// The log to be sent.
    pub(super) log: Vec<BootEvent>,
    pub(super) log_banks: Vec<Bank>,
    pub(super) is_log_sent: bool,
    /// The list to be sent, entry by entry.
    pub(super) list: Vec<Vec<u8>>,
    pub(super) is_list_sent: bool,
    pub(super) is_list_text: bool,
    /// From which entry the list is said to be told, and how many entries are left out.
    pub(super) told_from: (usize, usize),
    clock: Clock,
    /// Whether the kernel measures nothing, so that PCR 10 is still to be filled.
    pub(super) is_list_open: bool,
    pub(super) quoted_banks: Vec<Bank>,
    /// What the TPM is asked to say of its banks, and says; `None`: it is not asked.
    pub(super) stated_banks: Option<Vec<Bank>>,
    pub(super) quoted_pcrs: Vec<u32>,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Submission {
    /// TPM2B_PUBLIC of the attestation key.
    pub ak_public: Vec<u8>,
    /// The nonce that was answered.
    pub nonce: Vec<u8>,
    /// TPMS_ATTEST.
    pub message: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The quoted values: bank, PCR, digest.
    pub pcrs: Vec<(Bank, u32, Vec<u8>)>,
    /// The TPM's word on its banks.
    pub banks: Option<BankStatement>,
    /// The boot log.
    pub boot_log: Option<Vec<u8>>,
    /// The IMA list.
    pub ima_log: Option<Vec<u8>>,
    /// Whether it is text.
    pub ima_ascii: bool,
    /// From which entry it is said to be told.
    pub ima_from: u64,
}

impl Scene {
    /// Boots what is really installed, on a machine that should be `good`.
    ///
    /// With `is_kernel_ruled`, what boots measures no files by itself.
    pub fn boot(good: &Installation, real: &Installation, is_kernel_ruled: bool) -> Scene {
        Scene::boot_seen(good, real, is_kernel_ruled, None)
    }

    /// The same as a verifier sees it that overlooks something.
    pub fn boot_seen(
        good: &Installation,
        real: &Installation,
        is_kernel_ruled: bool,
        blindness: Option<Blindness>,
    ) -> Scene {
        let good_events = good.boot_events();
        let log = real.boot_events();
        let log = match blindness {
            Some(blindness) => blindness.sees(&good_events, log),
            None => log,
        };
        let mut scene = Scene {
            good: good_events,
            locality: real.locality(),
            blindness,
            good_programs: good.programs.clone(),
            banks: real.banks.clone(),
            measured_banks: real.measured_banks.clone(),
            good_banks: good.banks.clone(),
            pcrs: Pcrs::new(&real.banks),
            log: Vec::new(),
            log_banks: real.measured_banks.clone(),
            is_log_sent: true,
            list: Vec::new(),
            is_list_sent: true,
            is_list_text: false,
            told_from: (0, 0),
            clock: Clock::default(),
            is_list_open: is_kernel_ruled,
            quoted_banks: real.banks.clone(),
            stated_banks: Some(real.banks.clone()),
            quoted_pcrs: QUOTED_PCRS.to_vec(),
        };
        scene.replace_log(log);
        if !is_kernel_ruled {
            scene.measure_files(&real.programs);
        }
        scene
    }

    /// The same booted by these events instead, with the files that are measured on a good machine.
    pub fn with_events(mut self, log: Vec<BootEvent>) -> Scene {
        self.list.clear();
        self.replace_log(log);
        let programs = self.good_programs.clone();
        self.measure_files(&programs);
        self
    }

    /// What the TPM holds after these events alone, and the log of them.
    pub(super) fn replace_log(&mut self, log: Vec<BootEvent>) {
        self.pcrs = Pcrs::started_at(&self.banks, self.locality);
        for event in log.iter().filter(|event| !event.is_remark()) {
            self.pcrs.extend(&event.measurement(&self.measured_banks));
        }
        self.log = log;
    }

    /// systemd names the phases of the start in PCR 11, once the log has ended.
    pub fn reach_phases(&mut self, phases: usize) {
        for phase in PHASES.iter().take(phases) {
            self.extend(11, phase.as_bytes());
        }
    }

    /// What the kernel measures of these files, and of the PCRs before them.
    pub(super) fn measure_files(&mut self, programs: &[Program]) {
        let files = programs.iter().map(|program| ImaEntry::file(&program.path, &program.contents));
        for entry in std::iter::once(ImaEntry::boot_aggregate(&self.pcrs)).chain(files) {
            self.pcrs.extend(&entry.measurement(&self.banks));
            self.list.push(entry.binary());
        }
    }

    /// Forgets what the kernel measured, for what a good machine's would have.
    pub(super) fn reopen_list(&mut self) {
        self.pcrs.reset(10);
        self.list.clear();
        self.is_list_sent = true;
        self.is_list_open = true;
    }

    /// The list as it is sent.
    fn told_list(&self) -> Vec<u8> {
        let told = self.list.iter().skip(self.told_from.1);
        match self.is_list_text {
            true => told.filter_map(|entry| list::line(entry)).collect::<String>().into_bytes(),
            false => told.flatten().copied().collect(),
        }
    }

    /// Files run, once the boot is over.
    pub fn run(&mut self, programs: &[Program]) {
        for program in programs {
            let entry = ImaEntry::file(&program.path, &program.contents);
            self.pcrs.extend(&entry.measurement(&self.banks));
            self.list.push(entry.binary());
        }
    }

    /// How many entries the list has.
    pub fn entries(&self) -> usize {
        self.list.len()
    }

    /// Whether the kernel measures files by itself.
    pub fn is_kernel_measuring(&self) -> bool {
        !self.is_list_open
    }

    /// The same boot, after so many others.
    #[must_use]
    pub fn after(mut self, boots: u32) -> Scene {
        self.clock.reset_count += boots;
        self
    }

    pub(super) fn good_programs(&self) -> &[Program] {
        &self.good_programs
    }

    /// Root extends a PCR with the hash of `data`.
    pub(super) fn extend(&mut self, pcr: u32, data: &[u8]) {
        self.pcrs.extend(&Measurement::of(&self.banks, pcr, data));
    }

    /// The events of the log that no good boot has.
    pub fn deviating(&self) -> Vec<usize> {
        let is_good = |event: &BootEvent| {
            self.good.iter().any(|good| good.pcr == event.pcr && good.measured == event.measured)
        };
        (0..self.log.len())
            .filter(|index| self.log.get(*index).is_some_and(|event| !is_good(event)))
            .collect()
    }

    /// Quotes, and puts together what is sent. Where the kernel measured nothing, PCR 10 is filled with a good list.
    pub fn submit(mut self, key: &TpmKey, nonce: &[u8]) -> Result<Submission, DeviceError> {
        if let Some(blindness) = self.blindness {
            blindness.sees_sent(&mut self);
        }
        if std::mem::take(&mut self.is_list_open) {
            let programs = std::mem::take(&mut self.good_programs);
            self.measure_files(&programs);
        }
        let mut quoting = Quoting {
            magic: quote::GENERATED,
            kind: quote::ATTEST_QUOTE,
            signer: key.name(),
            nonce: nonce.to_vec(),
            clock: self.clock,
            selection: Vec::new(),
            pcr_digest: Vec::new(),
            pcrs: Vec::new(),
        };
        let selection = self.quoted_banks.iter().map(|bank| (*bank, self.quoted_pcrs.clone())).collect();
        quoting.select_of(&self.pcrs, selection);
        let quote = quoting.sign(key)?;
        let stated = self.stated_banks.as_ref();
        let stated = stated.map(|banks| Stating::honest(banks, key, self.clock, nonce).sign(key));
        let value = |value: crate::edge::protocol::PcrValue| {
            Some((Bank::from_name(&value.bank)?, value.index, value.digest))
        };
        Ok(Submission {
            ak_public: key.public_area(),
            nonce: nonce.to_vec(),
            message: quote.message,
            signature: quote.signature,
            pcrs: quote.pcrs.into_iter().filter_map(value).collect(),
            banks: stated.transpose()?,
            boot_log: self.is_log_sent.then(|| encode(&self.log, &self.log_banks)),
            ima_log: self.is_list_sent.then(|| self.told_list()),
            ima_ascii: self.is_list_text,
            ima_from: u64::try_from(self.told_from.0).unwrap_or(u64::MAX),
        })
    }
}

/// All that firmware, boot loader and system extend.
const QUOTED_PCRS: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// systemd-pcrphase.service(8).
const PHASES: [&str; 4] = ["enter-initrd", "leave-initrd", "sysinit", "ready"];
