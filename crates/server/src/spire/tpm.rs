//! `tpm`: a node whose TPM opens what was made for its EK and for an AK of this moment, as spire-tpm-plugin attests.
//!
//! Who may come in so is who may enroll: everything that is checked of a device's TPM is checked of this one. It proves that
//! this TPM is there and nothing of what runs beside it, nor that the certificate's key is in it.

use assay_evidence::request::DeviceIdentity;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::{ShownEk, verify_creation};
use assay_identity::selector::Written;
use assay_identity::selector::tpm::KIND;
use assay_identity::{SpiffeId, TrustDomain};
use assay_trust::Basis;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use bytes::Bytes;

use super::attest::Shown;
use super::{SpireAgent, SpireError};
use crate::device::Device;
use crate::enroll::{Challenge, Challenged, EnrollError, Enrolling, Presented};

/// What a node shows of its TPM.
#[derive(Clone, Debug)]
pub(crate) struct ShownTpm {
    /// Its EK.
    pub ek: ShownEk,
    /// TPMT_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// TPMS_CREATION_DATA; TPMS_ATTEST and TPMT_SIGNATURE of TPM2_CertifyCreation by the AK.
    pub creation: (Vec<u8>, Vec<u8>, Vec<u8>),
}

impl ShownTpm {
    /// Whose TPM it says this is.
    pub(crate) fn id(&self, trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::device(trust_domain, &assay_telemetry::sha256(&self.ek.spki_der()))
    }
}

/// A TPM that was challenged.
#[derive(Debug)]
pub(crate) struct Challenging(Challenged);

impl Challenging {
    /// Checks what is shown and makes a challenge that only its TPM can answer.
    pub(crate) async fn begin(
        enrolling: Enrolling<'_>,
        shown: ShownTpm,
        now: UnixTime,
    ) -> Result<(Challenging, Challenge), SpireError> {
        let ShownTpm { ek, ak_public, creation: (data, info, signature) } = shown;
        let size =
            u16::try_from(ak_public.len()).map_err(|_| SpireError::Malformed("the AK is no TPMT_PUBLIC"))?;
        let failures = match PublicArea::parse(&ak_public) {
            Ok(ak) => verify_creation(&ak, &data, &info, &signature),
            // What is wrong with it is said with everything else.
            Err(_) => Vec::new(),
        };
        let presented = Presented {
            identity: DeviceIdentity {
                ek_public: ek.public_area().into(),
                ek_certificate: Bytes::copy_from_slice(ek.certificate()),
                ..DeviceIdentity::default()
            },
            ak_public: [&size.to_be_bytes(), ak_public.as_slice()].concat().into(),
            name: String::new(),
            agent_version: String::new(),
        };
        let (challenged, challenge) = Challenged::begin(enrolling, presented, failures, now).await?;
        Ok((Challenging(challenged), challenge))
    }

    /// Who it is by what it found in the challenge, if it may come in.
    pub(crate) async fn prove(
        self,
        enrolling: Enrolling<'_>,
        address: &str,
        secret: &[u8],
        now: UnixTime,
    ) -> Result<Shown, SpireError> {
        let Challenging(challenged) = self;
        verify_slices_are_equal(challenged.secret(), secret).map_err(|_| EnrollError::Activation)?;
        let id = challenged.id().clone();
        // What a device that quotes is told, joining says.
        let is_device = Device::load(enrolling.store, &id).await.map_err(|error| error.0)?.is_some();
        let is_known = is_device || SpireAgent::load(enrolling.store, &id).await?.is_some();
        let on_word = !is_known && challenged.enter(enrolling, address, now).await?;
        let pub_hash =
            id.device_hex().map(|hex| Written { kind: KIND.to_owned(), value: format!("pub_hash:{hex}") });
        Ok(Shown {
            id,
            attestor: KIND,
            basis: Basis::EkActivation,
            selectors: pub_hash.into_iter().collect(),
            can_reattest: true,
            until: None,
            on_word,
            spends: None,
        })
    }
}
