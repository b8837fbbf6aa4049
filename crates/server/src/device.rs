//! A device as the use cases have it: its record and its trust state, read back and checked.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::TrustState;
use thiserror::Error;

use crate::store::{DeviceRecord, Store, StoreError, TrustColumns};

/// A device that is enrolled.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Its identity.
    pub id: SpiffeId,
    /// What is bound to it.
    pub record: DeviceRecord,
    /// What we hold about it.
    pub state: TrustState,
}

impl Device {
    /// Loads a device; that it is not there is an answer.
    pub(crate) async fn load(store: &Store, id: &SpiffeId) -> Result<Option<Device>, DeviceError> {
        match store.device(id.as_str()).await? {
            Some(record) => Device::of(record).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a record back.
    pub(crate) fn of(record: DeviceRecord) -> Result<Device, DeviceError> {
        let corrupt = |column| StoreError::Corrupt { column };
        let id = SpiffeId::parse(&record.id).map_err(|_| corrupt("devices.id"))?;
        let trust = serde_json::from_str(&record.trust.record).map_err(|_| corrupt("devices.trust"))?;
        let state = TrustState::from_record(id.clone(), trust).map_err(|_| corrupt("devices.trust"))?;
        Ok(Device { id, record, state })
    }
}

/// A state as the store has it.
pub(crate) fn columns(state: &TrustState) -> TrustColumns {
    TrustColumns {
        status: state.status().name().to_owned(),
        tier: state.tier().name().to_owned(),
        valid_until: state.valid_until().unwrap_or(UnixTime(0)),
        evidence_at: state.evidence_at().unwrap_or(UnixTime(0)),
        reset_count: state.reset_count(),
        version: state.version(),
        record: serde_json::to_value(state.to_record()).unwrap_or_default().to_string(),
    }
}

/// Why a device could not be loaded.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) struct DeviceError(#[from] pub StoreError);
