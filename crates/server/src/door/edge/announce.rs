//! What everybody of the trust domain is to believe, signed once for all: authorities and revocation list.
//!
//! A new list, or a new key to sign with, makes a new announcement. Streams pass it on and sign what they say to their
//! device with the key that it came with.

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Backoff;
use assay_identity::Crl;
use assay_identity::crl::CrlError;
use assay_wire::edge::{self, server_message};
use bytes::Bytes;
use prost::Message;
use thiserror::Error;
use tokio::sync::watch;

use super::answers::framed;
use crate::keys::{Authority, JwtKey, KeysError, StatementKey};
use crate::outcome::chain;
use crate::parts::Server;

/// The announcement in force, and word of every new one.
#[derive(Debug)]
pub(crate) struct Announcer {
    announced: watch::Sender<Arc<Announcement>>,
    /// What verifies the heads of the ledger.
    ledger_key: String,
}

/// One announcement.
#[derive(Debug)]
pub(crate) struct Announcement {
    /// As devices get it, one piece of memory for all.
    pub frame: Bytes,
    /// What signed it.
    pub key: Arc<StatementKey>,
}

/// Why there is no new announcement.
#[derive(Debug, Error)]
pub(crate) enum AnnounceError {
    /// The list that we signed does not read.
    #[error("the revocation list does not read")]
    List(#[from] CrlError),
    /// It could not be signed.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Announcer {
    /// Announces authorities and list for the first time.
    pub(crate) fn new(
        authorities: (&Authority, &JwtKey),
        list: &Bytes,
        key: Arc<StatementKey>,
        ledger_key: String,
    ) -> Result<Announcer, KeysError> {
        let announcement =
            announcement(authorities, list, key, &ledger_key).map_err(|error| match error {
                AnnounceError::Keys(error) => error,
                AnnounceError::List(error) => KeysError::List(error),
            })?;
        Ok(Announcer { announced: watch::Sender::new(Arc::new(announcement)), ledger_key })
    }

    /// The announcement in force, and word of every new one.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Announcement>> {
        self.announced.subscribe()
    }

    /// The key in force.
    pub(crate) fn key(&self) -> Arc<StatementKey> {
        self.announced.borrow().key.clone()
    }
}

fn announcement(
    (authority, jwt_key): (&Authority, &JwtKey),
    list: &Bytes,
    key: Arc<StatementKey>,
    ledger_key: &str,
) -> Result<Announcement, AnnounceError> {
    let statement = edge::TrustStatement {
        number: Crl::parse(list)?.number(),
        bundle: authority.bundle().to_der().into(),
        crl: list.clone(),
        jwt_keys: jwt_key.jwks().into(),
        ledger_key: ledger_key.to_owned(),
    };
    let statement = statement.encode_to_vec();
    let signature = key.sign_trust(&statement)?;
    let signer = key.chain().iter().cloned().map(Into::into).collect();
    let signed = edge::Signed {
        statement: statement.into(),
        signature: signature.into(),
        signer,
        ..edge::Signed::default()
    };
    Ok(Announcement { frame: framed(server_message::Message::Trust(signed)), key })
}

/// Announces every new list, and a new key at half of the last one's life, until the server stops.
pub(crate) async fn run(server: Arc<Server>) {
    let mut lists = server.revocations.watch();
    let mut shutdown = server.shutdown.clone();
    let mut key = server.announcer.key();
    let mut backoff = Backoff::between(RETRY_FIRST, RETRY_LONGEST);
    let mut retry = RETRY_FIRST;
    loop {
        let wait = key.life.renew_at().as_secs().saturating_sub(server.now().0);
        tokio::select! {
            Ok(()) = lists.changed() => {}
            () = server.clock.sleep(Duration::from_secs(wait).max(retry)) => {
                let ttl = server.config.server_svid_ttl_seconds;
                match StatementKey::issue(&server.authority, &server.store, ttl, server.now()).await {
                    Ok(renewed) => {
                        key = Arc::new(renewed);
                        backoff.succeeded();
                        retry = RETRY_FIRST;
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "no new key for statements");
                        retry = backoff.wait();
                        continue;
                    }
                }
            }
            _ = shutdown.changed() => return,
        }
        let list = lists.borrow_and_update().clone();
        let authorities = (server.authority.as_ref(), server.granting.jwt_key.as_ref());
        match announcement(authorities, &list, key.clone(), &server.announcer.ledger_key) {
            Ok(announcement) => drop(server.announcer.announced.send_replace(Arc::new(announcement))),
            Err(error) => {
                tracing::error!(error = %chain(&error), "what was withdrawn could not be announced")
            }
        }
    }
}

/// After failures; a key lives far longer.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
