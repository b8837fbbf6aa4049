//! Tokens the authority signed: on record before they are signed. They end by themselves, and nothing withdraws them.

use assay_evidence::time::UnixTime;
use assay_identity::jwt_svid::JwtSvid;
use assay_trust::Basis;

use super::budget::Spending;
use super::svid::{carried, told};
use super::{StoreError, Transaction, Unit};
use crate::audit::{Kind, Line};

/// Records a token that is about to be signed; refuses if its trust state has moved on, or its entry is gone.
#[derive(Clone, Debug)]
pub struct RecordJwt {
    /// What it says.
    pub svid: JwtSvid,
    /// The device that carries it.
    pub device_id: String,
    /// The version of its trust state that the decision was made on.
    pub state_version: u64,
    /// What that state stands on.
    pub basis: Basis,
    /// The entry that entitles to it.
    pub entry_id: String,
    /// The revision of it that the decision was made on.
    pub entry_revision: u64,
    /// When.
    pub at: UnixTime,
}

impl Transaction for RecordJwt {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let RecordJwt { svid, device_id, state_version, basis, entry_id, entry_revision, at } = self;
        carried(unit, &device_id, state_version, Some((&entry_id, entry_revision))).await?;
        unit.spend(&device_id, Spending::Tokens, at)?;
        let mut detail = serde_json::json!({
            "audience": svid.audience, "entry": entry_id, "state_version": state_version,
            "not_after": svid.expires_at,
        });
        told(&mut detail, basis);
        unit.audit(Line {
            kind: Kind::JwtIssued,
            at,
            actor: device_id,
            subject: svid.spiffe_id.to_string(),
            detail: detail.to_string(),
        })
        .await?;
        Ok(())
    }
}
