//! Certificates of other people's authorities that nodes are known by, and that a node has the key of its own.
//!
//! As SPIRE's node attestor `x509pop`: any path to an anchor counts, whatever the certificate is for; the node signs the SHA-256
//! of a nonce of ours and one of its own. Anchors are an operator's choice, and never those of a trust domain.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature as lc;
use data_encoding::HEXLOWER;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::life::Moment;
use crate::selector::Selector;
use crate::selector::node::X509POP;
use crate::signature::ALGORITHMS;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::x509_svid::unix_time;

/// Authorities whose certificates nodes are known by.
#[derive(Clone, Debug, Default)]
pub struct Anchors(Vec<Anchor>);

#[derive(Clone, Debug)]
struct Anchor {
    trust: TrustAnchor<'static>,
    from: UnixTime,
    until: UnixTime,
    sha1: String,
}

/// A certificate that leads to an anchor. Only [`Anchors::verify`] makes one. That who shows it has its key,
/// [`ShownCertificate::possessed`] says.
#[derive(Clone, Debug)]
pub struct ShownCertificate {
    sha1: String,
    common_name: Option<String>,
    /// Hex, of an even number of digits.
    serial: String,
    uris: Vec<String>,
    /// SHA-1 of those above it.
    authorities: Vec<String>,
    until: UnixTime,
    key: Key,
}

/// As SEC 1 or PKCS #1 write it.
#[derive(Clone, Debug)]
enum Key {
    Rsa(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
}

/// How a node shows that it has its key.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// RSA-PSS with SHA-256, and a salt of any length that Go's library makes.
    Rsa(&'a [u8]),
    /// ECDSA with SHA-256: r and s, big endian.
    Ecdsa(&'a [u8], &'a [u8]),
}

/// Why a node is not known by what it shows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum X509PopError {
    /// An anchor that is none.
    #[error("no certificates of authorities in PEM, or one that cannot be an anchor")]
    Anchor,
    /// No certificate at all.
    #[error("no certificate was shown")]
    Empty,
    /// One that does not read.
    #[error("certificate {0} of the chain is not one in DER")]
    Malformed(usize),
    /// No path leads to an anchor.
    #[error("no valid path leads from the certificate to an authority that nodes are known by")]
    Path(#[source] webpki::Error),
    /// It has ended, or one above it has.
    #[error("a certificate of the chain ended at {ended}, and here it is {now}")]
    Ended {
        /// When it ended.
        ended: Moment,
        /// What time it was taken to be.
        now: Moment,
    },
    /// It has not begun.
    #[error("a certificate of the chain begins at {begins}, and here it is {now}")]
    NotYet {
        /// When it begins.
        begins: Moment,
        /// What time it was taken to be.
        now: Moment,
    },
    /// A certificate that signs others is nobody's.
    #[error("an authority's certificate is not a node's")]
    Authority,
    /// Its key is not for signing.
    #[error("the certificate's key usage is without digitalSignature")]
    KeyUsage,
    /// A kind of key that nobody is asked to sign by here.
    #[error("the certificate's key is none of RSA-2048 to 8192, P-256 and P-384")]
    KeyKind,
    /// An answer by another kind of key.
    #[error("the answer is not of the kind of the certificate's key")]
    AnswerKind,
    /// A nonce of another length.
    #[error("a nonce has {NONCE_BYTES} bytes")]
    Nonce,
    /// Somebody else's signature, or one over something else.
    #[error("the answer is not signed by the certificate's key over the challenge")]
    Signature,
}

impl Anchors {
    /// Reads certificates in PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Anchors, X509PopError> {
        let mut anchors = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| X509PopError::Anchor)?;
            let trust = webpki::anchor_from_trusted_cert(&der).map_err(|_| X509PopError::Anchor)?.to_owned();
            let (from, until) = validity(&parse(&der).ok_or(X509PopError::Anchor)?);
            anchors.push(Anchor { trust, from, until, sha1: sha1(&der) });
        }
        if anchors.is_empty() { Err(X509PopError::Anchor) } else { Ok(Anchors(anchors)) }
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, other: Anchors) -> Anchors {
        self.0.extend(other.0);
        self
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Verifies a chain, the node's own certificate first.
    pub fn verify<C: AsRef<[u8]>>(
        &self,
        chain: &[C],
        now: UnixTime,
    ) -> Result<ShownCertificate, X509PopError> {
        let (own, above) = chain.split_first().ok_or(X509PopError::Empty)?;
        let own = CertificateDer::from(own.as_ref());
        let certificate = parse(&own).ok_or(X509PopError::Malformed(0))?;
        let key = check(&certificate)?;
        let (authorities, until) = self.path(&own, above, now)?;
        let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.iter().flat_map(|extension| extension.value.general_names.iter());
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        Ok(ShownCertificate {
            sha1: sha1(&own),
            common_name: name.filter(|name| !name.is_empty()).map(str::to_owned),
            serial: serial(certificate.raw_serial()),
            uris: names.filter_map(uri).collect(),
            authorities,
            until: until.min(validity(&certificate).1),
            key,
        })
    }

    /// The authorities above it, and when the first of them ends.
    fn path<C: AsRef<[u8]>>(
        &self,
        own: &CertificateDer<'_>,
        above: &[C],
        now: UnixTime,
    ) -> Result<(Vec<String>, UnixTime), X509PopError> {
        let own = EndEntityCert::try_from(own).map_err(path_error)?;
        let above: Vec<_> = above.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
        let standing: Vec<&Anchor> =
            self.0.iter().filter(|anchor| anchor.from <= now && now <= anchor.until).collect();
        let trust: Vec<TrustAnchor<'_>> = standing.iter().map(|anchor| anchor.trust.clone()).collect();
        let path = own
            .verify_for_usage(ALGORITHMS, &trust, &above, now, AnyUsage, None, None)
            .map_err(path_error)?;
        let mut authorities = Vec::new();
        let mut until = Vec::new();
        for intermediate in path.intermediate_certificates() {
            let der = intermediate.der();
            let certificate = parse(&der).ok_or(X509PopError::Malformed(authorities.len() + 1))?;
            until.push(validity(&certificate).1);
            authorities.push(sha1(&der));
        }
        let anchor = standing.iter().find(|anchor| anchor.trust == *path.anchor());
        let anchor = anchor.ok_or(X509PopError::Path(webpki::Error::UnknownIssuer))?;
        authorities.push(anchor.sha1.clone());
        Ok((authorities, until.into_iter().fold(anchor.until, UnixTime::min)))
    }
}

impl ShownCertificate {
    /// Whether its key is an RSA key, so that it is asked for the right kind of answer.
    pub fn is_rsa(&self) -> bool {
        matches!(self.key, Key::Rsa(_))
    }

    /// When the first certificate of its path ends.
    pub fn until(&self) -> UnixTime {
        self.until
    }

    /// The ID of the node: by the SHA-1 of its certificate, as SPIRE has it. It names what was verified and stands for nothing.
    pub fn spiffe_id(&self, trust_domain: &TrustDomain) -> SpiffeId {
        trust_domain
            .with_path(&format!("/spire/agent/x509pop/{}", self.sha1))
            .expect("hex digits are a segment of a path")
    }

    /// What aliases choose it by; what cannot be written as a selector is left out.
    pub fn selectors(&self, trust_domain: &TrustDomain) -> Vec<Selector> {
        let prefix = format!("x509pop://{trust_domain}/");
        let san = |uri: &String| {
            let (key, value) = uri.strip_prefix(&prefix)?.trim_matches('/').split_once('/')?;
            Some(format!("san:{key}:{value}"))
        };
        let name = self.common_name.iter().map(|name| format!("subject:cn:{name}"));
        let above = self.authorities.iter().map(|sha1| format!("ca:fingerprint:{sha1}"));
        let serial = [format!("serialnumber:{}", self.serial)];
        let values = name.chain(above).chain(serial).chain(self.uris.iter().filter_map(san));
        values.filter_map(|value| Selector::parse(X509POP, &value).ok()).collect()
    }

    /// Checks that whoever answers has its key: over our nonce, and one of theirs.
    pub fn possessed(
        &self,
        nonce: &[u8; NONCE_BYTES],
        theirs: &[u8],
        answer: Answer<'_>,
    ) -> Result<(), X509PopError> {
        if theirs.len() != NONCE_BYTES {
            return Err(X509PopError::Nonce);
        }
        let message = [nonce.as_slice(), theirs].concat();
        let holds = |algorithm: &'static dyn lc::VerificationAlgorithm, key: &[u8], signature: &[u8]| {
            lc::UnparsedPublicKey::new(algorithm, key).verify(&message, signature).is_ok()
        };
        let is_good = match (&self.key, answer) {
            (Key::Rsa(key), Answer::Rsa(signature)) => {
                holds(&RSA_PSS_LONG_SALT, key, signature)
                    || holds(&lc::RSA_PSS_2048_8192_SHA256, key, signature)
            }
            (Key::P256(key), Answer::Ecdsa(r, s)) => holds(&lc::ECDSA_P256_SHA256_ASN1, key, &ecdsa(r, s)?),
            (Key::P384(key), Answer::Ecdsa(r, s)) => holds(&lc::ECDSA_P384_SHA256_ASN1, key, &ecdsa(r, s)?),
            _ => return Err(X509PopError::AnswerKind),
        };
        if is_good { Ok(()) } else { Err(X509PopError::Signature) }
    }
}

/// Whatever a certificate is for: an operator said whose certificates name nodes.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn parse<'a>(der: &'a [u8]) -> Option<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) if certificate.extensions_map().is_ok() => Some(certificate),
        _ => None,
    }
}

/// That it is a node's and not an authority's, and for signing; its key.
fn check(certificate: &X509Certificate<'_>) -> Result<Key, X509PopError> {
    let malformed = |_| X509PopError::Malformed(0);
    let is_authority = certificate.basic_constraints().map_err(malformed)?.is_some_and(|it| it.value.ca);
    let usage = certificate.key_usage().map_err(malformed)?.ok_or(X509PopError::KeyUsage)?;
    if is_authority || usage.value.key_cert_sign() {
        return Err(X509PopError::Authority);
    }
    if !usage.value.digital_signature() {
        return Err(X509PopError::KeyUsage);
    }
    let info = certificate.public_key();
    let bits = info.subject_public_key.data.to_vec();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) if (2048..=8192).contains(&key.key_size()) => Ok(Key::Rsa(bits)),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 => Ok(Key::P256(bits)),
            384 => Ok(Key::P384(bits)),
            _ => Err(X509PopError::KeyKind),
        },
        _ => Err(X509PopError::KeyKind),
    }
}

fn path_error(error: webpki::Error) -> X509PopError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            X509PopError::Ended { ended: Moment(not_after), now: Moment(time) }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            X509PopError::NotYet { begins: Moment(not_before), now: Moment(time) }
        }
        webpki::Error::CaUsedAsEndEntity => X509PopError::Authority,
        error => X509PopError::Path(error),
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (UnixTime, UnixTime) {
    let validity = certificate.validity();
    (unix_time(validity.not_before), unix_time(validity.not_after))
}

fn sha1(der: &[u8]) -> String {
    HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}

/// As SPIRE writes it: no zero byte before it.
fn serial(integer: &[u8]) -> String {
    let start = integer.iter().position(|byte| *byte != 0).unwrap_or(integer.len().saturating_sub(1));
    HEXLOWER.encode(integer.get(start..).unwrap_or_default())
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3).
fn ecdsa(r: &[u8], s: &[u8]) -> Result<Vec<u8>, X509PopError> {
    let integer = |bytes: &[u8]| -> Result<Vec<u8>, X509PopError> {
        let start = bytes.iter().position(|byte| *byte != 0).ok_or(X509PopError::Signature)?;
        let digits = bytes.get(start..).unwrap_or_default();
        // A positive number has its highest bit clear.
        let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
        let length =
            u8::try_from(sign.len() + digits.len()).ok().filter(|length| *length <= COORDINATE_BYTES_MAX);
        Ok([&[0x02, length.ok_or(X509PopError::Signature)?], sign, digits].concat())
    };
    let both = [integer(r)?, integer(s)?].concat();
    let length = u8::try_from(both.len()).map_err(|_| X509PopError::Signature)?;
    Ok([&[0x30, length], both.as_slice()].concat())
}

/// Of either side.
pub const NONCE_BYTES: usize = 32;
/// Of P-384, and one for the sign: twice that is below 128, so that every length is one byte.
const COORDINATE_BYTES_MAX: u8 = 49;
/// Go's library makes the salt as long as fits if nobody says how long.
static RSA_PSS_LONG_SALT: lc::RsaParameters =
    lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(lc::RsaPssSaltLength::Max);

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair};
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};

    use super::*;

    fn shown(key: &KeyPair) -> ShownCertificate {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        let root = params.self_signed(&root_key).unwrap();
        let issuer = Issuer::new(params, root_key);
        let mut params = CertificateParams::default();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let own = params.signed_by(key, &issuer).unwrap();
        let anchors = Anchors::from_pem(root.pem().as_bytes()).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        anchors.verify(&[own.der()], now).unwrap()
    }

    #[test]
    fn numbers_of_a_signature_are_written_as_der_has_them() {
        assert_eq!(ecdsa(&[0, 0, 1], &[0x80]).unwrap(), [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        for (r, s) in [(&[][..], &[1][..]), (&[1], &[0, 0]), (&[1; 50], &[1])] {
            assert_eq!(ecdsa(r, s), Err(X509PopError::Signature));
        }
    }

    #[test]
    fn a_key_of_another_curve_does_not_answer_for_this_one() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = shown(&p384);
        let signing =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, p384.serialized_der()).unwrap();
        // By SHA-384, which nobody asked for.
        let signature = signing.sign(&SystemRandom::new(), &[[1; 32], [2; 32]].concat()).unwrap();
        let body = signature.as_ref().get(2..).unwrap();
        let (r, s) = body.get(2..).unwrap().split_at(usize::from(body[1]));
        let answer = Answer::Ecdsa(r, s.get(2..).unwrap());
        assert_eq!(certificate.possessed(&[1; 32], &[2; 32], answer), Err(X509PopError::Signature));
        assert_eq!(certificate.possessed(&[1; 32], &[2; 31], answer), Err(X509PopError::Nonce));
        let rsa = Answer::Rsa(&[0; 256]);
        assert_eq!(certificate.possessed(&[1; 32], &[2; 32], rsa), Err(X509PopError::AnswerKind));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_chain_or_refused(chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..99), 0..3)) {
            let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
            prop_assert!(Anchors::default().verify(&chain, now).is_err());
            for bytes in &chain {
                prop_assert!(Anchors::from_pem(bytes).is_err());
            }
        }
    }
}
