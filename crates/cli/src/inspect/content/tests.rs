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
    ]
    .map(|(kind, path)| (kind, vector(path)))
    .into();
    files.push(("measure-log", measured()));
    files.push(("snp-report", snp()));
    files.push(("sgx-quote", dcap(3, 0, 384)));
    files.push(("tdx-quote", dcap(4, 0x81, 584)));
    files.push(("cca-token", vec![0xd9, 0x01, 0x8f, 0xa0]));
    files
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
