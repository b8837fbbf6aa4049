//! How far the life of the device's own certificate has come. The server renews it from half of its life, with a verdict that
//! is good: one past two thirds says that no such verdict came.

use std::time::SystemTime;

use assay_evidence::tpm::CertificateSummary;
use assay_identity::{Life, Stage};

use super::Holding;
use super::bundle::unix_time;

/// The certificate, and what was said of it.
#[derive(Debug, Default)]
pub(crate) struct OwnLife {
    leaf: Vec<u8>,
    life: Option<Life>,
    said: Option<Stage>,
}

impl OwnLife {
    /// Looks how far it has come, and says once what somebody should know; what was said.
    pub(crate) fn look(&mut self, holding: &Holding, now: SystemTime) -> Option<Stage> {
        let leaf = holding.device_svid.first().map(Vec::as_slice).unwrap_or_default();
        if leaf != self.leaf {
            let summary = CertificateSummary::read(leaf).ok();
            let life = summary.map(|summary| Life::between(summary.not_before.0, summary.not_after.0));
            *self = OwnLife { leaf: leaf.to_vec(), life, said: None };
        }
        let stage = self.life?.stage(unix_time(now));
        if stage < Stage::Late || self.said == Some(stage) {
            return None;
        }
        self.said = Some(stage);
        let clock = holding.clock.as_deref().unwrap_or_default();
        match stage {
            Stage::Ended => tracing::error!(
                clock,
                "the device's certificate has ended and was not renewed: nothing is granted before a verdict that is good"
            ),
            _ => tracing::warn!(
                clock,
                "the device's certificate is past two thirds of its life and was not renewed: is the server reached, and the \
                 device trusted?"
            ),
        }
        Some(stage)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use assay_identity::authority::{AuthorityTemplate, sign_root};
    use assay_identity::{PrivateKey, Serial, TrustDomain, UnixTime};

    use super::*;

    /// Any certificate, of this life.
    fn certificate(from: u64, until: u64) -> Vec<u8> {
        let time = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let template = AuthorityTemplate {
            trust_domain: TrustDomain::parse("example.org").unwrap(),
            name: "Root".to_owned(),
            serial: Serial::from_random([1; 16]),
            not_before: time(from),
            not_after: time(until),
        };
        sign_root(&template, &PrivateKey::generate().unwrap()).unwrap().to_vec()
    }

    #[test]
    fn year_1_a_device_says_that_its_certificate_was_not_renewed_once_from_two_thirds_and_once_at_its_end() {
        let certificate = certificate(1_000_000, 1_003_600);
        let summary = CertificateSummary::read(&certificate).unwrap();
        let (from, until) = (summary.not_before.0, summary.not_after.0);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut own = OwnLife::default();
        assert_eq!(own.look(&Holding::default(), at(from)), None);
        let holding = Holding { device_svid: vec![certificate], ..Holding::default() };
        let late = from + (until - from) / 3 * 2 + 2;
        let said = [from, late - 10, late, late + 1, until, until + 1].map(|now| own.look(&holding, at(now)));
        assert_eq!(said, [None, None, Some(Stage::Late), None, Some(Stage::Ended), None]);
        // With another one it begins anew.
        own.look(&Holding::default(), at(until));
        assert_eq!(own.look(&holding, at(late)), Some(Stage::Late));
    }
}
