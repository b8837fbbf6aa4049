//! Lists that are empty while what they are for is demanded: none of them accepts anything.

use assay_trust::{CompiledPolicy, Policy, Tier};

use crate::{appraise_by, claims};

/// What becomes of a policy with this in it.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It is no policy: the message.
    Refused(String),
    /// What it says of a good device.
    Judges(Tier),
}

fn fate(text: &str) -> Fate {
    let digest = "aa".repeat(32);
    let text = format!(
        "name = \"emptied\"\nversion = 1\n{}",
        text.replace("PIN", "[pcr.sha256]\n7 = [\"AA\"]\n").replace("AA", &digest)
    );
    match Policy::from_toml(&text).and_then(|policy| CompiledPolicy::new(policy.clone()).map(|_| policy)) {
        Ok(policy) => Fate::Judges(appraise_by(policy, &claims("sb-good-1")).tier()),
        Err(error) => Fate::Refused(error.to_string()),
    }
}

#[test]
fn each_empty_list_is_refused_or_accepts_nothing() {
    let refused = |text: &str, says: &str| match fate(text) {
        Fate::Refused(message) => assert!(message.contains(says), "{text}: {message}"),
        judged => panic!("{text}: {judged:?}"),
    };
    for (text, says) in [
        ("[boot]\napplications = []", "boot.applications"),
        ("[boot]\napplications = [\"sha256:AA\"]\nkernels = []", "boot.kernels"),
        ("[boot]\nsigners = []", "boot.signers"),
        ("[boot]\nkernel_command_lines = []", "boot.kernel_command_lines"),
        ("[boot]\nkernel_command_line_patterns = []", "measure"),
        ("[boot]\nfirmware_versions = []", "boot.firmware_versions"),
        ("[boot.sequence]\n4 = []", "boot.sequence.4"),
        ("[boot.sequence]", "measure"),
        ("[boot]\ndbx_contains = []", "measure"),
        ("[boot]\ndbx_also_contains = []", "measure"),
        ("[boot]\ndbx_entries_min = 0", "measure"),
        ("[boot]\ngrub_commands = []", "measure"),
        ("[boot]\nfirmware_statements = []", "measure"),
        ("[boot]\nfiles = []", "measure"),
        ("[pcr.sha256]\n7 = []", "pcr.sha256.7"),
        ("[pcr.sha256]", "measure"),
        ("[pcr]", "measure"),
        ("[pcr.sha1]\n7 = [\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"]", "SHA-1"),
        ("PIN[endorsement]\nrequired = \"allowlist\"\nek_sha256 = []", "endorsement.ek_sha256"),
        ("PIN[endorsement]\nrequired = \"both\"", "endorsement.ek_sha256"),
        ("PIN[endorsement.vendor.\"id:494E5443\"]", "endorsement.vendor"),
        ("PIN[rego]\nmodules = []", "rego.modules"),
        ("PIN[rego]\nmodules = [\"package assay\"]", "deny"),
        ("PIN[location]", "location"),
        ("PIN[location]\nallow_countries = []\nallow_cities = []", "location"),
        ("PIN[[alternative]]\n[alternative.boot]\napplications = []", "boot.applications"),
    ] {
        refused(text, says);
    }
}

/// A list of files that lists none accepts none, whatever else of it is empty.
#[test]
fn each_empty_list_of_files_accepts_none() {
    let pinned = "[boot]\nsecure_boot = \"required\"\nsigners = [\"sha256:AA\"]\n";
    for text in [
        "[ima]",
        "[ima.allow]",
        "[ima.keyrings]",
        "[ima]\nsigning_keys = []",
        "[ima]\nexclude = []",
        "[ima.allow]\n\"/usr/bin/true\" = []",
        "[ima.keyrings]\n\".ima\" = []",
        "[ima]\npcrs = []",
    ] {
        for text in [text.to_owned(), format!("{pinned}{text}")] {
            match fate(&text) {
                Fate::Refused(_) | Fate::Judges(Tier::Contraindicated) => {}
                fate => panic!("{text}: {fate:?}"),
            }
        }
    }
}

#[cfg(feature = "rego")]
#[test]
fn a_rule_that_decides_nothing_is_no_agreement() {
    let rego = |body: &str| {
        let policy = crate::learned();
        let modules = vec![format!("package assay\n{body}\n")];
        let policy = Policy { rego: Some(assay_trust::policy::RegoSection { modules }), ..policy };
        match CompiledPolicy::new(policy.clone()) {
            Ok(_) => Fate::Judges(appraise_by(policy, &claims("sb-good-1")).tier()),
            Err(error) => Fate::Refused(error.to_string()),
        }
    };
    for body in [
        "",
        "allow if true",
        "deny := false",
        "deny if false",
        "deny = input.no.such",
        "deny[\"x\"] := true",
        "deny.foo contains \"x\" if false",
        "deny contains true",
        "deny contains 1",
        "deny contains [] if true",
        "deny contains {\"a\": 1} if true",
        "warn contains null if true",
        "denied contains \"x\" if true",
        "x := 1",
        "deny(x) if x",
    ] {
        let fate = rego(body);
        let is_closed = matches!(fate, Fate::Refused(_) | Fate::Judges(Tier::Contraindicated));
        assert!(is_closed, "{body}: {fate:?}");
    }
    assert_eq!(rego("deny contains \"x\" if false"), Fate::Judges(Tier::Affirming));
}
