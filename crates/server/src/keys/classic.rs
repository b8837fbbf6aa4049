//! The classic authority: an RSA root for certificates as programs of old know them. It signs no SVID.

use std::path::Path;

use assay_evidence::time::UnixTime;
use assay_identity::classic::{self, NodeTemplate};
use assay_identity::crl::{self, RevokedSerial};
use assay_identity::signed_message::NodeId;
use assay_identity::x509_svid::NOT_BEFORE_LEEWAY;
use assay_identity::{Bundle, Issuer, PrivateKey, Serial, TrustDomain};
use assay_trust::grant::classic::ClassicGrant;
use data_encoding::HEXLOWER;

use super::{KeysError, files, random};
use crate::clock::certificate_time;
use crate::store::{Carrier, Profile, RecordSvid, Store, SvidRecord};

/// The root and what it signs with.
#[derive(Debug)]
pub(crate) struct ClassicAuthority {
    root: Issuer,
    bundle: Bundle,
    crl_url: Option<String>,
}

/// A node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeCertificate {
    pub serial: Serial,
    pub not_after: UnixTime,
    /// DER.
    pub der: Vec<u8>,
}

impl ClassicAuthority {
    /// Loads the root, or makes it: a few seconds once.
    pub(crate) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        crl_url: Option<String>,
        now: UnixTime,
    ) -> Result<ClassicAuthority, KeysError> {
        let (key, certificate) = match files::load_with(folder, NAME, PrivateKey::from_rsa_pem)? {
            Some(kept) => kept,
            None => {
                let key = PrivateKey::generate_rsa()?;
                let until = certificate_time(now.plus(ROOT_LIFE_SECONDS));
                let certificate = classic::sign_root(&serial()?, begin(now), until, &key)?;
                files::save(folder, NAME, &key, &certificate)?;
                tracing::info!("a classic root was made");
                (key, certificate)
            }
        };
        let bundle = Bundle::new(trust_domain.clone(), [certificate.as_slice()])?;
        Ok(ClassicAuthority { root: Issuer::new(certificate, key)?, bundle, crl_url })
    }

    /// What verifies nodes' certificates, and nothing else.
    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Whether a certificate says that it is of this root.
    pub(crate) fn is_named_by(&self, certificate: &[u8]) -> bool {
        assay_identity::bundle::names_issuer(certificate, self.root.certificate())
    }

    /// Records, signs and inspects a node's certificate.
    pub(crate) async fn sign_node(
        &self,
        store: &Store,
        grant: ClassicGrant,
        node: NodeId,
        now: UnixTime,
    ) -> Result<NodeCertificate, KeysError> {
        let template = NodeTemplate {
            node,
            spiffe_id: grant.device().clone(),
            spki: grant.public_key_spki().to_vec(),
            serial: serial()?,
            not_before: certificate_time(grant.not_before()),
            not_after: certificate_time(grant.not_after()).min(self.root.not_after()),
            crl_url: self.crl_url.clone(),
        };
        let not_after = UnixTime(template.not_after.as_secs());
        let device = grant.device().to_string();
        let svid = SvidRecord {
            serial: template.serial.to_string(),
            spiffe_id: device.clone(),
            carrier: Carrier::Node {
                profile: Profile::Classic,
                id: device.clone(),
                state_version: grant.state_version(),
            },
            spki_sha256: HEXLOWER.encode(&assay_telemetry::sha256(&template.spki)),
            issued_at: now,
            not_after,
            withdrawn_at: None,
        };
        store.commit(RecordSvid { svid, actor: device }).await?;
        let issued = classic::issue(&template, &self.root)?;
        tracing::info!(%node, serial = %template.serial, %not_after, "classic certificate issued");
        Ok(NodeCertificate { serial: template.serial, not_after, der: issued.der().to_vec() })
    }

    /// Signs the list of what was withdrawn of it.
    pub(crate) fn sign_crl(
        &self,
        revoked: &[RevokedSerial],
        number: u64,
        now: UnixTime,
        ttl_seconds: u64,
    ) -> Result<Vec<u8>, KeysError> {
        let until = certificate_time(now.plus(ttl_seconds));
        Ok(crl::sign(revoked, number, begin(now), until, &self.root)?)
    }
}

/// The root's certificate, where there is one.
pub(crate) fn classic_root(folder: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    Ok(files::load_with(folder, NAME, PrivateKey::from_rsa_pem)?.map(|(_, certificate)| certificate))
}

/// Clocks that are behind must not find it to be of the future.
fn begin(now: UnixTime) -> assay_identity::UnixTime {
    certificate_time(UnixTime(now.0.saturating_sub(NOT_BEFORE_LEEWAY.as_secs())))
}

fn serial() -> Result<Serial, KeysError> {
    Ok(Serial::classic(random()?))
}

const NAME: &str = "classic-root";
const ROOT_LIFE_SECONDS: u64 = 3650 * 24 * 3600;
