//! IDevID and IAK of a device: as it shows them when it enrolls, and as they are kept.

use assay_evidence::Failure;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::Endorsers;
use assay_evidence::tpm::idevid::{DeviceIdentity, ShownIdentity, verify_device_identity};
use assay_wire::edge;

use crate::device::certificates;
use crate::store::IdentityRecord;

impl IdentityRecord {
    /// What a device shows; nothing of it is verified.
    pub(crate) fn shown(begin: &edge::EnrollBegin) -> IdentityRecord {
        IdentityRecord {
            iak_public: begin.iak_public.to_vec(),
            iak_certificate: begin.iak_certificate.to_vec(),
            idevid_public: begin.idevid_public.to_vec(),
            idevid_certificate: begin.idevid_certificate.to_vec(),
            intermediates: begin.idevid_intermediates.concat(),
        }
    }

    /// Verifies keys and certificates. `None`: none are shown, or nobody is trusted to vouch for any.
    pub(crate) fn verify(
        &self,
        endorsers: &Endorsers,
        at: UnixTime,
    ) -> Option<Result<DeviceIdentity, Vec<Failure>>> {
        if *self == IdentityRecord::default() || endorsers.is_empty() {
            return None;
        }
        let shown = ShownIdentity {
            iak_public: &self.iak_public,
            iak_certificate: &self.iak_certificate,
            idevid_public: &self.idevid_public,
            idevid_certificate: &self.idevid_certificate,
            intermediates: &certificates(&self.intermediates),
        };
        Some(verify_device_identity(&shown, endorsers, at))
    }
}
