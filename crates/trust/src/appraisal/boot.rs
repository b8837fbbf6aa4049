//! What the boot log shows: that there is one, Secure Boot, kernel command lines, images, dbx.
//!
//! Only facts that a digest covers are judged. A label in the log is the sender's word, so nothing is judged by it:
//! see [`kernel_lines`].

use assay_evidence::boot_log::{BootFacts, SignatureKind};
use assay_evidence::verify::Claims;
use assay_evidence::{Check, Digest, HashAlgorithm, PcrIndex};

use crate::finding::{Finding, Tier};
use crate::policy::{BootSection, Demand};
use crate::reference::CompiledPolicy;

pub(super) fn judge(policy: &CompiledPolicy, claims: &Claims, findings: &mut Vec<Finding>) {
    let boot = &policy.boot;
    let facts = claims.boot().map(|claims| claims.facts());
    let mut report = Report { policy, findings };
    match facts {
        None => report.missing_log(claims.boot_log_missing()),
        Some(facts) if facts.bank == HashAlgorithm::Sha1 => report.weak_log(),
        Some(_) => {}
    }
    if boot.secure_boot == Demand::Required {
        report.judge_secure_boot(facts);
    }
    if let Some(allowed) = &boot.kernel_command_lines {
        report.judge_command_lines(facts, allowed);
    }
    if let Some(allowed) = &boot.applications {
        report.judge_applications(facts, allowed);
    }
    report.judge_dbx(facts, boot);
}

struct Report<'a> {
    policy: &'a CompiledPolicy,
    findings: &'a mut Vec<Finding>,
}

impl Report<'_> {
    fn refuse(
        &mut self,
        claim: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
        message: String,
    ) {
        self.findings.push(Finding {
            check: Check::BootPolicy,
            tier: Tier::Contraindicated,
            claim: claim.to_owned(),
            expected: expected.into(),
            found: found.into(),
            message,
        });
    }

    fn missing_log(&mut self, were_extended: bool) {
        let required = self.policy.boot.event_log == Demand::Required;
        if !required && !were_extended {
            return;
        }
        let citation = self.policy.citation();
        let what = if were_extended {
            "PCRs of the boot were extended, but no boot log explains them"
        } else {
            "No boot log was sent"
        };
        let then = if required {
            format!(
                "policy {citation} requires one: see whether the boot loader hands the log to the kernel, or set \
                 boot.event_log = \"optional\""
            )
        } else {
            format!("policy {citation} accepts that")
        };
        self.findings.push(Finding {
            check: Check::EventLogPresent,
            tier: if required { Tier::Contraindicated } else { Tier::Affirming },
            claim: "boot log".to_owned(),
            expected: "a boot log that replays to the quoted PCRs".to_owned(),
            found: "none".to_owned(),
            message: format!("{what}; {then}."),
        });
    }

    fn weak_log(&mut self) {
        self.findings.push(Finding {
            check: Check::AlgorithmPolicy,
            tier: Tier::Contraindicated,
            claim: "boot log".to_owned(),
            expected: "a log and a quote in sha256 or better".to_owned(),
            found: "sha1 alone".to_owned(),
            message: format!(
                "The boot log is vouched for by SHA-1 digests alone, which policy {} does not count, because collisions can \
                 be made: turn on the TPM's SHA-256 bank in the firmware set-up.",
                self.policy.citation()
            ),
        });
    }

    fn judge_secure_boot(&mut self, facts: Option<&BootFacts>) {
        let citation = self.policy.citation();
        let (found, what) = match facts.map(|facts| &facts.secure_boot) {
            Some(Some(variables)) if variables.is_enabled => return,
            Some(Some(_)) => ("off", "Secure Boot is off"),
            Some(None) => ("unknown", "The boot log does not show in PCR 7 whether Secure Boot was on"),
            None => ("unknown", "Without a boot log nothing shows whether Secure Boot was on"),
        };
        let message = format!(
            "{what}, and policy {citation} requires it: turn it on in the firmware set-up, or set \
             boot.secure_boot = \"optional\"."
        );
        self.refuse("Secure Boot", "on", found, message);
    }

    fn judge_command_lines(&mut self, facts: Option<&BootFacts>, allowed: &[String]) {
        let citation = self.policy.citation();
        let claim = "kernel command line";
        let Some(lines) = facts.and_then(kernel_lines).filter(|lines| !lines.is_empty()) else {
            let message = format!(
                "The boot log does not show the kernel command line in a way that can be believed, and policy {citation} \
                 lists allowed ones."
            );
            return self.refuse(claim, allowed.join(" or "), "unknown", message);
        };
        for line in lines.into_iter().filter(|line| !allowed.iter().any(|allowed| allowed == line)) {
            let message = format!(
                "The kernel was started with `{}`, which policy {citation} does not list: {}. If this is meant, add the line \
                 to boot.kernel_command_lines.",
                line.escape_debug(),
                words_apart(line, allowed)
            );
            self.refuse(claim, allowed.join(" or "), line.escape_debug().to_string(), message);
        }
    }

    fn judge_applications(&mut self, facts: Option<&BootFacts>, allowed: &[Digest]) {
        let citation = self.policy.citation();
        let expected = format!("an image of policy {citation}");
        let images = facts.map(|facts| facts.boot_applications.as_slice()).unwrap_or_default();
        if images.is_empty() {
            let message =
                format!("The boot log shows no started image, and policy {citation} lists allowed ones.");
            self.refuse("boot image", expected.as_str(), "unknown", message);
        }
        for image in images.iter().filter(|image| !allowed.contains(&image.digest)) {
            let message = format!(
                "The firmware started `{}` ({}), which policy {citation} does not list: if it is an update of yours, add it \
                 to boot.applications.",
                image.remark, image.digest
            );
            self.refuse(&image.remark, expected.as_str(), image.digest.to_string(), message);
        }
    }

    fn judge_dbx(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        if boot.dbx_contains.is_empty() && boot.dbx_entries_min.is_none() {
            return;
        }
        let citation = self.policy.citation();
        let update = "install the firmware's Secure Boot database update (fwupdmgr update)";
        let Some(variables) = facts.and_then(|facts| facts.secure_boot.as_ref()) else {
            let message =
                format!("The boot log does not show dbx, and policy {citation} makes demands on it.");
            return self.refuse("dbx", "a revocation list", "unknown", message);
        };
        let has = |digest: &Digest| {
            variables
                .dbx
                .iter()
                .any(|entry| matches!(&entry.kind, SignatureKind::ImageDigest(found) if found == digest))
        };
        for digest in boot.dbx_contains.iter().filter(|digest| !has(digest)) {
            let message = format!(
                "Secure Boot's revocation list dbx lacks {digest}, which policy {citation} wants in it: {update}."
            );
            self.refuse("dbx", digest.to_string(), "not in dbx", message);
        }
        let entries = u32::try_from(variables.dbx.len()).unwrap_or(u32::MAX);
        if let Some(min) = boot.dbx_entries_min.filter(|min| entries < *min) {
            let message = format!(
                "Secure Boot's revocation list dbx has {entries} entries, and policy {citation} wants {min}: {update}."
            );
            self.refuse("dbx", format!("{min} entries or more"), entries.to_string(), message);
        }
    }
}

/// Every text in PCRs 8 and 12 that may have started a kernel, or `None` where something in them hides from reading.
///
/// The digest covers the text, but not the label that says whether it was a command or a command line. So a text
/// counts whatever its label: a kernel's command line starts with the kernel's path, and the command that loads one
/// is `linux` with the same line.
pub(crate) fn kernel_lines(facts: &BootFacts) -> Option<Vec<&str>> {
    let holds_lines = |pcr: &PcrIndex| matches!(pcr.get(), 8 | 12);
    let is_unread = facts.loaded.iter().any(|item| holds_lines(&item.pcr));
    if is_unread || facts.unexplained_pcrs.iter().any(holds_lines) {
        return None;
    }
    let labelled = facts.kernel_command_lines.iter().map(String::as_str);
    let commands = facts.grub_commands.iter().filter_map(|command| {
        let load = ["linux ", "linuxefi ", "linux16 "].iter().find_map(|name| command.strip_prefix(name));
        load.or_else(|| command.starts_with(['/', '(']).then_some(command.as_str()))
    });
    let mut lines: Vec<&str> = labelled.chain(commands).collect();
    lines.sort_unstable();
    lines.dedup();
    Some(lines)
}

/// The words by which a line differs from the allowed one that it shares most with.
fn words_apart(line: &str, allowed: &[String]) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let lacking = |other: &str| {
        let of_other: Vec<&str> = other.split_whitespace().collect();
        let added: Vec<&str> = words.iter().filter(|word| !of_other.contains(word)).copied().collect();
        let missing: Vec<&str> = of_other.iter().filter(|word| !words.contains(word)).copied().collect();
        (added.join(" "), missing.join(" "), added.len() + missing.len())
    };
    let nearest = allowed.iter().map(|other| lacking(other)).min_by_key(|(_, _, distance)| *distance);
    match nearest {
        Some((added, missing, _)) if added.is_empty() && missing.is_empty() => {
            "its words are in another order".to_owned()
        }
        Some((added, missing, _)) if missing.is_empty() => format!("it adds `{}`", added.escape_debug()),
        Some((added, missing, _)) if added.is_empty() => format!("it lacks `{}`", missing.escape_debug()),
        Some((added, missing, _)) => {
            format!("it has `{}` instead of `{}`", added.escape_debug(), missing.escape_debug())
        }
        None => "none is allowed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, allowed: &[&str], expected: &str) {
        let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(words_apart(line, &allowed), expected);
    }

    #[test]
    fn the_difference_is_told_in_words() {
        check("/k ro quiet audit=1", &["/other", "/k ro quiet"], "it adds `audit=1`");
        check("/k ro", &["/k ro quiet"], "it lacks `quiet`");
        check("/k2 ro", &["/k1 ro"], "it has `/k2` instead of `/k1`");
        check("/k quiet ro", &["/k ro quiet"], "its words are in another order");
    }
}
