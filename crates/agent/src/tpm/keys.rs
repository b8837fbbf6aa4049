//! The agent's two keys: the attestation key (AK) and the device key.
//!
//! Both are children of a storage key of the endorsement hierarchy, made once and saved as blobs only this TPM can load.

use assay_evidence::read::Reader;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::public_key::PublicKey;
use assay_evidence::tpm::signature::Signature;
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::data::{
    Tpm2bData, Tpm2bDigest, Tpm2bEccParameter, Tpm2bEccPoint, Tpm2bPrivate, Tpm2bPublic,
    Tpm2bSensitiveCreate, TpmAlgId, TpmRcBase, TpmRh, TpmSt, TpmlPcrSelection, TpmsEccPoint, TpmsSchemeHash,
    TpmtSigScheme, TpmtTkHashcheck, TpmuSigScheme,
};
use tpm2_protocol::frame::{
    TpmCertifyCommand, TpmCreateCommand, TpmEcdhZGenCommand, TpmLoadCommand, TpmSignCommand,
};

use super::command::{Loaded, argument, empty_password};
use super::template::{self, tpm2b};
use super::{Tpm, TpmError};
use crate::state_dir::{StateDir, StateError};

/// A key in a slot of the TPM.
pub struct Key {
    loaded: Loaded,
    public: Vec<u8>,
    area: PublicArea,
}

impl Key {
    /// TPM2B_PUBLIC as the TPM returned it.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The parsed public area.
    pub fn area(&self) -> &PublicArea {
        &self.area
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    pub(super) fn handle(&self) -> u32 {
        self.loaded.handle()
    }

    pub(super) fn tpm(&self) -> &Tpm {
        self.loaded.tpm()
    }

    /// TPM2_Sign with ECDSA over a SHA-256 digest; DER.
    ///
    /// A restricted key refuses: it signs only what the TPM itself hashed.
    pub fn sign(&self, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        self.signature(digest, TpmtSigScheme::default())?.ecdsa_der().ok_or(TpmError::SignatureKind)
    }

    /// TPM2_Sign with RSASSA-PSS over a SHA-256 digest.
    pub fn sign_rsa_pss(&self, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
        let details = TpmuSigScheme::Hash(TpmsSchemeHash { hash_alg: TpmAlgId::Sha256 });
        let scheme = TpmtSigScheme { scheme: TpmAlgId::Rsapss, details };
        self.signature(digest, scheme)?.rsa_pss().ok_or(TpmError::SignatureKind)
    }

    fn signature(&self, digest: &[u8; 32], in_scheme: TpmtSigScheme) -> Result<Signature, TpmError> {
        let command = TpmSignCommand {
            handles: [TpmHandle::new(self.handle())],
            digest: Tpm2bDigest::try_from(digest.as_slice()).map_err(argument("Sign"))?,
            in_scheme,
            validation: TpmtTkHashcheck { tag: TpmSt::HashCheck, ..TpmtTkHashcheck::default() },
        };
        let response = self.tpm().run("Sign", &command, &[empty_password()], 0)?;
        let bytes = response.read(|reader| Ok(reader.rest().to_vec()))?;
        Signature::parse(&bytes).map_err(|_| TpmError::SignatureKind)
    }

    /// TPM2_ECDH_ZGen: the x coordinate of the exchange with a point (SEC 1, uncompressed), which is secret.
    pub fn exchange(&self, point: &[u8]) -> Result<Vec<u8>, TpmError> {
        let refused = argument("ECDH_ZGen");
        let (x, y) = match point.split_first() {
            Some((4, coordinates)) if coordinates.len() == 64 => coordinates.split_at(32),
            _ => return Err(TpmError::KeyKind),
        };
        let coordinate = |bytes: &[u8]| Tpm2bEccParameter::try_from(bytes).map_err(&refused);
        let inner = TpmsEccPoint { x: coordinate(x)?, y: coordinate(y)? };
        let command = TpmEcdhZGenCommand {
            handles: [TpmHandle::new(self.handle())],
            in_point: Tpm2bEccPoint { inner },
        };
        let response = self.tpm().run("ECDH_ZGen", &command, &[empty_password()], 0)?;
        // TPM2B_ECC_POINT: its size, and both coordinates.
        response.read(|reader| Ok(Reader::new(reader.tpm2b()?).tpm2b()?.to_vec()))
    }

    /// TPM2_Certify: this key says that `object` lives in the same TPM. Gives TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn certify(&self, object: &Key, nonce: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        certify(self.handle(), object, nonce)
    }
}

/// TPM2_Certify of `object` by the key at a handle.
pub(super) fn certify(signer: u32, object: &Key, nonce: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
    let command = TpmCertifyCommand {
        handles: [TpmHandle::new(object.handle()), TpmHandle::new(signer)],
        qualifying_data: Tpm2bData::try_from(nonce).map_err(argument("Certify"))?,
        in_scheme: TpmtSigScheme::default(),
    };
    object
        .tpm()
        .run("Certify", &command, &[empty_password(), empty_password()], 0)?
        .read(|reader| Ok((reader.tpm2b()?.to_vec(), reader.rest().to_vec())))
}

/// The AK and the device key, loaded.
pub struct Keys {
    /// Signs quotes and certifications.
    pub ak: Key,
    /// Signs what the device says: TLS handshakes, requests, telemetry.
    pub device: Key,
}

/// What kind of key the AK is.
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AkKind {
    /// P-256: quick.
    #[default]
    Ecc,
    /// RSA-2048, for authorities that verify no other, step-ca among them.
    Rsa,
}

impl AkKind {
    fn template(self) -> fn() -> Tpm2bPublic {
        match self {
            AkKind::Ecc => template::attestation_key,
            AkKind::Rsa => template::attestation_key_rsa,
        }
    }
}

impl Keys {
    /// Loads the saved keys, making and saving those that are not there yet.
    pub fn open(tpm: &Tpm, state: &StateDir, kind: AkKind) -> Result<Self, TpmError> {
        let (parent, _) = tpm.create_primary(HIERARCHY, template::storage_key())?;
        let ak = open_key(&parent, state, AK_FILE, kind.template())?;
        if matches!(ak.area().key(), PublicKey::Rsa { .. }) != (kind == AkKind::Rsa) {
            return Err(TpmError::OtherAkKind { path: state.path(AK_FILE).display().to_string() });
        }
        let device = open_key(&parent, state, DEVICE_KEY_FILE, template::device_key)?;
        Ok(Keys { ak, device })
    }

    /// Makes keys that live as long as the value: for evidence that is collected once.
    pub fn ephemeral(tpm: &Tpm) -> Result<Self, TpmError> {
        let (parent, _) = tpm.create_primary(HIERARCHY, template::storage_key())?;
        let ak = Blob::create(&parent, template::attestation_key())?.load(&parent)?;
        let device = Blob::create(&parent, template::device_key())?.load(&parent)?;
        Ok(Keys { ak, device })
    }
}

/// The AK that an agent left in its folder, if one did.
pub(crate) fn attestation_key(tpm: &Tpm, state: &StateDir) -> Result<Option<Key>, TpmError> {
    if state.read(AK_FILE)?.is_none() {
        return Ok(None);
    }
    let (parent, _) = tpm.create_primary(HIERARCHY, template::storage_key())?;
    open_key(&parent, state, AK_FILE, template::attestation_key).map(Some)
}

/// A new key that signs as it is asked to, for whoever keeps its blob: below the storage key of the owner, where other programs look
/// for the parent of such keys.
pub(crate) fn new_key(tpm: &Tpm) -> Result<(Key, Vec<u8>), TpmError> {
    let (parent, _) = tpm.create_primary(OWNER, template::storage_key())?;
    let blob = Blob::create(&parent, template::device_key())?;
    let bytes = blob.to_bytes();
    Ok((blob.load(&parent)?, bytes))
}

/// The RSA key, in a slot until it is dropped; made the first time, which takes a TPM seconds. To be called with a slot to spare, and
/// only for as long as it is needed.
pub(crate) fn classic(tpm: &Tpm, state: &StateDir) -> Result<Key, TpmError> {
    let (parent, _) = tpm.create_primary(HIERARCHY, template::storage_key())?;
    open_key(&parent, state, CLASSIC_KEY_FILE, template::classic_key)
}

/// The key that secrets are sealed to, in the same way.
pub(crate) fn exchange(tpm: &Tpm, state: &StateDir) -> Result<Key, TpmError> {
    let (parent, _) = tpm.create_primary(HIERARCHY, template::storage_key())?;
    open_key(&parent, state, EXCHANGE_KEY_FILE, template::exchange_key)
}

fn open_key(
    parent: &Loaded,
    state: &StateDir,
    name: &str,
    template: fn() -> Tpm2bPublic,
) -> Result<Key, TpmError> {
    let path = || state.path(name);
    let Some(bytes) = state.read(name)? else {
        let blob = Blob::create(parent, template())?;
        state.write(name, &blob.to_bytes())?;
        return blob.load(parent);
    };
    let blob = Blob::from_bytes(&bytes).ok_or_else(|| StateError::Damaged { path: path() })?;
    blob.load(parent).map_err(|error| match error.refusal() {
        Some(code) if code.is(TpmRcBase::Integrity) => {
            TpmError::ForeignKey { path: path().display().to_string(), source: Box::new(error) }
        }
        _ => error,
    })
}

/// An object outside the TPM: its public area, and the private part wrapped by the parent. Both TPM2B.
pub(super) struct Blob {
    public: Vec<u8>,
    private: Vec<u8>,
}

impl Blob {
    fn create(parent: &Loaded, template: Tpm2bPublic) -> Result<Self, TpmError> {
        Blob::create_with(parent, template, Tpm2bSensitiveCreate::default())
    }

    /// The same of an object that is given what it keeps.
    pub(super) fn create_with(
        parent: &Loaded,
        template: Tpm2bPublic,
        in_sensitive: Tpm2bSensitiveCreate,
    ) -> Result<Self, TpmError> {
        let command = TpmCreateCommand {
            handles: [TpmHandle::new(parent.handle())],
            in_sensitive,
            in_public: template,
            outside_info: Tpm2bData::new(),
            creation_pcr: TpmlPcrSelection::new(),
        };
        parent.tpm().run("Create", &command, &[empty_password()], 0)?.read(|reader| {
            let private = tpm2b(reader.tpm2b()?);
            Ok(Blob { private, public: tpm2b(reader.tpm2b()?) })
        })
    }

    fn load(self, parent: &Loaded) -> Result<Key, TpmError> {
        let loaded = self.load_object(parent)?;
        let area = PublicArea::parse_tpm2b(&self.public).map_err(|_| TpmError::KeyKind)?;
        Ok(Key { loaded, public: self.public, area })
    }

    pub(super) fn load_object(&self, parent: &Loaded) -> Result<Loaded, TpmError> {
        let refused = argument("Load");
        let command = TpmLoadCommand {
            handles: [TpmHandle::new(parent.handle())],
            in_private: Tpm2bPrivate::unmarshal(&self.private).map_err(&refused)?.0,
            in_public: Tpm2bPublic::unmarshal(&self.public).map_err(&refused)?.0,
        };
        let response = parent.tpm().run("Load", &command, &[empty_password()], 1)?;
        Ok(Loaded::new(parent.tpm(), response.handle()?))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [self.public.as_slice(), &self.private].concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let blob = Blob { public: tpm2b(reader.tpm2b().ok()?), private: tpm2b(reader.tpm2b().ok()?) };
        reader.is_empty().then_some(blob)
    }
}

/// TPM 2.0 Part 1, 36.7: what keys of other hierarchies sign has its reset counters obfuscated, and the verifier wants
/// to see them go up by one.
pub(super) const HIERARCHY: TpmRh = TpmRh::Endorsement;
/// Where keys are that are not the agent's own.
pub(crate) const OWNER: TpmRh = TpmRh::Owner;
/// TPM2B_PUBLIC and TPM2B_PRIVATE of the AK.
const AK_FILE: &str = "ak.key";
/// The same of the RSA key, where one is wanted.
const CLASSIC_KEY_FILE: &str = "classic.key";
/// The same of the key that secrets are sealed to, where there are any.
const EXCHANGE_KEY_FILE: &str = "secrets.key";
/// The same of the device key.
const DEVICE_KEY_FILE: &str = "device.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_survives_its_file_and_nothing_else_does() {
        let blob = Blob { public: tpm2b(b"public"), private: tpm2b(b"private") };
        let bytes = blob.to_bytes();
        let read = Blob::from_bytes(&bytes).unwrap();
        assert_eq!((read.public, read.private), (blob.public, blob.private));
        for length in 0..bytes.len() {
            assert!(Blob::from_bytes(bytes.get(..length).unwrap()).is_none(), "{length}");
        }
        assert!(Blob::from_bytes(&[bytes, vec![0]].concat()).is_none());
    }
}
