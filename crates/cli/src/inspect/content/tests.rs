//! The recogniser: whatever it is given, it says something or why it cannot, and it reads no more than it has to.

use std::io::{Cursor, Read};
use std::path::Path;

use proptest::prelude::*;

use super::*;

const CONTEXT: Context = Context { now: UnixTime(1_800_000_000) };

fn kind_of(input: &mut dyn Read) -> Result<&'static str, String> {
    let mut told = 0;
    let report = inspect(input, &CONTEXT, &mut |number, _| {
        assert_eq!(number, told, "each entry is told once and in order");
        told += 1;
    });
    let report = report.map_err(|fault| fault.to_string())?;
    report.print(&mut |line| assert!(!line.contains(char::is_control), "{line:?}"));
    let _ = report.to_json();
    Ok(report.kind)
}

/// A file of the project's vectors.
fn vector(path: &str) -> Vec<u8> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    std::fs::read(vectors.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Genuine files, and what they are.
fn genuine() -> Vec<(&'static str, Vec<u8>)> {
    let mut files: Vec<(&str, Vec<u8>)> = [
        ("boot-log", "tpm/sb-good-1/binary_bios_measurements"),
        ("ima-list", "tpm/sb-good-1/binary_runtime_measurements"),
        ("ima-list", "ima/ima-ng/ascii_runtime_measurements"),
        ("ima-list", "ima/ima/binary_runtime_measurements"),
        ("quote", "tpm/sb-good-1/quote.msg"),
        ("signature", "tpm/sb-good-1/quote.sig"),
        ("pcr-values", "tpm/sb-good-1/quote.pcrs"),
        ("hex", "tpm/sb-good-1/quote.nonce"),
        ("public-area", "tpm/sb-good-1/ak.tpm2b_public"),
        ("name", "tpm/sb-good-1/ak.name"),
        ("ek-certificate", "tpm/sb-good-1/ek-cert.der"),
        ("ca-certificate", "tpm/sb-good-1/ek-root-ca.pem"),
        ("platform-certificate", "tpm/sb-good-1/platform-cert.der"),
        ("platform-attribute-certificate", "field/inspect/platform-attribute-certificate.der"),
        ("certificate-chain", "field/inspect/ek-chain.pem"),
        ("public-key", "field/inspect/public-key.pem"),
        ("public-key", "field/inspect/public-key.der"),
        ("cc-log", "field/inspect/ccel.bin"),
        ("pcr-values", "field/inspect/pcrs.sha256.bin"),
        ("keylime-refstate", "field/inspect/keylime-refstate.json"),
    ]
    .map(|(kind, path)| (kind, vector(path)))
    .into();
    files.push(("measure-log", measured()));
    files.push(("snp-report", snp()));
    files.push(("sgx-quote", dcap(3, 0, 384)));
    files.push(("tdx-quote", dcap(4, 0x81, 584)));
    files.extend(
        [
            ("svid", "identity/svid.der"),
            ("spiffe-authority", "identity/root.der"),
            ("crl", "identity/crl.der"),
            ("policy", "field/policy.toml"),
        ]
        .map(|(kind, path)| (kind, vector(path))),
    );
    files.extend(texts().map(|(kind, text)| (kind, text.into_bytes())));
    files.push(("spdm-measurements", spdm().into_bytes()));
    files.push(("cca-token", vec![0xd9, 0x01, 0x8f, 0xa0]));
    files
}

/// Small samples of the forms that are text.
fn texts() -> [(&'static str, String); 13] {
    let token = |claims: &str| {
        let part = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
        format!("{}.{}.AAAA", part(r#"{"alg":"ES256","kid":"1"}"#), part(claims))
    };
    let digest = "ab".repeat(32);
    let quote = ["quote.msg", "quote.sig", "quote.pcrs"]
        .map(|name| data_encoding::BASE64.encode(&vector(&format!("tpm/sb-good-1/{name}"))));
    let ear = assay_trust::ear::PROFILE;
    [
        ("keylime-quote", format!("r{}", quote.join(":"))),
        (
            "keylime-runtime-policy",
            format!(r#"{{"digests":{{"/a":["{digest}"]}},"excludes":[],"meta":{{"version":1}}}}"#),
        ),
        ("keylime-runtime-policy", format!(r#"{{"hashes":{{"/a":["{digest}"]}},"meta":{{"version":5}}}}"#)),
        ("keylime-tpm-policy", format!(r#"{{"4":["{digest}"],"mask":"0x10"}}"#)),
        ("allowlist", format!("{digest}  /usr/bin/a b\n")),
        (
            "dsse",
            r#"{"payloadType":"a","payload":"e30=","signatures":[{"keyid":"a","sig":"AAAA"}]}"#.to_owned(),
        ),
        ("azure-evidence", r#"{"version":1,"hcl_report":"AAAA","tpm_quote":{}}"#.to_owned()),
        ("jwk-set", r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","x":"AA","y":"AA"}]}"#.to_owned()),
        ("spiffe-bundle", r#"{"keys":[],"spiffe_sequence":1}"#.to_owned()),
        ("jwt-svid", token(r#"{"sub":"spiffe://example.org/web","exp":1900000000}"#)),
        ("jwt", token(r#"{"sub":"somebody"}"#)),
        ("ear", token(&format!(r#"{{"eat_profile":"{ear}","iat":1800000000}}"#))),
        (
            "pcr-values",
            format!("  sha256:\n    0 : 0x{}\n  sm3_256:\n    0 : 0xAB\n  sha1:\n", digest.to_uppercase()),
        ),
    ]
}

/// A request for signed measurements and the beginning of its answer.
fn spdm() -> String {
    let request = [&[0x11, 0xe0, 1, 0xff], [7; 32].as_slice(), &[0]].concat();
    let answer = [0x11, 0x60, 0, 0, 1, 4, 0, 0, 1, 1, 0, 0];
    data_encoding::HEXLOWER.encode(&[request.as_slice(), &answer].concat())
}

fn measured() -> Vec<u8> {
    assay_testkit::machine::measure_record(&[assay_testkit::Bank::Sha256], 11, "phase", "enter-initrd")
}

/// A report as the firmware lays it out, with no signature.
fn snp() -> Vec<u8> {
    let mut report = vec![0; 0x4a0];
    report[0] = 3;
    report[0x34] = 1;
    report[8..16].copy_from_slice(&0x30000u64.to_le_bytes());
    report[0x90..0xc0].fill(0xab);
    report
}

fn dcap(version: u8, tee: u8, body: usize) -> Vec<u8> {
    let mut quote = vec![0; 48 + body];
    (quote[0], quote[2], quote[4]) = (version, 2, tee);
    let vendor = data_encoding::HEXLOWER.decode(b"939a7233f79c4ca9940a0db3957f0607").unwrap();
    quote[12..28].copy_from_slice(&vendor);
    quote.extend(3u32.to_le_bytes());
    quote.extend([1, 2, 3]);
    quote
}

/// Gives a byte at a time.
struct Slow<R>(R);

impl<R: Read> Read for Slow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

/// Goes on with zeros, and counts what is taken.
struct Endless {
    head: Cursor<Vec<u8>>,
    taken: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut count = self.head.read(buffer)?;
        if count == 0 {
            buffer.fill(0);
            count = buffer.len();
        }
        self.taken += count;
        Ok(count)
    }
}

#[test]
fn genuine_files_are_recognised_by_their_content() {
    for (expected, bytes) in genuine() {
        assert_eq!(kind_of(&mut bytes.as_slice()), Ok(expected));
        assert_eq!(kind_of(&mut Slow(bytes.as_slice())), Ok(expected), "a byte at a time");
    }
}

#[test]
fn packed_files_of_each_form_are_read_like_the_files() {
    for (expected, bytes) in genuine() {
        let packed = pack(&bytes);
        let report = inspect(&mut packed.as_slice(), &CONTEXT, &mut |_, _| {}).unwrap();
        let mut plain = inspect(&mut bytes.as_slice(), &CONTEXT, &mut |_, _| {}).unwrap();
        plain = plain.with("packed", "gzip");
        assert_eq!(report.kind, expected);
        assert_eq!(report.to_json(), plain.to_json());
        let cut = kind_of(&mut &packed[..packed.len() - 9]);
        assert!(cut.is_err(), "{expected}: the end of what is packed is missing, and it is {cut:?}");
    }
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// Makers and readers of NV indexes: a header, a filling, an end that is missing.
#[test]
fn certificates_of_nv_indexes_are_found_or_told_apart() {
    let certificate = vector("tpm/sb-good-1/ek-cert.der");
    let said = |bytes: &[u8]| kind_of(&mut &*bytes);
    let header: &[u8] = &[0x10, 1, 0, 1, 0x32, 0x10, 2];
    for (before, after) in [
        (&[][..], &[0; 300][..]),
        (&[], &[0xff; 300]),
        (header, &[]),
        (header, &[0; 40]),
        (&[0, 0, 3, 0xe8], &[]),
    ] {
        assert_eq!(said(&[before, &certificate, after].concat()), Ok("ek-certificate"));
        let cut = [before, &certificate[..certificate.len() - 100]].concat();
        let error = said(&cut).unwrap_err();
        let words = format!("of the {} bytes that it says it has", certificate.len());
        assert!(error.contains(&words), "{error}");
    }
}

/// Every form, broken: what is said names the form and the place, or at the least that nothing here is of that form.
#[test]
fn what_is_broken_says_what_and_where() {
    let cut = |path: &str, keep: usize| vector(path)[..keep].to_vec();
    let altered = |path: &str, at: usize, byte: u8| {
        let mut bytes = vector(path);
        bytes[at] = byte;
        bytes
    };
    let texts = |path: &str, from: &str, to: &str| {
        let text = String::from_utf8(vector(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let platform = "field/inspect/platform-attribute-certificate.der";
    let chain = "field/inspect/ek-chain.pem";
    let validity = vector(platform).windows(4).position(|bytes| bytes == b"2025").unwrap();
    let mut wrong = Vec::new();
    for (bytes, words) in [
        (
            cut("field/inspect/ccel.bin", 300),
            "a boot log of a confidential machine, and is none: event 3 at byte",
        ),
        (altered("field/inspect/ccel.bin", 65, 9), "event 1 at byte 65: it extends measurement register 9"),
        (cut("tpm/sb-good-1/platform-cert.der", 700), "700 of the"),
        (cut(platform, 200), "an attribute certificate, and is none: its"),
        (altered(platform, validity, b'X'), "an attribute certificate, and is none: its validity"),
        ([vector(platform), vec![7; 9]].concat(), "9 bytes follow it"),
        (texts(chain, "MII", "!!!"), "PEM, and is none: section 0: "),
        (
            texts(chain, "-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\n", ""),
            "PEM, and is none: section 0: ",
        ),
        (cut(chain, 2000), "PEM, and is none: section 1: "),
        (texts("field/inspect/public-key.pem", "MFkw", "AAAA"), "a public key, and is none"),
        (altered("field/inspect/public-key.der", 20, 0), "it is DER, and neither"),
        (texts("field/inspect/keylime-refstate.json", ": true,", ": tru,"), "JSON, and is none"),
        (cut("field/inspect/keylime-refstate.json", 500), "EOF while parsing a string at line 22 column"),
        (cut("tpm/sb-good-1/quote.pcrs", 100), "PCR values as tpm2-tools write them, and is none: "),
        (
            altered("tpm/sb-good-1/quote.pcrs", 4 + 16 * 8, 0xff),
            "PCR values as tpm2-tools write them, and is none: ",
        ),
        (cut("field/inspect/pcrs.sha256.bin", 767), "it is binary"),
        (b"sha256:\n  7 : 0xab\n".to_vec(), "line 2: no PCR with a digest of its bank"),
        (b"sha256:\n  77 : 0x00\n".to_vec(), "line 2: no PCR"),
        (snp()[..0x4a0 - 1].to_vec(), "it is binary"),
        (dcap(4, 0x81, 584)[..500].to_vec(), "a TDX or SGX quote, and is none: "),
        (dcap(4, 0x7f, 584), "its TEE type 0x7f is not known"),
        (cut("tpm/sb-good-1/quote.msg", 90), "a TPM's statement, and is none: "),
        (cut("tpm/sb-good-1/quote.sig", 200), "a TPM's signature, and is none: "),
        (altered("tpm/sb-good-1/ak.tpm2b_public", 11, 0xff), "a public area, and is none: "),
        (cut("identity/crl.der", 200), "DER, and is none: 200 of the 263 bytes that it says it has"),
        (measured()[..40].to_vec(), "systemd's measurement log, and is none: "),
    ] {
        let said = kind_of(&mut bytes.as_slice());
        if !said.as_ref().is_err_and(|error| error.contains(words)) {
            wrong.push(format!("{said:?}, not {words:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Public halves are shown, and of the others nothing, in whatever they come.
#[test]
fn of_private_keys_nothing_is_shown() {
    let sec1 = [&[0x30, 0x77, 2, 1, 1, 4, 0x20][..], &[7; 114]].concat();
    let pkcs8 = [&[0x30, 0x81, 0x87, 2, 1, 0, 0x30, 0x13][..], &[7; 130]].concat();
    let rsa = [&[0x30, 0x82, 4, 0xa3, 2, 1, 0, 2][..], &[7; 1184]].concat();
    let jwk = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"secret"}]}"#.to_vec();
    let shared = br#"{"keys":[{"kty":"oct","k":"secret"}]}"#.to_vec();
    for bytes in [sec1, pkcs8, rsa, jwk, shared] {
        let said = kind_of(&mut bytes.as_slice());
        assert!(said.as_ref().is_err_and(|error| error.contains("a private key")), "{said:?}");
    }
}

#[test]
fn nothing_is_read_past_its_bound() {
    for (kind, bytes) in genuine() {
        let mut endless = Endless { head: Cursor::new(bytes), taken: 0 };
        let said = kind_of(&mut endless);
        assert!(said.is_err(), "{kind} that never ends is {said:?}");
        assert!(endless.taken <= PEM_BYTES_MAX.max(TEXT_BYTES_MAX) + HEAD_BYTES, "{kind}: {}", endless.taken);
    }
}

#[test]
fn a_debugged_machine_keeps_nothing_and_that_is_said() {
    let errors = |bytes: Vec<u8>| {
        let report = inspect(&mut bytes.as_slice(), &CONTEXT, &mut |_, _| {}).unwrap();
        report.to_json().to_string().matches("keeps nothing from the host").count()
    };
    let debugged = |mut bytes: Vec<u8>, at: usize, bit: u8| {
        bytes[at] |= bit;
        bytes
    };
    assert_eq!(errors(snp()) + errors(dcap(3, 0, 384)) + errors(dcap(4, 0x81, 584)), 0);
    assert_eq!(errors(debugged(snp(), 10, 8)), 1);
    assert_eq!(errors(debugged(dcap(3, 0, 384), 48 + 48, 2)), 1);
    assert_eq!(errors(debugged(dcap(4, 0x81, 584), 48 + 120, 1)), 1);
}

proptest! {
    #[test]
    fn no_bytes_end_the_program(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let whole = kind_of(&mut bytes.as_slice());
        prop_assert_eq!(whole, kind_of(&mut Slow(bytes.as_slice())));
    }

    /// What begins like a genuine file leads a reader further than noise does.
    #[test]
    fn no_altered_file_ends_the_program(
        file in 0usize..64, at in any::<prop::sample::Index>(), byte: u8, keep in any::<prop::sample::Index>(),
        more in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let files = genuine();
        let (_, bytes) = &files[file % files.len()];
        let mut bytes = bytes[..bytes.len().min(30_000)].to_vec();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = kind_of(&mut bytes.as_slice());
        bytes.truncate(keep.index(bytes.len()));
        bytes.extend(more);
        let _ = kind_of(&mut bytes.as_slice());
    }
}
