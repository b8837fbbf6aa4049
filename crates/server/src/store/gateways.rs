//! Gateways: which certificates they have, and how an operator ends them.

use assay_evidence::time::UnixTime;

use super::sql::query;
use super::svid::{SvidRecord, svid};
use super::{Store, StoreError, Transaction, Unit, Withdrawn, loaded, stored, withdraw};
use crate::audit::{Kind, Line};

/// Ends every certificate of a gateway, or of an operator.
#[derive(Clone, Debug)]
pub struct RevokeGateway {
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// As what it goes on record.
    pub kind: Kind,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who says so.
    pub actor: String,
    /// When.
    pub at: UnixTime,
}

impl Transaction for RevokeGateway {
    type Output = Withdrawn;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Withdrawn, StoreError> {
        query("SELECT 1 FROM svids WHERE spiffe_id = $1 AND withdrawn_at = 0 AND not_after > $2")
            .bind(&self.spiffe_id)
            .bind(stored(self.at.0))
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Unknown("standing certificate of this name"))?;
        let line = Line {
            kind: self.kind,
            at: self.at,
            actor: self.actor,
            subject: self.spiffe_id.clone(),
            detail: serde_json::json!({ "reason": self.reason }).to_string(),
        };
        unit.audit(line).await?;
        withdraw::of_name(unit, &self.spiffe_id, self.at).await
    }
}

impl Store {
    /// The certificates under a path of SPIFFE IDs that have not ended, newest first, withdrawn ones too.
    pub async fn svids_under(
        &self,
        path: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<SvidRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM svids WHERE device_id = '' AND not_after > $2 AND substr(spiffe_id, 1, length($1)) = $1
             ORDER BY leaf DESC LIMIT $3",
        )
        .bind(path)
        .bind(stored(now.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(svid).collect()
    }
}

/// Refuses to renew what does not stand any more, and more certificates of one gateway than it has use for.
pub(super) async fn renewable(
    unit: &mut Unit,
    spiffe_id: &str,
    serial: &str,
    at: UnixTime,
) -> Result<(), StoreError> {
    query("SELECT 1 FROM svids WHERE serial = $1 AND spiffe_id = $2 AND withdrawn_at = 0 AND not_after > $3")
        .bind(serial)
        .bind(spiffe_id)
        .bind(stored(at.0))
        .fetch_optional(unit.connection())
        .await?
        .ok_or(StoreError::Unknown("standing certificate of this serial"))?;
    let row = query("SELECT COUNT(*) AS standing FROM svids WHERE spiffe_id = $1 AND not_after > $2")
        .bind(spiffe_id)
        .bind(stored(at.0))
        .fetch_one(unit.connection())
        .await?;
    match loaded(row.try_get("standing")?, "count")? >= GATEWAY_SVIDS_MAX {
        true => {
            let noun = "certificates of this gateway that have not ended";
            Err(StoreError::Full { noun, limit: GATEWAY_SVIDS_MAX })
        }
        false => Ok(()),
    }
}

/// Renewed at half of their life, two stand at a time; some processes may go by one name.
const GATEWAY_SVIDS_MAX: u64 = 32;
