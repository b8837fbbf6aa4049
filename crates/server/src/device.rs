//! A device as the use cases have it: its record and its trust state, read back and checked.

use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_identity::SpiffeId;
use assay_trust::TrustState;
use assay_trust::labels::Labels;
use bytes::Bytes;
use thiserror::Error;

use crate::in_force::endorsers::Endorsing;
use crate::outcome::{Kind, Outcome};
use crate::store::{DeviceRecord, IdentityRecord, Store, StoreError, TrustColumns};

/// A device that is enrolled.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    /// Its identity.
    pub id: SpiffeId,
    /// What is bound to it.
    pub record: DeviceRecord,
    /// What operators say about it.
    pub labels: Labels,
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

    /// The TPM's counters when it was last seen.
    pub(crate) fn last_counters(&self) -> Option<BootCounters> {
        let reset_count = self.record.trust.reset_count?;
        // Of an earlier boot than the highest that was seen, restarts say nothing.
        let of_boot = self.state.restart_count().filter(|_| self.state.reset_count() == Some(reset_count));
        Some(BootCounters { reset_count, restart_count: of_boot.unwrap_or(0) })
    }

    /// Reads a record back.
    pub(crate) fn of(record: DeviceRecord) -> Result<Device, DeviceError> {
        let corrupt = |column| StoreError::Corrupt { column };
        let id = SpiffeId::parse(&record.id).map_err(|_| corrupt("devices.id"))?;
        let trust = serde_json::from_str(&record.trust.record).map_err(|_| corrupt("devices.trust"))?;
        let state = TrustState::from_record(id.clone(), trust).map_err(|_| corrupt("devices.trust"))?;
        let labels = record.labels.parse().map_err(|_| corrupt("devices.labels"))?;
        Ok(Device { id, record, labels, state })
    }

    /// Its EK and who vouches for it at a time, with the identity that it showed beside it.
    pub(crate) fn endorsement(&self, by: &Endorsing, at: UnixTime) -> Result<Endorsement, DeviceError> {
        let endorsement = by.endorsement(&self.shown(), at);
        Ok(endorsement.map_err(|_| StoreError::Corrupt { column: "devices.ek_public" })?)
    }

    /// What it showed of its EK and its identity when it enrolled.
    pub(crate) fn shown(&self) -> DeviceIdentity {
        let copies = |der: &[u8]| certificates(der).into_iter().map(Bytes::copy_from_slice).collect();
        let DeviceRecord { ek_public, ek_certificate, ek_intermediates, identity, .. } = &self.record;
        DeviceIdentity {
            ek_public: Bytes::copy_from_slice(ek_public),
            ek_certificate: Bytes::copy_from_slice(ek_certificate),
            ek_intermediates: copies(ek_intermediates),
            iak_public: Bytes::copy_from_slice(&identity.iak_public),
            iak_certificate: Bytes::copy_from_slice(&identity.iak_certificate),
            idevid_public: Bytes::copy_from_slice(&identity.idevid_public),
            idevid_certificate: Bytes::copy_from_slice(&identity.idevid_certificate),
            idevid_intermediates: copies(&identity.intermediates),
        }
    }
}

impl IdentityRecord {
    /// What of a device's identity is kept beside its EK.
    pub(crate) fn of(shown: &DeviceIdentity) -> IdentityRecord {
        IdentityRecord {
            iak_public: shown.iak_public.to_vec(),
            iak_certificate: shown.iak_certificate.to_vec(),
            idevid_public: shown.idevid_public.to_vec(),
            idevid_certificate: shown.idevid_certificate.to_vec(),
            intermediates: shown.idevid_intermediates.concat(),
        }
    }
}

/// Concatenated certificates, each for itself.
fn certificates(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut certificates = Vec::new();
    while let Some((one, after)) = sequence_length(rest).and_then(|length| rest.split_at_checked(length)) {
        certificates.push(one);
        rest = after;
    }
    certificates
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
        record: serde_json::to_string(state.to_record()).unwrap_or_default(),
    }
}

/// Bytes of the SEQUENCE at the start, header included.
fn sequence_length(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [0x30, 0x82, high, low, ..] => Some(4 + usize::from(u16::from_be_bytes([*high, *low]))),
        [0x30, 0x81, length, ..] => Some(3 + usize::from(*length)),
        [0x30, length @ 0..=0x7f, ..] => Some(2 + usize::from(*length)),
        _ => None,
    }
}

/// Why a device could not be loaded.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) struct DeviceError(#[from] pub StoreError);

impl Outcome for DeviceError {
    fn told(&self) -> (Kind, &'static str) {
        self.0.told()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_says_where_it_ends() {
        assert_eq!(sequence_length(&[0x30, 0x05, 0]), Some(7));
        assert_eq!(sequence_length(&[0x30, 0x81, 0xc8, 0]), Some(203));
        assert_eq!(sequence_length(&[0x30, 0x82, 0x01, 0x00, 0]), Some(260));
        assert_eq!(sequence_length(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(sequence_length(&[0x31, 0x05]), None);
        assert_eq!(sequence_length(&[]), None);
    }
}
