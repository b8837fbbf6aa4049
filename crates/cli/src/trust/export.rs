//! `assay trust export`: classic certificates in the folder that programs of old read, without any private key.
//!
//! `ca-cert.pem`, `node-ID-cert.pem`, `trust-store.json` and `crl.json`. Keys are in devices' TPMs; programs sign through the agent.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_evidence::time::UnixTime;
use assay_identity::bundle::{life, pem, subject_key};
use assay_identity::{Crl, Serial};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};

use crate::console::Client;

#[derive(clap::Args)]
pub(super) struct Export {
    /// The folder; made for its owner alone if it is not there, and what is in it of an earlier export is replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where programs will find it, for the paths in trust-store.json [default: --out].
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// A node as the server tells of it.
struct Node {
    id: u64,
    certificate: String,
    is_verified: bool,
}

/// Fetches and writes; how many nodes.
pub(super) fn export(client: &Client, export: &Export) -> Result<Value> {
    let root = certificate(&client.get("/trust/ca-certificate?profile=classic")?)?;
    let crl = Crl::parse(&client.bytes("/trust/classic.crl")?).context("the revocation list")?;
    let root_der = CertificateDer::from_pem_slice(root.as_bytes()).context("the root")?;
    crl.verify(&root_der).context("the revocation list")?;
    let nodes = nodes(client)?;
    let out = &export.out;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(out)
        .with_context(|| out.display().to_string())?;
    let folder = export.folder.as_ref().unwrap_or(out);
    let write = |name: &str, text: &str| {
        let (path, new) = (out.join(name), out.join(format!(".{name}.new")));
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &path));
        written.with_context(|| path.display().to_string())
    };
    write("ca-cert.pem", &root)?;
    for node in &nodes {
        write(&file_name(node.id), &node.certificate)?;
    }
    write("trust-store.json", &format!("{:#}\n", trust_store(&nodes, folder)?))?;
    write("crl.json", &format!("{}\n", revoked(&crl)))?;
    Ok(json!({ "folder": out, "nodes": nodes.len(), "revoked": crl.revoked().count() }))
}

/// Every node with a classic certificate, a page at a time.
fn nodes(client: &Client) -> Result<Vec<Node>> {
    let (mut nodes, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = client.get(&format!("/trust/status?limit=1000{after}"))?;
        let details = page.get("node_details").and_then(Value::as_object);
        let details = details.context("the server tells nothing of nodes: it has no [trust_api]")?;
        for (name, detail) in details {
            let id = name.strip_prefix("node-").and_then(|id| id.parse().ok()).context("a node's number")?;
            // One that has none yet is left out, and told of by the next export.
            let Ok(answer) = client.get(&format!("/trust/certificate/{id}?profile=classic")) else {
                continue;
            };
            let is_verified = detail.get("verified") == Some(&json!(true));
            nodes.push(Node { id, certificate: certificate(&answer)?, is_verified });
        }
        match page.get("next").and_then(Value::as_u64) {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn trust_store(nodes: &[Node], folder: &Path) -> Result<Value> {
    let mut store = Map::new();
    for node in nodes {
        let der = CertificateDer::from_pem_slice(node.certificate.as_bytes()).context("a certificate")?;
        let (from, until) = life(&der).context("a certificate")?;
        let name = format!("node-{}", node.id);
        let entry = json!({
            "node_id": node.id,
            "name": name,
            "cert_path": folder.join(file_name(node.id)),
            "public_key": pem("PUBLIC KEY", &subject_key(&der).context("a certificate")?),
            "serial": serial_number(&der)?,
            "created_at": timestamp(from.as_secs()),
            "expires_at": timestamp(until.as_secs()),
            "verified": node.is_verified,
        });
        store.insert(name, entry);
    }
    Ok(Value::Object(store))
}

/// Serial numbers as programs of old write them.
fn revoked(crl: &Crl) -> Value {
    let mut serials: Vec<String> = crl.revoked().map(hex).collect();
    serials.sort();
    serials.into()
}

fn serial_number(certificate: &[u8]) -> Result<String> {
    assay_identity::bundle::serial(certificate).as_ref().map(hex).context("a certificate")
}

/// Lowercase and unpadded.
fn hex(serial: &Serial) -> String {
    format!("0x{}", serial.to_string().trim_start_matches('0'))
}

/// UTC without a zone.
fn timestamp(seconds: u64) -> String {
    UnixTime(seconds).to_string().trim_end_matches('Z').to_owned()
}

fn file_name(id: u64) -> String {
    format!("node-{id}-cert.pem")
}

fn certificate(answer: &Value) -> Result<String> {
    let pem = answer.get("certificate").and_then(Value::as_str).unwrap_or_default();
    match CertificateDer::from_pem_slice(pem.as_bytes()) {
        Ok(_) => Ok(pem.to_owned()),
        Err(_) => bail!("what the server sent is no certificate"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use assay_identity::classic::{NodeTemplate, issue, sign_root};
    use assay_identity::crl::{self, RevocationReason, RevokedSerial};
    use assay_identity::signed_message::NodeId;
    use assay_identity::{Issuer, PrivateKey, SpiffeId};

    use super::*;

    #[test]
    fn the_folder_says_what_programs_of_old_read() {
        let at = |seconds: u64| {
            assay_identity::UnixTime::since_unix_epoch(Duration::from_secs(1_893_499_200 + seconds))
        };
        let key = PrivateKey::generate_rsa().unwrap();
        let root = sign_root(&Serial::classic([1; 20]), at(0), at(1000), &key).unwrap();
        let root = Issuer::new(root, key).unwrap();
        let (serial, key) = (Serial::classic([2; 20]), PrivateKey::generate().unwrap());
        let template = NodeTemplate {
            node: NodeId::new(7).unwrap(),
            spiffe_id: SpiffeId::parse("spiffe://example.org/spire/agent/tpm/aa").unwrap(),
            spki: key.spki(),
            serial: serial.clone(),
            not_before: at(0),
            not_after: at(60),
            crl_url: None,
        };
        let issued = issue(&template, &root).unwrap();
        let certificate = pem("CERTIFICATE", issued.der());
        let node = Node { id: 7, certificate, is_verified: true };
        let store = trust_store(&[node], Path::new("/etc/sovereign/certs")).unwrap();
        let expected = json!({ "node-7": {
            "node_id": 7,
            "name": "node-7",
            "cert_path": "/etc/sovereign/certs/node-7-cert.pem",
            "public_key": pem("PUBLIC KEY", &key.spki()),
            "serial": format!("0x42{}", "02".repeat(19)),
            "created_at": "2030-01-01T12:00:00",
            "expires_at": "2030-01-01T12:01:00",
            "verified": true,
        } });
        assert_eq!(store, expected);
        let entry = RevokedSerial { serial, at: at(1), reason: RevocationReason::PrivilegeWithdrawn };
        let list = crl::sign(&[entry], 1, at(0), at(60), &root).unwrap();
        assert_eq!(revoked(&Crl::parse(&list).unwrap()), json!([format!("0x42{}", "02".repeat(19))]));
    }
}
