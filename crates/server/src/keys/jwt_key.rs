//! The key that signs JWT-SVIDs: no certificate, known by its thumbprint. Deleting its file makes another.

use std::path::Path;

use assay_evidence::time::UnixTime;
use assay_identity::jws::{JwkSet, Usage, VerifyingKey};
use assay_identity::jwt_svid::JwtSvid;
use assay_identity::{PrivateKey, SpiffeId, TrustDomain, jwt_svid};
use assay_trust::grant::jwt::JwtGrant;

use serde_json::Value;

use super::{KeysError, files};
use crate::clock::certificate_time;
use crate::store::{EntryRecord, RecordJwt, Store};

/// Signs the tokens of workloads.
#[derive(Debug)]
pub(crate) struct JwtKey {
    key: PrivateKey,
    trust_domain: TrustDomain,
    authorities: JwkSet,
    /// Where verifiers that know no SPIFFE find its keys.
    issuer: Option<String>,
}

/// A token that was signed, and what it says.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub token: String,
    pub svid: JwtSvid,
}

impl JwtKey {
    /// Loads the key from `folder`, or makes it.
    pub(crate) fn open(
        folder: &Path,
        trust_domain: &TrustDomain,
        issuer: Option<String>,
    ) -> Result<JwtKey, KeysError> {
        let key = files::signing_key(folder, "jwt.key")?;
        let authorities = JwkSet::new([VerifyingKey::of(&key)]);
        Ok(JwtKey { key, trust_domain: trust_domain.clone(), authorities, issuer })
    }

    /// Records, signs and inspects the token that was granted.
    pub(crate) async fn sign(
        &self,
        store: &Store,
        grant: JwtGrant,
        (device, entry): (&SpiffeId, &EntryRecord),
        now: UnixTime,
    ) -> Result<Token, KeysError> {
        store
            .commit(RecordJwt {
                svid: grant.svid().clone(),
                device_id: device.to_string(),
                state_version: grant.state_version(),
                basis: grant.basis(),
                entry_id: entry.id.clone(),
                entry_revision: entry.revision,
                at: now,
            })
            .await?;
        let token = grant.svid().sign_as(&self.key, self.issuer.as_deref())?;
        let ours = (&self.trust_domain, &self.authorities);
        let svid = jwt_svid::verify(&token, ours, None, certificate_time(now))?.svid;
        Ok(Token { token, svid })
    }

    /// What verifies its tokens: by what it is known, and SubjectPublicKeyInfo DER.
    pub(crate) fn public(&self) -> (String, Vec<u8>) {
        (VerifyingKey::of(&self.key).kid(), self.key.spki())
    }

    /// What verifies its tokens, as a JWK set.
    pub(crate) fn jwks(&self) -> String {
        self.authorities.to_json(Usage::JwtSvid).to_string()
    }

    /// The same for verifiers that know no SPIFFE (OpenID Connect Discovery 1.0), and who its tokens say made them.
    pub(crate) fn oidc(&self) -> Option<(&str, Value)> {
        Some((self.issuer.as_deref()?, self.authorities.to_json(Usage::Signature)))
    }
}
