//! Whom the device believes: the trust domain's authorities, what they revoked, and who speaks for them.
//!
//! The device starts with the authorities that it was installed with. From then on only what the trust domain's key for
//! statements signed changes anything, a key that the authorities in force certified: so another root comes in only
//! when the one before it vouches for it. Numbers never go back, over streams and over restarts.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_identity::bundle::BundleError;
use assay_identity::crl::CrlError;
use assay_identity::jws::JwsError;
use assay_identity::tls::{Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, SpiffeId, SvidError, TrustDomain, UnixTime, verify_svid};
use assay_telemetry::{BadSignature, verify_device_signature};
use assay_wire::binding::{DEVICE_STATEMENTS_TYPE, TRUST_STATEMENT_TYPE};
use assay_wire::together::root;
use thiserror::Error;

use super::{JwtKeys, Svid};

/// Bytes that somebody signed, and who, as they came.
#[derive(Clone, Debug, Default)]
pub struct Signed {
    /// What was signed, exactly.
    pub statement: Vec<u8>,
    /// ECDSA P-256, DER, over DSSE's pre-authentication encoding of the statement, or of the root of the tree of what was
    /// signed together.
    pub signature: Vec<u8>,
    /// The key's chain, DER, leaf first; empty: the same as before.
    pub signer: Vec<Vec<u8>>,
    /// Of what was signed together: which leaf it is, of how many.
    pub place: (u32, u32),
    /// The hashes beside it on the way to the root.
    pub path: Vec<u8>,
}

/// What a statement says about whom to believe. It counts once its signature does.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    /// Higher is newer.
    pub number: u64,
    /// The authorities, concatenated DER.
    pub bundle: Vec<u8>,
    /// The revocation list, DER.
    pub crl: Vec<u8>,
    /// What verifies tokens, a JWK set; empty: nothing does.
    pub jwt_keys: Vec<u8>,
}

/// What the device knows of its server over restarts, so that nobody can show it an older state as the newest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The highest number of an announcement.
    pub number: u64,
    /// The highest version of the device's trust state.
    pub state_version: u64,
    /// The authorities in force, concatenated DER; empty: those it was installed with.
    pub bundle: Vec<u8>,
}

/// Something was said that is not to be believed.
#[derive(Debug, Error)]
pub enum TrustError {
    /// The bundle does not parse.
    #[error("the bundle cannot be read")]
    Bundle(#[from] BundleError),
    /// A bundle of nobody.
    #[error("the bundle is empty")]
    Nobody,
    /// The revocation list does not parse.
    #[error("the revocation list cannot be read")]
    Crl(#[from] CrlError),
    /// The keys for tokens do not parse.
    #[error("the keys for tokens cannot be read")]
    JwtKeys(#[from] JwsError),
    /// The signer's certificate does not hold.
    #[error("the signer's certificate does not verify")]
    Signer(#[from] SvidError),
    /// The signer is somebody else.
    #[error("{id} does not speak for the trust domain")]
    NotTheVoice {
        /// Who it is.
        id: SpiffeId,
    },
    /// Nobody has said yet who signs.
    #[error("a statement came before its signer")]
    NoSigner,
    /// The signature does not hold.
    #[error("a statement is not signed by its signer")]
    Signature(#[from] BadSignature),
    /// Nothing was signed that it could be part of.
    #[error("a statement does not lead to what was signed")]
    NotAmong,
    /// An older state.
    #[error("{what} {found} was said after {known}")]
    Older {
        /// Of what.
        what: &'static str,
        /// What was said.
        found: u64,
        /// What is known.
        known: u64,
    },
}

/// The authorities in force; TLS connections are verified with the same.
#[derive(Debug)]
pub(super) struct Authorities {
    source: Arc<TrustSource>,
    trust_domain: TrustDomain,
    remembered: Remembered,
    /// The list in force, DER.
    crl: Vec<u8>,
    jwt_keys: JwtKeys,
    /// The key that speaks for them, SubjectPublicKeyInfo DER.
    voice: Option<Vec<u8>>,
}

impl Authorities {
    pub(super) fn new(source: Arc<TrustSource>, trust_domain: TrustDomain, remembered: Remembered) -> Self {
        Authorities {
            source,
            trust_domain,
            remembered,
            crl: Vec::new(),
            jwt_keys: JwtKeys::default(),
            voice: None,
        }
    }

    pub(super) fn source(&self) -> &TrustSource {
        &self.source
    }

    /// The authorities, concatenated DER.
    pub(super) fn bundle(&self) -> Vec<u8> {
        self.source.current().bundle.to_der()
    }

    /// The revocation list, DER; empty if there is none yet.
    pub(super) fn crl(&self) -> &[u8] {
        &self.crl
    }

    /// What verifies tokens, and whose they are.
    pub(super) fn jwt_keys(&self) -> (&TrustDomain, &JwtKeys) {
        (&self.trust_domain, &self.jwt_keys)
    }

    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Another enrollment is another count.
    pub(super) fn forget_state(&mut self) {
        self.remembered.state_version = 0;
    }

    /// Takes over what is announced to everybody, if the authorities in force vouch for it.
    pub(super) fn take(
        &mut self,
        signed: &Signed,
        announced: Announced,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let crls = CrlSet::from_der([&announced.crl])?;
        let voice = self.verify_signer(&signed.signer, &crls, now)?;
        verify_device_signature(&voice, TRUST_STATEMENT_TYPE, &signed.statement, &signed.signature)?;
        let known = self.remembered.number;
        if announced.number < known {
            return Err(TrustError::Older { what: "announcement", found: announced.number, known });
        }
        let bundle = Bundle::from_der(self.trust_domain.clone(), &announced.bundle)?;
        if bundle.authorities().next().is_none() {
            return Err(TrustError::Nobody);
        }
        let jwt_keys = JwtKeys::parse(&announced.jwt_keys)?;
        self.source.replace(Trust { bundle, crls });
        self.jwt_keys = jwt_keys;
        self.remembered.number = announced.number;
        self.remembered.bundle = announced.bundle;
        self.crl = announced.crl;
        self.voice = Some(voice);
        Ok(())
    }

    /// Whether the trust domain said this to a device: by itself or together with what it said to others.
    pub(super) fn hear(&mut self, signed: &Signed, now: SystemTime) -> Result<(), TrustError> {
        let voice = match signed.signer.is_empty() {
            true => self.voice.clone().ok_or(TrustError::NoSigner)?,
            false => self.verify_signer(&signed.signer, &self.source.current().crls, now)?,
        };
        let (index, size) = signed.place;
        let root = root(&signed.statement, index, size, &signed.path).ok_or(TrustError::NotAmong)?;
        Ok(verify_device_signature(&voice, DEVICE_STATEMENTS_TYPE, &root, &signed.signature)?)
    }

    /// Takes note of the version of the device's trust state.
    pub(super) fn note(&mut self, state_version: u64) -> Result<(), TrustError> {
        let known = self.remembered.state_version;
        if state_version < known {
            return Err(TrustError::Older { what: "trust state", found: state_version, known });
        }
        self.remembered.state_version = state_version;
        Ok(())
    }

    fn verify_signer(
        &self,
        chain: &[Vec<u8>],
        crls: &CrlSet,
        now: SystemTime,
    ) -> Result<Vec<u8>, TrustError> {
        let peer = verify_svid(chain, &self.source.current().bundle, crls, unix_time(now))?;
        match *peer.spiffe_id() == SpiffeId::statements(&self.trust_domain) {
            true => Ok(peer.spki().to_vec()),
            false => Err(TrustError::NotTheVoice { id: peer.spiffe_id().clone() }),
        }
    }
}

/// Whether an SVID still stands.
pub(super) fn verifies(svid: &Svid, trust: &Trust, now: SystemTime) -> bool {
    verify_svid(&svid.chain, &trust.bundle, &trust.crls, unix_time(now)).is_ok()
}

/// A time as certificates have it; what lies before 1970 is taken as 1970.
pub(crate) fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::since_unix_epoch(Duration::from_secs(since.map_or(0, |since| since.as_secs())))
}
