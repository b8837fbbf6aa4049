//! What was aimed at, what was reached, and what bounds it.

use serde::Serialize;

use super::limit::Limit;
use super::load::Scenario;
use super::memory::Memory;
use super::sig::Cost;
use crate::output;

/// One line of the table.
#[derive(Serialize)]
pub struct Aim {
    work: String,
    reached: f64,
    to_reach: f64,
    unit: &'static str,
    /// The same work in milliseconds of processor time.
    ms: Option<f64>,
    /// What this machine takes for the cryptography alone, in the same unit.
    limit: Option<f64>,
    is_reached: bool,
}

/// Every line, from what an attestation of each scenario costs the server and from its memory.
pub fn aims(cost: impl Fn(Scenario) -> Cost, ima_entries: usize, limit: Limit, memory: &Memory) -> Vec<Aim> {
    let over = |scenario, base| cost(scenario).over(cost(base));
    let on_top = |what: &str| format!("{what}, on top");
    let policy = &memory.policy;
    let long = format!("policy of {:.0} MiB, shared by {} devices", policy.policy_mib, memory.devices);
    vec![
        Aim::sig("quote only, whole round trip".to_owned(), cost(Scenario::Quote), 2.5, Some(1.0)),
        Aim::sig(
            on_top(&format!("IMA list of {ima_entries} entries sent whole")),
            over(Scenario::LongList, Scenario::SameBootLog),
            25.0,
            Some(limit.hashing_sig(ima_entries)),
        ),
        Aim::sig(
            on_top("nothing new after that list"),
            over(Scenario::NothingNew, Scenario::Quote),
            1.6,
            None,
        ),
        Aim::sig(on_top("boot log, boot policy"), over(Scenario::NewBootLog, Scenario::Reboot), 3.0, None),
        Aim::sig(on_top("the same boot log again"), over(Scenario::SameBootLog, Scenario::Reboot), 0.6, None),
        Aim::new(long, policy.first_added_mib, 60.0, "MiB"),
        Aim::new(
            format!("after {} such policies, no more than after one", policy.times),
            policy.last_added_mib,
            policy.first_added_mib.max(0.0),
            "MiB",
        ),
        Aim::new("attached device that waits".to_owned(), memory.device_kib, 16.0, "KiB"),
    ]
}

impl Aim {
    pub(super) fn new(work: String, reached: f64, to_reach: f64, unit: &'static str) -> Aim {
        Aim { work, reached, to_reach, unit, ms: None, limit: None, is_reached: reached <= to_reach }
    }

    pub(super) fn sig(work: String, cost: Cost, to_reach: f64, limit: Option<f64>) -> Aim {
        Aim { ms: Some(cost.ms), limit, ..Aim::new(work, cost.sig, to_reach, "sig") }
    }
}

/// The lines as people read them.
pub fn table(aims: &[Aim]) -> String {
    let rows = aims.iter().map(|aim| {
        let number = |value: f64| format!("{value:.2} {}", aim.unit);
        vec![
            aim.work.clone(),
            number(aim.reached),
            aim.ms.map_or("-".to_owned(), |ms| format!("{ms:.3} ms CPU")),
            format!("\u{2264} {}", number(aim.to_reach)),
            aim.limit.map_or("-".to_owned(), number),
            if aim.is_reached { "yes" } else { "NO" }.to_owned(),
        ]
    });
    output::table(&["work", "reached", "in time", "to reach", "limit", "reached?"], rows)
}
