//! Join tokens: made by an operator, shown once by the node that joins. Only their hashes are kept.

use assay_evidence::time::UnixTime;
use data_encoding::HEXLOWER;

use crate::audit::{Kind, Line};
use crate::store::entries::{self, EntryRecord};
use crate::store::sql::query;
use crate::store::{StoreError, Transaction, Unit, loaded, stored};

/// SHA-256 of a token, which is all that is kept of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token.
    pub fn of(token: &str) -> TokenHash {
        TokenHash(HEXLOWER.encode(&assay_telemetry::sha256(token.as_bytes())))
    }
}

/// Lets whoever shows a token first join.
#[derive(Clone, Debug)]
pub struct CreateJoinToken {
    /// Of the token.
    pub hash: TokenHash,
    /// Until when it may be shown.
    pub expires_at: UnixTime,
    /// A name that the node gets beside its own: an entry whose parent it will be.
    pub alias: Option<EntryRecord>,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub actor: String,
}

impl Transaction for CreateJoinToken {
    /// Whether it is new; a token that is there already, or was shown before, is not made again.
    type Output = bool;

    async fn apply(self, unit: &mut Unit) -> Result<bool, StoreError> {
        query("DELETE FROM join_tokens WHERE expires_at <= $1")
            .bind(stored(self.at.0))
            .execute(unit.connection())
            .await?;
        let row = query("SELECT COUNT(*) AS tokens FROM join_tokens").fetch_one(unit.connection()).await?;
        if loaded(row.try_get("tokens")?, "count")? >= TOKENS_MAX {
            return Err(StoreError::Full { noun: "join tokens that nobody showed yet", limit: TOKENS_MAX });
        }
        let done = query(
            "INSERT INTO join_tokens (sha256, expires_at) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING",
        )
        .bind(&self.hash.0)
        .bind(stored(self.expires_at.0))
        .execute(unit.connection())
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        unit.audit(Line {
            kind: Kind::JoinTokenCreated,
            at: self.at,
            actor: self.actor.clone(),
            subject: format!("sha256:{}", self.hash.0),
            detail: serde_json::json!({ "expires_at": self.expires_at }).to_string(),
        })
        .await?;
        if let Some(alias) = &self.alias {
            entries::make_room_and_create(unit, alias, &self.actor).await?;
        }
        Ok(true)
    }
}

/// Takes a token away; until when it might have been shown. Nobody shows it twice.
pub(super) async fn spend(unit: &mut Unit, hash: &TokenHash) -> Result<Option<UnixTime>, StoreError> {
    let row = query("DELETE FROM join_tokens WHERE sha256 = $1 RETURNING expires_at")
        .bind(&hash.0)
        .fetch_optional(unit.connection())
        .await?;
    row.map(|row| Ok(UnixTime(loaded(row.try_get("expires_at")?, "join_tokens.expires_at")?))).transpose()
}

/// A site's worth of machines that are about to be set up.
const TOKENS_MAX: u64 = 10_000;
