//! `assay telemetry key`: whose keys sign for which device by the JSON protocol.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;
use data_encoding::BASE64;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use crate::bounded;
use crate::console::{Asking, segment};
use crate::output;

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Have a key sign for a device: RSA of 2048 bits or more, or P-256.
    Add {
        /// The device: name, SPIFFE ID, or the beginning of its hash.
        device: String,
        /// The public key, PEM.
        #[arg(value_name = "FILE")]
        key: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// The keys that sign for devices.
    List {
        /// Of this device alone.
        #[arg(long)]
        device: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Have a key sign for nobody any more.
    Remove {
        /// Its hash, as `list` shows it.
        hash: String,
        #[command(flatten)]
        asking: Asking,
    },
}

pub(super) fn run(verb: Verb) -> ExitCode {
    output::exit(match verb {
        Verb::Add { device, key, asking } => add(device, &key, &asking),
        Verb::List { device, asking } => list(device.as_deref(), &asking),
        Verb::Remove { hash, asking } => remove(&hash, &asking),
    })
}

fn add(device: String, file: &std::path::Path, asking: &Asking) -> Result<()> {
    let pem = bounded::read(file, KEY_BYTES_MAX)?;
    let Ok(key) = SubjectPublicKeyInfoDer::from_pem_slice(&pem) else {
        bail!("{}: no public key in PEM", file.display());
    };
    let body = json!({ "device": device, "key": BASE64.encode(&key) });
    let answer: serde_json::Value = asking.console.client()?.post("/v1/telemetry-keys", &body)?;
    if asking.json {
        return output::json(&answer);
    }
    output::out!("{} signs for {}", output::text(&answer, "hash"), output::text(&answer, "device"));
    Ok(())
}

fn list(device: Option<&str>, asking: &Asking) -> Result<()> {
    let device = device.map(|device| format!("?device={}", segment(device))).unwrap_or_default();
    let answer: serde_json::Value = asking.console.client()?.get(&format!("/v1/telemetry-keys{device}"))?;
    if asking.json {
        return output::json(&answer);
    }
    let rows = output::list(&answer, "keys").iter().map(|key| {
        vec![output::text(key, "hash"), output::text(key, "device"), output::time(key, "added_at")]
    });
    output::out!("{}", output::table(&["key", "device", "added"], rows));
    Ok(())
}

fn remove(hash: &str, asking: &Asking) -> Result<()> {
    let path = format!("/v1/telemetry-keys/{}", segment(hash));
    let answer: serde_json::Value = asking.console.client()?.delete(&path)?;
    if asking.json {
        return output::json(&answer);
    }
    output::out!("{hash} signs for nobody any more");
    Ok(())
}

const KEY_BYTES_MAX: u64 = 64 << 10;
