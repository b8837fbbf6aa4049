//! The authority for certificates of attestation keys: a root of its own, which signs no SVID.

use std::path::Path;

use assay_evidence::time::UnixTime;
use assay_identity::ak_certificate::{self, AkTemplate, TpmNames};
use assay_identity::crl::{self, RevokedSerial};
use assay_identity::x509_svid::NOT_BEFORE_LEEWAY;
use assay_identity::{Issuer, PrivateKey, Serial, TrustDomain};
use assay_trust::grant::ak::AkGrant;
use data_encoding::HEXLOWER;

use super::{KeysError, files, random};
use crate::clock::certificate_time;
use crate::store::{Carrier, Profile, RecordSvid, Store, SvidRecord};

/// The root and what it signs with.
#[derive(Debug)]
pub(crate) struct AkAuthority {
    root: Issuer,
    crl_url: Option<String>,
}

/// The certificate of an AK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AkCertificate {
    pub serial: Serial,
    pub not_after: UnixTime,
    /// DER.
    pub der: Vec<u8>,
}

impl AkAuthority {
    /// Loads the root, or makes it.
    pub(crate) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        crl_url: Option<String>,
        now: UnixTime,
    ) -> Result<AkAuthority, KeysError> {
        let (key, certificate) = match files::load(folder, NAME)? {
            Some(kept) => kept,
            None => {
                let key = PrivateKey::generate()?;
                let life = (begin(now), certificate_time(now.plus(ROOT_LIFE_SECONDS)));
                let certificate = ak_certificate::sign_root(trust_domain, &serial()?, life, &key)?;
                files::save(folder, NAME, &key, &certificate)?;
                tracing::info!("a root for certificates of attestation keys was made");
                (key, certificate)
            }
        };
        Ok(AkAuthority { root: Issuer::new(certificate, key)?, crl_url })
    }

    /// The root's certificate, DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.root.certificate()
    }

    /// Records, signs and inspects the certificate of an AK.
    pub(crate) async fn sign(
        &self,
        store: &Store,
        grant: AkGrant,
        names: TpmNames,
        now: UnixTime,
    ) -> Result<AkCertificate, KeysError> {
        let template = AkTemplate {
            names,
            spki: grant.public_key_spki().to_vec(),
            serial: serial()?,
            not_before: certificate_time(grant.not_before()),
            not_after: certificate_time(grant.not_after()).min(self.root.not_after()),
            crl_url: self.crl_url.clone(),
        };
        let not_after = UnixTime(template.not_after.as_secs());
        let device = grant.device().to_string();
        let state_version = grant.state_version();
        let svid = SvidRecord {
            serial: template.serial.to_string(),
            spiffe_id: device.clone(),
            carrier: Carrier::Node { profile: Profile::Ak, id: device.clone(), state_version },
            spki_sha256: HEXLOWER.encode(&assay_telemetry::sha256(&template.spki)),
            issued_at: now,
            not_after,
            withdrawn_at: None,
        };
        store.commit(RecordSvid { svid, actor: device.clone() }).await?;
        let issued = ak_certificate::issue(&template, &self.root)?;
        tracing::info!(device, serial = %template.serial, %not_after, "certificate of an attestation key issued");
        Ok(AkCertificate { serial: template.serial, not_after, der: issued.der().to_vec() })
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
pub(crate) fn ak_root(folder: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    Ok(files::load(folder, NAME)?.map(|(_, certificate)| certificate))
}

/// Clocks that are behind must not find it to be of the future.
fn begin(now: UnixTime) -> assay_identity::UnixTime {
    certificate_time(UnixTime(now.0.saturating_sub(NOT_BEFORE_LEEWAY.as_secs())))
}

fn serial() -> Result<Serial, KeysError> {
    Ok(Serial::of_ak(random()?))
}

const NAME: &str = "ak-root";
const ROOT_LIFE_SECONDS: u64 = 3650 * 24 * 3600;
