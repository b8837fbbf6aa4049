//! What the server says, in the agent's own types.

use std::time::Duration;

use assay_evidence::task::{Definition, Occasion};
use assay_identity::hpke::Sealed;
use assay_identity::selector::NeverMatches;
use assay_identity::signed_message::NodeId;
use assay_identity::{Selector, TrustDomain};
use assay_wire::binding::secret_info;
use assay_wire::edge::{self, device_message};

use crate::holding::{
    AkCertificate, Announced, Answer, Entry, Foreign, Grace, Granted, PlacedTask, SealedSecret, SecretAnswer,
    Signed,
};
use crate::offline;
use crate::task::{Hear, Heard, Say, Spoken};

/// What the server grants, or why it takes everything back.
pub(super) enum Grants {
    Granted(Box<Granted>),
    Withdrawn { reason: String },
}

pub(super) fn signed(signed: edge::Signed) -> Signed {
    Signed {
        statement: signed.statement.to_vec(),
        signature: signed.signature.to_vec(),
        signer: signed.signer.iter().map(|der| der.to_vec()).collect(),
        place: (signed.index, signed.size),
        path: signed.path.to_vec(),
    }
}

pub(super) fn announced(statement: edge::TrustStatement) -> Announced {
    let edge::TrustStatement { number, bundle, crl, jwt_keys, ledger_key: _ } = statement;
    Announced { number, bundle: bundle.to_vec(), crl: crl.to_vec(), jwt_keys: jwt_keys.to_vec() }
}

pub(super) fn grants(grants: edge::Grants, device_id: &str) -> Grants {
    if grants.withdrawn {
        return Grants::Withdrawn { reason: grants.reason };
    }
    Grants::Granted(Box::new(Granted {
        device_svid: grants.device_svid.iter().map(|der| der.to_vec()).collect(),
        entries: grants.entries.into_iter().filter_map(entry).collect(),
        policy: grants.policy,
        grace: grants.restart_offline.and_then(grace),
        node: grants.node.and_then(NodeId::new),
        classic_wanted: grants.classic_wanted,
        ak_certificate: AkCertificate {
            chain: grants.ak_certificate.iter().take(AK_CHAIN_MAX).map(|der| der.to_vec()).collect(),
            denied: grants.ak_denied,
        },
        secrets: grants.secrets.into_iter().map(|secret| (secret.name, secret.version)).collect(),
        foreign: grants.foreign_bundles.into_iter().take(FOREIGN_MAX).filter_map(foreign).collect(),
        tasks: grants.tasks.into_iter().take(TASKS_MAX).filter_map(|one| task(one, device_id)).collect(),
    }))
}

pub(super) fn answer(answer: edge::WorkloadSvidResponse) -> Answer {
    Answer {
        request_id: answer.request_id,
        svid: answer.svid.iter().map(|der| der.to_vec()).collect(),
        denied: answer.denied,
    }
}

/// A secret as it came for a device on a stream, which the server calls so.
pub(super) fn secret(answer: edge::SecretResponse, (device_id, stream): (&str, &[u8])) -> SecretAnswer {
    let edge::SecretResponse { name, version, encapsulated, ciphertext, autorun, denied } = answer;
    let info = secret_info(device_id, stream, &name, version);
    let sealed = Sealed { encapsulated: encapsulated.to_vec(), ciphertext: ciphertext.to_vec() };
    let is_there = !sealed.ciphertext.is_empty();
    let secret = Some(SealedSecret { sealed, info, autorun }).filter(|_| is_there);
    SecretAnswer { name, version, secret, denied }
}

/// A task of which this agent knows all that it asks for; of another it could not measure what it runs.
fn task(task: edge::TaskGrant, device_id: &str) -> Option<PlacedTask> {
    let edge::TaskGrant { task, attempt, nonce, definition, input, image_bytes, input_bytes, attested } =
        task;
    let read = Definition::parse(&definition);
    let (Ok(definition), Ok(nonce), Ok(input)) =
        (&read, nonce.as_ref().try_into(), input.as_ref().try_into())
    else {
        let error = read.err().map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(
            task,
            attempt,
            error,
            "task is not run here: it asks for what this agent does not know"
        );
        return None;
    };
    let occasion = Occasion { task, attempt, device: device_id.to_owned(), nonce };
    let definition = definition.clone();
    Some(PlacedTask { occasion, definition, input, image_bytes, input_bytes, is_attested: attested })
}

/// What is to be said on the stream for a task.
pub(super) fn said(say: Say) -> device_message::Message {
    let Say { task, attempt, what } = say;
    match what {
        Spoken::Fetch { is_input, offset } => {
            let request = edge::TaskContentRequest { task, attempt, input: is_input, offset };
            device_message::Message::TaskContent(request)
        }
        Spoken::Result { outcome, signature, output, messages, register } => {
            let register = register.map(|(statement, log)| edge::TaskRegister {
                public: statement.public.into(),
                message: statement.message.into(),
                signature: statement.signature.into(),
                log: log.into(),
            });
            device_message::Message::TaskResult(edge::TaskResult {
                outcome: outcome.into(),
                signature: signature.into(),
                output: output.into(),
                messages: messages.into(),
                register,
            })
        }
    }
}

/// A piece that came.
pub(super) fn piece(content: edge::TaskContent) -> Heard {
    let edge::TaskContent { task, attempt, input, offset, piece } = content;
    Heard { task, attempt, what: Hear::Piece { is_input: input, offset, bytes: piece.to_vec() } }
}

/// What became of a result.
pub(super) fn task_answer(answer: edge::TaskAnswer) -> Heard {
    let edge::TaskAnswer { task, attempt, refused } = answer;
    let answer = if refused.is_empty() { Ok(()) } else { Err(refused) };
    Heard { task, attempt, what: Hear::Answer(answer) }
}

/// Grace that makes no sense is none.
fn grace(restart_offline: edge::RestartOffline) -> Option<Grace> {
    let edge::RestartOffline { seconds, pcrs } = restart_offline;
    let pcrs = offline::selection(pcrs.as_slice());
    if seconds == 0 || pcrs.is_none() {
        tracing::warn!(
            seconds,
            "no grace for a restart without a server: it is for no time, or sealed to nothing"
        );
    }
    Some(Grace { duration: Duration::from_secs(seconds), pcrs: pcrs? }).filter(|_| seconds > 0)
}

/// An entry of which this agent knows all that it asks of a caller; of another it could not tell whose it is.
fn entry(entry: edge::WorkloadEntry) -> Option<Entry> {
    let read = entry.selectors.iter().map(|one| Selector::parse(&one.r#type, &one.value));
    let selectors = match read.collect::<Result<Vec<_>, NeverMatches>>() {
        Ok(selectors) => selectors,
        Err(error) => {
            tracing::warn!(entry = entry.id, spiffe_id = entry.spiffe_id, %error, "entry is nobody's on this device");
            return None;
        }
    };
    Some(Entry {
        id: entry.id,
        spiffe_id: entry.spiffe_id,
        selectors,
        dns_names: entry.dns_names,
        hint: entry.hint,
        by_quote: entry.by_quote,
        speaks_for_node: entry.speaks_for_node,
        federates_with: entry.federates_with,
    })
}

/// Whom to believe of another trust domain. One that cannot be read is nobody's, and no reason to refuse the rest.
fn foreign(told: edge::ForeignBundle) -> Option<Foreign> {
    let edge::ForeignBundle { trust_domain, bundle, jwt_keys } = told;
    let Ok(name) = TrustDomain::parse(&trust_domain) else {
        tracing::warn!(trust_domain, "bundle of another trust domain: that is no name of one");
        return None;
    };
    Foreign::read(name, bundle.to_vec(), jwt_keys.to_vec())
        .inspect_err(|error| tracing::warn!(trust_domain, %error, "bundle of another trust domain"))
        .ok()
}

/// Trust domains that its entries federate with.
const FOREIGN_MAX: usize = 256;
/// Tasks of one device.
const TASKS_MAX: usize = 1000;
/// Certificates of an AK: its own, and those above it.
const AK_CHAIN_MAX: usize = 4;
