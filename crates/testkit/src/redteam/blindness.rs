//! What a weaker verifier would overlook.
//!
//! A verifier that does not look at something judges a machine as if that were as on a good one. So a weakness is
//! planted here, in what is shown to the verifier, and none has to be in it: a harness that finds what a blindness
//! lets through would find the same fault in the verifier.

use super::event::BootEvent;
use super::scene::Scene;
use crate::machine::EventType;

/// One thing that is overlooked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blindness {
    /// Which banks the TPM has is not asked, and one that is not quoted is none.
    Banks,
    /// A PCR is not judged.
    Pcr(u32),
    /// Of PCR 7, only what a good boot has as well is looked at: a signer more does not count.
    FurtherSigners,
    /// Of PCR 4, only what a good boot has as well is looked at: an image more does not count.
    FurtherImages,
    /// What is called a command of GRUB does not count, whatever it loads.
    Commands,
    /// The last sequence of events that is a good boot's counts, whatever came before it.
    Appended,
    /// A log that was not sent, or a list, is taken for a good one.
    Absence,
    /// Of an IMA list, only what the policy knows counts.
    FurtherFiles,
}

impl Blindness {
    /// Every one, over the PCRs that a boot extends on all machines.
    pub const ALL: [Blindness; 13] = [
        Blindness::Banks,
        Blindness::Pcr(0),
        Blindness::Pcr(2),
        Blindness::Pcr(4),
        Blindness::Pcr(7),
        Blindness::Pcr(9),
        Blindness::Pcr(14),
        Blindness::FurtherSigners,
        Blindness::FurtherImages,
        Blindness::Commands,
        Blindness::Appended,
        Blindness::Absence,
        Blindness::FurtherFiles,
    ];

    /// The boot as such a verifier sees it, before anything was said about it.
    pub(super) fn sees(self, good: &[BootEvent], mut real: Vec<BootEvent>) -> Vec<BootEvent> {
        let is_good = |event: &BootEvent| {
            good.iter().any(|good| good.pcr == event.pcr && good.measured == event.measured)
        };
        match self {
            Blindness::Pcr(pcr) => {
                real.retain(|event| event.pcr != pcr);
                real.extend(good.iter().filter(|event| event.pcr == pcr).cloned());
            }
            Blindness::FurtherSigners => real.retain(|event| !is_authority(event) || is_good(event)),
            Blindness::FurtherImages => real.retain(|event| event.pcr != 4 || is_good(event)),
            Blindness::Banks
            | Blindness::Commands
            | Blindness::Appended
            | Blindness::Absence
            | Blindness::FurtherFiles => {}
        }
        real
    }

    /// What is sent as such a verifier sees it.
    pub(super) fn sees_sent(self, scene: &mut Scene) {
        match self {
            Blindness::Banks => {
                scene
                    .quoted_banks
                    .retain(|bank| scene.good_banks.contains(bank) && scene.log_banks.contains(bank));
                scene.stated_banks = Some(scene.good_banks.clone());
            }
            Blindness::Commands => scene.forget_commands(),
            Blindness::Appended => (0..16).for_each(|pcr| scene.forget_before_good(pcr)),
            Blindness::Absence if !scene.is_log_sent && scene.is_list_open => {
                scene.is_log_sent = true;
                scene.replace_log(scene.good.clone());
            }
            Blindness::Absence if !scene.is_list_sent || scene.list.is_empty() => scene.reopen_list(),
            Blindness::FurtherFiles => scene.reopen_list(),
            _ => {}
        }
    }
}

impl Scene {
    /// Where the last events of a PCR are all that a good boot leaves there, forgets those before them.
    fn forget_before_good(&mut self, pcr: u32) {
        let of_pcr = |events: &[BootEvent]| -> Vec<BootEvent> {
            events.iter().filter(|event| event.pcr == pcr && !event.is_remark()).cloned().collect()
        };
        let (sent, good) = (of_pcr(&self.log), of_pcr(&self.good));
        let is_same = |(sent, good): (&BootEvent, &BootEvent)| sent.measured == good.measured;
        let is_end = sent.len() > good.len() && sent.iter().rev().zip(good.iter().rev()).all(is_same);
        if !is_end || good.is_empty() {
            return;
        }
        self.log.retain(|event| event.pcr != pcr);
        self.log.extend(good);
        self.replay(pcr);
    }

    /// Forgets the commands of GRUB that no good boot ran.
    fn forget_commands(&mut self) {
        let good = std::mem::take(&mut self.good);
        let is_good = |event: &BootEvent| good.iter().any(|good| good.measured == event.measured);
        self.log.retain(|event| !is_command(event) || is_good(event));
        self.good = good;
        self.replay(GRUB_PCR);
    }

    /// Lets a PCR hold what the log says.
    fn replay(&mut self, pcr: u32) {
        self.pcrs.reset(pcr);
        for event in self.log.iter().filter(|event| event.pcr == pcr && !event.is_remark()) {
            self.pcrs.extend(&event.measurement(&self.measured_banks));
        }
    }
}

fn is_authority(event: &BootEvent) -> bool {
    event.event_type == EventType::VariableAuthority as u32
}

fn is_command(event: &BootEvent) -> bool {
    event.pcr == GRUB_PCR && event.data.starts_with(b"grub_cmd: ")
}

/// Where GRUB measures commands and lines.
const GRUB_PCR: u32 = 8;
