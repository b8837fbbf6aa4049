//! `/verify/evidence`: whether evidence of a TPM is good by a policy that comes with it. Anybody may ask.

use assay_evidence::request::Evidence;
use assay_trust::Tier;
use assay_wire::keylime::evidence::{self as asked, judged};
use assay_wire::keylime::{Envelope, is_version};
use axum::extract::{Path, Request, State};
use axum::response::Response;

use super::status::{V2, envelope};
use super::{At, body, peer};
use crate::keylime::evidence::{Presented, judge};
use crate::keylime::policy::Parts;
use crate::outcome::{Kind, Refusal};
use crate::thread::aside;

pub(super) async fn verify(
    State(at): State<At>,
    Path(version): Path<String>,
    request: Request,
) -> Result<Response, V2> {
    if !is_version(&version) {
        return Err(Refusal::new(Kind::Malformed, "version", "API version not supported").into());
    }
    let peer = peer(request.extensions());
    at.doors.rates.spend(&peer, at.server.now())?;
    // Whoever asks has proven nothing, and waits in one line with those that enroll.
    let place = at.server.edge.enrollments.admit(&peer)?;
    let body = body::read(&at, peer, request.into_body(), EVIDENCE_BYTES_MAX).await?;
    let asked = asked::Presented::read(&body)?;
    drop(body);
    let now = at.server.now();
    let result = aside(move || {
        let presented = Presented {
            evidence: Evidence {
                nonce: asked.nonce,
                quote: asked.quote,
                boot_log: Some(asked.boot_log).filter(|log| !log.is_empty()),
                ima_log: asked.ima_list,
                ima_ascii: true,
                ..Evidence::default()
            },
            ek_public: asked.ek_public,
            ak_public: asked.ak_public,
        };
        let parts = Parts {
            runtime: asked.runtime_policy.as_deref(),
            tpm: asked.tpm_policy.as_deref(),
            boot: asked.mb_policy.as_deref(),
        };
        judge(&presented, parts, now)
    });
    let result = result.await??;
    drop(place);
    let is_good = result.tier() == Tier::Affirming;
    let findings = result.findings().iter().filter(|finding| finding.tier > Tier::Affirming);
    let findings = findings.map(|finding| (finding.check.name(), finding.message.clone()));
    Ok(envelope(&Envelope::success(judged(is_good, findings))))
}

/// A list of some ten thousand files, with a policy that knows them.
const EVIDENCE_BYTES_MAX: usize = 4 << 20;
