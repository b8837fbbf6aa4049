//! What a node of SPIRE's sends to attest. What reads as an EK is one that a template is for; the rest need only not fail.
#![no_main]

use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::{ShownEk, verify_creation};
use assay_fuzz::{part, vector};
use assay_identity::x509pop::{Anchors, Answer};
use assay_identity::{TrustDomain, UnixTime};
use assay_wire::node_attestors::{CertificateShown, Possession, TpmShown, tpm_answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 6);
    match number {
        0 => {
            if let Ok(TpmShown { ek_pem, ak }) = TpmShown::read(bytes) {
                ek(&ek_pem.0);
                if let Ok(public) = PublicArea::parse(&ak.public.0) {
                    let (data, info) = (&ak.creation_data.0, &ak.creation_info.0);
                    verify_creation(&public, data, info, &ak.creation_signature.0);
                }
            }
        }
        1 => drop(tpm_answer(bytes)),
        2 => ek(bytes),
        3 => {
            if let Ok(CertificateShown { certificates }) = CertificateShown::read(bytes) {
                let chain: Vec<Vec<u8>> = certificates.into_iter().map(|der| der.0).collect();
                certificate(&chain);
            }
        }
        4 => certificate(&[bytes]),
        _ => drop(Possession::read(bytes)),
    }
});

fn ek(pem: &[u8]) {
    if let Ok(ek) = ShownEk::from_pem(pem) {
        let area = PublicArea::parse_tpm2b(&ek.public_area()).expect("a template is a public area");
        assert_eq!(area.check_ek(), []);
        assert_eq!(area.spki_der(), ek.spki_der());
    }
}

fn certificate<C: AsRef<[u8]>>(chain: &[C]) {
    // The one above the vectors' SVID, so that a path may be found.
    let root = data_encoding::BASE64.encode(vector!("identity/issuing.der"));
    let pem = format!("-----BEGIN CERTIFICATE-----\n{root}\n-----END CERTIFICATE-----\n");
    let anchors = Anchors::from_pem(pem.as_bytes()).expect("the vector reads");
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_790_000_000));
    if let Ok(shown) = anchors.verify(chain, now) {
        let domain = TrustDomain::parse("fuzz.example").expect("a name");
        let _ = (shown.spiffe_id(&domain), shown.selectors(&domain));
        assert!(shown.possessed(&[1; 32], &[2; 32], Answer::Rsa(&[3; 256])).is_err());
        assert!(shown.possessed(&[1; 32], &[2; 32], Answer::Ecdsa(&[3; 32], &[4; 32])).is_err());
    }
}
