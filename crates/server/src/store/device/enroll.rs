//! Binding keys to a device.

use super::fate::Moved;
use super::name;
use super::record::{DeviceRecord, update_trust};
use crate::audit::{Kind, Line};
use crate::store::budget::Spending;
use crate::store::sql::query;
use crate::store::{
    KeylimeAgentRecord, StoreError, Transaction, Unit, audit, keylime, pending, stored, withdraw,
};

/// Binds EK, AK and device key; a device that is known is bound anew and loses what it held.
#[derive(Clone, Debug)]
pub struct EnrollDevice {
    /// What is bound.
    pub device: DeviceRecord,
    /// The version of the device it replaces; `None`: there must be none.
    pub replaces: Option<u64>,
    /// Whether it comes in for the first time on an operator's word.
    pub on_word: bool,
    /// Under which name Keylime knows it, where it comes from there.
    pub keylime: Option<KeylimeAgentRecord>,
    /// What happened, JSON.
    pub detail: String,
}

impl Transaction for EnrollDevice {
    type Output = Moved;

    async fn apply(self, unit: &mut Unit) -> Result<Moved, StoreError> {
        let mut device = self.device;
        unit.spend(&device.id, Spending::Fate, device.enrolled_at)?;
        match self.replaces {
            None => {
                pending::leave(unit, &device.id, self.on_word).await?;
                device.name = name::own(unit, &device.id, device.name).await?;
                insert(unit, &device).await?;
                // What the TPM was known by before is less than what it shows from now on.
                query("DELETE FROM spire_agents WHERE id = $1")
                    .bind(&device.id)
                    .execute(unit.connection())
                    .await?;
            }
            Some(version) => rebind(unit, &device, version).await?,
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
        audit::insert_event(unit.connection(), &leaf, &device.id).await?;
        if let Some(agent) = self.keylime {
            keylime::bind(unit, agent).await?;
        }
        let withdrawn = withdraw::of_device(unit, &device.id, device.enrolled_at).await?;
        Ok(Moved { leaf, withdrawn })
    }
}

async fn insert(unit: &mut Unit, device: &DeviceRecord) -> Result<(), StoreError> {
    let done = query(
        "INSERT INTO devices (id, name, ek_public, ek_certificate, ek_intermediates, ak_public, device_key_public,
             device_key_spki, agent_version, enrolled_at, status, tier, valid_until, evidence_at, reset_count,
             state_version, trust, labels, iak_public, iak_certificate, idevid_public, idevid_certificate,
             idevid_intermediates, node)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23, (SELECT COALESCE(MAX(node), -1) + 1 FROM devices))
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

/// The TPM, its name and its labels stay; every key below the EK is new, and so is the chain of telemetry it signs. Its counters stay
/// as well: a TPM that was set back to an earlier state does not pass by enrolling again. One that was cleared counts from
/// zero, and is readmitted by an operator who knows of it.
async fn rebind(unit: &mut Unit, device: &DeviceRecord, from_version: u64) -> Result<(), StoreError> {
    update_trust(unit, &device.id, from_version, &device.trust).await?;
    query(
        "UPDATE devices SET ek_public = $2, ek_certificate = $3, ek_intermediates = $4, ak_public = $5,
             device_key_public = $6, device_key_spki = $7, agent_version = $8, enrolled_at = $9, iak_public = $10,
             iak_certificate = $11, idevid_public = $12, idevid_certificate = $13, idevid_intermediates = $14
         WHERE id = $1",
    )
    .bind(&device.id)
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
    query("DELETE FROM telemetry_positions WHERE device_id = $1")
        .bind(&device.id)
        .execute(unit.connection())
        .await?;
    Ok(())
}
