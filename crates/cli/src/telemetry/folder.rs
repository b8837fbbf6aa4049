//! A batch as files, each of which openssl and other people's tools can do something with.

use std::path::Path;

use anyhow::{Context, Result, bail};
use assay_telemetry::json_protocol::Submission;
use assay_telemetry::otlp::{Encoding, OtlpBatch};
use assay_telemetry::to_be_signed;
use data_encoding::BASE64;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::Batch;
use crate::bounded;

/// Writes a batch and what came in it; returns the names of the files.
pub(super) fn write(batch: &Batch, requests: Option<&OtlpBatch>, folder: &Path) -> Result<Vec<String>> {
    let mut files = always(batch, to_be_signed(&batch.statement));
    for (number, part) in requests.iter().flat_map(|requests| &requests.parts).enumerate() {
        let name = part.signal().name().unwrap_or("gap");
        let ending = if part.encoding() == Encoding::Json { "json" } else { "pb" };
        files.push((format!("{number:04}.{name}.{ending}"), part.body.to_vec()));
    }
    written(files, folder)
}

/// Writes a submission by the JSON protocol; what was signed is as its device signed it.
pub(super) fn write_submission(batch: &Batch, submission: &Submission, folder: &Path) -> Result<Vec<String>> {
    written(always(batch, submission.signed_bytes()), folder)
}

fn always(batch: &Batch, signed: Vec<u8>) -> Vec<(String, Vec<u8>)> {
    vec![
        (STATEMENT.to_owned(), batch.statement.clone()),
        (SIGNED.to_owned(), signed),
        (SIGNATURE.to_owned(), batch.signature.clone()),
        (KEY.to_owned(), pem(&batch.key)),
        (PAYLOAD.to_owned(), batch.payload.clone()),
    ]
}

fn written(files: Vec<(String, Vec<u8>)>, folder: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (name, bytes) in &files {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

/// Reads a batch, with the key in the folder or another.
pub(super) fn read(folder: &Path, key: Option<&Path>) -> Result<Batch> {
    let read = |name: &str| bounded::read(&folder.join(name), FILE_BYTES_MAX);
    let key_file = key.map_or_else(|| folder.join(KEY), Path::to_owned);
    let key = bounded::read(&key_file, FILE_BYTES_MAX)?;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&key);
    let Ok(key) = key else { bail!("{}: no public key in PEM", key_file.display()) };
    Ok(Batch {
        statement: read(STATEMENT)?,
        signature: read(SIGNATURE)?,
        payload: read(PAYLOAD)?,
        key: key.as_ref().to_vec(),
    })
}

fn pem(spki: &[u8]) -> Vec<u8> {
    let text = BASE64.encode(spki);
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    pem.into_bytes()
}

const STATEMENT: &str = "statement.pb";
/// What the signature is over: DSSE's encoding of the statement; by the JSON protocol, what the device made of the body.
const SIGNED: &str = "signed";
const SIGNATURE: &str = "signature.der";
const KEY: &str = "device-key.pem";
const PAYLOAD: &str = "payload";
/// More than a payload has.
const FILE_BYTES_MAX: u64 = 4 << 20;
