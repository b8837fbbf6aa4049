//! What was measured of files, by the kernel's list.

use std::collections::{BTreeMap, VecDeque};

use assay_evidence::ima::Entry;
use assay_evidence::verify::{Claims, ImaClaims};

use super::{File, Files, Stage, What, shown};
use crate::appraisal::files::{Standing, each};
use crate::path;
use crate::reference::CompiledPolicy;
use crate::words::counted_as;

/// What the quote attests of the list.
pub(super) fn read(claims: &Claims, policy: Option<&CompiledPolicy>) -> Option<Files> {
    let ima = claims.ima()?;
    let mut tally = Tally::default();
    match policy.and_then(|policy| Some((policy, policy.ima.as_ref()?))) {
        Some((policy, reference)) => {
            each(policy, (reference, ima), &mut Vec::new(), |entry, standing| {
                tally.see(entry, Some(standing))
            });
        }
        None => ima.entries().for_each(|entry| tally.see(&entry, None)),
    }
    Some(tally.files(ima))
}

/// The last stage: what ran.
pub(super) fn stage(files: &Files) -> Stage {
    let name = counted_as(files.attested, "measurement since boot", "measurements since boot");
    let standings = files.by_standing.iter().map(|(standing, count)| format!("{count} {}", standing.words()));
    let late = (files.undecided > 0).then(|| {
        format!(
            "{} after the quote, to be judged next time",
            counted_as(files.undecided, "more entry", "more entries")
        )
    });
    Stage::new(What::Files, &name, &[10]).saying(standings.chain(late))
}

#[derive(Default)]
struct Tally {
    by_standing: BTreeMap<Standing, u64>,
    latest: VecDeque<File>,
}

impl Tally {
    fn see(&mut self, entry: &Entry<'_>, standing: Option<Standing>) {
        if let Some(standing) = standing {
            *self.by_standing.entry(standing).or_default() += 1;
        }
        if self.latest.len() >= FILES_SHOWN_MAX {
            self.latest.pop_back();
        }
        self.latest.push_front(file(entry, standing));
    }

    fn files(self, ima: &ImaClaims) -> Files {
        Files {
            attested: ima.attested_total(),
            undecided: ima.undecided(),
            by_standing: self.by_standing.into_iter().collect(),
            latest: self.latest.into(),
        }
    }
}

fn file(entry: &Entry<'_>, standing: Option<Standing>) -> File {
    let (algorithm, bytes) = entry.stated_digest();
    let digest = match entry.is_violation() {
        true => "a violation".to_owned(),
        false => format!("{algorithm}:{}", data_encoding::HEXLOWER.encode(bytes)),
    };
    File { path: shown(&path::to_text(entry.path())), digest: shown(&digest), standing }
}

impl Standing {
    /// As it is said of a number of files.
    pub fn words(self) -> &'static str {
        match self {
            Standing::Listed => "listed",
            Standing::Signed => "signed by a key of the policy",
            Standing::Excluded => "not judged",
            Standing::Key => "a key of the policy",
            Standing::KernelPolicy => "a listed policy of IMA",
            Standing::BootAggregate => "boot aggregate",
            Standing::Violation => "written while measured, which is accepted there",
            Standing::Refused => "refused",
        }
    }
}

/// As many as a page shows.
const FILES_SHOWN_MAX: usize = 50;
