//! The demo's report: each step as it happens, and the whole as one JSON document.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

/// What happened, step by step.
pub struct Report {
    json: bool,
    live: bool,
    started: Instant,
    steps: Vec<Step>,
}

/// One step of the story.
#[derive(Serialize)]
struct Step {
    name: &'static str,
    ok: bool,
    ms: u64,
    detail: String,
}

/// The document of `--json`.
#[derive(Serialize)]
struct Document<'a> {
    ok: bool,
    total_ms: u64,
    steps: &'a [Step],
}

impl Report {
    /// Starts the clock.
    pub fn new(json: bool) -> Self {
        let live = !json && std::io::stdout().is_terminal();
        Report { json, live, started: Instant::now(), steps: Vec::new() }
    }

    /// A heading between steps.
    pub fn chapter(&self, title: &str) {
        if !self.json {
            println!("\n{title}");
        }
    }

    /// Runs a step and records how long it took and what it says of itself.
    pub fn step<T>(
        &mut self,
        name: &'static str,
        what: &str,
        run: impl FnOnce() -> Result<(T, String)>,
    ) -> Result<T> {
        let start = Instant::now();
        if self.live {
            print!("  … {name:20} {what}");
            let _ = std::io::stdout().flush();
        }
        let outcome = run();
        self.record(name, start.elapsed(), outcome)
    }

    /// Records a step whose time was measured elsewhere, such as a withdrawal since the compromise.
    pub fn record<T>(
        &mut self,
        name: &'static str,
        took: Duration,
        outcome: Result<(T, String)>,
    ) -> Result<T> {
        let (ok, detail) = match &outcome {
            Ok((_, detail)) => (true, detail.clone()),
            Err(error) => (false, format!("{error:#}")),
        };
        if !self.json {
            let clear = if self.live { "\r\x1b[2K" } else { "" };
            let mark = if ok { "✓" } else { "✗" };
            println!("{clear}  {mark} {name:20} {:>8.3} s  {detail}", took.as_secs_f64());
        }
        self.steps.push(Step { name, ok, ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), detail });
        outcome.map(|(value, _)| value)
    }

    /// Whether every step so far held.
    pub fn ok(&self) -> bool {
        !self.steps.is_empty() && self.steps.iter().all(|step| step.ok)
    }

    /// Prints the end: a line for people or the JSON document. `broken` is a failure outside of any step.
    pub fn finish(mut self, broken: Option<&anyhow::Error>) -> bool {
        if let Some(error) = broken
            && self.ok()
        {
            let detail = format!("{error:#}");
            self.steps.push(Step { name: "demo", ok: false, ms: 0, detail });
        }
        let ok = self.ok();
        let total = self.started.elapsed();
        if self.json {
            let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
            let document = Document { ok, total_ms, steps: &self.steps };
            println!("{}", serde_json::to_string_pretty(&document).unwrap_or_default());
        } else if ok {
            println!("\nEvery step held, in {:.1} s.", total.as_secs_f64());
        } else if let Some(error) = broken {
            println!("\nThe demo failed: {error:#}");
        }
        ok
    }
}
