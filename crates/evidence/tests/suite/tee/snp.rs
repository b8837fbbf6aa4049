//! SEV-SNP: genuine reports of each product and version, and every check with a case that fails for it alone.

use assay_evidence::Check;
use assay_evidence::tee::Verified;
use assay_evidence::tee::snp::{
    Product, SigningKey, SnpClaims, SnpEvidence, SnpExpectation, is_report, verify,
};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::tpm::revocation::RevocationList;
use assay_testkit::tee::{SnpCertificate, SnpMaker, SnpReport};
use proptest::prelude::*;

use super::{anchor, checks, recorded, recorded_pem, with_a_longer_life};

fn at(text: &str) -> UnixTime {
    UnixTime::from_rfc3339(text).unwrap()
}

/// A genuine report with AMD's file of authorities.
fn genuine(
    case: &str,
    product: &str,
    time: &str,
    expectation: &SnpExpectation,
) -> Option<Verified<SnpClaims>> {
    let report = recorded(&format!("snp/{case}/report.bin"))?;
    let vek = recorded(&format!("snp/{case}/vek.der"))?;
    let authorities = recorded_pem(&format!("snp/roots/{product}_ask_ark_asvk.pem"))?;
    assert!(is_report(&report));
    Some(verify_bytes(&report, &vek, &authorities, time, expectation))
}

fn verify_bytes(
    report: &[u8],
    vek: &[u8],
    authorities: &[Vec<u8>],
    time: &str,
    expectation: &SnpExpectation,
) -> Verified<SnpClaims> {
    let authorities: Vec<&[u8]> = authorities.iter().map(Vec::as_slice).collect();
    verify(&SnpEvidence { report, vek, authorities: &authorities }, expectation, at(time))
}

#[test]
fn genuine_reports_of_every_product_hold_while_their_certificates_do() {
    let cases = [
        ("milan-v2", "milan", Product::Milan, 2, "2026-11-29T00:00:00Z", "2030-04-04T00:00:00Z"),
        ("milan-v2-azure", "milan", Product::Milan, 2, "2026-11-29T00:00:00Z", "2030-01-25T00:00:00Z"),
        ("milan-v3", "milan", Product::Milan, 3, "2026-11-29T00:00:00Z", "2032-01-16T00:00:00Z"),
        ("milan-v3-vlek", "milan", Product::Milan, 3, "2025-06-01T00:00:00Z", "2026-11-29T00:00:00Z"),
        ("genoa-v5", "genoa", Product::Genoa, 5, "2026-11-29T00:00:00Z", "2032-08-08T00:00:00Z"),
        ("turin-v5", "turin", Product::Turin, 5, "2026-11-29T00:00:00Z", "2032-07-18T00:00:00Z"),
    ];
    for (case, file, product, version, good, late) in cases {
        let Some(verified) = genuine(case, file, good, &SnpExpectation::default()) else { return };
        assert_eq!(checks(&verified.failures), [], "{case}: {:?}", verified.failures);
        let claims = verified.claims.unwrap();
        assert_eq!((claims.product, claims.version), (product, version), "{case}");
        // No list came with it, and the claims say so.
        assert_eq!(checks(&verified.notes), [Check::TeeRevoked, Check::TeeRevoked], "{case}");
        let expired = genuine(case, file, late, &SnpExpectation::default()).unwrap();
        assert_eq!(checks(&expired.failures), [Check::TeeValidity], "{case}");
        assert!(expired.claims.is_none(), "{case}");
    }
}

#[test]
fn what_a_genuine_report_says_is_read() {
    let expectation = SnpExpectation::default();
    let Some(azure) = genuine("milan-v2-azure", "milan", "2026-11-29T00:00:00Z", &expectation) else {
        return;
    };
    let claims = azure.claims.unwrap();
    assert_eq!((claims.guest_svn, claims.policy.bits(), claims.vmpl), (4, 0x3001f, 0));
    assert_eq!((claims.tcb.current.microcode, claims.tcb.reported.microcode), (206, 115));
    let loaded = genuine("milan-v3-vlek", "milan", "2025-06-01T00:00:00Z", &expectation).unwrap();
    let claims = loaded.claims.unwrap();
    assert_eq!((claims.signing_key, claims.vmpl, claims.chip_id), (SigningKey::Vlek, 1, None));
    assert!(claims.csp_id.is_some());
    let turin = genuine("turin-v5", "turin", "2026-11-29T00:00:00Z", &expectation).unwrap();
    let claims = turin.claims.unwrap();
    assert_eq!(claims.tcb.reported.to_string(), "fmc 0, bootloader 1, tee 0, snp 2, microcode 71");
    assert_eq!(claims.chip_id.map(|id| id.len()), Some(8));
}

#[test]
fn keys_that_amd_did_not_certify_count_for_nothing() {
    for (case, product) in [("vcek-not-amd-legacy", "milan"), ("vcek-not-amd-new", "milan")] {
        let Some(vek) = recorded(&format!("snp/bad-certs/{case}.der")) else { return };
        let report = recorded("snp/milan-v2/report.bin").unwrap();
        let authorities = recorded_pem(&format!("snp/roots/{product}_ask_ark_asvk.pem")).unwrap();
        let verified =
            verify_bytes(&report, &vek, &authorities, "2026-11-29T00:00:00Z", &SnpExpectation::default());
        assert!(checks(&verified.failures).contains(&Check::TeeChain), "{case}: {:?}", verified.failures);
        assert!(verified.claims.is_none());
    }
}

/// Its key alone is pinned: what the certificate says beside it counts as the key signed it.
#[test]
fn a_root_certificate_that_was_edited_is_no_root() {
    let Some(report) = recorded("snp/milan-v2/report.bin") else { return };
    let vek = recorded("snp/milan-v2/vek.der").unwrap();
    let mut authorities = recorded_pem("snp/roots/milan_ask_ark_asvk.pem").unwrap();
    let time = "2026-11-29T00:00:00Z";
    let whole = verify_bytes(&report, &vek, &authorities, time, &SnpExpectation::default());
    assert_eq!(checks(&whole.failures), [], "{:?}", whole.failures);
    authorities[1] = with_a_longer_life(&authorities[1]);
    let edited = verify_bytes(&report, &vek, &authorities, time, &SnpExpectation::default());
    assert_eq!(checks(&edited.failures), [Check::TeeChain], "{:?}", edited.failures);
}

#[test]
fn a_genuine_report_with_another_genuine_key_is_refused() {
    let Some(report) = recorded("snp/milan-v2/report.bin") else { return };
    let vek = recorded("snp/milan-v3/vek.der").unwrap();
    let authorities = recorded_pem("snp/roots/milan_ask_ark_asvk.pem").unwrap();
    let verified =
        verify_bytes(&report, &vek, &authorities, "2026-11-29T00:00:00Z", &SnpExpectation::default());
    assert_eq!(
        checks(&verified.failures),
        [Check::TeeReportSignature, Check::TeeTcb, Check::TeeChip],
        "{:?}",
        verified.failures
    );
}

/// What one case changes.
struct Lie {
    maker: SnpMaker,
    certificate: SnpCertificate,
    report: SnpReport,
    expectation: SnpExpectation,
    time: &'static str,
}

/// A guest on a platform of a maker that the operator trusts; `lie` changes one thing.
fn verify_lie(product: &'static str, lie: impl FnOnce(&mut Lie)) -> Verified<SnpClaims> {
    let maker = SnpMaker::new(product).unwrap();
    let endorsers = Endorsers::new(anchor(maker.root()), lists(&maker, false));
    let mut case = Lie {
        certificate: maker.certificate(),
        report: maker.report(),
        expectation: SnpExpectation { report_data: Some([0x5a; 64]), endorsers },
        maker,
        time: "2026-06-01T00:00:00Z",
    };
    lie(&mut case);
    let vek = case.maker.certify(&case.certificate).unwrap();
    let report = case.maker.sign(&case.report).unwrap();
    let authorities = case.maker.authorities().map(<[u8]>::to_vec);
    verify_bytes(&report, &vek, &authorities, case.time, &case.expectation)
}

fn lists(maker: &SnpMaker, revoked: bool) -> Vec<RevocationList> {
    RevocationList::from_pem_or_der(&maker.revocation_list(revoked).unwrap()).unwrap()
}

#[test]
fn an_honest_platform_of_each_product_holds() {
    for product in ["Milan", "Genoa", "Turin"] {
        let verified = verify_lie(product, |_| {});
        assert_eq!(checks(&verified.failures), [], "{product}: {:?}", verified.failures);
        // The root has a list; the authority below it gives none.
        assert_eq!(checks(&verified.notes), [Check::TeeRevoked], "{:?}", verified.notes);
        assert!(verified.claims.is_some());
    }
    let loaded = verify_lie("Genoa", make_loaded);
    assert_eq!(checks(&loaded.failures), [], "{:?}", loaded.failures);
    assert_eq!(loaded.claims.unwrap().csp_id.as_deref(), Some("CN=example"));
    let wrapped = verify_lie("Milan", |case| case.certificate.hwid_wrapped = true);
    assert_eq!(checks(&wrapped.failures), [], "{:?}", wrapped.failures);
}

/// Signed with a provider's key instead of the chip's.
fn make_loaded(case: &mut Lie) {
    case.certificate.kind = "SEV-VLEK";
    case.certificate.hwid = None;
    case.certificate.csp_id = Some("CN=example".to_owned());
    case.certificate.by_loaded_authority = true;
    case.report.set(0x48, &[1 << 2]).set(0x1a0, &[0; 64]);
}

#[test]
fn each_check_has_a_lie_that_fails_for_it_alone() {
    let refused = |product, expected: Check, lie: fn(&mut Lie)| {
        let verified = verify_lie(product, lie);
        assert_eq!(checks(&verified.failures), [expected], "{:?}", verified.failures);
        assert!(verified.claims.is_none());
    };
    // A complete forged maker: the names are AMD's, the root key is not.
    refused("Milan", Check::TeeChain, |case| case.expectation.endorsers = Endorsers::default());
    refused("Milan", Check::TeeValidity, |case| case.time = "2033-01-01T00:00:00Z");
    refused("Milan", Check::TeeValidity, |case| case.time = "2024-12-31T00:00:00Z");
    refused("Milan", Check::TeeRevoked, |case| {
        let anchors = anchor(case.maker.root());
        case.expectation.endorsers = Endorsers::new(anchors, lists(&case.maker, true));
    });
    refused("Milan", Check::TeeReportData, |case| case.expectation.report_data = Some([0x5b; 64]));
    refused("Milan", Check::TeeTcb, |case| case.certificate.tcb.2 = 25);
    refused("Turin", Check::TeeTcb, |case| case.certificate.tcb.4 = Some(2));
    refused("Milan", Check::TeeChip, |case| case.certificate.hwid = Some(vec![7; 64]));
    refused("Turin", Check::TeeChip, |case| {
        case.report.set(0x1a0 + 63, &[1]);
    });
    refused("Genoa", Check::TeeProduct, |case| {
        case.report.set(0x188, &[0x19, 0x01]);
    });
    refused("Genoa", Check::TeeProduct, |case| {
        case.report.set(0x188, &[0x1b, 0x01]);
    });
    refused("Turin", Check::TeeProduct, |case| {
        case.report.set(0, &[2]).set(0x188, &[0; 3]);
    });
    // Of the same family of authorities, and for another use.
    refused("Milan", Check::TeeEndorsement, |case| case.certificate.by_loaded_authority = true);
    refused("Milan", Check::TeeEndorsement, |case| case.certificate.kind = "SEV-ELSE");
    refused("Milan", Check::TeeEndorsement, |case| case.certificate.hwid = None);
    refused("Milan", Check::TeeEndorsement, |case| case.certificate.critical_extension = true);
    refused("Milan", Check::TeeEndorsement, |case| case.certificate.product_name = "Naples".to_owned());
    refused("Genoa", Check::TeeEndorsement, |case| {
        make_loaded(case);
        case.report.set(0x48, &[0]);
    });
    // The bytes of a structure that is not what it says.
    refused("Milan", Check::TeeParse, |case| {
        case.report.set(0, &[6]);
    });
    refused("Milan", Check::TeeParse, |case| {
        case.report.set(0x34, &[2]);
    });
    refused("Milan", Check::TeeParse, |case| {
        case.report.set(0x48, &[7 << 2]);
    });
    refused("Milan", Check::TeeParse, |case| {
        case.report.set(0x0a, &[0]);
    });
    for reserved in [0x4c, 0x18b, 0x19f, 0x1eb, 0x1ef, 0x208, 0x29f] {
        let verified = verify_lie("Milan", |case| {
            case.report.set(reserved, &[1]);
        });
        assert_eq!(checks(&verified.failures), [Check::TeeParse], "{reserved:#x}: {:?}", verified.failures);
    }
}

#[test]
fn a_report_changed_after_it_was_signed_is_not_its_keys() {
    let maker = SnpMaker::new("Milan").unwrap();
    let (vek, authorities) =
        (maker.certify(&maker.certificate()).unwrap(), maker.authorities().map(<[u8]>::to_vec));
    let expectation =
        SnpExpectation { report_data: None, endorsers: Endorsers::new(anchor(maker.root()), Vec::new()) };
    let mut report = maker.sign(&maker.report()).unwrap();
    // A byte of MEASUREMENT.
    report[0x90] ^= 1;
    let verified = verify_bytes(&report, &vek, &authorities, "2026-06-01T00:00:00Z", &expectation);
    assert_eq!(checks(&verified.failures), [Check::TeeReportSignature]);
}

#[test]
fn a_masked_chip_is_left_open_and_not_compared() {
    let verified = verify_lie("Milan", |case| {
        case.report.set(0x1a0, &[0; 64]);
    });
    assert_eq!(checks(&verified.failures), []);
    assert!(checks(&verified.notes).contains(&Check::TeeChip), "{:?}", verified.notes);
    assert_eq!(verified.claims.unwrap().chip_id, None);
}

#[test]
fn a_list_past_its_time_is_left_open() {
    let verified = verify_lie("Milan", |case| case.time = "2028-01-01T00:00:00Z");
    assert_eq!(checks(&verified.failures), []);
    assert!(verified.notes.iter().any(|note| note.found.contains("2027-01-01")), "{:?}", verified.notes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// No byte of a signed report can be another one.
    #[test]
    fn a_changed_report_is_refused(position in 0_usize..1184, bit in 0_u32..8) {
        let maker = SnpMaker::new("Milan").unwrap();
        let mut report = maker.sign(&maker.report()).unwrap();
        report[position] ^= 1 << bit;
        let vek = maker.certify(&maker.certificate()).unwrap();
        let authorities = maker.authorities().map(<[u8]>::to_vec);
        let endorsers = Endorsers::new(anchor(maker.root()), Vec::new());
        let expectation = SnpExpectation { report_data: None, endorsers };
        let verified = verify_bytes(&report, &vek, &authorities, "2026-06-01T00:00:00Z", &expectation);
        prop_assert!(verified.claims.is_none());
    }

    /// Hostile bytes are an error, whatever they are.
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300), vek in proptest::collection::vec(any::<u8>(), 0..200)) {
        let verified = verify_bytes(&bytes, &vek, &[], "2026-06-01T00:00:00Z", &SnpExpectation::default());
        prop_assert!(verified.claims.is_none());
    }
}

/// Truncated at every length, and with something behind it.
#[test]
fn a_report_of_another_length_is_refused() {
    let maker = SnpMaker::new("Genoa").unwrap();
    let report = maker.sign(&maker.report()).unwrap();
    let vek = maker.certify(&maker.certificate()).unwrap();
    let longer = [report.as_slice(), &[0]].concat();
    for bytes in (0..report.len()).filter_map(|length| report.get(..length)).chain([longer.as_slice()]) {
        let verified = verify_bytes(bytes, &vek, &[], "2026-06-01T00:00:00Z", &SnpExpectation::default());
        assert_eq!(checks(&verified.failures), [Check::TeeParse], "{} bytes", bytes.len());
    }
    for length in 0..vek.len() {
        let cut = vek.get(..length).unwrap();
        let verified = verify_bytes(&report, cut, &[], "2026-06-01T00:00:00Z", &SnpExpectation::default());
        assert_eq!(checks(&verified.failures), [Check::TeeEndorsement], "{length} bytes");
    }
}
