//! What Keylime's agents and tenants send. What reads as evidence was asked for; the rest need only not fail.
#![no_main]

use assay_evidence::request::Challenge;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{HashAlgorithm, PcrIndex};
use assay_fuzz::{part, vector};
use assay_wire::keylime::attestation::{Capabilities, Request};
use assay_wire::keylime::evidence::Presented;
use assay_wire::keylime::registration::{Registration, read_proof};
use assay_wire::keylime::session::{Proof, read_beginning};
use assay_wire::keylime::tenant::{Enrolment, read_runtime_policy};
use assay_wire::keylime::{AgentId, read_quote};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 9);
    match number {
        0 => drop(Registration::read(bytes)),
        1 => drop(read_proof(bytes)),
        2 => {
            if let Ok(id) = read_beginning(bytes) {
                assert_eq!(AgentId::parse(id.as_str()), Ok(id));
            }
        }
        3 => drop(Proof::read(bytes)),
        4 => drop(Capabilities::read(bytes).map(request)),
        5 => {
            let capabilities =
                Capabilities::read(vector!("keylime/capabilities-2.json")).expect("the vector reads");
            let request = request(capabilities).expect("the vector's AK can be asked");
            if let Ok(evidence) = request.read(bytes) {
                assert!(evidence.boot_log.is_none(), "this agent has none");
            }
        }
        6 => drop(Presented::read(bytes)),
        7 => drop(Enrolment::read(bytes).map(|_| read_runtime_policy(bytes))),
        _ => drop(std::str::from_utf8(bytes).map(read_quote)),
    }
});

fn request(capabilities: Capabilities) -> Option<Request> {
    let registration = Registration::read(vector!("keylime/registration.json")).expect("the vector reads");
    let ak = PublicArea::parse_tpm2b(&registration.ak_public).expect("the vector's AK reads");
    let challenge = Challenge {
        nonce: [7; 32],
        selection: vec![(HashAlgorithm::Sha256, (0..24).filter_map(PcrIndex::new).collect())],
        watched: Vec::new(),
        boot_log_wanted: true,
        ima_from_entry: 2,
        banks_wanted: false,
    };
    Request::of(&challenge, capabilities, &ak)
}
