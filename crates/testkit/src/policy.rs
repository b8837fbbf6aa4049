//! The policy an operator would write for devices in a known state.

use std::collections::BTreeMap;
use std::fmt::Write;

use data_encoding::HEXLOWER;

use crate::{Bank, SoftwareDevice};

/// A policy, in TOML, under which these devices are good as they are now: their boot PCRs and their files.
pub fn policy_for(name: &str, devices: &[&SoftwareDevice]) -> String {
    let mut values: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for device in devices {
        for pcr in BOOT_PCRS {
            add(values.entry(pcr).or_default(), HEXLOWER.encode(device.pcrs.value(Bank::Sha256, pcr)));
        }
        for entry in device.ima.entries().iter().filter(|entry| entry.path() != "boot_aggregate") {
            let digest = format!("sha256:{}", HEXLOWER.encode(entry.digest()));
            add(files.entry(entry.path()).or_default(), digest);
        }
    }
    let mut text = format!("name = {name:?}\nversion = 1\n\n[boot]\nevent_log = \"optional\"\n");
    text.push_str("secure_boot = \"optional\"\n\n[pcr.sha256]\n");
    for (pcr, values) in &values {
        let _ = writeln!(text, "\"{pcr}\" = {values:?}");
    }
    text.push_str("\n[ima]\nlist = \"optional\"\n\n[ima.allow]\n");
    for (path, digests) in &files {
        let _ = writeln!(text, "{path:?} = {digests:?}");
    }
    text
}

fn add(values: &mut Vec<String>, value: String) {
    if !values.contains(&value) {
        values.push(value);
    }
}

/// What firmware, boot loaders and kernel extend, but for IMA.
const BOOT_PCRS: [u32; 11] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14];
