use serde_json::json;

use super::*;
use crate::PolicyError;

fn compile(rules: &str) -> Result<Module, PolicyError> {
    Module::compile(0, &format!("package assay\n{rules}\n"))
}

fn ask(rules: &str) -> Vec<(Rule, Result<Vec<String>, RuleError>)> {
    let input = json!({
        "clock": { "safe": false },
        "tpm": { "firmware_version": u64::MAX },
        "boot": null,
        "ima": { "new": (0..100).map(|number| json!({ "path": format!("/bin/{number}") })).collect::<Vec<_>>() },
    });
    compile(rules).unwrap().evaluate(&Value::from(input))
}

fn check(rules: &str, expected: &[&str]) {
    let expected = expected.iter().map(|text| (*text).to_owned()).collect();
    assert_eq!(ask(rules), [(Rule::Deny, Ok(expected))], "{rules}");
}

fn fails(rules: &str) -> RuleError {
    match ask(rules).remove(0) {
        (_, Err(error)) => error,
        (_, Ok(texts)) => panic!("{texts:?}"),
    }
}

fn refused(rules: &str) -> String {
    compile(rules).unwrap_err().to_string()
}

#[test]
fn what_is_denied_is_told() {
    check("deny contains \"unsafe\" if not input.clock.safe", &["unsafe"]);
    check("deny contains \"safe\" if input.clock.safe", &[]);
    check("deny contains \"no log\" if input.boot == null", &["no log"]);
    check("deny contains sprintf(\"%v\", [input.tpm.firmware_version]) if true", &["18446744073709551615"]);
    check(
        "odd(entry) if endswith(entry.path, \"9\")\n\
         deny contains sprintf(\"%s is odd\", [entry.path]) if { some entry in input.ima.new; odd(entry); startswith(entry.path, \"/bin/1\") }",
        &["/bin/19 is odd"],
    );
}

#[test]
fn each_rule_is_asked() {
    let said = ask("deny contains \"a\" if true\nwarn contains \"b\" if true");
    assert_eq!(said, [(Rule::Deny, Ok(vec!["a".to_owned()])), (Rule::Warn, Ok(vec!["b".to_owned()]))]);
    let said = ask("warn contains \"b\" if true");
    assert_eq!(said, [(Rule::Warn, Ok(vec!["b".to_owned()]))]);
}

#[test]
fn the_same_input_gives_the_same_answer() {
    let rules = "deny contains entry.path if some entry in input.ima.new";
    assert_eq!(ask(rules), ask(rules));
}

#[test]
fn what_is_no_text_is_no_answer() {
    assert_eq!(fails("deny contains 1"), RuleError::Shape);
    assert_eq!(fails("deny contains input.clock"), RuleError::Shape);
}

#[test]
fn what_fails_is_undefined_so_a_demand_that_fails_denies() {
    check("deny contains \"a\" if not to_number(\"x\") == 1", &["a"]);
    check("deny contains \"a\" if not input.no.such.member", &["a"]);
    check("deny contains \"a\" if to_number(\"x\") == 1", &[]);
}

#[test]
fn rules_that_might_contradict_themselves_are_refused() {
    for rules in [
        "deny := true",
        "deny := [\"a\"]",
        "x := 1 if input.a\nx := 2 if input.b\ndeny contains \"a\" if x == 1",
    ] {
        assert!(refused(rules).contains("more than one value"), "{}", refused(rules));
    }
    check("x if input.a\nx if not input.a\ndeny contains \"a\" if x", &["a"]);
    check("x := 1 if input.a else := 2 if true\ndeny contains \"a\" if x == 2", &["a"]);
}

#[test]
fn a_rule_that_does_not_end_soon_is_stopped_at_the_same_place() {
    let rules = "deny contains \"a\" if { some a in input.ima.new; some b in input.ima.new; some c in input.ima.new; \
                 some d in input.ima.new; a == d; b == c; a != a }";
    assert_eq!(fails(rules), RuleError::Bound);
}

#[test]
fn a_long_chain_of_rules_fits_the_stack() {
    let mut rules = String::from("deny contains \"a\" if f0(1) == 1\n");
    let mut number = 0;
    while number < super::compile::RULES_MAX - 2 {
        rules += &format!("f{number}(x) := f{}(x)\n", number + 1);
        number += 1;
    }
    rules += &format!("f{number}(x) := x\n");
    // Half of what a thread of the server has.
    let run = move || check(&rules, &["a"]);
    std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap().join().unwrap();
    let many = "f(x) := x\n".repeat(20_000 / 10);
    assert!(refused(&many).contains("at most"), "{}", refused(&many));
    assert_eq!(fails("f(x) := f(x)\ndeny contains \"a\" if f(1)"), RuleError::Bound);
}

#[test]
fn nothing_but_the_input_is_in_reach() {
    for call in [
        "rand.intn(\"a\", 9)",
        "trace(\"a\")",
        "numbers.range(1, 1000000000)",
        "bits.lsh(1, 1000000000)",
        "json.unmarshal(\"1\")",
        "__builtin_host_await(1, \"a\")",
    ] {
        let message = refused(&format!("deny contains \"a\" if x := {call}"));
        assert!(message.contains("is not available"), "{message}");
    }
    for call in ["time.now_ns()", "http.send({})", "opa.runtime()", "uuid.rfc4122(\"a\")", "no.such(1)"] {
        let message = refused(&format!("deny contains \"a\" if x := {call}"));
        assert!(message.starts_with("rego.modules[0], line 2, column "), "{message}");
    }
    for rules in [
        "deny contains \"a\" if print(\"a\")",
        "default x := rand.intn(\"a\", 9)\ndeny contains \"a\" if x == 1",
    ] {
        assert!(refused(rules).contains("is not available"), "{}", refused(rules));
    }
    check("deny contains \"/etc/default/grub\" if true", &["/etc/default/grub"]);
}

#[test]
fn errors_name_the_place() {
    let message = refused("deny contains \"a\" if {");
    assert!(message.starts_with("rego.modules[0], line "), "{message}");
    let message = refused("deny contains \"a\" if unknown == 1");
    assert!(message.starts_with("rego.modules[0], line 2, column "), "{message}");
    assert_eq!(compile("allow := true").unwrap_err(), PolicyError::RegoDecidesNothing { index: 0 });
    let other = Module::compile(1, "package other\ndeny contains \"a\" if true\n");
    assert_eq!(other.unwrap_err(), PolicyError::RegoPackage { index: 1 });
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "package assay\n[a-z0-9 :=\\[\\]{}\"\n(),.]{0,80}") {
        let _ = Module::compile(0, &text);
    }
}
