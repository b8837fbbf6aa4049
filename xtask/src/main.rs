//! Chores of the repository. `cargo xtask check` is the one command that a developer, CI and the README run.

mod sbom;
mod walls;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  check           format, lints, walls, licences and every test
  walls           print who may use whom, and fail where somebody else does
  fuzz [SECONDS]  run every fuzz target for so long (60)
  sbom            print what the programs are made of, as CycloneDX
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["check"] => check(),
        ["walls"] => walls::check(root()).map(|report| print!("{report}")),
        ["sbom"] => sbom(),
        ["fuzz"] => fuzz("60"),
        ["fuzz", seconds] => fuzz(seconds),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    println!("== walls");
    walls::check(root())?;
    licences()?;
    step("lints", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step("fuzz targets", cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]))?;
    // Programs first: tests start them as processes.
    step("programs", cargo(&["build", "--workspace", "--bins"]))?;
    step("tests", cargo(&["test", "--workspace", "--no-fail-fast"]))
}

/// Licences, duplicates and sources, where the tool for it is installed.
fn licences() -> Result<()> {
    let installed =
        Command::new("cargo").args(["deny", "--version"]).output().is_ok_and(|o| o.status.success());
    if !installed {
        println!("== licences: cargo-deny is not installed, skipped (cargo install --locked cargo-deny)");
        return Ok(());
    }
    step(
        "licences",
        cargo(&["deny", "--offline", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]),
    )
}

fn sbom() -> Result<()> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", &platform];
    let output = cargo(&arguments).output().context("cargo metadata")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    println!("{:#}", sbom::of(&serde_json::from_slice(&output.stdout)?)?);
    Ok(())
}

fn fuzz(seconds: &str) -> Result<()> {
    let targets = std::fs::read_dir(root().join("fuzz/fuzz_targets")).context("fuzz targets")?;
    let mut names: Vec<String> = targets
        .filter_map(|entry| entry.ok()?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    for name in names {
        let mut run = Command::new(root().join("fuzz/run"));
        run.args([name.as_str(), seconds]);
        step(&name, run)?;
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

fn step(name: &str, mut command: Command) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    let status = command.current_dir(root()).status().with_context(|| format!("{name}: could not start"))?;
    if !status.success() {
        bail!("{name} failed");
    }
    println!("== {name}: held, {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
