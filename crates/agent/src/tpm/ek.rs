//! The endorsement key: the identity the TPM's maker certified, and credential activation with it.

use std::fmt;

use assay_evidence::tpm::public_area::PublicArea;
use tpm2_protocol::TpmMarshal;
use tpm2_protocol::TpmWriter;
use tpm2_protocol::basic::{TpmHandle, TpmInt32};
use tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE;
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bDigest, Tpm2bEncryptedSecret, Tpm2bIdObject, Tpm2bNonce, Tpm2bPublic,
    Tpm2bSensitiveCreate, TpmRh, TpmSe, TpmlPcrSelection, TpmsAuthCommand,
};
use tpm2_protocol::frame::{TpmActivateCredentialCommand, TpmCreatePrimaryCommand, TpmPolicySecretCommand};

use super::command::{Loaded, argument, empty_password, policy};
use super::keys::Key;
use super::template::{self, tpm2b};
use super::{Tpm, TpmError, UnreadIndex};

/// The kinds of endorsement keys that makers certify, in the order we prefer them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EkKind {
    /// RSA-2048, template L-1.
    Rsa2048,
    /// ECC P-256, template L-2.
    EccP256,
    /// ECC P-384, template H-3.
    EccP384,
}

impl EkKind {
    /// Every kind, the preferred first.
    pub const ALL: [EkKind; 3] = [EkKind::Rsa2048, EkKind::EccP256, EkKind::EccP384];

    /// The NV index of its certificate (TCG EK Credential Profile §2.2.1.4).
    pub fn certificate_index(self) -> u32 {
        match self {
            EkKind::Rsa2048 => 0x01c0_0002,
            EkKind::EccP256 => 0x01c0_000a,
            EkKind::EccP384 => 0x01c0_0016,
        }
    }

    /// Where provisioned machines keep it loaded (TCG TPM v2.0 Provisioning Guidance §7.8, swtpm).
    fn persistent_handle(self) -> u32 {
        match self {
            EkKind::Rsa2048 => 0x8101_0001,
            EkKind::EccP256 => 0x8101_000a,
            EkKind::EccP384 => 0x8101_0016,
        }
    }

    /// Policy A for the low templates, policy B for the high one (TCG EK Credential Profile, annex B).
    pub(super) fn policy(self) -> &'static [u8] {
        match self {
            EkKind::Rsa2048 | EkKind::EccP256 => &POLICY_A_SHA256,
            EkKind::EccP384 => &POLICY_B_SHA384,
        }
    }
}

impl fmt::Display for EkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EkKind::Rsa2048 => "RSA-2048",
            EkKind::EccP256 => "ECC P-256",
            EkKind::EccP384 => "ECC P-384",
        })
    }
}

/// An endorsement key at hand. It takes one of the TPM's few slots: drop it when the enrollment is over.
pub struct EndorsementKey {
    kind: EkKind,
    handle: EkHandle,
    public: Vec<u8>,
    certificate: Option<Vec<u8>>,
    intermediates: Vec<Vec<u8>>,
    unread: Vec<UnreadIndex>,
    tpm: Tpm,
}

enum EkHandle {
    Persistent(u32),
    Transient(Loaded),
}

impl EndorsementKey {
    /// Takes the preferred kind that has a certificate, or the preferred kind that the TPM can make.
    pub fn load(tpm: &Tpm) -> Result<Self, TpmError> {
        let certificates = tpm.ek_certificates()?;
        let mut ek = match certificates.leaves.into_iter().next() {
            Some((kind, leaf)) => {
                let mut ek = Self::load_kind(tpm, kind)?;
                ek.certificate = Some(leaf);
                ek.intermediates = certificates.intermediates;
                ek
            }
            None => Self::load_any(tpm)?,
        };
        ek.unread = certificates.unread;
        Ok(ek)
    }

    /// Takes the key of this kind, without its certificate.
    pub fn load_kind(tpm: &Tpm, kind: EkKind) -> Result<Self, TpmError> {
        let wanted = template::endorsement_key(kind)?;
        let key = |handle, public| EndorsementKey {
            kind,
            handle,
            public,
            certificate: None,
            intermediates: Vec::new(),
            unread: Vec::new(),
            tpm: tpm.clone(),
        };
        let persistent = kind.persistent_handle();
        if let Some(public) = tpm.read_public(persistent)?
            && is_made_from(&public, &wanted)?
        {
            return Ok(key(EkHandle::Persistent(persistent), public));
        }
        let (loaded, public) = tpm.create_primary(TpmRh::Endorsement, wanted)?;
        Ok(key(EkHandle::Transient(loaded), public))
    }

    fn load_any(tpm: &Tpm) -> Result<Self, TpmError> {
        let mut reasons = Vec::new();
        for kind in EkKind::ALL {
            match Self::load_kind(tpm, kind) {
                Ok(key) => return Ok(key),
                Err(error @ TpmError::Refused { .. }) => reasons.push(format!("{kind}: {error}")),
                Err(error) => return Err(error),
            }
        }
        Err(TpmError::NoEndorsementKey { reasons: reasons.join("; ") })
    }

    /// Which kind it is.
    pub fn kind(&self) -> EkKind {
        self.kind
    }

    /// TPM2B_PUBLIC.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Its certificate, DER, if the TPM came with one.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// CA certificates that the TPM holds, DER.
    pub fn intermediates(&self) -> &[Vec<u8>] {
        &self.intermediates
    }

    /// Indexes that should hold certificates, and of which none could be read.
    pub fn unread(&self) -> &[UnreadIndex] {
        &self.unread
    }

    /// Whether its certificate, if any, is for this very key.
    pub fn certificate_is_its_own(&self) -> bool {
        let (Some(certificate), Ok(public)) = (&self.certificate, PublicArea::parse_tpm2b(&self.public))
        else {
            return false;
        };
        let spki = public.spki_der();
        certificate.windows(spki.len()).any(|window| window == spki)
    }

    /// TPM2_ActivateCredential: gives up the secret only if `ak` has the Name that the secret was made for, and this
    /// is the EK it was encrypted to.
    pub fn activate(
        &self,
        ak: &Key,
        credential_blob: &[u8],
        encrypted_secret: &[u8],
    ) -> Result<Vec<u8>, TpmError> {
        let refused = argument("ActivateCredential");
        let command = TpmActivateCredentialCommand {
            handles: [TpmHandle::new(ak.handle()), TpmHandle::new(self.handle())],
            credential_blob: Tpm2bIdObject::try_from(unwrap_tpm2b(credential_blob)).map_err(&refused)?,
            secret: Tpm2bEncryptedSecret::try_from(unwrap_tpm2b(encrypted_secret)).map_err(&refused)?,
        };
        let session = self.authorize()?;
        let ek_authorization =
            session.as_ref().map_or_else(empty_password, |session| policy(session.handle()));
        let response =
            self.tpm.run("ActivateCredential", &command, &[empty_password(), ek_authorization], 0)?;
        response.read(|reader| Ok(reader.tpm2b()?.to_vec()))
    }

    fn handle(&self) -> u32 {
        match &self.handle {
            EkHandle::Persistent(handle) => *handle,
            EkHandle::Transient(loaded) => loaded.handle(),
        }
    }

    /// The low templates are used by policy alone; the high one has an empty password.
    fn authorize(&self) -> Result<Option<Loaded>, TpmError> {
        match self.kind {
            EkKind::Rsa2048 | EkKind::EccP256 => self.tpm.endorsement_session().map(Some),
            EkKind::EccP384 => Ok(None),
        }
    }
}

impl Tpm {
    /// A policy session that satisfies policy A: PolicySecret of the endorsement hierarchy.
    fn endorsement_session(&self) -> Result<Loaded, TpmError> {
        let session = self.start_session(TpmSe::Policy)?;
        let command = TpmPolicySecretCommand {
            handles: [TpmHandle::new(TpmRh::Endorsement.value()), TpmHandle::new(session.handle())],
            nonce_tpm: Tpm2bNonce::new(),
            cp_hash_a: Tpm2bDigest::new(),
            policy_ref: Tpm2bNonce::new(),
            expiration: TpmInt32::new(0),
        };
        self.run("PolicySecret", &command, &[empty_password()], 0)?;
        Ok(session)
    }

    /// TPM2_CreatePrimary with nothing of our own in it: the key follows from the hierarchy's seed alone.
    pub(super) fn create_primary(
        &self,
        hierarchy: TpmRh,
        template: Tpm2bPublic,
    ) -> Result<(Loaded, Vec<u8>), TpmError> {
        let command = TpmCreatePrimaryCommand {
            handles: [TpmHandle::new(hierarchy.value())],
            in_sensitive: Tpm2bSensitiveCreate::default(),
            in_public: template,
            outside_info: Tpm2bData::new(),
            creation_pcr: TpmlPcrSelection::new(),
        };
        let authorization: TpmsAuthCommand = empty_password();
        let response = self.run("CreatePrimary", &command, &[authorization], 1)?;
        let loaded = Loaded::new(self, response.handle()?);
        let public = response.read(|reader| Ok(tpm2b(reader.tpm2b()?)))?;
        Ok((loaded, public))
    }
}

/// Whether a public area is the template's in everything but the key itself: what stands before `unique`.
fn is_made_from(public: &[u8], template: &Tpm2bPublic) -> Result<bool, TpmError> {
    let refused = argument("ReadPublic");
    let mut buffer = vec![0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    let area = &template.inner;
    area.object_type.marshal(&mut writer).map_err(&refused)?;
    area.name_alg.marshal(&mut writer).map_err(&refused)?;
    area.object_attributes.marshal(&mut writer).map_err(&refused)?;
    area.auth_policy.marshal(&mut writer).map_err(&refused)?;
    area.parameters.marshal(&mut writer).map_err(&refused)?;
    Ok(unwrap_tpm2b(public).starts_with(writer.as_bytes()))
}

/// The content of a TPM2B; bytes without a matching length are passed on for the TPM to refuse.
fn unwrap_tpm2b(bytes: &[u8]) -> &[u8] {
    match bytes {
        [high, low, content @ ..] if usize::from(u16::from_be_bytes([*high, *low])) == content.len() => {
            content
        }
        other => other,
    }
}

/// TCG EK Credential Profile, table "PolicyA for SHA-256": PolicySecret(TPM_RH_ENDORSEMENT).
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd,
    0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// The same profile, "PolicyB for SHA-384": PolicyOR(PolicyA, PolicyAuthorizeNV).
const POLICY_B_SHA384: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a, 0x07,
    0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca, 0xcb, 0x47,
    0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];
