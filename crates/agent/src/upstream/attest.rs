//! Evidence: answers a challenge with a quote and the logs, and tells when there is something new to see.

use std::time::Duration;

use assay_wire::edge::{Challenge, DeviceMessage, Evidence, EvidenceChanged, Quote, device_message};
use assay_wire::pcr::{PcrError, selection_from_wire, values_to_wire};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Sources;
use crate::device::Device;
use crate::logs::{self, ImaSource, LogError};
use crate::tpm::TpmError;

/// A challenge could not be answered.
#[derive(Debug, Error)]
pub enum AttestError {
    /// The challenge asks for PCRs that do not exist.
    #[error("the challenge makes no sense")]
    Challenge(#[from] PcrError),
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// A log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Answers every challenge and watches the IMA list, until the stream is gone or the TPM is lost.
///
/// Of several waiting challenges only the latest is answered: its nonce is the one the server still waits for.
pub async fn answer(
    device: Device,
    sources: Sources,
    mut challenges: watch::Receiver<Option<Challenge>>,
    outbox: mpsc::Sender<DeviceMessage>,
) -> Result<(), TpmError> {
    let ima = ImaSource::new(&sources.ima_log);
    let mut attested = ima.mark();
    let mut tick = interval(WATCH_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            changed = challenges.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let Some(challenge) = challenges.borrow_and_update().clone() else { continue };
                // Taken before the quote: what is measured in between is told of once more, never missed.
                attested = ima.mark();
                let sources = sources.clone();
                match device.run(move |device| Ok(collect(device, &sources, &challenge))).await? {
                    Ok(evidence) => device_message::Message::Evidence(evidence),
                    Err(AttestError::Tpm(error)) if error.is_lost() => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "challenge could not be answered");
                        continue;
                    }
                }
            }
            _ = tick.tick() => {
                let mark = ima.mark();
                if mark == attested {
                    continue;
                }
                attested = mark;
                device_message::Message::Changed(EvidenceChanged {})
            }
        };
        if outbox.send(DeviceMessage { message: Some(message) }).await.is_err() {
            return Ok(());
        }
    }
}

/// Collects the evidence a challenge asks for.
pub fn collect(device: &Device, sources: &Sources, challenge: &Challenge) -> Result<Evidence, AttestError> {
    let selection = selection_from_wire(&challenge.selection)?
        .into_iter()
        .map(|(bank, pcrs)| (bank, pcrs.into_iter().collect()))
        .collect();
    let quote = device.tpm.quote(&device.key.keys().ak, &challenge.nonce, &selection)?;
    let boot_log = match challenge.boot_log_wanted {
        true => logs::read_boot_log(&sources.boot_log)?,
        false => None,
    };
    // After the quote: the kernel lists an entry before it extends the PCR, so this list has all that is quoted.
    let list = ImaSource::new(&sources.ima_log).read_from(challenge.ima_from_entry)?;
    Ok(Evidence {
        nonce: challenge.nonce.clone(),
        quote: Some(Quote {
            message: quote.message.into(),
            signature: quote.signature.into(),
            pcrs: values_to_wire(&quote.values),
        }),
        boot_log: boot_log.map(Into::into),
        ima_log: list.bytes.into(),
        ima_from_entry: list.first,
        ima_ascii: list.ascii,
    })
}

/// How often the IMA list is looked at: a new program is told of well within the second in which it must be judged.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);
