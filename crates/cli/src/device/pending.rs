//! `assay device pending`, `admit` and `deny`: devices that were never here.

use assay_wire::console::pending::{Newcomer, Pending};

use crate::console::segment;
use crate::output;

pub(super) fn path(device: &str, word: &str) -> String {
    format!("/v1/pending/{}/{word}", segment(device))
}

/// What each showed: the name is its own word, everything else its makers'.
pub(super) fn print(Pending { pending }: &Pending) {
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
pub(super) fn print_said(device: &Newcomer) {
    for (title, value) in [
        ("device", output::shown(&device.name)),
        ("ek sha256", output::maybe(&device.ek_sha256)),
        ("ek maker", output::maybe(&device.ek_manufacturer)),
        ("ek by", output::maybe(&device.ek_issuer)),
        ("ek serial", output::maybe(&device.ek_serial)),
        ("serial", output::maybe(&device.serial)),
        ("idevid", output::maybe(&device.idevid_subject)),
        ("from", output::shown(&device.address)),
        ("since", output::when(device.first_at)),
        ("last seen", output::when(device.last_at)),
        ("word", output::shown(&device.word)),
        ("reason", output::maybe(&device.reason)),
    ] {
        output::out!("{title:12} {value}");
    }
}
