//! The JSON protocol: Python's own `json` and openssl say what the signed bytes and the signatures are.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use assay_telemetry::json_protocol::{
    Acceptance, AcceptanceError, HashAlgorithm, JsonError, Region, Submission, SubmissionError, Value,
    key_hash, verify_signature,
};
use assay_telemetry::sha256;
use data_encoding::HEXLOWER;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// For each body in hexadecimal, a line: what Python signs without the nonce, or why it reads none.
const ORACLE: &str = r#"
import json, sys
for line in sys.stdin:
    try:
        value = json.loads(bytes.fromhex(line.strip()))
        print(json.dumps(value, sort_keys=True))
    except Exception:
        print("!")
"#;

fn python(bodies: &[Vec<u8>]) -> Vec<String> {
    let mut child = Command::new("python3")
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is the oracle of this test");
    let lines: String = bodies.iter().map(|body| HEXLOWER.encode(body) + "\n").collect();
    let mut stdin = child.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A text of JSON, as somebody could write it.
fn json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_filter_map("a number", |number| number.is_finite().then(|| format!("{number:e}"))),
        any::<f64>().prop_filter_map("a number", |number| number.is_finite().then(|| format!("{number}"))),
        "-?[1-9][0-9]{20,40}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
    ];
    let unit = prop_oneof![
        any::<char>()
            .prop_filter("escaped elsewhere", |c| !matches!(c, '"' | '\\' | '\0'..='\x1f'))
            .prop_map(String::from),
        any::<u16>().prop_map(|unit| format!("\\u{unit:04x}")),
        (0xd800_u16..0xdc00, 0xdc00_u16..=0xdfff)
            .prop_map(|(high, low)| format!("\\u{high:04X}\\u{low:04x}")),
        prop::sample::select(vec!["\\n", "\\\"", "\\/", "\\\\", "\\b", "\\f", "\\r", "\\t"])
            .prop_map(str::to_owned),
    ];
    let text =
        || prop::collection::vec(unit.clone(), 0..6).prop_map(|units| format!("\"{}\"", units.concat()));
    let leaf = prop_oneof![
        number,
        text(),
        prop::sample::select(vec!["null", "true", "false", "NaN", "-Infinity", "-0", "1.", "01", "+1", ""])
            .prop_map(str::to_owned),
    ];
    let names = text();
    leaf.prop_recursive(4, 30, 5, move |inner| {
        let member = (names.clone(), inner.clone()).prop_map(|(name, value)| format!("{name} :\t{value}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|values| format!("[{}]", values.join(" ,"))),
            prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(",\n"))),
        ]
    })
}

#[test]
fn what_is_read_and_written_is_what_python_reads_and_writes() {
    let (mut runner, strategy) = (TestRunner::deterministic(), json());
    let mut bodies: Vec<Vec<u8>> =
        (0..8000).map(|_| strategy.new_tree(&mut runner).unwrap().current().into_bytes()).collect();
    let spelled = [
        "1e400",
        "[1e16,1e15,1e-5,1e-4,123456789012345680.0,5e-324,-0.0,0.1]",
        "\"\\ud800\"",
        "{} x",
        "\"\u{7f}\"",
    ];
    bodies.extend(spelled.map(|text| text.as_bytes().to_vec()));
    bodies.push(format!("1{}", "0".repeat(4299)).into_bytes());
    bodies.push(format!("1{}", "0".repeat(4300)).into_bytes());
    let (mut read, mut refused) = (0, 0);
    for (body, expected) in bodies.iter().zip(python(&bodies)) {
        let shown = String::from_utf8_lossy(body);
        match Value::read(body) {
            Ok(value) => assert_eq!(value.to_python(), expected, "{shown}"),
            // Python takes the last of two.
            Err(JsonError::Twice { .. }) => {}
            Err(error) => assert_eq!(expected, "!", "{error}: {shown}"),
        }
        if expected == "!" { refused += 1 } else { read += 1 }
    }
    assert!(read > 1000 && refused > 100, "{read} {refused}");
}

fn openssl(folder: &Path, line: &str) -> Vec<u8> {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn body(algorithm: &str, signature: &str) -> String {
    format!(
        r#"{{"timestamp": "2025-08-15T10:00:00", "algorithm": "{algorithm}", "signature": "{signature}",
        "nonce": "00112233445566778899aabbccddeeff", "geographic_region": {{"state": "Québec", "region": "CA"}},
        "metrics": {{"metrics": {{"cpu_percent": 1e16, "memory_percent": 1e-05}}, "custom_data": {{"n": 9007199254740993}}}}}}"#
    )
}

#[test]
fn what_openssl_signs_verifies_by_each_hash_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    openssl(folder, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    openssl(folder, "genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ec.pem");
    let unsigned = Submission::read(body("sha256", "").as_bytes()).unwrap();
    let signed = unsigned.signed_bytes();
    let expected = "{\"geographic_region\": {\"region\": \"CA\", \"state\": \"Qu\\u00e9bec\"}, \"metrics\": {\"custom_data\": \
                    {\"n\": 9007199254740993}, \"metrics\": {\"cpu_percent\": 1e+16, \"memory_percent\": 1e-05}}}\
                    00112233445566778899aabbccddeeff";
    assert_eq!(String::from_utf8_lossy(&signed), expected);
    std::fs::write(folder.join("message"), &signed).unwrap();
    for key in ["rsa", "ec"] {
        let spki = openssl(folder, &format!("pkey -in {key}.pem -pubout -outform DER"));
        for hash in HashAlgorithm::ALL {
            let signature = openssl(folder, &format!("dgst -{} -sign {key}.pem message", hash.name()));
            for other in HashAlgorithm::ALL {
                let verified = verify_signature(&spki, other, &signed, &signature);
                assert_eq!(verified.is_ok(), hash == other, "{key} {hash:?} {other:?}");
            }
            assert!(verify_signature(&spki, hash, &signed[1..], &signature).is_err());
            assert!(verify_signature(b"", hash, &signed, &signature).is_err());
        }
    }
}

#[test]
fn a_key_is_named_by_the_hash_of_its_pem_as_the_original_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    openssl(folder, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    let pem = String::from_utf8(openssl(folder, "pkey -in rsa.pem -pubout")).unwrap();
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let expected = HEXLOWER.encode(&sha256(text.as_bytes()));
    assert_eq!(key_hash(&openssl(folder, "pkey -in rsa.pem -pubout -outform DER")), expected);
}

#[test]
fn a_body_that_is_none_says_which_member() {
    let check =
        |body: &str, expected| assert_eq!(Submission::read(body.as_bytes()).map(drop), expected, "{body}");
    let member = |member| Err(SubmissionError::Member { member });
    for empty in ["{}", "[]", "null", "0", "\"\"", "false", "0.0"] {
        check(empty, Err(SubmissionError::Empty));
    }
    check("", Err(SubmissionError::Json(JsonError::Syntax { at: 0 })));
    check("[1]", member("metrics"));
    check("{\"metrics\": []}", member("metrics"));
    let whole = body("sha256", "00");
    check(&whole, Ok(()));
    for name in ["geographic_region", "nonce", "signature", "algorithm", "timestamp"] {
        check(&whole.replace(&format!("\"{name}\""), "\"other\""), member(name));
    }
    check(&whole.replace("{\"state\": \"Québec\", \"region\": \"CA\"}", "null"), member("geographic_region"));
    let twice = whole.replace("\"timestamp\"", "\"nonce\"");
    assert!(matches!(
        Submission::read(twice.as_bytes()),
        Err(SubmissionError::Json(JsonError::Twice { .. }))
    ));
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    assert!(matches!(Value::read(deep.as_bytes()), Err(JsonError::TooDeep { .. })));
    assert!(matches!(Value::read(&vec![b' '; (1 << 20) + 1]), Err(JsonError::TooLong { .. })));
    assert_eq!(Value::read(format!("[{}1]", "1,".repeat(100_000)).as_bytes()), Err(JsonError::TooMany));
}

#[test]
fn a_region_is_what_is_said_and_what_is_no_text_is_not_said() {
    let region = |text: &str| {
        let whole = body("sha256", "").replace("{\"state\": \"Québec\", \"region\": \"CA\"}", text);
        Submission::read(whole.as_bytes()).unwrap().region()
    };
    let expected = Region { region: "CA".into(), state: "Québec".into(), city: String::new() };
    assert_eq!(region("{\"region\": \"CA\", \"state\": \"Québec\", \"city\": null}"), expected);
    assert_eq!(region("{\"region\": [\"CA\"], \"state\": 7}"), Region::default());
    assert_eq!(region("{}"), Region::default());
}

#[test]
fn what_is_kept_verifies_by_itself_and_nothing_of_it_can_be_exchanged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    openssl(folder, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem");
    let spki = openssl(folder, "pkey -in rsa.pem -pubout -outform DER");
    let body = body("sha384", "").into_bytes();
    std::fs::write(folder.join("message"), Submission::read(&body).unwrap().signed_bytes()).unwrap();
    let signature = openssl(folder, "dgst -sha384 -sign rsa.pem message");
    let acceptance = Acceptance {
        device_id: assay_identity::SpiffeId::parse("spiffe://example.org/device").unwrap(),
        key_id: sha256(&spki),
        sequence: 7,
        previous: [3; 32],
        payload_sha256: sha256(&body),
        algorithm: HashAlgorithm::Sha384,
        items: 3,
        received_at: 1_700_000_000,
    };
    let statement = acceptance.encode();
    let open = |statement: &[u8], signature: &[u8], body: &[u8], spki: &[u8]| {
        Acceptance::open(statement, signature, body, spki).map(|(acceptance, _)| acceptance)
    };
    assert_eq!(open(&statement, &signature, &body, &spki), Ok(acceptance.clone()));
    let other_body = [body.as_slice(), b" "].concat();
    assert_eq!(open(&statement, &signature, &other_body, &spki), Err(AcceptanceError::Payload));
    assert_eq!(open(&statement, &signature, &body, &spki[1..]), Err(AcceptanceError::KeyId));
    assert!(matches!(open(&statement, &signature[1..], &body, &spki), Err(AcceptanceError::Signature(_))));
    let other_hash = Acceptance { algorithm: HashAlgorithm::Sha256, ..acceptance }.encode();
    assert!(matches!(open(&other_hash, &signature, &body, &spki), Err(AcceptanceError::Signature(_))));
    assert_eq!(open(b"\xff", &signature, &body, &spki), Err(AcceptanceError::Statement));
}
