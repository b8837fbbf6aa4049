//! The endorsement of a device: its EK, and who vouches for it.

use super::ek_certificate::{EkCertificate, Endorsers, verify_ek_certificate};
use super::idevid::DeviceIdentity;
use super::public_area::PublicArea;
use crate::check::{Check, Failure};
use crate::digest::{Digest, HashAlgorithm};
use crate::time::UnixTime;

/// An EK with its verified certificate, or with why it has none. What that is worth, a policy says.
///
/// That the EK is the one beneath a device's AK, credential activation has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endorsement {
    ek_sha256: Digest,
    certificate: Result<EkCertificate, Vec<Failure>>,
    identity: Option<Result<DeviceIdentity, Vec<Failure>>>,
}

impl Endorsement {
    /// Verifies the certificate that is shown for `ek`; no bytes: none is shown.
    pub fn verify(
        ek: &PublicArea,
        certificate: &[u8],
        intermediates: &[&[u8]],
        endorsers: &Endorsers,
        at: UnixTime,
    ) -> Endorsement {
        if certificate.is_empty() {
            return Endorsement::without_certificate(ek, Vec::new());
        }
        let verified = verify_ek_certificate(certificate, intermediates, endorsers, at);
        let certificate = verified.and_then(|certificate| match certificate.matches(ek) {
            Some(failure) => Err(vec![failure]),
            None => Ok(certificate),
        });
        Endorsement { ek_sha256: ek_sha256(ek), certificate, identity: None }
    }

    /// An EK for which no certificate holds, and why; no reason: none is shown.
    pub fn without_certificate(ek: &PublicArea, failures: Vec<Failure>) -> Endorsement {
        Endorsement { ek_sha256: ek_sha256(ek), certificate: Err(failures), identity: None }
    }

    /// With the IDevID and IAK that the device has shown. That this IAK certified the device's AK, enrollment has shown.
    #[must_use]
    pub fn with_identity(self, identity: Result<DeviceIdentity, Vec<Failure>>) -> Endorsement {
        Endorsement { identity: Some(identity), ..self }
    }

    /// The identity by IDevID and IAK, where one was shown and holds.
    pub fn identity(&self) -> Option<&DeviceIdentity> {
        self.identity.as_ref()?.as_ref().ok()
    }

    /// Why the identity that was shown does not hold.
    pub fn identity_failures(&self) -> &[Failure] {
        let failures = self.identity.as_ref().and_then(|identity| identity.as_ref().err());
        failures.map_or(&[], Vec::as_slice)
    }

    /// SHA-256 of the EK's SubjectPublicKeyInfo.
    pub fn ek_sha256(&self) -> Digest {
        self.ek_sha256
    }

    /// The certificate, where one holds.
    pub fn certificate(&self) -> Option<&EkCertificate> {
        self.certificate.as_ref().ok()
    }

    /// Why no certificate holds.
    pub fn failures(&self) -> &[Failure] {
        self.certificate.as_ref().err().map_or(&[], Vec::as_slice)
    }

    /// Whether an authority took the certificate back, or one above it.
    pub fn is_revoked(&self) -> bool {
        self.failures().iter().any(|failure| failure.check == Check::EkRevoked)
    }

    /// Until when its certificates hold, as far as their paths say.
    pub fn valid_until(&self) -> Option<UnixTime> {
        let certificate = self.certificate().map(EkCertificate::valid_until);
        let identity = self.identity().map(DeviceIdentity::valid_until);
        certificate.into_iter().chain(identity).min()
    }
}

impl From<EkCertificate> for Endorsement {
    fn from(certificate: EkCertificate) -> Self {
        let ek_sha256 = HashAlgorithm::Sha256.hash(&[certificate.spki()]);
        Endorsement { ek_sha256, certificate: Ok(certificate), identity: None }
    }
}

fn ek_sha256(ek: &PublicArea) -> Digest {
    HashAlgorithm::Sha256.hash(&[&ek.spki_der()])
}
