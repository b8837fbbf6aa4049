//! `assay trust`: what the fleet is trusted with right now, and whether what a node signed holds. The latter is offline.

mod export;

use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use assay_identity::signed_message::{
    Accept, MESSAGE_BYTES_MAX, NodeId, Once, Opened, Request, Signed, open,
};
use assay_identity::x509_svid::presented_id;
use assay_identity::{Bundle, CrlSet, UnixTime, VerifiedPeer, verify_svid};
use clap::Subcommand;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::appraise::at;
use crate::console::{Asking, segment};
use crate::output;

/// Arguments of `assay trust`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The fleet's trust states, or that of one SPIFFE ID.
    Status {
        /// A device's or workload's SPIFFE ID; a device also by its name or hash.
        #[arg(long)]
        id: Option<String>,
    },
    /// Verify a message that a node signed, offline. Whether it was there before only a receiver that remembers can say.
    CheckMessage(Box<CheckMessage>),
    /// Write classic certificates into the folder that programs of old read: no private keys, which are in devices' TPMs.
    Export(export::Export),
}

#[derive(clap::Args)]
struct CheckMessage {
    /// The node that it has to be from, as X-From-Node says it.
    #[arg(long)]
    from: String,
    /// File with the bytes that were signed: X-Node-Auth without the hex.
    #[arg(long)]
    signed: PathBuf,
    /// File with the signature: X-Signature without the hex.
    #[arg(long)]
    signature: PathBuf,
    /// The node's certificate and those above it, PEM: `certificate` and `issuing_certificate` of `/trust/certificate/ID`.
    #[arg(long)]
    certificate: PathBuf,
    /// The authorities of the trust domain, PEM: `/bundle` of the console.
    #[arg(long)]
    bundle: PathBuf,
    /// The revocation list, DER: `/crl` of the console.
    #[arg(long)]
    crl: PathBuf,
    /// Whom it has to be for.
    #[arg(long)]
    audience: String,
    /// The method of the request that it has to be of.
    #[arg(long, default_value = "POST")]
    method: String,
    /// The path of the request, with its query.
    #[arg(long)]
    path: String,
    /// File with the body of the request; left out: it has none.
    #[arg(long)]
    body: Option<PathBuf>,
    /// Accept a message of three members, which is bound to neither recipient nor path.
    #[arg(long)]
    accept_seed_messages: bool,
    /// Verify as of this time instead of now, such as 2027-01-31T12:00:00Z.
    #[arg(long)]
    at: Option<String>,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<()> {
    match &args.verb {
        Verb::Status { id } => status(&args.asking, id.as_deref()),
        Verb::CheckMessage(message) => message.check(args.asking.json),
        Verb::Export(folder) => {
            let done = export::export(&args.asking.console.client()?, folder)?;
            if args.asking.json {
                return output::json(&done);
            }
            let (nodes, revoked) = (output::text(&done, "nodes"), output::text(&done, "revoked"));
            output::out!("{nodes} certificates, {revoked} withdrawn");
            Ok(())
        }
    }
}

fn status(asking: &Asking, id: Option<&str>) -> Result<()> {
    let client = asking.console.client()?;
    let query = id.map(|id| format!("?id={}", segment(id))).unwrap_or_default();
    let answer: Value = client.get(&format!("/trust/status{query}"))?;
    if asking.json {
        return output::json(&answer);
    }
    match answer.get("devices").and_then(Value::as_object) {
        Some(counts) => {
            output::out!("trust domain {}", output::text(&answer, "trust_domain"));
            let rows = counts.iter().map(|(status, count)| vec![status.clone(), count.to_string()]);
            output::out!("{}", output::table(&["status", "devices"], rows));
        }
        None => {
            for member in ["id", "status", "tier"] {
                output::out!("{member:12} {}", output::text(&answer, member));
            }
            output::out!("{:12} {}", "valid until", output::time(&answer, "valid_until"));
        }
    }
    Ok(())
}

impl CheckMessage {
    fn check(&self, as_json: bool) -> Result<()> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(at(self.at.as_deref())?.0));
        let peer = self.peer(now)?;
        let from = NodeId::from_str(&self.from).context("--from")?;
        let (bytes, signature) = (read(&self.signed)?, read(&self.signature)?);
        let body = self.body.as_deref().map(read).transpose()?.unwrap_or_default();
        let request =
            Request { audience: &self.audience, method: &self.method, path: &self.path, body: &body };
        let accept = if self.accept_seed_messages { Accept::SeedToo } else { Accept::Strict };
        let signed = Signed { from, bytes: &bytes, signature: &signature };
        let opened = open(signed, &peer, &request, accept, now).context("the message is refused")?;
        if as_json { output::json(&told(&opened, &peer)) } else { tell(&opened, &peer) }
    }

    /// Who signed, by the files alone.
    fn peer(&self, now: UnixTime) -> Result<VerifiedPeer> {
        let pem = read(&self.certificate)?;
        let chain = assay_evidence::tee::certificates_of(&pem)
            .with_context(|| self.certificate.display().to_string())?;
        let Some(leaf) = chain.first() else { bail!("{}: no certificate", self.certificate.display()) };
        let id = presented_id(leaf).context("the certificate is refused")?;
        let bundle = Bundle::from_pem(id.trust_domain().clone(), &read(&self.bundle)?)
            .with_context(|| self.bundle.display().to_string())?;
        let crls = CrlSet::from_der([read(&self.crl)?]).with_context(|| self.crl.display().to_string())?;
        verify_svid(&chain, &bundle, &crls, now).context("the certificate is refused")
    }
}

fn told(opened: &Opened, peer: &VerifiedPeer) -> Value {
    let once = match opened.once {
        Once::Bytes(digest) => json!({ "sha256": HEXLOWER.encode(&digest) }),
        Once::Sequence(sequence) => json!({ "sequence": sequence }),
    };
    json!({
        "from_node": opened.from.get(),
        "spiffe_id": peer.spiffe_id().as_str(),
        "serial": peer.serial().to_string(),
        "timestamp": opened.said_at.as_secs(),
        "once": once,
        "data": opened.data,
    })
}

fn tell(opened: &Opened, peer: &VerifiedPeer) -> Result<()> {
    output::out!("node         {}", opened.from);
    output::out!("spiffe id    {}", peer.spiffe_id());
    output::out!("said at      {}", assay_evidence::time::UnixTime(opened.said_at.as_secs()));
    output::out!("data         {}", opened.data);
    output::out!(
        "The message holds. Whether it was there before is not known here, nor which node the certificate is of."
    );
    Ok(())
}

/// A file of a message, none of which is long.
fn read(path: &Path) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if size > FILE_BYTES_MAX {
        bail!("{}: {size} bytes, more than the {FILE_BYTES_MAX} that are accepted", path.display());
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// Revocation lists of 16 MiB are the longest.
const FILE_BYTES_MAX: u64 = 16 << 20;
const _: () = assert!(MESSAGE_BYTES_MAX as u64 <= FILE_BYTES_MAX);
