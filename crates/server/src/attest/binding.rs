//! Whose word evidence is.
//!
//! Whoever carries evidence may change it, so that only what the bound AK signed for this challenge
//! counts as the device's word: the quote, and a log that replays to it. A quote that is another's, PCR values that do not
//! hash to it, a log that does not parse or replay, a log that was asked for and left out: each may be the carrier's doing
//! and is refused without a trace in the status. A device that answers so is one that does not answer: what it holds stands for
//! as long as its policy gives to silence, and no longer.

use assay_evidence::Check;

/// Whose word evidence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// The device's: the AK signed the quote for this challenge, and the logs replay to it.
    Authentic,
    /// Somebody else's: the quote is not the AK's for this challenge, or the PCR values are not those it quotes.
    NotTheDevice,
    /// The quote is the device's, and its logs may be anybody's.
    LogsUnbound {
        /// Whether all that is wrong is that the IMA list does not reach the quoted PCR 10.
        list_may_be_short: bool,
    },
}

impl Binding {
    /// By the checks that did not hold.
    pub(crate) fn of(failed: impl Iterator<Item = Check> + Clone, list_starts_well: bool) -> Binding {
        if failed.clone().any(|check| OF_THE_QUOTE.contains(&check)) {
            return Binding::NotTheDevice;
        }
        if failed.clone().any(|check| OF_THE_LOGS.contains(&check)) {
            let only_replay = failed.clone().all(|check| check == Check::ImaReplay);
            return Binding::LogsUnbound { list_may_be_short: list_starts_well && only_replay };
        }
        Binding::Authentic
    }
}

/// The checks that show whose quote it is, which challenge it answers and what it covers.
const OF_THE_QUOTE: [Check; 11] = [
    Check::AkParse,
    Check::AkAttributes,
    Check::AkName,
    Check::AkPublic,
    Check::QuoteParse,
    Check::QuoteMagic,
    Check::QuoteType,
    Check::QuoteSignature,
    Check::QuoteNonce,
    Check::QuotePcrDigest,
    Check::PcrBanks,
];

/// The checks that bind the logs to the quote, the most telling first. What the AK signed and a policy refuses is not
/// among them.
pub(super) const OF_THE_LOGS: [Check; 8] = [
    Check::EventLogParse,
    Check::ImaParse,
    Check::EventLogReplay,
    Check::ImaTemplateDigest,
    Check::ImaReplay,
    Check::EventDataDigest,
    Check::ImaForms,
    Check::EventLogPresent,
];
