//! The files that were measured. Only entries that the quote covers are judged; the rest is decided next time.

use std::collections::{BTreeMap, HashSet};

use assay_evidence::ima::{Entry, Extension, KERNEL_POLICY_PATH, ShippedPolicy, SignatureFault};
use assay_evidence::verify::{Claims, ImaClaims};
use assay_evidence::{Check, Digest, HashAlgorithm, PcrIndex};

use super::demand::{AttestedFiles, AttestedList, MeasuredKernelPolicy, witness_if};
use crate::finding::{Finding, Tier};
use crate::path;
use crate::policy::{Demand, ImaPcr, ViolationWeight};
use crate::reference::{CompiledPolicy, FileReference, Signers};
use crate::sentence::quoted;

/// Judges the list; answers how many entries of this boot are good without a gap.
pub(super) fn judge(policy: &CompiledPolicy, claims: &Claims, findings: &mut Vec<Finding>) -> u64 {
    findings.extend(claims.ima().and_then(undecided));
    let Some(reference) = &policy.ima else { return claims.ima().map_or(0, ImaClaims::attested_total) };
    let is_asked = reference.list == Demand::Required;
    let missing = || missing_list(policy, claims.ima());
    let attested = if reference.lists_files {
        witness_if(is_asked, claims, findings, missing).map(|AttestedFiles(files)| *files)
    } else {
        witness_if(is_asked, claims, findings, missing).map(|AttestedList(list)| *list)
    };
    // What there is of a list that nobody asks for is judged all the same.
    let Some(ima) = attested.or(claims.ima().filter(|_| !is_asked)) else { return 0 };
    if !is_strongly_attested(ima) {
        findings.push(weakly_attested(policy));
    }
    findings.extend(unattested(policy, ima));
    findings.extend(kept_from(policy, reference, ima));
    let is_asked = reference.kernel_policies.is_some();
    let _: Option<MeasuredKernelPolicy<'_>> =
        witness_if(is_asked, (reference, ima), findings, || unknown_kernel_policy(policy));
    let mut good = ima.first_index();
    let mut gap = false;
    each(policy, (reference, ima), findings, |_, standing| {
        gap |= standing == Standing::Refused;
        good += u64::from(!gap);
    });
    good.min(ima.first_unattested().unwrap_or(u64::MAX))
}

/// Judges each attested entry, in order.
pub(crate) fn each(
    policy: &CompiledPolicy,
    (reference, ima): (&FileReference, &ImaClaims),
    findings: &mut Vec<Finding>,
    mut see: impl FnMut(&Entry<'_>, Standing),
) {
    let signers = Signers::new(reference, ima.known_keys());
    let mut report = Report::new(policy, reference, signers, findings);
    for entry in ima.entries() {
        let standing = report.judge(&entry);
        see(&entry, standing);
    }
    report.finish();
}

/// Why what was measured may stay, or that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Its digest is listed for its path.
    Listed,
    /// Its signature is by a key of the policy.
    Signed,
    /// Whatever is at its path is not judged.
    Excluded,
    /// It is a key of the policy, put on a keyring.
    Key,
    /// It is a policy of IMA that is listed.
    KernelPolicy,
    /// It is the kernel's word on the boot PCRs, which verification compared.
    BootAggregate,
    /// It was written while it was measured, which the policy accepts there.
    Violation,
    /// The policy refuses it.
    Refused,
}

struct Report<'a> {
    policy: &'a CompiledPolicy,
    reference: &'a FileReference,
    signers: Signers<'a>,
    findings: &'a mut Vec<Finding>,
    /// A program that ran twice is one finding.
    said: HashSet<(Vec<u8>, Option<Digest>)>,
    unsaid: u64,
    weak: u64,
    /// Entries in PCRs that the policy does not name.
    unnamed: BTreeMap<PcrIndex, usize>,
}

impl<'a> Report<'a> {
    fn new(
        policy: &'a CompiledPolicy,
        reference: &'a FileReference,
        signers: Signers<'a>,
        findings: &'a mut Vec<Finding>,
    ) -> Self {
        Report {
            policy,
            reference,
            signers,
            findings,
            said: HashSet::new(),
            unsaid: 0,
            weak: 0,
            unnamed: BTreeMap::new(),
        }
    }

    /// Whether the policy names the PCR that the entry was measured into.
    fn is_named(&mut self, entry: &Entry<'_>) -> bool {
        let is_named = self.reference.pcrs.contains(entry.pcr());
        if !is_named {
            *self.unnamed.entry(entry.pcr()).or_default() += 1;
        }
        is_named
    }

    /// Why the entry may stay; if it may not, says why not. Of a PCR that the policy does not name nothing counts.
    fn judge(&mut self, entry: &Entry<'_>) -> Standing {
        if !self.is_named(entry) {
            return Standing::Refused;
        }
        // Verification compared each of them with the boot PCRs.
        if entry.is_boot_aggregate() {
            return Standing::BootAggregate;
        }
        if entry.is_violation() {
            return if self.judge_violation(entry) { Standing::Violation } else { Standing::Refused };
        }
        if let Some(is_good) = self.judge_kernel_policy(entry) {
            return if is_good { Standing::KernelPolicy } else { Standing::Refused };
        }
        if self.signers.learn(entry) {
            return Standing::Key;
        }
        self.judge_file(entry)
    }

    fn judge_file(&mut self, entry: &Entry<'_>) -> Standing {
        let digest = entry.file_digest();
        let is_listed = |digest: &Digest| {
            self.is_strong(digest) && self.reference.digests_of(entry.path()).any(|listed| listed == *digest)
        };
        if digest.as_ref().is_some_and(is_listed) {
            return Standing::Listed;
        }
        if self.reference.excludes(entry.path()) {
            return Standing::Excluded;
        }
        // A list has digests of contents, so that for an fs-verity digest only a signature can vouch.
        let signed = digest.or_else(|| entry.verity_digest());
        let is_strong = signed.is_some_and(|digest| self.is_strong(&digest));
        if is_strong && self.signers.judge(entry).is_ok() {
            return Standing::Signed;
        }
        match digest {
            Some(_) if !is_strong => self.weak += 1,
            _ => self.refuse(entry, digest),
        }
        Standing::Refused
    }

    fn is_strong(&self, digest: &Digest) -> bool {
        digest.algorithm() >= self.reference.weakest_digest.0
    }

    /// Where policies of IMA are listed, one that is loaded is judged by that list alone; `None`: it is another file, or
    /// nobody asks.
    fn judge_kernel_policy(&mut self, entry: &Entry<'_>) -> Option<bool> {
        self.reference.kernel_policies.as_ref()?;
        let digest = entry.kernel_policy()?;
        let is_good = self.reference.accepts_kernel_policy(&digest);
        if !is_good && self.is_new(entry, Some(digest)) {
            let policy = self.policy.citation();
            let found = ShippedPolicy::of_digest(&digest)
                .map_or_else(|| digest.to_string(), |shipped| format!("{digest}, Assay's {}", shipped.name));
            self.findings.push(Finding {
                accept: None,
                check: Check::ImaKernelPolicy,
                tier: Tier::Contraindicated,
                claim: KERNEL_POLICY_PATH.to_owned(),
                expected: format!("a policy of IMA that policy {policy} lists"),
                found: found.clone(),
                message: format!(
                    "The kernel was given another policy of IMA ({found}) than policy {policy} accepts, and what that one leaves \
                     out is not in the list: put the right one back (`assay-agent setup ima`) and reboot the device, or \
                     list this one under ima.kernel_policies."
                ),
            });
        }
        Some(is_good)
    }

    /// The kernel extended ones for it, so nothing in the entry is vouched for: neither its digest nor its path. By path it
    /// weighs what an honest device would say of itself; that it happened at all is attested.
    fn judge_violation(&mut self, entry: &Entry<'_>) -> bool {
        let is_listed = self.reference.digests_of(entry.path()).next().is_some();
        let tier = match self.reference.violations {
            ViolationWeight::Refuse => Some(Tier::Contraindicated),
            ViolationWeight::ByPath if is_listed => Some(Tier::Contraindicated),
            ViolationWeight::ByPath if self.reference.excludes(entry.path()) => None,
            ViolationWeight::ByPath | ViolationWeight::Report => Some(Tier::Affirming),
            ViolationWeight::Ignore => None,
        };
        if let Some(tier) = tier
            && self.is_new(entry, None)
        {
            let (file, policy) = (path::to_text(entry.path()), self.policy.citation());
            let then = match tier {
                Tier::Contraindicated if is_listed => format!(
                    "policy {policy} lists a file there, which may not be what ran (ima.violations): find the writer, \
                     restore the file and reboot the device"
                ),
                Tier::Contraindicated => format!(
                    "policy {policy} refuses that (ima.violations): find the writer and reboot, or have IMA not measure \
                     such files (`assay-agent setup ima`)"
                ),
                _ => format!("policy {policy} accepts that of a file that it does not list (ima.violations)"),
            };
            self.findings.push(Finding {
                accept: None,
                check: Check::ImaViolation,
                tier,
                claim: file.to_string(),
                expected: "a measurement".to_owned(),
                found: "a violation".to_owned(),
                message: format!(
                    "`{file}` was open for writing while it was measured, so what was read of it is unknown; {then}."
                ),
            });
        }
        tier != Some(Tier::Contraindicated)
    }

    fn refuse(&mut self, entry: &Entry<'_>, digest: Option<Digest>) {
        if self.is_new(entry, digest) {
            self.findings.push(self.unlisted(entry, digest));
        }
    }

    /// Whether it was not said before and there is room to say it.
    fn is_new(&mut self, entry: &Entry<'_>, digest: Option<Digest>) -> bool {
        if self.said.contains(&(entry.path().to_vec(), digest)) {
            return false;
        }
        if self.said.len() >= FINDINGS_MAX {
            self.unsaid += 1;
            return false;
        }
        self.said.insert((entry.path().to_vec(), digest))
    }

    fn unlisted(&self, entry: &Entry<'_>, digest: Option<Digest>) -> Finding {
        let policy = self.policy.citation();
        let file = path::to_text(entry.path());
        // What starts with a dash would be another option.
        let argument = format!("{}{}", if file.starts_with('-') { '=' } else { ' ' }, quoted(&file));
        let found = digest.map_or_else(|| stated(entry), |digest| digest.to_string());
        let known: Vec<Digest> = self.reference.digests_of(entry.path()).collect();
        let signed = match self.signers.judge(entry) {
            Ok(()) | Err(SignatureFault::Absent) => String::new(),
            Err(fault) => format!(", and {fault}"),
        };
        let (expected, message) = if digest.is_none() {
            let message = format!(
                "`{file}` was measured as {found}, which is no digest of its content that policy {policy} could \
                 compare{signed}: set ima_hash=sha256 on the kernel command line, or exclude the path."
            );
            ("a digest of the file's content".to_owned(), message)
        } else if known.is_empty() {
            let message = format!(
                "`{file}` ({found}) is not in policy {policy}{signed}. If it belongs there, approve it with \
                 `assay device approve DEVICE --file{argument}`; if not, remove it and reboot the device."
            );
            (format!("a file of policy {policy}"), message)
        } else {
            let known = list(&known);
            let message = format!(
                "`{file}` ({found}) is not what policy {policy} lists for it ({known}){signed}. If it was updated, \
                 approve it with `assay device approve DEVICE --file{argument}`; if not, restore it and reboot the device."
            );
            (known, message)
        };
        Finding {
            accept: None,
            check: Check::ImaPolicy,
            tier: Tier::Contraindicated,
            claim: file.into_owned(),
            expected,
            found,
            message,
        }
    }

    fn finish(self) {
        let policy = self.policy.citation();
        for (pcr, entries) in self.unnamed {
            self.findings.push(Finding {
                accept: None,
                check: Check::ImaPcr,
                tier: Tier::Contraindicated,
                claim: format!("IMA entries in PCR {pcr}"),
                expected: format!("entries in PCRs that policy {policy} names"),
                found: format!("{entries} in PCR {pcr}"),
                message: format!(
                    "{entries} entries of the IMA list are measured into PCR {pcr} (`pcr=` in the kernel's IMA policy, or \
                     CONFIG_IMA_MEASURE_PCR_IDX), which policy {policy} does not name, so they were not judged: {}.",
                    match ImaPcr::new(pcr) {
                        Some(_) => format!("add {pcr} to ima.pcrs if that is meant"),
                        None => "have the kernel measure into PCR 10, as this one cannot vouch for files".to_owned(),
                    }
                ),
            });
        }
        if self.unsaid > 0 {
            self.findings.push(Finding {
                accept: None,
                check: Check::ImaPolicy,
                tier: Tier::Contraindicated,
                claim: "further entries".to_owned(),
                expected: "none".to_owned(),
                found: self.unsaid.to_string(),
                message: format!(
                    "{} more entries are not in policy {policy}; the first {FINDINGS_MAX} files are named. Is this the \
                     policy for this kind of device?",
                    self.unsaid
                ),
            });
        }
        if self.weak > 0 {
            let weakest = self.reference.weakest_digest.0;
            self.findings.push(Finding {
                accept: None,
                check: Check::AlgorithmPolicy,
                tier: Tier::Contraindicated,
                claim: "IMA list".to_owned(),
                expected: format!("{weakest} or better"),
                found: format!("{} files with a weaker digest", self.weak),
                message: format!(
                    "{} files were measured with a digest that policy {policy} does not count, because collisions can \
                     be made: boot with ima_template=ima-sig and ima_hash={weakest}.",
                    self.weak
                ),
            });
        }
    }
}

/// The digest as the list states it, of whatever kind.
fn stated(entry: &Entry<'_>) -> String {
    if let Some(verity) = entry.verity_digest() {
        return format!("an fs-verity digest {verity}");
    }
    let (algorithm, bytes) = entry.stated_digest();
    format!("{algorithm}:{}", data_encoding::HEXLOWER.encode(bytes))
}

/// A few digests; a file with many versions is named by the first ones.
fn list(digests: &[Digest]) -> String {
    let shown: Vec<String> = digests.iter().take(DIGESTS_SHOWN_MAX).map(Digest::to_string).collect();
    let more = if digests.len() > DIGESTS_SHOWN_MAX { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Where the kernel extended a bank with padded SHA-1 digests, the bank is worth as little as SHA-1.
fn is_strongly_attested(ima: &ImaClaims) -> bool {
    let mut strong = HashAlgorithm::ALL.into_iter().filter(|bank| *bank != HashAlgorithm::Sha1);
    ima.attested_total() == 0 || strong.any(|bank| ima.extension(bank) == Some(Extension::Native))
}

fn weakly_attested(policy: &CompiledPolicy) -> Finding {
    Finding {
        accept: None,
        check: Check::AlgorithmPolicy,
        tier: Tier::Contraindicated,
        claim: "PCR 10".to_owned(),
        expected: "a bank extended with sha256 or better".to_owned(),
        found: "SHA-1 template digests alone".to_owned(),
        message: format!(
            "The IMA list is vouched for by SHA-1 digests alone, which policy {} does not count, because collisions can be \
             made: quote PCR 10 of the SHA-256 bank.",
            policy.citation()
        ),
    }
}

/// Without files that PCR 10 attests there is no list, however long the one is that was sent.
fn missing_list(policy: &CompiledPolicy, ima: Option<&ImaClaims>) -> Finding {
    let what = match ima {
        None => "No IMA list was sent",
        Some(ima) if ima.attested_total() == 0 => {
            "PCR 10 attests no entry of the IMA list that was sent: the kernel never extended it, as when IMA started before the \
             TPM's driver was there"
        }
        Some(_) => {
            "PCR 10 attests no file of the IMA list, only its first entry, boot_aggregate: the kernel measured nothing"
        }
    };
    let then = match ima {
        Some(ima) if ima.attested_total() == 0 => "build the TPM's driver into the kernel",
        _ => "have IMA measure what runs (`assay-agent setup ima`)",
    };
    Finding {
        accept: None,
        check: Check::ImaPolicy,
        tier: Tier::Contraindicated,
        claim: "IMA list".to_owned(),
        expected: "a list that replays to PCR 10".to_owned(),
        found: ima
            .map_or_else(|| "none".to_owned(), |ima| format!("{} entries attested", ima.attested_total())),
        message: format!(
            "{what}, and policy {} requires a list: {then}, or set ima.list = \"optional\".",
            policy.citation()
        ),
    }
}

/// What IMA leaves out only its own policy says.
fn unknown_kernel_policy(policy: &CompiledPolicy) -> Finding {
    Finding {
        accept: None,
        check: Check::ImaKernelPolicy,
        tier: Tier::Contraindicated,
        claim: "policy of IMA".to_owned(),
        expected: "one of ima.kernel_policies, measured when it was loaded".to_owned(),
        found: "none".to_owned(),
        message: format!(
            "The kernel measured no policy of IMA that policy {} accepts (ima.kernel_policies), so that nobody knows what the \
             list leaves out: install it with `assay-agent setup ima`, so that it is loaded by its file before anything else \
             runs, and reboot the device.",
            policy.citation()
        ),
    }
}

/// Entries that no quoted PCR attests are not judged, and nobody may think that they were.
fn unattested(policy: &CompiledPolicy, ima: &ImaClaims) -> Vec<Finding> {
    let finding = |(pcr, entries): (PcrIndex, usize)| Finding {
        accept: None,
        check: Check::ImaPcr,
        tier: Tier::Contraindicated,
        claim: format!("IMA entries in PCR {pcr}"),
        expected: "entries that a quoted PCR attests".to_owned(),
        found: format!("{entries} for PCR {pcr}, which does not attest them"),
        message: format!(
            "{entries} entries of the IMA list are measured into PCR {pcr} (`pcr=` in the kernel's IMA policy, or \
             CONFIG_IMA_MEASURE_PCR_IDX), and nothing attests them: PCR {pcr} is not in the quote, or something else extends it \
             as well. Quote it and name it in ima.pcrs of policy {}; if other programs extend it, have the kernel measure into \
             PCR 10.",
            policy.citation()
        ),
    };
    ima.unattested().into_iter().map(finding).collect()
}

/// PCRs that the policy names and that hold something that nobody tells: entries may have been left out of the list.
fn kept_from(policy: &CompiledPolicy, reference: &FileReference, ima: &ImaClaims) -> Vec<Finding> {
    let said = ima.unattested();
    let is_open = |pcr: &PcrIndex| !ima.explains(*pcr) && !said.contains_key(pcr);
    let finding = |pcr: PcrIndex| Finding {
        accept: None,
        check: Check::ImaPcr,
        tier: Tier::Contraindicated,
        claim: format!("PCR {pcr}"),
        expected: "a quoted value that the IMA list leads to".to_owned(),
        found: "another, or none".to_owned(),
        message: format!(
            "Policy {} names PCR {pcr} in ima.pcrs, and it holds something that neither the IMA list nor another log tells, or it \
             was not quoted: entries may be missing in the list. Quote it, send the whole list, or take {pcr} out of ima.pcrs if \
             the kernel does not measure into it.",
            policy.citation()
        ),
    };
    reference.pcrs.iter().filter(is_open).map(finding).collect()
}

/// What was measured between the quote and the reading of the list.
pub(super) fn undecided(ima: &ImaClaims) -> Option<Finding> {
    let entries = ima.undecided();
    let what = match entries {
        0 => return None,
        1 => "1 entry was".to_owned(),
        _ => format!("{entries} entries were"),
    };
    Some(Finding {
        accept: None,
        check: Check::ImaUndecided,
        tier: Tier::None,
        claim: "IMA list".to_owned(),
        expected: "every entry covered by the quote".to_owned(),
        found: format!("{entries} past it"),
        message: format!("{what} measured after the quote; the next quote decides."),
    })
}

/// Files that are named in one result; a policy for other machines would name all.
const FINDINGS_MAX: usize = 100;
const DIGESTS_SHOWN_MAX: usize = 3;

#[cfg(test)]
mod tests;
