//! A device as stored, and how it is found.

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::NodeId;

use crate::store::sql::{Row, query};
use crate::store::{Store, StoreError, Unit, loaded, stored};

/// A device as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What other programs number it by; `None`: it was not bound yet.
    pub node: Option<NodeId>,
    /// TPM2B_PUBLIC of the EK.
    pub ek_public: Vec<u8>,
    /// The EK certificate, DER.
    pub ek_certificate: Vec<u8>,
    /// Intermediates that came with it, concatenated DER.
    pub ek_intermediates: Vec<u8>,
    /// The IDevID and IAK it showed; empty where it showed none.
    pub identity: IdentityRecord,
    /// TPM2B_PUBLIC of the AK that was activated against the EK.
    pub ak_public: Vec<u8>,
    /// TPM2B_PUBLIC of the device key that the AK certified.
    pub device_key_public: Vec<u8>,
    /// SubjectPublicKeyInfo of the device key.
    pub device_key_spki: Vec<u8>,
    /// The agent's own word about itself.
    pub agent_version: String,
    /// When it was last bound.
    pub enrolled_at: UnixTime,
    /// What operators say about it, as labels are written.
    pub labels: String,
    /// Its trust.
    pub trust: TrustColumns,
}

/// IDevID and IAK of a device as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityRecord {
    /// TPM2B_PUBLIC of the IAK.
    pub iak_public: Vec<u8>,
    /// The IAK's certificate, DER.
    pub iak_certificate: Vec<u8>,
    /// TPM2B_PUBLIC of the IDevID.
    pub idevid_public: Vec<u8>,
    /// The IDevID's certificate, DER.
    pub idevid_certificate: Vec<u8>,
    /// Intermediates of both, concatenated DER.
    pub intermediates: Vec<u8>,
}

/// A trust state as stored: the record, and beside it what queries look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustColumns {
    /// pending, enrolled, trusted, suspect, revoked, expired.
    pub status: String,
    /// none, affirming, warning, contraindicated.
    pub tier: String,
    /// Until when it stands without new evidence; 0 if it never did.
    pub valid_until: UnixTime,
    /// When the last evidence was judged; 0 if none was.
    pub evidence_at: UnixTime,
    /// The TPM's reset counter in it.
    pub reset_count: Option<u32>,
    /// Counts changes of fate.
    pub version: u64,
    /// The record itself, JSON.
    pub record: String,
}

impl Store {
    /// The device with this SPIFFE ID.
    pub async fn device(&self, id: &str) -> Result<Option<DeviceRecord>, StoreError> {
        let row = query("SELECT * FROM devices WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        let record = row.as_ref().map(device).transpose()?;
        Ok(record.map(|record| self.owed.over(record)))
    }

    /// The device that goes by this name.
    pub async fn device_named(&self, name: &str) -> Result<Option<DeviceRecord>, StoreError> {
        let row =
            query("SELECT * FROM devices WHERE name = $1").bind(name).fetch_optional(&self.readers).await?;
        let record = row.as_ref().map(device).transpose()?;
        Ok(record.map(|record| self.owed.over(record)))
    }

    /// How many devices have each status.
    pub async fn device_counts(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = query("SELECT status, COUNT(*) AS devices FROM devices GROUP BY status ORDER BY status")
            .fetch_all(&self.readers)
            .await?;
        rows.iter()
            .map(|row| Ok((row.try_get("status")?, loaded(row.try_get("devices")?, "count")?)))
            .collect()
    }

    /// Devices whose evidence has grown stale but whose state does not say so yet.
    pub async fn devices_to_expire(
        &self,
        now: UnixTime,
        limit: usize,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM devices WHERE status = 'trusted' AND valid_until <= $1 ORDER BY valid_until LIMIT $2",
        )
            .bind(stored(now.0))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(device).collect()
    }
}

/// The compare-and-set everything about trust goes through. What was decided on older evidence than is on record does not
/// overwrite what the newer said: the version counts changes of status alone.
pub(in crate::store) async fn update_trust(
    unit: &mut Unit,
    id: &str,
    from_version: u64,
    trust: &TrustColumns,
) -> Result<(), StoreError> {
    let done = query(
        "UPDATE devices SET status = $3, tier = $4, valid_until = $5, evidence_at = $6,
             reset_count = CASE WHEN reset_count > $7 THEN reset_count ELSE $7 END, state_version = $8, trust = $9
         WHERE id = $1 AND state_version = $2 AND (evidence_at <= $6 OR $6 = 0)",
    )
    .bind(id)
    .bind(stored(from_version))
    .bind(&trust.status)
    .bind(&trust.tier)
    .bind(stored(trust.valid_until.0))
    .bind(stored(trust.evidence_at.0))
    .bind(trust.reset_count.map_or(-1, i64::from))
    .bind(stored(trust.version))
    .bind(&trust.record)
    .execute(unit.connection())
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

pub(in crate::store) fn device(row: &Row) -> Result<DeviceRecord, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    let reset_count: i64 = row.try_get("reset_count")?;
    Ok(DeviceRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        node: Some(node(row)?),
        ek_public: row.try_get("ek_public")?,
        ek_certificate: row.try_get("ek_certificate")?,
        ek_intermediates: row.try_get("ek_intermediates")?,
        identity: IdentityRecord {
            iak_public: row.try_get("iak_public")?,
            iak_certificate: row.try_get("iak_certificate")?,
            idevid_public: row.try_get("idevid_public")?,
            idevid_certificate: row.try_get("idevid_certificate")?,
            intermediates: row.try_get("idevid_intermediates")?,
        },
        ak_public: row.try_get("ak_public")?,
        device_key_public: row.try_get("device_key_public")?,
        device_key_spki: row.try_get("device_key_spki")?,
        agent_version: row.try_get("agent_version")?,
        enrolled_at: time("enrolled_at")?,
        labels: row.try_get("labels")?,
        trust: TrustColumns {
            status: row.try_get("status")?,
            tier: row.try_get("tier")?,
            valid_until: time("valid_until")?,
            evidence_at: time("evidence_at")?,
            reset_count: u32::try_from(reset_count).ok(),
            version: loaded(row.try_get("state_version")?, "state_version")?,
            record: row.try_get("trust")?,
        },
    })
}

fn node(row: &Row) -> Result<NodeId, StoreError> {
    let number: i64 = row.try_get("node")?;
    u32::try_from(number).ok().and_then(NodeId::new).ok_or(StoreError::Corrupt { column: "devices.node" })
}
