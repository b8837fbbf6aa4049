//! What the server says, in the agent's own types; and what the agent asks, in the protocol's.

use assay_identity::csr::{self, CsrError};
use assay_telemetry::pae;
use assay_wire::binding::{WORKLOAD_SVID_TYPE, workload_svid_body};
use assay_wire::edge;
use thiserror::Error;

use crate::device::Device;
use crate::holding::{Announced, Answer, Due, Entry, Granted, Selector, Signed};
use crate::tpm::TpmError;

/// A request could not be made.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    /// For the workload's key.
    #[error("no certificate request could be made")]
    Csr(#[from] CsrError),
    /// The TPM did not sign it.
    #[error(transparent)]
    Tpm(#[from] TpmError),
}

/// What the server grants, or why it takes everything back.
pub(super) enum Grants {
    Granted(Granted),
    Withdrawn { reason: String },
}

pub(super) fn signed(signed: edge::Signed) -> Signed {
    Signed {
        statement: signed.statement.to_vec(),
        signature: signed.signature.to_vec(),
        signer: signed.signer.iter().map(|der| der.to_vec()).collect(),
    }
}

pub(super) fn announced(statement: edge::TrustStatement) -> Announced {
    let edge::TrustStatement { number, bundle, crl } = statement;
    Announced { number, bundle: bundle.to_vec(), crl: crl.to_vec() }
}

pub(super) fn grants(grants: edge::Grants) -> Grants {
    if grants.withdrawn {
        return Grants::Withdrawn { reason: grants.reason };
    }
    Grants::Granted(Granted {
        device_svid: grants.device_svid.iter().map(|der| der.to_vec()).collect(),
        entries: grants.entries.into_iter().map(entry).collect(),
        policy: grants.policy,
    })
}

pub(super) fn answer(answer: edge::WorkloadSvidResponse) -> Answer {
    Answer {
        request_id: answer.request_id,
        svid: answer.svid.iter().map(|der| der.to_vec()).collect(),
        denied: answer.denied,
    }
}

/// Makes the request and has the TPM sign it: the server gives SVIDs to this device's agent alone.
pub(super) fn svid_request(
    due: &Due,
    stream: &[u8],
    number: u64,
    device: &Device,
) -> Result<edge::WorkloadSvidRequest, RequestError> {
    let csr = csr::request(due.key())?;
    let body = workload_svid_body(stream, number, due.entry_id(), &csr);
    let device_signature = device.key.sign_message(&pae(WORKLOAD_SVID_TYPE, &body))?;
    Ok(edge::WorkloadSvidRequest {
        request_id: due.request_id().to_owned(),
        entry_id: due.entry_id().to_owned(),
        csr: csr.into(),
        device_signature: device_signature.into(),
        number,
    })
}

fn entry(entry: edge::WorkloadEntry) -> Entry {
    let selector = |one: edge::Selector| Selector { kind: one.r#type, value: one.value };
    Entry {
        id: entry.id,
        spiffe_id: entry.spiffe_id,
        selectors: entry.selectors.into_iter().map(selector).collect(),
        dns_names: entry.dns_names,
        hint: entry.hint,
    }
}
