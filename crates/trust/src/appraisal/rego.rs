//! Rules of the policy's own, in Rego.

use assay_evidence::Check;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::verify::Claims;

use super::demand::{AnsweredRules, Missing, witness};
use crate::finding::{Finding, Tier};
use crate::reference::CompiledPolicy;
use crate::rego::{self, NEW_ENTRIES_MAX, Rule};

/// What all rules together say.
pub(super) enum Verdict {
    /// Each was asked, and none has a word against the device.
    Agreed,
    /// One or more have, or gave no answer.
    Objected,
}

pub(super) fn judge(
    policy: &CompiledPolicy,
    claims: &Claims,
    endorsement: Option<&Endorsement>,
    findings: &mut Vec<Finding>,
) -> Verdict {
    let Some(modules) = &policy.rego else { return Verdict::Agreed };
    let before = findings.len();
    let (mut answered, mut unanswered) = (Vec::new(), Vec::new());
    let mut why = "it has no rule".to_owned();
    match rego::input(claims, endorsement) {
        Some(input) => {
            for (index, module) in modules.iter().enumerate() {
                for (rule, answer) in module.evaluate(&input) {
                    let asked = Asked { policy, index, rule };
                    answered.push(answer.is_ok());
                    match answer {
                        Ok(texts) => asked.objections(&texts, findings),
                        Err(error) => unanswered.push(asked.without_answer(&error.to_string())),
                    }
                }
            }
        }
        None => why = format!("more than {NEW_ENTRIES_MAX} new IMA entries"),
    }
    let missing = || {
        let any = || Asked { policy, index: 0, rule: Rule::Deny }.without_answer(&why);
        let finding = unanswered.pop().unwrap_or_else(any);
        Missing { why: unanswered, finding }
    };
    let answered: Option<AnsweredRules> = witness(answered, findings, missing);
    if answered.is_some() && findings.len() == before { Verdict::Agreed } else { Verdict::Objected }
}

/// One rule of one module.
struct Asked<'a> {
    policy: &'a CompiledPolicy,
    index: usize,
    rule: Rule,
}

impl Asked<'_> {
    fn objections(&self, texts: &[String], findings: &mut Vec<Finding>) {
        let policy = self.policy.citation();
        for text in texts.iter().take(FINDINGS_MAX) {
            let text = plain(text);
            let message = format!("{text} (policy {policy}, {})", self.place());
            findings.push(self.finding(self.rule.tier(), text, message));
        }
        if let Some(unsaid) = texts.len().checked_sub(FINDINGS_MAX).filter(|unsaid| *unsaid > 0) {
            let message = format!("{unsaid} more objections of policy {policy}, {}.", self.place());
            findings.push(self.finding(self.rule.tier(), format!("{unsaid} more"), message));
        }
    }

    /// Nobody knows what the rule would have said, so it counts as denied, whichever rule it is.
    fn without_answer(&self, why: &str) -> Finding {
        let why = plain(why);
        let message = format!(
            "Policy {} cannot be judged by, so the device is refused: {} gives no answer: {why}.",
            self.policy.citation(),
            self.place()
        );
        self.finding(Tier::Contraindicated, why, message)
    }

    fn finding(&self, tier: Tier, found: String, message: String) -> Finding {
        Finding {
            accept: None,
            check: Check::RegoPolicy,
            tier,
            claim: self.place(),
            expected: "nothing to say".to_owned(),
            found,
            message,
        }
    }

    fn place(&self) -> String {
        format!("rego.modules[{}] {}", self.index, self.rule.name())
    }
}

/// A text without what does not print, and not too long.
fn plain(text: &str) -> String {
    let prints = |c: &char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    text.chars().filter(prints).take(TEXT_CHARS_MAX).collect()
}

/// Texts of one rule that become findings.
const FINDINGS_MAX: usize = 100;
const TEXT_CHARS_MAX: usize = 500;
