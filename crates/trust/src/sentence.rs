//! Findings in words: what is wrong, and what an operator can do about it.

use std::borrow::Cow;

use assay_evidence::{Check, Failure, Mismatch};

use crate::undecided::Undecided;

/// A word as a shell reads it again: paths are of an attacker's choice, and stand in commands that are there to be pasted.
pub(crate) fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':' | ',' | '@' | '%')
    };
    // A shell takes a leading dash for nothing special, but the program that is called would take it for an option.
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', "'\\''")))
}

/// A failure of verification, as a sentence.
pub(crate) fn of_failure(failure: &Failure) -> String {
    let Failure { check, claim, expected, found, mismatch } = failure;
    let (what, then) = match mismatch {
        Some(mismatch) => log_words(*check, *mismatch),
        None => words(*check),
    };
    format!("{what} ({claim}): expected {expected}, found {found}. {then}")
}

/// What verification could not decide, as a sentence.
pub(crate) fn of_note(note: &Failure) -> String {
    match Undecided::of(note.check) {
        Undecided::BootAggregate => format!(
            "The IMA list's first entry could not be compared with the boot PCRs ({}): {}. Quoting those PCRs decides it.",
            note.claim, note.found
        ),
        Undecided::Endorsement => format!(
            "{}: {}. Its own word proves nothing: name who may vouch for TPMs with --trust-anchor.",
            note.claim, note.found
        ),
        Undecided::Pcr => format!(
            "{} holds {}, and {}: something extended it after the boot log had ended, as systemd does, so nothing that \
             the log says of this PCR is believed.",
            note.claim, note.expected, note.found
        ),
        Undecided::Nonce => "No nonce was given, so the quote was held against the one that came with it, and the evidence may be of \
                             any time: say which nonce it has to answer (--nonce)."
            .to_owned(),
        Undecided::Forms
        | Undecided::BootLog
        | Undecided::MeasureLog
        | Undecided::Entries
        | Undecided::WeakBank
        | Undecided::Tee
        | Undecided::Nothing => of_failure(note),
    }
}

/// What it means that a log is not the PCRs', and what to do.
fn log_words(check: Check, mismatch: Mismatch) -> (&'static str, &'static str) {
    let is_list = matches!(check, Check::ImaParse | Check::ImaReplay | Check::ImaTemplateDigest);
    match mismatch {
        Mismatch::OtherBoot if is_list => (
            "The IMA list and the TPM's PCRs are of different boots: its first entry, boot_aggregate, is of other boot PCRs",
            "That is so where a machine came back from hibernation, or where list and quote were taken at different times: take \
             both of one boot.",
        ),
        Mismatch::OtherBoot => (
            "The log and the TPM's PCRs are of different boots",
            "That is so where a machine came back from hibernation, or from a sleep in which its TPM lost power: restart it, \
             and take log and quote of one boot.",
        ),
        Mismatch::StartMissing => (
            "Entries are missing at the start of the IMA list: it does not begin with boot_aggregate",
            "Send the list from its first entry; the kernel's file has to be read from its first byte.",
        ),
        Mismatch::EndMissing if check == Check::BootAggregate => (
            "The kernel hashed other boot PCRs than those quoted, and there is no boot log to say what they were",
            "Send the boot log: user space may have extended these PCRs since, and the log decides it.",
        ),
        Mismatch::EndMissing if is_list => (
            "The IMA list does not lead to PCR 10, although each of its entries is sound and of this boot: its end is missing, or \
             an entry in it",
            "Read the list after the quote and to its end, and send both again. If fresh evidence says the same, an entry was left \
             out or exchanged: then treat the device as taken over.",
        ),
        Mismatch::EndMissing => (
            "Events are missing at the end of the boot log: the TPM's PCRs go on where it stops",
            "The firmware's area for the log may be full, or the kernel got a part of it: update the firmware, or see that \
             less is measured. What is missing is unknown, so it is not judged.",
        ),
        Mismatch::CopyCutShort if check == Check::EkChain => (
            "The copy of the EK certificate was cut short",
            "Read the TPM's NV index to its end (`tpm2_nvread` without a size), and send that.",
        ),
        Mismatch::CopyCutShort if is_list => (
            "The copy of the IMA list was cut short: it ends inside an entry",
            "Copy the file whole; the kernel states no size for it, so read it to its end (`cat`, not `dd` with a size).",
        ),
        Mismatch::CopyCutShort => (
            "The copy of the log was cut short: it ends inside an event",
            "Copy the file whole; the kernel states no size for it, so read it to its end (`cat`, not `dd` with a size).",
        ),
        Mismatch::Unreadable if check == Check::EkChain => (
            "The EK certificate cannot be read",
            "Look at it with `assay inspect`: it has to be one certificate in DER, as the TPM's NV index or the maker has it, and not \
             packed; trust anchors do not help.",
        ),
        Mismatch::Unreadable | Mismatch::Contradiction => words(check),
    }
}

/// What a failed check means, and what to do.
fn words(check: Check) -> (&'static str, &'static str) {
    const TAMPERED: &str =
        "What was sent is not what the TPM attested: take the device off the network and look at it.";
    const RESEND: &str = "Ask for fresh evidence; if it fails again, update the agent.";
    const ENROLL: &str = "Enroll the device again with the keys of its own TPM.";
    match check {
        Check::AkParse => ("The attestation key's public area cannot be read", RESEND),
        Check::AkAttributes => ("The attestation key is not a restricted signing key made by a TPM", ENROLL),
        Check::AkName => ("The attestation key is not the one that was stated", ENROLL),
        Check::AkPublic => {
            ("The attestation key's public area holds another key than the one that was stated", ENROLL)
        }
        Check::EkPublic => ("The endorsement key is not a TPM's restricted decryption key", ENROLL),
        Check::EkChain => (
            "The EK certificate does not lead to a trust anchor",
            "If the manufacturer is to be trusted, add its root and intermediate certificates to the trust anchors.",
        ),
        Check::EkSignature => (
            "The EK certificate, or one above it, is signed over a hash under which others can be forged",
            "Another trust anchor would not help: ask the manufacturer for a certificate signed over SHA-256, or vouch for this EK \
             by its hash (`assay policy allow-eks`) if you know where the device comes from.",
        ),
        Check::EkValidity => (
            "A certificate of the EK's chain is not valid at this time",
            "Check the clock first; an expired intermediate has to be replaced by the manufacturer's new one.",
        ),
        Check::EkRevoked => (
            "A certificate of the EK's chain was taken back by the authority that issued it",
            "Take the device out of service and ask its manufacturer; what a stolen or broken TPM says proves nothing.",
        ),
        Check::IdevidChain => (
            "The certificate of the IAK or IDevID does not lead to a trust anchor",
            "If the device's maker is to be trusted, add its certificates to idevid_anchors.",
        ),
        Check::IdevidValidity => (
            "A certificate of the IAK's or IDevID's chain is not valid at this time",
            "Check the clock first; an expired intermediate has to be replaced by the maker's new one.",
        ),
        Check::IdevidRevoked => (
            "A certificate of the IAK's or IDevID's chain was taken back by the authority that issued it",
            "Take the device out of service and ask its maker.",
        ),
        Check::IdevidCertificate => ("The certificate is not that of an IAK or IDevID of this TPM", ENROLL),
        Check::IdevidKey => ("The IAK or IDevID is not a TPM-made key, or not the certified one", ENROLL),
        Check::IakCertify => ("The IAK did not certify the attestation key for this enrollment", ENROLL),
        Check::EkEku => (
            "The certificate is not one for endorsement keys",
            "Early TPMs have certificates that do not say what they are for: if this is one and you know where the device comes \
             from, vouch for the EK by its hash (`assay policy allow-eks`); else enroll with the EK certificate of the device's own \
             TPM.",
        ),
        Check::EkCertificateKey => ("The EK certificate is for another endorsement key", ENROLL),
        Check::QuoteParse => ("The quote cannot be read", RESEND),
        Check::QuoteMagic => ("The quote was not made inside a TPM", TAMPERED),
        Check::QuoteType => ("The attestation is not a quote", RESEND),
        Check::QuoteSignature => ("The quote is not signed by the attestation key", TAMPERED),
        Check::QuoteNonce => ("The quote answers another challenge, so it may be an old one", RESEND),
        Check::QuoteSelection => ("The quote does not cover what it has to", RESEND),
        Check::QuotePcrDigest => ("The PCR values are not those that the TPM quoted", TAMPERED),
        Check::PcrBanks => (
            "Which PCR banks the TPM has active is not shown by the TPM itself",
            "Ask for fresh evidence; if it fails again, update the agent, which has the TPM say so for each boot.",
        ),
        Check::ResetCounter => (
            "The TPM's reset counter went back",
            "Either the TPM was cleared, or it was set back to an earlier state, or old evidence is played again: if you cleared \
             it, `assay device revoke` and `assay device readmit` let it begin anew.",
        ),
        Check::RestartCounter => (
            "The TPM's restart counter went back within one boot",
            "An earlier state of the TPM was brought back, or old evidence is played again: find out who could. \
             `assay device revoke` and `assay device readmit` let the device begin anew.",
        ),
        Check::EventLogPresent => (
            "PCRs of the boot were extended, but there is no boot log to explain them",
            "See whether the boot loader hands the log to the kernel; a policy accepts its absence with boot.event_log = \"optional\".",
        ),
        Check::EventLogParse => ("The boot log cannot be read", RESEND),
        Check::EventLogReplay => {
            ("The boot log is not the one that the TPM's PCRs were extended with", TAMPERED)
        }
        Check::MeasureLogParse => (
            "systemd's measurement log cannot be read, so it explains nothing",
            "What user space extended stays unknown; see what writes to /run/log/systemd/tpm2-measure.log besides systemd.",
        ),
        Check::EventDataDigest => {
            ("An event of the boot log describes something else than what was measured", TAMPERED)
        }
        Check::ImaParse => ("The IMA list cannot be read", RESEND),
        Check::ImaTemplateDigest => ("An entry of the IMA list was changed after it was measured", TAMPERED),
        Check::ImaReplay => ("The IMA list is not the one that the TPM's PCRs were extended with", TAMPERED),
        Check::ImaPcr => (
            "Entries of the IMA list are measured into another PCR than 10 (`pcr=` in the kernel's IMA policy, or \
             CONFIG_IMA_MEASURE_PCR_IDX), and nothing attests them",
            "Quote that PCR and name it in ima.pcrs; where other programs extend it as well, have the kernel measure into PCR 10.",
        ),
        Check::BootAggregate => ("The IMA list belongs to another boot", TAMPERED),
        Check::ImaForms => (
            "The ASCII and the binary form of the IMA list differ",
            "Only the binary form was judged; send one form, read at one time.",
        ),
        Check::DeviceKeyCertify => ("The device key is not certified as resident in the same TPM", ENROLL),
        Check::DeviceKeyCsr => ("The certificate request is not for the certified device key", ENROLL),
        Check::TeeParse => {
            ("Evidence of the TEE cannot be read", "Take it anew, and send its bytes as they are.")
        }
        Check::TeeEndorsement => (
            "The certificate beside the evidence is not one of a key that signs such evidence",
            "Send the certificate that belongs to this platform and firmware: of SNP the VCEK or VLEK, of Intel the PCK's.",
        ),
        Check::TeeChain => (
            "The key that signed the evidence is not certified by the maker of the TEE",
            "Send the maker's certificates above it (for AMD with --roots). If they are there, the evidence is forged.",
        ),
        Check::TeeValidity => (
            "A certificate of the TEE's key is not valid at that time",
            "Fetch a newer certificate for the platform's key, and check the clock.",
        ),
        Check::TeeRevoked => (
            "A key above the evidence was taken back by its maker, or it is not known whether it was",
            "Give the maker's revocation list that is in force (--crl), and take a platform off that is on it.",
        ),
        Check::TeeReportSignature => (
            "The evidence is not signed by the platform's certified key",
            "Pair it with the certificate of its own platform. If that does not help it was changed on its way, or is forged.",
        ),
        Check::TeeCollateral => (
            "What the maker says of the platform does not apply",
            "Fetch collateral for this platform that is in force, and give it with --collateral.",
        ),
        Check::TeeProduct => (
            "The evidence is of another line of processors than the certificate",
            "Send the certificate of the platform that made the evidence.",
        ),
        Check::TeeTcb => (
            "The platform's versions are not those that its maker vouches for",
            "Update the platform's firmware and microcode, and fetch the certificate for its present versions.",
        ),
        Check::TeeChip => (
            "The evidence is of another chip than the certificate, or does not say which",
            "Send the certificate of the platform that made the evidence.",
        ),
        Check::TeeReportData => (
            "The evidence was not made for this request",
            "It may be an older one or another guest's: ask again with a new nonce.",
        ),
        Check::TeeLog => (
            "The guest's boot log is not the one that its registers were extended with",
            "Send the log of this boot as it is. If that does not help it was changed to hide what was started.",
        ),
        Check::TeeBinding => (
            "The hardware's evidence does not vouch for this virtual TPM",
            "Send the paravisor's report and the TPM's quote of one machine. If that does not help, one of them is borrowed.",
        ),
        Check::AlgorithmPolicy => (
            "An algorithm is too weak to be believed",
            "Turn on the TPM's SHA-256 bank and use an attestation key of today.",
        ),
        Check::ImaPolicy
        | Check::ImaKernelPolicy
        | Check::ImaViolation
        | Check::BootPolicy
        | Check::PcrPolicy
        | Check::ClockPolicy
        | Check::EndorsementPolicy
        | Check::LocationPolicy
        | Check::RegoPolicy
        | Check::TeePolicy
        | Check::PolicyPresent => ("The policy is not met", "Change the device, or the policy."),
        Check::ImaUndecided => ("Entries of the IMA list came after the quote", RESEND),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_taken_off_the_network_only_where_nothing_harmless_explains_it() {
        let check = |check, mismatch, words: &str| {
            let told = of_failure(&Failure::new(check, "PCR 4", "aa", "bb").explained(mismatch));
            assert!(told.contains(words), "{told}");
            assert_eq!(told.contains("off the network"), mismatch == Mismatch::Contradiction, "{told}");
        };
        for (mismatch, words) in [
            (Mismatch::OtherBoot, "different boots"),
            (Mismatch::EndMissing, "missing at the end"),
            (Mismatch::CopyCutShort, "inside an event"),
            (Mismatch::Contradiction, "take the device off the network"),
        ] {
            check(Check::EventLogReplay, mismatch, words);
        }
        for (mismatch, words) in [
            (Mismatch::OtherBoot, "boot_aggregate, is of other boot PCRs"),
            (Mismatch::StartMissing, "missing at the start"),
            (Mismatch::EndMissing, "its end is missing"),
            (Mismatch::CopyCutShort, "inside an entry"),
            (Mismatch::Contradiction, "take the device off the network"),
        ] {
            check(Check::ImaReplay, mismatch, words);
        }
        check(Check::BootAggregate, Mismatch::EndMissing, "Send the boot log");
    }

    #[test]
    fn anchors_are_not_asked_for_where_the_certificate_cannot_be_read() {
        let failure = || Failure::new(Check::EkChain, "EK certificate", "an X.509 certificate", "something");
        assert!(of_failure(&failure()).contains("add its root"));
        for (mismatch, words) in
            [(Mismatch::CopyCutShort, "to its end"), (Mismatch::Unreadable, "anchors do not help")]
        {
            let told = of_failure(&failure().explained(mismatch));
            assert!(told.contains(words) && !told.contains("add its root"), "{told}");
        }
    }

    #[test]
    fn finding_15_a_path_of_any_kind_is_one_word_of_a_command() {
        let check = |word, expected| assert_eq!(quoted(word), expected);
        check("/usr/bin/env", "/usr/bin/env");
        check("/opt/a b", "'/opt/a b'");
        check("/tmp/x; rm -rf ~", "'/tmp/x; rm -rf ~'");
        check("/tmp/$(reboot)`id`", "'/tmp/$(reboot)`id`'");
        check("/it's", "'/it'\\''s'");
        check("-rf", "'-rf'");
        check("", "''");
        check("/a\\x0ab", "'/a\\x0ab'");
    }
}
