//! Nodes that attest as SPIRE's agents do: recorded beside devices and never among them, because nobody knows what they run.

use assay_evidence::time::UnixTime;
use assay_identity::selector::Written;

use super::token::{TokenHash, spend};
use crate::audit::{Kind, Leaf, Line};
use crate::store::budget::Spending;
use crate::store::sql::{Row, query};
use crate::store::{
    Store, StoreError, Transaction, TrustColumns, Unit, Withdrawn, loaded, pending, stored, withdraw,
};

/// Such a node as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpireAgentRecord {
    /// Its SPIFFE ID.
    pub id: String,
    /// What it attested by: `join_token`, `x509pop`, `tpm`.
    pub attestor: String,
    /// What it showed beside that.
    pub selectors: Vec<Written>,
    /// Whether it attests again instead of renewing its certificate.
    pub can_reattest: bool,
    /// Its own word about itself.
    pub agent_version: String,
    /// When it last attested.
    pub attested_at: UnixTime,
    /// Its trust; what is of quotes in it says nothing.
    pub trust: TrustColumns,
}

/// Takes a node in, or back, by what it showed. What it is by its own certificate before falls; what its workloads have
/// stays, for as long as its state carries it.
#[derive(Clone, Debug)]
pub struct AttestSpireAgent {
    /// As it is to be.
    pub agent: SpireAgentRecord,
    /// The version of the state that it was decided on; `None`: there must be none.
    pub from_version: Option<u64>,
    /// The token that it showed.
    pub spends: Option<TokenHash>,
    /// Whether it comes in for the first time on an operator's word.
    pub on_word: bool,
    /// How many such nodes there may be.
    pub agents_max: u64,
    /// What happened, JSON.
    pub detail: String,
}

/// What became of a node that attested.
#[derive(Clone, Debug)]
pub enum Attested {
    /// It is in.
    In(Leaf),
    /// There is no such token: there never was, or it was shown before.
    NoToken,
    /// The token's time is over; it is gone now.
    LateToken,
}

impl Transaction for AttestSpireAgent {
    type Output = Attested;

    async fn apply(self, unit: &mut Unit) -> Result<Attested, StoreError> {
        let AttestSpireAgent { agent, from_version, spends, on_word, agents_max, detail } = self;
        unit.spend(&agent.id, Spending::Fate, agent.attested_at)?;
        if let Some(hash) = spends {
            match spend(unit, &hash).await? {
                None => return Ok(Attested::NoToken),
                Some(until) if until <= agent.attested_at => return Ok(Attested::LateToken),
                Some(_) => {}
            }
        }
        // A device that quotes is not anything less at the same time.
        let device = query("SELECT id FROM devices WHERE id = $1").bind(&agent.id);
        if device.fetch_optional(unit.connection()).await?.is_some() {
            return Err(StoreError::Conflict);
        }
        match from_version {
            None => {
                pending::leave(unit, &agent.id, on_word).await?;
                insert(unit, &agent, agents_max).await?;
            }
            Some(version) => update(unit, &agent, version).await?,
        }
        let line = Line {
            kind: Kind::SpireAgentAttested,
            at: agent.attested_at,
            actor: agent.id.clone(),
            subject: agent.id.clone(),
            detail,
        };
        let leaf = unit.audit(line).await?;
        withdraw::of_own(unit, &agent.id, None, agent.attested_at).await?;
        Ok(Attested::In(leaf))
    }
}

async fn insert(unit: &mut Unit, agent: &SpireAgentRecord, agents_max: u64) -> Result<(), StoreError> {
    let row = query("SELECT COUNT(*) AS agents FROM spire_agents").fetch_one(unit.connection()).await?;
    if loaded(row.try_get("agents")?, "count")? >= agents_max {
        return Err(StoreError::Full { noun: "nodes that do not quote", limit: agents_max });
    }
    let done = query(
        "INSERT INTO spire_agents (id, attestor, selectors, can_reattest, agent_version, attested_at, status, valid_until,
             state_version, trust)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&agent.id)
    .bind(&agent.attestor)
    .bind(selectors_json(agent))
    .bind(i64::from(agent.can_reattest))
    .bind(&agent.agent_version)
    .bind(stored(agent.attested_at.0))
    .bind(&agent.trust.status)
    .bind(stored(agent.trust.valid_until.0))
    .bind(stored(agent.trust.version))
    .bind(&agent.trust.record)
    .execute(unit.connection())
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

async fn update(unit: &mut Unit, agent: &SpireAgentRecord, from_version: u64) -> Result<(), StoreError> {
    update_trust(unit, &agent.id, from_version, &agent.trust).await?;
    query("UPDATE spire_agents SET attestor = $2, selectors = $3, can_reattest = $4, attested_at = $5 WHERE id = $1")
        .bind(&agent.id)
        .bind(&agent.attestor)
        .bind(selectors_json(agent))
        .bind(i64::from(agent.can_reattest))
        .bind(stored(agent.attested_at.0))
        .execute(unit.connection())
        .await?;
    Ok(())
}

fn selectors_json(agent: &SpireAgentRecord) -> String {
    serde_json::to_string(&agent.selectors).unwrap_or_default()
}

/// The compare-and-set that every change of such a state goes through.
async fn update_trust(
    unit: &mut Unit,
    id: &str,
    from_version: u64,
    trust: &TrustColumns,
) -> Result<(), StoreError> {
    let done = query(
        "UPDATE spire_agents SET status = $3, valid_until = $4, state_version = $5, trust = $6
         WHERE id = $1 AND state_version = $2",
    )
    .bind(id)
    .bind(stored(from_version))
    .bind(&trust.status)
    .bind(stored(trust.valid_until.0))
    .bind(stored(trust.version))
    .bind(&trust.record)
    .execute(unit.connection())
    .await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// Lets a node stand for longer, under another key. That it renewed is on record with the certificate.
#[derive(Clone, Debug)]
pub struct RenewSpireAgent {
    /// Which.
    pub id: String,
    /// The version that it was decided on.
    pub from_version: u64,
    /// What its trust becomes.
    pub trust: TrustColumns,
}

impl Transaction for RenewSpireAgent {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        update_trust(unit, &self.id, self.from_version, &self.trust).await
    }
}

/// How a node falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpireAgentFall {
    /// An operator ended it.
    Banned,
    /// An operator forgets it, banned or not.
    Evicted,
    /// It did not renew in time.
    Expired,
}

/// Takes from a node what it holds.
#[derive(Clone, Debug)]
pub struct FallSpireAgent {
    /// How.
    pub fall: SpireAgentFall,
    /// Which.
    pub id: String,
    /// The version that it was decided on.
    pub from_version: u64,
    /// What its trust becomes.
    pub trust: TrustColumns,
    /// When.
    pub at: UnixTime,
    /// Who.
    pub actor: String,
    /// What happened, JSON.
    pub detail: String,
}

impl Transaction for FallSpireAgent {
    type Output = Withdrawn;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<Withdrawn, StoreError> {
        update_trust(unit, &self.id, self.from_version, &self.trust).await?;
        let kind = match self.fall {
            SpireAgentFall::Banned => Kind::SpireAgentBanned,
            SpireAgentFall::Evicted => Kind::SpireAgentEvicted,
            SpireAgentFall::Expired => Kind::SpireAgentExpired,
        };
        let (at, subject) = (self.at, self.id.clone());
        unit.audit(Line { kind, at, actor: self.actor, subject, detail: self.detail }).await?;
        let withdrawn = withdraw::of_device(unit, &self.id, at).await?;
        if self.fall == SpireAgentFall::Evicted {
            query("DELETE FROM spire_agents WHERE id = $1").bind(&self.id).execute(unit.connection()).await?;
        }
        Ok(withdrawn)
    }
}

/// Notes what a node says of itself.
#[derive(Clone, Debug)]
pub struct NoteSpireAgent {
    /// Which.
    pub id: String,
    /// What it calls its version.
    pub agent_version: String,
}

impl Transaction for NoteSpireAgent {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query("UPDATE spire_agents SET agent_version = $2 WHERE id = $1")
            .bind(&self.id)
            .bind(&self.agent_version)
            .execute(unit.connection())
            .await?;
        Ok(())
    }
}

/// A node shows the newest of its certificates: those before it are nobody's any more.
#[derive(Clone, Debug)]
pub struct PromoteSvid {
    /// Whose.
    pub id: String,
    /// The leaf that the newest is on record by.
    pub leaf: u64,
    /// When.
    pub at: UnixTime,
}

impl Transaction for PromoteSvid {
    type Output = Withdrawn;

    async fn apply(self, unit: &mut Unit) -> Result<Withdrawn, StoreError> {
        let line = Line {
            kind: Kind::SvidWithdrawn,
            at: self.at,
            actor: self.id.clone(),
            subject: self.id.clone(),
            detail: serde_json::json!({ "kind": "superseded" }).to_string(),
        };
        unit.audit(line).await?;
        withdraw::of_own(unit, &self.id, Some(self.leaf), self.at).await
    }
}

/// A certificate of a node's own that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSvid {
    /// Its serial number, hex.
    pub serial: String,
    /// Where it is on record.
    pub leaf: u64,
    /// When it ends.
    pub not_after: UnixTime,
}

impl Store {
    /// The node with this SPIFFE ID.
    pub async fn spire_agent(&self, id: &str) -> Result<Option<SpireAgentRecord>, StoreError> {
        let row =
            query("SELECT * FROM spire_agents WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(agent).transpose()
    }

    /// All of them, by their IDs, from after this one on.
    pub async fn spire_agents(&self, after: &str, limit: u32) -> Result<Vec<SpireAgentRecord>, StoreError> {
        let rows = query("SELECT * FROM spire_agents WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(agent).collect()
    }

    /// Those that stand in the store and whose time is over.
    pub async fn spire_agents_to_expire(
        &self,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<SpireAgentRecord>, StoreError> {
        let rows = query(
            "SELECT * FROM spire_agents WHERE status = 'trusted' AND valid_until <= $1 ORDER BY valid_until LIMIT $2",
        )
        .bind(stored(now.0))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(agent).collect()
    }

    /// A node's own certificates that stand, newest first.
    pub async fn own_svids(&self, id: &str, now: UnixTime) -> Result<Vec<OwnSvid>, StoreError> {
        let rows = query(
            "SELECT serial, leaf, not_after FROM svids
             WHERE device_id = $1 AND withdrawn_at = 0 AND entry_id = '' AND not_after > $2 ORDER BY leaf DESC",
        )
        .bind(id)
        .bind(stored(now.0))
        .fetch_all(&self.readers)
        .await?;
        let own = |row: &Row| {
            Ok(OwnSvid {
                serial: row.try_get("serial")?,
                leaf: loaded(row.try_get("leaf")?, "svids.leaf")?,
                not_after: UnixTime(loaded(row.try_get("not_after")?, "svids.not_after")?),
            })
        };
        rows.iter().map(own).collect()
    }
}

fn agent(row: &Row) -> Result<SpireAgentRecord, StoreError> {
    let selectors: &str = row.try_get("selectors")?;
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    Ok(SpireAgentRecord {
        id: row.try_get("id")?,
        attestor: row.try_get("attestor")?,
        selectors: serde_json::from_str(selectors)
            .map_err(|_| StoreError::Corrupt { column: "spire_agents.selectors" })?,
        can_reattest: row.try_get::<i64>("can_reattest")? != 0,
        agent_version: row.try_get("agent_version")?,
        attested_at: time("attested_at")?,
        trust: TrustColumns {
            status: row.try_get("status")?,
            tier: NO_TIER.to_owned(),
            valid_until: time("valid_until")?,
            evidence_at: UnixTime(0),
            reset_count: None,
            version: loaded(row.try_get("state_version")?, "spire_agents.state_version")?,
            record: row.try_get("trust")?,
        },
    })
}

const NO_TIER: &str = "none";
