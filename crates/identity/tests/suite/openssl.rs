//! OpenSSL as a second opinion on what we sign. Skipped, in so many words, where it is not installed.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use assay_identity::bundle::pem_certificates;
use assay_identity::{Csr, PrivateKey, Serial, csr};

use crate::authority::{Domain, NOW};

pub struct OpenSsl {
    folder: tempfile::TempDir,
}

impl OpenSsl {
    pub fn new() -> Option<Self> {
        let found =
            Command::new("openssl").arg("version").output().is_ok_and(|output| output.status.success());
        if !found {
            // Not `println!`, which the test harness keeps to itself when a test passes.
            let _ = writeln!(std::io::stderr(), "skipped: openssl is not installed");
            return None;
        }
        Some(OpenSsl { folder: tempfile::tempdir().unwrap() })
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs in the folder; success and everything printed.
    pub fn run(&self, arguments: &str) -> (bool, String) {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(self.path()).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }
}

#[test]
fn openssl_accepts_the_chain_and_honours_the_revocation() {
    let Some(openssl) = OpenSsl::new() else { return };
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    let chain = domain.chain("/workload", &key);
    openssl.file("root.pem", domain.bundle().to_pem());
    openssl.file("leaf.pem", pem_certificates([&chain[0]]));
    openssl.file("issuing.pem", pem_certificates([&chain[1]]));
    let time = NOW.as_secs();
    let verify = format!("verify -x509_strict -attime {time} -CAfile root.pem -untrusted issuing.pem");
    for purpose in ["sslserver", "sslclient"] {
        let (holds, printed) = openssl.run(&format!("{verify} -purpose {purpose} leaf.pem"));
        assert!(holds, "{printed}");
    }

    let revoked = Serial::from_random([0x5e; 16]);
    for (list, expected) in [(domain.crl(1, &[]), true), (domain.crl(2, &[&revoked]), false)] {
        openssl.file("crl.der", &list);
        let (holds, printed) =
            openssl.run("crl -inform DER -in crl.der -CAfile issuing.pem -verify -out crl.pem");
        assert!(holds && printed.contains("verify OK"), "{printed}");
        let (holds, printed) = openssl.run(&format!("{verify} -crl_check -CRLfile crl.pem leaf.pem"));
        assert_eq!(holds, expected, "{printed}");
        assert_eq!(printed.contains("certificate revoked"), !expected, "{printed}");
    }
}

#[test]
fn openssl_reads_the_profile() {
    let Some(openssl) = OpenSsl::new() else { return };
    let (domain, key) = (Domain::new("example.org"), PrivateKey::generate().unwrap());
    openssl.file("leaf.pem", pem_certificates([domain.svid("/workload", &key).der()]));
    let (holds, printed) = openssl.run("x509 -in leaf.pem -noout -text");
    assert!(holds, "{printed}");
    for expected in [
        "X509v3 Subject Alternative Name: critical",
        "URI:spiffe://example.org/workload, DNS:device.example.org, IP Address:127.0.0.1",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(printed.contains(expected), "{expected:?} is not in {printed}");
    }
}

#[test]
fn openssl_accepts_our_requests_and_we_accept_its() {
    let Some(openssl) = OpenSsl::new() else { return };
    let key = PrivateKey::generate().unwrap();
    openssl.file("ours.der", csr::request(&key).unwrap());
    let (holds, printed) = openssl.run("req -inform DER -in ours.der -verify -noout");
    assert!(holds, "{printed}");
    for algorithm in
        ["ec -pkeyopt ec_paramgen_curve:P-256", "ec -pkeyopt ec_paramgen_curve:P-384", "rsa:2048"]
    {
        let arguments = format!(
            "req -new -newkey {algorithm} -nodes -keyout key.pem -outform DER -out theirs.der -subj /CN=a"
        );
        let (holds, printed) = openssl.run(&arguments);
        assert!(holds, "{printed}");
        let theirs = std::fs::read(openssl.path().join("theirs.der")).unwrap();
        assert!(Csr::parse(&theirs).is_ok(), "{algorithm}");
    }
}
