//! `x509pop`: a node that has the key of a certificate by an authority of the operator's choice.

use assay_evidence::time::UnixTime;
use assay_identity::selector::Written;
use assay_identity::selector::node::X509POP;
use assay_identity::x509pop::{Anchors, Answer, NONCE_BYTES, ShownCertificate, X509PopError};
use assay_identity::{TrustDomain, UnixTime as X509Time};
use assay_trust::Basis;

use super::SpireError;
use super::attest::Shown;
use crate::keys::random;
use crate::outcome::Kind;

/// A certificate that holds, and whose key was challenged.
#[derive(Debug)]
pub(crate) struct Challenging {
    certificate: ShownCertificate,
    nonce: [u8; NONCE_BYTES],
}

impl Challenging {
    /// Verifies a chain, and asks for its key.
    pub(crate) fn begin<C: AsRef<[u8]>>(
        anchors: &Anchors,
        chain: &[C],
        now: UnixTime,
    ) -> Result<Challenging, SpireError> {
        let now = X509Time::since_unix_epoch(std::time::Duration::from_secs(now.0));
        Ok(Challenging { certificate: anchors.verify(chain, now)?, nonce: random()? })
    }

    /// What is to be signed, and whether by an RSA key.
    pub(crate) fn challenge(&self) -> (bool, &[u8]) {
        (self.certificate.is_rsa(), &self.nonce)
    }

    /// Who it is by its answer over a nonce of its own.
    pub(crate) fn prove(
        self,
        trust_domain: &TrustDomain,
        theirs: &[u8],
        answer: Answer<'_>,
    ) -> Result<Shown, SpireError> {
        let Challenging { certificate, nonce } = self;
        certificate.possessed(&nonce, theirs, answer)?;
        Ok(Shown {
            id: certificate.spiffe_id(trust_domain),
            attestor: X509POP,
            basis: Basis::X509Pop,
            selectors: certificate.selectors(trust_domain).into_iter().map(Written::from).collect(),
            can_reattest: true,
            until: Some(UnixTime(certificate.until().as_secs())),
            on_word: false,
            spends: None,
        })
    }
}

/// What kind of outcome it is.
pub(super) fn kind(error: &X509PopError) -> Kind {
    match error {
        X509PopError::Empty
        | X509PopError::Malformed(_)
        | X509PopError::AnswerKind
        | X509PopError::Nonce
        | X509PopError::KeyKind => Kind::Malformed,
        X509PopError::Path(_)
        | X509PopError::Ended { .. }
        | X509PopError::NotYet { .. }
        | X509PopError::Authority
        | X509PopError::KeyUsage => Kind::Forbidden,
        X509PopError::Signature => Kind::Unauthenticated,
        X509PopError::Anchor => Kind::Fault,
    }
}
