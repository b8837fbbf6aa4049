//! Writes systemd's log of what user space measured, as systemd-pcrextend does: a JSON text sequence.

use data_encoding::HEXLOWER;

use crate::Bank;

/// The record of words that were measured into a PCR.
pub fn measure_record(banks: &[Bank], pcr: u32, kind: &str, words: &str) -> Vec<u8> {
    let digest = |bank: &Bank| {
        let digest = HEXLOWER.encode(&bank.hash(words.as_bytes()));
        format!("{{\"hashAlg\":\"{}\",\"digest\":\"{digest}\"}}", bank.name())
    };
    let digests: Vec<String> = banks.iter().map(digest).collect();
    let words = words.replace('\\', "\\\\").replace('"', "\\\"");
    let record = format!(
        "{{\"pcr\":{pcr},\"digests\":[{}],\"content_type\":\"systemd\",\"content\":{{\"string\":\"{words}\",\"bootId\":\
         \"2f6cb1d2bf7f4d3fb0d5a4f0f3a1c001\",\"timestamp\":3721094,\"eventType\":\"{kind}\"}}}}\n",
        digests.join(",")
    );
    [b"\x1e".as_slice(), record.as_bytes()].concat()
}
