//! Verifying a presented X.509-SVID: path, SPIFFE leaf rules, revocation.

use rustls_pki_types::{CertificateDer, UnixTime};
use thiserror::Error;

use crate::authority::parse_authority;
use crate::bundle::Bundle;
use crate::crl::{CrlSet, Revocation};
use crate::life::{Life, Moment};
use crate::serial::Serial;
use crate::signature::ALGORITHMS;
use crate::spiffe_id::{SpiffeId, SpiffeIdError, TrustDomain};
use crate::x509_svid::Leaf;

/// A peer whose X.509-SVID verified. Only [`verify_svid`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPeer {
    spiffe_id: SpiffeId,
    serial: Serial,
    life: Life,
    spki: Vec<u8>,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    /// The serial of the certificate shown.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// When the certificate shown ends.
    pub fn not_after(&self) -> UnixTime {
        self.life.until()
    }

    /// The life of the certificate shown.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The key of the certificate shown, SubjectPublicKeyInfo DER.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

/// Why an X.509-SVID is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SvidError {
    /// No certificate at all.
    #[error("no certificate was presented")]
    Empty,
    /// More certificates than any path of ours has.
    #[error("at most {CHAIN_CERTIFICATES_MAX} certificates are read, {count} were presented")]
    ChainTooLong {
        /// Certificates presented.
        count: usize,
    },
    /// The leaf is not a certificate, or its extensions contradict each other.
    #[error("the leaf is not a well-formed certificate")]
    Malformed,
    /// None or several URI names.
    #[error("the leaf does not have exactly one URI name")]
    UriNames,
    /// The URI name is not a SPIFFE ID.
    #[error("the leaf's URI name is not a SPIFFE ID")]
    SpiffeId(#[source] SpiffeIdError),
    /// A certificate that may sign, or names a whole trust domain, authenticates nobody.
    #[error("a signing certificate does not authenticate")]
    SigningCertificate,
    /// Key usage missing, not critical, or without digitalSignature.
    #[error("the leaf's key usage is not an X.509-SVID's")]
    KeyUsage,
    /// Extended key usage that lacks server or client authentication.
    #[error("the leaf's extended key usage is not for both server and client authentication")]
    ExtendedKeyUsage,
    /// An ID of a trust domain whose bundle this is not.
    #[error("{found} is not of trust domain {expected}")]
    TrustDomain {
        /// The bundle's trust domain.
        expected: TrustDomain,
        /// The ID presented.
        found: SpiffeId,
    },
    /// An intermediate that is no SPIFFE signing certificate of this trust domain.
    #[error("an intermediate is not a signing certificate of the trust domain")]
    Intermediate,
    /// No valid path to the bundle.
    #[error("no valid path leads from the leaf to the bundle")]
    Path(#[source] webpki::Error),
    /// Whoever verifies is past its end.
    #[error(
        "the certificate ended at {ended}, and here it is {now}: it was not renewed, or a clock is wrong"
    )]
    Ended {
        /// When it ended.
        ended: Moment,
        /// What time it was taken to be.
        now: Moment,
    },
    /// Whoever verifies is before its beginning.
    #[error(
        "the certificate begins at {begins}, and here it is {now}: this clock is behind that of who issued it"
    )]
    NotYet {
        /// When it begins.
        begins: Moment,
        /// What time it was taken to be.
        now: Moment,
    },
    /// The certificate is on its authority's revocation list.
    #[error("the certificate is revoked")]
    Revoked,
    /// The authority's revocation list is not there.
    #[error("there is no revocation list of the certificate's authority")]
    NoRevocationList,
    /// The authority's revocation list is past its next update.
    #[error(
        "the revocation list was to be replaced by {ended}, and here it is {now}: there is no news of it, or a clock is wrong"
    )]
    OldRevocationList {
        /// Until when there should have been a newer one.
        ended: Moment,
        /// What time it was taken to be.
        now: Moment,
    },
}

/// Verifies a chain, leaf first, against the bundle of its trust domain.
pub fn verify_svid<C: AsRef<[u8]>>(
    chain: &[C],
    bundle: &Bundle,
    crls: &CrlSet,
    now: UnixTime,
) -> Result<VerifiedPeer, SvidError> {
    if chain.len() > CHAIN_CERTIFICATES_MAX {
        return Err(SvidError::ChainTooLong { count: chain.len() });
    }
    let (leaf_der, intermediates) = chain.split_first().ok_or(SvidError::Empty)?;
    let leaf = Leaf::parse(leaf_der.as_ref())?;
    // Bundles are never pooled: another domain's authority must not be able to name our devices.
    if leaf.spiffe_id.trust_domain() != bundle.trust_domain() {
        let expected = bundle.trust_domain().clone();
        return Err(SvidError::TrustDomain { expected, found: leaf.spiffe_id });
    }
    let issuer_spki = verify_path(leaf_der.as_ref(), intermediates, bundle, now)?;
    match crls.look_up(&leaf.issuer, &issuer_spki, &leaf.serial, now) {
        Revocation::NotListed => {}
        Revocation::Revoked => return Err(SvidError::Revoked),
        Revocation::NoList => return Err(SvidError::NoRevocationList),
        Revocation::OldList(ended) => {
            return Err(SvidError::OldRevocationList { ended: Moment(ended), now: Moment(now) });
        }
    }
    let Leaf { spiffe_id, serial, life, spki, .. } = leaf;
    Ok(VerifiedPeer { spiffe_id, serial, life, spki })
}

/// RFC 5280 path validation; returns the key of the leaf's issuer.
fn verify_path<C: AsRef<[u8]>>(
    leaf: &[u8],
    intermediates: &[C],
    bundle: &Bundle,
    now: UnixTime,
) -> Result<Vec<u8>, SvidError> {
    let leaf = CertificateDer::from(leaf);
    let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(SvidError::Path)?;
    let intermediates: Vec<_> = intermediates.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
    let anchors = bundle.anchors(now);
    let path = leaf
        .verify_for_usage(
            ALGORITHMS,
            &anchors,
            &intermediates,
            now,
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(path_error)?;
    for intermediate in path.intermediate_certificates() {
        check_intermediate(intermediate, bundle.trust_domain())?;
    }
    Ok(path.issuer_spki().to_vec())
}

/// Clocks that do not agree are told apart from a path that is none.
fn path_error(error: webpki::Error) -> SvidError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            SvidError::Ended { ended: Moment(not_after), now: Moment(time) }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            SvidError::NotYet { begins: Moment(not_before), now: Moment(time) }
        }
        error => SvidError::Path(error),
    }
}

/// X509-SVID §3.1 and §4.3, which path validation as webpki does it leaves out.
fn check_intermediate(intermediate: &webpki::Cert<'_>, domain: &TrustDomain) -> Result<(), SvidError> {
    let der = intermediate.der();
    parse_authority(&der).ok_or(SvidError::Intermediate)?;
    let names_domain = |uri: &str| SpiffeId::parse(uri).is_ok_and(|id| id == domain.id());
    if intermediate.valid_uri_names().all(names_domain) { Ok(()) } else { Err(SvidError::Intermediate) }
}

// Leaf, issuing CA, and room for nested authorities.
const CHAIN_CERTIFICATES_MAX: usize = 8;
