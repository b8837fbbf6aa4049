//! Keys that sign for a device by the JSON protocol: an operator says which, and it goes on record.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_telemetry::json_protocol::{is_signing_key, key_hash};
use thiserror::Error;

use crate::outcome::{Kind, Outcome};
use crate::store::{AddTelemetryKey, KeyAdded, RemoveTelemetryKey, Store, StoreError, TelemetryKey};

/// Has a key, a SubjectPublicKeyInfo, sign for a device.
pub(crate) async fn add(
    store: &Store,
    id: &SpiffeId,
    spki: Vec<u8>,
    by: &str,
    now: UnixTime,
) -> Result<TelemetryKey, NotAdded> {
    if !is_signing_key(&spki) {
        return Err(NotAdded::Kind);
    }
    let key = TelemetryKey { hash: key_hash(&spki), device_id: id.to_string(), spki, added_at: now };
    match store.commit(AddTelemetryKey { key: key.clone(), by: by.to_owned() }).await? {
        KeyAdded::There => {
            tracing::info!(device = %id, key_hash = key.hash, by, "a key signs telemetry for the device");
            Ok(key)
        }
        KeyAdded::Another => Err(NotAdded::Another),
        KeyAdded::TooMany => Err(NotAdded::TooMany),
    }
}

/// Has a key sign for nobody any more.
pub(crate) async fn remove(store: &Store, hash: &str, by: &str, now: UnixTime) -> Result<(), NotAdded> {
    let remove = RemoveTelemetryKey { hash: hash.to_owned(), at: now, by: by.to_owned() };
    if store.commit(remove).await? { Ok(()) } else { Err(NotAdded::Unknown) }
}

/// Why a key does not sign for a device, or goes on to.
#[derive(Debug, Error)]
pub(crate) enum NotAdded {
    /// Not a key that the protocol has.
    #[error("the key is neither RSA of 2048 bits or more nor P-256, as a SubjectPublicKeyInfo")]
    Kind,
    /// It is another's.
    #[error("the key signs for another device: remove it there first")]
    Another,
    /// As many keys as there may be.
    #[error("as many keys sign for this device as may: remove one first")]
    TooMany,
    /// There is none.
    #[error("no key of this hash signs for anybody")]
    Unknown,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotAdded {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotAdded::Kind => (Kind::Malformed, "key"),
            NotAdded::Another => (Kind::Duplicate, "key-of-another"),
            NotAdded::TooMany => (Kind::Exhausted, "too-many-keys"),
            NotAdded::Unknown => (Kind::NotFound, "unknown-key"),
            NotAdded::Store(error) => error.told(),
        }
    }
}
