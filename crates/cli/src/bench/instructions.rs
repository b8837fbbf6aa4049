//! Instructions of a piece of work: counted by the processor through `perf stat`, else by valgrind's callgrind.
//!
//! The program runs itself twice, doing the work a different number of times; the difference is the work alone.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Counter {
    /// The processor.
    Perf,
    /// valgrind, which knows no SHA instructions and therefore counts more.
    Callgrind,
}

impl Counter {
    /// The best counter of this machine, if there is one.
    pub fn find() -> Option<Counter> {
        let works = |counter: &Counter| counter.count(&["--version".into()]).is_ok();
        [Counter::Perf, Counter::Callgrind].into_iter().find(works)
    }

    /// Instructions of one run of the work, which `arguments` makes this program do a number of times.
    pub fn per_run(self, arguments: impl Fn(u32) -> Vec<OsString>) -> Result<f64> {
        let (few, many) = (2, 2 + self.runs());
        let (less, more) = (self.count(&arguments(few))?, self.count(&arguments(many))?);
        Ok((more - less) / f64::from(many - few))
    }

    /// Instructions of this program run with `arguments`, user space only.
    fn count(self, arguments: &[OsString]) -> Result<f64> {
        let program = std::env::current_exe().context("own program file")?;
        let mut command = match self {
            Counter::Perf => Command::new("perf"),
            Counter::Callgrind => Command::new("valgrind"),
        };
        match self {
            Counter::Perf => command.args(["stat", "-x", ",", "-e", "instructions:u", "--"]),
            Counter::Callgrind => command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]),
        };
        let output = command.arg(program).args(arguments).output().context("no such counter")?;
        let text = String::from_utf8_lossy(&output.stderr);
        self.parse(&text).with_context(|| format!("{self:?} did not count"))
    }

    fn parse(self, text: &str) -> Option<f64> {
        let figure = match self {
            Counter::Perf => text.lines().find(|line| line.contains("instructions"))?.split(',').next(),
            Counter::Callgrind => text.lines().find(|line| line.contains("Collected"))?.rsplit(' ').next(),
        };
        figure?.parse().ok()
    }

    fn runs(self) -> u32 {
        match self {
            Counter::Perf => 200,
            Counter::Callgrind => 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn counts_are_read_as_the_tools_write_them() {
        assert_eq!(Counter::Perf.parse("110373,,instructions:u,124418159,100.00,,\n"), Some(110_373.0));
        assert_eq!(Counter::Perf.parse("<not supported>,,instructions:u,0,100.00,,\n"), None);
        assert_eq!(Counter::Callgrind.parse("==7== Collected : 1234567\n==7== \n"), Some(1_234_567.0));
    }
}
