//! Which access tokens are good, and for what.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use assay_evidence::time::UnixTime;
use assay_telemetry::{Sha256, sha256};

use crate::actor::Actor;
use crate::principal::{Principal, Role};
use crate::store::{AccessTokenRecord, Store, StoreError};

/// The tokens on record. Replaced as a whole by whoever follows the store.
#[derive(Debug)]
pub(crate) struct Access {
    current: RwLock<Arc<HashMap<Sha256, Arc<Known>>>>,
}

/// A token and what it stands for.
#[derive(Debug)]
pub(crate) struct Known {
    pub record: AccessTokenRecord,
    pub principal: Principal,
    /// When it was shown last, in seconds; 0: not since the server started.
    used_at: AtomicU64,
}

impl Access {
    /// Loads them from the store.
    pub(crate) async fn open(store: &Store) -> Result<Access, StoreError> {
        Ok(Access { current: RwLock::new(load(store, &HashMap::new()).await?) })
    }

    /// Whom this stands for now.
    pub(crate) fn shown(&self, text: &str, now: UnixTime) -> Option<(Sha256, Principal)> {
        let hash = Some(text).filter(|text| is_one(text)).map(|text| sha256(text.as_bytes()))?;
        let principal = self.of(&hash, now)?;
        if let Some(known) = self.current().get(&hash) {
            known.used_at.fetch_max(now.0, Ordering::Relaxed);
        }
        Some((hash, principal))
    }

    /// Whom the token of this hash stands for now.
    pub(crate) fn of(&self, hash: &Sha256, now: UnixTime) -> Option<Principal> {
        let current = self.current();
        let known = current.get(hash).filter(|known| known.record.stands(now))?;
        Some(known.principal.clone())
    }

    /// Whether somebody is an admin by a token of their own.
    pub(crate) fn has_admin(&self, now: UnixTime) -> bool {
        self.current().values().any(|one| one.principal.role == Role::Admin && one.record.stands(now))
    }

    /// When a token was shown last since the server started.
    pub(crate) fn used_at(&self, hash: &Sha256) -> Option<UnixTime> {
        let used_at = self.current().get(hash)?.used_at.load(Ordering::Relaxed);
        Some(UnixTime(used_at)).filter(|at| at.0 != 0)
    }

    /// How many are on record, and how many of these were revoked.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let current = self.current();
        let revoked = current.values().filter(|one| one.record.revoked_at.is_some()).count();
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        (count(current.len()), count(revoked))
    }

    /// Loads them again.
    pub(crate) async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let new = load(store, &self.current()).await?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    fn current(&self) -> Arc<HashMap<Sha256, Arc<Known>>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn load(
    store: &Store,
    before: &HashMap<Sha256, Arc<Known>>,
) -> Result<Arc<HashMap<Sha256, Arc<Known>>>, StoreError> {
    let known = |record: AccessTokenRecord| {
        let used_at = before.get(&record.sha256).map_or(0, |known| known.used_at.load(Ordering::Relaxed));
        let principal = principal(&record)?;
        let known = Known { principal, used_at: AtomicU64::new(used_at), record };
        Ok((known.record.sha256, Arc::new(known)))
    };
    let tokens = store.access_tokens().await?;
    Ok(Arc::new(tokens.into_iter().map(known).collect::<Result<_, StoreError>>()?))
}

/// Whom a token on record stands for.
fn principal(token: &AccessTokenRecord) -> Result<Principal, StoreError> {
    let corrupt = |column| StoreError::Corrupt { column };
    Ok(Principal {
        actor: Actor::by_token(&token.name).ok_or(corrupt("access_tokens.name"))?,
        role: token.role.parse().map_err(|_| corrupt("access_tokens.role"))?,
        scope: token.scope.parse().map_err(|_| corrupt("access_tokens.scope"))?,
    })
}

/// Whether a text is shown like one. Nothing else is looked up, or worth a note that it was wrong.
fn is_one(text: &str) -> bool {
    text.len() == PREFIX.len() + SECRET_CHARACTERS && text.starts_with(PREFIX)
}

/// Lets whoever searches for leaked secrets find one.
pub(crate) const PREFIX: &str = "assay_";
/// 32 bytes in Base64url.
const SECRET_CHARACTERS: usize = 43;
