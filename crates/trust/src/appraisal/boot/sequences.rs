//! What was measured into each PCR that a policy lists whole, event by event.

use assay_evidence::boot_log::EventSummary;
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Digest, PcrIndex};

use super::{Report, openings, refusal};
use crate::appraisal::demand::{Measured, MeasuredPcr, witness};
use crate::appraisal::meaning;
use crate::finding::{Finding, Tier};
use crate::policy::{Acceptable, BootRule, BootSection, Pcr, Sequence, Slot};

impl Report<'_> {
    /// Each listed PCR was quoted, the log explains it, and its events are those of one of its sequences.
    pub(super) fn judge_sequences(&mut self, claims: &Claims, boot: &BootSection) {
        for (Pcr(index), sequences) in &boot.sequence {
            let missing = || {
                let message = format!(
                    "The evidence does not show what was measured into PCR {index} ({}), and policy {} lists it event by event: \
                     nothing is known of a PCR that is not quoted, or that holds more than the boot log tells.",
                    meaning(*index),
                    self.policy.citation()
                );
                refusal(&format!("PCR {index} events"), "events that replay to it", "unknown", message)
            };
            let by = (claims, *index);
            let Some(MeasuredPcr(measured)) = witness(by, self.findings, missing) else { continue };
            let admits = |sequence: &Sequence, place: usize| {
                let event = measured.events.get(place);
                event.is_some_and(|event| openings::admits(measured.facts, sequence, place, event))
            };
            let lines = measured.kernel_lines();
            let fits = |sequence: &Sequence, place: usize, slot: &Slot, digest: &Digest| match slot {
                Slot::Digest(expected) => expected == digest,
                Slot::Any(_) => admits(sequence, place),
                Slot::File => boot.files.contains(digest),
                Slot::KernelLine => lines.contains(digest),
            };
            let digests = measured.digests();
            let places = sequences.iter().map(|sequence| {
                let fits = |place, slot: &Slot, digest: &Digest| fits(sequence, place, slot, digest);
                sequence.mismatch(&digests, fits).map(|place| (place, sequence))
            });
            // The sequence that holds longest is the one that was meant.
            let nearest = places.max_by_key(|place| place.map_or(usize::MAX, |(place, _)| place)).flatten();
            if let Some((_, sequence)) = nearest {
                self.differs(&measured, sequence, |place, slot, digest| fits(sequence, place, slot, digest));
            }
        }
    }

    /// Says of each event that does not fit its place, or what there is too much or too little.
    fn differs(
        &mut self,
        measured: &Measured<'_>,
        sequence: &Sequence,
        fits: impl Fn(usize, &Slot, &Digest) -> bool,
    ) {
        let first = self.findings.len();
        let accept = self.unlisted(measured, sequence, &fits);
        let places = sequence.0.iter().zip(&measured.events).enumerate();
        let unlike = places.filter(|(place, (slot, event))| !fits(*place, slot, &event.digest));
        let mut said = 0;
        for (_, (slot, event)) in unlike.take(EVENTS_SAID_MAX) {
            said += 1;
            match slot {
                Slot::Any(_) => self.other_event(measured, event, openings::words(measured.index.get())),
                slot => self.other_event(measured, event, &slot.to_string()),
            }
        }
        for event in measured.events.iter().skip(sequence.0.len()).take(EVENTS_SAID_MAX) {
            said += 1;
            self.other_event(measured, event, "nothing more");
        }
        if let Some(missing) = sequence.0.get(measured.events.len()) {
            let found = format!("{} events", measured.events.len());
            self.other(measured, format!("{missing} as event {}", measured.events.len() + 1), found, || {
                format!("only {} of {} events were measured", measured.events.len(), sequence.0.len())
            });
        } else if said == 0 {
            // Each fits alone, and two that had to be the same are not.
            self.other(measured, sequence.to_string(), "other repetitions".to_owned(), || {
                "events that are the same in every boot that the policy knows differ in this one".to_owned()
            });
        }
        if let Some(finding) = self.findings.get_mut(first) {
            finding.accept = accept;
        }
    }

    /// The sequence that the events are, with what it leaves open where it fits. Files are then known by their places:
    /// in a set of files, the old kernel that a boot loader looked for would do for the new one that it started.
    fn unlisted(
        &self,
        measured: &Measured<'_>,
        sequence: &Sequence,
        fits: impl Fn(usize, &Slot, &Digest) -> bool,
    ) -> Option<Acceptable> {
        let digests = measured.digests();
        let places = || sequence.0.iter().zip(&digests).enumerate();
        let mut unlike = places().filter(|(place, (slot, digest))| !fits(*place, slot, digest)).peekable();
        // What may stand in an open place depends on what comes after it.
        let is_other_length = digests.len() != sequence.0.len();
        // Where each event fits, it is a repetition that does not.
        let pins_open = is_other_length || unlike.peek().is_none();
        let pins_files = is_other_length || unlike.any(|(_, (slot, _))| *slot == Slot::File);
        let event = |(place, digest): (usize, &Digest)| match sequence.0.get(place) {
            Some(Slot::Any(_)) if pins_open => Slot::Digest(*digest),
            Some(Slot::File) if pins_files => Slot::Digest(*digest),
            Some(slot) if fits(place, slot, digest) => *slot,
            _ => Slot::Digest(*digest),
        };
        let events = Sequence(digests.iter().enumerate().map(event).collect());
        self.policy.acceptable(BootRule::Events { pcr: Pcr(measured.index), events })
    }

    fn other_event(&mut self, measured: &Measured<'_>, event: &EventSummary, expected: &str) {
        let what = format!(
            "event {} of the boot log, `{}` ({}), is there instead of {}",
            event.number,
            event.remark,
            event.digest,
            self.known(measured.index, expected)
        );
        self.other(measured, expected.to_owned(), event.digest.to_string(), || what);
    }

    fn other(
        &mut self,
        measured: &Measured<'_>,
        expected: String,
        found: String,
        what: impl FnOnce() -> String,
    ) {
        let index = measured.index;
        self.findings.push(Finding {
            accept: None,
            check: Check::BootPolicy,
            tier: Tier::Contraindicated,
            claim: format!("PCR {index} events"),
            expected,
            found,
            message: format!(
                "PCR {index} ({}) was extended otherwise than policy {} lists: {}. If this is an update of yours, add its files \
                 to boot.files, learn again from a device that has it, or accept this boot with `assay device approve DEVICE --boot`.",
                meaning(index),
                self.policy.citation(),
                what()
            ),
        });
    }

    /// What a good boot calls the event.
    fn known(&self, index: PcrIndex, expected: &str) -> String {
        let digest = Digest::from_text(expected);
        let remark = digest.and_then(|digest| self.policy.boot.events.get(&Pcr(index))?.get(&digest));
        remark
            .map_or_else(|| expected.to_owned(), |remark| format!("`{}` ({expected})", remark.escape_debug()))
    }
}

/// Events that findings name one by one; an update changes a handful.
const EVENTS_SAID_MAX: usize = 8;
