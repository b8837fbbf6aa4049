//! `assay ear verify`: what a relying party accepts, and every reason to refuse.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use assay_identity::PrivateKey;
use assay_identity::jws::{self, JwkSet, Usage, VerifyingKey};
use assay_trust::ear::{PROFILE, TOKEN_TYPE};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::assay;

const DEVICE: &str = "spiffe://example.org/spire/agent/tpm/00";
const DURING: &str = "2027-01-15T08:05:00Z";
const AFTER: &str = "2027-01-15T08:10:00Z";

struct Token {
    folder: TempDir,
    key: PrivateKey,
}

impl Token {
    fn new(claims: &Value) -> Token {
        let token = Token { folder: tempfile::tempdir().unwrap(), key: PrivateKey::generate().unwrap() };
        token.save_keys(&token.key);
        token.save(&token.sign(claims));
        token
    }

    fn sign(&self, claims: &Value) -> String {
        jws::sign(&self.key, TOKEN_TYPE, claims.to_string().as_bytes()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, token: &str) {
        std::fs::write(self.path("token"), token).unwrap();
    }

    fn save_keys(&self, key: &PrivateKey) {
        let keys = JwkSet::new([VerifyingKey::of(key)]).to_json(Usage::Signature).to_string();
        std::fs::write(self.path("jwks.json"), keys).unwrap();
    }

    /// Exit code and everything printed.
    fn verify(&self, more: &[&str]) -> (i32, String) {
        let (token, keys) = (self.path("token"), self.path("jwks.json"));
        let fixed = ["ear", "verify", token.to_str().unwrap(), "--jwks", keys.to_str().unwrap()];
        let output = assay(fixed.iter().chain(more));
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&printed).into_owned())
    }

    fn check_refused(&self, more: &[&str], says: &str) {
        let (exit, printed) = self.verify(more);
        assert_eq!(exit, 1, "{printed}");
        assert!(printed.contains("refused") && printed.contains(says), "{says} is not in {printed}");
        assert!(!printed.contains("/tmp/x"), "nothing of it is told: {printed}");
    }
}

fn claims() -> Value {
    json!({
        "eat_profile": PROFILE,
        "iss": "spiffe://example.org/assay/server",
        "sub": DEVICE,
        "iat": 1_800_000_000,
        "exp": 1_800_000_600,
        "eat_nonce": "b25jZS1vbmx5",
        "ear_verifier_id": { "developer": "Assay", "build": "assay-server 1\u{1b}[2J" },
        "submods": { "tpm": {
            "ear_status": "contraindicated",
            "ear_trustworthiness_vector": { "instance-identity": 2, "executables": 96 },
            "ear_appraisal_policy_ids": ["edge v3"],
            "ear_assay_appraisal": {
                "evidence_at": 1_800_000_000, "device_status": "suspect", "findings_count": 1,
                "findings": [{
                    "check": "ima-policy", "tier": "contraindicated", "claim": "/tmp/x", "expected": "",
                    "found": "", "message": "`/tmp/x` is not in the policy.",
                }],
            },
        } },
        "jti": "what we do not know is kept",
    })
}

#[test]
fn a_genuine_token_is_accepted_and_told() {
    let token = Token::new(&claims());
    let (exit, printed) = token.verify(&["--at", DURING, "--device", DEVICE, "--nonce", "b25jZS1vbmx5"]);
    assert_eq!(exit, 0, "{printed}");
    for word in [DEVICE, "contraindicated", "edge v3", "executables        96", "/tmp/x", "suspect"] {
        assert!(printed.contains(word), "{word} is not in {printed}");
    }
    assert!(!printed.contains('\u{1b}'), "a token cannot steer the terminal");
    let (exit, printed) = token.verify(&["--at", DURING, "--json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((exit, printed), (0, claims()));
}

#[test]
fn a_token_comes_in_a_pipe_too() {
    let token = Token::new(&claims());
    let keys = token.path("jwks.json");
    let mut program = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["ear", "verify", "-", "--at", DURING, "--jwks", keys.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(format!("{}\n", token.sign(&claims())).as_bytes()).unwrap();
    assert!(program.wait_with_output().unwrap().status.success());
}

#[test]
fn each_lie_is_refused_for_its_own_reason() {
    let token = Token::new(&claims());
    token.check_refused(&["--at", AFTER], "expired at 2027-01-15T08:10:00Z");
    token.check_refused(&["--at", "2027-01-15T07:58:00Z"], "in the future");
    token.check_refused(&["--at", DURING, "--device", "spiffe://example.org/other"], "it is about");
    token.check_refused(&["--at", DURING, "--nonce", "b3RoZXItb25l"], "does not carry the nonce");

    let genuine = token.sign(&claims());
    let mut better = claims();
    better["submods"]["tpm"] = json!({ "ear_status": "affirming" });
    let forged = token.sign(&better);
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (genuine, forged) = (parts(&genuine), parts(&forged));
    token.save(&[genuine[0].as_str(), &forged[1], &genuine[2]].join("."));
    token.check_refused(&["--at", DURING], "the signature does not verify");
    token.save("no token");
    token.check_refused(&["--at", DURING], "not a signed token");

    let mut inconsistent = claims();
    inconsistent["submods"]["tpm"]["ear_status"] = json!("affirming");
    token.save(&token.sign(&inconsistent));
    token.check_refused(&["--at", DURING], "better than its trustworthiness vector");
    let mut other = claims();
    other["eat_profile"] = json!("tag:github.com,2023:veraison/ear");
    token.save(&token.sign(&other));
    token.check_refused(&["--at", DURING], "eat_profile");

    token.save(&token.sign(&claims()));
    token.save_keys(&PrivateKey::generate().unwrap());
    token.check_refused(&["--at", DURING], "not in the JWK set");
}

#[test]
fn files_of_no_use() {
    let token = Token::new(&claims());
    let (exit, printed) = token.verify(&["--at", "yesterday"]);
    assert!(exit == 1 && printed.contains("2027-01-31T12:00:00Z"), "{printed}");
    std::fs::write(token.path("jwks.json"), "{}").unwrap();
    let (exit, printed) = token.verify(&["--at", DURING]);
    assert!(exit == 1 && printed.contains("jwks.json") && printed.contains("not a JWK set"), "{printed}");
    std::fs::remove_file(token.path("token")).unwrap();
    token.save_keys(&token.key);
    let (exit, printed) = token.verify(&["--at", DURING]);
    assert!(exit == 2 && printed.contains("token"), "{printed}");
}
