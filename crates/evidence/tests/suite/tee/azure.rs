//! Azure's confidential machines: genuine evidence of SNP and TDX, and what it is when a part of it is another's.

use assay_evidence::tee::Verified;
use assay_evidence::tee::azure::{AzureClaims, AzureEvidence, AzureExpectation, AzurePlatform, verify};
use assay_evidence::tee::dcap::DcapCollateral;
use assay_evidence::time::UnixTime;
use assay_evidence::{Check, HashAlgorithm, PcrIndex};
use serde_json::{Value, json};

use super::{checks, recorded, recorded_pem};

fn document(name: &str) -> Option<Value> {
    Some(serde_json::from_slice(&recorded(&format!("azure/{name}.json"))?).unwrap())
}

fn judged(document: &Value, nonce: Option<&[u8]>) -> Verified<AzureClaims> {
    let text = serde_json::to_vec(document).unwrap();
    let evidence = AzureEvidence::from_json(&text).unwrap();
    let mut authorities = recorded_pem("snp/roots/milan_ask_ark_asvk.pem").unwrap();
    authorities.extend(recorded_pem("snp/roots/genoa_ask_ark_asvk.pem").unwrap());
    let authorities: Vec<&[u8]> = authorities.iter().map(Vec::as_slice).collect();
    let collateral =
        DcapCollateral::from_json(&recorded("dcap/tdx-v4-gcp-ccel/collateral.json").unwrap()).unwrap();
    let expectation = AzureExpectation {
        nonce,
        authorities: &authorities,
        collateral: Some(&collateral),
        ..AzureExpectation::default()
    };
    // Within the collateral's month.
    verify(&evidence, &expectation, UnixTime::from_rfc3339("2025-07-20T00:00:00Z").unwrap())
}

#[test]
fn genuine_machines_hold() {
    for (name, nonce) in [
        ("snp-milan-v1", Some(b"challenge".as_slice())),
        ("snp-genoa-v0", None),
        ("tdx-v1", Some(b"challenge")),
    ] {
        let Some(document) = document(name) else { return };
        let verified = judged(&document, nonce);
        assert_eq!(checks(&verified.failures), [], "{name}: {:?}", verified.failures);
        let claims = verified.claims.unwrap();
        assert_eq!(claims.nonce.len(), if name == "snp-genoa-v0" { 48 } else { 9 }, "{name}");
        assert!(claims.pcrs.get(HashAlgorithm::Sha256, PcrIndex::new(0).unwrap()).is_some());
        match (name, &claims.platform) {
            ("tdx-v1", AzurePlatform::Tdx(claims)) => {
                let assay_evidence::tee::dcap::Subject::Tdx(guest) = &claims.subject else {
                    panic!("an enclave")
                };
                assert!(!guest.attributes.disables_sept_ve());
            }
            (_, AzurePlatform::Snp(claims)) => assert_eq!(claims.vmpl, 0),
            (name, platform) => panic!("{name}: {platform:?}"),
        }
    }
}

#[test]
fn a_quote_answers_the_nonce_that_was_asked_with() {
    let Some(document) = document("snp-milan-v1") else { return };
    assert_eq!(checks(&judged(&document, Some(b"challenge2")).failures), [Check::QuoteNonce]);
}

/// Each part exchanged for that of another genuine machine, or changed.
#[test]
fn no_part_can_be_anothers() {
    let Some(milan) = document("snp-milan-v1") else { return };
    let tdx = document("tdx-v1").unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut document = milan.clone();
        change(&mut document);
        let verified = judged(&document, None);
        assert!(verified.claims.is_none());
        checks(&verified.failures)
    };
    // Another machine's TPM.
    assert_eq!(
        changed(&|document| document["tpm_quote"] = tdx["tpm_quote"].clone()),
        [Check::QuoteSignature]
    );
    assert_eq!(
        changed(&|document| document["tpm_quote"]["pcrs"][4] = tdx["tpm_quote"]["pcrs"][4].clone()),
        [Check::QuotePcrDigest]
    );
    // The text with the AK, which the hardware's report is over: one digit of the machine's configuration.
    let encoded = milan["hcl_report"].as_str().unwrap().trim_end_matches('=').to_owned();
    let report = data_encoding::BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap();
    let with = |place: usize, byte: u8| {
        let mut report = report.clone();
        report[place] = byte;
        let encoded = data_encoding::BASE64URL_NOPAD.encode(&report);
        changed(&|document| document["hcl_report"] = json!(encoded))
    };
    let text = report.windows(10).position(|window| window == b"HCLEkPub\",").unwrap();
    assert_eq!(with(text, b'X'), [Check::TeeBinding]);
    // A key of the attacker's choice in it.
    let ak = report.windows(8).position(|window| window == b"HCLAkPub").unwrap();
    let modulus = ak + report[ak..].windows(5).position(|window| window == b"\"n\":\"").unwrap() + 20;
    let other = if report[modulus] == b'A' { b'B' } else { b'A' };
    assert_eq!(with(modulus, other), [Check::TeeBinding, Check::QuoteSignature]);
    // The hardware's report itself, and the header between.
    assert_eq!(with(32 + 0x90, 0), [Check::TeeReportSignature]);
    assert_eq!(with(32 + 1184 + 8, 4), [Check::TeeBinding]);
    assert_eq!(with(32 + 1184 + 8, 9), [Check::TeeParse]);
    assert_eq!(with(0, b'h'), [Check::TeeParse]);
}

#[test]
fn documents_of_no_use_are_told() {
    for text in [
        "",
        "[]",
        "{}",
        "{\"hcl_report\":1}",
        "{\"hcl_report\":\"\",\"tpm_quote\":{\"message\":\"\",\"signature\":\"\",\"pcrs\":[]}}",
    ] {
        assert!(AzureEvidence::from_json(text.as_bytes()).is_err(), "{text}");
    }
    let Some(mut document) = document("tdx-v1") else { return };
    document["vcek"] = json!("AAAA");
    assert!(AzureEvidence::from_json(&serde_json::to_vec(&document).unwrap()).is_err());
}
