//! The walls between crates: who may use whom, and what pure crates may depend on.
//!
//! A wall is what a missing line means, so the table is complete: a dependency that is not listed is a mistake.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Crate, the crates of ours it may use in its product code.
const WALLS: &[(&str, &[&str])] = &[
    ("admission", &["identity"]),
    ("clock", &[]),
    ("exposition", &[]),
    ("service", &["clock"]),
    ("evidence", &[]),
    ("identity", &[]),
    ("telemetry", &["identity"]),
    ("trust", &["evidence", "identity", "telemetry"]),
    ("wire", &["evidence"]),
    ("server", &["admission", "clock", "evidence", "exposition", "identity", "telemetry", "trust", "wire"]),
    ("enclave", &[]),
    ("agent", &["clock", "enclave", "evidence", "identity", "service", "telemetry", "wire"]),
    ("gateway", &["admission", "clock", "exposition", "identity"]),
    ("testkit", &[]),
    (
        "cli",
        &[
            "clock",
            "evidence",
            "identity",
            "service",
            "telemetry",
            "trust",
            "wire",
            "server",
            "gateway",
            "testkit",
        ],
    ),
    ("system", &["clock", "server", "agent", "gateway", "wire", "testkit"]),
];

/// Crates that are pure: no runtime, socket or file reaches them, so none of these libraries may either.
const PURE: &[&str] = &["admission", "evidence", "identity", "telemetry", "trust"];
const IMPURE_LIBRARIES: &[&str] = &["tokio", "hyper", "axum", "tonic", "sqlx", "procfs", "rand", "tempfile"];

/// Libraries that cost much to build, each with the one crate that may depend on it.
const ALONE: &[(&str, &str)] = &[("wasmtime", "enclave")];

/// What a pure crate's source may not name outside its tests.
const IMPURE_WORDS: &[&str] =
    &["std::fs", "std::net", "std::env", "SystemTime::now", "Instant::now", "std::process", "std::thread"];

/// What runs for long has one clock, which its tests own: these parts ask it and nobody else what time it is, and wait by
/// it.
const CLOCKED: &[&str] = &["server", "agent", "gateway", "cli"];
const CLOCK_WORDS: &[&str] = &[
    "SystemTime::now",
    "UnixTime::now",
    "Instant::now",
    ".elapsed()",
    "sleep(",
    "sleep_until(",
    "interval(",
];
/// How the clock is waited for.
const CLOCK_WAITS: &[&str] = &["clock.sleep(", "clock().sleep(", "clock.sleep_until("];

/// Files, and folders, that measure something else, each with its reason.
const NOT_BY_THE_CLOCK: &[(&str, &str, &str)] = &[
    ("server", "door/admission.rs", "places are held for so long, whatever day it is"),
    ("server", "door/console/public.rs", "how old an answer is that anyone gets"),
    ("server", "door/edge/messages.rs", "how long a message may take to come"),
    ("server", "door/listen.rs", "how long a connection is quiet"),
    ("server", "door/plain.rs", "a pause after a failed accept"),
    ("server", "keys/together.rs", "how long statements wait for each other"),
    ("server", "metrics/mod.rs", "how long work takes"),
    ("server", "policy/trial/mod.rs", "how often progress is told"),
    ("server", "store/space.rs", "how often it is looked for room"),
    ("server", "store/writer.rs", "how long a commit waits for others"),
    ("agent", "door/local/mod.rs", "how long a connection is quiet"),
    ("agent", "tpm/command.rs", "a TPM that is busy is asked again"),
    ("agent", "upstream/ledger.rs", "how often a file is written"),
    ("agent", "upstream/memory.rs", "how often a file is written"),
    ("agent", "workload/program.rs", "files are stamped by the system's clock"),
    ("gateway", "listener.rs", "how long a connection is quiet"),
    ("gateway", "places.rs", "places are held for so long, whatever day it is"),
    ("gateway", "proxy.rs", "how long a request may take"),
    ("cli", "bench/", "how long work takes"),
    ("cli", "demo/", "how long the story takes, and how long a program may"),
];

/// The floors of the server, from the top: a file may name modules of its own floor and of those below. What is on no
/// floor (`clock`, `outcome`, …) is for everybody.
const FLOORS: &[(&str, &[&str])] = &[
    ("start", &["start", "maintenance"]),
    ("parts", &["parts", "concern"]),
    ("doors", &["door"]),
    ("what follows commits", &["follow"]),
    (
        "use cases",
        &[
            "attest",
            "continuity",
            "ear",
            "enroll",
            "entry",
            "fate",
            "federation",
            "fleet",
            "grant",
            "keylime",
            "label",
            "ledger",
            "name",
            "newcomer",
            "placement",
            "policy",
            "replace",
            "spire",
        ],
    ),
    ("what is in force", &["in_force", "archive", "keys", "device"]),
    ("store", &["store"]),
];

/// Arrows that run up all the same, each with its reason.
const ARROWS_UP: &[(&str, &str, &str)] = &[
    ("parts", "start", "what is missing at the start is said as a start that failed"),
    ("door", "concern", "what is wrong is shown at the doors"),
    ("door", "parts", "doors hold all parts; each use case gets those it needs"),
    ("archive", "attest", "kept evidence is judged again by the same pure call"),
    ("archive", "fate", "results are compared as they were stored"),
];

/// What speaks a protocol, and the one folder of the server that may.
const PROTOCOLS: &[&str] = &[
    "tonic",
    "prost",
    "axum",
    "hyper",
    "hyper_util",
    "http",
    "assay_wire::edge",
    "assay_wire::pcr",
    "assay_wire::console",
    "assay_wire::keylime",
    "assay_wire::spire",
];
const PROTOCOL_DOOR: &str = "door";
/// The console as a service in the same process is the door itself.
const PROTOCOL_EXCEPTIONS: &[(&str, &str)] = &[("start.rs", "axum::Router")];

/// The database library, and the one folder of the server that may name it.
const DATABASE: &str = "sqlx";
const DATABASE_FOLDER: &str = "store/sql/";

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
        broken.extend(
            ALONE
                .iter()
                .filter(|(library, owner)| owner != name && used.contains(*library))
                .map(|(library, owner)| format!("{name} may not depend on {library}: {owner} alone does")),
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
    for part in CLOCKED {
        for (file, product) in sources(&root.join("crates").join(part).join("src"))? {
            clock(part, &file, &product, &mut broken);
        }
    }
    let server = root.join("crates/server/src");
    for (file, product) in sources(&server)? {
        floors(&file, &product, &mut broken);
        protocols(&file, &product, &mut broken);
        if product.contains(DATABASE) && !file.starts_with(DATABASE_FOLDER) {
            broken.push(format!("server/{file} names {DATABASE}: only {DATABASE_FOLDER} does"));
        }
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
    for (file, product) in sources(folder)? {
        broken.extend(
            IMPURE_WORDS
                .iter()
                .filter(|word| product.contains(**word))
                .map(|word| format!("{file} is pure and may not name {word}")),
        );
    }
    Ok(())
}

/// Every source below a folder by its path within it, without its tests.
fn sources(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| next.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if !is_source || path.file_name().is_some_and(|name| name == "tests.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let product = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
            found.push((name, product));
        }
    }
    Ok(found)
}

fn clock(part: &str, file: &str, product: &str, broken: &mut Vec<String>) {
    let is_excepted =
        |excepted: &str| file == excepted || (excepted.ends_with('/') && file.starts_with(excepted));
    if NOT_BY_THE_CLOCK.iter().any(|(of, excepted, _)| *of == part && is_excepted(excepted)) {
        return;
    }
    let product = CLOCK_WAITS.iter().fold(product.to_owned(), |product, wait| product.replace(wait, ""));
    let is_comment = |line: &&str| line.trim_start().starts_with("//");
    let named = |word: &&&str| {
        product.lines().filter(|line| !is_comment(line)).any(|line| {
            line.match_indices(**word).any(|(place, _)| {
                let before = line.get(..place).and_then(|before| before.chars().next_back());
                !before.is_some_and(|before| before.is_alphanumeric() || before == '_')
            })
        })
    };
    broken.extend(
        CLOCK_WORDS
            .iter()
            .filter(named)
            .map(|word| format!("{part}/{file} names {word}: what time it is, its clock says")),
    );
}

/// The module at the root of the server that a file belongs to.
fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap_or_default()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|(_, modules)| modules.contains(&module))
}

fn floors(file: &str, product: &str, broken: &mut Vec<String>) {
    let from = module(file);
    let Some(own) = floor(from) else { return };
    for named in
        product.match_indices("crate::").filter_map(|(place, word)| product.get(place + word.len()..))
    {
        let to = named.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
        let is_up = floor(to).is_some_and(|floor| floor < own);
        let is_meant = ARROWS_UP.iter().any(|(below, above, _)| (*below, *above) == (from, to));
        if is_up && !is_meant {
            broken.push(format!("server/{file} names {to}, which is on a floor above it"));
        }
    }
}

fn protocols(file: &str, product: &str, broken: &mut Vec<String>) {
    if module(file) == PROTOCOL_DOOR {
        return;
    }
    let allowed = PROTOCOL_EXCEPTIONS.iter().filter(|(of, _)| *of == file).map(|(_, what)| *what);
    let product = allowed.fold(product.to_owned(), |product, what| product.replace(what, ""));
    let names = |protocol: &str| {
        product.match_indices(protocol).any(|(place, _)| {
            let before = product.get(..place).and_then(|before| before.chars().next_back());
            let after = product.get(place + protocol.len()..).and_then(|after| after.chars().next());
            let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            !is_word(before)
                && (protocol.contains("::") || after == Some(':'))
                && !product.get(place + protocol.len()..).is_some_and(|after| after.starts_with(":/"))
                && !is_word(after)
        })
    };
    broken.extend(
        PROTOCOLS
            .iter()
            .filter(|protocol| names(protocol))
            .map(|protocol| format!("server/{file} names {protocol}: protocols stay behind the doors")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_stand() {
        check(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))).unwrap();
    }

    #[test]
    fn a_protocol_behind_no_door_and_an_arrow_up_are_found() {
        let broken = |file: &str, product: &str| {
            let mut broken = Vec::new();
            floors(file, product, &mut broken);
            protocols(file, product, &mut broken);
            broken.len()
        };
        assert_eq!(broken("enroll.rs", "use assay_wire::edge;"), 1);
        assert_eq!(broken("archive/piece.rs", "use prost::Message;"), 1);
        assert_eq!(broken("door/edge/mod.rs", "use prost::Message;"), 0);
        assert_eq!(broken("fate.rs", "//! https://example.org"), 0);
        assert_eq!(broken("fate.rs", "use crate::door::edge;"), 1);
        assert_eq!(broken("store/mod.rs", "use crate::fate::change;"), 1);
        assert_eq!(broken("fate.rs", "use crate::store::Store;\nuse crate::policy::Planning;"), 0);
    }

    #[test]
    fn year_1_whoever_asks_the_system_what_time_it_is_is_found() {
        let broken = |file: &str, product: &str| {
            let mut broken = Vec::new();
            clock("server", file, product, &mut broken);
            broken.len()
        };
        assert_eq!(broken("enroll.rs", "let now = SystemTime::now();"), 1);
        assert_eq!(broken("enroll.rs", "tokio::time::sleep(PAUSE).await;"), 1);
        assert_eq!(
            broken("enroll.rs", "self.clock.sleep(PAUSE).await; server.clock().sleep(PAUSE).await;"),
            0
        );
        assert_eq!(broken("enroll.rs", "// Instant::now is not for us\nself.attest_interval();"), 0);
        assert_eq!(broken("door/listen.rs", "let now = Instant::now();"), 0);
    }

    #[test]
    fn the_agent_cannot_judge_itself() {
        let (_, allowed) = WALLS.iter().find(|(name, _)| *name == "agent").unwrap();
        assert!(!allowed.contains(&"trust"));
        let (_, wire) = WALLS.iter().find(|(name, _)| *name == "wire").unwrap();
        assert!(!wire.contains(&"trust"), "not even through wire");
    }
}
