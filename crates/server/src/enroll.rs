//! Enrollment: EK certificate, credential activation, and a device key certified by the AK.
//!
//! Two steps, each consuming the one before, so that a challenge is answered once. Nothing is stored until every
//! check holds: load, decide, commit, answer.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::{CertifiedKey, verify_certify};
use assay_evidence::tpm::credential::{Credential, CredentialError, make_credential};
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::idevid::verify_iak_binding;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{Check, Failure};
use assay_identity::csr::CsrError;
use assay_identity::{Csr, SpiffeId};
use assay_trust::{CompiledPolicy, Event, Status, TrustState, admit};
use assay_wire::binding::enroll_proof_body;
use assay_wire::edge;
use aws_lc_rs::hmac;
use thiserror::Error;

use crate::device::{Device, DeviceError, columns};
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::parts::Server;
use crate::store::{DeviceRecord, EnrollDevice, IdentityRecord, StoreError};

/// An enrollment that waits for its proof.
#[derive(Debug)]
pub(crate) struct Enrollment {
    id: SpiffeId,
    begin: edge::EnrollBegin,
    identity: IdentityRecord,
    ak: PublicArea,
    device_key: PublicArea,
    secret: [u8; SECRET_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Enrollment {
    /// Checks what was presented and makes a challenge that only its TPM can answer.
    pub(crate) async fn begin(
        server: &Server,
        begin: edge::EnrollBegin,
        now: UnixTime,
    ) -> Result<(Enrollment, edge::EnrollChallenge), EnrollError> {
        check_name(&begin.name)?;
        check_sizes(&begin)?;
        let ek = parse(&begin.ek_public, Check::EkPublic, "EK")?;
        let ak = parse(&begin.ak_public, Check::AkParse, "AK")?;
        let device_key = parse(&begin.device_key_public, Check::DeviceKeyCertify, "device key")?;
        let mut failures = [ek.check_ek(), ak.check_ak(), device_key.check_device_key()].concat();
        let ek_sha256 = assay_telemetry::sha256(&ek.spki_der());
        let id = SpiffeId::device(&server.config.trust_domain, &ek_sha256);
        let policy = policy_of(server, &id).await?;
        let endorsers = server.endorsers.current();
        failures
            .extend(endorse(policy.as_deref(), &begin, &ek, &endorsers.eks, now).err().unwrap_or_default());
        let shown = IdentityRecord::shown(&begin);
        let verified = shown.verify(&endorsers.identities, now);
        // What nobody can vouch for is not kept, as if it had not been shown.
        let identity = if verified.is_some() { shown } else { IdentityRecord::default() };
        failures.extend(verified.and_then(Result::err).unwrap_or_default());
        if !failures.is_empty() {
            return Err(EnrollError::Refused(failures));
        }
        let (secret, nonce) = (random()?, random()?);
        let Credential { blob, encrypted_secret } = make_credential(&ek, &ak.name(), &secret)?;
        let challenge = edge::EnrollChallenge {
            credential_blob: blob.into(),
            encrypted_secret: encrypted_secret.into(),
            nonce: nonce.to_vec().into(),
        };
        Ok((Enrollment { id, begin, identity, ak, device_key, secret, nonce }, challenge))
    }

    /// Checks the proof and binds the device.
    pub(crate) async fn prove(
        self,
        server: &Server,
        proof: edge::EnrollProof,
        now: UnixTime,
    ) -> Result<edge::EnrollResult, EnrollError> {
        let key = self.verify(&proof)?;
        for _ in 0..ATTEMPTS_MAX {
            match self.bind(server, &key, now).await {
                Err(EnrollError::Store(StoreError::Conflict)) => {}
                outcome => return outcome,
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The secret was opened by this EK for this AK, and the AK vouches for the key that the request holds.
    fn verify(&self, proof: &edge::EnrollProof) -> Result<CertifiedKey, EnrollError> {
        let body =
            enroll_proof_body(&self.nonce, &self.begin.ak_public, &self.begin.device_key_public, &proof.csr);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        // In constant time: the proof is a secret's.
        hmac::verify(&key, &assay_telemetry::sha256(&body), &proof.proof)
            .map_err(|_| EnrollError::Activation)?;
        let certified = verify_certify(
            &self.ak,
            &proof.certify_info,
            &proof.certify_signature,
            &self.nonce,
            &self.device_key,
        )
        .map_err(EnrollError::Refused)?;
        self.verify_iak(proof)?;
        let csr = Csr::parse(&proof.csr)?;
        if csr.spki_der() != certified.spki_der() {
            let failure = Failure::new(Check::DeviceKeyCsr, "CSR", "the certified device key", "another key");
            return Err(EnrollError::Refused(vec![failure]));
        }
        Ok(certified)
    }

    /// An IAK that is shown vouches for the AK now, however often it did before.
    fn verify_iak(&self, proof: &edge::EnrollProof) -> Result<(), EnrollError> {
        let iak = &self.begin.iak_public;
        if iak.is_empty() {
            return Ok(());
        }
        let (info, signature) = (&proof.iak_certify_info, &proof.iak_certify_signature);
        match verify_iak_binding(iak, &self.ak, info, signature, &self.nonce) {
            failures if failures.is_empty() => Ok(()),
            failures => Err(EnrollError::Refused(failures)),
        }
    }

    async fn bind(
        &self,
        server: &Server,
        key: &CertifiedKey,
        now: UnixTime,
    ) -> Result<edge::EnrollResult, EnrollError> {
        let known = Device::load(&server.store, &self.id).await?;
        let state =
            known.as_ref().map_or_else(|| TrustState::pending(self.id.clone()), |known| known.state.clone());
        if state.status() == Status::Revoked {
            return Err(EnrollError::Revoked);
        }
        let event = Event::enrolled(now, key);
        let next = state.apply(&event);
        let device = DeviceRecord {
            id: self.id.to_string(),
            name: self.name(),
            ek_public: self.begin.ek_public.to_vec(),
            ek_certificate: self.begin.ek_certificate.to_vec(),
            ek_intermediates: self.begin.ek_intermediates.concat(),
            identity: self.identity.clone(),
            ak_public: self.begin.ak_public.to_vec(),
            device_key_public: self.begin.device_key_public.to_vec(),
            device_key_spki: key.spki_der().to_vec(),
            agent_version: self.begin.agent_version.chars().take(VERSION_CHARACTERS_MAX).collect(),
            enrolled_at: now,
            labels: String::new(),
            trust: columns(&next),
        };
        let replaces = known.map(|known| known.state.version());
        let detail = serde_json::to_string(event.record()).unwrap_or_default();
        let moved = server.store.commit(EnrollDevice { device, replaces, detail }).await?;
        server.announce(&self.id, &moved, now)?;
        server.metrics.enrolled();
        tracing::info!(device = %self.id, name = self.name(), again = replaces.is_some(), "device enrolled");
        Ok(edge::EnrollResult {
            device_id: self.id.to_string(),
            bundle: server.authority.bundle().to_der().into(),
        })
    }

    /// A device without a name goes by the start of its hash.
    fn name(&self) -> String {
        match self.begin.name.as_str() {
            "" => self.id.device_hex().and_then(|hex| hex.get(..12)).unwrap_or_default().to_owned(),
            name => name.to_owned(),
        }
    }
}

fn parse(bytes: &[u8], check: Check, claim: &str) -> Result<PublicArea, EnrollError> {
    PublicArea::parse_tpm2b(bytes).map_err(|error| {
        EnrollError::Malformed(Failure::new(check, claim, "a TPM2B_PUBLIC", error.to_string()))
    })
}

/// The maker's word that the EK lives in a TPM, or the operator's by a policy that lists it.
fn endorse(
    policy: Option<&CompiledPolicy>,
    begin: &edge::EnrollBegin,
    ek: &PublicArea,
    endorsers: &Endorsers,
    now: UnixTime,
) -> Result<(), Vec<Failure>> {
    let intermediates: Vec<&[u8]> = begin.ek_intermediates.iter().map(AsRef::as_ref).collect();
    let endorsement = Endorsement::verify(ek, &begin.ek_certificate, &intermediates, endorsers, now);
    admit(policy, &endorsement)
}

/// What is kept of a device has a bound; what is only looked at has those of the certificates' parser.
fn check_sizes(begin: &edge::EnrollBegin) -> Result<(), EnrollError> {
    let intermediates = begin.ek_intermediates.iter().chain(&begin.idevid_intermediates);
    let certificates = [&begin.ek_certificate, &begin.iak_certificate, &begin.idevid_certificate];
    let bytes: usize = intermediates.chain(certificates).map(|der| der.len()).sum();
    if bytes <= CERTIFICATES_BYTES_MAX { Ok(()) } else { Err(EnrollError::Certificates { bytes }) }
}

/// The policy that the device will be judged by: as it is labelled, or as one that nobody has labelled yet.
async fn policy_of(server: &Server, id: &SpiffeId) -> Result<Option<Arc<CompiledPolicy>>, EnrollError> {
    let plan = server.policies.current();
    let known = Device::load(&server.store, id).await?;
    Ok(known.map_or_else(|| plan.of_newcomer(id), |device| plan.of(&device)).compiled)
}

/// Names are for people: shown in tables and on pages, so printable and short.
fn check_name(name: &str) -> Result<(), EnrollError> {
    let printable = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' '));
    if name.len() <= NAME_BYTES_MAX && printable { Ok(()) } else { Err(EnrollError::Name) }
}

/// Why a device is not enrolled. Nothing was stored.
#[derive(Debug, Error)]
pub(crate) enum EnrollError {
    /// What was presented does not parse.
    #[error("{0}")]
    Malformed(Failure),
    /// The name cannot be shown.
    #[error("a name has at most {NAME_BYTES_MAX} letters, digits, spaces, dots, dashes and underscores")]
    Name,
    /// More certificates than there are between a TPM and its roots.
    #[error("certificates of {bytes} bytes, at most {CERTIFICATES_BYTES_MAX} are kept")]
    Certificates {
        /// How many.
        bytes: usize,
    },
    /// Checks that did not hold.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Failure>),
    /// The credential was not opened by the TPM of this EK and AK.
    #[error("the credential was not activated: the proof does not match")]
    Activation,
    /// The certificate request.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// No credential can be made for this EK.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// An operator ended this device.
    #[error("the device is revoked")]
    Revoked,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for EnrollError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            EnrollError::Malformed(failure) => (Kind::Malformed, failure.check.name()),
            EnrollError::Name => (Kind::Malformed, "name"),
            EnrollError::Certificates { .. } => (Kind::Malformed, "certificates"),
            EnrollError::Refused(failures) => {
                (Kind::Forbidden, failures.first().map_or("refused", |failure| failure.check.name()))
            }
            EnrollError::Activation => (Kind::Unauthenticated, "credential-activation"),
            EnrollError::Csr(CsrError::Signature) => (Kind::Unauthenticated, "device-key-csr"),
            EnrollError::Csr(_) => (Kind::Malformed, "device-key-csr"),
            EnrollError::Credential(_) => (Kind::Forbidden, "ek-public"),
            EnrollError::Revoked => (Kind::Forbidden, "revoked"),
            EnrollError::Store(error) => error.told(),
            EnrollError::Keys(error) => error.told(),
        }
    }
}

impl From<DeviceError> for EnrollError {
    fn from(error: DeviceError) -> Self {
        EnrollError::Store(error.0)
    }
}

const SECRET_BYTES: usize = 32;
const NONCE_BYTES: usize = 32;
/// A DNS name's length.
const NAME_BYTES_MAX: usize = 253;
/// Some forty of the largest seen.
const CERTIFICATES_BYTES_MAX: usize = 64 << 10;
const VERSION_CHARACTERS_MAX: usize = 64;
/// A device that enrolls twice at once.
const ATTEMPTS_MAX: usize = 3;
