//! What the programs are made of, as CycloneDX 1.6: every crate that reaches one of them, with its version and licence.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The programs that are shipped.
const PROGRAMS: [&str; 2] = ["assay-cli", "assay-agent"];

/// Of what `cargo metadata` says.
pub fn of(metadata: &Value) -> Result<Value> {
    let list = |value: &Value, member: &str| {
        value.get(member).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |value: &Value, member: &str| {
        value.get(member).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let packages = list(metadata, "packages");
    let packages: HashMap<String, &Value> =
        packages.iter().map(|package| (text(package, "id"), package)).collect();
    let nodes = list(metadata.get("resolve").context("cargo metadata resolved nothing")?, "nodes");
    let nodes: HashMap<String, &Value> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    // What is there for tests alone reaches no program.
    let reaches = |dependency: &Value| {
        list(dependency, "dep_kinds")
            .iter()
            .any(|kind| kind.get("kind").and_then(Value::as_str) != Some("dev"))
    };
    let mut waiting: Vec<String> = packages
        .iter()
        .filter(|(_, package)| PROGRAMS.contains(&text(package, "name").as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    let (mut seen, mut edges) = (BTreeSet::new(), Vec::new());
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).context("a package that is not resolved")?;
        let next: Vec<String> = list(node, "deps")
            .iter()
            .filter(|dependency| reaches(dependency))
            .map(|dependency| text(dependency, "pkg"))
            .collect();
        edges.push((id, next.clone()));
        waiting.extend(next);
    }
    let purl = |id: &str| {
        let package = packages.get(id).copied().unwrap_or(&Value::Null);
        format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
    };
    let component = |id: &String| {
        let package = packages.get(id).copied().unwrap_or(&Value::Null);
        json!({
            "type": "library", "bom-ref": purl(id), "purl": purl(id), "name": text(package, "name"),
            "version": text(package, "version"), "licenses": [{ "expression": text(package, "license").replace('/', " OR ") }],
        })
    };
    edges.sort();
    let dependencies = edges.iter().map(|(id, next)| {
        let mut on: Vec<String> = next.iter().map(|id| purl(id)).collect();
        on.sort();
        json!({ "ref": purl(id), "dependsOn": on })
    });
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": { "component": { "type": "application", "name": "assay", "version": env!("CARGO_PKG_VERSION") } },
        "components": seen.iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reaches_a_program_is_in_it_and_what_tests_need_is_not() {
        let package =
            |name: &str| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0" });
        let on = |id: &str, kind: Option<&str>| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("assay-cli"), package("assay-agent"), package("a"), package("b"), package("c")],
            "resolve": { "nodes": [
                { "id": "assay-cli", "deps": [on("a", None), on("c", Some("dev"))] },
                { "id": "assay-agent", "deps": [] },
                { "id": "a", "deps": [on("b", Some("build"))] }, { "id": "b", "deps": [] }, { "id": "c", "deps": [] },
            ] },
        });
        let bom = of(&metadata).expect("it is resolved");
        let names: Vec<_> =
            bom["components"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
        assert_eq!(names, ["a", "assay-agent", "assay-cli", "b"]);
        assert_eq!(bom["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(
            bom["dependencies"][0],
            json!({ "ref": "pkg:cargo/a@1.0.0", "dependsOn": ["pkg:cargo/b@1.0.0"] })
        );
    }
}
