//! `assay operator`: certificates for operators whose programs know no token, such as Keylime's tenant.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use assay_identity::{PrivateKey, csr};
use assay_wire::console::Because;
use assay_wire::console::operator::{Credentials, Ended, Enroll, Operators};
use clap::Subcommand;
use serde_json::json;

use crate::console::{Asking, segment};
use crate::{output, service};

/// Arguments of `assay operator`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Get an operator a certificate: makes a key, has the server certify it for a month, and writes both and the bundle to a
    /// folder, under the names that Keylime's programs look for.
    Issue {
        /// Name of the operator, which goes on record with what they do.
        name: String,
        /// Folder for the files.
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// Every operator with a certificate that has not ended.
    List {
        #[command(flatten)]
        asking: Asking,
    },
    /// End what an operator is known by: the certificates are revoked, and nobody believes them any more.
    Revoke {
        /// Name of the operator.
        name: String,
        /// Why; it goes on record.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        asking: Asking,
    },
}

/// Runs a verb of `assay operator`.
pub fn run(args: Args) -> ExitCode {
    output::exit(match args.verb {
        Verb::Issue { name, out, asking } => issue(&name, &out, &asking),
        Verb::List { asking } => list(&asking),
        Verb::Revoke { name, reason, asking } => revoke(&name, &reason, &asking),
    })
}

fn issue(name: &str, out: &Path, asking: &Asking) -> Result<()> {
    let key = PrivateKey::generate()?;
    let request = data_encoding::BASE64.encode(&csr::request(&key)?);
    let request = Enroll { name: name.to_owned(), csr: request };
    let answer: Credentials = asking.console.client()?.post("/v1/operators", &request)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    service::replace(&out.join(BUNDLE_FILE), answer.bundle.as_bytes(), 0o644)?;
    service::replace(&out.join(KEY_FILE), key.to_pem().as_bytes(), 0o600)?;
    service::replace(&out.join(CERTIFICATE_FILE), answer.certificate.as_bytes(), 0o644)?;
    if asking.json {
        let file = |name: &str| out.join(name);
        return output::json(&json!({
            "operator": name, "key": file(KEY_FILE), "certificate": file(CERTIFICATE_FILE), "bundle": file(BUNDLE_FILE),
            "not_after": answer.not_after,
        }));
    }
    output::out!("the certificate of operator {name} is in {} until {}", out.display(), answer.not_after);
    Ok(())
}

fn list(asking: &Asking) -> Result<()> {
    let answer: Operators = asking.console.client()?.get("/v1/operators")?;
    output::answer(&answer, asking.json, |Operators { operators }| {
        let rows = operators.iter().map(|one| {
            let [name, status, serial] =
                [&one.name, &one.status, &one.serial].map(|text| output::shown(text));
            vec![name, status, serial, output::when(one.not_after)]
        });
        output::out!("{}", output::table(&["operator", "status", "serial", "until"], rows));
    })
}

fn revoke(name: &str, reason: &str, asking: &Asking) -> Result<()> {
    let path = format!("/v1/operators/{}/revoke", segment(name));
    let because = Because { reason: reason.to_owned() };
    let answer: Ended = asking.console.client()?.post(&path, &because)?;
    output::answer(&answer, asking.json, |Ended { certificates, .. }| {
        output::out!(
            "operator {name} is revoked: {certificates} of their certificates are on the revocation list now"
        );
    })
}

/// What Keylime's tenant looks for where it is told `tls_dir`.
const BUNDLE_FILE: &str = "cacert.crt";
const KEY_FILE: &str = "client-private.pem";
const CERTIFICATE_FILE: &str = "client-cert.crt";
