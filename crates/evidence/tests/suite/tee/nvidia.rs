//! An NVIDIA GPU: a genuine H100, and every way to make another of it.

use assay_evidence::Check;
use assay_evidence::tee::Verified;
use assay_evidence::tee::nvidia::{NvidiaClaims, NvidiaEvidence, NvidiaExpectation, is_transcript, verify};
use assay_evidence::time::UnixTime;
use proptest::prelude::*;

use super::{checks, recorded, recorded_pem, with_a_longer_life};

fn transcript() -> Option<Vec<u8>> {
    let hex = recorded("nvidia/h100-report.hex")?;
    Some(data_encoding::HEXLOWER.decode(hex.trim_ascii()).unwrap())
}

fn judged(transcript: &[u8], chain: &[Vec<u8>], nonce: Option<[u8; 32]>) -> Verified<NvidiaClaims> {
    let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
    let expectation = NvidiaExpectation { nonce, ..NvidiaExpectation::default() };
    verify(&NvidiaEvidence { transcript, chain: &chain }, &expectation, UnixTime(1_790_000_000))
}

#[test]
fn a_genuine_gpu_holds() {
    let Some(transcript) = transcript() else { return };
    let chain = recorded_pem("nvidia/h100-chain.pem").unwrap();
    assert!(is_transcript(&transcript));
    let nonce: [u8; 32] = transcript[4..36].try_into().unwrap();
    let verified = judged(&transcript, &chain, Some(nonce));
    assert_eq!(checks(&verified.failures), [], "{:?}", verified.failures);
    let claims = verified.claims.unwrap();
    assert_eq!((claims.measurements.len(), claims.driver.as_deref()), (64, Some("550.90.07")));
    assert_eq!(claims.vbios.as_deref(), Some("96.00.9F.00.01"));
    assert!(claims.device.contains("GH100"), "{}", claims.device);
    // As some drivers hand it over.
    let longer = [transcript.as_slice(), &[0]].concat();
    assert_eq!(checks(&judged(&longer, &chain, None).failures), []);
    assert_eq!(checks(&judged(&transcript, &chain, Some([7; 32])).failures), [Check::TeeReportData]);
    // A root of the sender's own, or none.
    assert_eq!(checks(&judged(&transcript, &chain[..4], None).failures), [Check::TeeChain]);
    // The maker's root, with a life that its key did not sign.
    let mut edited = chain.clone();
    edited[4] = with_a_longer_life(&chain[4]);
    assert_eq!(checks(&judged(&transcript, &edited, None).failures), [Check::TeeChain]);
    // Another key of the same chain.
    assert!(checks(&judged(&transcript, &chain[1..], None).failures).contains(&Check::TeeReportSignature));
    assert_eq!(checks(&judged(&transcript, &[], None).failures), [Check::TeeEndorsement]);
}

#[test]
fn a_transcript_cut_anywhere_is_refused() {
    let Some(transcript) = transcript() else { return };
    let chain = recorded_pem("nvidia/h100-chain.pem").unwrap();
    for length in 0..transcript.len() {
        let verified = judged(&transcript[..length], &chain, None);
        assert_eq!(checks(&verified.failures), [Check::TeeParse], "{length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bit_of_a_transcript_can_be_another(position in any::<proptest::sample::Index>(), bit in 0_u32..8) {
        let Some(mut transcript) = transcript() else { return Ok(()) };
        let chain = recorded_pem("nvidia/h100-chain.pem").unwrap();
        let position = position.index(transcript.len());
        transcript[position] ^= 1 << bit;
        prop_assert!(judged(&transcript, &chain, None).claims.is_none(), "position {position}, bit {bit}");
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let bytes = [&[0x11, 0xe0], bytes.as_slice()].concat();
        prop_assert!(judged(&bytes, std::slice::from_ref(&bytes), None).claims.is_none());
    }
}
