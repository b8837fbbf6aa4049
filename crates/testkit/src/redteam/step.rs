//! What root can do once his code runs: extend further, and send another account of what happened.
//!
//! Every step keeps the TPM's word: digests that were extended stay in the log, in their order within each PCR, unless
//! the step is to see whether that is noticed.

use super::event::BootEvent;
use super::random::Random;
use super::scene::Scene;
use crate::Bank;
use crate::machine::EventType;

/// One lie. Places are counted modulo what is there, so that a step means something after others were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Extends a PCR with all that a good boot leaves in it, and logs that behind the rest.
    AppendGoodBoot {
        /// The PCR.
        pcr: u32,
    },
    /// Extends and logs one event of a good boot.
    AppendGoodEvent {
        /// Which, counted in the good boot's log.
        event: usize,
        /// Where in the log it is put, as far as the order of its PCR allows.
        to: usize,
    },
    /// Extends and logs a separator.
    AppendSeparator {
        /// The PCR.
        pcr: u32,
    },
    /// Extends a PCR and logs nothing.
    ExtendSilently {
        /// The PCR.
        pcr: u32,
    },
    /// Gives an event another type and other words, and the same digest.
    Relabel {
        /// Which, counted in the log.
        event: usize,
        /// Its new type.
        event_type: u32,
        /// Its new words.
        words: Words,
    },
    /// Puts an event elsewhere in the log, as far as the order of its PCR allows.
    Move {
        /// Which, counted in the log.
        event: usize,
        /// Where to.
        to: usize,
    },
    /// Adds an event that extends nothing and says what a good one says.
    InsertRemark {
        /// Which it copies, counted in the good boot's log.
        event: usize,
        /// Where it is put.
        to: usize,
    },
    /// Leaves an event out.
    OmitEvent {
        /// Which, counted in the log.
        event: usize,
    },
    /// Leaves every event of a PCR out, as a boot loader does that measures and does not log.
    OmitPcr {
        /// The PCR.
        pcr: u32,
    },
    /// Ends the log early.
    EndLog {
        /// Events that are left.
        events: usize,
    },
    /// Sends no boot log.
    OmitLog,
    /// Fills a bank that the firmware left empty with a good boot, and logs only that.
    FillEmptyBank,
    /// The same, and logs the good boot with the digests of the real one in the banks that the firmware extended.
    FillBesideReal,
    /// Does not quote the first bank.
    QuoteFewerBanks,
    /// Does not have the TPM say which banks it has.
    WithholdBanks,
    /// Adds a bank to the log that is not quoted, in which the boot is a good one.
    InventBank,
    /// Quotes the first PCRs alone.
    QuoteFewer {
        /// How many.
        pcrs: usize,
    },
    /// Leaves a PCR out of the quote.
    QuoteWithout {
        /// The PCR.
        pcr: u32,
    },
    /// Sends the list as text.
    SendText,
    /// Says that the list begins later, and sends it from some entry on.
    TellFrom {
        /// The entry that it says.
        told: usize,
        /// Entries that it leaves out.
        skipped: usize,
    },
    /// Sends no list of files.
    OmitList,
    /// Sends a list without entries.
    EmptyList,
    /// Leaves entries out at the list's end.
    EndList {
        /// Entries that are left.
        entries: usize,
    },
    /// Leaves an entry out.
    OmitEntry {
        /// Which.
        entry: usize,
    },
    /// Calls an entry a violation.
    CallViolation {
        /// Which.
        entry: usize,
    },
    /// Says that an entry is for another PCR.
    CallOtherPcr {
        /// Which.
        entry: usize,
    },
    /// Lets the kernel measure nothing: PCR 10 stays as it was, and a good list is sent.
    BypassList,
}

/// What an event is made to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// What it said.
    Kept,
    /// What its digest was computed over.
    Measured,
    /// The same, as a command of GRUB.
    Command,
    /// The same, as a command line that GRUB gave a kernel.
    Line,
    /// What a good event says, counted among those of its PCR.
    Good(usize),
    /// Nothing.
    Nothing,
}

impl Step {
    /// A step against this scene, most often one about what gives it away.
    pub fn draw(scene: &Scene, random: &mut Random) -> Step {
        let deviating = scene.deviating();
        let any_event = random.below(scene.log.len());
        let telling = random.choose(&deviating).copied().filter(|_| random.clone().percent(80));
        let event = telling.unwrap_or(any_event);
        let telling_pcr = scene.log.get(event).map_or(0, |event| event.pcr);
        let pcr = if random.percent(70) { telling_pcr } else { random.number() as u32 % 16 };
        let (good, to) = (random.below(scene.good.len()), random.below(scene.log.len() + 1));
        let entry = random.below(scene.list.len());
        if scene.empty_banks().next().is_some() && random.percent(60) {
            let of_banks =
                [Step::FillEmptyBank, Step::FillBesideReal, Step::QuoteFewerBanks, Step::WithholdBanks];
            return random.choose(&of_banks).cloned().unwrap_or(Step::FillEmptyBank);
        }
        match random.below(100) {
            0..20 => Step::AppendGoodBoot { pcr },
            20..32 => Step::AppendGoodEvent { event: scene.good_in(pcr, good), to },
            32..35 => Step::AppendSeparator { pcr },
            35..39 => Step::ExtendSilently { pcr },
            39..72 => Step::Relabel { event, event_type: event_type(random), words: words(random) },
            72..80 => Step::Move { event, to },
            80..83 => Step::InsertRemark { event: good, to },
            83 => Step::OmitEvent { event },
            84 if random.percent(50) => Step::OmitPcr { pcr },
            84 => Step::EndLog { events: to },
            85 => Step::OmitLog,
            86 if random.percent(50) => Step::QuoteFewerBanks,
            86 => Step::WithholdBanks,
            87 => Step::InventBank,
            88 if random.percent(50) => Step::QuoteFewer { pcrs: random.below(16) },
            88 => Step::QuoteWithout { pcr },
            89 if random.percent(50) => Step::SendText,
            89 => Step::OmitList,
            90 => Step::EmptyList,
            91 | 92 => Step::EndList { entries: entry },
            93 | 94 => Step::OmitEntry { entry },
            95 | 96 => Step::CallViolation { entry },
            97 => Step::CallOtherPcr { entry },
            _ => Step::BypassList,
        }
    }

    /// Does it.
    pub fn apply(&self, scene: &mut Scene) {
        let place = |index: usize, length: usize| index % length.max(1);
        match self {
            Step::AppendGoodBoot { pcr } => {
                let events: Vec<_> = scene.good.iter().filter(|event| event.pcr == *pcr).cloned().collect();
                events.into_iter().for_each(|event| scene.append(event));
            }
            Step::AppendGoodEvent { event, to } => {
                if let Some(event) = scene.good.get(place(*event, scene.good.len())).cloned() {
                    scene.append(event);
                    scene.move_event(scene.log.len() - 1, *to);
                }
            }
            Step::AppendSeparator { pcr } => {
                scene.append(BootEvent::new(*pcr, EventType::Separator, &[0; 4]));
            }
            Step::ExtendSilently { pcr } => scene.extend(*pcr, b"something"),
            Step::Relabel { event, event_type, words } => {
                let index = place(*event, scene.log.len());
                scene.relabel(index, *event_type, *words);
            }
            Step::Move { event, to } => scene.move_event(place(*event, scene.log.len()), *to),
            Step::InsertRemark { event, to } => {
                if let Some(event) = scene.good.get(place(*event, scene.good.len())).cloned() {
                    let remark = BootEvent { event_type: EventType::NoAction as u32, ..event };
                    scene.log.insert(place(*to, scene.log.len() + 1), remark);
                }
            }
            Step::OmitEvent { event } if !scene.log.is_empty() => {
                drop(scene.log.remove(place(*event, scene.log.len())));
            }
            Step::OmitPcr { pcr } => scene.log.retain(|event| event.pcr != *pcr),
            Step::EndLog { events } => scene.log.truncate(*events),
            Step::OmitLog => scene.is_log_sent = false,
            Step::FillEmptyBank => scene.fill_empty_bank(),
            Step::FillBesideReal => scene.fill_beside_real(),
            Step::QuoteFewerBanks => drop(scene.quoted_banks.drain(..1.min(scene.quoted_banks.len()))),
            Step::WithholdBanks => scene.stated_banks = None,
            Step::InventBank => scene.invent_bank(),
            Step::QuoteFewer { pcrs } => scene.quoted_pcrs.truncate(*pcrs),
            Step::QuoteWithout { pcr } => scene.quoted_pcrs.retain(|quoted| quoted != pcr),
            Step::SendText => scene.is_list_text = true,
            Step::TellFrom { told, skipped } => scene.told_from = (*told, *skipped),
            Step::OmitList => scene.is_list_sent = false,
            Step::BypassList if !scene.is_list_open => {}
            Step::BypassList => scene.bypass_list(),
            _ => self.apply_to_list(&mut scene.list),
        }
    }

    fn apply_to_list(&self, list: &mut Vec<Vec<u8>>) {
        let length = list.len().max(1);
        match self {
            Step::EmptyList => list.clear(),
            Step::EndList { entries } => list.truncate(entries % length),
            Step::OmitEntry { entry } if !list.is_empty() => drop(list.remove(entry % length)),
            Step::CallViolation { entry } => {
                if let Some(digest) = list.get_mut(entry % length).and_then(|entry| entry.get_mut(4..24)) {
                    digest.fill(0);
                }
            }
            Step::CallOtherPcr { entry } => {
                if let Some(pcr) = list.get_mut(entry % length).and_then(|entry| entry.first_mut()) {
                    *pcr = 11;
                }
            }
            _ => {}
        }
    }
}

impl Scene {
    /// The place in the good boot's log of an event of `pcr`, or of any where it has none.
    fn good_in(&self, pcr: u32, number: usize) -> usize {
        let of_pcr: Vec<usize> = (0..self.good.len())
            .filter(|index| self.good.get(*index).is_some_and(|event| event.pcr == pcr))
            .collect();
        of_pcr.get(number % of_pcr.len().max(1)).copied().unwrap_or(number)
    }

    fn append(&mut self, event: BootEvent) {
        if !event.is_remark() {
            self.extend(event.pcr, &event.measured);
        }
        self.log.push(event);
    }

    /// Moves an event towards `to`, up to the next event of its PCR.
    fn move_event(&mut self, from: usize, to: usize) {
        let Some(event) = self.log.get(from).cloned() else { return };
        let is_same_pcr = |other: &&BootEvent| other.pcr == event.pcr && !other.is_remark();
        let before = self.log.iter().take(from).rev().take_while(|other| !is_same_pcr(other)).count();
        let behind = self.log.iter().skip(from + 1).take_while(|other| !is_same_pcr(other)).count();
        let to = (to % self.log.len().max(1)).clamp(from - before, from + behind);
        let event = self.log.remove(from);
        self.log.insert(to, event);
    }

    fn relabel(&mut self, index: usize, event_type: u32, words: Words) {
        let Some(event) = self.log.get(index).cloned() else { return };
        let terminated = |prefix: &[u8]| [prefix, &event.measured, &[0]].concat();
        let data = match words {
            Words::Kept => event.data,
            Words::Measured => event.measured.clone(),
            Words::Command => terminated(b"grub_cmd: "),
            Words::Line => terminated(b"kernel_cmdline: "),
            Words::Good(number) => {
                let good = self.good.get(self.good_in(event.pcr, number));
                good.map(|good| good.data.clone()).unwrap_or_default()
            }
            Words::Nothing => Vec::new(),
        };
        if let Some(event) = self.log.get_mut(index) {
            (event.event_type, event.data) = (event_type, data);
        }
    }

    /// The banks that firmware did not extend and nobody else did.
    fn empty_banks(&self) -> impl Iterator<Item = Bank> {
        let is_empty = |bank: &Bank| !self.measured_banks.contains(bank) && !self.log_banks.contains(bank);
        self.banks.iter().copied().filter(is_empty)
    }

    fn fill_empty_bank(&mut self) {
        let empty: Vec<Bank> = self.empty_banks().collect();
        if self.fill(&empty) {
            (self.log, self.log_banks) = (self.good.clone(), empty);
        }
    }

    /// Each PCR's events, the good ones in the empty banks with the real ones in the others, as far as both go.
    fn fill_beside_real(&mut self) {
        let empty: Vec<Bank> = self.empty_banks().collect();
        if !self.fill(&empty) {
            return;
        }
        let mut real = std::mem::take(&mut self.log);
        for good in self.good.clone().into_iter().filter(|event| !event.is_remark()) {
            let place = real.iter().position(|event| event.pcr == good.pcr && !event.is_remark());
            let measured = match place {
                Some(place) => real.remove(place).measured,
                // There is none left in that PCR: this one is extended everywhere.
                None => {
                    self.pcrs.extend(&good.measurement(&self.measured_banks));
                    good.measured.clone()
                }
            };
            let told = self.measured_banks.iter().map(|bank| (*bank, bank.hash(&measured)));
            self.log.push(BootEvent { invented: told.collect(), ..good });
        }
        for event in real {
            self.pcrs.extend(&event.measurement(&empty));
            self.log.push(event);
        }
        self.log_banks = [self.measured_banks.as_slice(), &empty].concat();
        self.log_banks.sort_unstable();
    }

    /// Extends these banks with a good boot.
    fn fill(&mut self, empty: &[Bank]) -> bool {
        for event in self.good.iter().filter(|event| !event.is_remark()) {
            self.pcrs.extend(&event.measurement(empty));
        }
        !empty.is_empty()
    }

    fn invent_bank(&mut self) {
        let Some(bank) = Bank::ALL.into_iter().rev().find(|bank| !self.quoted_banks.contains(bank)) else {
            return;
        };
        if self.log_banks.contains(&bank) {
            return;
        }
        self.log_banks.push(bank);
        for (event, good) in self.log.iter_mut().zip(&self.good) {
            event.invented.push((bank, bank.hash(&good.measured)));
        }
    }

    fn bypass_list(&mut self) {
        let before = self.pcrs.clone();
        let programs = self.good_programs().to_vec();
        self.measure_files(&programs);
        self.pcrs = before;
        self.is_list_open = false;
    }
}

fn event_type(random: &mut Random) -> u32 {
    let known = random.choose(&EVENT_TYPES).copied().unwrap_or_default();
    if random.percent(97) { known } else { random.number() as u32 }
}

fn words(random: &mut Random) -> Words {
    match random.below(12) {
        0..2 => Words::Kept,
        2..5 => Words::Measured,
        5 => Words::Command,
        6 => Words::Line,
        7..11 => Words::Good(random.below(GOOD_EVENTS)),
        _ => Words::Nothing,
    }
}

/// More than a good boot has of any PCR.
const GOOD_EVENTS: usize = 16;
/// TCG PC Client Platform Firmware Profile, 10.4.1, but for what extends nothing.
const EVENT_TYPES: [u32; 31] = [
    0,
    1,
    2,
    4,
    5,
    6,
    7,
    8,
    9,
    0xa,
    0xb,
    0xc,
    0xd,
    0xe,
    0xf,
    0x10,
    0x11,
    0x12,
    0x13,
    0x8000_0001,
    0x8000_0002,
    0x8000_0003,
    0x8000_0004,
    0x8000_0005,
    0x8000_0006,
    0x8000_0007,
    0x8000_0008,
    0x8000_0009,
    0x8000_000a,
    0x8000_0010,
    0x8000_00e0,
];
