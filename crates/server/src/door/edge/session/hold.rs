//! What the device holds: brought in line with its trust state, and told whole after every change.

use assay_evidence::time::UnixTime;
use assay_identity::secret::SecretName;
use assay_identity::signed_message::NodeId;
use assay_trust::Status as TrustStatus;
use assay_wire::edge::{self, device_statement};
use bytes::Bytes;

use super::super::convert;
use super::{Session, SessionEnd, Standing};
use crate::attest::AttestError;
use crate::grant::svid::SvidError;
use crate::keys::{Chain, KeysError};
use crate::store::StoreError;

/// The device's SVID, and when to get the next one.
pub(super) struct Held {
    pub(super) chain: Chain,
    pub(super) renew_at: UnixTime,
    pub(super) state_version: u64,
}

impl Session {
    /// Takes leave of a revoked device with word of what it lost.
    pub(super) async fn part(&mut self, error: AttestError) -> Result<(), SessionEnd> {
        if matches!((&error, &self.standing), (AttestError::Revoked, Standing::Proven(_))) {
            self.held = None;
            self.tell().await?;
        }
        Err(error.into())
    }

    /// Brings what the device holds in line with its state, and tells it if that changed anything.
    pub(super) async fn settle(&mut self) -> Result<(), SessionEnd> {
        let now = self.server.now();
        let state = &self.attester.device.state;
        if state.status_at(now) != TrustStatus::Trusted {
            if self.held.take().is_some() || !self.told {
                return self.tell().await;
            }
            return Ok(());
        }
        let version = state.version();
        let good =
            self.held.as_ref().is_some_and(|held| held.state_version == version && now < held.renew_at);
        if good {
            // Entries come and go with what holds of the device, and grace with the policy.
            let is_told = self.ak_renew_at.is_none_or(|at| now < at)
                && *state.holding() == self.told_holding
                && self.restart_offline() == self.told_restart_offline
                && self.told_secrets.as_ref() == Some(&self.secrets());
            return if is_told { Ok(()) } else { self.tell_again().await };
        }
        match self.server.granting.device_svid(&self.attester.device, now).await {
            Ok(chain) => {
                let life = chain.not_after.0.saturating_sub(now.0);
                self.held = Some(Held { chain, renew_at: now.plus(life / 2), state_version: version });
                self.tell().await
            }
            // The state moved on meanwhile; whoever moved it has woken this stream.
            Err(SvidError::Denied(_) | SvidError::Keys(KeysError::Record(StoreError::Conflict))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Something changed in what everyone is told.
    pub(super) async fn tell_again(&mut self) -> Result<(), SessionEnd> {
        if self.told { self.tell().await } else { Ok(()) }
    }

    /// Everything the device holds now; what is not there is withdrawn.
    pub(super) async fn tell(&mut self) -> Result<(), SessionEnd> {
        self.ak_renew_at = None;
        let ak = if self.held.is_some() { Box::pin(self.ak_certificate()).await } else { Default::default() };
        let server = &self.server;
        let state = &self.attester.device.state;
        let mut grants = edge::Grants {
            version: state.version(),
            policy: state.policy().unwrap_or_default().to_owned(),
            ..edge::Grants::default()
        };
        let mut told_secrets = None;
        match &self.held {
            Some(held) => {
                grants.device_svid = held.chain.certificates.iter().cloned().map(Into::into).collect();
                let entries = server.entries.of(&self.attester.device.id);
                let met = entries.iter().filter(|entry| state.unmet(&entry.selectors).is_none());
                grants.entries = met.clone().map(|entry| convert::entry(entry)).collect();
                let foreign = server.federation.of_entries(met.map(AsRef::as_ref));
                grants.foreign_bundles =
                    foreign.iter().filter_map(|foreign| convert::foreign_bundle(foreign)).collect();
                grants.restart_offline = self.restart_offline().map(convert::restart_offline);
                let secrets = self.secrets();
                if self.told_secrets.as_ref() != Some(&secrets) {
                    server.releasing.keep(&self.attester.device, &secrets, server.now()).await?;
                }
                grants.secrets = secrets
                    .iter()
                    .map(|(name, version)| edge::SecretRef { name: name.to_string(), version: *version })
                    .collect();
                told_secrets = Some(secrets);
                (grants.ak_certificate, grants.ak_denied) = ak;
                grants.classic_wanted = server.granting.classic.is_some();
                grants.node = self.attester.device.record.node.map(NodeId::get);
                if self.room.is_some() {
                    let tasks = server.placement.of_device(&self.attester.device).await;
                    let tasks = tasks.map_err(AttestError::from)?;
                    grants.tasks = tasks.into_iter().map(convert::task).collect();
                }
            }
            None => {
                grants.withdrawn = true;
                grants.reason = state.reason().to_owned();
            }
        }
        self.told = true;
        self.told_secrets = told_secrets;
        self.told_holding = state.holding().clone();
        self.told_restart_offline = self.restart_offline();
        self.say(device_statement::Body::Grants(grants)).await
    }

    /// The certificate of its AK and that above it, or why there is none; both empty: the server signs none.
    async fn ak_certificate(&mut self) -> (Vec<Bytes>, String) {
        let (server, device, now) = (&self.server, &self.attester.device, self.server.now());
        if server.granting.ak.is_none() {
            return Default::default();
        }
        let granted = match device.endorsement(&server.endorsers.current(), now) {
            Ok(endorsement) => server.granting.ak_certificate(device, &endorsement, now).await,
            Err(error) => Err(error.into()),
        };
        match granted {
            Ok(granted) => {
                self.ak_renew_at = granted.as_ref().map(|granted| granted.renew_at);
                let chain = granted.into_iter().flat_map(|granted| granted.chain);
                (chain.map(Bytes::from).collect(), String::new())
            }
            Err(error) => {
                tracing::info!(device = %device.id, reason = %error, "certificate of the attestation key denied");
                self.ak_renew_at = Some(now.plus(AK_AGAIN_SECONDS));
                (Vec::new(), error.sentence())
            }
        }
    }

    /// The secrets that the device may have now.
    pub(super) fn secrets(&self) -> Vec<(SecretName, u64)> {
        self.server.releasing.secrets.of(&self.attester.device, self.server.now())
    }

    /// Seconds for which the policy in force lets an agent that starts again without a server serve what it had.
    fn restart_offline(&self) -> Option<u64> {
        let policy = self.server.policies.of(&self.attester.device).compiled?;
        policy.restart_offline_max_seconds()
    }

    /// Whom everybody believes from now on.
    pub(super) async fn announce(&mut self) -> Result<(), SessionEnd> {
        let announcement = self.announced.borrow_and_update().clone();
        self.voice.take_key(announcement.key.clone());
        self.send(announcement.frame.clone()).await
    }
}

/// Where there was no certificate of an AK: who vouches for the TPM may have changed meanwhile.
const AK_AGAIN_SECONDS: u64 = 300;
