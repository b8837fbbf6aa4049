//! A restart without a server: what the device was granted, sealed to its TPM, and served again for as long as the policy says.
//!
//! Off unless the policy allows it. The file holds one key that the TPM gives back in the same boot state and in time, and
//! under it what was granted; neither is readable without the other, and none of it is on the disk in the clear. What is withdrawn
//! is removed at once.

use std::time::{Duration, SystemTime};

use assay_clock::Clock;
use assay_evidence::tpm::pcr::PcrSelection;
use assay_identity::TrustDomain;
use assay_wire::edge;
use assay_wire::pcr::{selection_from_wire, selection_to_wire};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use crate::device::Device;
use crate::holding::kept::{Bytes, Kept, KeptError};
use crate::holding::{Grace, Holding};
use crate::link::Linked;
use crate::state_dir::{StateDir, StateError};
use crate::tpm::{Bond, TpmError, UnsealError};

/// What was sealed cannot be served, or nothing can be sealed.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The TPM keeps it.
    #[error("{0}")]
    Unseal(#[from] UnsealError),
    /// The TPM does not do it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The TPM's clock is behind what it was.
    #[error("the TPM's clock went back since it was sealed: the TPM was cleared")]
    Cleared,
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is over, or does not read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// The system has no randomness.
    #[error("the random source failed")]
    Random,
}

/// The file: what is encrypted, and what gives the key to it.
#[derive(Serialize, Deserialize)]
struct File {
    /// The key, which only the TPM gives back.
    sealed: Bytes,
    /// What it is bound to: the TPM holds it against that.
    pcrs: Vec<(String, Vec<u32>)>,
    clock_until_ms: u64,
    /// AES-256-GCM under that key, which is used once.
    encrypted: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Content {
    /// The TPM's clock when it was sealed.
    clock_ms: u64,
    kept: Kept,
}

/// Keeps the file in step with what the device holds, until dropped.
pub(crate) async fn keep(
    state: StateDir,
    linked: Linked,
    mut holding: watch::Receiver<Holding>,
    clock: Clock,
) {
    let mut ticks = clock.ticks(SEAL_EVERY);
    let mut last: Option<Kept> = None;
    loop {
        let is_tick = tokio::select! {
            changed = holding.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
            () = ticks.tick() => true,
        };
        let now = holding.borrow_and_update().clone();
        // Not heard from yet, or served from the file itself.
        if !now.ready || now.until.is_some() {
            continue;
        }
        let Some((kept, grace)) = Kept::of(&now).zip(now.grace) else {
            last = None;
            if let Err(error) = state.remove(FILE) {
                tracing::error!(%error, "what was sealed for a restart without a server cannot be removed");
            }
            continue;
        };
        let device = linked.borrow().as_ref().map(|link| link.device.clone());
        let Some(device) = device.filter(|_| is_tick && is_due(&kept, last.as_ref(), &grace)) else {
            continue;
        };
        match seal(&state, &device, kept.clone(), &grace, clock.now()).await {
            Ok(()) => last = Some(kept),
            Err(error) => {
                tracing::error!(%error, "what is granted cannot be sealed for a restart without a server")
            }
        }
    }
}

/// Anything else is sealed again, and the same once it has grown old by a part of its grace.
fn is_due(kept: &Kept, last: Option<&Kept>, grace: &Grace) -> bool {
    last.is_none_or(|last| {
        let older = Duration::from_secs(kept.heard_at.saturating_sub(last.heard_at));
        !kept.is_as(last) || older >= grace.duration / RESEALS
    })
}

async fn seal(
    state: &StateDir,
    device: &Device,
    kept: Kept,
    grace: &Grace,
    now: SystemTime,
) -> Result<(), OfflineError> {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(kept.until);
    let left = u64::try_from(end.duration_since(now).unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let pcrs = grace.pcrs.clone();
    let mut key = [0; 32];
    rand::fill(&mut key).map_err(|_| OfflineError::Random)?;
    let (sealed, clock_ms, clock_until_ms) = device
        .run(move |device| {
            let clock_ms = device.tpm.read_clock()?.clock_ms;
            let bond = Bond { pcrs, clock_until_ms: clock_ms.saturating_add(left) };
            let ak = &device.key.keys().ak;
            let sealed = device.tpm.with_room(ak, |tpm| tpm.seal(&key, &bond))?;
            Ok((sealed, clock_ms, bond.clock_until_ms))
        })
        .await?;
    let mut encrypted = serde_json::to_vec(&Content { clock_ms, kept }).map_err(|_| OfflineError::Damaged)?;
    let under = cipher(&key).map_err(|_| OfflineError::Damaged)?;
    under
        .seal_in_place_append_tag(once(), Aad::from(ABOUT), &mut encrypted)
        .map_err(|_| OfflineError::Damaged)?;
    let file = File {
        sealed: Bytes(sealed),
        pcrs: written(&grace.pcrs),
        clock_until_ms,
        encrypted: Bytes(encrypted),
    };
    Ok(state.write(FILE, &serde_json::to_vec(&file).map_err(|_| OfflineError::Damaged)?)?)
}

/// What the device was granted before this agent was started, if it may be served; `None`: nothing was sealed.
pub(crate) async fn restore(
    state: &StateDir,
    device: &Device,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<Option<Holding>, OfflineError> {
    let Some(bytes) = state.read_up_to(FILE, FILE_BYTES_MAX)? else { return Ok(None) };
    let File { sealed, pcrs, clock_until_ms, encrypted } =
        serde_json::from_slice(&bytes).map_err(|_| OfflineError::Damaged)?;
    let bond = Bond { pcrs: read(pcrs).ok_or(OfflineError::Damaged)?, clock_until_ms };
    let unsealed = device.run(move |device| {
        let clock_ms = device.tpm.read_clock()?.clock_ms;
        let ak = &device.key.keys().ak;
        Ok((device.tpm.with_room(ak, |tpm| tpm.unseal(&sealed.0, &bond)), clock_ms))
    });
    let (key, clock_ms) = unsealed.await?;
    let Bytes(mut encrypted) = encrypted;
    let under = cipher(&key?).map_err(|_| OfflineError::Damaged)?;
    let content =
        under.open_in_place(once(), Aad::from(ABOUT), &mut encrypted).map_err(|_| OfflineError::Damaged)?;
    let content: Content = serde_json::from_slice(content).map_err(|_| OfflineError::Damaged)?;
    if clock_ms < content.clock_ms {
        return Err(OfflineError::Cleared);
    }
    Ok(Some(content.kept.restore(trust_domain, now)?))
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, Unspecified> {
    Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?))
}

/// Each key is used for one message.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn written(pcrs: &PcrSelection) -> Vec<(String, Vec<u32>)> {
    let banks: Vec<_> = pcrs.banks().map(|(bank, indexes)| (bank, indexes.iter().collect())).collect();
    selection_to_wire(&banks).into_iter().map(|one| (one.bank, one.pcrs)).collect()
}

fn read(pcrs: Vec<(String, Vec<u32>)>) -> Option<PcrSelection> {
    selection(&pcrs.into_iter().map(|(bank, pcrs)| edge::PcrSelection { bank, pcrs }).collect::<Vec<_>>())
}

/// PCRs to be sealed to, as the server names them; without any, nothing is sealed.
pub(crate) fn selection(wire: &[edge::PcrSelection]) -> Option<PcrSelection> {
    let banks = selection_from_wire(wire).ok()?;
    let selection: PcrSelection =
        banks.into_iter().map(|(bank, indexes)| (bank, indexes.into_iter().collect())).collect();
    Some(selection).filter(|selection| !selection.is_empty())
}

const FILE: &str = "offline.sealed";
const ABOUT: &[u8] = b"assay: grants for a restart without a server, v1";
/// A TPM takes up to a second for it.
const SEAL_EVERY: Duration = Duration::from_secs(5);
/// How often within its grace the same is sealed again.
const RESEALS: u32 = 10;
/// A revocation list of 16 MiB in base64, and a thousand SVIDs.
const FILE_BYTES_MAX: usize = 64 << 20;
