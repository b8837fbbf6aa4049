//! The key that signs what the trust domain says to its devices: in memory only, short-lived, certified by the authority.
//!
//! It is no server's key: whoever ends TLS for a server cannot speak for the authority with it.

use assay_evidence::time::UnixTime;
use assay_identity::{Life, PrivateKey, SpiffeId};
use assay_telemetry::pae;

use super::{Authority, KeysError};
use crate::store::Store;

/// A key for statements, its certificate, and when to get the next one.
#[derive(Debug)]
pub(crate) struct StatementKey {
    key: PrivateKey,
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
        let key = PrivateKey::generate()?;
        let id = SpiffeId::statements(&authority.trust_domain);
        let template = authority.leaf(id, key.spki(), ttl_seconds, now)?;
        let chain = authority.sign_own(store, template, (Vec::new(), Vec::new()), now).await?;
        let life = Life::between(now.0, chain.not_after.0);
        Ok(StatementKey { key, chain: chain.certificates, life })
    }

    /// Its certificate and those above, DER, leaf first.
    pub(crate) fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }

    /// Signs a statement of a type; ECDSA P-256, DER, over DSSE's pre-authentication encoding.
    pub(crate) fn sign(&self, statement_type: &str, statement: &[u8]) -> Result<Vec<u8>, KeysError> {
        Ok(self.key.sign_message(&pae(statement_type, statement))?)
    }
}
