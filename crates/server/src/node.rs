//! Devices as other programs see them: by a number, with a certificate, verified or not.
//!
//! Nothing here is remembered of its own: whether a node is verified is its trust state now, and its newest certificate.

use assay_evidence::time::UnixTime;
use assay_trust::{Status, Tier};

use crate::device::{Device, DeviceError};
use crate::store::{Node, NodeCertificate, Profile, Store};

/// A node at a time.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The device.
    pub device: Device,
    /// Its status now.
    pub status: Status,
    /// Its newest certificate, if it has one that is kept.
    pub certificate: Option<NodeCertificate>,
    /// When its newest classic certificate was issued and ends, where the fleet was asked for.
    pub classic: Option<(UnixTime, UnixTime)>,
    /// Whether it is trusted and fresh now, and its certificate neither ended nor withdrawn.
    pub is_verified: bool,
}

impl Standing {
    /// How a device stands.
    pub(crate) async fn load(store: &Store, device: Device, now: UnixTime) -> Result<Standing, DeviceError> {
        let certificate = store.node_certificate(device.id.as_str(), Profile::Svid).await?;
        Ok(Standing::of(device, certificate, None, now))
    }

    /// How a node stands that was read with its certificate.
    pub(crate) fn read(node: Node, now: UnixTime) -> Result<Standing, DeviceError> {
        Ok(Standing::of(Device::of(node.device)?, node.certificate, node.classic, now))
    }

    fn of(
        device: Device,
        certificate: Option<NodeCertificate>,
        classic: Option<(UnixTime, UnixTime)>,
        now: UnixTime,
    ) -> Standing {
        let status = device.state.status_at(now);
        let stands = certificate.as_ref().is_some_and(|certificate| certificate.stands_at(now));
        Standing { is_verified: status == Status::Trusted && stands, device, status, certificate, classic }
    }

    /// 100: trusted; 70: with a warning, or in the last sixth of its certificate's life; 50: pending, suspect or out of date;
    /// 0: revoked or contraindicated.
    pub(crate) fn score(&self, now: UnixTime) -> u8 {
        match (self.status, self.device.state.tier()) {
            (Status::Revoked, _) | (_, Tier::Contraindicated) => 0,
            (Status::Trusted, Tier::Affirming) if self.is_verified && !self.ends_soon(now) => 100,
            (Status::Trusted, _) if self.is_verified => 70,
            _ => 50,
        }
    }

    fn ends_soon(&self, now: UnixTime) -> bool {
        let Some(certificate) = &self.certificate else { return true };
        let left = certificate.not_after.0.saturating_sub(now.0);
        let life = certificate.not_after.0.saturating_sub(certificate.issued_at.0);
        left < life / 6
    }
}
