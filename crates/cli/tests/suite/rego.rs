//! Rules of a policy's own, on recorded evidence.

use tempfile::tempdir;

use crate::{Appraisal, learn, vector};

/// Appraises a good boot under its own policy and these rules.
fn check(rules: &str, tier: &str, claims: &[&str], message: &str) {
    let folder = tempdir().unwrap();
    let policy = learn(&vector("sb-good-1"), folder.path(), &[]);
    let text = std::fs::read_to_string(&policy).unwrap();
    let text = format!("{text}\n[rego]\nmodules = ['''\npackage assay\n{rules}\n''']\n");
    std::fs::write(&policy, text).unwrap();
    let appraisal = Appraisal::of(&vector("sb-good-1"), &["--policy", policy.to_str().unwrap()]);
    assert_eq!((appraisal.tier(), appraisal.claims("rego-policy")), (tier, claims.to_vec()));
    assert!(appraisal.messages().contains(message), "{}", appraisal.messages());
}

#[test]
fn rules_decide_beside_the_typed_sections() {
    check("deny contains \"Secure Boot is off\" if not input.boot.secure_boot.enabled", "affirming", &[], "");
    check(
        "deny contains sprintf(\"booted %d times\\u202e\", [input.clock.reset_count]) if input.clock.reset_count > 0",
        "contraindicated",
        &["rego.modules[0] deny"],
        " times (policy ",
    );
    check(
        "warn contains \"a shell ran\" if { some entry in input.ima.new; endswith(entry.path, \"sh\") }",
        "warning",
        &["rego.modules[0] warn"],
        "a shell ran (policy ",
    );
    check(
        "deny contains \"never\" if endless(1)\nendless(x) := endless(x)",
        "contraindicated",
        &["rego.modules[0] deny"],
        "takes more than",
    );
}
