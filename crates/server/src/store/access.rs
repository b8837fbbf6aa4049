//! Access tokens by their hashes, and people who signed in.

use assay_evidence::time::UnixTime;
use serde_json::json;

use super::secrets::Said;
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};

/// An access token, without what is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessTokenRecord {
    /// What the trail calls whoever shows it.
    pub name: String,
    /// SHA-256 of what is shown.
    pub sha256: [u8; 32],
    /// What it may do.
    pub role: String,
    /// The labels of the devices that it is for; empty: all.
    pub scope: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
    /// When it ends by itself.
    pub expires_at: UnixTime,
    /// When somebody ended it.
    pub revoked_at: Option<UnixTime>,
}

impl AccessTokenRecord {
    /// Whether it is good.
    pub(crate) fn stands(&self, now: UnixTime) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }
}

/// Somebody whom the provider vouched for, as they signed in last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonRecord {
    /// Who vouches.
    pub issuer: String,
    /// Who, to the issuer.
    pub subject: String,
    /// What the trail calls them.
    pub name: String,
    /// What they may do.
    pub role: String,
    /// The labels of the devices that they may see; empty: all.
    pub scope: String,
    /// When they signed in first.
    pub first_at: UnixTime,
    /// When they signed in last.
    pub last_at: UnixTime,
}

/// Puts a token on record.
#[derive(Clone, Debug)]
pub struct CreateAccessToken {
    /// As it is to be.
    pub token: AccessTokenRecord,
    /// Whose word it is.
    pub said: Said,
}

/// Ends a token.
#[derive(Clone, Debug)]
pub struct RevokeAccessToken {
    /// Which.
    pub name: String,
    /// Whose word it is.
    pub said: Said,
}

/// Notes that somebody signed in.
#[derive(Clone, Debug)]
pub struct NoteSignIn {
    /// Who, and as what; `first_at` counts if they were never here.
    pub person: PersonRecord,
    /// From which address.
    pub from: String,
}

impl Transaction for CreateAccessToken {
    /// Whether it was: no token of that name is good, or was of late.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let CreateAccessToken { token, said } = self;
        let now = stored(said.at.0);
        query("DELETE FROM access_tokens WHERE expires_at < $1 AND revoked_at < $1")
            .bind(now.saturating_sub(stored(REMEMBERED_SECONDS)))
            .execute(unit.connection())
            .await?;
        let row =
            query("SELECT COUNT(*) AS tokens, COALESCE(SUM(CASE WHEN name = $1 THEN 1 ELSE 0 END), 0) AS so_called FROM access_tokens")
                .bind(&token.name)
                .fetch_one(unit.connection())
                .await?;
        if loaded(row.try_get("so_called")?, "count")? > 0 {
            return Ok(false);
        }
        if loaded(row.try_get("tokens")?, "count")? >= TOKENS_MAX {
            return Err(StoreError::Full { noun: "access tokens", limit: TOKENS_MAX });
        }
        let detail = json!({ "role": token.role, "scope": token.scope, "expires_at": token.expires_at });
        record(unit, Kind::AccessTokenCreated, &token.name, &detail, &said).await?;
        query(
            "INSERT INTO access_tokens
                 (name, sha256, role, scope, created_by, created_at, expires_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0)",
        )
        .bind(&token.name)
        .bind(token.sha256.as_slice())
        .bind(&token.role)
        .bind(&token.scope)
        .bind(&token.created_by)
        .bind(stored(token.created_at.0))
        .bind(stored(token.expires_at.0))
        .execute(unit.connection())
        .await?;
        Ok(true)
    }
}

impl Transaction for RevokeAccessToken {
    /// Whether there was one that was not revoked.
    type Output = bool;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        let RevokeAccessToken { name, said } = self;
        let row = query("SELECT COUNT(*) AS tokens FROM access_tokens WHERE name = $1 AND revoked_at = 0")
            .bind(&name)
            .fetch_one(unit.connection())
            .await?;
        if loaded(row.try_get("tokens")?, "count")? == 0 {
            return Ok(false);
        }
        record(unit, Kind::AccessTokenRevoked, &name, &json!({}), &said).await?;
        query("UPDATE access_tokens SET revoked_at = $2 WHERE name = $1")
            .bind(&name)
            .bind(stored(said.at.0))
            .execute(unit.connection())
            .await?;
        Ok(true)
    }
}

impl Transaction for NoteSignIn {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let NoteSignIn { person, from } = self;
        let row = query("SELECT COUNT(*) AS people FROM people WHERE NOT (issuer = $1 AND subject = $2)")
            .bind(&person.issuer)
            .bind(&person.subject)
            .fetch_one(unit.connection())
            .await?;
        if loaded(row.try_get("people")?, "count")? >= PEOPLE_MAX {
            return Err(StoreError::Full { noun: "people", limit: PEOPLE_MAX });
        }
        let said = Said { by: person.name.clone(), at: person.last_at };
        let detail = json!({
            "issuer": person.issuer, "subject": person.subject, "role": person.role, "scope": person.scope,
            "from": from,
        });
        record(unit, Kind::PersonSignedIn, &person.name, &detail, &said).await?;
        query(
            "INSERT INTO people (issuer, subject, name, role, scope, first_at, last_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (issuer, subject) DO UPDATE SET name = $3, role = $4, scope = $5, last_at = $7",
        )
        .bind(&person.issuer)
        .bind(&person.subject)
        .bind(&person.name)
        .bind(&person.role)
        .bind(&person.scope)
        .bind(stored(person.first_at.0))
        .bind(stored(person.last_at.0))
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

async fn record(
    unit: &mut Unit,
    kind: Kind,
    subject: &str,
    detail: &serde_json::Value,
    said: &Said,
) -> Result<(), StoreError> {
    let (actor, subject) = (said.by.clone(), subject.to_owned());
    unit.audit(Line { kind, at: said.at, actor, subject, detail: detail.to_string() }).await?;
    Ok(())
}

impl Store {
    /// Every token that is on record, in the order of their names.
    pub(crate) async fn access_tokens(&self) -> Result<Vec<AccessTokenRecord>, StoreError> {
        let rows = query("SELECT * FROM access_tokens ORDER BY name").fetch_all(&self.readers).await?;
        rows.iter().map(token).collect()
    }

    /// Everybody who ever signed in, in the order of their names.
    pub(crate) async fn people(&self) -> Result<Vec<PersonRecord>, StoreError> {
        let rows = query("SELECT * FROM people ORDER BY name, subject").fetch_all(&self.readers).await?;
        rows.iter().map(person).collect()
    }
}

fn token(row: &Row) -> Result<AccessTokenRecord, StoreError> {
    let corrupt = StoreError::Corrupt { column: "access_tokens.sha256" };
    let at = |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    Ok(AccessTokenRecord {
        name: row.try_get("name")?,
        sha256: row.try_get::<Vec<u8>>("sha256")?.try_into().map_err(|_| corrupt)?,
        role: row.try_get("role")?,
        scope: row.try_get("scope")?,
        created_by: row.try_get("created_by")?,
        created_at: at("created_at")?,
        expires_at: at("expires_at")?,
        revoked_at: Some(at("revoked_at")?).filter(|at| at.0 != 0),
    })
}

fn person(row: &Row) -> Result<PersonRecord, StoreError> {
    let at = |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    Ok(PersonRecord {
        issuer: row.try_get("issuer")?,
        subject: row.try_get("subject")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        scope: row.try_get("scope")?,
        first_at: at("first_at")?,
        last_at: at("last_at")?,
    })
}

/// Those of a thousand programs, with those that ended of late.
const TOKENS_MAX: u64 = 2000;
const PEOPLE_MAX: u64 = 10_000;
/// How long the name of a token that ended is nobody else's.
const REMEMBERED_SECONDS: u64 = 90 * 86_400;
