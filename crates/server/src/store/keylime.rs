//! Agents of Keylime's: under which name a device is known there, and by which AK it speaks.

use assay_evidence::time::UnixTime;

use crate::audit::{Kind, Line};
use crate::store::budget::Spending;
use crate::store::sql::{Row, query};
use crate::store::{Store, StoreError, Transaction, Unit, loaded, stored};

/// An agent as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeylimeAgentRecord {
    /// What Keylime calls it.
    pub id: String,
    /// The device that it is on.
    pub device_id: String,
    /// TPM2B_PUBLIC of the AK that was activated against the device's EK.
    pub ak_public: Vec<u8>,
    /// Where it listens, by its own word.
    pub address: String,
    /// On which port.
    pub port: u16,
    /// What it shows there, PEM, or `disabled`.
    pub certificate: String,
    /// When it registered last.
    pub registered_at: UnixTime,
    /// How often a device or an AK was bound to the name.
    pub registrations: u64,
    /// When an operator added it, if one did.
    pub added_at: Option<UnixTime>,
}

/// Notes under which name a device that is bound is known to Keylime.
#[derive(Clone, Debug)]
pub struct BindKeylimeAgent {
    /// It; how often it registered is counted here.
    pub agent: KeylimeAgentRecord,
}

impl Transaction for BindKeylimeAgent {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        unit.spend(&self.agent.device_id, Spending::Fate, self.agent.registered_at)?;
        bind(unit, self.agent).await
    }
}

/// Binds an agent's name to a device. A name is one device's until an operator takes it away, and what a device was called before
/// is nobody's any more.
pub(in crate::store) async fn bind(unit: &mut Unit, agent: KeylimeAgentRecord) -> Result<(), StoreError> {
    let known = query("SELECT * FROM keylime_agents WHERE id = $1")
        .bind(&agent.id)
        .fetch_optional(unit.connection())
        .await?;
    let known = known.as_ref().map(record).transpose()?;
    if known.as_ref().is_some_and(|known| known.device_id != agent.device_id) {
        return Err(StoreError::Conflict);
    }
    let is_same = known.as_ref().is_some_and(|known| known.ak_public == agent.ak_public);
    let registrations = known.as_ref().map_or(0, |known| known.registrations) + u64::from(!is_same);
    // Whoever registers again is what it was to operators.
    let added_at = known.as_ref().and_then(|known| known.added_at).map_or(0, |at| at.0);
    query("DELETE FROM keylime_agents WHERE device_id = $1")
        .bind(&agent.device_id)
        .execute(unit.connection())
        .await?;
    query(
        "INSERT INTO keylime_agents (id, device_id, ak_public, address, port, certificate, registered_at, registrations,
             added_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&agent.id)
    .bind(&agent.device_id)
    .bind(&agent.ak_public)
    .bind(&agent.address)
    .bind(i64::from(agent.port))
    .bind(&agent.certificate)
    .bind(stored(agent.registered_at.0))
    .bind(stored(registrations))
    .bind(stored(added_at))
    .execute(unit.connection())
    .await?;
    if is_same {
        // Agents register with each start, which changes nothing.
        return Ok(());
    }
    let detail = serde_json::json!({ "agent": agent.id }).to_string();
    let (kind, at, subject) = (Kind::KeylimeAgentBound, agent.registered_at, agent.device_id);
    unit.audit(Line { kind, at, actor: subject.clone(), subject, detail }).await?;
    Ok(())
}

/// Puts an agent on the list of those that operators added, or takes it off. What judges it is another matter.
#[derive(Clone, Debug)]
pub struct AddKeylimeAgent {
    /// Which.
    pub id: String,
    /// Whether it is on the list from now on.
    pub added: bool,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

impl Transaction for AddKeylimeAgent {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let AddKeylimeAgent { id, added, at, by } = self;
        let changed = query("UPDATE keylime_agents SET added_at = $2 WHERE id = $1 RETURNING device_id")
            .bind(&id)
            .bind(if added { stored(at.0) } else { 0 })
            .fetch_optional(unit.connection())
            .await?
            .ok_or(StoreError::Unknown("agent of Keylime's"))?;
        let kind = if added { Kind::KeylimeAgentAdded } else { Kind::KeylimeAgentDropped };
        let (detail, subject) =
            (serde_json::json!({ "agent": id }).to_string(), changed.try_get("device_id")?);
        unit.audit(Line { kind, at, actor: by, subject, detail }).await?;
        Ok(())
    }
}

/// Takes a name from the device that has it. The device itself stays as it is.
#[derive(Clone, Debug)]
pub struct RemoveKeylimeAgent {
    /// Which.
    pub id: String,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

impl Transaction for RemoveKeylimeAgent {
    /// Whether it was there.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let gone = query("DELETE FROM keylime_agents WHERE id = $1 RETURNING device_id")
            .bind(&self.id)
            .fetch_optional(unit.connection())
            .await?;
        let Some(gone) = gone else { return Ok(false) };
        let detail = serde_json::json!({ "agent": self.id }).to_string();
        let (kind, at, subject) = (Kind::KeylimeAgentRemoved, self.at, gone.try_get("device_id")?);
        unit.audit(Line { kind, at, actor: self.by, subject, detail }).await?;
        Ok(true)
    }
}

impl Store {
    /// The agent that Keylime calls so.
    pub async fn keylime_agent(&self, id: &str) -> Result<Option<KeylimeAgentRecord>, StoreError> {
        let row = query("SELECT * FROM keylime_agents WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(record).transpose()
    }

    /// All of them, by their names, from after this one on.
    pub async fn keylime_agents(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<Vec<KeylimeAgentRecord>, StoreError> {
        let rows = query("SELECT * FROM keylime_agents WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(record).collect()
    }
}

fn record(row: &Row) -> Result<KeylimeAgentRecord, StoreError> {
    let port: i64 = row.try_get("port")?;
    let added_at = loaded(row.try_get("added_at")?, "keylime_agents.added_at")?;
    Ok(KeylimeAgentRecord {
        id: row.try_get("id")?,
        device_id: row.try_get("device_id")?,
        ak_public: row.try_get("ak_public")?,
        address: row.try_get("address")?,
        port: u16::try_from(port).map_err(|_| StoreError::Corrupt { column: "keylime_agents.port" })?,
        certificate: row.try_get("certificate")?,
        registered_at: UnixTime(loaded(row.try_get("registered_at")?, "keylime_agents.registered_at")?),
        registrations: loaded(row.try_get("registrations")?, "keylime_agents.registrations")?,
        added_at: Some(UnixTime(added_at)).filter(|at| at.0 > 0),
    })
}
