//! Recorded cases with what must come out of each, from the attempts to have compromised devices affirmed and from the
//! field: `cases.json` of each folder says which policy judges a case, or from which good ones it is learned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::tempdir;

use crate::{Appraisal, assay, shared_cases};

/// Judges every case of a folder and returns what came out otherwise.
fn wrong(root: &Path) -> Vec<String> {
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(root.join("cases.json")).unwrap()).unwrap();
    let folder = tempdir().unwrap();
    let mut learned = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let policy = case["policy"].as_str().map(|path| root.join(path));
        let policy = policy.or_else(|| learned_policy(root, case, folder.path(), &mut learned));
        let anchor = case["anchor"].as_str().map(|path| root.join(path));
        let mut arguments = Vec::new();
        for (option, path) in [("--policy", &policy), ("--trust-anchor", &anchor)] {
            arguments.extend(path.iter().flat_map(|path| [option.as_ref(), path.as_os_str()]));
        }
        let folder = root.join(case["case"].as_str().unwrap());
        let appraisal = Appraisal::as_given(&folder, &[], &arguments);
        let said = serde_json::to_string(appraisal.findings()).unwrap();
        let tier = appraisal.tier();
        let is_tier = match case["tier"].as_str() {
            Some("not-affirming") => tier != "affirming",
            Some(expected) => tier == expected,
            None => true,
        };
        let holds = is_tier
            && case["integrity"].as_str().is_none_or(|expected| appraisal.integrity() == expected)
            && case["mentions"].as_str().is_none_or(|words| said.contains(words))
            && case["not"].as_str().is_none_or(|words| !said.contains(words));
        if !holds {
            let name = case["name"].as_str().or(case["case"].as_str()).unwrap();
            wrong.push(format!("{name}: {}, {tier}: {said:.600}", appraisal.integrity()));
        }
    }
    assert!(cases.len() > 10);
    wrong
}

fn learned_policy(
    root: &Path,
    case: &Value,
    folder: &Path,
    learned: &mut BTreeMap<String, PathBuf>,
) -> Option<PathBuf> {
    let from = case["learn"].as_array()?;
    let key = format!("{from:?} {} {}", case["learn_args"], case["anchor"]);
    if let Some(policy) = learned.get(&key) {
        return Some(policy.clone());
    }
    let policy = folder.join(format!("{}.toml", learned.len()));
    let mut arguments: Vec<PathBuf> = vec!["policy".into(), "learn".into()];
    arguments.extend(from.iter().map(|good| root.join(good.as_str().unwrap())));
    arguments
        .extend(case["learn_args"].as_array().into_iter().flatten().map(|arg| arg.as_str().unwrap().into()));
    arguments.extend(["-o".into(), policy.clone()]);
    let anchor = case["anchor"].as_str().map(|path| ["--trust-anchor".into(), root.join(path)]);
    arguments.extend(anchor.into_iter().flatten());
    let output = assay(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    learned.insert(key, policy.clone());
    Some(policy)
}

#[test]
fn no_recorded_attack_is_affirmed() {
    let Some(shared) = shared_cases() else { return };
    assert_eq!(wrong(&shared.join("../redteam")), Vec::<String>::new());
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/field")
}

#[test]
fn the_projects_own_cases_of_the_field() {
    assert_eq!(wrong(&vectors()), Vec::<String>::new());
}

#[test]
fn cases_after_public_reports() {
    assert_eq!(wrong(&vectors().join("recorded")), Vec::<String>::new());
}

#[test]
fn machines_of_the_field_are_judged_as_they_are() {
    let Some(shared) = shared_cases() else { return };
    assert_eq!(wrong(&shared.join("../field")), Vec::<String>::new());
}
