//! Enrollment: EK certificate, credential activation, and a device key certified by the AK where the agent has one.
//!
//! Two steps, each consuming the one before, so that a challenge is answered once. Nothing is stored until every
//! check holds: load, decide, commit, answer.

use std::sync::Arc;

use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::certify::{CertifiedKey, verify_certify};
use assay_evidence::tpm::credential::{Credential, CredentialError, make_credential};
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::idevid::verify_iak_binding;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{Check, Failure};
use assay_identity::csr::CsrError;
use assay_identity::{Csr, SpiffeId, TrustDomain};
use assay_trust::{CompiledPolicy, Event, Status, TrustState, admit};
use assay_wire::binding::enroll_proof_body;
use aws_lc_rs::hmac;
use bytes::Bytes;
use thiserror::Error;

use crate::device::{Device, DeviceError, columns};
use crate::in_force::endorsers::{EndorsersInForce, verify_identity};
use crate::in_force::policies::Policies;
use crate::keys::{KeysError, random};
use crate::name::{self, NotAName};
use crate::newcomer::{Entrance, Newcomers, Shown};
use crate::outcome::{Kind, Outcome};
use crate::store::{DeviceRecord, EnrollDevice, IdentityRecord, KeylimeAgentRecord, Store, StoreError};

/// What enrolling needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enrolling<'a> {
    pub store: &'a Store,
    pub policies: &'a Policies,
    pub endorsers: &'a EndorsersInForce,
    pub newcomers: &'a Newcomers,
    pub trust_domain: &'a TrustDomain,
}

/// What a device presents.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    /// Its TPM, and the identity its maker gave it.
    pub identity: DeviceIdentity,
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Bytes,
    /// What it would be called; empty: it has no name.
    pub name: String,
    pub agent_version: String,
}

impl Presented {
    /// Whose TPM it says this is, if it says so.
    pub(crate) fn device(&self, trust_domain: &TrustDomain) -> Option<SpiffeId> {
        let ek = PublicArea::parse_tpm2b(&self.identity.ek_public).ok()?;
        Some(SpiffeId::device(trust_domain, &assay_telemetry::sha256(&ek.spki_der())))
    }
}

/// What only its TPM can answer.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    /// TPM2B_ID_OBJECT.
    pub credential_blob: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET.
    pub encrypted_secret: Vec<u8>,
    /// Qualifying data of the certifications.
    pub nonce: [u8; NONCE_BYTES],
}

/// Its answer.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    /// HMAC-SHA256 keyed with the activated credential, over the hash of [`enroll_proof_body`].
    pub proof: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify(device key) by the AK.
    pub certified: (Bytes, Bytes),
    /// PKCS#10 DER, signed by the device key.
    pub csr: Bytes,
    /// TPMS_ATTEST and TPMT_SIGNATURE of TPM2_Certify(AK) by the IAK, if one was shown.
    pub iak_certified: (Bytes, Bytes),
}

/// An enrollment that waits for its proof.
#[derive(Debug)]
pub(crate) struct Enrollment {
    challenged: Challenged,
    /// TPM2B_PUBLIC of the device key.
    device_key_public: Bytes,
    device_key: PublicArea,
}

/// A TPM of which everything was checked that can be seen, and which was challenged to open a secret.
#[derive(Debug)]
pub(crate) struct Challenged {
    id: SpiffeId,
    presented: Presented,
    identity: IdentityRecord,
    /// What is known of it, should it be one that was never here.
    shown: Shown,
    ak: PublicArea,
    secret: [u8; SECRET_BYTES],
    nonce: [u8; NONCE_BYTES],
}

impl Enrollment {
    /// Checks what was presented and makes a challenge that only its TPM can answer.
    pub(crate) async fn begin(
        enrolling: Enrolling<'_>,
        presented: Presented,
        device_key_public: Bytes,
        now: UnixTime,
    ) -> Result<(Enrollment, Challenge), EnrollError> {
        let device_key = parse(&device_key_public, Check::DeviceKeyCertify, "device key")?;
        let (challenged, challenge) =
            Challenged::begin(enrolling, presented, device_key.check_device_key(), now).await?;
        Ok((Enrollment { challenged, device_key_public, device_key }, challenge))
    }

    /// Checks the proof and binds the device, which came from this address, if it may come in.
    pub(crate) async fn prove(
        self,
        enrolling: Enrolling<'_>,
        address: &str,
        proof: Proof,
        now: UnixTime,
    ) -> Result<SpiffeId, EnrollError> {
        let key = self.verify(&proof)?;
        for _ in 0..ATTEMPTS_MAX {
            match self
                .challenged
                .bind(enrolling, address, (Some(&key), &self.device_key_public), None, now)
                .await
            {
                Err(EnrollError::Store(StoreError::Conflict)) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(self.challenged.id),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// The secret was opened by this EK for this AK, and the AK vouches for the key that the request holds.
    fn verify(&self, proof: &Proof) -> Result<CertifiedKey, EnrollError> {
        let Challenged { presented, secret, nonce, ak, .. } = &self.challenged;
        let Presented { ak_public, name, .. } = presented;
        let body = enroll_proof_body(nonce, ak_public, &self.device_key_public, &proof.csr, name);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        // In constant time: the proof is a secret's.
        hmac::verify(&key, &assay_telemetry::sha256(&body), &proof.proof)
            .map_err(|_| EnrollError::Activation)?;
        let certified = verify_certify(ak, &proof.certified.0, &proof.certified.1, nonce, &self.device_key)
            .map_err(EnrollError::Refused)?;
        self.challenged.verify_iak(&proof.iak_certified, &[nonce])?;
        let csr = Csr::parse(&proof.csr)?;
        if csr.spki_der() != certified.spki_der() {
            let failure = Failure::new(Check::DeviceKeyCsr, "CSR", "the certified device key", "another key");
            return Err(EnrollError::Refused(vec![failure]));
        }
        Ok(certified)
    }
}

impl Challenged {
    /// Checks what was presented, with what a caller found wrong already, and makes a challenge that only its TPM can answer.
    pub(crate) async fn begin(
        enrolling: Enrolling<'_>,
        presented: Presented,
        mut failures: Vec<Failure>,
        now: UnixTime,
    ) -> Result<(Challenged, Challenge), EnrollError> {
        if !presented.name.is_empty() {
            name::check(&presented.name)?;
        }
        check_sizes(&presented.identity)?;
        let shown = &presented.identity;
        let ek = parse(&shown.ek_public, Check::EkPublic, "EK")?;
        let ak = parse(&presented.ak_public, Check::AkParse, "AK")?;
        failures.splice(..0, [ek.check_ek(), ak.check_ak()].concat());
        let ek_sha256 = assay_telemetry::sha256(&ek.spki_der());
        let id = SpiffeId::device(enrolling.trust_domain, &ek_sha256);
        let policy = policy_of(enrolling, &id).await?;
        let endorsers = enrolling.endorsers.current();
        let endorsement = endorsement(shown, &ek, &endorsers.eks, now);
        failures.extend(admit(policy.as_deref(), &endorsement).err().unwrap_or_default());
        let verified = verify_identity(shown, &endorsers.identities, now);
        // What nobody can vouch for is not kept, as if it had not been shown.
        let identity = if verified.is_some() { IdentityRecord::of(shown) } else { IdentityRecord::default() };
        let serial = verified.as_ref().and_then(|verified| Some(verified.as_ref().ok()?.serial()));
        let newcomer = Shown::of(&endorsement, shown, serial);
        failures.extend(verified.and_then(Result::err).unwrap_or_default());
        if !failures.is_empty() {
            return Err(EnrollError::Refused(failures));
        }
        let (secret, nonce) = (random()?, random()?);
        let Credential { blob, encrypted_secret } = make_credential(&ek, &ak.name(), &secret)?;
        let challenge = Challenge { credential_blob: blob, encrypted_secret, nonce };
        Ok((Challenged { id, presented, identity, shown: newcomer, ak, secret, nonce }, challenge))
    }

    /// The device that this TPM is.
    pub(crate) fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What was presented.
    pub(crate) fn presented(&self) -> &Presented {
        &self.presented
    }

    /// What its TPM alone can open.
    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }

    /// An IAK that is shown vouches for the AK now, however often it did before, over one of these.
    pub(crate) fn verify_iak(
        &self,
        (info, signature): &(Bytes, Bytes),
        nonces: &[&[u8]],
    ) -> Result<(), EnrollError> {
        let iak = &self.presented.identity.iak_public;
        if iak.is_empty() {
            return Ok(());
        }
        let mut failures = Vec::new();
        for nonce in nonces {
            failures = verify_iak_binding(iak, &self.ak, info, signature, nonce);
            if failures.is_empty() {
                return Ok(());
            }
        }
        Err(EnrollError::Refused(failures))
    }

    /// Binds what was proven, with the device key that the AK certified where there is one, if the device may come in.
    pub(crate) async fn bind(
        &self,
        enrolling: Enrolling<'_>,
        address: &str,
        (key, key_public): (Option<&CertifiedKey>, &[u8]),
        keylime: Option<KeylimeAgentRecord>,
        now: UnixTime,
    ) -> Result<(), EnrollError> {
        let store = enrolling.store;
        let known = Device::load(store, &self.id).await?;
        let on_word = known.is_none() && self.enter(enrolling, address, now).await?;
        let state =
            known.as_ref().map_or_else(|| TrustState::pending(self.id.clone()), |known| known.state.clone());
        if state.status() == Status::Revoked {
            return Err(EnrollError::Revoked);
        }
        let event = key.map_or_else(|| Event::enrolled_to_quote(now), |key| Event::enrolled(now, key));
        let shown = &self.presented.identity;
        let device = DeviceRecord {
            id: self.id.to_string(),
            name: self.name(),
            node: None,
            ek_public: shown.ek_public.to_vec(),
            ek_certificate: shown.ek_certificate.to_vec(),
            ek_intermediates: shown.ek_intermediates.concat(),
            identity: self.identity.clone(),
            ak_public: self.presented.ak_public.to_vec(),
            device_key_public: key_public.to_vec(),
            device_key_spki: key.map(|key| key.spki_der().to_vec()).unwrap_or_default(),
            agent_version: self.presented.agent_version.chars().take(VERSION_CHARACTERS_MAX).collect(),
            enrolled_at: now,
            labels: String::new(),
            trust: columns(&state.apply(&event)),
        };
        let replaces = known.map(|known| known.state.version());
        let detail = serde_json::to_string(event.record()).map_err(|_| StoreError::Unwritable)?;
        store.commit_and_follow(EnrollDevice { device, replaces, on_word, keylime, detail }).await?;
        tracing::info!(device = %self.id, name = self.name(), again = replaces.is_some(), "device enrolled");
        Ok(())
    }

    /// Whether a device that was never here comes in on an operator's word; refused, if it does not come in.
    pub(crate) async fn enter(
        &self,
        Enrolling { store, newcomers, .. }: Enrolling<'_>,
        address: &str,
        now: UnixTime,
    ) -> Result<bool, EnrollError> {
        match newcomers.entrance(store, &self.id, &self.shown).await? {
            Entrance::Open => Ok(false),
            Entrance::OnWord => Ok(true),
            Entrance::Waits => {
                newcomers.wait(store, &self.id, (&self.shown, &self.name(), address), now).await?;
                tracing::info!(device = %self.id, name = self.name(), address, "device waits for admission");
                Err(EnrollError::Pending)
            }
            Entrance::NotListed => Err(EnrollError::NotListed),
            Entrance::Denied => Err(EnrollError::Denied),
        }
    }

    /// A device without a name goes by the start of its hash.
    fn name(&self) -> String {
        match self.presented.name.as_str() {
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

/// The maker's word that the EK lives in a TPM, as far as there is one.
fn endorsement(shown: &DeviceIdentity, ek: &PublicArea, endorsers: &Endorsers, now: UnixTime) -> Endorsement {
    let intermediates: Vec<&[u8]> = shown.ek_intermediates.iter().map(AsRef::as_ref).collect();
    Endorsement::verify(ek, &shown.ek_certificate, &intermediates, endorsers, now)
}

/// What is kept of a device has a bound; what is only looked at has those of the certificates' parser.
fn check_sizes(shown: &DeviceIdentity) -> Result<(), EnrollError> {
    let intermediates = shown.ek_intermediates.iter().chain(&shown.idevid_intermediates);
    let certificates = [&shown.ek_certificate, &shown.iak_certificate, &shown.idevid_certificate];
    let bytes: usize = intermediates.chain(certificates).map(|der| der.len()).sum();
    if bytes <= CERTIFICATES_BYTES_MAX { Ok(()) } else { Err(EnrollError::Certificates { bytes }) }
}

/// The policy that the device will be judged by: as it is labelled, or as one that nobody has labelled yet.
async fn policy_of(
    enrolling: Enrolling<'_>,
    id: &SpiffeId,
) -> Result<Option<Arc<CompiledPolicy>>, EnrollError> {
    let plan = enrolling.policies.current();
    let known = Device::load(enrolling.store, id).await?;
    Ok(known.map_or_else(|| plan.of_newcomer(id), |device| plan.of(&device)).compiled)
}

/// Why a device is not enrolled. Nothing was stored.
#[derive(Debug, Error)]
pub(crate) enum EnrollError {
    /// What was presented does not parse.
    #[error("{0}")]
    Malformed(Failure),
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NotAName),
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
    /// It was never here, and nobody has let it in yet.
    #[error("the device waits for an operator to admit it")]
    Pending,
    /// An operator keeps it out.
    #[error("an operator has denied this device")]
    Denied,
    /// It was never here, and is on no list.
    #[error("the device is not on the enrollment manifest")]
    NotListed,
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
            EnrollError::Name(_) => (Kind::Malformed, "name"),
            EnrollError::Certificates { .. } => (Kind::Malformed, "certificates"),
            EnrollError::Refused(failures) => {
                (Kind::Forbidden, failures.first().map_or("refused", |failure| failure.check.name()))
            }
            EnrollError::Activation => (Kind::Unauthenticated, "credential-activation"),
            EnrollError::Csr(CsrError::Signature) => (Kind::Unauthenticated, "device-key-csr"),
            EnrollError::Csr(_) => (Kind::Malformed, "device-key-csr"),
            EnrollError::Credential(_) => (Kind::Forbidden, "ek-public"),
            EnrollError::Revoked => (Kind::Forbidden, "revoked"),
            EnrollError::Pending => (Kind::OutOfTurn, "admission-pending"),
            EnrollError::Denied => (Kind::Forbidden, "admission-denied"),
            EnrollError::NotListed => (Kind::Forbidden, "not-listed"),
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
/// Some forty of the largest seen.
const CERTIFICATES_BYTES_MAX: usize = 64 << 10;
const VERSION_CHARACTERS_MAX: usize = 64;
/// A device that enrolls twice at once.
const ATTEMPTS_MAX: usize = 3;
