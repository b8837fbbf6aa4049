//! Revocation lists: what an authority took back endorses nothing, and only its own complete list says so.

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::ek_certificate::{
    EkCertificate, Endorsers, ListStanding, TrustAnchor, verify_ek_certificate,
};
use assay_evidence::tpm::revocation::{RevocationList, RevocationListError};
use assay_evidence::{Check, Failure};
use assay_testkit::software_device::{EkKind, EkMaker, EndorsementKey};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CrlScope, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};

const AT: UnixTime = UnixTime(1_800_000_000);

/// A maker, an EK certificate of its, and whom an operator trusts.
struct Stage {
    maker: EkMaker,
    ek: EndorsementKey,
    anchors: Vec<TrustAnchor>,
}

impl Stage {
    fn new() -> Stage {
        let maker = EkMaker::new().unwrap();
        let anchors = TrustAnchor::from_pem_or_der(maker.root_ca()).unwrap();
        Stage { ek: EndorsementKey::generate(EkKind::P256).unwrap(), maker, anchors }
    }

    fn verify(&self, lists: &[Vec<u8>]) -> Result<EkCertificate, Vec<Failure>> {
        let lists = lists.iter().flat_map(|list| RevocationList::from_pem_or_der(list).unwrap()).collect();
        let endorsers = Endorsers::new(self.anchors.clone(), lists);
        let leaf = self.maker.certify(&self.ek).unwrap();
        verify_ek_certificate(&leaf, &[self.maker.issuing_ca()], &endorsers, AT)
    }

    fn serial(&self) -> Vec<u8> {
        self.ek.certificate_serial()
    }
}

#[test]
fn a_revoked_certificate_endorses_nothing() {
    let stage = Stage::new();
    assert_eq!(known(&stage, &[]), NOTHING);
    let others = stage.maker.revoke(&[&[7], &[8; 20]]).unwrap();
    assert!(matches!(known(&stage, &[others])[..], [ListStanding::Until(_), ListStanding::Missing]));

    let failures = stage.verify(&[stage.maker.revoke(&[&[7], &stage.serial()]).unwrap()]).unwrap_err();
    let [failure] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!(failure.check, Check::EkRevoked);
    assert!(failure.claim.ends_with(&data_encoding::HEXLOWER.encode(&stage.serial())), "{failure}");
    assert_eq!(failure.expected, "not revoked by CN=Example TPM EK CA");
    assert_eq!(failure.found, "revoked since 2020-02-01T00:00:00Z: keyCompromise");
}

/// What is known of the authorities above the EK: the issuing CA, then the root.
fn known(stage: &Stage, lists: &[Vec<u8>]) -> Vec<ListStanding> {
    let certificate = stage.verify(lists).unwrap();
    let names = ["CN=Example TPM EK CA", "CN=Example TPM Root CA"];
    let known: Vec<_> = certificate.revocation_lists().to_vec();
    assert!(known.iter().map(|known| known.issuer.as_str()).eq(names), "{known:?}");
    known.into_iter().map(|known| known.list).collect()
}

const NOTHING: [ListStanding; 2] = [ListStanding::Missing; 2];

#[test]
fn a_revoked_authority_endorses_nothing() {
    let mut stage = Stage::new();
    let list = stage.maker.revoke_issuing_ca().unwrap();
    let checks = |stage: &Stage| -> Vec<_> {
        let failures = stage.verify(std::slice::from_ref(&list)).unwrap_err();
        failures.into_iter().map(|failure| (failure.check, failure.claim)).collect()
    };
    let expected = [(Check::EkRevoked, "CN=Example TPM EK CA, serial number 1234".to_owned())];
    assert_eq!(checks(&stage), expected);
    // Trusted as an anchor beside the root that took it back: the path ends at it, and the root is heard all the same.
    stage.anchors.insert(0, TrustAnchor::from_pem_or_der(stage.maker.issuing_ca()).unwrap().remove(0));
    assert_eq!(checks(&stage), expected);
    // Trusted alone: nobody is there to speak against it.
    stage.anchors.pop();
    stage.verify(std::slice::from_ref(&list)).unwrap();
}

#[test]
fn a_list_past_its_time_still_says_what_it_says() {
    let stage = Stage::new();
    let stale = stage.maker.stale_revocation_list(&[&[7]]).unwrap();
    let ended = ListStanding::Until(UnixTime::from_rfc3339("2021-01-01T00:00:00Z").unwrap());
    assert_eq!(known(&stage, std::slice::from_ref(&stale)), [ended, ListStanding::Missing]);
    let stale = stage.maker.stale_revocation_list(&[&stage.serial()]).unwrap();
    assert_eq!(stage.verify(&[stale]).unwrap_err()[0].check, Check::EkRevoked);
}

#[test]
fn only_the_authority_itself_takes_back() {
    let stage = Stage::new();
    // Its list with another entry than the one that was signed.
    let mut forged = stage.maker.revoke(&[&[0x55; 16]]).unwrap();
    let at = forged.windows(16).position(|window| window == [0x55; 16]).unwrap();
    forged[at..at + 16].copy_from_slice(&stage.serial());
    assert_eq!(known(&stage, &[forged.clone()]), [ListStanding::NotSigned, ListStanding::Missing]);
    // A good one beside it: nothing is left in doubt.
    let good = stage.maker.revoke(&[&[7]]).unwrap();
    assert!(matches!(known(&stage, &[forged, good])[..], [ListStanding::Until(_), ListStanding::Missing]));
    // A maker of the same names, whose key is another: not this authority's list at all.
    let other = EkMaker::new().unwrap().revoke(&[&stage.serial()]).unwrap();
    assert_eq!(known(&stage, &[other]), NOTHING);
    // The root speaks of what it issued, not of what the issuing CA did.
    let root = stage.maker.revoke_issuing_ca().unwrap();
    assert_eq!(stage.verify(&[root]).unwrap_err().len(), 1);
}

/// A CA of our own, to make lists that a maker does not.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        Authority(Issuer::new(params, KeyPair::generate().unwrap()))
    }

    fn list(&self, change: impl FnOnce(&mut CertificateRevocationListParams)) -> Vec<u8> {
        let mut params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(2027, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        change(&mut params);
        params.signed_by(&self.0).unwrap().der().to_vec()
    }
}

fn error(bytes: &[u8]) -> RevocationListError {
    RevocationListError::clone(&RevocationList::from_pem_or_der(bytes).map(|_| ()).unwrap_err())
}

#[test]
fn a_list_that_may_not_be_complete_is_refused() {
    let authority = Authority::new();
    assert!(RevocationList::from_pem_or_der(&authority.list(|_| {})).is_ok());
    let partial = authority.list(|list| {
        list.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec!["http://example.com/crl".into()] },
            scope: Some(CrlScope::UserCertsOnly),
        });
    });
    assert_eq!(error(&partial), RevocationListError::Critical("2.5.29.28".to_owned()));
    let delta = authority.list(|list| {
        list.revoked_certs.push(RevokedCertParams {
            serial_number: 7.into(),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: Some(RevocationReason::RemoveFromCrl),
            invalidity_date: None,
        });
    });
    assert_eq!(error(&delta), RevocationListError::Delta);
    // The number's identifier turned into deltaCRLIndicator's; it is not critical then, and so no delta list.
    let mut unknown = authority.list(|_| {});
    let number = unknown.windows(5).position(|window| window == [0x06, 0x03, 0x55, 0x1d, 0x14]).unwrap();
    unknown[number + 4] = 0x1b;
    assert!(RevocationList::from_pem_or_der(&unknown).is_ok());
}

#[test]
fn lists_are_read_from_der_and_pem() {
    let authority = Authority::new();
    let der = authority.list(|_| {});
    let pem = |label: &str| {
        let body = data_encoding::BASE64.encode(&der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    };
    let two = [pem("X509 CRL"), pem("X509 CRL")].concat();
    assert_eq!(RevocationList::from_pem_or_der(two.as_bytes()).unwrap().len(), 2);
    assert_eq!(error(pem("CERTIFICATE").as_bytes()), RevocationListError::Pem);
    assert_eq!(error(b""), RevocationListError::Pem);
    assert_eq!(error(&der[..der.len() - 1]), RevocationListError::Der);
    assert_eq!(error(&[der.as_slice(), &[0]].concat()), RevocationListError::Der);
    assert_eq!(error(&vec![0x30; (8 << 20) + 1]), RevocationListError::TooLong((8 << 20) + 1));
    // Version 1 has no version in it.
    let mut old = der.clone();
    let version = old.windows(3).position(|window| window == [2, 1, 1]).unwrap();
    old[version + 2] = 0;
    assert_eq!(error(&old), RevocationListError::Version);
}

proptest! {
    #[test]
    fn no_bytes_make_a_list_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = RevocationList::from_pem_or_der(&bytes);
    }

    #[test]
    fn no_changed_list_takes_back(position in 0usize..400, value in any::<u8>()) {
        let stage = Stage::new();
        let list = stage.maker.revoke(&[&stage.serial()]).unwrap();
        let mut changed = list.clone();
        let position = position % changed.len();
        changed[position] = value;
        if let Ok(lists) = RevocationList::from_pem_or_der(&changed) {
            let endorsers = Endorsers::new(stage.anchors.clone(), lists);
            let leaf = stage.maker.certify(&stage.ek).unwrap();
            let verified = verify_ek_certificate(&leaf, &[stage.maker.issuing_ca()], &endorsers, AT);
            prop_assert_eq!(verified.is_err(), changed == list);
        }
    }
}
