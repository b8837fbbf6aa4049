//! Certificates that were issued, and what signs them.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::Life;
use assay_wire::console::certificate::{Authorities, Authority, Certificate, Certificates, RevocationList};
use axum::Json;
use axum::extract::State;

use super::devices::find;
use super::parameters::Asked;
use crate::certificate::{self, Which};
use crate::clock::certificate_time;
use crate::outcome::Refusal;
use crate::parts::Server;
use crate::store::{Carrier, Issued};

pub(super) const PARAMETERS: &[&str] = &["serial", "spiffe_id", "device", "state", "days", "limit", "cursor"];

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Certificates>, Refusal> {
    page(&server, &which, CERTIFICATES_DEFAULT).await.map(Json)
}

/// A page of those that are meant.
pub(super) async fn page(server: &Server, which: &Which, limit: usize) -> Result<Certificates, Refusal> {
    let device = match which.device.trim() {
        "" => None,
        name => Some(find(server, name).await?.id),
    };
    let page = which.filter(device, limit)?.page(&server.store, server.now()).await?;
    let certificates = page.certificates.into_iter().map(|issued| told(server, issued)).collect();
    Ok(Certificates { certificates, next: page.next })
}

pub(super) async fn authorities(State(server): State<Arc<Server>>) -> Json<Authorities> {
    Json(signing(&server))
}

/// What signs, and how long it still does.
pub(super) fn signing(server: &Server) -> Authorities {
    let now = server.now();
    let authority = |(name, life): (&str, Life)| Authority {
        name: name.to_owned(),
        until: UnixTime(life.until().as_secs()),
        stage: life.stage(certificate_time(now)).name().to_owned(),
    };
    let list = &server.revocations;
    Authorities {
        authorities: server.authority.lives().into_iter().map(authority).collect(),
        revocation_list: RevocationList {
            number: list.number(),
            entries: list.entries(),
            bytes: list.bytes(),
            until: list.ends(),
        },
    }
}

fn told(server: &Server, Issued { svid, device_name, leaf }: Issued) -> Certificate {
    let state = certificate::State::of(&svid, server.now());
    let (kind, device, entry) = match svid.carrier {
        Carrier::Device { id, entry_id: None, .. } => ("device", Some(id), None),
        Carrier::Device { id, entry_id, .. } => ("workload", Some(id), entry_id),
        Carrier::Node { profile, id, .. } => (profile.name(), Some(id), None),
        Carrier::Operator | Carrier::Renewal { .. } => ("service", None, None),
    };
    Certificate {
        serial: svid.serial,
        spiffe_id: svid.spiffe_id,
        kind: kind.to_owned(),
        state: state.name().to_owned(),
        device,
        device_name: Some(device_name).filter(|name| !name.is_empty()),
        entry,
        key_sha256: svid.spki_sha256,
        issued_at: svid.issued_at,
        not_after: svid.not_after,
        withdrawn_at: svid.withdrawn_at,
        leaf,
    }
}

const CERTIFICATES_DEFAULT: usize = 100;
