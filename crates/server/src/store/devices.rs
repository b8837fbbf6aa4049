//! Devices and what happens to their trust: one transaction per thing that can happen.
//!
//! Each names the trust-state version it was decided on. If that is no longer the device's, nothing is written and
//! the caller gets [`StoreError::Conflict`]. A worse state withdraws the device's grants in the same transaction.

use assay_evidence::time::UnixTime;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::appraisals::{self, AppraisalRecord};
use super::assignments::RevisePolicies;
use super::evidence::{self, Kept, NewEvidence};
use super::grants::{self, Withdrawn};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Leaf, Line};

/// A device as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
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

/// What the plan goes by of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledDevice {
    /// Its SPIFFE ID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// As labels are written.
    pub labels: String,
    /// pending, enrolled, trusted, suspect, revoked, expired.
    pub status: String,
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

/// A change of a device's fate, common to every transaction that makes one.
#[derive(Clone, Debug)]
pub struct Change {
    /// Whose.
    pub device_id: String,
    /// The version it was decided on.
    pub from_version: u64,
    /// What the trust becomes.
    pub trust: TrustColumns,
    /// Whether the grants fall.
    pub withdraw: bool,
    /// When.
    pub at: UnixTime,
    /// Who: `server`, `operator`, or the device.
    pub actor: String,
    /// What happened, JSON.
    pub detail: String,
}

/// What a change of fate brought.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Its place in the audit trail.
    pub leaf: Leaf,
    /// The grants that fell with it.
    pub withdrawn: Withdrawn,
}

/// Binds EK, AK and device key; a device that is known is bound anew and loses what it held.
#[derive(Clone, Debug)]
pub struct EnrollDevice {
    /// What is bound.
    pub device: DeviceRecord,
    /// The version of the device it replaces; `None`: there must be none.
    pub replaces: Option<u64>,
    /// What happened, JSON.
    pub detail: String,
}

impl Transaction for EnrollDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        let mut device = self.device;
        device.name = own_name(unit, &device.id, device.name).await?;
        let device = &device;
        match self.replaces {
            None => insert(unit, device).await?,
            Some(version) => rebind(unit, device, version).await?,
        }
        let leaf = unit
            .audit(Line {
                kind: Kind::DeviceEnrolled,
                at: device.enrolled_at,
                actor: device.id.clone(),
                subject: device.id.clone(),
                detail: self.detail,
            })
            .await?;
        super::audit::insert_event(unit.connection(), &leaf, &device.id).await?;
        let withdrawn = grants::withdraw_of_device(unit, &device.id, device.enrolled_at).await?;
        Ok(Moved { leaf, withdrawn })
    }
}

/// Records an attestation result that changed something, and all that follows from it.
#[derive(Clone, Debug)]
pub struct RecordAppraisal {
    /// The device's new fate.
    pub change: Change,
    /// The result.
    pub appraisal: AppraisalRecord,
    /// What it was made of, where that can be kept.
    pub evidence: Option<NewEvidence>,
}

/// A result on record.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What it brought.
    pub moved: Moved,
    /// Where its evidence was put; `None`: it is not kept.
    pub evidence: Option<Kept>,
}

impl Transaction for RecordAppraisal {
    type Output = Recorded;

    async fn apply(self, unit: &mut Unit) -> Result<Recorded, StoreError> {
        let device_id = self.change.device_id.clone();
        let moved = change(unit, Kind::DeviceAppraised, self.change).await?;
        let leaf = moved.leaf.index;
        appraisals::insert(unit.connection(), &device_id, leaf, &self.appraisal).await?;
        appraisals::bound(unit, &device_id).await?;
        let evidence = match self.evidence {
            Some(evidence) => evidence::insert(unit, &device_id, Some(leaf), evidence).await?,
            None => None,
        };
        Ok(Recorded { moved, evidence })
    }
}

/// Extends what stands: fresh evidence with the same result.
#[derive(Clone, Debug)]
pub struct RenewTrust {
    /// Whose.
    pub device_id: String,
    /// The trust with its new times; the version is the one it was decided on.
    pub trust: TrustColumns,
}

impl Transaction for RenewTrust {
    type Output = ();

    const SINGLE_STATEMENT: bool = true;

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let version = self.trust.version;
        update_trust(unit, &self.device_id, version, &self.trust).await
    }
}

/// Notes that evidence grew stale.
#[derive(Clone, Debug)]
pub struct ExpireDevice(pub Change);

impl Transaction for ExpireDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        change(unit, Kind::DeviceExpired, self.0).await
    }
}

/// Ends what a device holds whose trust record does not read. The record stays as it is, to be looked at.
#[derive(Clone, Debug)]
pub struct ExpireUnreadable {
    /// Which.
    pub device_id: String,
    /// When.
    pub at: UnixTime,
}

impl Transaction for ExpireUnreadable {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        sqlx::query("UPDATE devices SET status = 'expired', state_version = state_version + 1 WHERE id = $1")
            .bind(&self.device_id)
            .execute(unit.connection())
            .await?;
        let line = Line {
            kind: Kind::DeviceExpired,
            at: self.at,
            actor: "server".to_owned(),
            subject: self.device_id.clone(),
            detail: serde_json::json!({ "kind": "unreadable" }).to_string(),
        };
        let leaf = unit.audit(line).await?;
        super::audit::insert_event(unit.connection(), &leaf, &self.device_id).await?;
        let withdrawn = grants::withdraw_of_device(unit, &self.device_id, self.at).await?;
        Ok(Moved { leaf, withdrawn })
    }
}

/// Ends a device for good.
#[derive(Clone, Debug)]
pub struct RevokeDevice(pub Change);

impl Transaction for RevokeDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        change(unit, Kind::DeviceRevoked, self.0).await
    }
}

/// Lets a revoked device enroll again.
#[derive(Clone, Debug)]
pub struct ReadmitDevice(pub Change);

impl Transaction for ReadmitDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        change(unit, Kind::DeviceReadmitted, self.0).await
    }
}

/// Lets a device recover, with the policy that accepts what it runs.
#[derive(Clone, Debug)]
pub struct ApproveDevice {
    /// The device's new fate.
    pub change: Change,
    /// The result that the operator saw; it has to be the last still.
    pub result: u64,
    /// The policies that come into force with it, if they had to change.
    pub policies: Option<RevisePolicies>,
}

impl Transaction for ApproveDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        appraisals::is_last(unit, &self.change.device_id, self.result).await?;
        if let Some(policies) = self.policies {
            policies.apply(unit).await?;
        }
        change(unit, Kind::DeviceApproved, self.change).await
    }
}

/// Gives a device other labels.
#[derive(Clone, Debug)]
pub struct LabelDevice {
    /// Whose.
    pub device_id: String,
    /// Those it was decided on.
    pub from: String,
    /// Those it has from now on.
    pub to: String,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub by: String,
}

impl Transaction for LabelDevice {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let done = sqlx::query("UPDATE devices SET labels = $3 WHERE id = $1 AND labels = $2")
            .bind(&self.device_id)
            .bind(&self.from)
            .bind(&self.to)
            .execute(unit.connection())
            .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Conflict);
        }
        unit.audit(Line {
            kind: Kind::DeviceLabelled,
            at: self.at,
            actor: self.by,
            subject: self.device_id,
            detail: serde_json::json!({ "from": self.from, "to": self.to }).to_string(),
        })
        .await?;
        Ok(())
    }
}

impl Store {
    /// The device with this SPIFFE ID.
    pub async fn device(&self, id: &str) -> Result<Option<DeviceRecord>, StoreError> {
        let row =
            sqlx::query("SELECT * FROM devices WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(device).transpose()
    }

    /// Devices that go by this name: one, unless they enrolled before names were one device's.
    pub async fn devices_named(&self, name: &str) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM devices WHERE name = $1 ORDER BY id LIMIT 2")
            .bind(name)
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(device).collect()
    }

    /// Devices in order of their name, at most `limit`.
    pub async fn devices(&self, limit: u32) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM devices ORDER BY name, id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(device).collect()
    }

    /// Every device that can be judged, in order of its name, with what the plan goes by.
    pub async fn labelled_devices(&self) -> Result<Vec<LabelledDevice>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, labels, status FROM devices WHERE status <> 'revoked' ORDER BY name, id",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(LabelledDevice {
                    id: row.try_get("id")?,
                    name: row.try_get("name")?,
                    labels: row.try_get("labels")?,
                    status: row.try_get("status")?,
                })
            })
            .collect()
    }

    /// How many devices have each status.
    pub async fn device_counts(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows =
            sqlx::query("SELECT status, COUNT(*) AS devices FROM devices GROUP BY status ORDER BY status")
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
        limit: u32,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM devices WHERE status = 'trusted' AND valid_until <= $1 LIMIT $2")
                .bind(stored(now.0))
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(device).collect()
    }
}

async fn change(unit: &mut Unit, kind: Kind, change: Change) -> Result<Moved, StoreError> {
    update_trust(unit, &change.device_id, change.from_version, &change.trust).await?;
    let leaf = unit
        .audit(Line {
            kind,
            at: change.at,
            actor: change.actor,
            subject: change.device_id.clone(),
            detail: change.detail,
        })
        .await?;
    super::audit::insert_event(unit.connection(), &leaf, &change.device_id).await?;
    let withdrawn = match change.withdraw {
        true => grants::withdraw_of_device(unit, &change.device_id, change.at).await?,
        false => Withdrawn::default(),
    };
    Ok(Moved { leaf, withdrawn })
}

/// The compare-and-set everything about trust goes through.
async fn update_trust(
    unit: &mut Unit,
    id: &str,
    from_version: u64,
    trust: &TrustColumns,
) -> Result<(), StoreError> {
    let done = sqlx::query(
        "UPDATE devices SET status = $3, tier = $4, valid_until = $5, evidence_at = $6,
             reset_count = CASE WHEN reset_count > $7 THEN reset_count ELSE $7 END, state_version = $8, trust = $9
         WHERE id = $1 AND state_version = $2",
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

/// The name, or where another device has it, one with the start of the hash behind it: a name means one device. Which of
/// two that call themselves alike was first is no secret and no privilege, but what an operator said `revoke` of stays
/// what it was.
async fn own_name(unit: &mut Unit, id: &str, name: String) -> Result<String, StoreError> {
    let taken = sqlx::query("SELECT 1 FROM devices WHERE name = $1 AND id <> $2 LIMIT 1")
        .bind(&name)
        .bind(id)
        .fetch_optional(unit.connection())
        .await?;
    let hash = id.rsplit('/').next().and_then(|hash| hash.get(..NAME_HASH_DIGITS)).unwrap_or(id);
    Ok(if taken.is_none() { name } else { format!("{name}-{hash}") })
}

/// Two devices of one name that begin alike take some 2^24 of them.
const NAME_HASH_DIGITS: usize = 12;

async fn insert(unit: &mut Unit, device: &DeviceRecord) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO devices (id, name, ek_public, ek_certificate, ek_intermediates, ak_public, device_key_public,
             device_key_spki, agent_version, enrolled_at, status, tier, valid_until, evidence_at, reset_count,
             state_version, trust, labels, iak_public, iak_certificate, idevid_public, idevid_certificate,
             idevid_intermediates)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&device.id)
    .bind(&device.name)
    .bind(&device.ek_public)
    .bind(&device.ek_certificate)
    .bind(&device.ek_intermediates)
    .bind(&device.ak_public)
    .bind(&device.device_key_public)
    .bind(&device.device_key_spki)
    .bind(&device.agent_version)
    .bind(stored(device.enrolled_at.0))
    .bind(&device.trust.status)
    .bind(&device.trust.tier)
    .bind(stored(device.trust.valid_until.0))
    .bind(stored(device.trust.evidence_at.0))
    .bind(device.trust.reset_count.map_or(-1, i64::from))
    .bind(stored(device.trust.version))
    .bind(&device.trust.record)
    .bind(&device.labels)
    .bind(&device.identity.iak_public)
    .bind(&device.identity.iak_certificate)
    .bind(&device.identity.idevid_public)
    .bind(&device.identity.idevid_certificate)
    .bind(&device.identity.intermediates)
    .execute(unit.connection())
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// The TPM and its labels stay; every key below the EK is new, and so is the chain of telemetry it signs. Its reset counter
/// is taken anew as well, since TPM2_Clear takes it back to zero. A TPM that was set back to an earlier state thus shows by
/// having to enroll again, which is on record.
async fn rebind(unit: &mut Unit, device: &DeviceRecord, from_version: u64) -> Result<(), StoreError> {
    update_trust(unit, &device.id, from_version, &device.trust).await?;
    sqlx::query(
        "UPDATE devices SET reset_count = -1, name = $2, ek_public = $3, ek_certificate = $4, ek_intermediates = $5, ak_public = $6,
             device_key_public = $7, device_key_spki = $8, agent_version = $9, enrolled_at = $10, iak_public = $11,
             iak_certificate = $12, idevid_public = $13, idevid_certificate = $14, idevid_intermediates = $15
         WHERE id = $1",
    )
    .bind(&device.id)
    .bind(&device.name)
    .bind(&device.ek_public)
    .bind(&device.ek_certificate)
    .bind(&device.ek_intermediates)
    .bind(&device.ak_public)
    .bind(&device.device_key_public)
    .bind(&device.device_key_spki)
    .bind(&device.agent_version)
    .bind(stored(device.enrolled_at.0))
    .bind(&device.identity.iak_public)
    .bind(&device.identity.iak_certificate)
    .bind(&device.identity.idevid_public)
    .bind(&device.identity.idevid_certificate)
    .bind(&device.identity.intermediates)
    .execute(unit.connection())
    .await?;
    sqlx::query("DELETE FROM telemetry_positions WHERE device_id = $1")
        .bind(&device.id)
        .execute(unit.connection())
        .await?;
    Ok(())
}

fn device(row: &SqliteRow) -> Result<DeviceRecord, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    let reset_count: i64 = row.try_get("reset_count")?;
    Ok(DeviceRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
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
