//! The certificate of the device's AK, in a file of the state folder for whoever enrols the device elsewhere by it.
//!
//! The file is what the server granted last, with the root behind it, and it is removed with what is withdrawn and once it is over.

use std::fmt;
use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_identity::ak_certificate::{TpmNames, names};
use assay_identity::bundle::{life, pem_certificates, serial, split_certificates};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::watch;

use crate::holding::{AkCertificate, Holding};
use crate::state_dir::{StateDir, StateError};

/// Where it is, in the state folder: PEM, that above it behind it.
pub const FILE: &str = "ak.pem";

/// There is none to show.
#[derive(Debug, Error)]
pub enum AkFileError {
    /// No file.
    #[error(
        "no certificate of the AK is here: the agent has to be attached and the device trusted, and the server's configuration to \
         have [ak_certificates]; the agent's log says why one is denied"
    )]
    None,
    /// The file is over.
    #[error(
        "the certificate of the AK has ended: the agent gets a new one while it is attached and the device trusted"
    )]
    Ended,
    /// The file is none.
    #[error("{FILE} in the state folder is no certificate of an AK: the agent writes it anew when it starts")]
    Malformed,
    /// The folder.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What is in the file.
#[derive(Clone, Debug, Serialize)]
pub struct AkFile {
    /// What it says of the TPM.
    pub manufacturer: String,
    /// Likewise.
    pub model: String,
    /// Likewise.
    pub version: String,
    /// The permanent identifier: SHA-256 of the EK's SubjectPublicKeyInfo, hex.
    pub permanent_identifier: String,
    /// Hex.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
    /// The certificate and that above it.
    pub pem: String,
    /// The same, DER.
    #[serde(skip)]
    pub chain: Vec<Vec<u8>>,
}

impl AkFile {
    /// Reads the file; one that is over is none.
    pub fn read(state: &StateDir, now: SystemTime) -> Result<AkFile, AkFileError> {
        let bytes = state.read(FILE)?.ok_or(AkFileError::None)?;
        let sections = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let chain: Vec<Vec<u8>> =
            sections.map_err(|_| AkFileError::Malformed)?.iter().map(|der| der.to_vec()).collect();
        let leaf = chain.first().ok_or(AkFileError::Malformed)?;
        let TpmNames { manufacturer, model, version, identifier } =
            names(leaf).ok_or(AkFileError::Malformed)?;
        let (serial, (from, until)) = serial(leaf).zip(life(leaf)).ok_or(AkFileError::Malformed)?;
        if SystemTime::UNIX_EPOCH + Duration::from_secs(until.as_secs()) <= now {
            return Err(AkFileError::Ended);
        }
        Ok(AkFile {
            manufacturer,
            model,
            version,
            permanent_identifier: identifier,
            serial: serial.to_string(),
            not_before: from.as_secs(),
            not_after: until.as_secs(),
            pem: pem_certificates(&chain),
            chain,
        })
    }
}

impl fmt::Display for AkFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AkFile { manufacturer, model, version, permanent_identifier, serial, pem, .. } = self;
        writeln!(f, "TPM         {manufacturer} {model} {version}")?;
        writeln!(f, "identifier  {permanent_identifier}")?;
        writeln!(f, "serial      {serial}")?;
        write!(f, "{}", pem.trim_end())
    }
}

/// Keeps the file in step with what the device holds, until dropped.
pub(crate) async fn keep(state: StateDir, mut holding: watch::Receiver<Holding>, clock: Clock) {
    let mut ticks = clock.ticks(LOOK_EVERY);
    let mut last: Option<AkCertificate> = None;
    loop {
        tokio::select! {
            changed = holding.changed() => if changed.is_err() { return },
            () = ticks.tick() => {}
        }
        let (is_heard, held) = {
            let holding = holding.borrow_and_update();
            (holding.ready && holding.until.is_none(), holding.ak_certificate.clone())
        };
        // Before the server is heard the file of an earlier run stays, unless it is over.
        let is_over = matches!(AkFile::read(&state, clock.now()), Err(AkFileError::Ended));
        let done = match is_heard {
            true if last.as_ref() != Some(&held) => put(&state, &held),
            _ if is_over => state.remove(FILE),
            _ => continue,
        };
        match done {
            Ok(()) => last = Some(held).filter(|_| is_heard).or(last),
            Err(error) => tracing::error!(%error, "the certificate of the AK cannot be kept"),
        }
    }
}

fn put(state: &StateDir, held: &AkCertificate) -> Result<(), StateError> {
    if !held.denied.is_empty() {
        tracing::warn!(reason = held.denied, "certificate of the AK denied");
    }
    let is_chain = |der: &Vec<u8>| split_certificates(der).is_ok_and(|one| one.len() == 1);
    match held.chain.first().and_then(|leaf| names(leaf)) {
        Some(_) if held.chain.iter().all(is_chain) => {
            tracing::info!("certificate of the AK received");
            state.write(FILE, pem_certificates(&held.chain).as_bytes())
        }
        _ => state.remove(FILE),
    }
}

/// How exactly its end is kept.
const LOOK_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use assay_identity::ak_certificate::{AkTemplate, issue, sign_root};
    use assay_identity::{Issuer, PrivateKey, Serial, TrustDomain, UnixTime};

    use super::*;

    fn certificate() -> Vec<u8> {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let key = PrivateKey::generate().unwrap();
        let domain = TrustDomain::parse("example.org").unwrap();
        let root = sign_root(&domain, &Serial::of_ak([1; 18]), (at(1000), at(9000)), &key).unwrap();
        let names = TpmNames {
            manufacturer: "id:00001014".to_owned(),
            model: "swtpm".to_owned(),
            version: "id:20191023".to_owned(),
            identifier: "ab".repeat(32),
        };
        let template = AkTemplate {
            names,
            spki: PrivateKey::generate().unwrap().spki(),
            serial: Serial::of_ak([2; 18]),
            not_before: at(2000),
            not_after: at(3000),
            crl_url: None,
        };
        issue(&template, &Issuer::new(root, key).unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_file_is_what_is_held_and_gone_when_nothing_is() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let held = AkCertificate { chain: vec![certificate()], denied: String::new() };
        assert!(matches!(AkFile::read(&state, at(2500)), Err(AkFileError::None)));
        put(&state, &held).unwrap();
        let read = AkFile::read(&state, at(2500)).unwrap();
        assert_eq!((read.model.as_str(), read.not_after, &read.chain), ("swtpm", 3000, &held.chain));
        assert!(read.to_string().contains(&"ab".repeat(32)));
        assert!(matches!(AkFile::read(&state, at(3000)), Err(AkFileError::Ended)));
        for nothing in [vec![], vec![b"none".to_vec()], vec![certificate(), b"none".to_vec()]] {
            put(&state, &held).unwrap();
            put(&state, &AkCertificate { chain: nothing, denied: String::new() }).unwrap();
            assert!(matches!(AkFile::read(&state, at(2500)), Err(AkFileError::None)));
        }
        state.write(FILE, b"-----BEGIN").unwrap();
        assert!(matches!(AkFile::read(&state, at(2500)), Err(AkFileError::Malformed)));
    }
}
