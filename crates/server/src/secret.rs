//! Secrets, as operators have them: put in, given to devices, changed and taken back. None of it tells what is secret.

use assay_evidence::time::UnixTime;
use assay_identity::hpke::Plain;
use assay_identity::secret::{SECRET_BYTES_MAX, SecretName};
use assay_trust::labels::Selector;
use thiserror::Error;

use crate::actor::Actor;
use crate::keys::{KeysError, SecretKey};
use crate::outcome::{Kind, Outcome};
use crate::store::{
    AssignSecret, AssignedTo, PutSecret, RevokeSecret, Said, SecretRecord, Store, StoreError,
};

/// A secret that is put in.
#[derive(Debug)]
pub(crate) struct NewSecret {
    pub name: SecretName,
    pub content: Plain,
    pub autorun: bool,
    /// The devices that it is for; `None`: nobody's yet.
    pub to: Option<Meant>,
}

/// Devices that are meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meant {
    /// By their labels; none: all.
    pub labels: Selector,
    /// By the policy that judges them; `None`: any.
    pub policy: Option<String>,
}

impl Meant {
    fn to_stored(&self) -> AssignedTo {
        AssignedTo { labels: self.labels.to_string(), policy: self.policy.clone().unwrap_or_default() }
    }
}

/// Puts a new one in; of one that is there already nothing changes.
pub(crate) async fn put(
    (store, key): (&Store, &SecretKey),
    new: NewSecret,
    (by, now): (Actor, UnixTime),
) -> Result<SecretRecord, SecretError> {
    if store.secret(new.name.as_str()).await?.is_some() {
        return Err(SecretError::There(new.name));
    }
    let NewSecret { name, content, autorun, to } = new;
    let secret = SecretRecord {
        version: store.next_secret_version(name.as_str()).await?,
        name: name.to_string(),
        bytes: bounded(&content)?,
        autorun,
        assigned: to.as_ref().map(Meant::to_stored),
        changed_at: now,
    };
    seal_and_put((store, key), secret, &content, (by, now)).await
}

/// Gives one another content; whoever has it is given the new one.
pub(crate) async fn rotate(
    (store, key): (&Store, &SecretKey),
    name: &SecretName,
    content: Plain,
    (by, now): (Actor, UnixTime),
) -> Result<SecretRecord, SecretError> {
    let before = store.secret(name.as_str()).await?.ok_or_else(|| SecretError::Unknown(name.clone()))?;
    let version = before.version.saturating_add(1);
    let secret = SecretRecord { version, bytes: bounded(&content)?, changed_at: now, ..before };
    seal_and_put((store, key), secret, &content, (by, now)).await
}

async fn seal_and_put(
    (store, key): (&Store, &SecretKey),
    secret: SecretRecord,
    content: &Plain,
    (by, now): (Actor, UnixTime),
) -> Result<SecretRecord, SecretError> {
    let sealed = key.seal(&secret.name, secret.version, content)?;
    let said = Said { by: by.name().to_owned(), at: now };
    match store.commit_and_follow(PutSecret { secret: secret.clone(), sealed, said }).await? {
        true => {
            tracing::info!(secret = secret.name, version = secret.version, %by, "secret put in");
            Ok(secret)
        }
        false => Err(SecretError::Meanwhile),
    }
}

/// Has one be for these devices and no others; `None`: for nobody.
pub(crate) async fn assign(
    store: &Store,
    name: &SecretName,
    to: Option<&Meant>,
    (by, now): (Actor, UnixTime),
) -> Result<(), SecretError> {
    let said = Said { by: by.name().to_owned(), at: now };
    let assign = AssignSecret { name: name.to_string(), assigned: to.map(Meant::to_stored), said };
    if store.commit_and_follow(assign).await? { Ok(()) } else { Err(SecretError::Unknown(name.clone())) }
}

/// Ends one: it is removed, and taken from whoever has it. From how many.
pub(crate) async fn revoke(
    store: &Store,
    name: &SecretName,
    (by, now): (Actor, UnixTime),
) -> Result<u64, SecretError> {
    let said = Said { by: by.name().to_owned(), at: now };
    let revoked = store.commit_and_follow(RevokeSecret { name: name.to_string(), said }).await?;
    revoked.ok_or_else(|| SecretError::Unknown(name.clone()))
}

fn bounded(content: &Plain) -> Result<u64, SecretError> {
    match content.bytes().len() {
        1..=SECRET_BYTES_MAX => Ok(u64::try_from(content.bytes().len()).unwrap_or(u64::MAX)),
        found => Err(SecretError::Bytes { found }),
    }
}

/// Why it was not done.
#[derive(Debug, Error)]
pub(crate) enum SecretError {
    /// There is one of this name.
    #[error("there is a secret {0} already: assay secret rotate {0} gives it another content")]
    There(SecretName),
    /// There is none.
    #[error("there is no secret {0}: assay secret list shows those that there are")]
    Unknown(SecretName),
    /// Nothing, or too much.
    #[error("a secret has 1 to {SECRET_BYTES_MAX} bytes, and this one has {found}")]
    Bytes {
        /// How many it has.
        found: usize,
    },
    /// Somebody else changed it.
    #[error("the secret was changed meanwhile: look at it, and try again")]
    Meanwhile,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be sealed.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for SecretError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SecretError::There(_) => (Kind::Duplicate, "secret-exists"),
            SecretError::Unknown(_) => (Kind::NotFound, "unknown-secret"),
            SecretError::Bytes { .. } => (Kind::Malformed, "secret-bytes"),
            SecretError::Meanwhile => (Kind::Overtaken, "changed-meanwhile"),
            SecretError::Store(error) => error.told(),
            SecretError::Keys(error) => error.told(),
        }
    }
}
