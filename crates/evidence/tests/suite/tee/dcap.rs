//! SGX and TDX: genuine quotes with the collateral of their day.

use assay_evidence::boot_log::parse_cc;
use assay_evidence::tee::Verified;
use assay_evidence::tee::dcap::{
    DcapClaims, DcapCollateral, DcapEvidence, DcapExpectation, Subject, TcbStatus, is_quote, verify,
};
use assay_evidence::time::UnixTime;
use assay_evidence::{Check, HashAlgorithm};
use proptest::prelude::*;

use super::{checks, recorded};

fn at(text: &str) -> UnixTime {
    UnixTime::from_rfc3339(text).unwrap()
}

fn genuine(case: &str, collateral: &str, time: &str) -> Option<Verified<DcapClaims>> {
    let quote = recorded(&format!("dcap/{case}/quote.bin"))?;
    let collateral = recorded(&format!("dcap/{collateral}/collateral.json"))?;
    assert!(is_quote(&quote));
    let collateral = DcapCollateral::from_json(&collateral).unwrap();
    Some(verify(
        &DcapEvidence { quote: &quote, cc_log: None },
        Some(&collateral),
        &DcapExpectation::default(),
        at(time),
    ))
}

fn claims(case: &str, collateral: &str, time: &str) -> Option<DcapClaims> {
    let verified = genuine(case, collateral, time)?;
    assert_eq!(checks(&verified.failures), [], "{case}: {:?}", verified.failures);
    Some(verified.claims.unwrap())
}

fn is_debug(claims: &DcapClaims) -> bool {
    match &claims.subject {
        Subject::Sgx { is_debug, .. } => *is_debug,
        Subject::Tdx(guest) => guest.attributes.is_debug(),
    }
}

#[test]
fn genuine_quotes_stand_as_their_collateral_says() {
    use TcbStatus::{ConfigurationAndSwHardeningNeeded, OutOfDate, SwHardeningNeeded, UpToDate};
    type Case = (&'static str, &'static str, &'static str, TcbStatus, &'static [&'static str], bool);
    let cases: [Case; 8] = [
        ("tdx-v4-uptodate", "tdx-v4-uptodate", "2025-07-01T00:00:00Z", UpToDate, &[], false),
        ("tdx-v5-td15ex", "tdx-v5-td15ex", "2026-10-20T00:00:00Z", UpToDate, &[], false),
        ("tdx-v4-gcp-ccel", "tdx-v4-gcp-ccel", "2025-07-20T00:00:00Z", UpToDate, &[], false),
        (
            "tdx-v4-outofdate",
            "tdx-v4-gcp-ccel",
            "2025-07-20T00:00:00Z",
            OutOfDate,
            &["INTEL-SA-00960", "INTEL-SA-00982", "INTEL-SA-00986"],
            false,
        ),
        ("tdx-v4-debug", "tdx-v4-debug", "2023-07-01T00:00:00Z", UpToDate, &[], true),
        (
            "sgx-v3-swhardening",
            "sgx-v3-swhardening",
            "2025-09-01T00:00:00Z",
            SwHardeningNeeded,
            &["INTEL-SA-00615"],
            false,
        ),
        (
            "sgx-v3-confighardening",
            "sgx-v3-confighardening",
            "2025-07-01T00:00:00Z",
            ConfigurationAndSwHardeningNeeded,
            &["INTEL-SA-00289", "INTEL-SA-00615"],
            false,
        ),
        ("sgx-v3-debug", "sgx-v3-swhardening", "2025-09-01T00:00:00Z", OutOfDate, &[], true),
    ];
    for (case, collateral, time, status, advisories, debug) in cases {
        let Some(claims) = claims(case, collateral, time) else { return };
        assert_eq!((claims.tcb_status, is_debug(&claims)), (status, debug), "{case}");
        if advisories.is_empty() && status == OutOfDate {
            assert_eq!(claims.advisories.len(), 10, "{case}: {:?}", claims.advisories);
        } else {
            assert_eq!(claims.advisories, advisories, "{case}");
        }
        // Only below the newest level is there something that keeps the platform from it.
        let below = matches!(status, OutOfDate | ConfigurationAndSwHardeningNeeded);
        assert_eq!(claims.tcb_missing.is_some(), below, "{case}: {:?}", claims.tcb_missing);
    }
}

/// The first and the last second of each collateral, and those beside them.
#[test]
fn collateral_counts_while_it_is_in_force() {
    let cases = [
        ("tdx-v4-uptodate", "2025-06-19T10:32:27Z", "2025-07-19T10:00:35Z"),
        ("tdx-v5-td15ex", "2026-10-08T00:28:26Z", "2026-11-06T23:45:11Z"),
        ("tdx-v4-gcp-ccel", "2025-07-07T09:20:26Z", "2025-08-06T09:06:43Z"),
        ("tdx-v4-debug", "2023-06-18T08:42:58Z", "2023-07-08T07:24:59Z"),
        ("sgx-v3-swhardening", "2025-08-15T05:41:26Z", "2025-09-14T04:36:46Z"),
        ("sgx-v3-confighardening", "2025-06-19T10:56:11Z", "2025-07-19T10:01:18Z"),
    ];
    for (case, from, until) in cases {
        let Some(last) = claims(case, case, until) else { return };
        assert_eq!(last.valid_until, at(until), "{case}");
        claims(case, case, from);
        let late = UnixTime(at(until).0 + 1);
        let expired = genuine(case, case, &late.to_string()).unwrap();
        assert_eq!(checks(&expired.failures), [Check::TeeCollateral], "{case}: {:?}", expired.failures);
        assert!(expired.claims.is_none());
    }
}

#[test]
fn a_platform_below_every_level_has_none() {
    let Some(verified) = genuine("tdx-v5-nolevel", "tdx-v5-nolevel", "2026-03-01T00:00:00Z") else { return };
    assert_eq!(checks(&verified.failures), [Check::TeeTcb], "{:?}", verified.failures);
    assert!(
        verified.failures.iter().any(|failure| failure.found.contains("component")),
        "{:?}",
        verified.failures
    );
}

#[test]
fn collateral_of_another_platform_says_nothing() {
    let Some(verified) = genuine("tdx-v4-uptodate", "tdx-v4-gcp-ccel", "2025-07-10T00:00:00Z") else {
        return;
    };
    assert_eq!(checks(&verified.failures), [Check::TeeCollateral], "{:?}", verified.failures);
    let sgx = genuine("sgx-v3-confighardening", "tdx-v4-uptodate", "2025-07-10T00:00:00Z").unwrap();
    assert!(checks(&sgx.failures).contains(&Check::TeeCollateral), "{:?}", sgx.failures);
}

#[test]
fn without_collateral_nothing_is_claimed() {
    let Some(quote) = recorded("dcap/tdx-v4-uptodate/quote.bin") else { return };
    let verified = verify(
        &DcapEvidence { quote: &quote, cc_log: None },
        None,
        &DcapExpectation::default(),
        at("2025-07-10T00:00:00Z"),
    );
    assert_eq!(checks(&verified.failures), [Check::TeeCollateral]);
    assert!(verified.claims.is_none());
}

#[test]
fn a_quote_is_for_whom_it_was_asked() {
    let Some(quote) = recorded("dcap/sgx-v3-confighardening/quote.bin") else { return };
    let collateral = recorded("dcap/sgx-v3-confighardening/collateral.json").unwrap();
    let collateral = DcapCollateral::from_json(&collateral).unwrap();
    let asked = |report_data| {
        let expectation = DcapExpectation { report_data: Some(report_data), ..DcapExpectation::default() };
        checks(
            &verify(
                &DcapEvidence { quote: &quote, cc_log: None },
                Some(&collateral),
                &expectation,
                at("2025-07-10T00:00:00Z"),
            )
            .failures,
        )
    };

    let found = verify(
        &DcapEvidence { quote: &quote, cc_log: None },
        Some(&collateral),
        &DcapExpectation::default(),
        at("2025-07-10T00:00:00Z"),
    );
    let right = found.claims.unwrap().report_data;
    assert!(right.starts_with(b"Hello"), "{right:?}");
    assert_eq!(asked(right), []);
    assert_eq!(asked([7; 64]), [Check::TeeReportData]);
}

#[test]
fn a_guests_boot_log_replays_to_its_registers() {
    let Some(quote) = recorded("dcap/tdx-v4-gcp-ccel/quote.bin") else { return };
    let mut log = recorded("dcap/tdx-v4-gcp-ccel/ccel_data.bin").unwrap();
    let collateral = recorded("dcap/tdx-v4-gcp-ccel/collateral.json").unwrap();
    let collateral = DcapCollateral::from_json(&collateral).unwrap();
    let judged = |quote: &[u8], log: &[u8]| {
        let evidence = DcapEvidence { quote, cc_log: Some(log) };
        verify(&evidence, Some(&collateral), &DcapExpectation::default(), at("2025-07-20T00:00:00Z"))
    };
    let verified = judged(&quote, &log);
    assert_eq!(checks(&verified.failures), [], "{:?}", verified.failures);
    assert!(verified.claims.unwrap().log_events.is_some_and(|events| events > 20));
    // Another guest's quote.
    let other = recorded("dcap/tdx-v4-outofdate/quote.bin").unwrap();
    assert!(checks(&judged(&other, &log).failures).contains(&Check::TeeLog));
    // One bit of what one event was measured as.
    let parsed = parse_cc(&log).unwrap();
    let digest = parsed.events().nth(3).unwrap().1.digest(HashAlgorithm::Sha384).unwrap();
    let place = log.windows(48).position(|window| window == digest.as_bytes()).unwrap();
    log[place] ^= 1;
    assert_eq!(checks(&judged(&quote, &log).failures), [Check::TeeLog]);
    assert_eq!(checks(&judged(&quote, &log[..100]).failures), [Check::TeeLog]);
}

/// A statement edited after Intel signed it.
#[test]
fn edited_collateral_is_refused() {
    let Some(quote) = recorded("dcap/tdx-v4-outofdate/quote.bin") else { return };
    let text = String::from_utf8(recorded("dcap/tdx-v4-gcp-ccel/collateral.json").unwrap()).unwrap();
    for (from, to) in [("OutOfDate", "UpToDate"), ("2025-08-06", "2027-08-06")] {
        let edited = text.replace(from, to);
        assert_ne!(edited, text);
        let collateral = DcapCollateral::from_json(edited.as_bytes()).unwrap();
        let verified = verify(
            &DcapEvidence { quote: &quote, cc_log: None },
            Some(&collateral),
            &DcapExpectation::default(),
            at("2025-07-20T00:00:00Z"),
        );
        assert!(checks(&verified.failures).iter().all(|check| *check == Check::TeeCollateral));
        assert!(!verified.failures.is_empty() && verified.claims.is_none());
    }
}

#[test]
fn quotes_cut_anywhere_are_refused() {
    for case in ["tdx-v4-gcp-ccel", "sgx-v3-swhardening", "tdx-v5-td15ex"] {
        let Some(quote) = recorded(&format!("dcap/{case}/quote.bin")) else { return };
        let end = quote.iter().rposition(|byte| *byte != 0).unwrap();
        for length in 0..end {
            let cut = quote.get(..length).unwrap();
            let verified = verify(
                &DcapEvidence { quote: cut, cc_log: None },
                None,
                &DcapExpectation::default(),
                UnixTime(0),
            );
            let found = checks(&verified.failures);
            assert!(found == [Check::TeeParse], "{case}, {length} bytes: {found:?}");
        }
        let mut behind = quote.clone();
        behind.push(1);
        let verified = verify(
            &DcapEvidence { quote: &behind, cc_log: None },
            None,
            &DcapExpectation::default(),
            UnixTime(0),
        );
        assert_eq!(checks(&verified.failures), [Check::TeeParse], "{case}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No bit of a quote can be another one, from the header to the last certificate.
    #[test]
    fn a_changed_quote_is_refused(position in any::<proptest::sample::Index>(), bit in 0_u32..8) {
        let Some(mut quote) = recorded("dcap/tdx-v4-uptodate/quote.bin") else { return Ok(()) };
        let collateral = recorded("dcap/tdx-v4-uptodate/collateral.json").unwrap();
        let collateral = DcapCollateral::from_json(&collateral).unwrap();
        let position = position.index(quote.len());
        quote[position] ^= 1 << bit;
        let verified = verify(&DcapEvidence { quote: &quote, cc_log: None }, Some(&collateral), &DcapExpectation::default(), at("2025-07-10T00:00:00Z"));
        // PEM is read as people write it, so some of its bytes may be others and mean the same.
        let is_armour = position > quote.len() - 3700;
        prop_assert!(is_armour || verified.claims.is_none(), "position {position}, bit {bit}");
    }

    /// Hostile bytes are an error, whatever they are.
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let verified = verify(&DcapEvidence { quote: &bytes, cc_log: None }, None, &DcapExpectation::default(), UnixTime(0));
        prop_assert!(verified.claims.is_none());
        prop_assert!(DcapCollateral::from_json(&bytes).is_err());
    }
}
