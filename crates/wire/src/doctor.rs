//! What a program finds of itself and around it (`doctor`): one page, what support asks for first, the same of every program.
//!
//! It names files, addresses and times, and never what is in a key or a token.

use std::fmt;

use serde::Serialize;

use crate::clocks::span;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, and will not for long.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What: a stable word for programs.
    pub check: &'static str,
    /// How it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What to do about it, where there is something to do.
    pub action: Option<String>,
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which program.
    pub program: &'static str,
    /// Of which version.
    pub version: &'static str,
    /// When, in seconds since 1970.
    pub at: u64,
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// With nothing in it yet.
    pub fn new(program: &'static str, version: &'static str, at: u64) -> Report {
        Report { program, version, at, findings: Vec::new() }
    }

    /// Something as it should be.
    pub fn good(&mut self, check: &'static str, found: impl Into<String>) {
        self.findings.push(Finding { check, severity: Severity::Good, found: found.into(), action: None });
    }

    /// Something that is not, and what to do about it.
    pub fn find(
        &mut self,
        severity: Severity,
        check: &'static str,
        found: impl Into<String>,
        action: impl Into<String>,
    ) {
        let action = Some(action.into());
        self.findings.push(Finding { check, severity, found: found.into(), action });
    }

    /// How bad the worst of it is.
    pub fn worst(&self) -> Severity {
        self.findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Good)
    }

    /// What the program ends with: 0, 6 where something works and will not for long, 1 where something does not.
    pub fn exit_code(&self) -> u8 {
        match self.worst() {
            Severity::Good | Severity::Note => 0,
            Severity::Warning => 6,
            Severity::Problem => 1,
        }
    }

    /// Looks how long something stands that ends: two thirds of its life are good, and then its renewal is late.
    pub fn life(&mut self, check: &'static str, what: &str, (from, until): (u64, u64), action: &str) {
        let left = until.saturating_sub(self.at);
        let found = format!(
            "{what}: {}",
            if left == 0 { "ended".to_owned() } else { format!("{} left", span(left)) }
        );
        match left {
            0 => self.find(Severity::Problem, check, found, action),
            left if left < until.saturating_sub(from) / 3 => {
                self.find(Severity::Warning, check, found, action);
            }
            _ => self.good(check, found),
        }
    }

    /// Looks at the bytes that a file system has left.
    pub fn space(&mut self, path: &str, (left, all): (u64, u64)) {
        let found = format!("{path}: {} MiB of {} MiB free", left >> 20, all >> 20);
        let action = "free some, or move the folder to a larger disk";
        match left {
            0..SPACE_PROBLEM => self.find(Severity::Problem, "disk", found, action),
            left if left < SPACE_WARNING || left < all / 20 => {
                self.find(Severity::Warning, "disk", found, action);
            }
            _ => self.good("disk", found),
        }
    }

    /// Holds our clock against another's.
    pub fn clock(&mut self, whose: &str, theirs: u64) {
        let offset = self.at.abs_diff(theirs);
        let direction = if self.at > theirs { "ahead of" } else { "behind" };
        let found = match offset {
            0..=CLOCK_GOOD => format!("as {whose}'s, to {CLOCK_GOOD} s"),
            offset => format!("{} {direction} {whose}'s", span(offset)),
        };
        let action = "set the clocks of both by NTP: certificates and evidence are judged by them";
        match offset {
            0..=CLOCK_GOOD => self.good("clock", found),
            offset if offset < CLOCK_PROBLEM => self.find(Severity::Warning, "clock", found, action),
            _ => self.find(Severity::Problem, "clock", found, action),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.program, self.version)?;
        for Finding { check, severity, found, action } in &self.findings {
            let mark = match severity {
                Severity::Good => "ok",
                Severity::Note => "note",
                Severity::Warning => "WARNING",
                Severity::Problem => "PROBLEM",
            };
            writeln!(f, "{mark:8} {check:16} {}", printable(found))?;
            if let Some(action) = action {
                writeln!(f, "{:8} -> {}", "", printable(action))?;
            }
        }
        match self.worst() {
            Severity::Good | Severity::Note => write!(f, "Nothing is wrong."),
            Severity::Warning => write!(f, "It works, and will not for long."),
            Severity::Problem => write!(f, "Something does not work."),
        }
    }
}

/// Some of it comes from the other side: no control character of it reaches a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A commit and its list need some megabytes.
const SPACE_PROBLEM: u64 = 32 << 20;
const SPACE_WARNING: u64 = 512 << 20;
/// HTTP dates are whole seconds, and an answer takes a moment.
const CLOCK_GOOD: u64 = 2;
/// By as much a certificate is made valid before it was signed.
const CLOCK_PROBLEM: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn severity(look: impl FnOnce(&mut Report)) -> Severity {
        let mut report = Report::new("assay", "1", 1000);
        look(&mut report);
        assert_eq!(report.findings.len(), 1, "{report}");
        report.worst()
    }

    #[test]
    fn year_12_what_ends_is_told_from_two_thirds_of_its_life() {
        let life = |from, until| severity(|report| report.life("c", "x", (from, until), "renew"));
        assert_eq!(life(900, 1300), Severity::Good);
        assert_eq!(life(700, 1148), Severity::Warning);
        assert_eq!(life(0, 1000), Severity::Problem);
        assert_eq!(life(0, 10), Severity::Problem);
    }

    #[test]
    fn year_12_space_and_clocks_have_bounds() {
        let space = |left: u64, all: u64| severity(|report| report.space("/", (left << 20, all << 20)));
        assert_eq!((space(9000, 10_000), space(600, 100_000)), (Severity::Good, Severity::Warning));
        assert_eq!((space(100, 1000), space(1, 1000)), (Severity::Warning, Severity::Problem));
        let clock = |theirs| severity(|report| report.clock("the server", theirs));
        assert_eq!(
            (clock(1002), clock(1003), clock(8200)),
            (Severity::Good, Severity::Warning, Severity::Problem)
        );
    }

    #[test]
    fn year_12_the_worst_finding_decides_how_it_ends() {
        let mut report = Report::new("assay", "1", 1000);
        assert_eq!(report.exit_code(), 0);
        for (severity, code) in
            [(Severity::Note, 0), (Severity::Warning, 6), (Severity::Problem, 1), (Severity::Note, 1)]
        {
            report.find(severity, "c", "a\u{1b}[2Jb", "do");
            assert_eq!(report.exit_code(), code);
        }
        let page = report.to_string();
        assert!(page.contains("-> do") && !page.contains('\u{1b}'), "{page}");
    }
}
