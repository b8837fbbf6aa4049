//! What the agent asks the server for on behalf of its workloads: signed by the device key, in the order of their numbers.
//!
//! Signing takes the TPM a while, and a withdrawal must not wait for it: a task of its own signs and sends.

use std::collections::HashMap;

use assay_identity::csr::{self, CsrError};
use assay_identity::secret::SecretName;
use assay_telemetry::pae;
use assay_wire::binding::{
    JWT_SVID_TYPE, WORKLOAD_SVID_TYPE, classic_nonce, jwt_svid_body, secret_nonce, workload_svid_body,
};
use assay_wire::edge::{self, DeviceMessage, device_message};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::ask::{Ask, NoToken};
use crate::device::{Certified, Device};
use crate::holding::{Due, Token};
use crate::tpm::TpmError;

/// A request that is to be signed and sent.
#[derive(Debug)]
pub(super) enum Wanted {
    Svid(Due),
    Token {
        request_id: String,
        entry_id: String,
        audience: Vec<String>,
    },
    Classic,
    Secret {
        name: SecretName,
        version: u64,
    },
    /// What needs no signature of its own.
    Said(Box<device_message::Message>),
}

/// A request could not be made.
#[derive(Debug, Error)]
enum RequestError {
    /// For the workload's key.
    #[error("no certificate request could be made")]
    Csr(#[from] CsrError),
    /// The TPM did not sign it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// Signs what is wanted on the streams that it comes with, one after the other, until nobody wants anything any more.
pub(super) async fn sign(
    device: Device,
    mut wanted: mpsc::Receiver<(Vec<u8>, Wanted)>,
    outbox: mpsc::Sender<DeviceMessage>,
) -> Result<(), TpmError> {
    let mut number = 0;
    while let Some((stream, one)) = wanted.recv().await {
        number += 1;
        let signed = device.run(move |device| Ok(message(one, &stream, number, device))).await?;
        match signed {
            Ok(message) => {
                if outbox.send(DeviceMessage { message: Some(message) }).await.is_err() {
                    return Ok(());
                }
            }
            Err(RequestError::Tpm(error)) if error.is_lost() => return Err(error),
            Err(error) => tracing::error!(%error, "a workload's request could not be made"),
        }
    }
    Ok(())
}

fn message(
    wanted: Wanted,
    stream: &[u8],
    number: u64,
    device: &Device,
) -> Result<device_message::Message, RequestError> {
    match wanted {
        Wanted::Svid(due) => {
            let csr = csr::request(due.key())?;
            let body = workload_svid_body(stream, number, due.entry_id(), &csr);
            let device_signature = device.key.sign_message(&pae(WORKLOAD_SVID_TYPE, &body))?.into();
            let (request_id, entry_id) = (due.request_id().to_owned(), due.entry_id().to_owned());
            let csr = csr.into();
            let request = edge::WorkloadSvidRequest { request_id, entry_id, csr, device_signature, number };
            Ok(device_message::Message::WorkloadSvid(request))
        }
        Wanted::Token { request_id, entry_id, audience } => {
            let body = jwt_svid_body(stream, number, &entry_id, &audience);
            let device_signature = device.key.sign_message(&pae(JWT_SVID_TYPE, &body))?.into();
            let request = edge::JwtSvidRequest { request_id, entry_id, audience, device_signature, number };
            Ok(device_message::Message::JwtSvid(request))
        }
        Wanted::Said(message) => Ok(*message),
        Wanted::Classic => {
            let Certified { public, info, signature } =
                device.certify_classic(|public| classic_nonce(stream, number, public))?;
            let request = edge::ClassicRequest {
                public: public.into(),
                certify_info: info.into(),
                certify_signature: signature.into(),
                number,
            };
            Ok(device_message::Message::Classic(request))
        }
        Wanted::Secret { name, version } => {
            let Certified { public, info, signature } =
                device.certify_exchange(|public| secret_nonce(stream, number, name.as_str(), public))?;
            let request = edge::SecretRequest {
                name: name.to_string(),
                version,
                public: public.into(),
                certify_info: info.into(),
                certify_signature: signature.into(),
                number,
            };
            Ok(device_message::Message::Secret(request))
        }
    }
}

/// Tokens that were asked for on one stream, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    asked: HashMap<String, Asked>,
    made: u64,
}

/// A token that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub entry_id: String,
    pub audience: Vec<String>,
    callers: Vec<oneshot::Sender<Result<Token, NoToken>>>,
}

impl Waiting {
    /// Takes a question; what has to be asked for it, unless that is on its way.
    pub(super) fn take(&mut self, ask: Ask) -> Option<Wanted> {
        self.forget_the_gone();
        let Ask { entry_id, audience, answer } = ask;
        let same = |asked: &&mut Asked| asked.entry_id == entry_id && asked.audience == audience;
        if let Some(asked) = self.asked.values_mut().find(same) {
            asked.callers.push(answer);
            return None;
        }
        let of_entry = self.asked.values().filter(|asked| asked.entry_id == entry_id).count();
        if self.asked.len() >= ASKED_MAX || of_entry >= ASKED_PER_ENTRY_MAX {
            let _ = answer.send(Err(NoToken::Unavailable));
            return None;
        }
        self.made += 1;
        let request_id = format!("token-{}", self.made);
        let asked = Asked { entry_id: entry_id.clone(), audience: audience.clone(), callers: vec![answer] };
        self.asked.insert(request_id.clone(), asked);
        Some(Wanted::Token { request_id, entry_id, audience })
    }

    /// What a request was about; `None` if it was not made, or is answered.
    pub(super) fn answered(&mut self, request_id: &str) -> Option<Asked> {
        self.asked.remove(request_id)
    }

    /// Callers wait a few seconds; what nobody waits for makes room.
    fn forget_the_gone(&mut self) {
        self.asked.retain(|_, asked| {
            asked.callers.retain(|caller| !caller.is_closed());
            !asked.callers.is_empty()
        });
    }
}

impl Asked {
    /// Tells everyone who waits.
    pub(super) fn tell(self, answer: &Result<Token, NoToken>) {
        for caller in self.callers {
            let _ = caller.send(answer.clone());
        }
    }
}

/// Tokens on their way at a time; the TPM signs the requests one after the other.
const ASKED_MAX: usize = 16;
/// Of one entry, so that no workload keeps the others waiting.
const ASKED_PER_ENTRY_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(entry_id: &str, audience: usize) -> (Ask, oneshot::Receiver<Result<Token, NoToken>>) {
        let (answer, answered) = oneshot::channel();
        let (entry_id, audience) = (entry_id.to_owned(), vec![audience.to_string()]);
        (Ask { entry_id, audience, answer }, answered)
    }

    #[test]
    fn no_workload_keeps_anothers_questions_out_and_equal_ones_are_one() {
        let mut waiting = Waiting::default();
        let mut callers = Vec::new();
        let mut takes = |entry: &str, audience| {
            let (ask, answered) = ask(entry, audience);
            callers.push(answered);
            waiting.take(ask).is_some()
        };
        let asked = (0..100).filter(|audience| takes("greedy", *audience)).count();
        assert_eq!(asked, ASKED_PER_ENTRY_MAX);
        assert!(takes("other", 0));
        assert!(!takes("other", 0), "it is on its way");
        // Only who waits has a question.
        drop(callers);
        let (again, _answered) = ask("greedy", 7);
        assert!(waiting.take(again).is_some());
        assert_eq!(waiting.asked.len(), 1);
    }
}
