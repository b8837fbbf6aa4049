//! A policy read critically: besides what keeps it from its work, what is there twice, never counts, or lets in
//! more than its writer may have meant.

use toml::de::{DeTable, DeValue};

use super::remark::{Notes, Step};
use super::{Field, Policy, Remark, open_rows, text};

/// Everything worth saying about a policy's text, by line. An empty answer is a policy that nothing speaks against.
pub fn review(policy_text: &str) -> Vec<Remark> {
    answers(policy_text, &[by_section, open_rows::review])
}

/// What is asked of a policy as a whole.
type Question = fn(&Policy, &mut Notes<'_>);

fn answers(policy_text: &str, questions: &[Question]) -> Vec<Remark> {
    let policy = match text::parse(policy_text) {
        Ok(policy) => policy,
        Err(error) => return vec![Remark::from(&error)],
    };
    let mut remarks: Vec<Remark> = policy.lint().iter().map(Remark::from).collect();
    // What a policy that cannot be used would leave open is not worth a word.
    let questions = if remarks.is_empty() { questions } else { questions.get(..1).unwrap_or_default() };
    let mut notes = Notes::new(&mut remarks);
    questions.iter().for_each(|ask| ask(&policy, &mut notes));
    add_lines(policy_text, &mut remarks);
    // What is about the whole comes after what is about a line.
    remarks.sort_by_key(|remark| (remark.line.is_none(), remark.line, remark.severity));
    remarks
}

fn by_section(policy: &Policy, notes: &mut Notes<'_>) {
    policy.sections().into_iter().for_each(|section| section.review(&policy.pcr, notes));
    for (number, boot) in policy.boots().skip(1).enumerate() {
        let mut notes = notes.under(Field::of(["alternative"]).at(number));
        boot.sections().into_iter().for_each(|section| section.review(boot.pcr, &mut notes));
    }
}

/// JSON keeps no places; TOML has them in its tree.
fn add_lines(policy_text: &str, remarks: &mut [Remark]) {
    if text::is_json(policy_text) {
        return;
    }
    let Ok(document) = DeTable::parse(policy_text) else { return };
    for remark in remarks.iter_mut().filter(|remark| remark.line.is_none() && !remark.field.0.is_empty()) {
        remark.line = offset(document.get_ref(), &remark.field).map(|at| text::place(policy_text, at).0);
    }
}

/// Where the field is written, or the nearest thing around it that is.
fn offset(document: &DeTable<'_>, field: &Field) -> Option<usize> {
    let mut steps = field.0.iter();
    let Some(Step::Key(first)) = steps.next() else { return None };
    let (key, mut value) = document.get_key_value(first.as_str())?;
    let mut offset = key.span().start;
    for step in steps {
        let next = match (step, value.get_ref()) {
            (Step::Key(name), DeValue::Table(table)) => {
                table.get_key_value(name.as_str()).map(|(key, value)| (key.span().start, value))
            }
            (Step::Index(index), DeValue::Array(array)) => {
                array.get(*index).map(|value| (value.span().start, value))
            }
            _ => None,
        };
        let Some((start, inner)) = next else { break };
        (offset, value) = (start, inner);
    }
    Some(offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Severity;

    const GOOD: &str = "name = \"edge\"\nversion = 1\n[ima.allow]\n";

    /// The remarks of a policy that starts with a good file in line 4.
    fn check(lines: &str, expected: &[(Option<usize>, Severity, &str, &str)]) {
        let policy = format!("{GOOD}\"/bin/a\" = [\"sha256:{}\"]\n{lines}", "1ab2".repeat(16));
        let remarks = answers(&policy, &[by_section]);
        let said: Vec<_> = remarks.iter().map(|r| (r.line, r.severity, r.field.to_string())).collect();
        let wanted: Vec<_> = expected
            .iter()
            .map(|(line, severity, field, _)| (*line, *severity, (*field).to_owned()))
            .collect();
        assert_eq!(said, wanted, "{remarks:#?}");
        for (remark, (.., word)) in remarks.iter().zip(expected) {
            assert!(remark.message.contains(word), "{word} is not in {}", remark.message);
        }
    }

    fn warns(lines: &str, line: usize, field: &str, word: &str) {
        check(lines, &[(Some(line), Severity::Warning, field, word)]);
    }

    #[test]
    fn nothing_speaks_against_a_good_policy() {
        check("", &[]);
        assert_eq!(review(&complete()), []);
    }

    /// A policy that covers the chain from firmware to files.
    fn complete() -> String {
        let value = "1ab2".repeat(16);
        let pins = [0, 2, 4, 7, 8, 9].map(|index| format!("\"{index}\" = [\"{value}\"]\n"));
        format!("{GOOD}\"/bin/a\" = [\"sha256:{value}\"]\n[pcr.sha256]\n{}", pins.concat())
    }

    #[test]
    fn rows_that_a_reader_would_think_closed_are_named() {
        let open = |policy: &str| {
            let remarks = review(policy);
            assert!(remarks.iter().all(|remark| remark.severity == Severity::Warning), "{remarks:?}");
            remarks.iter().map(|remark| remark.field.to_string()).collect::<Vec<_>>()
        };
        let without = |index: &str| {
            complete()
                .lines()
                .filter(|line| !line.starts_with(&format!("\"{index}\"")))
                .fold(String::new(), |text, line| text + line + "\n")
        };
        // The list of files is worth what the kernel is worth, and that what it is started by.
        assert_eq!(open(&without("4")), ["ima", ""]);
        assert_eq!(open(&without("8")), ["ima", ""]);
        assert_eq!(open(&without("0")), [""]);
        let line = format!("{}[boot]\nkernel_command_lines = [\"/k ro\"]\n", without("4"));
        assert_eq!(open(&line), ["ima", "boot.kernel_command_lines", ""]);
        assert_eq!(
            open(&format!("{}[boot]\ndbx_entries_min = 3\n", without("7"))),
            ["boot.dbx_entries_min", ""]
        );
    }

    #[test]
    fn files_that_never_count_are_named() {
        let digest = "3cd4".repeat(16);
        warns(
            &format!("\"/b\" = [\"sha1:{}\"]\n", "3cd4".repeat(10)),
            5,
            "ima.allow.\"/b\"",
            "none of its digests",
        );
        warns(&format!("\"/bin/*\" = [\"sha256:{digest}\"]\n"), 5, "ima.allow.\"/bin/*\"", "no patterns");
        warns(&format!("\"/b\" = [\"sha256:{}\"]\n", "00".repeat(32)), 5, "ima.allow.\"/b\"", "no file");
        warns(
            &format!("\"/b\" = [\n\"sha256:{digest}\",\n\"sha256:{digest}\"]\n"),
            7,
            "ima.allow.\"/b\"[1]",
            "number 0",
        );
        warns(
            &format!("\"\\\\x2fbin/a\" = [\"sha256:{digest}\"]\n"),
            5,
            "ima.allow.\"\\\\x2fbin/a\"",
            "written in another way",
        );
    }

    #[test]
    fn patterns_that_cover_too_much_are_named() {
        for (pattern, tree) in [
            ("/usr/**", "/usr/bin/"),
            ("/usr/lib/*", "/usr/lib/"),
            ("/tmp/", "/tmp/"),
            ("/home/*/**", "/home/"),
        ] {
            warns(&format!("[ima]\nexclude = [\"/srv/x\",\n\"{pattern}\"]\n"), 7, "ima.exclude[1]", tree);
        }
        check(
            "[ima]\nexclude = [\"/bin/a\"]\n",
            &[
                (Some(4), Severity::Warning, "ima.allow.\"/bin/a\"", "any content"),
                (Some(6), Severity::Warning, "ima.exclude[0]", "/bin/"),
            ],
        );
        check("[ima]\nexclude = [\"/var/log/\", \"/home/*/.cache/\", \"/usr/lib/a/**.pyc\"]\n", &[]);
    }

    #[test]
    fn weak_choices_are_named() {
        warns("[endorsement]\nrequired = \"dangerous_none\"\n", 6, "endorsement.required", "software TPM");
        warns("[endorsement]\nstale_crl = \"ignore\"\n", 6, "endorsement.stale_crl", "withholds");
        let ek = "5ef6".repeat(16);
        warns(
            &format!("[endorsement]\nek_sha256 = [\"{ek}\"]\n"),
            6,
            "endorsement.ek_sha256",
            "nothing asks",
        );
        warns(
            &format!("[endorsement]\nrequired = \"both\"\nek_sha256 = [\"{ek}\",\n\"{ek}\"]\n"),
            8,
            "endorsement.ek_sha256[1]",
            "number 0",
        );
        warns(
            "[endorsement]\nrequired = \"either\"\n[endorsement.vendor.\"id:49465800\"]\nrequired = \"both\"\n",
            6,
            "endorsement.required",
            "no certificate",
        );
        warns(
            "[endorsement]\nmanufacturers = [\"id:494E5443\"]\n[endorsement.vendor.\"id:49465800\"]\nrequired = \"certificate\"\n",
            7,
            "endorsement.vendor.\"id:49465800\"",
            "refused anyway",
        );
        warns("[clock]\nunsafe_clock = \"ignore\"\n", 6, "clock.unsafe_clock", "went back");
        warns("[ima]\nviolations = \"ignore\"\n", 6, "ima.violations", "unsaid");
        warns("[ima]\nlist = \"optional\"\n", 6, "ima.list", "no list");
        warns("[ima]\nweakest_digest = \"sha1\"\n", 6, "ima.weakest_digest", "SHA-1");
        warns(
            "[boot]\nkernel_command_lines = [\"/k ro *\"]\n",
            6,
            "boot.kernel_command_lines[0]",
            "compared as it is",
        );
    }

    #[test]
    fn pcrs_that_prove_nothing_are_named() {
        let (value, zeros) = ("1ab2".repeat(16), "00".repeat(32));
        warns(&format!("[pcr.sha256]\n\"23\" = [\"{value}\"]\n"), 6, "pcr.sha256.23", "reset");
        warns(&format!("[pcr.sha256]\n\"7\" = [\"{zeros}\"]\n"), 6, "pcr.sha256.7", "zeros");
        let sha1 = "1ab2".repeat(10);
        warns(
            &format!("[pcr.sha256]\n\"7\" = [\"{value}\"]\n[pcr.sha1]\n\"4\" = [\"{sha1}\"]\n"),
            8,
            "pcr.sha1.4",
            "SHA-1 alone",
        );
        check(
            &format!("[pcr.sha1]\n\"4\" = [\"{sha1}\"]\n"),
            &[(Some(5), Severity::Error, "pcr.sha1", "never trusted alone")],
        );
    }

    #[test]
    fn errors_come_with_their_line() {
        let said =
            |text: &str| review(text).iter().map(|r| (r.line, r.field.to_string())).collect::<Vec<_>>();
        assert_eq!(said("name = \"edge\"\nversion = 1\n"), [(None, String::new())]);
        assert_eq!(said("name = \"edge\"\nversion = 1\ncolour = 1\n"), [(Some(3), String::new())]);
        assert_eq!(said(&format!("{GOOD}\"/a\" = []\n")), [(Some(4), "ima.allow.\"/a\"".to_owned())]);
        assert_eq!(
            said("{\"name\": \"a b\", \"version\": 1, \"ima\": {\"signing_keys\": [\"x\"]}}").len(),
            2
        );
        let twice = review(&format!("{GOOD}\"/a\" = []\n\"/a\" = []\n"));
        assert!(matches!(twice.as_slice(), [Remark { line: Some(5), .. }]), "{twice:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_reviewed_without_panic(text in "[\\[\\]{}\"=.:, \n0-9a-z]{0,80}") {
            let _ = review(&text);
        }
    }
}
