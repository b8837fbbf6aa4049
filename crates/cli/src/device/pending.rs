//! `assay device pending`, `admit` and `deny`: devices that were never here.

use serde_json::Value;

use crate::console::segment;
use crate::output;

pub(super) fn path(device: &str, word: &str) -> String {
    format!("/v1/pending/{}/{word}", segment(device))
}

/// What each showed: the name is its own word, everything else its makers'.
pub(super) fn print(answer: &Value) {
    let pending = output::list(answer, "pending");
    if pending.is_empty() {
        output::out!("No device waits to be admitted.");
        return;
    }
    for device in pending {
        print_said(device);
        output::out!("");
    }
}

/// One of them.
pub(super) fn print_said(device: &Value) {
    for (title, value) in [
        ("device", output::text(device, "name")),
        ("ek sha256", output::text(device, "ek_sha256")),
        ("ek maker", output::text(device, "ek_manufacturer")),
        ("ek by", output::text(device, "ek_issuer")),
        ("ek serial", output::text(device, "ek_serial")),
        ("serial", output::text(device, "serial")),
        ("idevid", output::text(device, "idevid_subject")),
        ("from", output::text(device, "address")),
        ("since", output::time(device, "first_at")),
        ("last seen", output::time(device, "last_at")),
        ("word", output::text(device, "word")),
        ("reason", output::text(device, "reason")),
    ] {
        output::out!("{title:12} {value}");
    }
}
