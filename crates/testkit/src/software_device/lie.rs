//! The lies worth telling a verifier, each with the check that must catch it.

use super::quote::{Certifying, Quoting, Stating};
use super::{BANKS, DeviceError, SoftwareDevice, TpmKey, key};
use crate::edge::protocol::{BankStatement, Challenge, Evidence};
use crate::tamper::{flip_bit, move_event_last, swap_ranges, truncate};
use crate::{Bank, tamper};

/// One way to answer a challenge dishonestly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A bit of the signed structure is another.
    QuoteAltered,
    /// A bit of the signature is another.
    SignatureAltered,
    /// Another key signed.
    OtherKey,
    /// The structure ends early, but is signed as it is.
    QuoteTruncated,
    /// The structure was not made by a TPM, but signed by the AK.
    NotMadeByTpm,
    /// What the AK signed is no quote but a certification.
    OtherType,
    /// The answer to another challenge.
    OtherNonce,
    /// A PCR that has to be quoted is not.
    PcrLeftOut,
    /// The TPM's word on its banks is withheld.
    BanksUnsaid,
    /// Another bank is told than the TPM named.
    BanksAltered,
    /// What the TPM said of its banks in answer to another challenge.
    BanksOfOtherChallenge,
    /// What the TPM said of its banks before it was reset.
    BanksOfOtherBoot,
    /// Another key signed what is told of the banks.
    BanksByOtherKey,
    /// A bank is active that is not quoted.
    BankUnquoted,
    /// A PCR value other than the quoted one is told.
    PcrValueAltered,
    /// The reset counter is lower than it was.
    ResetCounterBack,
    /// What an event says is changed, its digest is not.
    BootEventReworded,
    /// An event's digest is changed.
    BootDigestAltered,
    /// An event stands at another place.
    BootEventMoved,
    /// The boot log ends inside an event.
    BootLogTruncated,
    /// A length in the boot log is four gigabytes.
    BootLengthHuge,
    /// A boot log is withheld.
    BootLogMissing,
    /// The last IMA entry is left out.
    ImaEntryLeftOut,
    /// Two IMA entries are swapped.
    ImaEntriesSwapped,
    /// The path of an IMA entry is changed, its template digest is not.
    ImaPathAltered,
    /// The IMA list ends inside an entry.
    ImaTruncated,
}

impl Lie {
    /// Every lie.
    pub const ALL: [Lie; 26] = [
        Lie::QuoteAltered,
        Lie::SignatureAltered,
        Lie::OtherKey,
        Lie::QuoteTruncated,
        Lie::NotMadeByTpm,
        Lie::OtherType,
        Lie::OtherNonce,
        Lie::PcrLeftOut,
        Lie::BanksUnsaid,
        Lie::BanksAltered,
        Lie::BanksOfOtherChallenge,
        Lie::BanksOfOtherBoot,
        Lie::BanksByOtherKey,
        Lie::BankUnquoted,
        Lie::PcrValueAltered,
        Lie::ResetCounterBack,
        Lie::BootEventReworded,
        Lie::BootDigestAltered,
        Lie::BootEventMoved,
        Lie::BootLogTruncated,
        Lie::BootLengthHuge,
        Lie::BootLogMissing,
        Lie::ImaEntryLeftOut,
        Lie::ImaEntriesSwapped,
        Lie::ImaPathAltered,
        Lie::ImaTruncated,
    ];

    /// The check that must catch it.
    pub fn caught_by(self) -> &'static str {
        match self {
            Lie::QuoteAltered | Lie::SignatureAltered | Lie::OtherKey => "quote-signature",
            Lie::QuoteTruncated => "quote-parse",
            Lie::NotMadeByTpm => "quote-magic",
            Lie::OtherType => "quote-type",
            Lie::OtherNonce => "quote-nonce",
            Lie::PcrLeftOut | Lie::BankUnquoted => "quote-selection",
            Lie::BanksUnsaid
            | Lie::BanksAltered
            | Lie::BanksOfOtherChallenge
            | Lie::BanksOfOtherBoot
            | Lie::BanksByOtherKey => "pcr-banks",
            Lie::PcrValueAltered => "quote-pcr-digest",
            Lie::ResetCounterBack => "reset-counter",
            Lie::BootEventReworded => "event-data-digest",
            Lie::BootDigestAltered | Lie::BootEventMoved => "event-log-replay",
            Lie::BootLogTruncated | Lie::BootLengthHuge => "event-log-parse",
            Lie::BootLogMissing => "event-log-present",
            Lie::ImaEntryLeftOut | Lie::ImaEntriesSwapped => "ima-replay",
            Lie::ImaPathAltered => "ima-template-digest",
            Lie::ImaTruncated => "ima-parse",
        }
    }

    /// Whether the AK signs it: else whoever carries the evidence may have told it.
    pub fn is_the_devices_word(self) -> bool {
        matches!(self, Lie::PcrLeftOut | Lie::BankUnquoted | Lie::ResetCounterBack)
    }

    /// Answers the challenge with this lie; all else is as it should be.
    pub fn tell(self, device: &mut SoftwareDevice, challenge: &Challenge) -> Result<Evidence, DeviceError> {
        let mut evidence = device.evidence(challenge)?;
        match self {
            Lie::QuoteAltered => alter_quote(&mut evidence, |message, _| flip_bit(message, 80)),
            Lie::SignatureAltered => alter_quote(&mut evidence, |_, signature| flip_bit(signature, 200)),
            Lie::OtherKey => {
                let other = TpmKey::generate(key::ATTESTATION_KEY)?;
                evidence.quote = Some(Quoting::honest(device, challenge).sign(&other)?);
            }
            Lie::QuoteTruncated => {
                if let Some(quote) = &mut evidence.quote {
                    truncate(&mut quote.message, 9);
                    quote.signature = device.ak.sign(&quote.message)?;
                }
            }
            Lie::OtherType => {
                if let Some(quote) = &mut evidence.quote {
                    let certified = Certifying::honest(device, &challenge.nonce).sign(&device.ak)?;
                    (quote.message, quote.signature) = (certified.message, certified.signature);
                }
            }
            _ if self.is_of_banks() => evidence.banks = self.banks(device, challenge)?,
            _ if self.is_signed() => {
                let mut quoting = Quoting::honest(device, challenge);
                self.alter(device, &mut quoting);
                // Of what the TPM's clock shows, it says the same everywhere.
                let stating = Stating::honest(&BANKS, &device.ak, quoting.clock, &challenge.nonce);
                evidence.banks = evidence.banks.map(|_| stating.sign(&device.ak)).transpose()?;
                evidence.quote = Some(quoting.sign(&device.ak)?);
            }
            _ => self.alter_logs(&mut evidence),
        }
        Ok(evidence)
    }

    fn is_of_banks(self) -> bool {
        matches!(
            self,
            Lie::BanksUnsaid
                | Lie::BanksAltered
                | Lie::BanksOfOtherChallenge
                | Lie::BanksOfOtherBoot
                | Lie::BanksByOtherKey
                | Lie::BankUnquoted
        )
    }

    /// What is told of the banks.
    fn banks(
        self,
        device: &SoftwareDevice,
        challenge: &Challenge,
    ) -> Result<Option<BankStatement>, DeviceError> {
        let mut stating = Stating::honest(&BANKS, &device.ak, device.clock, &challenge.nonce);
        match self {
            Lie::BanksUnsaid => return Ok(None),
            Lie::BanksAltered => stating.audited.push(Bank::Sha1.id()),
            Lie::BanksOfOtherChallenge => stating.nonce = Bank::Sha256.hash(&stating.nonce),
            Lie::BanksOfOtherBoot => stating.clock.reset_count = stating.clock.reset_count.saturating_sub(1),
            Lie::BanksByOtherKey => return Ok(Some(stating.sign(&TpmKey::generate(key::ATTESTATION_KEY)?)?)),
            Lie::BankUnquoted => {
                stating.audited.push(Bank::Sha1.id());
                stating.told.push(Bank::Sha1.id());
            }
            _ => {}
        }
        Ok(Some(stating.sign(&device.ak)?))
    }

    fn is_signed(self) -> bool {
        matches!(
            self,
            Lie::NotMadeByTpm
                | Lie::OtherNonce
                | Lie::PcrLeftOut
                | Lie::PcrValueAltered
                | Lie::ResetCounterBack
        )
    }

    fn alter(self, device: &SoftwareDevice, quoting: &mut Quoting) {
        match self {
            Lie::NotMadeByTpm => quoting.magic ^= 1,
            Lie::OtherNonce => quoting.nonce = Bank::Sha256.hash(&quoting.nonce),
            Lie::PcrLeftOut => {
                let mut selection = quoting.selection.clone();
                selection.iter_mut().for_each(|(_, pcrs)| pcrs.retain(|pcr| *pcr != 7));
                quoting.select(device, selection);
            }
            Lie::PcrValueAltered => {
                quoting.pcrs.iter_mut().take(1).for_each(|pcr| flip_bit(&mut pcr.digest, 3));
            }
            Lie::ResetCounterBack => quoting.clock.reset_count = quoting.clock.reset_count.saturating_sub(1),
            _ => {}
        }
    }

    fn alter_logs(self, evidence: &mut Evidence) {
        let ima = &mut evidence.ima_log;
        if let Some(boot) = &mut evidence.boot_log {
            match self {
                Lie::BootEventReworded => tamper::alter_event_data(boot, EVENT_OF_SECURE_BOOT),
                Lie::BootDigestAltered => tamper::alter_event_digest(boot, EVENT_OF_SECURE_BOOT),
                Lie::BootEventMoved => move_event_last(boot, EVENT_OF_SECURE_BOOT),
                Lie::BootLogTruncated => truncate(boot, 5),
                Lie::BootLengthHuge => tamper::enlarge_event(boot, EVENT_OF_SECURE_BOOT),
                Lie::BootLogMissing => boot.clear(),
                _ => {}
            }
        }
        let entries = tamper::ima_entries(ima);
        match (self, entries.as_slice()) {
            (Lie::ImaEntryLeftOut, [.., last]) => ima.truncate(last.start),
            (Lie::ImaEntriesSwapped, [_, first, second, ..]) => swap_ranges(ima, first, second),
            (Lie::ImaPathAltered, [_, entry, ..]) => flip_bit(ima, (entry.end - 8) * 8),
            (Lie::ImaTruncated, _) => truncate(ima, 3),
            _ => {}
        }
    }
}

fn alter_quote(evidence: &mut Evidence, alter: impl Fn(&mut Vec<u8>, &mut Vec<u8>)) {
    if let Some(quote) = &mut evidence.quote {
        alter(&mut quote.message, &mut quote.signature);
    }
}

/// In the log of a booted [`System`](crate::System): the event of the variable SecureBoot, whose digest is that
/// of its data.
const EVENT_OF_SECURE_BOOT: usize = 4;
