//! The walls between crates: who may use whom, and what pure crates may depend on.
//!
//! A wall is what a missing line means, so the table is complete: a dependency that is not listed is a mistake.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Crate, the crates of ours it may use in its product code.
const WALLS: &[(&str, &[&str])] = &[
    ("evidence", &[]),
    ("identity", &[]),
    ("telemetry", &["identity"]),
    ("trust", &["evidence", "identity", "telemetry"]),
    ("wire", &["evidence"]),
    ("server", &["evidence", "identity", "telemetry", "trust", "wire"]),
    ("agent", &["evidence", "identity", "telemetry", "wire"]),
    ("gateway", &["identity"]),
    ("testkit", &[]),
    ("cli", &["evidence", "identity", "telemetry", "trust", "wire", "server", "gateway", "testkit"]),
    ("system", &["server", "agent", "gateway", "wire", "testkit"]),
];

/// Crates that are pure: no runtime, socket or file reaches them, so none of these libraries may either.
const PURE: &[&str] = &["evidence", "identity", "telemetry", "trust"];
const IMPURE_LIBRARIES: &[&str] = &["tokio", "hyper", "axum", "tonic", "sqlx", "procfs", "rand", "tempfile"];

/// What a pure crate's source may not name outside its tests.
const IMPURE_WORDS: &[&str] =
    &["std::fs", "std::net", "std::env", "SystemTime::now", "Instant::now", "std::process", "std::thread"];

/// Reads every manifest, and says which walls stand; fails naming the first ones that do not.
pub fn check(root: &Path) -> Result<String> {
    let mut broken = Vec::new();
    let mut report = String::new();
    for (name, allowed) in WALLS {
        let used = dependencies(&root.join("crates").join(name).join("Cargo.toml"))?;
        let ours: BTreeSet<&str> =
            used.iter().filter_map(|dependency| dependency.strip_prefix("assay-")).collect();
        broken.extend(
            ours.iter()
                .filter(|other| !allowed.contains(other))
                .map(|other| format!("{name} may not use {other}")),
        );
        if PURE.contains(name) {
            broken.extend(
                IMPURE_LIBRARIES
                    .iter()
                    .filter(|library| used.contains(**library))
                    .map(|library| format!("{name} is pure and may not depend on {library}")),
            );
            impure_words(&root.join("crates").join(name).join("src"), &mut broken)?;
        }
        let _ = writeln!(report, "{name:10} {}", ours.into_iter().collect::<Vec<_>>().join(" "));
    }
    let known = WALLS.len();
    let there = std::fs::read_dir(root.join("crates")).context("crates")?.count();
    if known != there {
        broken.push(format!("{there} crates, but walls for {known}: add the new one to the table"));
    }
    if !broken.is_empty() {
        bail!("walls broken:\n  {}", broken.join("\n  "));
    }
    Ok(report)
}

fn dependencies(manifest: &Path) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let manifest: toml::Table = text.parse().with_context(|| manifest.display().to_string())?;
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    Ok(table.map(|table| table.keys().cloned().collect()).unwrap_or_default())
}

fn impure_words(folder: &Path, broken: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            impure_words(&path, broken)?;
            continue;
        }
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        broken.extend(
            IMPURE_WORDS
                .iter()
                .filter(|word| product.contains(**word))
                .map(|word| format!("{} is pure and may not name {word}", path.display())),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_stand() {
        check(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).unwrap();
    }

    #[test]
    fn the_agent_cannot_judge_itself() {
        let (_, allowed) = WALLS.iter().find(|(name, _)| *name == "agent").unwrap();
        assert!(!allowed.contains(&"trust"));
        let (_, wire) = WALLS.iter().find(|(name, _)| *name == "wire").unwrap();
        assert!(!wire.contains(&"trust"), "not even through wire");
    }
}
