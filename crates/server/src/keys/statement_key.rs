//! The key that signs what the trust domain says to its devices: in memory only, short-lived, certified by the authority.
//!
//! It is no server's key: whoever ends TLS for a server cannot speak for the authority with it.

use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::{Life, PrivateKey, SpiffeId};
use assay_telemetry::pae;
use assay_wire::binding::TRUST_STATEMENT_TYPE;

use super::together::{SignedTogether, Signing, Urgency};
use super::{Authority, KeysError};
use crate::store::Store;

/// A key for statements, its certificate, and when to get the next one.
#[derive(Debug)]
pub(crate) struct StatementKey {
    key: Arc<PrivateKey>,
    signing: Signing,
    chain: Vec<Vec<u8>>,
    /// How long its certificate lives.
    pub life: Life,
}

impl StatementKey {
    /// Makes a key and a certificate for it.
    pub(crate) async fn issue(
        authority: &Authority,
        store: &Store,
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<StatementKey, KeysError> {
        let key = Arc::new(PrivateKey::generate()?);
        let id = SpiffeId::statements(&authority.trust_domain);
        let template = authority.leaf(id, key.spki(), ttl_seconds, now)?;
        let chain = authority.sign_own(store, template, (Vec::new(), Vec::new()), now).await?;
        let life = Life::between(now.0, chain.not_after.0);
        Ok(StatementKey { signing: Signing::start(key.clone()), key, chain: chain.certificates, life })
    }

    /// Its certificate and those above, DER, leaf first.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Signs what everybody is told; ECDSA P-256, DER, over DSSE's pre-authentication encoding.
    pub(crate) fn sign_trust(&self, statement: &[u8]) -> Result<Vec<u8>, KeysError> {
        Ok(self.key.sign_message(&pae(TRUST_STATEMENT_TYPE, statement))?)
    }

    /// Signs what one device is told, with what others are told at the same time.
    pub(crate) async fn sign(
        &self,
        statement: Vec<u8>,
        urgency: Urgency,
    ) -> Result<SignedTogether, KeysError> {
        self.signing.sign(statement, urgency).await
    }
}
