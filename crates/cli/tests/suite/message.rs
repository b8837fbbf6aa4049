//! `assay trust check-message`: what a node signed, judged with nothing but files.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::signed_message::{NodeId, OnceBy, Outgoing, Request};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, Issuer, PrivateKey, Serial, TrustDomain, UnixTime, bundle};
use serde_json::Value;
use tempfile::TempDir;

const BODY: &[u8] = br#"{"speed": 3}"#;

/// A folder with what a receiver has of a message; the serial of its certificate, and who could revoke that.
fn message(folder: &Path) -> (Issuer, Serial) {
    let (trust_domain, key) = (TrustDomain::parse("example.org").unwrap(), PrivateKey::generate().unwrap());
    let template = AuthorityTemplate {
        trust_domain: trust_domain.clone(),
        name: "Root".to_owned(),
        serial: Serial::from_random([1; 16]),
        not_before: at(-1000),
        not_after: at(10_000),
    };
    let root_key = PrivateKey::generate().unwrap();
    let root = Issuer::new(sign_root(&template, &root_key).unwrap(), root_key).unwrap();
    let template = SvidTemplate {
        spiffe_id: trust_domain.with_path("/spire/agent/tpm/aa").unwrap(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
        spki: key.spki(),
        serial: Serial::from_random([2; 16]),
        not_before: at(-10),
        not_after: at(3600),
    };
    let leaf = issue(&template, &root).unwrap();
    let request = Request { audience: "press-2", method: "POST", path: "/secure/data", body: BODY };
    let from = NodeId::new(7).unwrap();
    let data = std::str::from_utf8(BODY).unwrap();
    let signed = Outgoing { from, at: at(0), data, about: request.about(), once: OnceBy::Sequence(5) }
        .bytes()
        .unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write("signature", &key.sign_message(&signed).unwrap());
    write("signed", &signed);
    write("body", BODY);
    write("node.pem", bundle::pem("CERTIFICATE", leaf.der()).as_bytes());
    write("bundle.pem", Bundle::new(trust_domain, [root.certificate()]).unwrap().to_pem().as_bytes());
    write("crl", &crl::sign(&[], 1, at(-60), at(600), &root).unwrap());
    (root, leaf.serial().clone())
}

/// Noon, 1 January 2030, and so many seconds.
fn at(seconds: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_893_499_200_u64.saturating_add_signed(seconds)))
}

fn check(folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [
        ["--from", "7"],
        ["--signed", "signed"],
        ["--signature", "signature"],
        ["--certificate", "node.pem"],
        ["--bundle", "bundle.pem"],
        ["--crl", "crl"],
        ["--audience", "press-2"],
        ["--path", "/secure/data"],
        ["--body", "body"],
        ["--at", "2030-01-01T12:00:00Z"],
    ];
    let given = |flag: &str| more.contains(&flag);
    let output = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["trust", "check-message"])
        .args(arguments.into_iter().filter(|[flag, _]| !given(flag)).flatten())
        .args(more)
        .current_dir(folder)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[test]
fn a_message_is_judged_with_nothing_but_files() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path();
    let (root, serial) = message(folder);
    let (code, printed) = check(folder, &[]);
    assert!(code == Some(0) && printed.contains("spiffe://example.org/spire/agent/tpm/aa"), "{printed}");
    let (code, printed) = check(folder, &["--json"]);
    let told: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &told["from_node"], &told["data"]["speed"]), (Some(0), &7.into(), &3.into()));
    assert_eq!(told["once"]["sequence"], 5);

    for (more, reason) in [
        (["--from", "8"], "says node 8"),
        (["--from", "+7"], "not a node id"),
        (["--audience", "press-3"], "another audience"),
        (["--path", "/secure/data?x"], "another path"),
        (["--method", "PUT"], "another method"),
        (["--body", "signature"], "another body"),
        (["--signature", "body"], "does not verify"),
        (["--signed", "body"], "does not verify"),
        (["--at", "2030-01-01T12:05:01Z"], "301 s old"),
        (["--at", "2030-01-01T14:00:00Z"], "certificate ended"),
        (["--at", "2030-01-01T12:10:01Z"], "no news"),
    ] {
        let (code, printed) = check(folder, &more);
        assert!(code == Some(1) && printed.contains(reason), "{more:?}: {code:?} {printed}");
    }
    let revoked = RevokedSerial { serial, at: at(-1), reason: RevocationReason::PrivilegeWithdrawn };
    std::fs::write(folder.join("crl"), crl::sign(&[revoked], 2, at(-60), at(600), &root).unwrap()).unwrap();
    let (code, printed) = check(folder, &[]);
    assert!(code == Some(1) && printed.contains("revoked"), "{code:?} {printed}");
    let (code, printed) = check(folder, &["--crl", "nothing"]);
    assert!(code == Some(2) && printed.contains("nothing"), "{code:?} {printed}");
}
