//! The authority: the only code that touches a signing key.
//!
//! A root and an issuing CA are made on first start and kept in files only the server's user can read. Every leaf is
//! put on record, then signed, then inspected. A device's or workload's certificate needs an [`SvidGrant`], by value:
//! one decision, one certificate. Tokens and attestation results have keys of their own,
//! `jwt_key.rs` and `result_key.rs`.

mod ak;
mod classic;
mod files;
mod jwt_key;
mod ledger_key;
mod names;
mod result_key;
mod secret_key;
mod server_certificate;
mod statement_key;
mod together;
mod token;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use assay_evidence::time::UnixTime;
use assay_identity::ak_certificate::AkCertificateError;
use assay_identity::authority::{AuthorityTemplate, IssueError, sign_issuing, sign_root};
use assay_identity::bundle::BundleError;
use assay_identity::classic::NodeError;
use assay_identity::crl::{self, CrlError, RevokedSerial};
use assay_identity::jwt_svid::JwtSvidError;
use assay_identity::key::KeyError;
use assay_identity::signed_note::NoteError;
use assay_identity::x509_svid::{self, IssuedSvid, NOT_BEFORE_LEEWAY, SvidTemplate};
use assay_identity::{Bundle, Csr, Issuer, Life, PrivateKey, Serial, SpiffeId, Stage, TrustDomain};
use assay_trust::grant::svid::SvidGrant;
use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use thiserror::Error;

pub(crate) use ak::{AkAuthority, ak_root};
pub(crate) use classic::{ClassicAuthority, classic_root};
pub use files::FileError;
pub(crate) use files::{private_folder, read, read_secret, take_data_folder, write_public};
pub(crate) use jwt_key::{JwtKey, Token};
pub(crate) use ledger_key::{LedgerKey, VERIFIER_FILE};
pub(crate) use names::{KeyNames, issuing_certificate, trust_domain};
pub(crate) use result_key::ResultKey;
pub(crate) use secret_key::SecretKey;
pub(crate) use server_certificate::ServerCertificate;
pub(crate) use statement_key::StatementKey;
pub(crate) use together::{SignedTogether, Urgency};
pub(crate) use token::OperatorToken;

use crate::actor::Actor;
use crate::clock::certificate_time;
use crate::outcome::{Kind, Outcome};
use crate::store::{Carrier, EntryRecord, RecordSvid, Store, StoreError, SvidRecord};

/// Root and issuing CA of one trust domain.
#[derive(Debug)]
pub(crate) struct Authority {
    folder: PathBuf,
    trust_domain: TrustDomain,
    root: Life,
    /// Replaced as a whole when its certificate is renewed; the key stays.
    issuing: RwLock<Arc<Issuer>>,
    bundle: Bundle,
}

/// A certificate and the one above it, leaf first.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The certificates, DER.
    pub certificates: Vec<Vec<u8>>,
    /// The leaf's.
    pub serial: Serial,
    /// When the leaf ends.
    pub not_after: UnixTime,
}

impl Authority {
    /// Loads the authority from `folder`, making what is missing and renewing an issuing CA from half of its life.
    pub(crate) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<Authority, KeysError> {
        files::private_folder(folder)?;
        let (root_key, root) = open_root(folder, trust_domain, now)?;
        let bundle = Bundle::new(trust_domain.clone(), [root.as_slice()])?;
        let root = Issuer::new(root, root_key)?;
        let issuing = open_issuing(folder, trust_domain, &root, now)?;
        Ok(Authority {
            folder: folder.to_owned(),
            trust_domain: trust_domain.clone(),
            root: root.life(),
            issuing: RwLock::new(Arc::new(issuing)),
            bundle,
        })
    }

    /// Renews the issuing CA's certificate if that is due, and says whether it was.
    pub(crate) fn renew_issuing(&self, now: UnixTime) -> Result<bool, KeysError> {
        if self.issuing().life().stage(certificate_time(now)) == Stage::Young {
            return Ok(false);
        }
        // The root's key is in memory for as long as this takes.
        let (key, certificate) = files::load(&self.folder, "root")?.ok_or(KeysError::NoRoot)?;
        let root = Issuer::new(certificate, key)?;
        let renewed = open_issuing(&self.folder, &self.trust_domain, &root, now)?;
        tracing::info!(until = renewed.not_after().as_secs(), "the issuing CA's certificate was renewed");
        *self.issuing.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(true)
    }

    /// The lives of its own certificates, by name.
    pub(crate) fn lives(&self) -> [(&'static str, Life); 2] {
        [("root", self.root), ("issuing", self.issuing().life())]
    }

    /// The certificate of the CA that signs everything but itself, DER.
    pub(crate) fn issuing_certificate(&self) -> Vec<u8> {
        self.issuing().certificate().to_vec()
    }

    fn issuing(&self) -> Arc<Issuer> {
        self.issuing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What verifies everything this authority signs.
    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Records, signs and inspects the certificate that was granted.
    pub(crate) async fn sign_svid(
        &self,
        store: &Store,
        grant: SvidGrant,
        device: &SpiffeId,
        entry: Option<&EntryRecord>,
        now: UnixTime,
    ) -> Result<Chain, KeysError> {
        let carrier = Carrier::Device {
            id: device.to_string(),
            state_version: grant.state_version(),
            entry_id: entry.map(|entry| entry.id.clone()),
            entry_revision: entry.map_or(0, |entry| entry.revision),
            basis: grant.basis(),
        };
        let template = SvidTemplate {
            spiffe_id: grant.spiffe_id().clone(),
            dns_names: grant.dns_names().to_vec(),
            ip_addresses: Vec::new(),
            spki: grant.public_key_spki().to_vec(),
            serial: new_serial()?,
            not_before: certificate_time(grant.not_before()),
            not_after: self.no_later_than_ours(grant.not_after()),
        };
        self.record_and_sign(store, template, carrier, device.as_str(), now).await
    }

    /// Records, signs and inspects a gateway's certificate, or an operator's, on an operator's word.
    pub(crate) async fn sign_gateway(
        &self,
        store: &Store,
        gateway: SpiffeId,
        csr: &Csr,
        ttl_seconds: u64,
        (by, now): (Actor, UnixTime),
    ) -> Result<Chain, KeysError> {
        let template = self.leaf(gateway, csr.spki_der().to_vec(), ttl_seconds, now)?;
        self.record_and_sign(store, template, Carrier::Operator, by.name(), now).await
    }

    /// Records, signs and inspects the certificate that follows one of a gateway's, if that still stands.
    pub(crate) async fn renew_gateway(
        &self,
        store: &Store,
        (gateway, serial): (SpiffeId, &Serial),
        csr: &Csr,
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<Chain, KeysError> {
        let (actor, carrier) = (gateway.to_string(), Carrier::Renewal { serial: serial.to_string() });
        let template = self.leaf(gateway, csr.spki_der().to_vec(), ttl_seconds, now)?;
        self.record_and_sign(store, template, carrier, &actor, now).await
    }

    /// Signs the revocation list.
    pub(crate) fn sign_crl(
        &self,
        revoked: &[RevokedSerial],
        number: u64,
        now: UnixTime,
        ttl_seconds: u64,
    ) -> Result<Vec<u8>, KeysError> {
        // Clocks that are behind must not find the list to be of the future.
        let this_update = certificate_time(UnixTime(now.0.saturating_sub(NOT_BEFORE_LEEWAY.as_secs())));
        let next_update = certificate_time(now.plus(ttl_seconds));
        Ok(crl::sign(revoked, number, this_update, next_update, &self.issuing())?)
    }

    /// Signs one of the server's own certificates.
    async fn sign_own(
        &self,
        store: &Store,
        mut template: SvidTemplate,
        names: (Vec<String>, Vec<std::net::IpAddr>),
        now: UnixTime,
    ) -> Result<Chain, KeysError> {
        (template.dns_names, template.ip_addresses) = names;
        self.record_and_sign(store, template, Carrier::Operator, "server", now).await
    }

    fn leaf(
        &self,
        spiffe_id: SpiffeId,
        spki: Vec<u8>,
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<SvidTemplate, KeysError> {
        Ok(SvidTemplate {
            spiffe_id,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            spki,
            serial: new_serial()?,
            not_before: certificate_time(UnixTime(now.0.saturating_sub(NOT_BEFORE_LEEWAY.as_secs()))),
            not_after: self.no_later_than_ours(now.plus(ttl_seconds)),
        })
    }

    /// Nothing is signed that is not on record, and nothing leaves that was not looked at.
    async fn record_and_sign(
        &self,
        store: &Store,
        template: SvidTemplate,
        carrier: Carrier,
        actor: &str,
        now: UnixTime,
    ) -> Result<Chain, KeysError> {
        let not_after = UnixTime(template.not_after.as_secs());
        let svid = SvidRecord {
            serial: template.serial.to_string(),
            spiffe_id: template.spiffe_id.to_string(),
            carrier,
            spki_sha256: HEXLOWER.encode(&assay_telemetry::sha256(&template.spki)),
            issued_at: now,
            not_after,
            withdrawn_at: None,
        };
        store.commit(RecordSvid { svid, actor: actor.to_owned() }).await?;
        let issuing = self.issuing();
        let issued: IssuedSvid = x509_svid::issue(&template, &issuing)?;
        tracing::info!(svid = %template.spiffe_id, serial = %template.serial, %not_after, "svid issued");
        let certificates = vec![issued.der().to_vec(), issuing.certificate().to_vec()];
        Ok(Chain { certificates, serial: template.serial, not_after })
    }

    fn no_later_than_ours(&self, not_after: UnixTime) -> assay_identity::UnixTime {
        certificate_time(not_after).min(self.issuing().not_after())
    }
}

/// Why the authority could not do it.
#[derive(Debug, Error)]
pub enum KeysError {
    /// A file of the key folder.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key material does not work.
    #[error("a key could not be made or read")]
    Key(#[from] KeyError),
    /// Signing, or what inspection found.
    #[error("a certificate could not be issued")]
    Issue(#[from] IssueError),
    /// The root is not in the key folder any more.
    #[error("the root is not in the key folder: put root.key and root.pem back from a backup")]
    NoRoot,
    /// The root in the key folder is not this trust domain's.
    #[error("the root in the key folder cannot be used")]
    Bundle(#[from] BundleError),
    /// The certificate could not be put on record, so it was not signed.
    #[error("the certificate could not be recorded")]
    Record(#[from] StoreError),
    /// TLS refused the certificate.
    #[error("the server's own certificate cannot be used")]
    Tls(#[from] rustls::Error),
    /// The revocation list that was signed is one that nobody can use.
    #[error("the revocation list cannot be used by those who verify with it")]
    List(#[from] CrlError),
    /// A head could not be signed.
    #[error("the ledger's head cannot be signed")]
    Note(#[from] NoteError),
    /// What was signed last of the ledger's tree is no checkpoint.
    #[error(
        "what was signed of the ledger's tree last is no checkpoint: look at the trail with `assay ledger verify`"
    )]
    NoCheckpoint,
    /// The trail is another than the one that was signed.
    #[error(
        "the trail is not the one of which a checkpoint of {size} entries was signed: a leaf was altered or taken away. Look at it \
         with `assay ledger verify`, and put the newest good copy of the database back"
    )]
    OtherTrail {
        /// Entries of the checkpoint.
        size: u64,
    },
    /// The token that was signed is one that nobody can use.
    #[error("the token cannot be used by those who verify it")]
    Token(#[from] JwtSvidError),
    /// Claims that do not go into a token.
    #[error("the claims cannot be written as JSON")]
    Claims,
    /// What a classic certificate was found to say.
    #[error("a classic certificate could not be issued")]
    Node(#[from] NodeError),
    /// What the certificate of an AK was found to say.
    #[error("the certificate of an attestation key could not be issued")]
    Ak(#[from] AkCertificateError),
    /// The key that secrets are sealed under is not in the key folder any more, or none.
    #[error(
        "the key that secrets are sealed under is not in the key folder: put secrets.key back from a backup, or revoke the secrets"
    )]
    NoSecretKey,
    /// A secret does not open.
    #[error("a secret cannot be sealed or opened: it is damaged, or was sealed under another key")]
    Secret,
    /// The system has no randomness.
    #[error("the random source failed")]
    Random,
}

impl Outcome for KeysError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            KeysError::Record(error) => error.told(),
            _ => (Kind::Fault, "signing"),
        }
    }
}

/// Fills an array from the system's random source.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], KeysError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KeysError::Random)?;
    Ok(bytes)
}

fn new_serial() -> Result<Serial, KeysError> {
    Ok(Serial::from_random(random()?))
}

fn open_root(
    folder: &Path,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<(PrivateKey, Vec<u8>), KeysError> {
    if let Some(stored) = files::load(folder, "root")? {
        return Ok(stored);
    }
    let key = PrivateKey::generate()?;
    let template = authority(trust_domain, "root", now, ROOT_LIFE_SECONDS)?;
    let certificate = sign_root(&template, &key)?;
    files::save(folder, "root", &key, &certificate)?;
    tracing::info!(%trust_domain, "a root was made for the trust domain");
    Ok((key, certificate))
}

/// Renewal keeps the key and the name: certificates and revocation lists from before stay good.
fn open_issuing(
    folder: &Path,
    trust_domain: &TrustDomain,
    root: &Issuer,
    now: UnixTime,
) -> Result<Issuer, KeysError> {
    let (key, certificate) = match files::load(folder, "issuing")? {
        Some((key, certificate)) => (key, Some(certificate)),
        None => (PrivateKey::generate()?, None),
    };
    let pem = key.to_pem();
    if let Some(certificate) = certificate {
        let issuer = Issuer::new(certificate, key)?;
        if issuer.life().stage(certificate_time(now)) == Stage::Young {
            return Ok(issuer);
        }
    }
    let key = PrivateKey::from_pem(pem.as_bytes())?;
    let mut template = authority(trust_domain, "issuing", now, ISSUING_LIFE_SECONDS)?;
    template.not_after = template.not_after.min(root.not_after());
    let certificate = sign_issuing(&template, &key.spki(), root)?;
    files::save(folder, "issuing", &key, &certificate)?;
    Ok(Issuer::new(certificate, key)?)
}

fn authority(
    trust_domain: &TrustDomain,
    name: &str,
    now: UnixTime,
    life_seconds: u64,
) -> Result<AuthorityTemplate, KeysError> {
    Ok(AuthorityTemplate {
        trust_domain: trust_domain.clone(),
        name: format!("{trust_domain} {name}"),
        serial: new_serial()?,
        not_before: certificate_time(UnixTime(now.0.saturating_sub(NOT_BEFORE_LEEWAY.as_secs()))),
        not_after: certificate_time(now.plus(life_seconds)),
    })
}

/// The key folder, in the data folder.
pub(crate) const FOLDER: &str = "keys";
const ROOT_LIFE_SECONDS: u64 = 10 * 365 * 24 * 3600;
const ISSUING_LIFE_SECONDS: u64 = 365 * 24 * 3600;
