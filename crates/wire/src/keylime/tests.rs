//! The protocol's encodings, byte for byte, and what does not read.

use assay_evidence::request::Challenge;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{HashAlgorithm, PcrIndex};
use data_encoding::BASE64;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::attestation::{Capabilities, Request};
use super::registration::{Registration, credential, read_proof};
use super::session::{Proof, read_beginning};
use super::{AgentId, KeylimeError, is_version};

#[test]
fn an_agents_id_is_a_word_of_some_length() {
    for id in ["d432fbb3-d2f1-4a97-9ef7-75bd81c00000", "a", "host_7.example", &"f".repeat(80)] {
        assert_eq!(AgentId::parse(id).unwrap().as_str(), id);
    }
    for id in ["", "a b", "a/b", "ä", "a\n", &"f".repeat(81)] {
        assert_eq!(AgentId::parse(id), Err(KeylimeError::AgentId), "{id:?}");
    }
}

#[test]
fn versions_are_those_whose_enrolment_has_the_ak() {
    assert!(["v2", "v2.1", "v2.6"].into_iter().all(is_version));
    assert!(!["v1.0", "v2.0", "v2.7", "v3.0", "2.6", "v"].into_iter().any(is_version));
}

#[test]
fn a_credential_begins_as_those_of_tpm2_tools_do() {
    let blob = credential(&[0, 1, 7], &[0, 2, 8, 9]);
    assert!(blob.starts_with("utzA3gAAAAE"), "{blob}");
    let bytes = BASE64.decode(blob.as_bytes()).unwrap();
    assert_eq!(bytes, [0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1, 0, 1, 7, 0, 2, 8, 9]);
}

#[test]
fn keys_that_there_are_none_of_are_missing_null_or_empty() {
    let with = |none: Value| {
        json!({
            "ek_tpm": "AAEC", "aik_tpm": "AwQF", "ekcert": none, "iak_tpm": none, "iak_cert": none, "iak_attest": none,
            "iak_sign": none, "idevid_tpm": none, "idevid_cert": none, "mtls_cert": none, "ip": none,
        })
    };
    let read = |body: Value| Registration::read(body.to_string().as_bytes());
    let expected = read(json!({ "ek_tpm": "AAEC", "aik_tpm": "AwQF" })).unwrap();
    assert_eq!(expected.identity.ek_public.as_ref(), [0, 1, 2]);
    assert_eq!(read(with(Value::Null)).as_ref(), Ok(&expected));
    assert_eq!(read(with("".into())).as_ref(), Ok(&expected));
    assert_eq!(read(json!({ "ek_tpm": "AAEC" })), Err(KeylimeError::Missing("aik_tpm")));
    assert_eq!(read(json!({ "aik_tpm": "AAEC", "ek_tpm": null })), Err(KeylimeError::Missing("ek_tpm")));
    let malformed = KeylimeError::Encoding { member: "aik_tpm", form: "base64" };
    assert_eq!(read(json!({ "ek_tpm": "AAEC", "aik_tpm": "AwQ" })), Err(malformed));
}

#[test]
fn certificates_are_pem_leaf_first_or_one_in_base64() {
    let pem = |der: &str| format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
    let read = |ekcert: String| {
        let body = json!({ "ek_tpm": "AAEC", "aik_tpm": "AwQF", "ekcert": ekcert }).to_string();
        Registration::read(body.as_bytes())
            .map(|read| (read.identity.ek_certificate, read.identity.ek_intermediates))
    };
    assert_eq!(read("AQI=".into()).unwrap(), (vec![1, 2].into(), Vec::new()));
    assert_eq!(read(pem("AQI=") + &pem("AwQ=")).unwrap(), (vec![1, 2].into(), vec![vec![3, 4].into()]));
    assert!(read(pem("A!")).is_err());
}

#[test]
fn a_proof_is_hexadecimal() {
    let read = |tag: &str| read_proof(json!({ "auth_tag": tag }).to_string().as_bytes());
    assert_eq!(
        (read("00ffAB").unwrap(), read("0").is_err(), read("xy").is_err()),
        (vec![0, 255, 0xab], true, true)
    );
}

#[test]
fn a_session_is_for_who_can_show_a_key() {
    let beginning = |kind: &str, method: &str| {
        let supported = json!([{ "authentication_class": "pop", "authentication_type": method }]);
        let attributes = json!({ "agent_id": "a", "authentication_supported": supported });
        read_beginning(json!({ "data": { "type": kind, "attributes": attributes } }).to_string().as_bytes())
    };
    assert_eq!(beginning("session", "tpm_pop").unwrap().as_str(), "a");
    assert!(matches!(beginning("session", "password"), Err(KeylimeError::Missing(_))));
    assert!(matches!(beginning("attestation", "tpm_pop"), Err(KeylimeError::Unexpected { .. })));
}

/// An ECC key, bound to ECDSA with SHA-256.
fn ak() -> PublicArea {
    let mut area = vec![0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10];
    // The generator of P-256.
    for coordinate in [
        "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296",
        "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
    ] {
        area.extend([0, 32]);
        area.extend(data_encoding::HEXLOWER.decode(coordinate.as_bytes()).unwrap());
    }
    PublicArea::parse(&area).unwrap()
}

fn capabilities(ak: &PublicArea, entries: u64) -> Vec<u8> {
    let key = json!({
        "key_class": "asymmetric", "key_algorithm": "ecc", "key_size": 256, "server_identifier": "ak",
        "local_identifier": "000b", "public": BASE64.encode(ak.raw()), "allowable_hash_algorithms": ["sha256"],
    });
    let log = json!({ "entry_count": entries, "formats": ["text/plain"] });
    let supported = json!([
        { "evidence_class": "certification", "evidence_type": "tpm_quote", "capabilities": { "certification_keys": [key] } },
        { "evidence_class": "log", "evidence_type": "uefi_log", "capabilities": log },
        { "evidence_class": "log", "evidence_type": "ima_log", "capabilities": log },
        { "evidence_class": "log", "evidence_type": "other", "capabilities": {} },
    ]);
    let attributes = json!({ "evidence_supported": supported, "system_info": {} });
    json!({ "data": { "type": "attestation", "attributes": attributes } }).to_string().into_bytes()
}

fn request(entries: u64) -> Request {
    let (ak, pcr) = (ak(), |index| PcrIndex::new(index).unwrap());
    let capabilities = Capabilities::read(&capabilities(&ak, entries)).unwrap();
    assert!(capabilities.is_of(&ak));
    let challenge = Challenge {
        nonce: [7; 32],
        selection: vec![
            (HashAlgorithm::Sha1, vec![pcr(0)]),
            (HashAlgorithm::Sha256, vec![pcr(10), pcr(0), pcr(23)]),
        ],
        watched: vec![(HashAlgorithm::Sha256, vec![pcr(10), pcr(11)])],
        boot_log_wanted: true,
        ima_from_entry: 40,
        banks_wanted: true,
    };
    Request::of(&challenge, capabilities, &ak).unwrap()
}

#[test]
fn an_agent_is_asked_for_what_it_can_show_by_its_own_key() {
    let told = request(3).told(assay_evidence::time::UnixTime(0), assay_evidence::time::UnixTime(30));
    let requested = told.pointer("/data/attributes/evidence_requested").unwrap().as_array().unwrap();
    let [quote, boot, list] = requested.as_slice() else { panic!("{requested:?}") };
    let parameters = quote.get("chosen_parameters").unwrap();
    assert_eq!(parameters["selected_subjects"], json!({ "sha256": [0, 10, 11, 16, 23] }));
    assert_eq!(
        (&parameters["signature_scheme"], &parameters["hash_algorithm"]),
        (&json!("ecdsa"), &json!("sha256"))
    );
    assert_eq!(parameters["certification_key"]["local_identifier"], "000b");
    // An agent would take a quote's parameters for those of a log.
    assert!(parameters.get("format").is_none());
    assert_eq!(boot["evidence_type"], "uefi_log");
    assert_eq!(list["chosen_parameters"], json!({ "format": "text/plain", "starting_offset": 40 }));
    // Of logs that it has nothing of, nothing is asked.
    let told = request(0).told(assay_evidence::time::UnixTime(0), assay_evidence::time::UnixTime(30));
    assert_eq!(told.pointer("/data/attributes/evidence_requested").unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn what_was_not_asked_for_is_passed_over() {
    let collected = json!([
        { "evidence_class": "certification", "evidence_type": "tpm_quote",
          "data": { "message": "AQ==", "signature": "Ag==", "subject_data": BASE64.encode(&[0; 136]) } },
        { "evidence_class": "log", "evidence_type": "ima_log", "data": { "entry_count": 1, "entries": "10 ab\n" } },
    ]);
    let body =
        json!({ "data": { "type": "attestation", "attributes": { "evidence_collected": collected } } })
            .to_string();
    let evidence = request(3).read(body.as_bytes()).unwrap();
    assert_eq!(
        (evidence.ima_log.as_ref(), evidence.ima_from_entry, evidence.ima_ascii),
        (&b"10 ab\n"[..], 40, true)
    );
    assert_eq!((evidence.nonce.as_ref(), evidence.boot_log), (&[7; 32][..], None));
    let without = request(0).read(body.as_bytes()).unwrap();
    assert_eq!((without.ima_log.len(), without.ima_from_entry), (0, 0));
}

proptest! {
    #[test]
    fn no_body_makes_a_reader_panic(body in any::<Vec<u8>>(), text in "\\PC{0,200}") {
        let request = request(3);
        for body in [body.as_slice(), text.as_bytes()] {
            let _ = Registration::read(body);
            let _ = read_proof(body);
            let _ = read_beginning(body);
            let _ = Proof::read(body);
            let _ = Capabilities::read(body);
            let _ = request.read(body);
        }
    }
}

/// What an agent of Keylime's said, recorded by a run of ours: see the folder's README.
mod recorded {
    use assay_evidence::time::UnixTime;
    use assay_evidence::tpm::certify::verify_possession;
    use assay_evidence::verify::{Evidence, Expectation, QuoteEvidence, Verification, verify};

    use super::*;

    macro_rules! vector {
        ($name:literal) => {
            include_bytes!(concat!("../../../../vectors/keylime/", $name, ".json")).as_slice()
        };
    }

    fn json(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    fn bytes(value: Option<&Value>) -> Vec<u8> {
        BASE64.decode(value.and_then(Value::as_str).unwrap().as_bytes()).unwrap()
    }

    fn ak() -> PublicArea {
        let registration = Registration::read(vector!("registration")).unwrap();
        PublicArea::parse_tpm2b(&registration.ak_public).unwrap()
    }

    #[test]
    fn it_registers_with_keys_that_pass_and_a_certificate_of_its_ek() {
        let registration = Registration::read(vector!("registration")).unwrap();
        let ek = PublicArea::parse_tpm2b(&registration.identity.ek_public).unwrap();
        assert_eq!((ek.check_ek(), ak().check_ak()), (Vec::new(), Vec::new()));
        assert_eq!(registration.identity.ek_certificate.first(), Some(&0x30));
        assert_eq!(registration.contact.certificate, "disabled");
        assert!(registration.identity.iak_public.is_empty());
    }

    #[test]
    fn it_shows_its_ak_over_the_challenge_and_over_no_other() {
        let asked = json(vector!("session-asked"));
        let challenge =
            bytes(asked.pointer("/data/attributes/authentication_requested/0/chosen_parameters/challenge"));
        let proof = Proof::read(vector!("session-shown")).unwrap();
        assert_eq!(verify_possession(&ak(), &proof.message, &proof.signature, &challenge), Vec::new());
        let other = verify_possession(&ak(), &proof.message, &proof.signature, &[7; 32]);
        assert_eq!(other.len(), 1, "{other:?}");
    }

    /// The challenge that was asked with, and what was shown in answer.
    fn attestation(
        capabilities: &[u8],
        asked: &[u8],
        shown: &[u8],
    ) -> (Request, assay_evidence::request::Evidence) {
        let recorded = json(asked);
        let requested = recorded.pointer("/data/attributes/evidence_requested").unwrap();
        let nonce = bytes(requested.pointer("/0/chosen_parameters/challenge"));
        let from = requested.pointer("/1/chosen_parameters/starting_offset").and_then(Value::as_u64).unwrap();
        let capabilities = Capabilities::read(capabilities).unwrap();
        assert!(capabilities.is_of(&ak()) && capabilities.ima_list && !capabilities.boot_log);
        let all = (0..24).filter_map(PcrIndex::new).collect();
        let challenge = Challenge {
            nonce: nonce.try_into().unwrap(),
            selection: vec![(HashAlgorithm::Sha256, all)],
            watched: Vec::new(),
            boot_log_wanted: true,
            ima_from_entry: from,
            banks_wanted: false,
        };
        let request = Request::of(&challenge, capabilities, &ak()).unwrap();
        let told = request.told(UnixTime(0), UnixTime(0));
        assert_eq!(
            told.pointer("/data/attributes/evidence_requested"),
            Some(requested),
            "as it was asked then"
        );
        let evidence = request.read(shown).unwrap();
        (request, evidence)
    }

    fn verified(evidence: &assay_evidence::request::Evidence, expectation: &Expectation<'_>) -> Verification {
        let registration = Registration::read(vector!("registration")).unwrap();
        let assay_evidence::request::Evidence { quote, nonce, ima_from_entry, .. } = evidence;
        let quotes = vec![QuoteEvidence {
            label: "quote",
            message: &quote.message,
            signature: &quote.signature,
            pcrs: quote.pcrs.clone(),
            nonce,
            ak_public: None,
        }];
        let evidence = Evidence {
            ak_public: &registration.ak_public,
            quotes,
            boot_log: evidence.boot_log(),
            measure_log: None,
            ima_log: evidence.ima_log(),
            ima_from_entry: *ima_from_entry,
            banks: None,
        };
        verify(&evidence, expectation)
    }

    #[test]
    fn its_evidence_verifies_first_whole_and_then_by_what_is_new() {
        let (_, first) = attestation(vector!("capabilities-1"), vector!("asked-1"), vector!("shown-1"));
        assert_eq!(first.ima_from_entry, 0);
        let verification = verified(&first, &Expectation::default());
        let claims = verification.claims.unwrap_or_else(|| panic!("{:?}", verification.failures));
        assert_eq!(claims.ima().unwrap().attested_total(), 4);
        let baseline = claims.baseline(4);
        let (_, second) = attestation(vector!("capabilities-2"), vector!("asked-2"), vector!("shown-2"));
        assert_eq!((second.ima_from_entry, second.ima_log.len()), (4, 0));
        let known = Expectation { baseline: Some(&baseline), ..Expectation::default() };
        let verification = verified(&second, &known);
        assert!(verification.claims.is_some(), "{:?}", verification.failures);
        // The one's quote is no answer to the other's challenge, nor is its list the rest of the other's.
        let swapped = assay_evidence::request::Evidence { nonce: first.nonce.clone(), ..second };
        assert!(verified(&swapped, &known).claims.is_none());
    }

    #[test]
    fn no_part_of_its_quote_can_be_another() {
        let (request, _) = attestation(vector!("capabilities-1"), vector!("asked-1"), vector!("shown-1"));
        for (member, at) in [("message", 100), ("signature", 160), ("subject_data", 160)] {
            let mut shown = json(vector!("shown-1"));
            let data = shown.pointer_mut("/data/attributes/evidence_collected/0/data").unwrap();
            let mut changed = bytes(data.get(member));
            *changed.get_mut(at).unwrap() ^= 1;
            *data.get_mut(member).unwrap() = BASE64.encode(&changed).into();
            let evidence = request.read(shown.to_string().as_bytes());
            assert!(
                evidence.is_err() || verified(&evidence.unwrap(), &Expectation::default()).claims.is_none(),
                "{member}"
            );
        }
    }
}
