//! X.509-SVIDs: the device's own, and those of workloads that an operator entitled on it.

use std::sync::Arc;

use assay_evidence::check::Failure;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::public_area::PublicAreaError;
use assay_identity::Csr;
use assay_identity::csr::CsrError;
use assay_telemetry::{BadSignature, verify_device_signature};
use assay_trust::TrustState;
use assay_trust::grant::svid::{SvidRequest, decide};
use assay_trust::grant::{Denied, Entitlement};
use assay_wire::binding::{WORKLOAD_SVID_TYPE, workload_svid_body};
use bytes::Bytes;
use thiserror::Error;

use crate::device::Device;
use crate::in_force::entries::{Entries, entitlement};
use crate::keys::{AkAuthority, Authority, Chain, ClassicAuthority, JwtKey, KeysError};
use crate::outcome::{Kind, Outcome};
use crate::store::{EntryRecord, KeepCertificate, Profile, Store, StoreError};

/// What granting SVIDs needs.
#[derive(Clone, Debug)]
pub(crate) struct Granting {
    pub store: Store,
    pub authority: Arc<Authority>,
    pub jwt_key: Arc<JwtKey>,
    pub entries: Arc<Entries>,
    /// How long a device's own SVID lives.
    pub device_ttl_seconds: u64,
    /// What signs certificates of RSA keys, where that is on.
    pub classic: Option<Arc<ClassicAuthority>>,
    /// What signs certificates of AKs, and for how many seconds, where that is on.
    pub ak: Option<(Arc<AkAuthority>, u64)>,
    /// Whether the newest of each device is kept, for whoever wants to verify what it signs.
    pub keeps_certificates: bool,
}

/// A device's request on behalf of a workload.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadRequest {
    /// Higher than that of every request before it on its stream.
    pub number: u64,
    pub entry_id: String,
    /// PKCS#10 DER, signed by the workload's key.
    pub csr: Bytes,
    /// The device key's, over [`workload_svid_body`].
    pub device_signature: Bytes,
}

impl WorkloadRequest {
    /// Whether the device's agent asked, on the stream that the server calls so, and nobody on the way.
    pub(crate) fn authentic(&self, device: &Device, stream: &[u8]) -> Result<(), SvidError> {
        let body = workload_svid_body(stream, self.number, &self.entry_id, &self.csr);
        let spki = &device.record.device_key_spki;
        Ok(verify_device_signature(spki, WORKLOAD_SVID_TYPE, &body, &self.device_signature)?)
    }
}

impl Granting {
    /// The device's own SVID, for the key that its AK certified.
    pub(crate) async fn device_svid(&self, device: &Device, now: UnixTime) -> Result<Chain, SvidError> {
        let key = &device.record.device_key_spki;
        let chain = self.own_svid(&device.state, key, self.device_ttl_seconds, now).await?;
        if self.keeps_certificates {
            self.keep(device, &chain, now).await?;
        }
        Ok(chain)
    }

    /// The own SVID of whom a state is about, for the key that is bound to it.
    pub(crate) async fn own_svid(
        &self,
        state: &TrustState,
        key: &[u8],
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<Chain, SvidError> {
        let grant = decide(state, SvidRequest::Device { key, ttl_seconds }, now)?;
        Ok(self.authority.sign_svid(&self.store, grant, state.device(), None, now).await?)
    }

    async fn keep(&self, device: &Device, chain: &Chain, now: UnixTime) -> Result<(), StoreError> {
        let Some(leaf) = chain.certificates.first() else { return Ok(()) };
        let kept = KeepCertificate {
            profile: Profile::Svid,
            device_id: device.id.to_string(),
            serial: chain.serial.to_string(),
            issued_at: now,
            not_after: chain.not_after,
            certificate: leaf.clone(),
        };
        self.store.commit(kept).await
    }

    /// A workload's SVID, for an [`authentic`](WorkloadRequest::authentic) request.
    pub(crate) async fn workload_svid(
        &self,
        device: &Device,
        request: &WorkloadRequest,
        now: UnixTime,
    ) -> Result<Chain, SvidError> {
        let csr = Csr::parse(&request.csr)?;
        let entries = self.entries.of(&device.id);
        self.workload_svid_by(&device.state, (&entries, &request.entry_id), &csr, now).await
    }

    /// A workload's SVID by one of the entries that whom a state is about may hand out.
    pub(crate) async fn workload_svid_by(
        &self,
        state: &TrustState,
        (entries, entry_id): (&[Arc<EntryRecord>], &str),
        csr: &Csr,
        now: UnixTime,
    ) -> Result<Chain, SvidError> {
        let (entry, entitlement) = entitled(state, entries, entry_id, now)?;
        let grant = decide(state, SvidRequest::Workload { entitlement: &entitlement, csr }, now)?;
        Ok(self.authority.sign_svid(&self.store, grant, state.device(), Some(&entry), now).await?)
    }
}

/// One of the entries that whom a state is about may hand out, and what it entitles to there.
pub(super) fn entitled(
    state: &TrustState,
    entries: &[Arc<EntryRecord>],
    entry_id: &str,
    now: UnixTime,
) -> Result<(Arc<EntryRecord>, Entitlement), SvidError> {
    let is_it = |entry: &&Arc<EntryRecord>| entry.id == entry_id && !entry.is_over(now);
    let entry = entries.iter().find(is_it).ok_or(SvidError::NoEntry)?;
    let entitlement =
        entitlement(entry, state.device()).ok_or(StoreError::Corrupt { column: "entries.spiffe_id" })?;
    Ok((entry.clone(), entitlement))
}

/// Why there is no SVID.
#[derive(Debug, Error)]
pub(crate) enum SvidError {
    /// The trust state, or the entry, does not entitle to it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The device has no such entry.
    #[error("there is no such entry for this device")]
    NoEntry,
    /// The request is not by the device.
    #[error("the request is not signed by the device key")]
    Signature(#[from] BadSignature),
    /// The request was made before, on this stream.
    #[error("the request is not newer than the one before it")]
    Replayed,
    /// Certificates of RSA keys are not signed here.
    #[error("classic certificates are off: trust_api.classic of the server's configuration switches them on")]
    NoClassic,
    /// The key is none.
    #[error("the key does not read")]
    PublicArea(#[from] PublicAreaError),
    /// The AK does not say that the key is in its TPM.
    #[error("the key is not certified: {}", .0.iter().map(ToString::to_string).next().unwrap_or_default())]
    NotCertified(Vec<Failure>),
    /// The workload's request does not hold.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// The entry could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys, or the trust state moved on before the SVID was on record.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for SvidError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            SvidError::Denied(denied) => (Kind::Forbidden, denied.code()),
            SvidError::NoEntry => (Kind::NotFound, "no-entry"),
            SvidError::Signature(_) => (Kind::Unauthenticated, "device-signature"),
            SvidError::Replayed => (Kind::OutOfTurn, "replayed"),
            SvidError::NoClassic => (Kind::NotFound, "no-classic"),
            SvidError::PublicArea(_) => (Kind::Malformed, "public-area"),
            SvidError::NotCertified(_) => (Kind::Unauthenticated, "not-certified"),
            SvidError::Csr(_) => (Kind::Malformed, "csr"),
            SvidError::Store(error) => error.told(),
            SvidError::Keys(error) => error.told(),
        }
    }
}

impl SvidError {
    /// What the device is told: the reason of a denial, no more than the family of a fault.
    pub(crate) fn sentence(&self) -> String {
        match self {
            SvidError::Denied(denied) => format!("{}: {denied}", denied.code()),
            SvidError::Keys(KeysError::Record(StoreError::Conflict)) => {
                "not-trusted: the state has moved on".to_owned()
            }
            SvidError::Keys(KeysError::Record(
                full @ (StoreError::Full { .. } | StoreError::TooOften { .. }),
            )) => format!("exhausted: {full}"),
            SvidError::Store(_) | SvidError::Keys(_) => "unavailable: try again".to_owned(),
            error => format!("refused: {error}"),
        }
    }
}
