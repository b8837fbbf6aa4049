//! `assay ear`: signed attestation results, as whoever relies on a device checks them. Verifying is offline.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_identity::jws::{JwkSet, Usage};
use assay_trust::ear::{Appraisal, Details, EarClaims, TOKEN_TYPE};
use clap::Subcommand;
use serde_json::{Value, json};

use crate::appraise::at;
use crate::bounded::read_text;
use crate::console::Console;
use crate::output;

/// Arguments of `assay ear`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Verify a token: signature, profile, time, and what is expected of it. Exit 0 says that it is genuine and
    /// current; what it says of the device is what is printed.
    Verify(Verify),
    /// Print the keys that verify a server's tokens, as a JWK set.
    Jwks {
        #[command(flatten)]
        console: Console,
    },
}

#[derive(clap::Args)]
struct Verify {
    /// File with the token; `-` reads standard input.
    token: PathBuf,
    /// The server's JWK set: from `assay ear jwks`, or `/jwks.json` of the console.
    #[arg(long)]
    jwks: PathBuf,
    /// The device it has to be about, a SPIFFE ID.
    #[arg(long)]
    device: Option<String>,
    /// The nonce it has to carry.
    #[arg(long)]
    nonce: Option<String>,
    /// Verify as of this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long)]
    at: Option<String>,
    /// Print the claims as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    match args.verb {
        Verb::Verify(args) => verify(&args),
        Verb::Jwks { console } => output::json(&console.client()?.get::<Value>("/jwks.json")?),
    }
}

fn verify(args: &Verify) -> Result<()> {
    let keys = read_text(&args.jwks, FILE_BYTES_MAX)?;
    let keys = JwkSet::from_json(keys.as_bytes(), Usage::Signature)
        .with_context(|| args.jwks.display().to_string())?;
    let token = read_token(&args.token)?;
    let payload = keys.verify(token.trim(), TOKEN_TYPE).context("the token is refused")?;
    let claims = EarClaims::read(&payload, at(args.at.as_deref())?).context("the token is refused")?;
    if let Some(device) = args.device.as_ref().filter(|device| **device != claims.sub) {
        bail!("the token is refused: it is about {}, not {device}", claims.sub);
    }
    let nonce = claims.eat_nonce.clone().map(String::from);
    if args.nonce.is_some() && args.nonce != nonce {
        bail!("the token is refused: it does not carry the nonce, so it may be an old one");
    }
    if args.json {
        // As signed, with the claims that are not ours.
        return output::json(&serde_json::from_slice::<Value>(&payload)?);
    }
    print(&claims);
    Ok(())
}

fn print(claims: &EarClaims) {
    let mut head = json!(claims);
    if let Value::Object(members) = &mut head {
        let verifier = &claims.ear_verifier_id;
        members.insert("verifier".to_owned(), json!(format!("{}, {}", verifier.developer, verifier.build)));
    }
    output::out!("{:18} {}", "device", output::text(&head, "sub"));
    output::out!("{:18} {}", "said by", output::text(&head, "iss"));
    output::out!("{:18} {}", "verifier", output::text(&head, "verifier"));
    output::out!("{:18} {}", "issued", output::time(&head, "iat"));
    output::out!("{:18} {}", "valid until", output::time(&head, "exp"));
    output::out!("{:18} {}", "nonce", output::text(&head, "eat_nonce"));
    for (name, appraisal) in &claims.submods {
        print_appraisal(name, appraisal);
    }
}

fn print_appraisal(name: &str, appraisal: &Appraisal) {
    let policies = appraisal.ear_appraisal_policy_ids.join(", ");
    let summary = json!({ "name": name, "status": appraisal.ear_status, "policies": policies });
    output::out!("\n{:18} {}", output::text(&summary, "name"), output::text(&summary, "status"));
    output::out!("{:18} {}", "policy", output::text(&summary, "policies"));
    if let Value::Object(vector) = json!(appraisal.ear_trustworthiness_vector) {
        for (claim, value) in vector.iter().filter(|(_, value)| **value != 0) {
            output::out!("{claim:18} {value}");
        }
    }
    if let Some(Details { evidence_at, device_status, findings, .. }) = &appraisal.ear_assay_appraisal {
        output::out!("{:18} {evidence_at}", "evidence");
        output::out!("{:18} {device_status}", "device status");
        for finding in findings {
            let finding = json!(finding);
            output::out!("{:18} {}", output::text(&finding, "check"), output::text(&finding, "message"));
        }
    }
}

fn read_token(path: &Path) -> Result<String> {
    if path.as_os_str() != "-" {
        return read_text(path, FILE_BYTES_MAX);
    }
    let mut text = String::new();
    std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// A token has some 10 KiB, a set of many keys 50.
const FILE_BYTES_MAX: u64 = 1 << 20;
