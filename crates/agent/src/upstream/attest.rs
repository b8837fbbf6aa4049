//! Evidence: answers a challenge with a quote and the logs, and tells when there is something new to see.

use std::collections::BTreeMap;
use std::time::Duration;

use assay_clock::{Backoff, Clock};
use assay_evidence::tpm::pcr::{PcrSet, PcrValues};
use assay_evidence::tpm::quote::Quoted;
use assay_evidence::{Digest, HashAlgorithm};
use assay_wire::edge::{
    BankStatement, Challenge, DeviceMessage, Evidence, EvidenceChanged, Quote, Unanswered, device_message,
};
use assay_wire::pcr::{PcrError, selection_from_wire, values_to_wire};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use crate::config::Sources;
use crate::device::Device;
use crate::logs::{self, ImaSource, LogError};
use crate::tpm::{self, TpmError};

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

/// Answers every challenge and watches the IMA list and the PCRs that entries look at, until the stream is gone or the TPM is lost.
///
/// Of several waiting challenges only the latest is answered: its nonce is the one the server still waits for.
pub async fn answer(
    device: Device,
    sources: Sources,
    clock: Clock,
    mut challenges: watch::Receiver<Option<Challenge>>,
    outbox: mpsc::Sender<DeviceMessage>,
) -> Result<(), TpmError> {
    let ima = ImaSource::new(&sources.ima_log);
    let mut attested = ima.mark();
    let mut told = Told::default();
    let mut watched = PcrValues::new();
    let mut watch_interval = WATCH_INTERVAL_FIRST;
    let mut backoff = Backoff::between(FAULT_WAIT_FIRST, FAULT_WAIT_LONGEST);
    loop {
        let message = tokio::select! {
            changed = challenges.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let Some(challenge) = challenges.borrow_and_update().clone() else { continue };
                // Taken before the quote: what is measured in between is told of once more, never missed.
                attested = ima.mark();
                let (sources, own_clock, asked) = (sources.clone(), clock.clone(), challenge.clone());
                match device.run(move |device| Ok(collect(device, &sources, (&asked, told), &own_clock))).await? {
                    Ok((evidence, telling, watching)) => {
                        backoff.succeeded();
                        (told, watched) = (telling, watching);
                        device_message::Message::Evidence(evidence)
                    }
                    Err(AttestError::Tpm(error)) if error.is_lost() => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "challenge could not be answered");
                        // A fault that lasts is not told all the time.
                        clock.sleep(backoff.wait()).await;
                        let reason = error.to_string();
                        device_message::Message::Unanswered(Unanswered { nonce: challenge.nonce, reason })
                    }
                }
            }
            () = clock.sleep(watch_interval) => {
                let mark = ima.mark();
                let now = watch(&device, &watched).await?;
                if mark == attested && now == watched {
                    watch_interval = (watch_interval + WATCH_INTERVAL_STEP).min(WATCH_INTERVAL_LONGEST);
                    continue;
                }
                watch_interval = WATCH_INTERVAL_FIRST;
                (attested, watched) = (mark, now);
                device_message::Message::Changed(EvidenceChanged {})
            }
        };
        if outbox.send(DeviceMessage { message: Some(message) }).await.is_err() {
            return Ok(());
        }
    }
}

/// The PCRs as they are now; as they were, where the TPM does not say.
async fn watch(device: &Device, watched: &PcrValues) -> Result<PcrValues, TpmError> {
    if watched.is_empty() {
        return Ok(PcrValues::new());
    }
    let selection = watched.selection();
    match device.run(move |device| device.tpm.read_pcrs(&selection)).await {
        Ok(now) => Ok(now),
        Err(error) if error.is_lost() => Err(error),
        Err(error) => {
            tracing::warn!(%error, "PCRs could not be watched");
            Ok(watched.clone())
        }
    }
}

/// What the server was told on this stream and keeps in mind.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    measure_log: Option<Digest>,
}

impl Told {
    /// The log, if it is another than was told.
    fn news(&mut self, log: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let log = log?;
        let sha256 = HashAlgorithm::Sha256.hash(&[&log]);
        (self.measure_log.replace(sha256) != Some(sha256)).then_some(log)
    }
}

/// Collects the evidence a challenge asks for.
fn collect(
    device: &Device,
    sources: &Sources,
    (challenge, mut told): (&Challenge, Told),
    clock: &Clock,
) -> Result<(Evidence, Told, PcrValues), AttestError> {
    let mut selection: BTreeMap<HashAlgorithm, PcrSet> = BTreeMap::new();
    for (bank, pcrs) in selection_from_wire(&challenge.selection)? {
        selection.entry(bank).or_default().extend(pcrs);
    }
    if challenge.banks_wanted {
        let banks = device.tpm.pcr_banks()?;
        let is_active = |wanted| banks.iter().any(|bank| bank.pcrs > 0 && bank.hash() == Some(wanted));
        selection.retain(|bank, _| is_active(*bank));
    }
    let mut watched = PcrValues::new();
    for (bank, pcrs) in selection_from_wire(&challenge.watched)? {
        let alone = [(bank, pcrs.iter().copied().collect())].into_iter().collect();
        match device.tpm.read_pcrs(&alone) {
            Ok(values) => {
                watched.fill_from(&values);
                selection.entry(bank).or_default().extend(pcrs);
            }
            // What the TPM does not have it does not say: the rest is quoted without.
            Err(TpmError::NoBank { bank }) => {
                tracing::warn!(%bank, "an entry looks at a bank that this TPM does not have")
            }
            Err(error) => return Err(error.into()),
        }
    }
    let selection = selection.into_iter().collect();
    let ak = &device.key.keys().ak;
    let banks = match challenge.banks_wanted {
        true => Some(device.tpm.state_banks(ak, &challenge.nonce)?),
        false => None,
    };
    let ima = ImaSource::new(&sources.ima_log);
    let quote =
        device.tpm.quote(ak, &challenge.nonce, &selection, |quoted, read| earlier(&ima, quoted, read))?;
    // What was quoted is what the server knows.
    let watched = watched
        .iter()
        .filter_map(|(bank, index, _)| Some((index, *quote.values.get(bank, index)?)))
        .collect();
    let boot_log = match challenge.boot_log_wanted {
        true => logs::read_boot_log(&sources.boot_log)?,
        false => None,
    };
    if challenge.boot_log_wanted {
        told = Told::default();
    }
    let measure_log = told.news(logs::read_measure_log(&sources.measure_log)?);
    // After the quote: the kernel lists an entry before it extends the PCR, so this list has all that is quoted.
    let list = ima.read_from(challenge.ima_from_entry)?;
    let evidence = Evidence {
        nonce: challenge.nonce.clone(),
        quote: Some(Quote {
            message: quote.message.into(),
            signature: quote.signature.into(),
            pcrs: values_to_wire(&quote.values),
        }),
        boot_log: boot_log.map(Into::into),
        measure_log: measure_log.map(Into::into),
        ima_log: list.bytes.into(),
        ima_from_entry: list.first,
        ima_ascii: list.ascii,
        banks: banks.map(|tpm::BankStatement { capability, message, signature }| {
            let [capability, message, signature] = [capability, message, signature].map(Into::into);
            Box::new(BankStatement { capability, message, signature })
        }),
        time_seconds: clock.seconds(),
    };
    Ok((evidence, told, watched))
}

/// What was quoted, on a machine that goes on measuring.
pub(crate) fn earlier(ima: &ImaSource, quoted: &Quoted, read: &PcrValues) -> Option<PcrValues> {
    logs::quoted_values(ima, quoted, read).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was measured during the quote cannot be told");
        None
    })
}

/// How often the IMA list and PCRs are looked at while something new is measured: the kernel tells nobody of it.
const WATCH_INTERVAL_FIRST: Duration = Duration::from_millis(200);
/// And how much less often with each look that showed nothing, so that a device at rest is left alone.
const WATCH_INTERVAL_STEP: Duration = Duration::from_millis(10);
/// Still well within the two seconds in which a new program is to be judged.
const WATCH_INTERVAL_LONGEST: Duration = Duration::from_secs(1);
/// Before it is told that a challenge cannot be answered: at once, as far as anybody notices, and then less and less often.
const FAULT_WAIT_FIRST: Duration = Duration::from_millis(20);
const FAULT_WAIT_LONGEST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_log_is_told_when_it_changed() {
        let mut told = Told::default();
        let mut is_told = |log: Option<&[u8]>| told.news(log.map(<[u8]>::to_vec)).is_some();
        assert_eq!(
            [None, Some(b"one".as_slice()), Some(b"one"), None, Some(b"one"), Some(b"two")].map(&mut is_told),
            [false, true, false, false, false, true]
        );
    }
}
