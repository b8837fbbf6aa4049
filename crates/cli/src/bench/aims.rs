//! What was aimed at, what was reached, and what bounds it.

use serde::Serialize;

use super::limit::Limit;
use super::load::Scenario;
use super::memory::Memory;
use crate::output;

/// One line of the table.
#[derive(Serialize)]
pub struct Aim {
    work: String,
    reached: f64,
    to_reach: f64,
    unit: &'static str,
    /// What this machine takes for the cryptography alone.
    limit: Option<f64>,
    is_reached: bool,
}

/// Every line, from the server's processor time per attestation of each scenario and from its memory.
pub fn aims(cpu_ms: impl Fn(Scenario) -> f64, ima_entries: usize, limit: Limit, memory: &Memory) -> Vec<Aim> {
    let over = |scenario, base| cpu_ms(scenario) - cpu_ms(base);
    let hashing = ima_entries as f64 * 1000.0 / limit.ima_entries;
    let ms = |work: String, reached, to_reach, limit| Aim::new(work, reached, to_reach, "ms CPU", limit);
    let on_top = |what: &str| format!("{what}, on top");
    vec![
        ms(
            "quote only, whole round trip".to_owned(),
            cpu_ms(Scenario::Quote),
            0.3,
            Some(1000.0 / limit.p256),
        ),
        ms(
            on_top(&format!("IMA list of {ima_entries} entries sent whole")),
            over(Scenario::LongList, Scenario::SameBootLog),
            2.0,
            Some(hashing),
        ),
        ms(on_top("nothing new after that list"), over(Scenario::NothingNew, Scenario::Quote), 0.05, None),
        ms(on_top("boot log, boot policy"), over(Scenario::NewBootLog, Scenario::Reboot), 1.0, None),
        ms(on_top("the same boot log again"), over(Scenario::SameBootLog, Scenario::Reboot), 0.05, None),
        Aim::new(
            format!("policy of {:.0} MiB, shared by {} devices", memory.policy_mib, memory.devices),
            memory.policy_added_mib,
            memory.policy_mib.round() * HELD_ONCE,
            "MiB",
            None,
        ),
        Aim::new("attached device that waits".to_owned(), memory.device_kib, 20.0, "KiB", None),
    ]
}

impl Aim {
    fn new(work: String, reached: f64, to_reach: f64, unit: &'static str, limit: Option<f64>) -> Aim {
        Aim { work, reached, to_reach, unit, limit, is_reached: reached <= to_reach }
    }
}

/// The lines as people read them.
pub fn table(aims: &[Aim]) -> String {
    let rows = aims.iter().map(|aim| {
        let number = |value: f64| format!("{value:.3} {}", aim.unit);
        vec![
            aim.work.clone(),
            number(aim.reached),
            format!("\u{2264} {} {}", aim.to_reach, aim.unit),
            aim.limit.map_or("-".to_owned(), number),
            if aim.is_reached { "yes" } else { "NO" }.to_owned(),
        ]
    });
    output::table(&["work", "reached", "to reach", "limit", "reached?"], rows)
}

/// A policy that is held once takes its text, its compiled form, and several times both while it is read; the
/// allocator keeps that. Were it held for each device, it would be thousands of times its text.
const HELD_ONCE: f64 = 16.0;
