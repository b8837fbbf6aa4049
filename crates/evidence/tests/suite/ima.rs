//! IMA lists from outside: real ones replay, changed ones do not, and no bytes make a parser panic.

use std::fs;

use assay_evidence::ima::{
    ENTRIES_MAX, Extension, ImaErrorKind, List, QuotedPcr, Replay, SigningKey, Template, attested_prefix,
    expected_boot_aggregate, parse_ascii, parse_binary,
};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::verify::ImaLog;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use proptest::prelude::*;

use crate::files::{Expected, recorded, recorded_cases, recorded_pcrs, vector};

const VECTORS: [&str; 6] = ["ima", "ima-ng", "ima-ngv2", "ima-sig", "ima-buf", "violations"];
const BANKS: [HashAlgorithm; 3] = [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384];

fn binary_of(name: &str) -> Vec<u8> {
    vector(&format!("ima/{name}/binary_runtime_measurements"))
}

fn ascii_of(name: &str) -> Vec<u8> {
    vector(&format!("ima/{name}/ascii_runtime_measurements"))
}

fn quoted_of(name: &str) -> Vec<QuotedPcr> {
    own_pcr(&Expected::of(&format!("ima/{name}")).pcrs())
}

fn own_pcr(pcrs: &PcrValues) -> Vec<QuotedPcr> {
    BANKS.iter().filter_map(|bank| Some((PcrIndex::IMA, *pcrs.get(*bank, PcrIndex::IMA)?))).collect()
}

#[test]
fn vectors_replay_in_every_bank() {
    for name in VECTORS {
        let list = parse_binary(&binary_of(name)).unwrap();
        let expected = Expected::of(&format!("ima/{name}"));
        assert_eq!(list.len(), expected.count("entries"), "{name}");
        let (prefix, bad) = attested_prefix(&list, &Replay::new(&BANKS), &quoted_of(name));
        let prefix = prefix.unwrap_or_else(|| panic!("{name} does not replay"));
        assert_eq!((prefix.entries, bad.len()), (list.len(), 0), "{name}");
        // Linux 6.1 could not compute SHA-384 when it began; 6.12 could.
        let sha384 = if name == "ima-buf" { Extension::Native } else { Extension::Sha1Padded };
        let ways: Vec<Extension> = prefix.replay.chains().iter().map(|chain| chain.extension).collect();
        assert_eq!(ways, [Extension::Native, Extension::Native, sha384], "{name}");
    }
}

#[test]
fn both_forms_say_the_same() {
    for name in VECTORS {
        assert_eq!(parse_ascii(&ascii_of(name)).unwrap(), parse_binary(&binary_of(name)).unwrap(), "{name}");
    }
}

#[test]
fn a_list_is_kept_in_parts_that_say_the_same() {
    for name in VECTORS {
        let (binary, ascii) = (binary_of(name), ascii_of(name));
        let whole = parse_binary(&binary).unwrap();
        for entries in 0..=whole.len() {
            let count = entries as u64;
            let (start, rest) = binary.split_at(ImaLog::Binary(&binary).offset(count).unwrap());
            assert_eq!(parse_binary(start).unwrap().len(), entries, "{name}");
            assert_eq!(parse_binary(rest).unwrap().len(), whole.len() - entries, "{name}");
            let (start, rest) = ascii.split_at(ImaLog::Ascii(&ascii).offset(count).unwrap());
            assert_eq!(parse_ascii(start).unwrap().len(), entries, "{name}");
            assert_eq!(parse_ascii(rest).unwrap().len(), whole.len() - entries, "{name}");
        }
        let more = whole.len() as u64 + 1;
        assert_eq!((ImaLog::Binary(&binary).offset(more), ImaLog::Ascii(&ascii).offset(more)), (None, None));
    }
}

#[test]
fn boot_aggregate_is_over_the_boot_pcrs() {
    for name in VECTORS {
        let pcrs = Expected::of(&format!("ima/{name}")).pcrs();
        let list = parse_binary(&binary_of(name)).unwrap();
        let first = list.entry(0).unwrap();
        assert!(first.is_boot_aggregate(), "{name}");
        let digest = first.file_digest().unwrap();
        assert_eq!(Some(digest), expected_boot_aggregate(digest.algorithm(), &pcrs), "{name}");
    }
}

#[test]
fn recorded_cases_replay() {
    for case in recorded_cases("binary_runtime_measurements") {
        let list = parse_binary(&fs::read(case.join("binary_runtime_measurements")).unwrap()).unwrap();
        let ascii = parse_ascii(&fs::read(case.join("ascii_runtime_measurements")).unwrap()).unwrap();
        assert!(list == ascii, "{case:?}: the forms differ");
        let quoted = own_pcr(&recorded_pcrs(&case));
        let (prefix, bad) = attested_prefix(&list, &Replay::new(&BANKS), &quoted);
        let longer = usize::from(case.ends_with("sb-ima-list-longer-than-quote"));
        let prefix = prefix.unwrap_or_else(|| panic!("{case:?} does not replay"));
        assert_eq!(prefix.entries + longer, list.len(), "{case:?}");
        assert!(bad.is_empty(), "{case:?}");
        let count = fs::read_to_string(case.join("ima-violations.txt")).unwrap_or_else(|_| "0".to_owned());
        let violations = list.iter().filter(|entry| entry.is_violation()).count();
        assert_eq!(violations.to_string(), count.trim(), "{case:?}");
    }
}

#[test]
fn a_grown_list_goes_on_where_the_last_replay_stopped() {
    let bytes = binary_of("ima-sig");
    let list = parse_binary(&bytes).unwrap();
    let quoted = quoted_of("ima-sig");
    let mut start = Replay::new(&BANKS);
    for entry in list.range(0..50) {
        assert!(start.extend(&entry));
    }
    let kept = Replay::resume(start.entries(), start.chains().to_vec());
    let suffix = parse_ascii(&lines(&ascii_of("ima-sig"), 50..usize::MAX)).unwrap();
    let (prefix, _) = attested_prefix(&suffix, &kept, &quoted);
    let prefix = prefix.unwrap();
    assert_eq!(prefix.entries, list.len() - 50);
    assert_eq!(prefix.replay.entries(), u64::try_from(list.len()).unwrap());
    // Nothing new: the empty suffix is attested by the same quote.
    let nothing = parse_binary(&[]).unwrap();
    let (prefix, _) = attested_prefix(&nothing, &prefix.replay, &quoted);
    assert_eq!(prefix.map(|prefix| prefix.entries), Some(0));
}

fn lines(text: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    lines.get(range.start..range.end.min(lines.len())).unwrap_or_default().concat()
}

#[test]
fn signatures_verify_with_their_key_alone() {
    let list = parse_binary(&binary_of("ima-sig")).unwrap();
    let key = SigningKey::from_certificate_or_spki(&vector("ima/ima-sig/signing-cert.pem")).unwrap();
    let signed: Vec<String> =
        list.iter().filter(|entry| key.verify(entry)).map(|entry| entry.path_text().into_owned()).collect();
    assert_eq!(signed.len(), 3, "{signed:?}");
    let claimed = list.iter().filter(|entry| entry.signature().is_some()).count();
    assert_eq!(claimed, 3);
    let entry = list.iter().find(|entry| entry.signature().is_some()).unwrap();
    let signature = entry.signature().unwrap();
    let other = HashAlgorithm::Sha256.hash(&[b"another file"]);
    assert!(!key.verify_digest(&signature, &other));
}

fn changed(name: &str, change: impl FnOnce(&mut Vec<String>)) -> Result<List, ImaErrorKind> {
    let text = String::from_utf8(ascii_of(name)).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    parse_ascii((lines.join("\n") + "\n").as_bytes()).map_err(|error| error.kind)
}

fn verdict(name: &str, list: &List) -> (Option<usize>, Vec<usize>) {
    let (prefix, bad) = attested_prefix(list, &Replay::new(&BANKS), &quoted_of(name));
    (prefix.map(|prefix| prefix.entries), bad)
}

#[test]
fn a_changed_template_digest_alone_is_found_by_its_own_check() {
    let list = changed("ima-ng", |lines| {
        let line = lines.get_mut(20).unwrap();
        line.replace_range(3..5, if line.get(3..5) == Some("00") { "01" } else { "00" });
    });
    assert_eq!(verdict("ima-ng", &list.unwrap()), (Some(109), vec![20]));
}

#[test]
fn a_changed_file_digest_or_path_breaks_the_replay() {
    for change in [|line: &mut String| *line += "x", |line: &mut String| line.replace_range(60..62, "zz")] {
        let list = changed("ima-ng", |lines| change(lines.get_mut(20).unwrap()));
        match list {
            Ok(list) => assert_eq!(verdict("ima-ng", &list), (None, vec![20])),
            Err(kind) => assert_eq!(kind, ImaErrorKind::FieldMalformed),
        }
    }
}

#[test]
fn missing_moved_and_repeated_entries_break_the_replay() {
    let drop = changed("ima-ng", |lines| drop(lines.remove(20)));
    let swap = changed("ima-ng", |lines| lines.swap(20, 21));
    let repeat = changed("ima-ng", |lines| lines.insert(20, lines.get(20).unwrap().clone()));
    for list in [drop, swap, repeat] {
        assert_eq!(verdict("ima-ng", &list.unwrap()), (None, vec![]));
    }
}

#[test]
fn an_entry_made_a_violation_breaks_the_replay() {
    let list = changed("ima-ng", |lines| lines.get_mut(20).unwrap().replace_range(3..43, &"0".repeat(40)));
    assert_eq!(verdict("ima-ng", &list.unwrap()).0, None);
}

#[test]
fn an_entry_of_another_pcr_is_not_this_ones() {
    let list = changed("ima-ng", |lines| lines.get_mut(20).unwrap().replace_range(0..2, "11")).unwrap();
    assert_eq!(verdict("ima-ng", &list).0, None);
    assert_eq!(list.pcrs().iter().map(PcrIndex::get).collect::<Vec<_>>(), [10, 11]);
    let list = changed("ima-ng", |lines| lines.get_mut(20).unwrap().replace_range(0..2, "24"));
    assert_eq!(list.unwrap_err(), ImaErrorKind::NoSuchPcr(24));
}

#[test]
fn a_shorter_list_does_not_reach_the_quote() {
    let list = changed("ima-ng", |lines| lines.truncate(100));
    assert_eq!(verdict("ima-ng", &list.unwrap()), (None, vec![]));
}

/// One entry with template digest, as the kernel would write it.
fn entry(template: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    for field in fields {
        data.extend(u32::try_from(field.len()).unwrap().to_le_bytes());
        data.extend(*field);
    }
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(HashAlgorithm::Sha1.hash(&[&data]).as_bytes());
    for part in [template.as_bytes(), &data] {
        entry.extend(u32::try_from(part.len()).unwrap().to_le_bytes());
        entry.extend(part);
    }
    entry
}

fn digest_field(label: &str) -> Vec<u8> {
    [label.as_bytes(), &[0], &[0x5a; 32]].concat()
}

fn ascii(template_digest: &[u8], rest: &str) -> Vec<u8> {
    let hex: String = template_digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("10 {hex} {rest}\n").into_bytes()
}

/// What PCR 10 of a bank is after this data was extended, twice and then once in violation.
fn extended(bank: HashAlgorithm, way: Extension, data: &[u8]) -> Digest {
    let measured = match way {
        Extension::Native => bank.hash(&[data]),
        Extension::Sha1Padded => {
            let mut padded = HashAlgorithm::Sha1.hash(&[data]).as_bytes().to_vec();
            padded.resize(bank.zero().as_bytes().len(), 0);
            Digest::new(bank, &padded).unwrap()
        }
    };
    let ones = vec![0xff; measured.as_bytes().len()];
    let extend = |value: Digest, by: &[u8]| bank.hash(&[value.as_bytes(), by]);
    let twice = extend(extend(bank.zero(), measured.as_bytes()), measured.as_bytes());
    extend(twice, &ones)
}

/// Both forms of an entry, twice and then once in violation, replay to every bank in either way.
fn check_replay(entry: &[u8], line: &[u8], hashed: &[u8]) {
    let zeros = "0".repeat(40);
    let violation = [&entry[..4], &[0; 20], &entry[24..]].concat();
    let violation_line = [b"10 ".as_slice(), zeros.as_bytes(), &line[43..]].concat();
    let binary = parse_binary(&[entry, entry, &violation].concat()).unwrap();
    let text = parse_ascii(&[line, line, &violation_line].concat()).unwrap();
    for bank in [BANKS.as_slice(), &[HashAlgorithm::Sha512]].concat() {
        for way in [Extension::Native, Extension::Sha1Padded] {
            let quoted = [(PcrIndex::IMA, extended(bank, way, hashed))];
            for list in [&binary, &text] {
                let (prefix, bad) = attested_prefix(list, &Replay::new(&[bank]), &quoted);
                let prefix = prefix.unwrap_or_else(|| panic!("{bank} {way:?} does not replay"));
                assert_eq!((prefix.entries, bad.len()), (3, 0), "{bank} {way:?}");
                let ways: Vec<_> = prefix.replay.chains().iter().map(|chain| chain.extension).collect();
                // SHA-1 is as long as itself: there is one way only.
                let expected = if bank == HashAlgorithm::Sha1 { Extension::Native } else { way };
                assert_eq!(ways, [expected]);
            }
        }
    }
}

/// Binary and ASCII of the same entry are the same list, with a template digest that holds, and replay.
fn check_template(template: &str, fields: &[&[u8]], text: &str) -> List {
    let bytes = entry(template, fields);
    let list = parse_binary(&bytes).unwrap_or_else(|error| panic!("{template}: {error}"));
    let found = list.entry(0).unwrap();
    assert_eq!(found.template().name(), template);
    assert!(Replay::new(&BANKS).extend(&found), "{template}");
    let line = ascii(found.template_digest(), &format!("{template} {text}"));
    let other = parse_ascii(&line);
    assert!(other.unwrap_or_else(|error| panic!("{template}: {error}")) == list, "{template}");
    // PCR, digest, and the name with its length come before the data, which has its length too.
    check_replay(&bytes, &line, &bytes[24 + 4 + template.len() + 4..]);
    list
}

#[test]
fn every_template_is_read_in_both_forms() {
    let (ng, v2) = (digest_field("sha256:"), digest_field("ima:sha256:"));
    let hex = "5a".repeat(32);
    let (ng_text, v2_text) = (format!("sha256:{hex}"), format!("ima:sha256:{hex}"));
    check_template("ima-ng", &[&ng, b"/a\0"], &format!("{ng_text} /a"));
    check_template("ima-ngv2", &[&v2, b"/a\0"], &format!("{v2_text} /a"));
    check_template("ima-sig", &[&ng, b"/a\0", b""], &format!("{ng_text} /a "));
    check_template("ima-sig", &[&ng, b"/a\0", b"\x03\x02"], &format!("{ng_text} /a 0302"));
    check_template("ima-sigv2", &[&v2, b"/a\0", b"\x03"], &format!("{v2_text} /a 03"));
    let list = check_template("ima-buf", &[&ng, b"key\0", b"buffer"], &format!("{ng_text} key 627566666572"));
    assert_eq!(list.entry(0).unwrap().buffer(), b"buffer");
    check_template("ima-modsig", &[&ng, b"/a\0", b"", b"", b""], &format!("{ng_text} /a   "));
    let modsig = format!("{ng_text} /a 03 {ng_text} 04");
    check_template("ima-modsig", &[&ng, b"/a\0", b"\x03", &ng, b"\x04"], &modsig);
    let attributes: [&[u8]; 9] = [
        &ng,
        b"/a\0",
        b"\x05",
        b"security.ima|security.selinux\0",
        b"\x02",
        b"\x01\x02",
        b"\xe8\x03\0\0",
        b"\0\0\0\0",
        b"\xed\x81",
    ];
    let text = format!("{ng_text} /a 05 security.ima|security.selinux 02 0102 1000 0 33261");
    check_template("evm-sig", &attributes, &text);
    check_original_template(b"/a");
    check_original_template(b"/two words\nand a line");
    let list = check_template("d-ng|n-ng|sig|buf", &[&ng, b"/a\0", b"", b"b"], &format!("{ng_text} /a  62"));
    assert!(matches!(list.entry(0).unwrap().template(), Template::Format(_)));
}

/// The first template: no length of the data, a bare digest, and a hash over the name filled up with zeros.
fn check_original_template(name: &[u8]) {
    let mut hashed = [0x5a; 20].to_vec();
    hashed.extend(name);
    hashed.resize(20 + 256, 0);
    let digest = HashAlgorithm::Sha1.hash(&[&hashed]);
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(digest.as_bytes());
    entry.extend([3, 0, 0, 0]);
    entry.extend(b"ima");
    entry.extend([0x5a; 20]);
    entry.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
    entry.extend(name);
    let shown = std::str::from_utf8(name).unwrap();
    let line = ascii(digest.as_bytes(), &format!("ima {} {shown}", "5a".repeat(20)));
    let list = parse_binary(&entry).unwrap();
    assert!(parse_ascii(&line).unwrap() == list);
    assert_eq!(list.entry(0).unwrap().path(), name);
    check_replay(&entry, &line, &hashed);
}

#[test]
fn names_of_any_kind_are_read_safely() {
    let digest = digest_field("sha256:");
    let text = format!("sha256:{}", "5a".repeat(32));
    let fake = b"/tmp/a\n10_0000000000000000000000000000000000000000_ima-ng_sha256:00_/usr/bin/true\0";
    for name in [&b"/with space\0"[..], b"/two\nlines\0", b"/ends\n\0", "/\u{fc}ml\0".as_bytes(), fake] {
        let shown = std::str::from_utf8(name).unwrap().trim_end_matches('\0');
        for (template, after) in [("ima-ng", ""), ("ima-sig", " ")] {
            let fields: [&[u8]; 3] = [&digest, name, b""];
            let fields = fields.get(..if after.is_empty() { 2 } else { 3 }).unwrap();
            let one = entry(template, fields);
            let two = [one.clone(), one].concat();
            let list = parse_binary(&two).unwrap();
            let line =
                ascii(list.entry(0).unwrap().template_digest(), &format!("{template} {text} {shown}{after}"));
            let other = parse_ascii(&[line.clone(), line].concat()).unwrap();
            assert!(other == list, "{template} {shown:?}");
            assert_eq!(other.entry(1).unwrap().path(), shown.as_bytes());
            assert!(!other.entry(1).unwrap().path_text().contains('\n'));
        }
    }
}

#[test]
fn unknown_digest_algorithms_parse_and_match_nothing() {
    for label in ["sm3_256:", "unknown:", "md5:"] {
        let list = parse_binary(&entry("ima-ng", &[&digest_field(label), b"/a\0"])).unwrap();
        let entry = list.entry(0).unwrap();
        assert_eq!(entry.file_digest(), None);
        assert_eq!(entry.stated_digest().0, label.trim_end_matches(':'));
    }
    // A verity digest is not the digest of the file's content.
    let list = parse_binary(&entry("ima-ngv2", &[&digest_field("verity:sha256:"), b"/a\0"])).unwrap();
    let entry = list.entry(0).unwrap();
    assert_eq!(entry.file_digest(), None);
    assert!(entry.verity_digest().is_some());
}

#[test]
fn public_lists_parse() {
    for (name, known) in [
        ("sha1", true),
        ("sha256", true),
        ("sha384", true),
        ("sha512", true),
        ("sm3_256", false),
        ("unknown", false),
    ] {
        let Some(path) = recorded(&format!("public/keylime/ima-log-{name}")) else { return };
        let list = parse_ascii(&fs::read(path).unwrap()).unwrap();
        assert_eq!(list.len(), 2, "{name}");
        assert_eq!(list.entry(1).unwrap().file_digest().is_some(), known, "{name}");
    }
    let Some(path) = recorded("public/rust-keylime/ascii_runtime_measurements") else { return };
    let list = parse_ascii(&fs::read(path).unwrap()).unwrap();
    assert_eq!(list.len(), 826);
    let mut replay = Replay::new(&BANKS);
    assert!(list.iter().all(|entry| replay.extend(&entry)));
}

#[test]
fn malformed_entries_are_refused_for_their_reason() {
    let digest = digest_field("sha256:");
    let kind = |bytes: &[u8]| parse_binary(bytes).unwrap_err().kind;
    let good = entry("ima-ng", &[&digest, b"/a\0"]);
    assert!(matches!(kind(good.get(..good.len() - 1).unwrap()), ImaErrorKind::Truncated(_)));
    assert_eq!(kind(&entry("nonsense", &[&digest, b"/a\0"])), ImaErrorKind::TemplateUnknown);
    assert_eq!(kind(&entry("n-ng|sig", &[b"/a\0", b""])), ImaErrorKind::TemplateUnknown);
    assert_eq!(kind(&entry("ima-ng", &[&digest, b"/a\0", b""])), ImaErrorKind::TrailingData(4));
    for name in [&b"/a"[..], b"/a\0b\0", b"\0", b""] {
        assert_eq!(kind(&entry("ima-ng", &[&digest, name])), ImaErrorKind::NameMalformed);
    }
    assert_eq!(kind(&entry("ima-ng", &[&digest, &[b'a'; 5000]])), ImaErrorKind::NameMalformed);
    for label in ["sha256", "ima:sha256:"] {
        assert_eq!(kind(&entry("ima-ng", &[&digest_field(label), b"/a\0"])), ImaErrorKind::DigestMalformed);
    }
    assert_eq!(kind(&entry("ima-ngv2", &[&digest, b"/a\0"])), ImaErrorKind::DigestMalformed);
    let error = parse_ascii(b"10 abc ima-ng x /a\n").unwrap_err();
    assert_eq!((error.entry, error.offset, error.kind), (0, 0, ImaErrorKind::LineMalformed));
}

#[test]
fn a_huge_length_costs_nothing() {
    let head = |name: &[u8], data: u32| {
        let mut bytes = [&10u32.to_le_bytes()[..], &[7; 20]].concat();
        bytes.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(name);
        bytes.extend(data.to_le_bytes());
        parse_binary(&bytes).unwrap_err().kind
    };
    let size = usize::try_from(u32::MAX).unwrap();
    assert_eq!(head(b"ima-ng", u32::MAX), ImaErrorKind::TemplateDataTooLong(size));
    assert_eq!(head(&[b'x'; 256], 0), ImaErrorKind::TemplateNameTooLong(256));
    let mut bytes = [&10u32.to_le_bytes()[..], &[7; 20]].concat();
    bytes.extend(u32::MAX.to_le_bytes());
    assert_eq!(parse_binary(&bytes).unwrap_err().kind, ImaErrorKind::TemplateNameTooLong(size));
}

#[test]
fn a_list_of_too_many_entries_is_refused() {
    let entry = entry("ima-ng", &[&b"x:\0"[..], b"/\0"]);
    let error = parse_binary(&entry.repeat(ENTRIES_MAX + 1)).unwrap_err();
    assert_eq!((error.entry, error.kind), (ENTRIES_MAX, ImaErrorKind::TooManyEntries));
}

fn look_at_everything(list: &List) {
    let mut replay = Replay::new(&HashAlgorithm::ALL);
    for entry in list.iter() {
        let _ = replay.extend(&entry);
        let _ = (entry.path_text(), entry.file_digest(), entry.verity_digest(), entry.signature());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics_on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..1000)) {
        parse_binary(&bytes).iter().for_each(look_at_everything);
        parse_ascii(&bytes).iter().for_each(look_at_everything);
        for log in [ImaLog::Binary(&bytes), ImaLog::Ascii(&bytes)] {
            assert!([0, 1, 9, u64::MAX].iter().all(|entries| log.offset(*entries) <= Some(bytes.len())));
        }
    }

    #[test]
    fn never_panics_on_changed_lists(
        which in 0..VECTORS.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        is_ascii in any::<bool>(),
    ) {
        let name = VECTORS.get(which).copied().unwrap_or("ima");
        let mut bytes = if is_ascii { ascii_of(name) } else { binary_of(name) };
        bytes.truncate(3000);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        let list = if is_ascii { parse_ascii(&bytes) } else { parse_binary(&bytes) };
        list.iter().for_each(look_at_everything);
    }

    /// So does one of any bytes but NUL and space, tabs and line breaks among them, under every template that has fields
    /// before or behind it.
    #[test]
    fn names_of_any_bytes_read_back(names in proptest::collection::vec(
        proptest::collection::vec(
            prop_oneof![4 => Just(b'/'), 2 => Just(b'\n'), 2 => Just(b'\t'), 2 => Just(b'\\'), 1 => 0x80u8..=0xff, 4 => 0x21u8..0x7f],
            1..40,
        ),
        1..5,
    )) {
        let (digest, modified, more) = (digest_field("sha256:"), digest_field("sha256:"), [7u8; 9]);
        let hex = "5a".repeat(32);
        let tails = [
            ("ima-ng", vec![], String::new()),
            ("ima-sig", vec![more.as_slice()], format!(" {}", "07".repeat(9))),
            ("ima-buf", vec![more.as_slice()], format!(" {}", "07".repeat(9))),
            (
                "ima-modsig",
                vec![more.as_slice(), &modified, &more],
                format!(" {0} sha256:{hex} {0}", "07".repeat(9)),
            ),
        ];
        for (template, fields, tail) in tails {
            let (mut binary, mut text) = (Vec::new(), Vec::new());
            for name in &names {
                let named = [name.as_slice(), &[0]].concat();
                let parts = [vec![digest.as_slice(), &named], fields.clone()].concat();
                let one = entry(template, &parts);
                text.extend(format!("10 {} {template} sha256:{hex} ", data_encoding::HEXLOWER.encode(&one[4..24])).bytes());
                text.extend(name);
                text.extend(tail.bytes().chain([b'\n']));
                binary.extend(one);
            }
            let list = parse_binary(&binary).unwrap();
            prop_assert!(parse_ascii(&text).unwrap() == list, "{template}");
            prop_assert!(list.iter().zip(&names).all(|(entry, name)| entry.path() == name.as_slice()));
        }
    }

    /// Any name that the kernel could list reads back as it was, from both forms.
    #[test]
    fn names_round_trip(name in "[^\\x00 ]{1,60}", after in "[^\\x00 ]{1,10}") {
        let digest = digest_field("sha256:");
        let named = |name: &str| entry("ima-sig", &[&digest, &[name.as_bytes(), &[0]].concat(), b""]);
        let list = parse_binary(&[named(&name), named(&after)].concat()).unwrap();
        let text: Vec<u8> = list.iter().zip([&name, &after]).flat_map(|(entry, name)| {
            ascii(entry.template_digest(), &format!("ima-sig sha256:{} {name} ", "5a".repeat(32)))
        }).collect();
        prop_assert!(parse_ascii(&text).unwrap() == list);
    }
}
