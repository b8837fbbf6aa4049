//! Messages of the edge protocol into requests, and answers into messages.

use assay_evidence::digest::HashAlgorithm;
use assay_evidence::request::{BankStatement, Challenge, DeviceIdentity, Evidence, Quote};
use assay_evidence::time::UnixTime;
use assay_identity::Selector;
use assay_trust::Finding;
use assay_wire::edge;
use assay_wire::pcr::{PcrError, selection_to_wire, values_from_wire};
use thiserror::Error;

use crate::attest::Verdict;
use crate::grant::telemetry::Answer;
use crate::in_force::federation::Foreign;
use crate::outcome::{Kind, Outcome};
use crate::placement::{Placed, RegisterShown, Shown};
use crate::store::EntryRecord;

/// Reads what a device answers.
pub(super) fn evidence(message: edge::Evidence) -> Result<Evidence, NotEvidence> {
    let edge::Evidence {
        nonce, quote, boot_log, measure_log, ima_log, ima_from_entry, ima_ascii, banks, ..
    } = message;
    let edge::Quote { message, signature, pcrs } = quote.ok_or(NotEvidence::NoQuote)?;
    let quote = Quote { message, signature, pcrs: values_from_wire(&pcrs)? };
    let banks = banks.map(|banks| {
        let edge::BankStatement { capability, message, signature } = *banks;
        // It answers the challenge that the evidence does, or none.
        BankStatement { nonce: nonce.clone(), capability, message, signature }
    });
    Ok(Evidence { nonce, quote, boot_log, measure_log, ima_log, ima_from_entry, ima_ascii, banks })
}

/// What of an enrollment's first message says which TPM it is.
pub(super) fn identity(begin: &mut edge::EnrollBegin) -> DeviceIdentity {
    use std::mem::take;
    DeviceIdentity {
        ek_public: take(&mut begin.ek_public),
        ek_certificate: take(&mut begin.ek_certificate),
        ek_intermediates: take(&mut begin.ek_intermediates),
        iak_public: take(&mut begin.iak_public),
        iak_certificate: take(&mut begin.iak_certificate),
        idevid_public: take(&mut begin.idevid_public),
        idevid_certificate: take(&mut begin.idevid_certificate),
        idevid_intermediates: take(&mut begin.idevid_intermediates),
    }
}

/// A challenge on the stream that the server calls so, made at this time.
pub(super) fn challenge(
    challenge: Challenge,
    stream: &[u8],
    ttl_seconds: u64,
    at: UnixTime,
) -> edge::Challenge {
    edge::Challenge {
        nonce: challenge.nonce.to_vec().into(),
        expires_in_seconds: u32::try_from(ttl_seconds).unwrap_or(u32::MAX),
        selection: selection_to_wire(&challenge.selection),
        watched: selection_to_wire(&challenge.watched),
        boot_log_wanted: challenge.boot_log_wanted,
        ima_from_entry: challenge.ima_from_entry,
        stream: stream.to_vec().into(),
        banks_wanted: challenge.banks_wanted,
        time_seconds: at.0,
    }
}

pub(super) fn verdict(verdict: Verdict) -> edge::Verdict {
    edge::Verdict {
        tier: verdict.tier.name().to_owned(),
        state: verdict.state.name().to_owned(),
        findings: verdict.findings.iter().map(finding).collect(),
        valid_for_seconds: u32::try_from(verdict.valid_for_seconds).unwrap_or(u32::MAX),
        policy: verdict.policy,
    }
}

/// A finding as the device is told.
fn finding(finding: &Finding) -> edge::Finding {
    edge::Finding {
        check: finding.check.name().to_owned(),
        tier: finding.tier.name().to_owned(),
        claim: finding.claim.clone(),
        expected: finding.expected.clone(),
        found: finding.found.clone(),
        message: finding.message.clone(),
    }
}

pub(super) fn entry(entry: &EntryRecord) -> edge::WorkloadEntry {
    // Of what holds of the device it is told by the entry's being there.
    let selectors = entry.selectors.iter().filter(|selector| !matches!(selector, Selector::Tpm(_)));
    edge::WorkloadEntry {
        id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.clone(),
        selectors: selectors
            .map(|selector| edge::Selector { r#type: selector.kind().to_owned(), value: selector.value() })
            .collect(),
        ttl_seconds: u32::try_from(entry.ttl_seconds).unwrap_or(u32::MAX),
        dns_names: entry.dns_names.clone(),
        hint: entry.hint.clone(),
        by_quote: entry.selectors.iter().any(Selector::is_by_quote),
        speaks_for_node: entry.speaks_for_node,
        federates_with: entry.federates_with.clone(),
    }
}

/// Whom to believe of another trust domain; `None`: nobody knows yet.
pub(super) fn foreign_bundle(foreign: &Foreign) -> Option<edge::ForeignBundle> {
    let bundle = foreign.bundle.as_ref()?;
    Some(edge::ForeignBundle {
        trust_domain: foreign.trust_domain.to_string(),
        bundle: bundle.x509().to_der().into(),
        jwt_keys: bundle.jwt_keys().into(),
    })
}

/// A task as its device is told of it.
pub(super) fn task(placed: Placed) -> edge::TaskGrant {
    let Placed { attempt, definition, input, bytes: (image_bytes, input_bytes), is_attested } = placed;
    edge::TaskGrant {
        task: attempt.task_id,
        attempt: attempt.number,
        nonce: attempt.nonce.to_vec().into(),
        definition: definition.into(),
        input: input.to_vec().into(),
        image_bytes,
        input_bytes,
        attested: is_attested,
    }
}

/// The attempt that a result says it is of; `None`: it says nothing that can be read.
pub(super) fn occasion(result: &edge::TaskResult) -> Option<(String, u32)> {
    let occasion = assay_evidence::task::Outcome::parse(&result.outcome).ok()?.occasion;
    Some((occasion.task, occasion.attempt))
}

/// A result as a device hands it in.
pub(super) fn result(result: edge::TaskResult) -> Shown {
    let edge::TaskResult { outcome, signature, output, messages, register } = result;
    let register = register.map(|edge::TaskRegister { public, message, signature, log }| RegisterShown {
        public,
        message,
        signature,
        log,
    });
    Shown { outcome, signature, output, messages, register }
}

/// Grace for a restart without a server. What it is sealed to is measured before the system runs, and the same in each boot of
/// the same system: firmware, boot loader, kernel and its command line, and the keys that may sign them.
pub(super) fn restart_offline(seconds: u64) -> edge::RestartOffline {
    let pcrs = edge::PcrSelection { bank: HashAlgorithm::Sha256.name().to_owned(), pcrs: SEALED_PCRS.into() };
    edge::RestartOffline { seconds, pcrs: Some(pcrs) }
}

/// Without 10 and 11, which grow while the system runs, and those from 15 on, which are anybody's.
const SEALED_PCRS: [u32; 13] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14];

pub(super) fn answer(answer: Answer) -> edge::SubmitResponse {
    match answer {
        Answer::Accepted(receipt) => edge::SubmitResponse {
            accepted: true,
            ledger_sequence: receipt.leaf,
            ledger_hash: receipt.hash.to_vec().into(),
            ..edge::SubmitResponse::default()
        },
        Answer::Denied(denied) => edge::SubmitResponse {
            accepted: false,
            reason: format!("{}: {denied}", denied.code()),
            findings: denied.finding().iter().map(finding).collect(),
            ..edge::SubmitResponse::default()
        },
    }
}

/// A message that is no evidence.
#[derive(Debug, Error)]
pub(crate) enum NotEvidence {
    /// There is no quote.
    #[error("evidence without a quote")]
    NoQuote,
    /// PCR values that cannot be.
    #[error(transparent)]
    Pcr(#[from] PcrError),
}

impl Outcome for NotEvidence {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotEvidence::NoQuote => (Kind::Malformed, "quote-parse"),
            NotEvidence::Pcr(_) => (Kind::Malformed, "pcr-values"),
        }
    }
}
