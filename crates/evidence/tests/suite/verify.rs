//! Verification over whole cases: the real ones are accepted, and each way to lie fails in its own check.

use std::fs;

use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::attest::ClockInfo;
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::quote::{Quote, verify_quote};
use assay_evidence::verify::{Expectation, ImaLog, verify};
use assay_evidence::{Check, HashAlgorithm, PcrIndex};

use crate::case::{Case, failing};
use crate::files::{Expected, recorded, recorded_cases};

const VECTORS: [&str; 2] = ["sb-good-1", "sb-good-2-rebooted"];

fn pcr(index: u32) -> PcrIndex {
    PcrIndex::new(index).unwrap()
}

#[test]
fn vectors_are_accepted() {
    for name in VECTORS {
        let verification = Case::vector(name).verify(&Expectation::default());
        assert_eq!((verification.failures, verification.notes), (vec![], vec![]), "{name}");
        let claims = verification.claims.unwrap();
        let expected = Expected::of(&format!("tpm/{name}"));
        let reset_count = u32::try_from(expected.count("reset-count")).unwrap();
        assert!(
            matches!(claims.clock(), ClockInfo { reset_count: found, safe: true, .. } if found == reset_count)
        );
        let ima = claims.ima().unwrap();
        assert_eq!(ima.entries().count(), expected.count("entries"), "{name}");
        assert_eq!((ima.first_index(), ima.undecided()), (0, 0));
        assert!(claims.boot().unwrap().facts().secure_boot.as_ref().unwrap().is_enabled);
        assert!(!claims.boot_log_missing() && !claims.is_sha1_only());
    }
}

#[test]
fn recorded_cases_have_the_expected_integrity() {
    for folder in recorded_cases("expected.json") {
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        let accept = json["integrity"].as_str().unwrap().starts_with("accept");
        let mut case = Case::read(&folder);
        let binary = case.verify(&Expectation::default());
        assert_eq!(binary.failures.is_empty(), accept, "{folder:?}: {:?}", binary.failures);
        let claims = binary.claims.unwrap();
        let clock = claims.clock();
        assert_eq!(u64::from(clock.reset_count), json["resetCount"].as_u64().unwrap(), "{folder:?}");
        let ima = claims.ima().unwrap();
        let replay = json["pcr10_replay"]["sha256"].as_str().unwrap();
        assert_eq!(replay, format!("native@{}", ima.attested_total()), "{folder:?}");
        let total = json["ima_entries"].as_u64().unwrap();
        assert_eq!(ima.undecided() as u64, total - ima.attested_total(), "{folder:?}");
        assert_eq!(claims.boot_log_missing(), json["eventlog_events"].is_null(), "{folder:?}");
        assert_eq!(claims.boot().is_none(), claims.boot_log_missing(), "{folder:?}");

        let ascii = case.file("ascii_runtime_measurements");
        let evidence = case.evidence();
        let as_ascii = assay_evidence::verify::Evidence { ima_log: Some(ImaLog::Ascii(&ascii)), ..evidence };
        assert_eq!(verify(&as_ascii, &Expectation::default()).failures, [], "{folder:?}");

        // Any other nonce, and it is nobody's answer.
        case.quote().nonce.reverse();
        assert_eq!(case.failing(), [Check::QuoteNonce], "{folder:?}");
    }
}

#[test]
fn a_public_quote_of_another_project_verifies() {
    let Some(folder) = recorded("public/keylime") else { return };
    let file = |name: &str| fs::read(folder.join(name)).unwrap();
    let ak = PublicArea::parse_tpm2b(&file("ak.pub")).unwrap();
    assert_eq!(ak.name().as_bytes(), file("ak.name"));
    assert_eq!(ak.check_ak(), []);
    let (_, pcrs) = PcrValues::from_tpm2_tools(&file("quotepcr.out")).unwrap();
    let (message, signature) = (file("quote.out"), file("quotesig.out"));
    let nonce = message.get(44..64).unwrap_or_default();
    let quote = Quote { label: "quote", message: &message, signature: &signature, pcrs: &pcrs, nonce };
    let (verified, failures) = verify_quote(&quote, &ak);
    // Its nonce is not recorded, so that only that check may fail.
    let others: Vec<_> = failures.iter().filter(|failure| failure.check != Check::QuoteNonce).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(verified.is_some() || !failures.is_empty());
}

#[test]
fn a_changed_quote_fails_in_the_check_it_is_about() {
    let good = Case::vector("sb-good-1").quote_only();
    let check = |expected: &[Check], change: &dyn Fn(&mut Case)| {
        let mut case = good.clone();
        change(&mut case);
        assert_eq!(case.failing(), expected);
    };
    check(&[], &|_| {});
    check(&[Check::QuoteSignature], &|case| *case.quote().signature.last_mut().unwrap() ^= 1);
    check(&[Check::QuoteNonce], &|case| case.quote().nonce[0] ^= 1);
    check(&[Check::QuoteNonce], &|case| case.quote().nonce.clear());
    check(&[Check::QuoteParse], &|case| assert!(case.quote().signature.pop().is_some()));
    // Cut or longer, the signature is no longer over these bytes either.
    let not_these = [Check::QuoteParse, Check::QuoteSignature];
    check(&not_these, &|case| assert!(case.quote().message.pop().is_some()));
    check(&not_these, &|case| case.quote().message.push(0));
    check(&[Check::QuotePcrDigest], &|case| {
        case.quote().pcrs.insert(pcr(7), HashAlgorithm::Sha256.zero());
    });
    check(&[Check::QuotePcrDigest], &|case| {
        let kept = case.quote().pcrs.iter().filter(|(_, index, _)| index.get() != 15);
        case.quote().pcrs = kept.map(|(_, index, value)| (index, *value)).collect();
    });
    check(&[Check::QuoteSignature], &|case| {
        // The clock, which no other check looks at.
        case.quote().message[83] ^= 1;
    });
    check(&[Check::AkParse], &|case| assert!(case.ak_public.pop().is_some()));
    check(&[Check::QuoteSignature], &|case| {
        case.ak_public = case.file("ak-ecc.tpm2b_public");
    });
    check(&[Check::AkAttributes, Check::QuoteSignature], &|case| {
        // Nobody's AK: an EK cannot sign.
        case.ak_public = case.file("ek.tpm2b_public");
    });
    check(&[Check::AkAttributes], &|case| case.ak_public[9] ^= 2);
    check(&[Check::QuoteParse], &|case| case.quotes.clear());
}

#[test]
fn every_quote_must_hold() {
    let good = Case::vector("sb-good-1");
    assert_eq!(good.quotes.len(), 4);
    for position in 1..good.quotes.len() {
        let mut case = good.clone();
        case.quotes[position].nonce.clear();
        assert_eq!(case.failing(), [Check::QuoteNonce]);
    }
    // A quote of another boot, however good, describes another machine state.
    let mut mixed = good.clone().quote_only();
    mixed.quotes.extend(Case::vector("sb-good-2-rebooted").quotes);
    assert_eq!(mixed.failing(), [Check::ResetCounter]);
}

#[test]
fn values_beside_the_selection_are_no_claims() {
    let mut case = Case::vector("sb-good-1").quote_only();
    let planted = HashAlgorithm::Sha256.hash(&[b"planted"]);
    case.quote().pcrs.insert(pcr(23), planted);
    let claims = case.verify(&Expectation::default()).claims.unwrap();
    assert_eq!(claims.pcrs().get(HashAlgorithm::Sha256, pcr(23)), None);
    assert_eq!(claims.pcrs().len(), 16);
}

#[test]
fn the_first_quote_covers_what_was_asked_for_and_nothing_else() {
    let mut case = Case::vector("sb-good-1").quote_only();
    let expectation = |last| Expectation {
        required_selection: (0..=last).map(|index| (HashAlgorithm::Sha256, pcr(index))).collect(),
        ..Expectation::default()
    };
    assert_eq!(failing(&case.verify(&expectation(15))), []);
    assert_eq!(failing(&case.verify(&expectation(14))), [Check::QuoteSelection]);
    assert_eq!(failing(&case.verify(&expectation(16))), [Check::QuoteSelection]);
    // A value that is told but not quoted covers nothing.
    case.quote().pcrs.insert(pcr(16), HashAlgorithm::Sha256.zero());
    assert_eq!(failing(&case.verify(&expectation(16))), [Check::QuoteSelection]);
}

#[test]
fn the_first_quote_covers_the_pcrs_of_the_logs() {
    let mut case = Case::vector("sb-good-1");
    // PCR 10 alone is enough for the IMA list, not for the boot log.
    case.quotes = vec![case.quotes[1].clone()];
    assert_eq!(case.quotes[0].label, "quote-pcr10");
    assert_eq!(case.failing(), [Check::QuoteSelection]);
    case.boot_log = None;
    let verification = case.verify(&Expectation::default());
    assert_eq!(failing(&verification), []);
    // Then boot_aggregate cannot be decided, which is said.
    assert!(verification.notes.iter().any(|note| note.check == Check::BootAggregate));
}

#[test]
fn the_counters_do_not_go_back() {
    let case = Case::vector("sb-good-1").quote_only();
    // The TPM says 2 resets and no restart.
    for ((reset_count, restart_count), expected) in [
        ((0, 0), &[][..]),
        ((2, 0), &[]),
        ((3, 0), &[Check::ResetCounter]),
        ((2, 1), &[Check::RestartCounter]),
        ((1, 9), &[]),
    ] {
        let last_counters = Some(BootCounters { reset_count, restart_count });
        let verification = case.verify(&Expectation { last_counters, ..Expectation::default() });
        assert_eq!(failing(&verification), expected, "{reset_count}, {restart_count}");
    }
}

#[test]
fn a_log_of_another_boot_does_not_replay() {
    let mut case = Case::vector("sb-good-2-rebooted");
    case.ima_log = Case::vector("sb-good-1").ima_log;
    assert_eq!(case.failing(), [Check::ImaReplay]);
    let mut case = Case::vector("sb-good-1");
    case.boot_log = Some(crate::files::vector("boot_log/dbx-update/binary_bios_measurements"));
    assert_eq!(case.failing(), [Check::EventLogReplay]);
}

#[test]
fn a_log_without_the_events_of_a_pcr_does_not_pass() {
    let mut case = Case::vector("sb-good-1");
    let log = case.boot_log.take().unwrap();
    let parsed = assay_evidence::boot_log::parse(&log).unwrap();
    // Without the header's events: everything of PCR 7, which holds the Secure Boot state.
    let mut cut = Vec::new();
    let start = log.as_ptr() as usize;
    let mut from = 0;
    for event in parsed.events() {
        let end = event.data().as_ptr() as usize - start + event.data().len();
        if event.extends() != Some(pcr(7)) {
            cut.extend_from_slice(&log[from..end]);
        }
        from = end;
    }
    assert!(cut.len() < log.len());
    case.boot_log = Some(cut);
    assert_eq!(case.failing(), [Check::EventLogReplay]);
}

#[test]
fn a_missing_boot_log_is_noted() {
    for absent in [None, Some(Vec::new())] {
        let mut case = Case::vector("sb-good-1");
        case.boot_log = absent;
        let verification = case.verify(&Expectation::default());
        assert_eq!(verification.failures, []);
        assert!(verification.notes.iter().any(|note| note.check == Check::EventLogPresent));
        assert!(verification.claims.unwrap().boot_log_missing());
    }
}

#[test]
fn logs_that_do_not_parse_fail_as_such() {
    let mut case = Case::vector("sb-good-1");
    case.boot_log.as_mut().unwrap().truncate(1000);
    case.ima_log.as_mut().unwrap().truncate(1000);
    assert_eq!(case.failing(), [Check::ImaParse, Check::EventLogParse]);
}

#[test]
fn only_new_entries_are_judged_again() {
    let first = Case::vector("sb-good-2-rebooted").verify(&Expectation::default()).claims.unwrap();
    let whole = Case::vector("sb-good-2-grown");
    let seen = Case::vector("sb-good-2-rebooted").ima_log.unwrap().len();
    let tail = Case {
        ima_log: Some(whole.ima_log.as_ref().unwrap()[seen..].to_vec()),
        ima_from_entry: 109,
        ..whole.clone()
    };

    let baseline = first.baseline(109);
    assert_eq!((baseline.ima_entries(), baseline.reset_count(), baseline.has_boot_log()), (109, 4, true));
    let known = Expectation { baseline: Some(&baseline), ..Expectation::default() };
    let claims = tail.verify(&known).claims.unwrap();
    let ima = claims.ima().unwrap();
    assert_eq!((ima.first_index(), ima.attested_total()), (109, 110));
    let paths: Vec<_> = ima.entries().map(|entry| entry.path_text().into_owned()).collect();
    assert_eq!(paths, ["/usr/local/bin/report-tool"]);
    assert!(claims.boot().is_some() && !claims.boot_log_missing());

    // The whole list is as good, with or without a baseline.
    assert_eq!(failing(&whole.verify(&known)), []);
    assert_eq!(failing(&whole.verify(&Expectation::default())), []);
    // Nothing new: the list ends where it did.
    let idle = Case { ima_log: Some(Vec::new()), ima_from_entry: 110, ..tail.clone() };
    let (later, earlier) = (claims.baseline(u64::MAX), claims.baseline(109));
    let expectation = Expectation { baseline: Some(&later), ..Expectation::default() };
    assert_eq!(idle.verify(&expectation).claims.unwrap().ima().unwrap().entries().count(), 0);
    // What was attested but not found good has to be sent again.
    assert_eq!(earlier.ima_entries(), 109);
    let expectation = Expectation { baseline: Some(&earlier), ..Expectation::default() };
    assert_eq!(failing(&idle.verify(&expectation)), [Check::ImaReplay]);
    assert_eq!(failing(&tail.verify(&expectation)), []);
}

#[test]
fn a_baseline_may_stop_inside_the_list() {
    let claims = Case::vector("sb-good-2-grown").verify(&Expectation::default()).claims.unwrap();
    let baseline = claims.baseline(109);
    let seen = Case::vector("sb-good-2-rebooted").ima_log.unwrap().len();
    let mut tail = Case::vector("sb-good-2-grown");
    tail.ima_log = Some(tail.ima_log.unwrap().split_off(seen));
    tail.ima_from_entry = 109;
    let expectation = Expectation { baseline: Some(&baseline), ..Expectation::default() };
    assert_eq!(failing(&tail.verify(&expectation)), []);
}

#[test]
fn a_baseline_ends_with_its_boot() {
    let before = Case::vector("sb-good-1").verify(&Expectation::default()).claims.unwrap().baseline(109);
    let expectation = Expectation { baseline: Some(&before), ..Expectation::default() };
    let mut after = Case::vector("sb-good-2-rebooted");
    assert_eq!(failing(&after.verify(&expectation)), []);
    // A tail alone proves nothing in a new boot, and the boot log has to be sent again.
    after.boot_log = None;
    after.ima_log = Some(Vec::new());
    after.ima_from_entry = 109;
    let verification = after.verify(&expectation);
    assert_eq!(failing(&verification), [Check::ImaReplay]);
    assert!(verification.notes.iter().any(|note| note.check == Check::EventLogPresent));
}

#[test]
fn a_tail_without_a_baseline_proves_nothing() {
    let mut tail = Case::vector("sb-good-2-grown");
    let seen = Case::vector("sb-good-2-rebooted").ima_log.unwrap().len();
    tail.ima_log = Some(tail.ima_log.unwrap().split_off(seen));
    assert_eq!(tail.failing(), [Check::ImaReplay]);
    tail.ima_from_entry = 109;
    assert_eq!(tail.failing(), [Check::ImaReplay]);
}
