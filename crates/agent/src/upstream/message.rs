//! What the server says, in the agent's own types.

use assay_wire::edge;

use crate::holding::{Announced, Answer, Entry, Granted, Selector, Signed};

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
        place: (signed.index, signed.size),
        path: signed.path.to_vec(),
    }
}

pub(super) fn announced(statement: edge::TrustStatement) -> Announced {
    let edge::TrustStatement { number, bundle, crl, jwt_keys, ledger_key: _ } = statement;
    Announced { number, bundle: bundle.to_vec(), crl: crl.to_vec(), jwt_keys: jwt_keys.to_vec() }
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
