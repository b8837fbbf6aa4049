//! The server's own certificate: short-lived, its key only in memory, renewed at half of its life.

use std::net::IpAddr;
use std::sync::Arc;

use assay_evidence::time::UnixTime;
use assay_identity::{Life, PrivateKey, SpiffeId, tls};
use rustls::sign::CertifiedKey;

use super::{Authority, KeysError};
use crate::store::Store;

/// A certificate for the server's doors and when to get the next one.
#[derive(Clone, Debug)]
pub(crate) struct ServerCertificate {
    /// What TLS shows.
    pub key: Arc<CertifiedKey>,
    /// How long it lives.
    pub life: Life,
}

impl ServerCertificate {
    /// Makes a key and a certificate for it: the server's SPIFFE ID, and `names` for clients that know no SPIFFE.
    pub(crate) async fn issue(
        authority: &Authority,
        store: &Store,
        names: &[String],
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<ServerCertificate, KeysError> {
        let id = SpiffeId::server(&authority.trust_domain);
        ServerCertificate::issue_as(id, authority, store, names, ttl_seconds, now).await
    }

    /// The same under the name that SPIRE's agents know servers by.
    pub(crate) async fn issue_for_spire(
        authority: &Authority,
        store: &Store,
        names: &[String],
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<ServerCertificate, KeysError> {
        let id = SpiffeId::spire_server(&authority.trust_domain);
        ServerCertificate::issue_as(id, authority, store, names, ttl_seconds, now).await
    }

    async fn issue_as(
        id: SpiffeId,
        authority: &Authority,
        store: &Store,
        names: &[String],
        ttl_seconds: u64,
        now: UnixTime,
    ) -> Result<ServerCertificate, KeysError> {
        let key = PrivateKey::generate()?;
        let template = authority.leaf(id, key.spki(), ttl_seconds, now)?;
        let chain = authority.sign_own(store, template, split(names), now).await?;
        Ok(ServerCertificate {
            key: tls::certified_key(chain.certificates, key.pkcs8())?,
            life: Life::between(now.0, chain.not_after.0),
        })
    }
}

/// Names that are addresses become addresses.
fn split(names: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let mut dns_names = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Err(_) if !dns_names.contains(name) => dns_names.push(name.clone()),
            _ => {}
        }
    }
    (dns_names, addresses)
}
